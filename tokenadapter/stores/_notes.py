"""The notes of a slot, as lines: which are kept, and which are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["is_noted", "noted"]

# What stands behind a note that is kept for good, and how many others are kept.
_FOR_GOOD: Final = " for good"
_KEPT: Final = 32


def noted(lines: Sequence[str], note: str, *, for_good: bool) -> list[str]:
    """*lines* and *note*, which is the latest of them, without those that are forgotten by that."""
    kept = [line for line in lines if line.removesuffix(_FOR_GOOD) != note]
    lasts = for_good or note + _FOR_GOOD in lines
    kept.append(note + _FOR_GOOD if lasts else note)
    passing = [line for line in kept if not line.endswith(_FOR_GOOD)]
    forgotten = set(passing[:-_KEPT])
    return [line for line in kept if line not in forgotten]


def is_noted(lines: Sequence[str], note: str) -> bool:
    """Whether *note* is among *lines*."""
    return note in [line.removesuffix(_FOR_GOOD) for line in lines]
