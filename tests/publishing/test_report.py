import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from huggingtweets.preview.picture import preview_png
from huggingtweets.publishing.facts import (
    Artifact,
    DataCounts,
    Links,
    Sample,
    Table,
)
from huggingtweets.publishing.names import display_name, visible
from huggingtweets.publishing.report import (
    MAX_SAMPLES,
    funnel,
    parts,
    render_report,
)
from huggingtweets.publishing.terminal import show_summary
from huggingtweets.storage.files import write_text
from huggingtweets.storage.paths import JobPaths
from huggingtweets.training.records import Ending, Extraction, HeldoutLoss, LoggedEval

PNG = b"\x89PNG\r\n\x1a\n"


class _Page(HTMLParser):
    """Tags, fetched addresses, links and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(key.startswith("on") for key, _ in attrs)
        self.sources += [value or "" for key, value in attrs if key in ("src", "srcset", "data")]
        if tag == "link":
            self.sources += [value or "" for key, value in attrs if key == "href"]
        if tag == "a":
            self.links += [value or "" for key, value in attrs if key == "href"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.text += data


def test_page_needs_nothing_but_itself(make_facts):
    links = Links("https://wandb.ai/me/p/runs/a1", "javascript:alert(1)")
    html = render_report(make_facts(links=links), PNG)
    page = _Page(html)
    assert all(source.startswith("data:") for source in page.sources)
    assert page.links == ["https://wandb.ai/me/p/runs/a1"]
    assert "script" not in page.tags
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_page_tells_what_was_learnt_by_heart_and_why_training_ended(make_facts):
    evals = tuple(
        LoggedEval(
            10 * i,
            i,
            HeldoutLoss(20 - i, 7, 10),
            HeldoutLoss(20 - 2 * i, 7, 10),
            Extraction(9, i / 10, i / 5),
        )
        for i in range(4)
    )
    train = replace(make_facts().train, evals=evals, ended_by=Ending.heldout, kept_step=20)
    page = _Page(render_report(make_facts(train=train), PNG))
    text = " ".join(page.text.split())
    assert "Bits per byte over the epochs" in text
    assert "Memorised" in text
    assert "Training posts extracted by their first 8 tokens (per cent)" in text
    assert "the held-out loss no longer fell" in text
    assert "weights kept, of step20" in text
    assert "Memorised" not in _Page(render_report(make_facts(), PNG)).text


def test_page_shows_figures_counts_curves_samples_lineage_and_command(make_facts):
    page = _Page(render_report(make_facts(), PNG))
    text = " ".join(page.text.split())
    for expected in (
        "1.214",
        "1.431",
        "3,221 downloaded",
        "−1,002 retweets",
        "1,618 for training",
        "Loss (nats per token)",
        "Learning rate",
        "Tokens per second",
        "My dream is to weave algebra",
        "engines that never sleep & never complain",
        "finetuned-model",
        "accelerate launch train.py user=ada_l",
        "1 min 14 s",
        "synthetic, not the person",
    ):
        assert expected in text
    assert page.tags.count("svg") == 6


def test_sections_without_facts_do_not_show(make_facts):
    facts = make_facts(
        heldout=None,
        samples=(),
        train=replace(make_facts().train, history=(), evals=()),
        human_lengths=(),
        machine_lengths=(),
        lineage=(),
    )
    page = _Page(render_report(facts))
    assert "svg" not in page.tags
    assert "img" not in page.tags
    assert "Held-out posts" not in page.text
    assert "No samples were made." in page.text


def test_further_figures_show_when_there_are_some(make_facts):
    facts = make_facts(
        tables=(Table("Memorisation", ("figure", "samples"), (("equal", "2 %"),), "A note."),),
    )
    page = _Page(render_report(facts))
    plain = _Page(render_report(make_facts()))
    for expected in ("Memorisation", "2 %", "A note."):
        assert expected in page.text
        assert expected not in plain.text


def test_hostile_text_shows_as_text(make_facts, hostile_name):
    def page(name: str) -> _Page:
        facts = make_facts(
            ("ada_l", name),
            samples=(Sample("I like", f"I like {name}"),),
            command=f"x {name}",
            base=make_facts().base,
            recipe={"epochs": name},
            lineage=((Artifact(name, name),),),
            tables=(Table(name, (name,), ((name,),), name or "-"),),
        )
        return _Page(render_report(facts))

    hostile, plain = page(hostile_name), page("Ada")
    assert hostile.tags == plain.tags
    assert hostile.links == plain.links
    assert display_name(make_facts(("ada_l", hostile_name)).people[0]) in hostile.text
    assert f"like {visible(hostile_name)}" in hostile.text


def test_page_is_written_whole_even_with_lone_surrogates(make_facts, tmp_path):
    facts = make_facts(("ada_l", "x\ud83d"), command="a\udc00")
    write_text(tmp_path / "report.html", render_report(facts, PNG))
    assert (tmp_path / "report.html").read_bytes().decode("utf-8").rstrip().endswith("</html>")


def test_secrets_in_the_command_are_blanked(make_facts):
    assert "hf_abcdefgh" not in render_report(make_facts(command="HF_TOKEN=hf_abcdefghij train"))


def test_only_so_many_samples_are_shown(make_facts):
    samples = tuple(Sample("I like", f"I like {i}") for i in range(MAX_SAMPLES + 7))
    text = _Page(render_report(make_facts(samples=samples))).text
    assert f"({MAX_SAMPLES})" in text
    assert "7 more are in predictions.jsonl" in text


def test_funnel_adds_up_over_people(make_facts):
    data = DataCounts(3416, 180, 61234, 6810, 60)
    stages = funnel(make_facts(("ada_l", "Ada"), ("cb", "Charles"), data=data))
    assert [stage.count for stage in stages] == [6442, 4438, 3620, 3596, 3416]
    assert stages[0].share == 100
    assert all(one.share >= two.share for one, two in pairwise(stages))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # A later Unicode's emoji, letters and marks, as Python 3.11 does not know them.
        ("I love you 🩷 🫨 🏴󠁧󠁢󠁥󠁮󠁧󠁿 \U00031350!", "I love you 🩷 🫨 🏴󠁧󠁢󠁥󠁮󠁧󠁿 \U00031350!"),
        ("a\U000e0041b\ufffec\ufdd0d\U0010ffffe\U000e0fffg", "abcdeg"),
        ("a\u202eb\x00c\ue000d\ud83de", "abcde"),
        ("🏴\U000e0068\U000e0069 \U000e007f", "🏴 "),
    ],
    ids=ascii,
)
def test_visible_keeps_what_a_later_python_knows(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("train_posts", "name", "lost"),
    [
        (1618, "for training", "180 held out"),
        (618, "for training", "180 held out, 1,000 learnt before"),
        (2618, "for training, 1,000 of them learnt before", "180 held out"),
    ],
)
def test_funnel_ends_at_what_was_trained_on(make_facts, train_posts, name, lost):
    last = funnel(make_facts(data=DataCounts(train_posts, 180, 1, 1, 1)))[-1]
    assert (last.count, last.name, last.lost) == (train_posts, name, lost)
    assert last.share <= 100


@pytest.mark.parametrize(
    ("copied", "expected"),
    [
        ((), [("one two", False)]),
        (((0, 3),), [("one", True), (" two", False)]),
        (((4, 7), (0, 3)), [("one", True), (" ", False), ("two", True)]),
        (((0, 5), (3, 7)), [("one t", True), ("wo", True)]),
        (((2, 2), (5, 99)), [("one t", False), ("wo", True)]),
    ],
)
def test_parts_mark_what_was_copied(copied, expected):
    pieces = parts(Sample("So ", "So one two", copied))
    assert [(piece.text, piece.is_copied) for piece in pieces] == expected


def test_what_the_marks_mean_is_said_where_there_are_some(make_facts):
    samples = (Sample("So", "So one two three four five", ((3, 26),)),)
    legend = "Marked: five words or more in a row stand so in a training post."
    assert legend in _Page(render_report(make_facts(samples=samples))).text
    assert legend not in _Page(render_report(make_facts())).text


def test_lineage_goes_from_left_to_right(make_facts):
    page = render_report(make_facts())
    places = [page.index(f"<b>{name}</b>") for name in ("tweets-ada_l", "gpt2", "ada_l")]
    arrow = page.index("&rarr;", places[0])
    assert max(places[:2]) < arrow < places[2]
    assert page.count("&rarr;") == 1


# --- in a real browser

FRAMES = """<!doctype html><link rel="icon" href="data:,"><body><script>
const widths = [320, 390, 1280];
Promise.all(widths.map(width => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px";
  frame.style.height = "900px";
  frame.onload = () => {
    const page = frame.contentDocument;
    const body = page.body;
    const rgb = getComputedStyle(body).backgroundColor;
    const picture = page.querySelector("header img");
    done({
      width, background: rgb, scroll: page.documentElement.scrollWidth,
      fetched: frame.contentWindow.performance.getEntriesByType("resource").map(one => one.name),
      picture: picture.naturalWidth, charts: [...page.querySelectorAll("svg")].map(
        chart => chart.getBoundingClientRect().width),
    });
  };
  frame.src = "report.html";
  document.body.append(frame);
}))).then(all => { document.body.innerHTML = "<pre>" + JSON.stringify(all) + "</pre>"; });
</script>"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def browse(tmp_path: Path):
    """`browse(*flags)`: what a browser measures of tmp_path/report.html, its log, whom it asked."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    (tmp_path / "frames.html").write_text(FRAMES)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"

    def run(*flags: str) -> tuple[list[dict[str, Any]], str, set[str]]:
        net_log = tmp_path / "net.json"
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={net_log}",
            "--virtual-time-budget=20000",
            *flags,
            "--dump-dom",
            address + "frames.html",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        measured = re.search(r"<pre>(.*)</pre>", done.stdout)
        assert measured, done.stdout[-2000:] + done.stderr[-2000:]
        requested = set(re.findall(r'"url":"https?://([^/"]+)', net_log.read_text()))
        # The browser's own errands, which no flag stops.
        hosts = {host for host in requested if not re.search(r"\.(google|googleapis)\.com$", host)}
        return json.loads(measured[1]), done.stderr, hosts

    yield run
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_in_a_browser(browse, make_facts, tmp_path, scheme):
    facts = make_facts(
        ("ada_l", "Ada </div><script>fetch('https://evil.example/x')</script>" + "x" * 70),
        ("a_handle_that_is_as_long_as.it.may-ever.become.example.social", "محمد بن راشد"),
        command="accelerate launch train.py " + "x" * 300,
        links=Links("https://wandb.ai/me/p/runs/a1"),
        samples=(Sample("I like", "I like " + "y" * 200), Sample("I", "I <img src=//evil/z>")),
        tables=(Table("Wide", ("a",) * 12, (("cell content",) * 12,)),),
    )
    write_text(tmp_path / "report.html", render_report(facts, preview_png(facts)))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    frames, log, hosts = browse(*dark)
    assert [host.partition(":")[0] for host in hosts] == ["127.0.0.1"]
    assert "CONSOLE" not in log
    for frame in frames:
        assert frame["scroll"] <= frame["width"], "the page is wider than the screen"
        assert all(address.startswith("data:") for address in frame["fetched"])
        assert frame["picture"] == 1200
        assert len(frame["charts"]) == 6
        assert min(frame["charts"]) > 240
    lightness = sum(map(int, re.findall(r"\d+", frames[0]["background"])[:3])) / 3
    assert lightness < 60 if scheme == "dark" else lightness > 200


def test_noise_is_named_before_its_samples(make_facts):
    facts = make_facts()
    noise = replace(facts, heldout=replace(facts.heldout, bits_per_byte=3.4))
    page = render_report(noise)
    assert page.index("These are noise") < page.index('class="posts"')
    assert "These are noise" not in render_report(facts)
    assert preview_png(noise) != preview_png(facts)


def test_a_model_that_is_worse_than_its_base_is_told(make_facts):
    facts = make_facts()
    heldout = replace(facts.heldout, bits_per_byte=2.0, base_bits_per_byte=1.7)
    worse = replace(facts, heldout=heldout)
    words = "This model is worse than its base"
    assert words in render_report(worse)
    assert words not in render_report(facts)
    noise = replace(worse, heldout=replace(heldout, bits_per_byte=3.4))
    assert words not in render_report(noise), "one word is enough"
    for one in (worse, facts):
        console = Console(file=StringIO(), width=100)
        show_summary(one, JobPaths(Path("output/ada")), console)
        assert ("The model is worse than its base" in console.file.getvalue()) == (one is worse)


def test_samples_come_before_counts_and_curves(make_facts):
    page = render_report(make_facts())
    places = [page.index(f"<h2>{title}</h2>") for title in ("Samples", "Posts", "Training")]
    assert places == sorted(places)
