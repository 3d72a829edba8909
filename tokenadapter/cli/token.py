"""``tokenadapter token``: the token alone.

  PGPASSWORD=$(tokenadapter token warehouse) psql …

For a program that takes a header, "tokenadapter header" is the safer way; for one that takes an
environment variable, "tokenadapter exec".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import (
    add_json,
    add_min_validity,
    add_name,
    named_profile,
    put,
    usable_token,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["PLAIN", "add_arguments", "perform"]

PLAIN: dict[str, Any] = {"config": None, "json": False, "min_validity": 0.0}
"""What is meant where nothing but a name is given."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_name(parser)
    add_min_validity(parser)
    add_json(parser)


def perform(options: Namespace) -> int:
    """Print the token."""
    token = usable_token(named_profile(options), options.min_validity)
    end = token.expires_at
    put(
        options,
        token.access_token,
        {
            "access_token": token.access_token,
            "token_type": token.token_type,
            "expires_at": end,
            "expires_in": None if end is None else int(max(end - time.time(), 0)),
            "scope": token.scope,
        },
    )
    return 0
