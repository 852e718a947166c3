"""The pages in a real browser, on a phone and in the dark: found, written, compared, guessed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import COPIED, Serving, serving, write_poet

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, server: Serving) -> Iterator[Page]:
    """A phone in the dark; whatever goes wrong in the page, or leaves for elsewhere, fails."""
    context = browser.new_context(
        base_url=server.url, viewport={"width": 360, "height": 740}, color_scheme="dark"
    )
    found = context.new_page()
    found.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    found.on("request", lambda request: wrong.append(request.url)
             if not request.url.startswith((server.url, "data:")) else None)  # fmt: skip
    yield found
    assert wrong == []
    context.close()


def is_within(page: Page) -> bool:
    """Whether nothing is wider than the screen."""
    found: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return found


def test_person_is_found_and_writes(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Find a person").fill("dee")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name="@dee.example.com").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("@dee.example.com")
    expect(page.locator("main .soft").first).to_contain_text("Report Model card")
    assert is_within(page)
    page.get_by_label("A post begins with").fill("I like")
    page.get_by_role("button", name="Write").click()
    posts = page.locator(".posts li")
    expect(posts).to_have_count(4, timeout=WAIT_MS)
    expect(page.locator(".posts li[data-finish]")).to_have_count(4, timeout=WAIT_MS)
    assert all(text.startswith("I like") for text in posts.all_inner_texts())
    assert is_within(page)
    dark: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, dark.removeprefix("rgb(").removesuffix(")").split(", "))) < 150


def test_copied_words_are_marked(page: Page, server: Serving) -> None:
    page.goto("/p/ann")
    page.get_by_label("A post begins with").fill(" ".join(COPIED.split()[:5]))
    page.get_by_role("button", name="Write").click()
    expect(page.locator(".why").first).to_contain_text("must not be shown", timeout=WAIT_MS)


def test_the_words_that_are_marked_are_those_that_are_copied(
    browser: Browser, tmp_path: Path
) -> None:
    write_poet(tmp_path, "I like", f" \U0001f600\U0001f600\U0001f600 {COPIED}")
    for server in serving(tmp_path):
        page = browser.new_page(base_url=server.url)
        page.goto("/p/poet")
        page.get_by_label("A post begins with").fill("I like")
        page.get_by_label("Temperature").fill("0")
        page.get_by_role("button", name="Write").click()
        expect(page.locator("mark").first).to_have_text(COPIED, timeout=WAIT_MS)
        page.close()


def test_report_has_its_own_style_and_runs_nothing(page: Page) -> None:
    answer = page.goto("/p/ann/report")
    assert page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") != "none"
    assert answer is not None
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_two_people_stand_side_by_side(page: Page) -> None:
    page.goto("/two")
    page.get_by_label("One person").fill("ann")
    page.get_by_label("Another person").fill("@bob")
    page.get_by_role("button", name="Choose").click()
    page.get_by_role("button", name="Write").click()
    for number in (0, 1):
        posts = page.locator(".columns section").nth(number).locator("li[data-finish]")
        expect(posts).to_have_count(3, timeout=WAIT_MS)
    assert is_within(page)


def test_guess_who(page: Page) -> None:
    page.goto("/guess")
    expect(page.locator("blockquote")).not_to_be_empty()
    assert page.get_by_role("radio").count() == 5 + 2
    page.locator("input[name=who]").first.check()
    page.locator("input[name=what]").first.check()
    page.get_by_role("button", name="Guess").click()
    expect(page.get_by_role("status")).to_contain_text("wrote it")


def test_wrong_address_is_a_page(page: Page, server: Serving) -> None:
    answer = page.request.get(f"{server.url}/p/nobody", headers={"accept": "text/html"})
    assert answer.status == 404
    assert "expected the name of a finished job" in answer.text()
