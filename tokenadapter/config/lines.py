"""On which line of a TOML file a key stands, for messages.

``tomllib`` does not tell.  This reads no values, so a line within a multi-line text can deceive
it: then a message names a wrong line beside the right key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["line_of"]

_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_PATH = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_PATH})\s*\]")
_KEY = re.compile(rf"\s*({_PATH})\s*=")


def line_of(text: str, key: Sequence[str]) -> int | None:
    """The number of the line, from 1, where *key* stands, or else what it would stand in."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif assignment := _KEY.match(line):
            lines.setdefault((*table, *_parts(assignment[1])), number)
    for length in range(len(key), 0, -1):
        if tuple(key[:length]) in lines:
            return lines[tuple(key[:length])]
    return None


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, path))
