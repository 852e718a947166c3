"""The rig: CUDA's branches on a CPU; helpers of the other rooms and of benchmarks/ are at hand."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
for folder in ("tests/training", "tests/config", "tests/pipeline", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
