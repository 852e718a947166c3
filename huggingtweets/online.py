"""Whether the Hub can be reached, asked once and within two seconds.

Left to themselves, the Hub's libraries try for half a minute before they give up.
"""

import logging
import os
import threading
from http import HTTPStatus
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 1.5
_OF_A_SERVER = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.TOO_MANY_REQUESTS,
}
"""Refusals that come from the Hub itself."""
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
    if _answers(os.environ.get("HF_ENDPOINT") or _ENDPOINT):
        return True
    os.environ["HF_HUB_OFFLINE"] = "1"
    logger.warning(
        "the Hub does not answer; only what is on this machine is used (as with HF_HUB_OFFLINE=1)"
    )
    return False


def _answers(url: str) -> bool:
    """Whether a server answers, by way of the proxy where there is one.

    In a thread, as the search for a name knows no time limit. A proxy that cannot reach the server,
    or may not, answers as well: by another code, or by refusing the tunnel.
    """
    found = threading.Event()

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=ANSWER_WITHIN_S):
                found.set()
        except HTTPError as err:
            if err.code in _OF_A_SERVER:
                found.set()
        except (OSError, ValueError, HTTPException):
            pass

    thread = threading.Thread(target=ask, name="online", daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return found.is_set()
