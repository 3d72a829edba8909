"""One thing that ``tokenadapter check`` found."""

from __future__ import annotations

from typing import Final

__all__ = ["GOOD", "NOTE", "PROBLEM", "Finding"]

GOOD: Final = "ok"
NOTE: Final = "note"
"""Worth a look; what is asked for works."""
PROBLEM: Final = "problem"


class Finding:
    """What is as it should be, or is not.

    :param level: :data:`GOOD`, :data:`NOTE` or :data:`PROBLEM`.
    :param about: the profile, or the configuration.
    :param text: what was found and, unless that is good, what to do.
    """

    __slots__ = ("about", "level", "text")

    def __init__(self, level: str, about: str, text: str) -> None:
        self.level: str = level
        self.about: str = about
        self.text: str = text

    def __repr__(self) -> str:
        return f"<{self.level} {self.about}: {self.text}>"
