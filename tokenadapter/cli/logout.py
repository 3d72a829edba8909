"""``tokenadapter logout``: revokes a token at the server, and deletes it.

Afterwards, no process that shares the store can renew the token. If the server refuses to revoke
the token (RFC 7009), or does not answer, nothing is deleted; --local deletes the token without
contacting the server. If the server has no revocation endpoint, the token is only deleted: end the
access in the settings of the user's account at the server.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.logins.logout import logout

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.profile import Profile

__all__ = ["add_arguments", "add_local", "log_out", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    add_local(parser)


def add_local(parser: ArgumentParser) -> None:
    """Add the option ``--local``."""
    parser.add_argument(
        "--local", action="store_true", help="do not revoke the token at the server"
    )


def perform(options: Namespace) -> int:
    """Log out."""
    profile = named_profile(options)
    outcome = log_out(profile, local=options.local)
    sys.stderr.write(f"tokenadapter: {profile.name}: logged out: {outcome}\n")
    return 0


def log_out(profile: Profile, *, local: bool) -> str:
    """Revoke the token of *profile* and empty its store, and say what was done.

    :raises TokenError: if the token is not revoked, or cannot be removed.
    """
    if logout(profile.keeper(), local=local) is None:
        return "there was no token"
    if local:
        return "forgotten, but not revoked (--local)"
    if not getattr(profile.grant, "revokes", False):
        return "forgotten, but not revoked (the source has no revocation_url)"
    return "revoked and forgotten"
