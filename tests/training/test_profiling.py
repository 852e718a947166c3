import json
from pathlib import Path

import torch

from huggingtweets.training.modules.profiling import ACTIVE, SKIPPED, profiled


def test_profiled_leaves_trace_and_table_and_no_hook(tmp_path: Path) -> None:
    module = torch.nn.Linear(8, 8)
    with profiled(module, tmp_path / "profile"):
        for _ in range(SKIPPED + ACTIVE + 4):
            module(torch.ones(2, 8)).sum().backward()
    assert "aten::" in (tmp_path / "profile" / "operators.txt").read_text()
    events = json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert len(steps) == ACTIVE
    assert not module._forward_pre_hooks
