"""``tokenadapter forget``: revokes a token and deletes it.

If the profile's source has a revocation_url, the token is revoked at the server first (RFC 7009).
If the server cannot be reached, nothing is deleted; --local deletes the token without contacting
the server. A process that uses the token goes on until it has to renew it. The store still
remembers which refresh tokens were spent.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.config.grants import ProfileGrant

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    parser.add_argument(
        "--local", action="store_true", help="do not revoke the token at the server"
    )


def perform(options: Namespace) -> int:
    """Revoke the token, and empty the store."""
    profile = named_profile(options)
    grant = profile.grant
    revoke = None
    if isinstance(grant, ProfileGrant) and not options.local:
        if grant.discovers:
            grant.discover()
        if grant.revokes:
            revoke = grant.revoke
    token = profile.keeper().forget(revoke)
    if token is None:
        outcome = "there was no token"
    elif revoke is None:
        why = "--local" if options.local else "the source has no revocation_url"
        outcome = f"forgotten, but not revoked ({why})"
    else:
        outcome = "revoked and forgotten"
    sys.stderr.write(f"tokenadapter: {profile.name}: {outcome}\n")
    return 0
