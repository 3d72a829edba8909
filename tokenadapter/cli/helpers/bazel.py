"""Bazel, and others that speak https://github.com/EngFlow/credential-helper-spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenadapter.config.problems import ProfileError

if TYPE_CHECKING:
    from tokenadapter.cli.helper import Call, Guard

__all__ = ["WORDS", "answer"]

WORDS: int = 1
"""How many words the program appends to the command."""


def answer(call: Call, guard: Guard) -> tuple[str, int]:
    """Answer one call.  A URI without a token is an error by the specification."""
    if list(call.words[:1]) != ["get"]:
        raise ProfileError("bazel calls its helper with the word get. Nothing was sent.")
    try:
        uri: Any = json.loads(call.read())["uri"]
    except (KeyError, TypeError, ValueError, RecursionError):
        uri = None
    if not isinstance(uri, str):
        raise ProfileError("bazel wrote no JSON object with a uri. Nothing was sent.")
    if uri.startswith("grpcs://"):
        uri = f"https://{uri.removeprefix('grpcs://')}"
    issued = guard.required_token(uri)
    found: dict[str, Any] = {"headers": {issued.header: [issued.value]}}
    if issued.rfc3339 is not None:
        found["expires"] = issued.rfc3339
    return json.dumps(found), 0
