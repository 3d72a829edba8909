"""Draws the diagrams of the documentation: each .txt here becomes a .svg in docs/_static.

    python docs/diagrams/draw.py

A line of such a text is one thing; positions are in pixels, from the upper left corner::

    title  What the picture shows
    size   760x330
    box    idle 40,160 150x64 plain  idle // a token     (name, corner, size, colour, words)
    arrow  idle.right-12 > 300,148 > next.left           (from side to side, by way of points)
    note   255,172 middle  presenting / it               (position, which side is there, words)

Behind a side, ``-12`` or ``+12`` moves the end of an arrow along it.  In words, ``/`` begins a new
line, and ``//`` one in small letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent / "_static"

INK, GREY = "#1d2b3a", "#5b6b7b"
# Of a box: what it is filled with, and its edge.
COLOURS = {
    "plain": ("#eef4fb", "#4a78b0"),
    "good": ("#eaf6ec", "#4a9058"),
    "care": ("#fdf3e4", "#c0853a"),
    "bad": ("#fbeaea", "#b04a4a"),
}
LARGE, SMALL = 14, 12
LINE = 18
HEAD = """  <defs>
    <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" \
orient="auto">
      <path d="M0 0 10 5 0 10z" fill="{grey}"/>
    </marker>
  </defs>
"""
Point = tuple[float, float]
Box = tuple[float, float, float, float]


def svg(text: str) -> str:
    """The picture that *text* describes."""
    boxes: dict[str, Box] = {}
    title, width, height, shapes = "", "0", "0", ""
    for line in filter(None, text.splitlines()):
        kind, rest = line.split(maxsplit=1)
        match kind:
            case "title":
                title = rest
            case "size":
                width, height = rest.split("x")
            case "box":
                name, corner, size, colour, words = rest.split(maxsplit=4)
                boxes[name] = (*_pair(corner), *_pair(size))
                shapes += _box(boxes[name], colour, words)
            case "arrow":
                shapes += _arrow([_end(end.strip(), boxes) for end in rest.split(">")])
            case "note":
                place, side, words = rest.split(maxsplit=2)
                shapes += "".join(_words(_pair(place), words, side, SMALL, GREY))
            case _:
                raise ValueError(f"nothing is drawn by {line!r}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif">\n'
        f"  <title>{escape(title)}</title>\n"
        f"{HEAD.format(grey=GREY)}"
        f'  <rect width="{width}" height="{height}" rx="8" fill="#fff"/>\n{shapes}</svg>\n'
    )


def _box(box: Box, colour: str, words: str) -> str:
    x, y, width, height = box
    fill, edge = COLOURS[colour]
    lines = _lines(words, LARGE)
    first = y + height / 2 - LINE * (len(lines) - 1) / 2 + LARGE * 0.36
    return (
        f'  <rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" '
        f'stroke="{edge}"/>\n'
    ) + "".join(_words((x + width / 2, first), words, "middle", LARGE, INK))


def _arrow(points: list[Point]) -> str:
    path = "L".join(f"{x:g} {y:g}" for x, y in points)
    return (
        f'  <path d="M{path}" fill="none" stroke="{GREY}" stroke-width="1.5" '
        'marker-end="url(#head)"/>\n'
    )


def _words(place: Point, words: str, side: str, size: int, ink: str) -> Iterator[str]:
    x, y = place
    for number, (text, its_size) in enumerate(_lines(words, size)):
        yield (
            f'  <text x="{x:g}" y="{y + LINE * number:g}" text-anchor="{side}" '
            f'font-size="{its_size}" fill="{ink if its_size == size else GREY}">'
            f"{escape(text)}</text>\n"
        )


def _lines(words: str, size: int) -> list[tuple[str, int]]:
    large, *small = words.split(" // ")
    lines = [(text, size) for text in large.split(" / ")]
    return lines + [(text, SMALL) for part in small for text in part.split(" / ")]


def _end(end: str, boxes: dict[str, Box]) -> Point:
    """Where an arrow begins, bends or ends."""
    found = re.fullmatch(r"(\w+)\.(left|right|top|bottom)([+-]\d+)?", end)
    if found is None:
        return _pair(end)
    x, y, width, height = boxes[found[1]]
    along = float(found[3] or 0)
    match found[2]:
        case "left":
            return x, y + height / 2 + along
        case "right":
            return x + width, y + height / 2 + along
        case "top":
            return x + width / 2 + along, y
        case _:
            return x + width / 2 + along, y + height


def _pair(text: str) -> Point:
    one, other = re.split("[,x]", text)
    return float(one), float(other)


if __name__ == "__main__":
    for source in sorted(HERE.glob("*.txt")):
        (TARGET / f"{source.stem}.svg").write_text(svg(source.read_text("utf-8")), "utf-8")
