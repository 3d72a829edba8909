"""``tokenadapter forget``: gives a token up.

Where the profile's source has a revocation_url, the server is told first (RFC 7009). If it cannot
be reached, nothing is forgotten; --local forgets without telling it. A process that is using the
token goes on until it has to be renewed. Which refresh tokens were spent stays remembered.
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
    """Declare what the command takes."""
    add_name(parser)
    parser.add_argument(
        "--local", action="store_true", help="do not have the server revoke the token"
    )


def perform(options: Namespace) -> int:
    """Revoke the token, and empty the store."""
    profile = named_profile(options)
    grant = profile.grant
    revoke = None
    if isinstance(grant, ProfileGrant) and grant.revokes and not options.local:
        revoke = grant.revoke
    token = profile.keeper().forget(revoke)
    if token is None:
        told = "there was no token"
    elif revoke is None:
        why = "--local" if options.local else "the source has no revocation_url"
        told = f"forgotten, but not revoked ({why})"
    else:
        told = "revoked and forgotten"
    sys.stderr.write(f"tokenadapter: {profile.name}: {told}\n")
    return 0
