"""``tokenadapter status``: shows the state of each token.

The command takes no lock, renews nothing and contacts no server, so it is always safe. States:

  usable           the token can be used; if it cannot be renewed, the line below says so
  expired          the next use waits for a renewal
  reauth_required  the credentials were refused, for the reason below: run
                   tokenadapter login NAME, or adopt NAME
  absent           no token was needed yet, nobody has logged in yet, or it was forgotten
  encrypted        there is a token; its key is in a command or the keyring, which is not read here
  unusable         the profile or its store cannot be used, for the reason below
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.output import clock, short, span, table, write_line
from tokenadapter.cli.token_state import standing, token_state, unusable
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["PLAIN", "add_arguments", "perform"]

PLAIN: dict[str, Any] = {"config": None, "json": False, "watch": None}
"""The options of a command line that has only a name."""

_COLUMNS = ("NAME", "STATE", "LOGGED IN AS", "EXPIRES", "RENEWED", "LOCK", "API", "STORE")
_COLOURS = {
    "usable": "good",
    "expired": "warning",
    "absent": "warning",
    "encrypted": "warning",
    "reauth_required": "bad",
    "unusable": "bad",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    from tokenadapter.cli.common import add_config, add_json, seconds

    parser.add_argument("name", metavar="NAME", nargs="?", help="show this profile only")
    parser.add_argument(
        "--watch",
        metavar="TIME",
        nargs="?",
        type=seconds,
        const=2.0,
        help="refresh the display every 2 seconds, or at this interval, until Ctrl-C",
    )
    add_json(parser)
    add_config(parser)


def perform(options: Namespace) -> int:
    """Print the states of the tokens."""
    config = ConfigFile.read(options.config)
    names = [*config.tables] if options.name is None else [options.name]
    if options.name is not None:
        Profile(config, options.name)  # an error in the profile that is named ends the command
    if options.watch is None:
        _show([_state(config, name) for name in names], as_json=options.json)
        return 0
    with suppress(KeyboardInterrupt):
        while True:
            states = [_state(config, name) for name in names]
            _show(states, as_json=options.json, again=True)
            time.sleep(max(options.watch, 0.1))
    return 0


def _state(config: ConfigFile, name: str) -> dict[str, Any]:
    try:
        return token_state(Profile(config, name))
    except Exception as error:
        from tokenadapter.errors import TokenError

        if not isinstance(error, (ProfileError, TokenError)):
            raise
        return unusable(name, str(error))


def _show(states: list[dict[str, Any]], *, as_json: bool, again: bool = False) -> None:
    if as_json:
        import json

        text = json.dumps(states)
    else:
        # Most tokens are of programs, and not of people who log in.
        has_users = any(state["logged_in_as"] for state in states)
        columns = [name for name in _COLUMNS if name != "LOGGED IN AS" or has_users]
        rows = [([_row(state)[name] for name in columns], _remark(state)) for state in states]
        text = table(columns, rows, _COLOURS)
        if again:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else "\n"
            text = f"{clear}{time.strftime('%H:%M:%S')}\n{text}"
    write_line(text)


def _row(state: dict[str, Any]) -> dict[str, str]:
    left, ago, api = state["expires_in"], state["renewed_ago"], state["api"]
    if left is None:
        ends = "–" if ago is None else "unknown"
    elif left > 0:
        ends = f"in {span(left)} ({clock(time.time() + left)})"
    else:
        ends = f"{span(-left)} ago"
    return {
        "NAME": state["name"],
        "STATE": state["state"],
        "LOGGED IN AS": state["logged_in_as"] or "–",
        "EXPIRES": ends,
        "RENEWED": "–" if ago is None else f"{span(ago)} ago",
        "LOCK": state["lock"] or "free",
        "API": (api[0] if api else "–") + (f" and {len(api) - 1} more" if len(api) > 1 else ""),
        "STORE": short(state["path"]) if isinstance(state["path"], str) else state["store"] or "–",
    }


def _remark(state: dict[str, Any]) -> str | None:
    failure, bound_to = state["failure"], state["bound_to"]
    binding = None if bound_to is None else f"Bound to {bound_to} (DPoP)."
    said = standing(state)
    dead = None if said == state["state"] else f"{said}."
    if failure is None:
        return " ".join(filter(None, (binding, dead, state["advice"]))) or None
    when = "" if failure["ago"] is None else f"{span(failure['ago'])} ago: "
    wait = failure["retry_in"]
    then = "" if wait is None else f" Next attempt in {span(wait)}."
    return "\n".join(filter(None, (dead, f"{when}{failure['cause']}{then}", binding)))
