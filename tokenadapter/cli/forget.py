"""``tokenadapter forget``: revokes a token and deletes it, as "tokenadapter logout" does.

Without --force, this command does the same as "tokenadapter logout". The store still remembers
which refresh tokens were spent.

--force deletes the token of another source or user too, as after a change of the profile's
token_url or client_id. Such a token is not revoked: this profile's server must not see it. A token
of another profile of the configuration file is not deleted.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.cli.logout import add_local, log_out

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.profile import Profile
    from tokenadapter.protocols import TokenStore
    from tokenadapter.token import Token

__all__ = ["add_arguments", "perform"]

# Seconds to wait for the lock, and for which the lock is leased.
_PATIENCE = 10.0
_LEASE = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    add_local(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="delete the token of another source or user too, without revoking it",
    )


def perform(options: Namespace) -> int:
    """Revoke the token, and empty the store."""
    profile = named_profile(options)
    if not options.force:
        outcome = log_out(profile, local=options.local)
    elif _taken_over(profile) is None:
        outcome = "there was no token"
    else:
        outcome = "forgotten, but not revoked (--force)"
    sys.stderr.write(f"tokenadapter: {profile.name}: {outcome}\n")
    return 0


def _taken_over(profile: Profile) -> Token | None:
    """Make the profile the owner of its slot, and remove the token that is there.

    Spent refresh tokens stay recorded: the profile may still be configured with one of them.

    :raises ProfileError: if the token belongs to another profile of the configuration file.
    :raises LockTimeout: if another process holds the lock for too long.
    :raises StoreError: if the slot cannot be read or written.
    """
    from tokenadapter.core import messages
    from tokenadapter.core.slot import Conflict

    store = profile.store()
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        lock = store.lock()
        try:
            if lock.acquire(_LEASE):
                return _emptied(profile, store)
        except Conflict:
            pass
        finally:
            lock.release()
        time.sleep(store.poll[1])
    raise messages.lock_timed_out(store, _PATIENCE)


def _emptied(profile: Profile, store: TokenStore) -> Token | None:
    from tokenadapter.cli.sharing import owner_among
    from tokenadapter.config.config_file import as_arguments
    from tokenadapter.core import messages
    from tokenadapter.core.record import Record
    from tokenadapter.core.runtime import Runtime
    from tokenadapter.core.slot import Slot, View

    runtime, grant = Runtime(), profile.grant
    found = store.load()
    if found.document is None:
        return None
    try:
        record = Record.from_document(found.document)
    except ValueError as error:
        raise messages.unreadable_record(store, str(error)) from None
    for spent in record.spent:
        store.remember_spent(spent, for_good=True)
    left = record
    if dict(record.owner) != dict(grant.owner):
        other = owner_among(profile, record.owner)
        if other is not None and not record.is_blank():
            raise profile.config.error(
                [profile.name, "store"],
                f"This store contains the token of the profile {other}. Nothing was deleted. Give "
                f"{profile.name} another store. To delete that token, run "
                f"`tokenadapter forget {as_arguments(other, profile.config.path)}`.",
            )
        left = record._replace(owner=grant.owner, requested=grant.requested, tombstones=())
    view = View(record, found.tag, found.now, runtime.monotonic(), runtime.wall())
    Slot(store, grant, runtime).write(view, left.logged_out(found.now))
    return record.token
