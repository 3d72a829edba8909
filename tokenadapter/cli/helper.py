"""``tokenadapter helper``: gives the token to another program, as its credential helper.

  git config credential.https://git.example.com.helper '!tokenadapter helper git code'

The other program starts this command when it needs a token, and appends its own arguments. It gets
the token only for a URL under a prefix of the profile. docs/howto/programs.md shows the settings of
each program:

  git      as credential.helper
  kubectl  as the command below "exec" in a kubeconfig
  bazel    from a script that --credential_helper names
  docker   from a script docker-credential-NAME
  google   as the executable of a credential configuration
  keyring  from a script that pip and uv find as "keyring"
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import UsageError, add_name, authorization, named_profile
from tokenadapter.cli.output import write_line
from tokenadapter.core.policy import windows
from tokenadapter.values import Value

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.profile import Profile

__all__ = ["TAKES_WORDS", "Call", "Guard", "Issued", "add_arguments", "perform"]

TAKES_WORDS = True
"""The arguments end with those that the other program appends: from the first one after the name of
the profile that is no option of this command."""

HELPERS = ("git", "kubectl", "bazel", "docker", "google", "keyring")
"""Each has a module in :mod:`tokenadapter.cli.helpers`."""

# More than any of these programs writes.
_LONGEST_INPUT = 1 << 20
# Seconds after its issue within which a token is new: a program that was given it may just have
# been refused.
_NEW = 10.0


class Call(Value):
    """How a program called its helper."""

    words: Sequence[str]
    """What it appended to the command."""
    read: Callable[[], str]
    """Reads what it wrote to standard input.  Some programs leave the terminal there."""
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return "<Call>"


class Issued(Value):
    """A token for a program, and the header that the profile's API expects."""

    access_token: str
    header: str
    value: str
    until: float | None
    """When to ask for the next token (POSIX timestamp in seconds): a little before this one
    expires, so that no request arrives too late."""

    def __repr__(self) -> str:
        return f"<Issued until={self.until}>"

    @property
    def rfc3339(self) -> str | None:
        """The same time in the format of RFC 3339."""
        end = self.until
        return None if end is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))


class Guard:
    """The only way in which a helper gets a token: by the URL that the token is for.

    :ivar prefixes: the URLs below which there is one.
    :ivar username: the user that servers expect with it, if the profile names one.
    """

    any_username: str = "oauth2"
    """The user of a token that is sent as a password, for servers that accept any."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.prefixes: list[str] = profile.prefixes
        self.username: str | None = profile.username

    def token(self, url: str) -> Issued | None:
        """The token for *url*; ``None`` if the URL is outside the prefixes.

        :raises TokenError: if there is none.
        """
        profile = self._profile
        if not profile.covers(url):
            return None
        token = profile.keeper().current()
        end = token.expires_at
        if end is not None:
            early = end - windows(end - token.issued_at, 1.0)[1]
            # A token that could not be renewed in time is good to its end.
            end = early if early > time.time() else end
        return Issued(token.access_token, profile.header, authorization(profile, token), end)

    def required_token(self, url: str) -> Issued:
        """The token for *url*.

        :raises UnsafeTarget: if the URL is outside the prefixes.
        :raises TokenError: if there is no token.
        """
        issued = self.token(url)
        if issued is None:
            from tokenadapter.cli.reporting import outside

            raise outside(self._profile)
        return issued

    def renew(self, url: str, rejected: str) -> None:
        """Renew the token if the server at *url* refused it.

        A token that was refused when it was new is not renewed for a while.

        :param rejected: the access token that was refused.  If another process has renewed it
            since, nothing happens.
        :raises TokenError: if that fails.
        """
        if self._profile.covers(url):
            keeper = self._profile.keeper()
            token = keeper.current()
            if token.access_token != rejected:
                return
            if time.time() - token.issued_at < _NEW:
                keeper.distrust(token)  # the next one would be refused too
            keeper.renew(token)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.usage = "%(prog)s PROGRAM NAME [--config FILE] …"
    parser.add_argument(
        "helper", metavar="PROGRAM", choices=HELPERS, help=f"one of {', '.join(HELPERS)}"
    )
    add_name(parser)


def perform(options: Namespace) -> int:
    """Answer the program."""
    module: Any = import_module(f"tokenadapter.cli.helpers.{options.helper}")
    _check_words(options, getattr(module, "WORDS", None))
    profile = named_profile(options)
    if getattr(module, "MERGES_STDERR", False) and options.level is None:
        from tokenadapter.cli.reporting import mute

        mute(profile.keeper())
    text, code = module.answer(Call(options.words, _read, os.environ), Guard(profile))
    if text:
        write_line(text)
    return int(code)


def _check_words(options: Namespace, count: int | None) -> None:
    """Refuse arguments that are neither options of this command nor words of the program.

    :param count: how many words the program appends; ``None`` if it parses them itself.
    """
    words: list[str] = options.words
    if count is not None and (len(words) != count or any(word[:1] == "-" for word in words)):
        raise UsageError(
            f"{options.helper} appends {'one word' if count else 'nothing'} to this command, but "
            f"the command line ends with {' '.join(words)!r}. Nothing was sent."
        )


def _read() -> str:
    if sys.stdin is None:
        return ""
    return sys.stdin.buffer.read(_LONGEST_INPUT).decode("utf-8", "replace")
