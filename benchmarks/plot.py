"""Draws a chart as an SVG: one bar for each median, and a line over it for the middle half."""

from __future__ import annotations

import math
from html import escape

from measuring import Bar, Chart

INK, GREY, GRID = "#1d2b3a", "#5b6b7b", "#e3e8ee"
OURS, FLOOR, OTHERS, BAD = "#2f6fb0", "#7b8794", "#b3c0ce", "#b04a4a"
WIDTH, TOP, ROW, BAR, MARGIN = 760, 52, 26, 15, 16
SIZE = 13
FONT = 'font-family="sans-serif"'
BOLD = ' font-weight="bold"'
# What a letter of sans-serif takes on average, in pixels.
LETTER = SIZE * 0.6


def svg(chart: Chart) -> str:
    height = TOP + ROW * len(chart.bars) + 34
    left = MARGIN + LETTER * max(len(bar.name) for bar in chart.bars) + 10
    room = LETTER * max(len(_said(bar, chart)) + len(bar.note) for bar in chart.bars) + 24
    scale = _Scale(chart, left, WIDTH - MARGIN - room)
    bottom = height - 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        f"<title>{escape(chart.title)}</title>",
        _box(0, 0, WIDTH, height, 8, "#fff"),
        _text(MARGIN, 28, chart.title, "start", INK, 15, BOLD),
    ]
    for value, said in scale.ticks():
        x = scale(value)
        parts.append(_line(x, TOP - 8, x, bottom, GRID))
        parts.append(_text(x, bottom + 17, said, "middle", GREY, 11))
    is_compared = any(_is_ours(bar) for bar in chart.bars)
    for number, bar in enumerate(chart.bars):
        parts += _row(bar, TOP + ROW * number + ROW / 2, left, scale, chart, is_compared)
    return "\n  ".join(parts) + "\n</svg>\n"


class _Scale:
    """From values to pixels."""

    def __init__(self, chart: Chart, left: float, right: float) -> None:
        self._left, self._width = left, right - left
        self._is_logarithmic = chart.logarithmic
        self._most = max((max(bar.spread) for bar in chart.bars), default=0) or 1
        self._least = 0.0
        if chart.logarithmic:
            least = min(value for bar in chart.bars for value in bar.spread if value > 0)
            self._least = 10.0 ** math.floor(math.log10(least))

    def __call__(self, value: float) -> float:
        share = value / self._most
        if self._is_logarithmic:
            value = max(value, self._least)
            share = math.log(value / self._least) / math.log(self._most / self._least)
        return self._left + self._width * share

    def ticks(self) -> list[tuple[float, str]]:
        if self._is_logarithmic:
            value, values = self._least, []
            while value <= self._most:
                values.append(value)
                value *= 10
        else:
            step = 10.0 ** math.floor(math.log10(self._most))
            step *= next(part for part in (0.2, 0.5, 1, 2) if self._most / (step * part) <= 6)
            values = [step * number for number in range(int(self._most / step) + 1)]
        return [(value, f"{value:,.6g}") for value in values]


def _row(
    bar: Bar, y: float, left: float, scale: _Scale, chart: Chart, is_compared: bool
) -> list[str]:
    low, middle, high = bar.spread
    is_ours = _is_ours(bar)
    colour = OURS if is_ours or not is_compared else FLOOR if _is_floor(bar) else OTHERS
    weight = BOLD if is_ours else ""
    parts = [
        _text(left - 10, y + SIZE * 0.36, bar.name, "end", INK, SIZE, weight),
        _box(left, y - BAR / 2, max(scale(middle) - left, 1), BAR, 2, colour),
    ]
    beside = scale(middle)
    if scale(high) - scale(low) > 3:
        parts.append(_line(scale(low), y, scale(high), y, INK))
        parts += [_line(scale(x), y - 4, scale(x), y + 4, INK) for x in (low, high)]
        beside = max(beside, scale(high))
    said = _said(bar, chart)
    parts.append(_text(beside + 8, y + SIZE * 0.36, said, "start", INK, SIZE, weight))
    if bar.note:
        x = beside + 16 + LETTER * len(said)
        parts.append(_text(x, y + SIZE * 0.36, bar.note, "start", BAD, 12))
    return parts


def _said(bar: Bar, chart: Chart) -> str:
    return f"{bar.spread.middle:,.{chart.decimals}f}"


def _is_ours(bar: Bar) -> bool:
    return "tokenadapter" in bar.name


def _is_floor(bar: Bar) -> bool:
    return bar.name.startswith(("plain", "no token", "python"))


def _box(x: float, y: float, width: float, height: float, radius: int, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="{radius}" '
        f'fill="{colour}"/>'
    )


def _line(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    return (
        f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}" stroke-width="1.2"/>'
    )


def _text(x: float, y: float, said: str, side: str, ink: str, size: int, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{side}" font-size="{size}" '
        f'fill="{ink}"{more}>{escape(said)}</text>'
    )
