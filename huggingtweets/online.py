"""Whether the Hub can be reached, asked once and within two seconds.

Left to themselves, the Hub's libraries try for half a minute before they give up.
"""

import logging
import os
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 1.5
_ENDPOINT = "https://huggingface.co"


def is_offline_wanted() -> bool:
    """Whether the environment says that the Hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}


def go_offline_if_unreachable() -> bool:
    """Have this process and its children go without the Hub if nothing answers there.

    Call it before `huggingface_hub` is imported, which reads the setting once.

    Returns:
        Whether the Hub can be asked.
    """
    if is_offline_wanted():
        return False
    if _answers(_hub_address()):
        return True
    os.environ["HF_HUB_OFFLINE"] = "1"
    logger.warning(
        "the Hub does not answer; only what is on this machine is used (as with HF_HUB_OFFLINE=1)"
    )
    return False


def _hub_address() -> tuple[str, int]:
    """Return host and port of the Hub, or of the proxy on the way to it."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or _ENDPOINT)
    proxy = getproxies().get(endpoint.scheme)
    target = urlsplit(proxy if proxy and "//" in proxy else f"//{proxy}") if proxy else endpoint
    return target.hostname or "", target.port or (80 if target.scheme == "http" else 443)


def _answers(address: tuple[str, int]) -> bool:
    """Whether a connection is taken. In a thread, as the search for a name knows no time limit."""
    found = threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection(address, ANSWER_WITHIN_S):
            found.set()

    thread = threading.Thread(target=connect, name="online", daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return found.is_set()
