"""The state of a profile's token, read from its store without a lock and without side effects."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from tokenadapter import process_names
from tokenadapter.cli.output import clock, span
from tokenadapter.core.login_state import login_state, refusal
from tokenadapter.core.record import Record
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenadapter.config.profile import Profile
    from tokenadapter.keys import algorithms
    from tokenadapter.protocols import TokenStore
    from tokenadapter.token import Token
else:
    algorithms = late("tokenadapter.keys.algorithms")

__all__ = ["lock_holder", "standing", "token_state", "unusable"]

_LOCKS = "/proc/locks"
_NOTHING: dict[str, Any] = {
    "name": "",
    "api": [],
    "store": "",
    "path": None,
    "state": "absent",
    "reason": None,
    "since": None,
    "renewable": None,
    "logged_in_as": None,
    "token": None,
    "expires_at": None,
    "expires_in": None,
    "renewed_at": None,
    "renewed_ago": None,
    "login_at": None,
    "login_ends_at": None,
    "login_ends_in": None,
    "advice": None,
    "bound_to": None,
    "failure": None,
    "lock": None,
}
_KEY_UNREAD = (
    "The token is encrypted. Its key is in a command or the keyring, which is not used to show the "
    "state. To see the state here, keep the key in a file or an environment variable."
)
# For this last part of its lifetime, and for so many seconds at most, the end of a login is near.
_NEAR_PART = 0.2
_NEAR_LONGEST = 30 * 86_400.0


def token_state(profile: Profile) -> dict[str, Any]:
    """The state of the token of *profile*, as JSON values.

    ``state`` is that of :mod:`tokenadapter.core.login_state`, ``encrypted`` (the key is in a
    command or the keyring, which is not read here), or ``unusable``.

    :raises TokenError: if the store cannot be read.
    :raises ProfileError: if the URL of the store is invalid.
    """
    store = profile.store()
    state = {
        **_NOTHING,
        "name": profile.name,
        "api": profile.prefixes,
        "store": repr(store),
        "path": getattr(store, "path", None),
        "lock": lock_holder(store),
    }
    if profile.has_hidden_token():
        return {**state, "state": "encrypted", "advice": _KEY_UNREAD}
    found = store.load()
    grant = profile.grant
    record = Record(grant.owner, grant.requested, "")
    try:
        if found.document is not None:
            record = Record.from_document(found.document)
    except ValueError as error:
        return unusable(profile.name, f"The record in the store cannot be used: {error}.", state)
    if dict(record.owner) != dict(grant.owner) and not record.is_blank():
        return unusable(profile.name, _of_another_source(profile, record.owner), state)
    ours = grant.requested
    if not record.satisfies(ours) and record.was_replaced_lately(ours, found.now, found.now):
        from tokenadapter.core import messages

        differ = messages.requests_differ(store, record.requested, ours)
        differ.profile = profile.as_arguments
        return unusable(profile.name, str(differ), state)
    if record.account is not None:
        state["logged_in_as"] = str(record.account)
    state |= login_state(record, found.now, grant)._asdict()
    if record.token is not None:
        state |= _of_token(record.token, found.now)
        state |= _of_login(profile, record, found.now)
    failure = _failure(profile, record, found.now, store, is_locked=state["lock"] is not None)
    how: str | None = getattr(grant, "how_to_log_in", None)
    if failure is not None:
        from tokenadapter.cli.reporting import named

        # A program without a profile may have stored it.
        failure["cause"] = named(failure["cause"], profile.as_arguments, how)
    state["failure"] = failure
    state["advice"] = how if state["reason"] == "no_credential" else _advice(profile, state)
    return state


def standing(state: Mapping[str, Any]) -> str:
    """The state in words: also why and since when a token cannot be renewed, and how long it is
    usable."""
    text: str = state["state"]
    if state["reason"] is None or text == "absent":
        return text
    if text == "usable":
        end = state["expires_at"]
        until = "the API refuses it" if end is None else clock(end)
        text = f"usable until {until}, cannot be renewed"
    since = "" if state["since"] is None else f" since {clock(state['since'])}"
    return f"{text}{since} ({state['reason']})"


def unusable(name: str, why: str, state: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """The state of a token of the profile *name* that cannot be read, or must not be used."""
    return {
        **state,
        "name": name,
        "state": "unusable",
        "failure": {"cause": why, "ago": None, "retry_in": None},
    }


def _of_another_source(profile: Profile, theirs: Mapping[str, str]) -> str:
    """What is wrong, and what to do, if the record belongs to another source."""
    from tokenadapter.cli.sharing import owner_among

    other = owner_among(profile, theirs)
    if other is not None:
        return (
            f"The store contains the token of the profile {other}. Give {profile.name} another "
            "`store`."
        )
    ours = profile.grant.owner
    differing = [
        f"{name} is {_shown(theirs, name)} there, and {_shown(ours, name)} here"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    doubt = ""
    if "store" not in profile.config.table(profile.name):
        doubt = (
            "If another configuration file has a profile of this name, set `store` in both: the "
            "default store depends on the name alone. "
        )
    return (
        f"The store contains the token of another source: {'; '.join(differing)}. {doubt}If that "
        f"token is no longer needed, run `tokenadapter forget {profile.as_arguments} --force`."
    )


def _shown(owner: Mapping[str, str], name: str) -> str:
    return f"{owner[name]!r:.200}" if name in owner else "not named"


def _of_token(token: Token, now: float) -> dict[str, Any]:
    return {
        "token": token.fingerprint,
        "renewed_at": token.issued_at,
        "renewed_ago": max(now - token.issued_at, 0.0),
        "bound_to": _binding(token),
        "expires_in": None if token.expires_at is None else token.expires_at - now,
    }


def _of_login(profile: Profile, record: Record, now: float) -> dict[str, Any]:
    """When a user logged in, and when that ends, if the server ends it at a known time.

    The record knows when its grant began.  A refresh token that was configured may come from an
    earlier login.
    """
    began, lifetime = record.begun, getattr(profile.grant, "login_lifetime", None)
    if not began or profile.grant.owner.get("grant") != "refresh_token":
        return {}
    if lifetime is None:
        return {"login_at": began}
    end = began + lifetime
    return {"login_at": began, "login_ends_at": end, "login_ends_in": end - now}


def _advice(profile: Profile, state: Mapping[str, Any]) -> str | None:
    """What to do about the end of the login in *state*, if it is near."""
    lifetime, left = getattr(profile.grant, "login_lifetime", None), state["login_ends_in"]
    if lifetime is None or left is None or left > min(lifetime * _NEAR_PART, _NEAR_LONGEST):
        return None
    day = time.strftime("%Y-%m-%d", time.localtime(state["login_at"]))
    when = f"in {span(left)} ({clock(time.time() + left)})" if left > 0 else "about now"
    how = f"Run `tokenadapter login {profile.as_arguments}` before that."
    if not profile.grant.can_log_in:
        how = (
            "Log in again before that, and pass the token response to "
            f"`tokenadapter adopt {profile.as_arguments}`."
        )
    return f"The login of {day} ends {when}, however often the token is renewed. {how}"


def _binding(token: Token) -> str | None:
    """The key that the token is bound to (RFC 9449), in words."""
    if not token.is_dpop:
        return None
    if token.key is None:
        return "the key that is configured"
    try:
        return f"the key {algorithms.thumbprint(json.loads(token.key))}"
    except (KeyError, RecursionError, TypeError, ValueError):
        return "a key that cannot be read"


def _failure(
    profile: Profile, record: Record, now: float, store: TokenStore, *, is_locked: bool
) -> dict[str, Any] | None:
    """What went wrong last, when, and how long until the next attempt."""
    tombstone = refusal(record, profile.grant)
    if tombstone is not None:
        return {"cause": tombstone.cause, "ago": max(now - tombstone.at, 0.0), "retry_in": None}
    backoff = record.backoff
    if backoff is not None:
        left = backoff.remaining(now)
        return {
            "cause": backoff.cause,
            "ago": max(now - backoff.set_at, 0.0),
            "retry_in": left or None,
        }
    intent = record.intent
    if intent is None or is_locked:
        return None
    cause = "A renewal began and did not end: its response may be lost."
    awaited: float | None = None
    for waiter in () if getattr(store, "lock_ends_with_holder", False) else intent.awaited:
        if now < waiter.until and not process_names.has_died(waiter.process):
            who, awaited = process_names.display_name(waiter.process), waiter.until - now
            cause = f"The lock of {who} lapsed during a renewal, whose response may still arrive."
    return {"cause": cause, "ago": max(now - intent.first_sent, 0.0), "retry_in": awaited}


# --- the lock ----------------------------------------------------------------------------


def lock_holder(store: TokenStore) -> str | None:
    """The process that has the lock of *store*, in words; ``None`` if the lock is free, or if that
    cannot be found out.

    The lock is not tried, since that would take it for a moment.  For a file, the kernel's list of
    locks is read, where there is one; a lock that knows its holder has a method ``holder``.
    """
    lock = store.lock()
    find = getattr(lock, "holder", None)
    if find is None:
        path = getattr(lock, "path", None)
        return None if path is None else _holder_of_file(path)
    process: str | None = find()
    return None if process is None else process_names.display_name(process)


def _holder_of_file(path: str) -> str | None:
    try:
        found = os.stat(path)
        with open(_LOCKS, encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    for parts in lines:
        # "1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF"; "1: -> FLOCK …" for one that waits.
        # The device differs from that of stat() on some file systems.
        if parts[1:2] == ["FLOCK"] and parts[5].rpartition(":")[2] == str(found.st_ino):
            return _process(parts[4])
    return None


def _process(pid: str) -> str:
    try:
        # Only the name: arguments may be private.
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return "a process that cannot be seen from here" if pid in ("0", "-1") else f"process {pid}"
