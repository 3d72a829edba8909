"""What commands print: lines, tables, times and colours, on streams that may be full or closed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tokenadapter.values import printable

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError

__all__ = [
    "STDOUT",
    "clock",
    "coloured",
    "prepare_streams",
    "printable_lines",
    "short",
    "span",
    "table",
    "unwritable",
    "write_line",
]

STDOUT = "Standard output"
_CODES = {"good": "32", "warning": "33", "bad": "31", "dim": "2"}


def prepare_streams() -> None:
    """Make standard output and standard error accept any text, even where they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed, as by ">&-": discard what is written.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            # A character that the locale lacks is no reason to fail.
            stream.reconfigure(errors="backslashreplace")


def write_line(text: str) -> None:
    """Write a line to standard output, and flush it.

    :raises BrokenPipeError: if the reader has gone.
    :raises TokenError: if the line cannot be written.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(STDOUT, error) from None


def unwritable(place: str, error: OSError) -> TokenError:
    """The error for output that cannot be written to *place*."""
    from tokenadapter.errors import TokenError

    if place == STDOUT:
        sys.stdout = None  # else the interpreter tries once more when it exits
    return TokenError(f"{place} cannot be written: {error.strerror}. The stored token is kept.")


def span(seconds: float) -> str:
    """*seconds* in words: ``12 s``, ``53 min``, ``2 h 5 min``, ``3 d 4 h``."""
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


def printable_lines(text: str) -> str:
    """*text* with escapes for what does not print, except line ends.  It may come from a store that
    others can write to, and must not control the terminal."""
    return "\n".join(map(printable, text.split("\n")))


def coloured(text: str, colour: str) -> str:
    """*text* in a colour, if standard output is a terminal that shows colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def table(
    columns: Sequence[str],
    rows: Iterable[tuple[Sequence[str], str | None]],
    colours: Mapping[str, str],
) -> str:
    """Rows below the names of the columns, each with an optional remark below it.

    :param colours: the colours of cells, by their text.
    """
    listed = [([printable(cell) for cell in row], remark) for row, remark in rows]
    cells = [columns, *(row for row, _ in listed)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]

    def shown(row: Sequence[str], colour: str | None = None) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        # Coloured after padding: the codes for colours take no width.
        parts = [
            coloured(text, colour or colours[cell]) if colour or cell in colours else text
            for text, cell in zip(padded, row, strict=True)
        ]
        return "  ".join(parts).rstrip()

    lines = [shown(columns, "dim")]
    for row, remark in listed:
        lines.append(shown(row))
        if remark:
            lines += [f"    {line}" for line in printable_lines(remark).split("\n")]
    return "\n".join(lines)
