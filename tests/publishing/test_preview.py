import io

import pytest
from PIL import Image, ImageChops

from huggingtweets.preview.picture import (
    choose_sample,
    draw_preview,
    preview_png,
)
from huggingtweets.publishing.facts import Sample


def changed(one: Image.Image, other: Image.Image) -> tuple[int, int, int, int] | None:
    return ImageChops.difference(one, other).getbbox()


def test_preview_is_a_social_card(make_facts, tmp_path):
    path = tmp_path / "preview.png"
    path.write_bytes(preview_png(make_facts()))
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (1200, 630), "RGB")
        assert {"DigitalSourceType", "Comment", "xmp"} == {*image.info} - {"XML:com.adobe.xmp"}
        assert image.info["DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
        source = b'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/'
        assert source in image.info["xmp"]
    assert path.stat().st_size < 400_000


def test_same_facts_give_the_same_picture(make_facts):
    assert preview_png(make_facts()) == preview_png(make_facts())


def test_sample_shows_in_the_bubble_alone(make_facts):
    other = (Sample("I want", "I want nothing but a quiet evening and some toast."),)
    box = changed(draw_preview(make_facts()), draw_preview(make_facts(samples=other)))
    assert box is not None
    assert box[0] >= 64
    assert box[1] >= 196
    assert box[2] <= 1136
    assert box[3] <= 540


def test_names_show_above_the_bubble(make_facts):
    one = draw_preview(make_facts(("ada_l", "Ada Lovelace")))
    other = draw_preview(make_facts(("ada_l", "Ada Byron")))
    box = changed(one, other)
    assert box is not None
    assert box[3] <= 196


@pytest.mark.parametrize("num_people", [1, 3, 12, 200])
def test_cyborgs_of_any_size_stay_beside_the_badge(make_facts, num_people):
    people = [(f"user_number_{i}", f"Somebody Longname {i}") for i in range(num_people)]
    picture = draw_preview(make_facts(*people, slug="many"))
    blank = draw_preview(make_facts(*people, slug="many", samples=()))
    assert changed(picture.crop((0, 0, 1200, 196)), blank.crop((0, 0, 1200, 196))) is None
    margin = picture.crop((1137, 0, 1200, 630))
    assert changed(margin, draw_preview(make_facts(slug="many")).crop((1137, 0, 1200, 630))) is None


def test_hostile_names_and_samples_are_drawn(make_facts, hostile_name):
    facts = make_facts(
        ("ada_l", hostile_name), samples=(Sample(hostile_name, hostile_name * 2),), slug="x"
    )
    with Image.open(io.BytesIO(preview_png(facts))) as image:
        image.load()
        assert image.size == (1200, 630)


def test_preview_needs_no_font(make_facts, font_folders):
    font_folders()
    one = draw_preview(make_facts(("ada_l", "Ada 🤖"), ("hatoyama", "鳩山由紀夫"), slug="x"))
    other = draw_preview(make_facts(("ada_l", "Bob 🤖"), ("hatoyama", "鳩山由紀夫"), slug="x"))
    assert changed(one, other), "the name is not drawn"


def test_choose_sample_prefers_a_length_that_reads_well():
    short, good, long = (Sample("a", f"a {'word ' * n}") for n in (2, 20, 90))
    assert choose_sample([short, long, good]) is good
    assert choose_sample([short, long]) is long
    assert choose_sample([]) is None
    assert choose_sample([Sample("a", "\U000f0000 " * 50 + "ꙮ꙯")]) is not good
