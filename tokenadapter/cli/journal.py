"""What happens to a token while a command is at work: on standard error, if it matters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tokenadapter.cli.table import harmless
from tokenadapter.core.journal import Journal

if TYPE_CHECKING:
    from tokenadapter.events import Event

__all__ = ["StderrJournal", "named"]

_WARNING = 30


def named(message: str, profile: str | None) -> str:
    """*message*, fit for a terminal, with the profile's name where it says which command helps."""
    message = harmless(message)
    return message if profile is None else message.replace("adopt NAME", f"adopt {profile}")


class StderrJournal(Journal):
    """Shows people what a log would warn of.

    A failure that ends the command is not among that: the command says it at its end.

    :param profile: the name of the profile that the token is of.
    :param to_log: whether a log is set up, which shows the events too.
    """

    def __init__(
        self,
        profile: str,
        listener: Callable[[Event], object] | None,
        *,
        to_log: bool,
    ) -> None:
        super().__init__(listener)
        self._profile = profile
        self._to_log = to_log

    def write(self, event: Event, level: int) -> None:
        """Write *event* to standard error."""
        if self._to_log:
            super().write(event, level)
        elif level >= _WARNING:
            sys.stderr.write(f"tokenadapter: {named(str(event), self._profile)}\n")
