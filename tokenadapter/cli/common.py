"""What several commands share: their arguments, the profile they name, and a usable token of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.output import span, write_line
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.token import header_value

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.token import Token

__all__ = [
    "LOST_LOGIN",
    "UsageError",
    "add_config",
    "add_json",
    "add_min_validity",
    "add_name",
    "authorization",
    "check_keeps_login",
    "named_profile",
    "put",
    "reporting",
    "seconds",
    "usable_token",
    "validity",
]

LOST_LOGIN = (
    "The store of this profile is in memory, so a login would be lost when the command ends. Give "
    "the profile a store that programs share, such as file:~/.local/state/…, or remove the key "
    "store: the default store is such a file."
)

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class UsageError(ValueError):
    """Arguments of a command are missing, or do not fit together."""


def add_config(parser: ArgumentParser) -> None:
    """Add the option ``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=_path,
        help="read this configuration file, not the default one",
    )


def _path(text: str) -> str:
    if text:
        return text
    from argparse import ArgumentTypeError

    raise ArgumentTypeError("the path is empty; perhaps a variable of your shell is not set")


def add_name(parser: ArgumentParser) -> None:
    """Add the name of a profile, and ``--config``."""
    parser.add_argument("name", metavar="NAME", help="a profile in the configuration file")
    add_config(parser)


def add_json(parser: ArgumentParser) -> None:
    """Add the option ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_min_validity(parser: ArgumentParser) -> None:
    """Add the option ``--min-validity``."""
    parser.add_argument(
        "--min-validity",
        metavar="TIME",
        type=seconds,
        default=0.0,
        help="renew a token that is valid for less time: 90, 90s, 5m, 1h",
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

        raise ArgumentTypeError(f"invalid time {text!r}: give one such as 90s, 5m or 1h")
    return value


def named_profile(options: Namespace) -> Profile:
    """The profile that the arguments name.

    :raises ProfileError: if there is none, or if it is invalid.
    """
    return reporting(Profile(ConfigFile.read(options.config), options.name), options)


def reporting(profile: Profile, options: Namespace) -> Profile:
    """*profile*, whose events are reported on standard error.

    :raises ProfileError: if it is invalid.
    """
    from tokenadapter.cli.reporting import StderrJournal

    keeper = profile.keeper()
    keeper.journal = StderrJournal(
        profile, keeper.store, keeper.journal.listener, to_log=options.level is not None
    )
    return profile


def check_keeps_login(profile: Profile) -> None:
    """Check that the next command will find a token that is stored now.

    :raises ProfileError: if the store is in memory.
    """
    if profile.is_in_memory:
        raise profile.config.error([profile.name, "store"], f"{LOST_LOGIN} Nothing was sent.")


def usable_token(profile: Profile, min_validity: float) -> Token:
    """A token of the profile, renewed if that is due.

    :param min_validity: in seconds; a token that is valid for less is renewed too.
    :raises TokenError: if there is none.
    """
    token = profile.keeper().obtain(min_validity=min_validity).token
    if min_validity and token.expires_at is not None:
        import time

        left = token.expires_at - time.time()
        if left < min_validity:
            sys.stderr.write(
                f"tokenadapter: {profile.name}: the token is valid for {span(max(left, 0))}, less "
                f"than {span(min_validity)}\n"
            )
    return token


def authorization(profile: Profile, token: Token) -> str:
    """The value of the header that carries *token*.

    :raises RefreshConfigError: if the profile sends Bearer tokens, and *token* is none.
    """
    if profile.scheme.lower() == "bearer" and not token.is_bearer:
        from tokenadapter.core import messages

        raise messages.not_bearer(profile.store(), token)
    return header_value(token.access_token, profile.scheme)


def validity(token: Token) -> str:
    """How long *token* is valid, for the end of a message."""
    if token.expires_at is None:
        return ""
    import time

    return f", valid for {span(max(token.expires_at - time.time(), 0))}"


def put(options: Namespace, text: str, fields: dict[str, Any]) -> None:
    """Print *text*, or with ``--json`` the *fields*."""
    if options.json:
        import json

        text = json.dumps(fields)
    write_line(text)
