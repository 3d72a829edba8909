"""Standard output and standard error as a command finds them: full, closed, or poor in letters."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError

__all__ = ["STDOUT", "make_ready", "say", "unwritable"]

STDOUT = "Standard output"


def make_ready() -> None:
    """Let anything be written to them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed, as by ">&-": what is written there is meant to be lost.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            # A sign that the locale does not have is no reason to fail.
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write a line to standard output, now.

    :raises BrokenPipeError: if its reader has gone.
    :raises TokenError: if it cannot be written.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(STDOUT, error) from None


def unwritable(place: str, error: OSError) -> TokenError:
    """The error of output that cannot be written to *place*."""
    from tokenadapter.errors import TokenError

    if place == STDOUT:
        sys.stdout = None  # else the interpreter tries once more at its end
    return TokenError(f"{place} cannot be written: {error.strerror}. What the store holds is kept.")
