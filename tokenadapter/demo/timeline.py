"""The timeline: a lane for each process, one mark for each span of time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil
from typing import Final, NamedTuple

from tokenadapter.demo.recording import Moment, Run
from tokenadapter.demo.screen import Style

_CELL = 0.1  # seconds; in a shorter cell, each request would look like waiting
_LEAST_TICK = 5  # columns between two numbers of the ruler
_TICKS = 1, 2, 5, 10, 20, 60, 300, 1800  # seconds between them


class Mark(NamedTuple):
    """How a cell looks, with and without Unicode, and its meaning."""

    sign: str
    plain: str
    role: str
    meaning: str

    def text(self, style: Style) -> str:
        """The sign that the terminal can show."""
        return self.sign if style.unicode else self.plain


# If several things happened in one cell, the last of these is shown.
_MARKS: Final = {
    "nothing": Mark(" ", " ", "", ""),
    "waiting": Mark("╌", "~", "wait", "waiting for a response"),
    "ok": Mark("━", "-", "good", "requests answered"),
    "replayed": Mark("↻", "o", "replay", "refused, then replayed"),
    "failed": Mark("✗", "x", "bad", "failed"),
    "renewed": Mark("R", "R", "renewal", "renewed the token"),
}
_DEMAND: Final = Mark("1", "1", "renewal", "token requests to the server")
_STRENGTH: Final = {kind: strength for strength, kind in enumerate(_MARKS)}


class _Axis(NamedTuple):
    seconds: float
    columns: int

    def column(self, at: float) -> int:
        return max(0, min(int(at / self.seconds * self.columns), self.columns - 1))


def draw(run: Run, now: float, width: int, style: Style) -> list[str]:
    """The picture of a run at the age of *now* seconds.

    :param width: the width of the terminal in columns, at least 60.
    """
    labels = [f"process {number}" for number in range(1, len(run.lanes) + 1)]
    margin = len(labels[-1]) + 1
    columns = min(width - margin - 1, ceil(run.setting.seconds / _CELL))
    axis = _Axis(run.setting.seconds, max(_LEAST_TICK, columns))

    def row(label: str, content: str) -> str:
        return style.paint(label.ljust(margin), "faint") + content

    return [
        style.paint(f"{run.title}, {now:.1f} s", "title"),
        row("", style.paint(_ruler(axis), "faint")),
        *(
            row(label, _lane(lane, axis, now, style))
            for label, lane in zip(labels, run.lanes, strict=True)
        ),
        row("server", _demand(run, axis, style)),
        row("", _incidents(run, axis, width - margin, style)),
        _counters(run, style),
    ]


def legend(width: int, style: Style) -> list[str]:
    """The meaning of the marks."""
    lines: list[str] = []
    room = 0
    for mark in (*list(_MARKS.values())[1:], _DEMAND):
        entry = f"{style.paint(mark.text(style), mark.role)} {mark.meaning}"
        needed = len(mark.meaning) + 4
        if needed > room:
            lines.append(entry)
            room = width
        else:
            lines[-1] += f"  {entry}"
        room -= needed
    return lines


def _ruler(axis: _Axis) -> str:
    step = next(
        (tick for tick in _TICKS if tick / axis.seconds * axis.columns >= _LEAST_TICK), _TICKS[-1]
    )
    line = ""
    for second in range(0, int(axis.seconds) + 1, step):
        longer = line.ljust(axis.column(second)) + str(second)
        if len(longer) <= axis.columns + 1:
            line = longer
    return line


def _lane(lane: Sequence[Moment], axis: _Axis, now: float, style: Style) -> str:
    cells = ["nothing"] * axis.columns

    def mark(kind: str, first: float, last: float) -> None:
        for column in range(axis.column(first), axis.column(last) + 1):
            if _STRENGTH[kind] > _STRENGTH[cells[column]]:
                cells[column] = kind

    returned = 0.0
    for moment in lane:
        mark(moment.kind, moment.at, moment.at)
        if moment.kind in ("ok", "failed"):
            mark("waiting", returned, moment.at)
            returned = moment.at
    if lane:
        mark(
            "waiting", returned, now - axis.seconds / axis.columns
        )  # the current cell has not ended
    return "".join(
        style.paint(_MARKS[kind].text(style) * len(list(same)), _MARKS[kind].role)
        for kind, same in groupby(cells)
    )


def _demand(run: Run, axis: _Axis, style: Style) -> str:
    counts = [0] * axis.columns
    for demand in run.demand:
        counts[axis.column(demand.at)] += demand.requests
    return "".join(
        style.paint(str(count) if count < 10 else "+", "renewal" if count == 1 else "bad")
        if count
        else " "
        for count in counts
    )


def _incidents(run: Run, axis: _Axis, room: int, style: Style) -> str:
    line = ""
    for incident in run.incidents:
        sign = "▲" if style.unicode else "^"
        column = axis.column(incident.at)
        text = f"{sign} {incident.what}"
        if column + len(text) > room:
            text = f"{incident.what} {sign}"
            column -= len(text) - 1
        line = (line and f"{line} ").ljust(column) + text
    return style.paint(line, "wait")


def _counters(run: Run, style: Style) -> str:
    failures = run.count("failed")
    return "   ".join(
        (
            f"requests {run.count('ok', 'failed')}",
            f"renewals {run.count('renewed')}",
            f"replays {run.count('replayed')}",
            style.paint(f"failures {failures}", "bad" if failures else "good"),
        )
    )
