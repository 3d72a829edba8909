"""What goes wrong in the heart, in words: what happened, what was kept, what to do.

Each function makes one error.  This module is imported when the first of them is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenadapter import process_names
from tokenadapter.core.record import Backoff, Tombstone
from tokenadapter.errors import (
    NEW_LOGIN,
    LockTimeout,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    StoreError,
    TokenError,
    TokenNotPersisted,
)

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore
    from tokenadapter.token import Token


def unreadable(store: TokenStore, why: str) -> StoreError:
    return StoreError(
        f"{store!r} holds something that this version of tokenadapter cannot use: {why}. It was "
        "left as it was: move it away, or name another store."
    )


def of_another(
    store: TokenStore, theirs: Mapping[str, str], ours: Mapping[str, str]
) -> RefreshConfigError:
    return RefreshConfigError(
        f"{store!r} holds the token of {_described(theirs)}, not of {_described(ours)}. Nothing "
        "was used or overwritten: give each its own store, or share one TokenKeeper if they are "
        "meant to share the token. If the other is no longer in use, move its record away."
    )


def asked_for_otherwise(
    store: TokenStore, theirs: Mapping[str, str], ours: Mapping[str, str]
) -> RefreshConfigError:
    return RefreshConfigError(
        f"Programs that share {store!r} ask for different things: "
        f"{dict(ours) or 'nothing in particular'!s:.500} here, "
        f"{dict(theirs) or 'nothing in particular'!s:.500} there. The token there is kept: let "
        "all ask for everything that any of them needs, or give each its own store."
    )


def not_bearer(store: TokenStore, token: Token) -> RefreshConfigError:
    unsupported = " DPoP is not supported yet." if token.token_type.lower() == "dpop" else ""
    return RefreshConfigError(
        f"The token in {store!r} is of type {token.shown_type}, and must not be sent as a Bearer "
        "token (RFC 6749 section 7.1). The request was not sent. The token is kept, and so is what "
        f"renews it.{unsupported} Have the server issue Bearer tokens to this client. If the API "
        "documents another way to send this one, pass scheme= or attach=."
    )


def begun_otherwise(store: TokenStore) -> RefreshConfigError:
    return RefreshConfigError(
        f"{store!r} holds a token that began with another refresh token than the one configured "
        "here, so it may be another user's. Nothing was used, sent or overwritten. Give each user "
        "a store of their own. If the configured refresh token comes from a new login of the same "
        "user, hand it to `tokenadapter adopt NAME` or TokenKeeper.adopt(): it then replaces what "
        "is stored."
    )


def spent_before(store: TokenStore) -> RefreshConfigError:
    return RefreshConfigError(
        f"The refresh token to adopt was spent by an earlier renewal in {store!r}: presented "
        "again, it could revoke the grant. Nothing was changed. A login gives a new one; what is "
        "stored goes on if it still works."
    )


def held(backoff: Backoff, left: float, now: float) -> TokenError:
    """The error of a hold that binds for *left* more seconds."""
    told = f"{backoff.cause} Nobody asks again for {left:.1f} s."
    if backoff.kind == "config":
        return RefreshConfigError(told, error=backoff.error)
    if backoff.kind == "refused":
        return ReauthRequired(told, error=backoff.error)
    return RefreshTemporarilyFailed(told, error=backoff.error, retry_at=now + left)


def dead(stone: Tombstone) -> ReauthRequired:
    return ReauthRequired(stone.cause, reason=stone.reason, error=stone.error)


def lost(store: TokenStore) -> ReauthRequired:
    return ReauthRequired(
        f"The record in {store!r} is gone or cannot be read, and the refresh token at hand was "
        "spent by an earlier renewal: presented again, it could revoke the grant. Nothing was "
        f"sent. {NEW_LOGIN} A new first refresh token in the configuration does as well.",
        reason="store_lost",
    )


def begun_before(store: TokenStore) -> ReauthRequired:
    return ReauthRequired(
        f"The function that obtains tokens has returned a refresh token before, and {store!r} "
        "holds none now. Called without one, the function might present a spent refresh token, "
        "for which the server may revoke the grant. The function was not called. "
        f"{NEW_LOGIN} If the function can log in by itself, call TokenKeeper.refresh().",
        reason="store_lost",
    )


def locked_apart(store: TokenStore, holder: str, left: float) -> StoreError:
    return StoreError(
        f"The lock of {store!r} excludes nobody on another machine: "
        f"{process_names.described(holder)} is renewing the token while this process has the "
        "lock. The file seems to be on a network file system whose locks are local to each "
        "machine (NFS with local locks, SMB, sshfs). "
        f"Nothing was sent; next attempt in {left:.0f} s. To share a token between machines, use "
        "RedisStore or SQLStore; else give each machine its own file and its own login."
    )


def private_copy() -> ReauthRequired:
    return ReauthRequired(
        "The refresh token may be another process' too: this one was copied from it, or shares "
        "with it a place without a lock. If both presented it, the grant could be revoked. "
        "Nothing was sent. Use a store that processes share, such as FileStore.",
        reason="private_copy",
    )


def no_credential(store: TokenStore) -> ReauthRequired:
    return ReauthRequired(
        f"There is no token in {store!r} and nothing to obtain one with. {NEW_LOGIN}",
        reason="no_credential",
    )


def locked(store: TokenStore, seconds: float) -> LockTimeout:
    return LockTimeout(
        f"Others have held the lock of {store!r}, or awaited the answer to a renewal, for "
        f"{seconds:.1f} s. Nothing was sent and nothing changed: try again, or raise lock_timeout "
        "if the token endpoint takes that long."
    )


def too_slow(store: TokenStore, seconds: float) -> LockTimeout:
    return LockTimeout(
        f"The renewal of the token in {store!r} has not ended within {seconds:.1f} s. It goes on, "
        "and what it obtains will be saved: try again, or allow more time by lock_timeout and by "
        "the time-out of the request."
    )


def ended(error: BaseException) -> RefreshTemporarilyFailed:
    return RefreshTemporarilyFailed(
        f"The renewal was ended by {type(error).__name__}, raised in its own thread. What was "
        "stored was kept: try again."
    )


def ending() -> RefreshTemporarilyFailed:
    return RefreshTemporarilyFailed(
        "This process is ending, so it begins no renewal. Nothing was sent, and the stored token "
        "is kept: another process can renew it."
    )


def reentered() -> TokenError:
    return TokenError(
        "A token was asked for, or adopted, from within the renewal that is under way: by the "
        "token source, on_refresh, on_event or a signal handler. There is none yet: use another "
        "session there."
    )


def not_adopted(why: Exception) -> TokenNotPersisted:
    return TokenNotPersisted(
        f"The token could not be saved, and is not used: {why} Call adopt() again."
    )


def unsaved(store: TokenStore) -> TokenNotPersisted:
    return TokenNotPersisted(
        f"The newest token could not be saved to {store!r} yet, and it is no longer good. No "
        "other is obtained until it is saved: see to the store."
    )


# What Python raises where code is wrong, whatever a server answered.  Not ValueError, LookupError
# and AssertionError: an answer that is not as usual, in an outage, leads to those.
_MISTAKES = (
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)


def source_raised(error: Exception) -> RefreshTemporarilyFailed | RefreshConfigError:
    # What it says may hold anything, secrets too: it is not ours to repeat.
    name = type(error).__name__
    if isinstance(error, _MISTAKES):
        return RefreshConfigError(
            f"The token source has a mistake in its code: it failed with {name}. What the store "
            "held is kept. Correct it; the next call tries again. The log has the traceback at "
            "level DEBUG, under tokenadapter.",
            is_local=True,
            processed=None,
        )
    return RefreshTemporarilyFailed(
        f"The token source failed with {name}. What the store held is kept. The "
        "log has its traceback at level DEBUG, under tokenadapter."
    )


def source_returned(why: Exception) -> RefreshConfigError:
    return RefreshConfigError(
        f"The token source returned no token: {why}. What the store held is kept. It is to return "
        "a Token, a mapping with the keys of a token response, or the text of an access token.",
        # A value of the right type that is no token may be what a server answered.
        is_local=isinstance(why, TypeError),
        processed=None,
    )


def _described(owner: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{name} {value!r:.200}" for name, value in owner.items()) or "an unnamed source"
    )
