"""What all measurements share: turns, medians with their spread, and the shape of a finding."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from tokenadapter.testing import TokenServer

T = TypeVar("T")

# What a process runs last, to tell its peak: what getrusage() says includes who started it.
TELL_MEMORY = """
print(open("/proc/self/status").read())
"""

VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
"""What counts the instructions of a command."""


class Spread(NamedTuple):
    """The middle half of some values."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Spread:
        return Spread(*(value * factor for value in self))


class Bar(NamedTuple):
    """One of a chart."""

    name: str
    spread: Spread
    note: str = ""


class Chart(NamedTuple):
    """A picture of one quantity."""

    file: str
    """Its name, without the suffix."""
    title: str
    """With the unit."""
    bars: Sequence[Bar]
    decimals: int = 0
    logarithmic: bool = False


class Table(NamedTuple):
    """The first column holds names, the others figures."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Claim(NamedTuple):
    """What the library promises of a measurement, and whether it is so."""

    text: str
    holds: bool


class Finding(NamedTuple):
    """What a measurement gives."""

    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    claims: Sequence[Claim] = ()
    remarks: Sequence[str] = ()


def in_turns(names: Iterable[str], rounds: int, measure: Callable[[str], T]) -> dict[str, list[T]]:
    """What *measure* gives for each name in each round.

    Forth in one round and back in the next, so that a machine that slows down does so for all.
    """
    taken: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        for name in list(taken)[:: -1 if number % 2 else 1]:
            taken[name].append(measure(name))
    return taken


def issued(server: TokenServer) -> dict[str, Any]:
    """A first token, as libraries keep it: with the moment at which it ends."""
    token = server.issue()
    lifetime = token.get("expires_in")
    return token if lifetime is None else token | {"expires_at": time.time() + lifetime}


def environment(home: Path) -> dict[str, str]:
    """Of a process that is measured whole: as little as possible, and nothing of who started it.

    What it imports is compiled once, wherever it is installed.
    """
    known = ("PATH", "PYTHONPYCACHEPREFIX")
    return {
        "HOME": str(home),
        "PYTHONSAFEPATH": "1",
        "PYTHONPYCACHEPREFIX": str(home / "compiled"),
        **{name: os.environ[name] for name in known if name in os.environ},
    }


def spread(values: Sequence[float]) -> Spread:
    return Spread(*quantiles(values, n=4)) if len(values) > 1 else Spread(*values * 3)


def ratio(mine: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios round by round: what slows down a round slows down both."""
    return median(one / other for one, other in zip(mine, others, strict=True))


def collected(told: str) -> int:
    """How many instructions valgrind has counted, of what it said."""
    found = re.search(r"Collected : (\d+)", told)
    assert found is not None, told
    return int(found[1])


def peak_memory(told: str) -> float:
    """The MiB that a process had at its peak, of what it told by :data:`TELL_MEMORY`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", told)
    assert found is not None
    return int(found[1]) / 1024


def better_than(ours: str, figures: Mapping[str, float], unit: str) -> str:
    """Who has less than ours of something of which less is better, for a remark."""
    better = [name for name, figure in figures.items() if figure < figures[ours]]
    others = ", ".join(f"{name} ({figures[name]:,.3f})" for name in better)
    return f"Less than tokenadapter's {figures[ours]:,.3f} {unit}: {others or 'nobody'}"


def shown(values: Spread, decimals: int = 1) -> tuple[str, str]:
    """The median, and the middle half, for two columns."""
    low, middle, high = (f"{value:,.{decimals}f}" for value in values)
    return middle, f"{low} – {high}"


def markdown(table: Table) -> str:
    lines = [table.head, ["---", *["--:"] * (len(table.head) - 1)], *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text(finding: Finding) -> str:
    """A finding for a terminal."""
    parts = []
    for table in finding.tables:
        widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
        for name, *figures in [table.head, *table.rows]:
            cells = zip(figures, widths[1:], strict=True)
            parts.append(name.ljust(widths[0]) + "".join(f"  {cell:>{n}}" for cell, n in cells))
        parts.append("")
    parts += [f"     {remark}" for remark in finding.remarks]
    parts += [f"{'yes' if claim.holds else 'NO':3}  {claim.text}" for claim in finding.claims]
    return "\n".join(parts)


def alone(measure: Callable[[bool], Finding]) -> None:
    """What a script does that is run by itself: measure, print, and fail if a claim does not
    hold."""
    about = inspect.getdoc(inspect.getmodule(measure)) or ""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny settings: does it run at all?")
    options = parser.parse_args()
    finding = measure(options.quick)
    print(text(finding))
    if not options.quick and not all(claim.holds for claim in finding.claims):
        sys.exit("Not all is as it should be.")
