"""What commands report on standard error: warnings as they work, and the error that ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tokenadapter.cli.output import printable_lines
from tokenadapter.core.journal import Journal

if TYPE_CHECKING:
    from tokenadapter.config.profile import Profile
    from tokenadapter.core.keeper import TokenKeeper
    from tokenadapter.errors import UnsafeTarget
    from tokenadapter.events import Event
    from tokenadapter.protocols import TokenStore

__all__ = ["StderrJournal", "mute", "named", "outside", "reported"]

_WARNING = 30  # logging.WARNING: importing logging would take its time


def named(message: str, profile: str | None, advice: str | None = None) -> str:
    """*message*, fit for a terminal, with the profile in the commands that it recommends.

    :param profile: how a command line names the profile that the message is about.
    :param advice: how to log in, if the profile knows that.
    """
    from tokenadapter.errors import fitted

    return printable_lines(fitted(message, profile or "NAME", advice))


class StderrJournal(Journal):
    """Shows what a log would warn of.

    A failure that ends the command is not shown here: :func:`reported` shows it.

    :param profile: the profile that the token belongs to.
    :param to_log: whether a log is set up, which shows the events instead.
    """

    def __init__(
        self,
        profile: Profile,
        store: TokenStore,
        listener: Callable[[Event], object] | None,
        *,
        to_log: bool,
    ) -> None:
        super().__init__(store, listener)
        self._profile = profile
        self._to_log = to_log

    def write(self, event: Event, level: int) -> None:
        """Write *event* to standard error."""
        if self._to_log:
            super().write(event, level)
        elif level >= _WARNING:
            sys.stderr.write(f"tokenadapter: {named(str(event), self._profile.as_arguments)}\n")


class _Silence(Journal):
    def write(self, event: Event, level: int) -> None:
        pass


def mute(keeper: TokenKeeper) -> None:
    """Have no event of *keeper* written anywhere."""
    keeper.journal = _Silence(keeper.store, keeper.journal.listener)


def outside(profile: Profile) -> UnsafeTarget:
    """The error for a URL that must not get the token of *profile*."""
    from tokenadapter.errors import UnsafeTarget

    return UnsafeTarget(
        f"The URL is outside {' and '.join(profile.prefixes)}, so the token of {profile.name} must "
        "not be sent there. Nothing was sent. Compare the URL with the prefix in the profile."
    )


def reported(error: Exception, profile: str | None) -> int:
    """Report *error*, and return the exit code; 0 for an error that means a bug.

    :param profile: how a command line names the profile that the command was about.
    """
    # Imported here, since they import requests: a command that succeeds does without them.
    from tokenadapter import errors
    from tokenadapter.cli.common import UsageError
    from tokenadapter.config.problems import ProfileError

    code = 2 if isinstance(error, UsageError) else 3 if isinstance(error, ProfileError) else 0
    if isinstance(error, errors.TokenError):
        code = error.exit_code
        error.profile = error.profile or profile or "NAME"
    if code:
        sys.stderr.write(f"tokenadapter: {named(str(error), profile)}\n")
    return code
