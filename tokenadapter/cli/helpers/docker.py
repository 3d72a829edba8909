"""docker, podman and others that speak https://github.com/docker/docker-credential-helpers.

These programs show what a helper that fails has written to standard output.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenadapter.cli.helper import Call, Guard

__all__ = ["WORDS", "answer"]

WORDS: int = 1
"""How many words the program appends to the command."""

# By this very text, docker knows that it has to ask the user.
_NOTHING = "credentials not found in native keychain", 1


def answer(call: Call, guard: Guard) -> tuple[str, int]:
    """Answer one call."""
    operation = call.words[0]
    username = guard.username or guard.any_username
    if operation == "list":
        return json.dumps(dict.fromkeys(guard.prefixes, username)), 0
    if operation != "get":
        return (
            f"tokenadapter does not {operation}: use the commands tokenadapter login, adopt and "
            "logout"
        ), 1
    server = call.read().strip()
    # docker names a registry by its host.
    issued = guard.token(server if "://" in server else f"https://{server}")
    if issued is None:
        return _NOTHING
    found = {"ServerURL": server, "Username": username, "Secret": issued.access_token}
    return json.dumps(found), 0
