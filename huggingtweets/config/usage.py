"""What `huggingtweets train --help` prints.

Hydra 1.3 prints the same from the same template, but composes every option of every group twice to
list their names: a second and a half of processor time.
"""

from collections.abc import Sequence
from string import Template

import yaml
from omegaconf import OmegaConf

from huggingtweets.config.compose import compose_config
from huggingtweets.config.overrides import CONFIG_DIR, option_names


def usage(overrides: Sequence[str]) -> str:
    """Return the page for these overrides: how to call it, the options, all that is in effect.

    Raises:
        ConfigError: an override is wrong.
    """
    composed = compose_config(overrides)
    primary = yaml.safe_load((CONFIG_DIR / "train.yaml").read_text(encoding="utf-8"))
    groups = sorted(path.name for path in CONFIG_DIR.iterdir() if path.is_dir())
    lines = [f"{group}: {', '.join(names)}" for group in groups if (names := option_names(group))]
    return Template(primary["hydra"]["help"]["template"]).substitute(
        APP_CONFIG_GROUPS="\n".join(lines), CONFIG=OmegaConf.to_yaml(composed)
    )
