"""Whether and where W&B is to be reached, told without importing it."""

import configparser
import netrc
import os
from urllib.parse import urlsplit

from huggingtweets.config.results_schema import WandbMode
from huggingtweets.storage.paths import expanded

DEFAULT_URL = "https://api.wandb.ai"
_OLD_MODES = {"dryrun": "offline", "run": "online"}
"""Values of $WANDB_MODE that W&B has renamed and still takes (0.31)."""


def choose_mode(mode: WandbMode | None) -> WandbMode:
    """Resolve `tracking.mode`; null: $WANDB_MODE, else online with credentials, else offline."""
    if mode is not None:
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return WandbMode.disabled
    asked = os.environ.get("WANDB_MODE", "")
    asked = _OLD_MODES.get(asked, asked)
    if asked in WandbMode.__members__:
        return WandbMode(asked)
    return WandbMode.online if has_credentials() else WandbMode.offline


def has_credentials() -> bool:
    """Whether a key or token for the server is in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    paths = [os.environ.get("NETRC", ""), "~/.netrc", "~/_netrc"]
    try:
        path = next((expanded(p) for p in paths if p and expanded(p).exists()), None)
        found = path and netrc.netrc(path).authenticators(urlsplit(base_url()).netloc)
    except (OSError, ValueError, netrc.NetrcParseError):  # ValueError: it is no text
        return False
    return bool(found and found[2])


def base_url() -> str:
    """Address of the server: $WANDB_BASE_URL, else of `wandb login --host`, else the public one."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url.rstrip("/")
    folder = os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(expanded(folder) / "settings", encoding="utf-8")
        return settings.get("default", "base_url", fallback=DEFAULT_URL).rstrip("/")
    except (configparser.Error, OSError, ValueError):
        return DEFAULT_URL
