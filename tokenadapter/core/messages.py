"""The errors of the core and their messages: what happened, what was kept, what to do next.

Each function makes one error.  This module is imported when the first error is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenadapter import process_names
from tokenadapter.core.record import Backoff, Tombstone
from tokenadapter.errors import (
    LOG_IN,
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
    from tokenadapter.values import Account


def unreadable_record(store: TokenStore, why: str) -> StoreError:
    return StoreError(
        f"{store!r} holds a record that this version of tokenadapter cannot read: {why}. The "
        "record was left unchanged. Move it away, or use another store."
    )


def wrong_owner(
    store: TokenStore, theirs: Mapping[str, str], ours: Mapping[str, str]
) -> RefreshConfigError:
    return RefreshConfigError(
        f"{store!r} holds the token of {_described(theirs)}, not of {_described(ours)}. The "
        "stored token was neither used nor overwritten. Give each its own store, or share one "
        "TokenKeeper if they are meant to share the token. If the stored token is no longer "
        "needed, move its record away; for a profile, `tokenadapter check NAME` says how."
    )


def requests_differ(
    store: TokenStore, theirs: Mapping[str, str], ours: Mapping[str, str]
) -> RefreshConfigError:
    return RefreshConfigError(
        f"Programs that share {store!r} request different tokens: "
        f"{dict(ours) or 'nothing in particular'!s:.500} here, "
        f"{dict(theirs) or 'nothing in particular'!s:.500} there. The stored token is kept. Have "
        "all programs request everything that any of them needs, or give each its own store. If no "
        "other program requests the other token any more, replace it with "
        "`tokenadapter refresh NAME --force` or TokenKeeper.refresh()."
    )


def not_bearer(store: TokenStore, token: Token) -> RefreshConfigError:
    return RefreshConfigError(
        f"The token in {store!r} has the type {token.shown_type}, and must not be sent as a Bearer "
        f"token (RFC 6749 section 7.1). The request was not sent. The token is kept. "
        "Configure the server to issue Bearer tokens to this client. If the API documents another "
        "way to send this token, pass scheme= or attach=."
    )


def not_provable(store: TokenStore, problem: str) -> RefreshConfigError:
    return RefreshConfigError(
        f"The token in {store!r} has the type DPoP, and no proof can be made for it: {problem}. "
        "The request was not sent. The token is kept. Pass the key as dpop= to the source, or log "
        "in again with dpop=True.",
        is_local=True,
    )


def other_first_token(store: TokenStore) -> RefreshConfigError:
    return RefreshConfigError(
        f"{store!r} holds a token that descends from another refresh token than the one configured "
        "here, so it may belong to another user. The stored token was neither used nor "
        "overwritten, and nothing was sent. Give each user a separate store. If the configured "
        "refresh token comes from a new login of the same user, pass it to `tokenadapter adopt "
        "NAME` or TokenKeeper.adopt(): it then replaces the stored token."
    )


def another_account(store: TokenStore, theirs: Account, ours: Account) -> ReauthRequired:
    shown = str(ours), str(theirs)
    if shown[0] == shown[1]:  # two users of one name, or one of two issuers
        shown = ours.subject, theirs.subject
    return ReauthRequired(
        f"The login was made as {shown[0]!r:.250}, but {store!r} holds the token of "
        f"{shown[1]!r:.250}. The new token was not stored, and the stored one stays in use. Log in "
        "as the same user. To replace the stored token, log in with `tokenadapter login NAME "
        "--switch` or tokenadapter.login(switch=True).",
        reason="login_failed",
    )


def already_spent(store: TokenStore) -> RefreshConfigError:
    return RefreshConfigError(
        f"The refresh token to adopt was already spent by an earlier renewal in {store!r}. If it "
        "were presented again, the server could revoke the grant. Nothing was changed, and the "
        "stored token stays in use. Log in to get a new refresh token."
    )


def backing_off(backoff: Backoff, left: float, now: float) -> TokenError:
    """The error while a backoff applies, for *left* more seconds."""
    text = f"{backoff.cause} Next attempt in {left:.1f} s."
    since = now + left - backoff.duration
    evidence: dict[str, Any] = {"error": backoff.error, "since": since}
    if backoff.kind == "config":
        return RefreshConfigError(text, **evidence)
    if backoff.kind == "refused":
        return ReauthRequired(text, **evidence)
    return RefreshTemporarilyFailed(text, retry_at=now + left, **evidence)


def refused(stone: Tombstone) -> ReauthRequired:
    return ReauthRequired(stone.cause, reason=stone.reason, error=stone.error, since=stone.at)


def record_lost(store: TokenStore) -> ReauthRequired:
    return ReauthRequired(
        f"The record in {store!r} is missing or unreadable, and the refresh token that is left was "
        "already spent by an earlier renewal. If it were presented again, the server could revoke "
        f"the grant. Nothing was sent. {LOG_IN} Or configure a new first refresh token.",
        reason="store_lost",
    )


def function_may_repeat(store: TokenStore) -> ReauthRequired:
    return ReauthRequired(
        f"The token source, a function, has returned a refresh token before, and {store!r} holds "
        "none now. Called without one, the function might present a spent refresh token, and the "
        "server might revoke the grant. The function was not called. Log in again, and pass the "
        "token response to `tokenadapter adopt NAME` or TokenKeeper.adopt(). If the function can "
        "log in by itself, call TokenKeeper.refresh().",
        reason="store_lost",
    )


def lock_is_local(store: TokenStore, holder: str, left: float) -> StoreError:
    return StoreError(
        f"The lock of {store!r} does not exclude other machines: "
        f"{process_names.display_name(holder)} is renewing the token while this process holds the "
        "lock. The file seems to be on a network file system whose locks are local to each "
        "machine (NFS with local locks, SMB, sshfs). "
        f"Nothing was sent. Next attempt in {left:.0f} s. To share a token between machines, use "
        "RedisStore or SQLStore. Otherwise give each machine its own file and its own login."
    )


def private_copy() -> ReauthRequired:
    return ReauthRequired(
        "The refresh token may also belong to another process: either this process or its keeper "
        "is a copy, or the store is shared but has no lock. If both presented the refresh token, "
        "the server could revoke the grant. Nothing was sent. Use a store that processes share, "
        "such as FileStore.",
        reason="private_copy",
    )


def no_credential(store: TokenStore) -> ReauthRequired:
    return ReauthRequired(
        f"{store!r} holds no token, and there is no credential to obtain one with. {LOG_IN}",
        reason="no_credential",
    )


def lock_timed_out(store: TokenStore, seconds: float) -> LockTimeout:
    return LockTimeout(
        f"Other threads or processes have held the lock of {store!r}, or waited for the answer to "
        f"a renewal, for {seconds:.1f} s. Nothing was sent and nothing changed. Try again, or "
        "raise lock_timeout if the token endpoint needs more time."
    )


def renewal_timed_out(store: TokenStore, seconds: float) -> LockTimeout:
    return LockTimeout(
        f"The renewal of the token in {store!r} did not finish within {seconds:.1f} s. It "
        "continues in the background, and its token will be saved. Try again, or raise "
        "lock_timeout and the timeout of the request."
    )


def answer_late(
    store: TokenStore, owner: Mapping[str, str], seconds: float, longest: float
) -> RefreshTemporarilyFailed:
    endpoint = owner.get("endpoint", "The token endpoint")
    return RefreshTemporarilyFailed(
        f"{endpoint} has not answered for {seconds:.0f} s. This process goes on waiting "
        f"in the background, for up to {longest:.0f} s in all, and saves the token to {store!r} "
        "when the answer comes. The stored token is kept. Try again later. If the token endpoint "
        "is often that slow, raise the timeout of the source.",
        processed=None,
    )


def worker_ended(error: BaseException) -> RefreshTemporarilyFailed:
    return RefreshTemporarilyFailed(
        f"The renewal was ended by {type(error).__name__}, raised in its own thread. Nothing "
        "stored was lost. Try again."
    )


def process_ending() -> RefreshTemporarilyFailed:
    return RefreshTemporarilyFailed(
        "This process is shutting down and starts no renewal. Nothing was sent, and the stored "
        "token is kept. Another process can renew it."
    )


def reentrant_call() -> TokenError:
    return TokenError(
        "A token was requested or adopted from within the renewal in progress: by the token "
        "source, on_refresh, on_event or a signal handler. The renewal continues, and there is no "
        "token yet. Use another session there."
    )


def not_adopted(why: Exception) -> TokenNotPersisted:
    return TokenNotPersisted(
        f"The token could not be saved and is not used: {why} Call adopt() again."
    )


def not_saved(store: TokenStore) -> TokenNotPersisted:
    return TokenNotPersisted(
        f"The newest token could not be saved to {store!r} yet, and can no longer be used. This "
        "process keeps its refresh token in memory and retries the save; until then it obtains no "
        "other token. Make sure that the store can be written."
    )


# What Python raises for a bug, whatever a server answered.  ValueError, LookupError and
# AssertionError are not among them: an unusual answer, in an outage, leads to those.
_MISTAKES = (
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)


def source_interrupted(error: BaseException) -> RefreshTemporarilyFailed:
    return RefreshTemporarilyFailed(
        "The token source was interrupted by the end of a task, an event loop or the program: it "
        f"raised {type(error).__name__}. Nothing stored was lost. The next call tries again. To "
        "use a coroutine function as a source, pass the coroutine function itself: it gets an "
        "event loop of its own.",
        is_local=True,
    )


def source_needs_thread() -> RefreshConfigError:
    return RefreshConfigError(
        "The token source is a coroutine function, and this thread has an event loop already: the "
        "renewal runs in it because of inline=True, or because the program is ending. Nothing was "
        "sent, and the stored token is kept. Leave inline out, or pass a plain function.",
        is_local=True,
        processed=None,
    )


def source_raised(error: BaseException) -> RefreshTemporarilyFailed | RefreshConfigError:
    # The text of the error may contain secrets, so only its class is named.
    name = type(error).__name__
    if isinstance(error, _MISTAKES):
        return RefreshConfigError(
            f"The token source has a bug: it raised {name}. Nothing stored was lost. Fix the "
            "source; the next call tries again. The traceback is in the log of tokenadapter, at "
            "level DEBUG.",
            is_local=True,
            processed=None,
        )
    return RefreshTemporarilyFailed(
        f"The token source raised {name}. Nothing stored was lost. The traceback is in the log of "
        "tokenadapter, at level DEBUG."
    )


def source_returned(why: Exception) -> RefreshConfigError:
    return RefreshConfigError(
        f"The token source returned no token: {why}. Nothing stored was lost. Return a Token, a "
        "mapping with the keys of a token response, or an access token as text.",
        # A value of the right type that is no token may be a server's answer.
        is_local=isinstance(why, TypeError),
        processed=None,
    )


def _described(owner: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{name} {value!r:.200}" for name, value in owner.items()) or "an unnamed source"
    )
