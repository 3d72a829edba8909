"""What happens to a token while a command is at work: on standard error, if it matters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.table import harmless
from tokenadapter.journal import Journal

if TYPE_CHECKING:
    from tokenadapter.events import Event

__all__ = ["TOLD", "StderrJournal", "named"]

TOLD: set[str] = set()
"""The errors that were told already."""

_WARNING = 30


def named(message: str, profile: str | None) -> str:
    """*message*, fit for a terminal, with the profile's name where it says which command helps."""
    message = harmless(message)
    return message if profile is None else message.replace("adopt NAME", f"adopt {profile}")


class StderrJournal(Journal):
    """Tells people what a log would warn of.

    There is nobody to set up a log, and ``logging`` would take its time to import.

    :param profile: the name of the profile that the token is of.
    """

    def __init__(self, profile: str, listener: Callable[[Event], object] | None) -> None:
        super().__init__(listener)
        self._profile = profile

    def tell(self, name: str, **fields: Any) -> None:
        """An event of the class *name* of :mod:`tokenadapter.events` happened."""
        from tokenadapter import events

        event: Event = getattr(events, name)(**fields)
        if event.level >= _WARNING:
            sys.stderr.write(f"tokenadapter: {named(str(event), self._profile)}\n")
            TOLD.add(fields.get("error", ""))
        if self.listener is not None:
            super().tell(name, **fields)
