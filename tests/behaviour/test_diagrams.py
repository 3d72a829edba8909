"""The diagrams in the documentation are up to date with docs/diagrams/*.txt."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pictures import assert_words_are_within

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = sorted((DOCS / "diagrams").glob("*.txt"))
every_diagram = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "diagrams" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_diagram
def test_each_picture_is_up_to_date_with_its_text(draw: ModuleType, source: Path) -> None:
    picture = DOCS / "_static" / f"{source.stem}.svg"
    assert picture.read_text("utf-8") == draw.svg(source.read_text("utf-8")), (
        f"{picture.name} is out of date: run python docs/diagrams/draw.py, and look at it"
    )


@every_diagram
def test_a_page_shows_it(source: Path) -> None:
    pages = "".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    assert f"_static/{source.stem}.svg" in pages


@every_diagram
def test_all_words_are_within_the_picture(draw: ModuleType, source: Path) -> None:
    root = assert_words_are_within(draw.svg(source.read_text("utf-8")))
    height = float(root.attrib["viewBox"].split()[3])
    for text in root.findall("{*}text"):
        assert 10 <= float(text.attrib["y"]) <= height - 4, text.text


def test_a_text_that_cannot_be_drawn_is_an_error(draw: ModuleType) -> None:
    with pytest.raises(ValueError, match=re.escape("nothing is drawn by 'circle 1,2'")):
        draw.svg("title  A\ncircle 1,2\n")


def test_an_arrow_goes_from_side_to_side_by_way_of_points(draw: ModuleType) -> None:
    picture = draw.svg(
        "box one 10,20 100x40 plain a\nbox two 200,100 100x40 bad b < c\n"
        "arrow one.right+5 > 150,45 > two.top\n"
    )
    assert 'd="M110 45L150 45L250 100"' in picture
    assert "b &lt; c" in picture
