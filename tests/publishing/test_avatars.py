"""Profile pictures over real TLS on the loopback; nothing is fetched unasked."""

import io
import random
import shutil
import ssl
import subprocess
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from huggingtweets.config.plan import make_plan
from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.config.results_schema import PublishConfig
from huggingtweets.config.schema import TrainConfig
from huggingtweets.errors import SourceError
from huggingtweets.handles import Job
from huggingtweets.posts.records import Timeline
from huggingtweets.preview.avatars import (
    MAX_BYTES,
    SIDE,
    fetch_picture,
    read_pictures,
    remade,
    write_pictures,
)
from huggingtweets.preview.picture import draw_preview

SECRET = b"taken at 48.8584 N 2.2945 E"


def encoded(kind: str, size: tuple[int, int] = (300, 200), colour: str = "#ff0000") -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", size, colour)
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    options: dict[str, Any] = {} if kind == "GIF" else {"exif": exif}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class Pictures(ThreadingHTTPServer):
    """Gives what is in `answers`: status, headers, body; by path."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.host = f"localhost:{self.server_port}"
        self.requests: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust us goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: Pictures

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def server(certificate: Path) -> Iterator[Pictures]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    running = Pictures(context)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def trusted(server: Pictures, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """The server, whose certificate this machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    return server


def fetch(server: Pictures, path: str = "/a.png") -> bytes:
    return fetch_picture(f"https://{server.host}{path}", [server.host])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_is_made_anew_from_its_pixels(trusted: Pictures, kind: str) -> None:
    sent = encoded(kind)
    trusted.answers["/a.png"] = (200, {}, sent)
    data = remade(fetch(trusted))
    assert SECRET in sent or kind == "GIF"
    assert SECRET not in data
    assert b"eXIf" not in data
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size, image.mode) == ("PNG", (SIDE, SIDE), "RGB")
    red, green, blue = image.getpixel((200, 200))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 20


def test_redirects_are_followed_on_the_same_host_alone(
    trusted: Pictures, server: Pictures, certificate: Path
) -> None:
    trusted.answers["/b.png"] = (200, {}, b"here")
    trusted.answers["/a.png"] = (302, {"Location": "/b.png"}, b"")
    assert fetch(trusted) == b"here"
    trusted.answers["/a.png"] = (302, {"Location": "/a.png"}, b"")
    with pytest.raises(SourceError, match="redirects more than"):
        fetch(trusted)
    elsewhere = {
        "https://127.0.0.1:9/b.png": "expected https from",
        f"http://{trusted.host}/b.png": "expected https from",
        "//evil.example/b.png": "expected https from",
        f"https://{trusted.host}@evil.example/": "expected https from",
        "https://[": "expected https from",
    }
    for target, words in elsewhere.items():
        trusted.answers["/a.png"] = (301, {"Location": target}, b"")
        with pytest.raises(SourceError, match=words):
            fetch(trusted)
    trusted.answers["/a.png"] = (301, {"Location": "https://other.example/b.png"}, b"")
    with pytest.raises(SourceError, match=r"got a redirect to 'other"):
        fetch_picture(f"https://{trusted.host}/a.png", [trusted.host, "other.example"])


@pytest.mark.parametrize("length", ["announced", "hidden"])
def test_more_than_two_megabytes_are_not_taken(trusted: Pictures, length: str) -> None:
    headers = {} if length == "announced" else {"Content-Length": ""}
    trusted.answers["/a.png"] = (200, headers, bytes(MAX_BYTES))
    assert len(fetch(trusted)) == MAX_BYTES
    trusted.answers["/a.png"] = (200, headers, bytes(MAX_BYTES + 1))
    with pytest.raises(SourceError, match="got an answer of"):
        fetch(trusted)


@pytest.mark.parametrize(
    "url",
    [
        "http://HOST/a.png",
        "https://HOST.evil.example/a.png",
        "https://user@HOST/a.png",
        "ftp://HOST/a.png",
        "file:///etc/passwd",
        "https:///a.png",
        "",
    ],
)
def test_only_https_from_the_list_is_asked(trusted: Pictures, url: str) -> None:
    with pytest.raises(SourceError, match=r"publish\.picture_hosts: got a picture at"):
        fetch_picture(url.replace("HOST", trusted.host), [trusted.host])
    with pytest.raises(SourceError, match="expected https from no host"):
        fetch_picture(f"https://{trusted.host}/a.png", [])
    assert trusted.requests == []


def test_a_certificate_nobody_vouches_for_is_refused(server: Pictures) -> None:
    server.answers["/a.png"] = (200, {}, encoded("PNG"))
    with pytest.raises(SourceError, match="its certificate is not valid"):
        fetch(server)
    assert server.requests == []


def test_a_small_file_of_very_many_pixels_is_refused() -> None:
    bomb = encoded("PNG", (9000, 9000))
    assert len(bomb) < MAX_BYTES
    with pytest.raises(SourceError, match="9000 x 9000 pixels"):
        remade(bomb)


def test_other_threads_keep_their_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of warnings are the process's: users are prepared beside a training."""
    seen = []
    opened = Image.open

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(list(warnings.filters))
        return opened(*args, **options)

    before = list(warnings.filters)
    monkeypatch.setattr(Image, "open", spy)
    remade(encoded("PNG"))
    assert seen == [before]


def test_what_is_no_picture_is_one_sentence() -> None:
    good = encoded("PNG", (64, 64))
    rng = random.Random(0)
    others = [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe EPSF", good[:60]]
    for number in range(300):
        data = bytearray(encoded(("PNG", "JPEG", "WEBP", "GIF")[number % 4], (64, 64)))
        for _ in range(1 + number % 5):
            data[rng.randrange(len(data))] = rng.randrange(256)
        others.append(bytes(data))
    num_refused = 0
    for data in others:
        try:
            assert remade(data).startswith(b"\x89PNG")
        except SourceError as err:
            num_refused += 1
            assert str(err).startswith("picture: got ")  # noqa: PT017 - some are read
    assert num_refused > 30


def test_pictures_stand_in_the_preview(
    trusted: Pictures, tmp_path: Path, make_facts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trusted.answers["/a.png"] = (200, {}, encoded("PNG"))
    people = [
        Timeline("ada_l", "Ada", (), picture_url=f"https://{trusted.host}/a.png"),
        Timeline("bob", "Bob", (), picture_url=f"https://{trusted.host}/gone.png"),
        Timeline("cleo", "Cleo", ()),
    ]
    write_pictures(tmp_path / "pictures", people, [trusted.host])
    assert "@bob: no profile picture" in caplog.text
    assert "@cleo: the posts do not say" in caplog.text
    pictures = read_pictures(tmp_path / "pictures", ["ada_l", "bob", "cleo"])
    assert list(pictures) == ["ada_l"]
    facts = make_facts()
    plain, pictured = draw_preview(facts), draw_preview(replace(facts, pictures=pictures))
    place = (100, 118)
    assert pictured.getpixel(place) == (255, 0, 0)
    assert plain.getpixel(place) != (255, 0, 0)


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_job_fetches_pictures_only_when_asked(
    trusted: Pictures, tmp_path: Path, is_asked: bool
) -> None:
    from huggingtweets.pipeline.stages import begin_job

    trusted.answers["/x_400x400.png"] = (200, {}, encoded("JPEG"))
    user = {
        "screen_name": "ann",
        "name": "Ann",
        "profile_image_url_https": f"https://{trusted.host}/x_normal.png",
    }
    rng = random.Random(0)
    rows = [
        f'{{"id_str": "{n}", "full_text": "{" ".join(rng.choices("abcdef", k=30))}", '
        f'"user": {str(user).replace(chr(39), chr(34))}}}'
        for n in range(200)
    ]
    (tmp_path / "ann.jsonl").write_text("\n".join(rows))
    config = TrainConfig(
        output_dir=str(tmp_path / "out"),
        source=SourceConfig(kind=SourceKind.jsonl, path=str(tmp_path / "ann.jsonl")),
        publish=PublishConfig(pictures=is_asked, picture_hosts=[trusted.host]),
    )
    begin_job(make_plan(config, Job.of(["ann"])))
    assert trusted.requests == (["/x_400x400.png"] if is_asked else [])
    assert (tmp_path / "out" / "ann" / "pictures" / "ann.png").exists() is is_asked
