"""Profile pictures: fetched when asked for, from known hosts alone, and made again from the pixels.

A picture that cannot be had costs a warning, never the job.
"""

import io
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from PIL import Image, ImageOps

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.records import Timeline
from huggingtweets.storage.files import write_bytes
from huggingtweets.web import FailedError, UntrustedError, follow

logger = logging.getLogger(__name__)

MAX_BYTES = 2_000_000
MAX_PIXELS = 16_000_000
"""Of the picture as received: a small file may hold a very large one."""
SIDE = 400
"""Pixels of what is kept, a square."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Of Pillow's decoders these alone meet what a stranger sends."""
_TIMEOUT_S, _DEADLINE_S = 10.0, 30.0
_HEADERS = {
    "Accept": "image/png,image/jpeg,image/webp,image/gif",
    "Accept-Encoding": "identity",
    "User-Agent": "huggingtweets",
}


def write_pictures(folder: Path, timelines: Sequence[Timeline], hosts: Collection[str]) -> None:
    """Fetch the pictures of people into `HANDLE.png`, where the posts say where they are."""
    for timeline in timelines:
        handle, url = timeline.handle, timeline.picture_url
        if url is None:
            logger.warning("@%s: the posts do not say where the profile picture is", handle)
            continue
        try:
            data = remade(fetch_picture(url, hosts))
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / f"{handle}.png", data)
        except SourceError as err:
            logger.warning("@%s: no profile picture: %s", handle, err)


def read_pictures(folder: Path, handles: Sequence[str]) -> dict[str, bytes]:
    """Return what `write_pictures` has kept, by handle."""
    paths = {handle: folder / f"{handle}.png" for handle in handles}
    return {handle: path.read_bytes() for handle, path in paths.items() if path.is_file()}


def fetch_picture(url: str, hosts: Collection[str]) -> bytes:
    """Get a file of at most `MAX_BYTES` by https from one of the hosts, and from no other.

    Raises:
        SourceError: it is elsewhere, leads elsewhere, is too large, or does not come.
    """
    target = _checked(url, hosts)

    def allow(there: SplitResult) -> None:
        if _checked(there.geturl(), hosts).netloc != target.netloc:
            raise SourceError(
                f"{target.netloc}: got a redirect to {show(there.netloc)}; expected the picture"
            )

    try:
        status, _, body = follow(
            target.geturl(),
            _HEADERS,
            allow=allow,
            timeout_s=_TIMEOUT_S,
            deadline_s=_DEADLINE_S,
            max_bytes=MAX_BYTES,
        )
    except UntrustedError as err:
        raise SourceError(
            f"{target.netloc}: its certificate is not valid ({show(str(err), 120)}); expected "
            "one this machine trusts"
        ) from err
    except FailedError as err:
        raise SourceError(f"{target.netloc}: {err}; expected a picture") from err
    if status != 200:
        raise SourceError(f"{target.netloc}: got HTTP {status}; expected a picture")
    return body


def remade(data: bytes) -> bytes:
    """Return a square PNG made again from the pixels alone: nothing else of the file is left.

    Raises:
        SourceError: it is not a picture of a kind we read, or too large a one.
    """
    try:
        # Nothing is done about warnings: their filters are the process's, not the thread's.
        file = Image.open(io.BytesIO(data), formats=_FORMATS)
        if file.width * file.height > MAX_PIXELS:
            raise SourceError(
                f"picture: got {file.width} x {file.height} pixels; expected at most {MAX_PIXELS:,}"
            )
        image = ImageOps.exif_transpose(file).convert("RGBA")
    except SourceError:
        raise
    except Exception as err:  # whatever a decoder raises on what a stranger sends
        raise SourceError(
            f"picture: got {len(data)} bytes that cannot be read ({type(err).__name__}); expected "
            f"{', '.join(_FORMATS)}"
        ) from err
    image = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS)
    ground = Image.new("RGB", image.size, "#ffffff")
    ground.paste(image, mask=image.getchannel("A"))
    buffer = io.BytesIO()
    ground.save(buffer, "PNG")
    return buffer.getvalue()


def _checked(url: str, hosts: Collection[str]) -> SplitResult:
    try:
        target = urlsplit(url)
    except ValueError:
        target = urlsplit("")
    if target.scheme != "https" or target.netloc.lower() not in hosts:
        raise SourceError(
            f"publish.picture_hosts: got a picture at {show(url, 120)}; expected https "
            f"from {', '.join(sorted(hosts)) or 'no host'}; add its host if you trust it"
        )
    return target
