"""What people read: tables, spans of time, and colour where there is a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["clock", "coloured", "harmless", "short", "span", "table"]

_COLOURS = {"good": "32", "warning": "33", "bad": "31", "dim": "2"}


def span(seconds: float) -> str:
    """How long *seconds* are: ``12 s``, ``53 min``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min".removesuffix(" 0 min")
    return f"{hours // 24} d {hours % 24} h".removesuffix(" 0 h")


def clock(moment: float) -> str:
    """A time of today as ``14:05``, any other with its date: ``2026-11-30 14:05``.

    :param moment: a POSIX timestamp in seconds.
    """
    day, clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)).split()
    return clock if day == time.strftime("%Y-%m-%d") else f"{day} {clock}"


def short(path: str) -> str:
    """*path* with ``~`` in place of the home directory."""
    home = os.path.expanduser("~").rstrip(os.sep)
    return f"~{path[len(home) :]}" if home and path.startswith(home + os.sep) else path


def harmless(text: str) -> str:
    """*text* with what would command a terminal made visible: it may come from a store, where
    others write too."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in text)


def coloured(text: str, colour: str) -> str:
    """*text* in a colour, if this is a terminal that shows some."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def table(
    columns: Sequence[str],
    rows: Iterable[tuple[Sequence[str], str | None]],
    colours: Mapping[str, str],
) -> str:
    """Rows under the names of their columns, each with a remark below it perhaps.

    :param colours: those of cells, by what they say.
    """
    listed = [
        ([harmless(cell) for cell in row], None if remark is None else harmless(remark))
        for row, remark in rows
    ]
    cells = [columns, *(row for row, _ in listed)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]

    def line(row: Sequence[str], colour: str | None = None) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        # Coloured when the widths are known: a terminal does not count what colours.
        shown = [
            coloured(text, colour or colours[cell]) if colour or cell in colours else text
            for text, cell in zip(padded, row, strict=True)
        ]
        return "  ".join(shown).rstrip()

    lines = [line(columns, "dim")]
    for row, remark in listed:
        lines.append(line(row))
        if remark:
            lines.append(f"    {remark}")
    return "\n".join(lines)
