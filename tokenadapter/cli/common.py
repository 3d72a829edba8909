"""What several commands need: the profile that is named, a usable token of it, and output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.output import write_line
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.token import Token

__all__ = [
    "add_config",
    "add_json",
    "add_min_validity",
    "add_name",
    "named_profile",
    "put",
    "seconds",
    "usable_token",
]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def add_config(parser: ArgumentParser) -> None:
    """Let the configuration file be named."""
    parser.add_argument(
        "--config", metavar="FILE", help="the configuration file, if it is not where it belongs"
    )


def add_name(parser: ArgumentParser) -> None:
    """Ask for the name of a profile."""
    parser.add_argument("name", metavar="NAME", help="a profile of the configuration file")
    add_config(parser)


def add_json(parser: ArgumentParser) -> None:
    """Let the output be JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_min_validity(parser: ArgumentParser) -> None:
    """Let a time be named for which the token is needed."""
    parser.add_argument(
        "--min-validity",
        metavar="TIME",
        type=seconds,
        default=0.0,
        help="renew a token that lives for less: 90, 90s, 5m, 1h",
    )


def seconds(text: str) -> float:
    """A time such as ``90``, ``90s``, ``5m`` or ``1h``, in seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        value = float(number) * _UNITS[unit]
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is no time such as 90s, 5m or 1h")
    return value


def named_profile(options: Namespace) -> Profile:
    """The profile that the arguments name.

    :raises ProfileError: if it cannot be used.
    """
    profile = Profile(ConfigFile.read(options.config), options.name)
    from tokenadapter.cli.reporting import StderrJournal

    keeper = profile.keeper()
    keeper.journal = StderrJournal(
        profile.name, keeper.journal.listener, to_log=options.level is not None
    )
    return profile


def usable_token(profile: Profile, min_validity: float) -> Token:
    """A token of the profile, renewed if it is due or lives for less than so many seconds.

    :raises TokenError: if there is none.
    """
    token = profile.keeper().obtain(min_validity=min_validity).token
    if min_validity and token.expires_at is not None:
        import time

        left = token.expires_at - time.time()
        if left < min_validity:
            sys.stderr.write(
                f"tokenadapter: {profile.name}: the token lives for {max(left, 0):.0f} s more, "
                f"not {min_validity:.0f} s\n"
            )
    return token


def put(options: Namespace, text: str, fields: dict[str, Any]) -> None:
    """Print *text*, or *fields* as JSON if that is asked for."""
    if options.json:
        import json

        text = json.dumps(fields)
    write_line(text)
