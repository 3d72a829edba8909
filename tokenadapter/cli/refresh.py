"""``tokenadapter refresh``: renews a token although it is good.

It respects what the processes that share the store have told each other: nobody asks a server
again that has just failed, or with a credential that was refused. --force says that it is worth
another try, for all of them.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.cli.output import span

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_name(parser)
    parser.add_argument(
        "--force", action="store_true", help="in spite of what was refused or is held off"
    )


def perform(options: Namespace) -> int:
    """Renew the token."""
    profile = named_profile(options)
    keeper = profile.keeper()
    if options.force:
        token = keeper.refresh()
    else:
        found = keeper.obtain()
        token = found.token if found.minted else keeper.renew(found.token)
        if token.is_same(found.token) and not found.minted:
            sys.stderr.write(
                f"tokenadapter: {profile.name}: not renewed: the API refused this token when it "
                "was new, and would refuse the next one. --force renews it all the same.\n"
            )
            return 5
    end = token.expires_at
    lives = "" if end is None else f", it lives for {span(max(end - time.time(), 0))}"
    sys.stderr.write(f"tokenadapter: {profile.name}: renewed{lives}\n")
    return 0
