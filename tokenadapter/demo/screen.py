"""The screen: pictures that replace each other on a terminal, plain text elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from textwrap import wrap
from types import TracebackType
from typing import Final, NamedTuple, Self, TextIO

_PARAGRAPH = 80  # columns
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CLEAR_TO_END = "\x1b[J"

_CODES: Final = {
    "good": "32",
    "bad": "1;31",
    "wait": "33",
    "renewal": "1;30;43",
    "replay": "1;36",
    "title": "1",
    "faint": "2",
}


class Style(NamedTuple):
    """How text can look on this stream."""

    colour: bool
    unicode: bool

    def paint(self, text: str, role: str) -> str:
        """*text* in the colour of its role, one of :data:`_CODES`; ``""``: none."""
        if not (self.colour and role):
            return text
        return f"\x1b[{_CODES[role]}m{text}\x1b[0m"


class Screen:
    """Shows pictures, each a list of lines.

    On a terminal, each picture replaces the last one.  Elsewhere, and with ``NO_COLOR`` or
    ``TERM=dumb``, only the pictures that stay are printed.
    """

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._live = (
            stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        self.style: Style = Style(self._live, _speaks_unicode(stream))
        self._height = 0

    @property
    def width(self) -> int:
        """The number of columns."""
        return shutil.get_terminal_size().columns

    def __enter__(self) -> Self:
        if self._live:
            self._stream.write(_HIDE_CURSOR)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._stream.write(_SHOW_CURSOR)
            self._stream.flush()

    def show(self, lines: Sequence[str]) -> None:
        """Show a picture in place of the last one, if the terminal can do that."""
        if self._live and len(lines) < shutil.get_terminal_size().lines:
            self._replace(lines)
            self._height = len(lines)

    def keep(self, lines: Sequence[str]) -> None:
        """Show a picture that stays."""
        self._replace(lines)
        self._height = 0

    def say(self, text: str, role: str = "") -> None:
        """Print a paragraph."""
        lines = wrap(text, min(self.width, _PARAGRAPH))
        self.keep([self.style.paint(line, role) for line in lines])

    def _replace(self, lines: Sequence[str]) -> None:
        back = f"\x1b[{self._height}F{_CLEAR_TO_END}" if self._height else ""
        self._stream.write(back + "".join(f"{line}\n" for line in lines))
        self._stream.flush()


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "━╌↻✗▲".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
