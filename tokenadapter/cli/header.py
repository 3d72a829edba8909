"""``tokenadapter header``: prints the token as an HTTP header line.

  tokenadapter header billing | curl -fsS -H @- https://api.example.com/invoices

The token is renewed if it is due, once for all processes that share its store. The token appears in
no command line, and so in no list of processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import (
    add_json,
    add_min_validity,
    add_name,
    authorization,
    named_profile,
    put,
    usable_token,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["PLAIN", "add_arguments", "perform"]

PLAIN: dict[str, Any] = {"config": None, "json": False, "min_validity": 0.0}
"""The options of a command line that has only a name."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    add_min_validity(parser)
    add_json(parser)


def perform(options: Namespace) -> int:
    """Print the header line."""
    profile = named_profile(options)
    token = usable_token(profile, options.min_validity)
    value = authorization(profile, token)
    put(
        options,
        f"{profile.header}: {value}",
        {"header": profile.header, "value": value, "expires_at": token.expires_at},
    )
    return 0
