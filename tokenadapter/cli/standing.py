"""How a profile's token stands, read from its store without a lock and without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenadapter import process_names
from tokenadapter.cli.holder import holder
from tokenadapter.core.policy import windows
from tokenadapter.core.record import Record, Tombstone, digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenadapter.config.profile import Profile
    from tokenadapter.protocols import TokenStore
    from tokenadapter.token import Token

__all__ = ["standing_of", "unusable"]

_NOTHING: dict[str, Any] = {
    "api": [],
    "store": "",
    "path": None,
    "expires_at": None,
    "expires_in": None,
    "renewed_ago": None,
    "lock": None,
}


def standing_of(profile: Profile) -> dict[str, Any]:
    """How the token of *profile* stands, as JSON values.

    ``state`` is ``fresh``, ``stale`` (the next use renews it in the background), ``expired`` (the
    next use waits for a renewal), ``login needed``, ``no token``, or ``unusable``.

    :raises TokenError: if the store cannot be read.
    :raises ProfileError: if there is no such store.
    """
    store = profile.store()
    found = store.load()
    told: dict[str, Any] = {
        "name": profile.name,
        "api": profile.prefixes,
        "store": repr(store),
        "path": getattr(store, "path", None),
        "state": "no token",
        "token": None,
        "expires_at": None,
        "expires_in": None,
        "renewed_at": None,
        "renewed_ago": None,
        "failure": None,
        "lock": holder(store),
    }
    if found.document is None:
        return told
    try:
        record = Record.from_document(found.document)
    except ValueError as error:
        return unusable(profile, f"What it holds cannot be used: {error}.", told)
    if dict(record.owner) != dict(profile.grant.owner) and not record.is_blank():
        theirs = ", ".join(f"{name} {value!r}" for name, value in record.owner.items())
        return unusable(profile, f"It holds the token of another: {theirs}.", told)
    if record.token is not None:
        told |= _of_token(record.token, found.now)
    told["failure"] = _failure(record, found.now, store, is_locked=told["lock"] is not None)
    if _refusal(record) is not None and told["state"] in ("no token", "expired"):
        told["state"] = "login needed"
    return told


def unusable(
    profile: Profile | str, why: str, told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """How the token of a profile stands that cannot be looked at."""
    name = profile if isinstance(profile, str) else profile.name
    return {
        **(told or _NOTHING),
        "name": name,
        "state": "unusable",
        "failure": {"cause": why, "ago": None, "held_for": None},
    }


def _of_token(token: Token, now: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "state": "fresh",
        "token": token.fingerprint,
        "renewed_at": token.issued_at,
        "renewed_ago": max(now - token.issued_at, 0.0),
    }
    if token.expires_at is None:
        return told
    left = token.expires_at - now
    # In the middle of where processes draw the beginning of theirs.
    soft, hard = windows(token.expires_at - token.issued_at, 0.5)
    if left <= hard:
        told["state"] = "expired"
    elif left <= soft:
        told["state"] = "stale"
    return {**told, "expires_at": token.expires_at, "expires_in": left}


def _refusal(record: Record) -> Tombstone | None:
    """The refusal of what would be presented next, as far as the record knows.

    Refusals stay in it, and say nothing of what was adopted or has worked since.
    """
    token, stones = record.token, record.tombstones
    if not stones:
        return None
    grant = record.owner.get("grant")
    if token is not None and token.refresh_token and grant != "password":
        return record.tombstone(digest(record.salt, "refresh_token", token.refresh_token))
    if token is not None and grant != "refresh_token":
        # With a password, or what else is presented each time, it has been obtained since.
        begun = token.issued_at
        stones = tuple(s for s in stones if s.kind != "refresh_token" and s.at >= begun)
    return stones[-1] if stones else None


def _failure(
    record: Record, now: float, store: TokenStore, *, is_locked: bool
) -> dict[str, Any] | None:
    """What went wrong last, when, and for how long nobody tries again."""
    stone = _refusal(record)
    if stone is not None:
        return {"cause": stone.cause, "ago": max(now - stone.at, 0.0), "held_for": None}
    backoff = record.backoff
    if backoff is not None:
        left = backoff.remaining(now)
        return {
            "cause": backoff.cause,
            "ago": max(now - backoff.set_at, 0.0),
            "held_for": left or None,
        }
    intent = record.intent
    if intent is None or is_locked:
        return None
    cause = "A renewal began and was not ended: its answer may be lost."
    awaited: float | None = None
    for waiter in () if getattr(store, "lock_ends_with_holder", False) else intent.awaited:
        if now < waiter.until and not process_names.has_died(waiter.process):
            who, awaited = process_names.display_name(waiter.process), waiter.until - now
            cause = f"The lock of {who} lapsed, and it may still await its answer."
    return {"cause": cause, "ago": max(now - intent.first_sent, 0.0), "held_for": awaited}
