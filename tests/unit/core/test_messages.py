"""Each error says what happened, what was kept and what to do next, and contains no secret."""

from __future__ import annotations

import asyncio
import pickle
from types import FunctionType

import pytest
from doubles import Clockwork, Shelf

from tokenadapter.core import messages
from tokenadapter.core.record import Backoff, Tombstone
from tokenadapter.errors import (
    LockTimeout,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    StoreError,
    TokenError,
    TokenNotPersisted,
)
from tokenadapter.token import Token
from tokenadapter.values import Account

NOW = 1_700_000_000.0
STORE = Shelf(Clockwork())
OURS = {"endpoint": "https://id.example/token", "client": "me"}
THEIRS = {"endpoint": "https://other.example/token", "client": "you"}
# The message of a failing source, which has its own tests.
CAUSE = "https://id.example/token gave no token (503). What the store holds is kept. Try later."
HOLD = Backoff(NOW, 10.0, 2, "0a1b", error="slow_down", cause=CAUSE)
STONE = Tombstone("0a1b", "refresh_token", "uncertain_rotation", NOW, "invalid_grant", CAUSE)

# By function: each error, with the words for what happened, what was kept, and what to do.
FAILURES: dict[str, list[tuple[TokenError, type[TokenError], str, str, str]]] = {
    "unreadable_record": [
        (
            messages.unreadable_record(STORE, "its format is 2, not 1"),
            StoreError,
            "Shelf() holds a record that this version of tokenadapter cannot read: its format is 2",
            "The record was left unchanged",
            "Move it away, or use another store",
        )
    ],
    "wrong_owner": [
        (
            messages.wrong_owner(STORE, THEIRS, OURS),
            RefreshConfigError,
            "token of endpoint 'https://other.example/token', client 'you', not of endpoint 'https",
            "The stored token was neither used nor overwritten",
            "Give each its own store",
        ),
        (
            messages.wrong_owner(STORE, {}, OURS),
            RefreshConfigError,
            "Shelf() holds the token of an unnamed source, not of endpoint",
            "The stored token was neither used nor overwritten",
            "move its record away; for a profile, `tokenadapter check NAME` says how",
        ),
    ],
    "requests_differ": [
        (
            messages.requests_differ(STORE, {"scope": "write"}, {"scope": "read"}),
            RefreshConfigError,
            "request different tokens: {'scope': 'read'} here, {'scope': 'write'} there",
            "The stored token is kept",
            "Have all programs request everything that any of them needs, or",
        ),
        (
            messages.requests_differ(STORE, {}, {"scope": "read"}),
            RefreshConfigError,
            "Programs that share Shelf() request different tokens: {'scope': 'read'} here, nothing",
            "The stored token is kept",
            "requests the other token any more, replace it with TokenKeeper.refresh()",
        ),
    ],
    "other_first_token": [
        (
            messages.other_first_token(STORE),
            RefreshConfigError,
            "descends from another refresh token than the one configured here",
            "neither used nor overwritten, and nothing was sent",
            "Give each user a separate store",
        )
    ],
    "another_account": [
        (
            messages.another_account(STORE, Account("i", "1", "ada"), Account("i", "2", "bob")),
            ReauthRequired,
            "The login was made as 'bob', but Shelf() holds the token of 'ada'",
            "The new token was not stored, and the stored one stays in use",
            "log in with tokenadapter.login(switch=True)",
        ),
        (
            messages.another_account(STORE, Account("i", "1", "ada"), Account("i", "2", "ada")),
            ReauthRequired,
            "The login was made as '2', but Shelf() holds the token of '1'",
            "The new token was not stored, and the stored one stays in use",
            "Log in as the same user",
        ),
    ],
    "already_spent": [
        (
            messages.already_spent(STORE),
            RefreshConfigError,
            "The refresh token to adopt was already spent by an earlier renewal in Shelf()",
            "Nothing was changed",
            "Log in to get a new refresh token",
        )
    ],
    "backing_off": [
        (
            messages.backing_off(HOLD, 4.25, NOW),
            RefreshTemporarilyFailed,
            "gave no token (503)",
            "What the store holds is kept",
            "Next attempt in 4.2 s.",
        ),
        (
            messages.backing_off(HOLD._replace(kind="config"), 60.0, NOW),
            RefreshConfigError,
            "gave no token (503)",
            "What the store holds is kept",
            "Next attempt in 60.0 s.",
        ),
        (
            messages.backing_off(HOLD._replace(kind="refused"), 60.0, NOW),
            ReauthRequired,
            "gave no token (503)",
            "What the store holds is kept",
            "Next attempt in 60.0 s.",
        ),
    ],
    "refused": [
        (
            messages.refused(STONE),
            ReauthRequired,
            "gave no token (503)",
            "What the store holds is kept",
            "Try later",
        )
    ],
    "record_lost": [
        (
            messages.record_lost(STORE),
            ReauthRequired,
            "The record in Shelf() is missing or unreadable, and the refresh token that is left",
            "Nothing was sent",
            "Log in with tokenadapter.login(), or in a web application with tokenadapter.begin_lo",
        )
    ],
    "function_may_repeat": [
        (
            messages.function_may_repeat(STORE),
            ReauthRequired,
            "has returned a refresh token before, and Shelf() holds none now",
            "The function was not called",
            "Log in again",
        )
    ],
    "lock_is_local": [
        (
            messages.lock_is_local(STORE, "web-2:4711:99:5:6", 8.2),
            StoreError,
            "does not exclude other machines: process 4711 on web-2 is renewing the token",
            "Nothing was sent. Next attempt in 8 s.",
            "RedisStore or SQLStore",
        )
    ],
    "process_ending": [
        (
            messages.process_ending(),
            RefreshTemporarilyFailed,
            "This process is shutting down and starts no renewal.",
            "the stored token is kept",
            "Another process can renew",
        )
    ],
    "private_copy": [
        (
            messages.private_copy(),
            ReauthRequired,
            "The refresh token may also belong to another process: either this process or its",
            "Nothing was sent",
            "Use a store that processes share, such as FileStore",
        )
    ],
    "no_credential": [
        (
            messages.no_credential(STORE),
            ReauthRequired,
            "there is no credential to obtain one with",
            "Shelf() holds no token",
            "Log in with tokenadapter.login(), or in a web application with tokenadapter.begin_lo",
        ),
    ],
    "not_bearer": [
        (
            messages.not_bearer(STORE, Token("s3cr3t", token_type="mac")),
            RefreshConfigError,
            "The token in Shelf() has the type mac, and must not be sent as a Bearer token",
            "The token is kept.",
            "pass scheme= or attach=",
        )
    ],
    "not_provable": [
        (
            messages.not_provable(STORE, "the key is gone"),
            RefreshConfigError,
            "The token in Shelf() has the type DPoP, and no proof can be made for it: the key is",
            "The request was not sent. The token is kept.",
            "Pass the key as dpop= to the source, or log in again",
        )
    ],
    "lock_timed_out": [
        (
            messages.lock_timed_out(STORE, 30.04),
            LockTimeout,
            "held the lock of Shelf(), or waited for the answer to a renewal, for 30.0 s.",
            "Nothing was sent and nothing changed",
            "Try again, or raise lock_timeout",
        )
    ],
    "renewal_timed_out": [
        (
            messages.renewal_timed_out(STORE, 5.0),
            LockTimeout,
            "The renewal of the token in Shelf() did not finish within 5.0 s.",
            "It continues in the background, and its token will be saved",
            "Try again, or raise lock_timeout and the timeout of the request",
        )
    ],
    "answer_late": [
        (
            messages.answer_late(STORE, OURS, 10.2, 60.0),
            RefreshTemporarilyFailed,
            "https://id.example/token has not answered for 10 s.",
            "saves the token to Shelf() when the answer comes. The stored token is kept",
            "If the token endpoint is often that slow, raise the timeout of the source",
        )
    ],
    "worker_ended": [
        (
            messages.worker_ended(SystemExit()),
            RefreshTemporarilyFailed,
            "The renewal was ended by SystemExit",
            "Nothing stored was lost",
            "Try again",
        )
    ],
    "reentrant_call": [
        (
            messages.reentrant_call(),
            TokenError,
            "from within the renewal in progress",
            "there is no token yet",
            "Use another session there",
        )
    ],
    "not_adopted": [
        (
            messages.not_adopted(StoreError("Shelf() is full. Nothing stored was lost.")),
            TokenNotPersisted,
            "The token could not be saved and is not used: Shelf() is full.",
            "Nothing stored was lost",
            "Call adopt() again.",
        )
    ],
    "not_saved": [
        (
            messages.not_saved(STORE),
            TokenNotPersisted,
            "The newest token could not be saved to Shelf() yet, and can no longer be used.",
            "keeps its refresh token in memory and retries the save",
            "Make sure that the store can be written",
        )
    ],
    "source_interrupted": [
        (
            messages.source_interrupted(asyncio.CancelledError("s3cr3t")),
            RefreshTemporarilyFailed,
            "The token source was interrupted by the end of a task, an event loop or the program",
            "it raised CancelledError. Nothing stored was lost. The next call tries again.",
            "pass the coroutine function itself",
        )
    ],
    "source_needs_thread": [
        (
            messages.source_needs_thread(),
            RefreshConfigError,
            "The token source is a coroutine function, and this thread has an event loop already",
            "Nothing was sent, and the stored token is kept",
            "Leave inline out, or pass a plain function",
        )
    ],
    "source_raised": [
        (
            messages.source_raised(KeyError("s3cr3t")),
            RefreshTemporarilyFailed,
            "The token source raised KeyError.",
            "Nothing stored was lost",
            "The traceback is in the log of tokenadapter, at level DEBUG.",
        ),
        (
            messages.source_raised(TypeError("s3cr3t")),
            RefreshConfigError,
            "The token source has a bug: it raised TypeError.",
            "Nothing stored was lost",
            "Fix the source; the next call tries again.",
        ),
    ],
    "source_returned": [
        (
            messages.source_returned(TypeError("it returned int")),
            RefreshConfigError,
            "The token source returned no token: it returned int.",
            "Nothing stored was lost",
            "Return a Token, a mapping",
        )
    ],
}
CASES = [pytest.param(*case, id=name) for name, cases in FAILURES.items() for case in cases]


def test_every_message_has_a_test_case() -> None:
    made = {
        name
        for name, value in vars(messages).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }
    assert made == FAILURES.keys()


@pytest.mark.parametrize(("error", "kind", "happened", "kept", "advice"), CASES)
def test_an_error_says_what_happened_what_was_kept_and_what_to_do_next(
    error: TokenError, kind: type[TokenError], happened: str, kept: str, advice: str
) -> None:
    assert type(error) is kind
    told = str(error)
    for words in (happened, kept, advice):
        assert words in told
    # Full sentences, on one line, and not too long.
    assert told.endswith(".")
    assert told.isprintable()
    assert "  " not in told
    assert len(told) < 600


@pytest.mark.parametrize(("error", "kind", "happened", "kept", "advice"), CASES)
def test_no_error_contains_a_secret(
    error: TokenError, kind: type[TokenError], happened: str, kept: str, advice: str
) -> None:
    assert "s3cr3t" not in f"{error} {error!r} {error.args} {vars(error)}"
    assert b"s3cr3t" not in pickle.dumps(error)


def test_the_error_of_a_backoff_has_retry_at_by_our_clock() -> None:
    error = messages.backing_off(HOLD, 4.25, NOW + 9000)
    assert isinstance(error, RefreshTemporarilyFailed)
    assert error.retry_at == NOW + 9004.25


@pytest.mark.parametrize("kind", ["temporary", "config", "refused"])
def test_the_error_of_a_backoff_has_the_servers_error_code(kind: str) -> None:
    error = messages.backing_off(HOLD._replace(kind=kind), 4.25, NOW)
    assert vars(error)["error"] == "slow_down"
    assert str(error).startswith(CAUSE)


def test_text_of_another_program_is_cut_to_one_line() -> None:
    theirs = {"client": "you\nERROR root all is lost" + "x" * 5000}
    for error in (
        messages.wrong_owner(STORE, theirs, OURS),
        messages.requests_differ(STORE, theirs, OURS),
    ):
        assert r"you\nERROR" in str(error)
        assert str(error).isprintable()
        assert len(str(error)) < 1500


def test_the_error_of_a_refused_credential_has_its_cause_and_reason() -> None:
    error = messages.refused(STONE)
    assert (str(error), error.reason, error.error) == (CAUSE, "uncertain_rotation", "invalid_grant")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (messages.record_lost(STORE), "store_lost"),
        (messages.function_may_repeat(STORE), "store_lost"),
        (messages.private_copy(), "private_copy"),
        (messages.no_credential(STORE), "no_credential"),
    ],
)
def test_reauth_required_has_a_reason(error: ReauthRequired, reason: str) -> None:
    assert error.reason == reason
