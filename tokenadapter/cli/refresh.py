"""``tokenadapter refresh``: renews a token, even if it is fresh.

While the processes that share the store back off after a failure, or after a credential was
refused, this command does not contact the server either. --force ends the back-off and tries again,
for all of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_name, named_profile, validity

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    parser.add_argument(
        "--force", action="store_true", help="renew despite a back-off or a refused credential"
    )
    parser.add_argument("--quiet", action="store_true", help="do not confirm the renewal")


def perform(options: Namespace) -> int:
    """Renew the token."""
    profile = named_profile(options)
    keeper = profile.keeper()
    if options.force:
        token = keeper.refresh()
    else:
        found = keeper.obtain()
        token = found.token
        if not found.minted:
            token = keeper.obtain(token, forced=True).token
        if token.is_same(found.token) and not found.minted:
            sys.stderr.write(
                f"tokenadapter: {profile.name}: not renewed: the API refused this token when it "
                "was new, and would refuse the next one too. Pass --force to renew it anyway.\n"
            )
            return 5
    if not options.quiet:
        sys.stderr.write(f"tokenadapter: {profile.name}: renewed{validity(token)}\n")
    return 0
