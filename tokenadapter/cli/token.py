"""``tokenadapter token``: prints the token alone.

  PGPASSWORD=$(tokenadapter token warehouse) psql …

For a program that reads a header, "tokenadapter header" is safer; for one that reads an environment
variable, use "tokenadapter exec".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tokenadapter.cli.common import named_profile, put, usable_token
from tokenadapter.cli.header import PLAIN, add_arguments

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["PLAIN", "add_arguments", "perform"]


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
