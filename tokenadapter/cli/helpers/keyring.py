"""pip and uv, which call the command of the package keyring.

pip calls ``keyring get URL USER``, since version 26.2 ``keyring --mode=creds --output=json get URL
[USER]``.  uv calls ``keyring get URL USER``, or ``keyring get URL --mode creds``.  Both ask once
more, for the host alone, if there is no password for the URL.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenadapter.cli.helper import Call, Guard

__all__ = ["answer"]

_NOTHING = "", 1


def answer(call: Call, guard: Guard) -> tuple[str, int]:
    """Answer one call."""
    # Without --help: pip would take the text for a password, and a user may have this name.
    parser = ArgumentParser(prog="keyring", allow_abbrev=False, add_help=False)
    parser.add_argument("--mode", choices=("password", "creds"), default="password")
    parser.add_argument("--output", choices=("plain", "json"), default="plain")
    parser.add_argument("operation")
    parser.add_argument("url")
    parser.add_argument("username", nargs="?")
    options = parser.parse_args(call.words)
    issued = guard.token(options.url) if options.operation == "get" else None
    if issued is None:
        return _NOTHING
    found = {"password": issued.access_token}
    if options.mode == "creds":
        username = options.username or guard.username or guard.any_username
        found = {"username": username, **found}
    text = json.dumps(found) if options.output == "json" else "\n".join(found.values())
    return text, 0
