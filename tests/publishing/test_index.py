import csv
import json
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from huggingtweets.publishing.index import NotDone, Row, flat_result, render_index, write_index

EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> & \u2028 \u202e"
)


def write_job(folder: Path, slug: str, *, sample: str = "", heldout: bool = True) -> None:
    root = folder / slug
    (root / "model").mkdir(parents=True)
    result: dict[str, Any] = {
        "slug": slug,
        "handles": slug.split("-"),
        "status": "done",
        "tweets": {"kept": 120, "users": {slug: {"kept": 120}}},
        "data": {"train_tokens": 3000},
        "train": {"steps": 9, "seconds": 1.5, "mfu": None},
        "eval": {"bits_per_byte": 1.5, "base_bits_per_byte": 2.0} if heldout else None,
    }
    (root / "result.json").write_text(json.dumps(result))
    (root / "predictions.jsonl").write_text(json.dumps({"input": "", "prediction": sample}) + "\n")
    (root / "report.html").touch()


def rows_of(page: str) -> list[list[Any]]:
    """The data of the page, as a browser's parser finds it."""

    class Finder(HTMLParser):
        text = ""
        scripts = 0
        is_in = False

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.scripts += tag == "script"
            self.is_in = tag == "script" and dict(attrs).get("id") == "rows"

        def handle_endtag(self, tag: str) -> None:
            self.is_in = False

        def handle_data(self, data: str) -> None:
            self.text += data if self.is_in else ""

    finder = Finder()
    finder.feed(page)
    assert finder.scripts == 2
    rows: list[list[Any]] = json.loads(finder.text)
    return rows


def test_every_finished_job_is_a_row_of_page_and_parquet(tmp_path: Path) -> None:
    write_job(tmp_path, "ann", sample="hello there")
    write_job(tmp_path, "bob-carl", heldout=False)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "result.json").write_text('{"slug": 3}')
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "result.json").write_text('{"slug": ')
    assert len(write_index(tmp_path)) == 2
    ann, cyborg = rows_of((tmp_path / "index.html").read_text())
    assert ann == ["ann", "@ann", 120, 3000, 9, 1.5, 2.0, 1.5, "hello there", False, True]
    assert cyborg[:2] == ["bob-carl", "@bob @carl"]
    assert cyborg[6:8] == [None, None]
    table = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["slug"] for row in table] == ["ann", "bob-carl"]
    assert [row["eval.bits_per_byte"] for row in table] == [1.5, None]
    with (tmp_path / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["slug"] for line in lines] == ["ann", "bob-carl"]
    assert [line["eval.bits_per_byte"] for line in lines] == ["1.5", ""]


def test_jobs_without_a_model_are_listed_with_their_reason(tmp_path: Path) -> None:
    write_index(tmp_path, [NotDone("zed", "failed", f"{EVIL} too few posts")])
    page = (tmp_path / "index.html").read_text()
    assert "Without a model: 1" in page
    assert "too few posts" in page
    assert "<img src=x" not in page
    assert not (tmp_path / "results.csv").exists()


def test_the_csv_holds_no_formula(tmp_path: Path) -> None:
    write_job(tmp_path, "ann")
    path = tmp_path / "ann" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"a": "=1+1", "b": "\n=1+1"}))
    write_index(tmp_path)
    text = (tmp_path / "results.csv").read_text()
    assert ",'=1+1" in text
    assert ",\"'\n=1+1" in text


def test_a_number_that_is_none_costs_one_row_and_not_the_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_job(tmp_path, "ann")
    write_job(tmp_path, "bob")
    path = tmp_path / "bob" / "result.json"
    path.write_text(path.read_text().replace('"bits_per_byte": 1.5', '"bits_per_byte": NaN'))
    assert [row.slug for row in write_index(tmp_path)] == ["ann"]
    assert "bob" in caplog.text
    assert "NaN" not in (tmp_path / "index.html").read_text()


def test_no_jobs_leave_no_index(tmp_path: Path) -> None:
    assert write_index(tmp_path) == []
    assert not any(tmp_path.iterdir())


def test_texts_cannot_leave_the_data(tmp_path: Path) -> None:
    write_job(tmp_path, "ann", sample=EVIL)
    write_index(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert rows_of(page)[0][8].startswith("</script><script>document.title")
    assert page.count("</script>") == 2


def test_nested_results_are_named_by_dots() -> None:
    assert flat_result({"a": {"b": 1, "c": {"d": None}}, "e": ["x", "y"]}) == {
        "a.b": 1,
        "a.c.d": None,
        "e": "x,y",
    }


@pytest.mark.slow
def test_ten_thousand_rows_show_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    rows = [
        Row(f"user{n}", f"@user{n}", n, 10 * n, 9, 1.5, 2.0, 1.5, EVIL, False, False)
        for n in range(10_000)
    ]
    page = tmp_path / "index.html"
    page.write_text(render_index(rows, title=EVIL))
    assert page.stat().st_size < 6e6
    start = time.monotonic()
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert time.monotonic() - start < 60
    assert "10,000 of 10,000" in shown
    assert "@user42" in shown or "@user0" in shown
    assert "<title>owned" not in shown
