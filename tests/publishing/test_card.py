import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from huggingtweets.publishing.card import escape, render_card
from huggingtweets.publishing.facts import BaseModel, HeldoutFigures, Links, Metric
from huggingtweets.publishing.names import display_name, plain_text
from huggingtweets.storage.files import write_text

GOLDEN = Path(__file__).parents[1] / "golden" / "card.md"


class _Page(HTMLParser):
    """The text of a page, the cells of its tables, and the tags and attributes it is made of."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("href", "src")]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.cells:
            self.cells[-1] += data.strip("\n")

    @property
    def text(self) -> str:
        return "".join(self.texts)


def render(card: str) -> _Page:
    body = card.split("---\n", 2)[2]
    return _Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))


def matter(card: str):
    return yaml.safe_load(card.split("---\n", 2)[1])


def test_card_matches_golden_file(make_facts):
    card = render_card(make_facts())
    if os.environ.get("HUGGINGTWEETS_UPDATE_GOLDEN"):
        GOLDEN.write_text(card, encoding="utf-8")
    assert card == GOLDEN.read_text(encoding="utf-8"), "HUGGINGTWEETS_UPDATE_GOLDEN=1 rewrites it"


def test_card_has_every_part_of_the_original(make_facts, shared):
    originals = [path.read_text() for path in (shared / "model-cards").glob("*.md")]
    card = render_card(make_facts())
    for original in originals:
        assert set(matter(original)) <= set(matter(card))
        headings = {line for line in original.splitlines() if line.startswith("## ")}
        assert headings <= set(card.splitlines())
    assert matter(card)["widget"] == [{"text": "My dream is"}]
    assert "huggingtweets" in matter(card)["tags"]


def test_hub_parses_card_and_figures(make_facts):
    facts = make_facts(metrics=(Metric("copied_share", "Samples copied", 0.02),))
    data = ModelCard(render_card(facts)).data
    assert data.base_model == "gpt2"
    assert data.license == "mit"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.model_name == "ada_l"
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "bits_per_byte": 1.214,
        "perplexity": 30.33,
        "loss": 3.412,
        "copied_share": 0.02,
    }
    assert all(result.task_type == "text-generation" for result in data.eval_results)
    assert all(result.dataset_name == "Held-out posts of @ada_l" for result in data.eval_results)
    again = ModelCard(str(ModelCard(render_card(facts))))
    assert again.data.to_dict() == data.to_dict()


def test_card_without_heldout_has_no_figures(make_facts):
    card = render_card(make_facts(heldout=None))
    assert "model-index" not in matter(card)
    assert "No posts were held out" in card
    assert ModelCard(card).data.eval_results is None


def test_infinite_figures_stay_out_of_the_model_index(make_facts):
    card = render_card(make_facts(heldout=HeldoutFigures(800.0, float("inf"), 300.0, 1.4)))
    metrics = matter(card)["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["bits_per_byte", "loss"]


def test_table_has_one_column_a_person(make_facts):
    facts = make_facts(("ada_l", "Ada"), ("cb", "Charles"), ("mary", "Mary"))
    page = render(render_card(facts))
    assert page.cells[:4] == ["Data", "Ada", "Charles", "Mary"]
    assert page.cells[4:8] == ["Posts downloaded", "3,221", "3,221", "3,221"]
    assert "AI CYBORG" in page.text
    assert "Ada, Charles & Mary" in page.text
    assert "@ada_l, @cb & @mary" in page.text


def test_base_from_a_folder_names_no_hub_model(make_facts):
    card = render_card(make_facts(base=BaseModel("my_base")))
    assert "base_model" not in matter(card)
    assert matter(card)["license"] == "unknown"
    assert "huggingface.co/my" not in card


def test_links_appear_only_when_there_are_runs(make_facts):
    links = Links("https://wandb.ai/me/huggingtweets/runs/a1", "https://wandb.ai/me/h/runs/b2")
    assert "wandb.ai" not in render_card(make_facts())
    assert {links.preprocess_run, links.train_run} <= set(
        render(render_card(make_facts(links=links))).links
    )


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://x.y/>)[a](b", "https://x y"])
def test_odd_links_lead_nowhere(make_facts, url):
    page = render(render_card(make_facts(links=Links(train_run=url))))
    clean = render(render_card(make_facts()))
    assert sorted(page.links) == sorted([*clean.links, "#"])


@pytest.mark.parametrize("slug", ["1e5", "1_000", "null", "true", "0x1f", "007", "on", "12_30"])
def test_slugs_like_numbers_stay_text(make_facts, slug):
    card = render_card(make_facts((slug, "Somebody")))
    assert matter(card)["model-index"][0]["name"] == slug
    if slug[0].isdigit():
        assert f'name: "{slug}"' in card


def test_hostile_name_shows_as_text(make_facts, hostile_name):
    facts = make_facts(("ada_l", hostile_name), ("cb", "Charles"))
    clean = render(render_card(make_facts(("ada_l", "Ada"), ("cb", "Charles"))))
    card = render_card(facts)
    page = render(card)
    shown = display_name(facts.people[0])
    assert page.cells[:3] == ["Data", shown, "Charles"]
    assert f"posts of {shown} & Charles." in page.text
    assert page.tags == clean.tags, "the name changed the structure of the page"
    assert page.links == clean.links
    assert matter(card) == matter(render_card(make_facts(("ada_l", "A"), ("cb", "C"))))


def test_hostile_name_leaves_a_file_that_reads_back(make_facts, hostile_name, tmp_path):
    facts = make_facts(("ada_l", hostile_name))
    write_text(tmp_path / "README.md", render_card(facts))
    assert (tmp_path / "README.md").read_bytes().decode("utf-8") == render_card(facts)


@given(st.text(st.characters(max_codepoint=0x2FFF), max_size=60))
def test_escape_round_trips_through_a_table_cell_and_html(text):
    # A letter stands before it: escaped text is for use within a line.
    page = _Page(MarkdownIt("commonmark").enable("table").render(f"| x{escape(text)} |\n| --- |\n"))
    assert page.cells == ["x" + plain_text(text)]
    assert _Page(f"<b>{escape(text)}</b>").text == plain_text(text)


@pytest.mark.parametrize("command", ["a ``` b", "a\n```\n# Evil\n````", "x='\x1b[2J'", "a | b <c>"])
def test_command_cannot_leave_its_code_block(make_facts, command):
    page = render(render_card(make_facts(command=command)))
    clean = render(render_card(make_facts(command="x")))
    assert page.tags == clean.tags
    assert "".join(char for char in command if char.isprintable() or char == "\n") in page.text


def test_command_loses_its_secrets(make_facts):
    card = render_card(make_facts(command="HF_TOKEN=hf_abcdefghijklmnop train.py"))
    assert "hf_abcdefgh" not in card
