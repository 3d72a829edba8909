"""Pure: the state of a login, as its record tells it.

There is one set of words for it:

===================  ============================================================================
``usable``           the token can be used; if it is not ``renewable``, only until it expires or
                     the API refuses it
``expired``          the next use waits for a renewal
``reauth_required``  a person has to log in again
``absent``           there is no token
===================  ============================================================================
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from tokenadapter.core.policy import windows
from tokenadapter.core.record import digest
from tokenadapter.values import Value

if TYPE_CHECKING:
    from tokenadapter.core.record import Record, Tombstone

__all__ = ["LoginState", "login_state", "refusal"]


class LoginState(Value):
    """The state of a login."""

    state: str
    """``usable``, ``expired``, ``reauth_required`` or ``absent``."""
    reason: str | None
    """Why the token cannot be renewed: the ``reason`` of :class:`~tokenadapter.ReauthRequired`."""
    since: float | None
    """Since when, if that is known (POSIX timestamp in seconds, by the store's clock)."""
    expires_at: float | None
    """When the token expires, if that is known."""
    renewable: bool
    """Whether a renewal may succeed."""


def login_state(record: Record, now: float, grant: Any) -> LoginState:
    """The state of the login in *record* at *now*, by the store's clock.

    :param grant: the program's grant.  It is asked for no credential: a password manager would ask
        a person for it.
    """
    token, stone, reason, since = record.token, refusal(record, grant), None, None
    ends = None if token is None else token.expires_at
    left = inf if ends is None else ends - now
    if stone is not None:
        reason, since = stone.reason, stone.at
    elif getattr(grant, "begins_with_login", False) and not (token and token.refresh_token):
        reason, since = "no_credential", ends if record.is_expired(now) else None
    dead = "expired" if reason is None else "reauth_required"
    if token is None:
        state = "reauth_required" if stone is not None else "absent"
    elif record.is_rejected or left <= 0:
        state = dead
    elif ends is not None and reason is None and left <= windows(ends - token.issued_at, 0)[1]:
        state = "expired"  # callers wait for the renewal already
    else:
        state = "usable"
    return LoginState(state, reason, since, ends, reason is None)


def refusal(record: Record, grant: Any) -> Tombstone | None:
    """The refusal of the credential that *grant* would present next, if the record has one.

    Refusals stay in the record, and do not apply to credentials that were adopted or have worked
    since.
    """
    token, tombstones = record.token, record.tombstones
    if not tombstones:
        return None
    kind = record.owner.get("grant")
    if token is not None and token.refresh_token and kind != "password":
        return record.tombstone(digest(record.salt, "refresh_token", token.refresh_token))
    if getattr(grant, "begins_with_login", False):
        # Refusals from before a login or a logout no longer matter.
        tombstones = tuple(stone for stone in tombstones if stone.at >= record.begun)
    if token is not None and kind != "refresh_token":
        # A token that a password or the like obtained after the refusal outdates it.
        start = token.issued_at
        tombstones = tuple(s for s in tombstones if s.kind != "refresh_token" and s.at >= start)
    return tombstones[-1] if tombstones else None
