"""``tokenadapter file``: writes the token to a file.

  tokenadapter file warehouse ~/.local/state/warehouse/token
  tokenadapter file warehouse ~/.local/state/warehouse/token --watch

Use this for a program that reads its token from a file. The file contains the token alone, without
a line end. It is replaced in one step, and only you can read it. With --watch, the command keeps
running, and replaces the file whenever the token was renewed, by itself or by another process. If
the token cannot be renewed, the command reports that once, leaves the file as it is, and keeps
trying. After SIGTERM, it ends with the exit code 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from tokenadapter.cli.common import add_min_validity, add_name, named_profile, seconds, usable_token
from tokenadapter.cli.output import unwritable
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile
from tokenadapter.stores import _files, _reading
from tokenadapter.stores._text import Refused

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.config_file import ConfigFile
    from tokenadapter.token import Token

__all__ = ["add_arguments", "perform"]

_INTERVAL = 10.0
# How often to look at least while a token lives, so that its renewal is not missed.
_LOOKS_PER_LIFETIME = 20
_SHORTEST_PAUSE = 0.1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    parser.add_argument("path", metavar="PATH", help="the file to write")
    parser.add_argument(
        "--watch",
        metavar="TIME",
        nargs="?",
        type=seconds,
        const=_INTERVAL,
        help="keep running, and look for a new token every 10 seconds, or at this interval",
    )
    add_min_validity(parser)


def perform(options: Namespace) -> int:
    """Write the file, and keep it fresh."""
    profile = named_profile(options)
    file = _TokenFile(options.path, profile.config)
    if options.watch is not None:
        # Before the first token, so that the command ends in the same way at any time.  A renewal
        # that is under way is finished: the interpreter waits for it when it exits.
        signal.signal(signal.SIGTERM, _stop)
    token = usable_token(profile, options.min_validity)
    file.write(token)
    if options.watch is not None:
        _watch(options, profile, file, token)
    return 0


def _watch(options: Namespace, profile: Profile, file: _TokenFile, token: Token) -> NoReturn:
    keeper = profile.keeper()
    reported_kind = None
    while True:
        time.sleep(_pause(token, options.watch))
        try:
            keeper.look()
            token = keeper.obtain(min_validity=options.min_validity).token
            file.write(token)
        except Exception as error:
            if type(error) is not reported_kind:
                from tokenadapter.cli.reporting import reported

                if not reported(error, profile.as_arguments):
                    raise
                reported_kind = type(error)
        else:
            reported_kind = None


def _is_needed(path: str, config: ConfigFile) -> bool:
    """Whether a profile of *config* needs the file *path*."""
    needed = [config.path]
    stores: list[str] = []
    for name in config.tables:
        with suppress(ProfileError):
            profile = Profile(config, name)
            needed += [each.path for each in profile.references() if each.kind == "file"]
            stores += filter(None, [getattr(profile.store(), "path", None)])
    real = os.path.realpath(path)
    # The names of a store's other files begin with that of its record.
    return real in map(os.path.realpath, needed + stores) or real.startswith(
        tuple(f"{os.path.realpath(store)}." for store in stores)
    )


def _pause(token: Token, interval: float) -> float:
    lifetime = token.lifetime
    if lifetime is not None:
        interval = min(interval, lifetime / _LOOKS_PER_LIFETIME)
    return max(interval, _SHORTEST_PAUSE)


def _stop(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # the exit may wait, and need not be asked twice
    sys.exit(0)


class _TokenFile:
    """A file that contains a token.

    :raises ProfileError: if that would destroy a file that a profile of *config* needs.
    """

    def __init__(self, path: str, config: ConfigFile) -> None:
        self.path = _reading.absolute(path)
        self._written: Token | None = None
        if _is_needed(self.path, config):
            raise ProfileError(
                f"{self.path} is a file that a profile needs: the configuration file, a store or "
                "its lock, or a secret. Nothing was written. Choose another path."
            )

    def write(self, token: Token) -> None:
        """Replace the content by *token*, unless that is what was written last.

        :raises ProfileError: if another user could replace the file, or if the path is a
            directory, device or pipe.
        :raises TokenError: if it cannot be written.
        """
        if token.is_same(self._written) and os.path.lexists(self.path):
            return
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise ProfileError(
                f"{self.path} is not a regular file. Nothing was written. Choose another path."
            )
        try:
            _files.make_directory_of(self.path)
            _reading.check_directory(os.path.dirname(self.path))
            _files.Draft(self.path).publish(token.access_token.encode(), self.path)
        except Refused as error:
            raise ProfileError(f"The token was not written: {error}.") from None
        except OSError as error:
            raise unwritable(self.path, error) from None
        self._written = token
