"""Imported by the server that `job_processes` forks from: what every job would load again."""

import gc
import importlib

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from huggingtweets.data.language import detect_languages

for name in (
    "deepspeed",
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "transformers.models.gpt2.modeling_gpt2",
    "huggingtweets.jobs.runner",
):
    importlib.import_module(name)
get_checkpoint_conversion_mapping("gpt2")
detect_languages(["a post in English"])
gc.collect()
gc.freeze()
