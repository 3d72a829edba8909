"""Each error says what happened, what was kept and what to do next, and tells no secret."""

from __future__ import annotations

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

NOW = 1_700_000_000.0
STORE = Shelf(Clockwork())
OURS = {"endpoint": "https://id.example/token", "client": "me"}
THEIRS = {"endpoint": "https://other.example/token", "client": "you"}
# What a source says when it fails; its own tests see to its words.
CAUSE = "https://id.example/token gave no token (503). What the store holds is kept. Try later."
HOLD = Backoff(NOW, 10.0, 2, "0a1b", error="slow_down", cause=CAUSE)
STONE = Tombstone("0a1b", "refresh_token", "uncertain_rotation", NOW, "invalid_grant", CAUSE)

# By its function: each error, and the words for what happened, what was kept, and what to do.
FAILURES: dict[str, list[tuple[TokenError, type[TokenError], str, str, str]]] = {
    "unreadable": [
        (
            messages.unreadable(STORE, "its format is 2, not 1"),
            StoreError,
            "Shelf() holds something that this version of tokenadapter cannot use: its format is 2",
            "It was left as it was",
            "move it away, or name another store",
        )
    ],
    "of_another": [
        (
            messages.of_another(STORE, THEIRS, OURS),
            RefreshConfigError,
            "token of endpoint 'https://other.example/token', client 'you', not of endpoint 'https",
            "Nothing was used or overwritten",
            "give each its own store",
        ),
        (
            messages.of_another(STORE, {}, OURS),
            RefreshConfigError,
            "Shelf() holds the token of an unnamed source, not of endpoint",
            "Nothing was used or overwritten",
            "move its record away",
        ),
    ],
    "asked_for_otherwise": [
        (
            messages.asked_for_otherwise(STORE, {"scope": "write"}, {"scope": "read"}),
            RefreshConfigError,
            "ask for different things: {'scope': 'read'} here, {'scope': 'write'} there",
            "The token there is kept",
            "let all ask for everything that any of them needs, or give each its own store",
        ),
        (
            messages.asked_for_otherwise(STORE, {}, {"scope": "read"}),
            RefreshConfigError,
            "Programs that share Shelf() ask for different things: {'scope': 'read'} here, nothing",
            "The token there is kept",
            "give each its own store",
        ),
    ],
    "begun_otherwise": [
        (
            messages.begun_otherwise(STORE),
            RefreshConfigError,
            "began with another refresh token than the one configured here",
            "Nothing was used, sent or overwritten",
            "Give each user a store of their own",
        )
    ],
    "spent_before": [
        (
            messages.spent_before(STORE),
            RefreshConfigError,
            "The refresh token to adopt was spent by an earlier renewal in Shelf()",
            "Nothing was changed",
            "A login gives a new one",
        )
    ],
    "held": [
        (
            messages.held(HOLD, 4.25, NOW),
            RefreshTemporarilyFailed,
            "gave no token (503)",
            "What the store holds is kept",
            "Nobody asks again for 4.2 s.",
        ),
        (
            messages.held(HOLD._replace(kind="config"), 60.0, NOW),
            RefreshConfigError,
            "gave no token (503)",
            "What the store holds is kept",
            "Nobody asks again for 60.0 s.",
        ),
        (
            messages.held(HOLD._replace(kind="refused"), 60.0, NOW),
            ReauthRequired,
            "gave no token (503)",
            "What the store holds is kept",
            "Nobody asks again for 60.0 s.",
        ),
    ],
    "dead": [
        (
            messages.dead(STONE),
            ReauthRequired,
            "gave no token (503)",
            "What the store holds is kept",
            "Try later",
        )
    ],
    "lost": [
        (
            messages.lost(STORE),
            ReauthRequired,
            "The record in Shelf() is gone or cannot be read, and the refresh token at hand was",
            "Nothing was sent",
            "the new token to TokenKeeper.adopt(), or to the command `tokenadapter adopt NAME`.",
        )
    ],
    "begun_before": [
        (
            messages.begun_before(STORE),
            ReauthRequired,
            "has returned a refresh token before, and Shelf() holds none now",
            "The function was not called",
            "Log in again",
        )
    ],
    "locked_apart": [
        (
            messages.locked_apart(STORE, "web-2:4711:99:5:6", 8.2),
            StoreError,
            "excludes nobody on another machine: process 4711 on web-2 is renewing the token",
            "Nothing was sent; next attempt in 8 s.",
            "RedisStore or SQLStore",
        )
    ],
    "ending": [
        (
            messages.ending(),
            RefreshTemporarilyFailed,
            "This process is ending, so it begins no renewal.",
            "the stored token is kept",
            "another process can renew",
        )
    ],
    "private_copy": [
        (
            messages.private_copy(),
            ReauthRequired,
            "The refresh token may be another process' too: this one was copied from it",
            "Nothing was sent",
            "Use a store that processes share, such as FileStore",
        )
    ],
    "no_credential": [
        (
            messages.no_credential(STORE),
            ReauthRequired,
            "nothing to obtain one with",
            "There is no token in Shelf()",
            "the new token to TokenKeeper.adopt(), or to the command `tokenadapter adopt NAME`.",
        )
    ],
    "not_bearer": [
        (
            messages.not_bearer(STORE, Token("s3cr3t", token_type="DPoP")),
            RefreshConfigError,
            "The token in Shelf() is of type DPoP, and must not be sent as a Bearer token",
            "The token is kept, and so is what renews it. DPoP is not supported yet.",
            "pass scheme= or attach=",
        )
    ],
    "locked": [
        (
            messages.locked(STORE, 30.04),
            LockTimeout,
            "Others have held the lock of Shelf(), or awaited the answer to a renewal, for 30.0 s.",
            "Nothing was sent and nothing changed",
            "try again, or raise lock_timeout",
        )
    ],
    "too_slow": [
        (
            messages.too_slow(STORE, 5.0),
            LockTimeout,
            "The renewal of the token in Shelf() has not ended within 5.0 s.",
            "It goes on, and what it obtains will be saved",
            "try again, or allow more time by lock_timeout and by the time-out of the request",
        )
    ],
    "ended": [
        (
            messages.ended(SystemExit()),
            RefreshTemporarilyFailed,
            "The renewal was ended by SystemExit",
            "What was stored was kept",
            "try again",
        )
    ],
    "reentered": [
        (
            messages.reentered(),
            TokenError,
            "from within the renewal that is under way",
            "There is none yet",
            "use another session there",
        )
    ],
    "not_adopted": [
        (
            messages.not_adopted(StoreError("Shelf() is full. Nothing stored was lost.")),
            TokenNotPersisted,
            "The token could not be saved, and is not used: Shelf() is full.",
            "Nothing stored was lost",
            "Call adopt() again.",
        )
    ],
    "unsaved": [
        (
            messages.unsaved(STORE),
            TokenNotPersisted,
            "The newest token could not be saved to Shelf() yet, and it is no longer good.",
            "No other is obtained until it is saved",
            "see to the store",
        )
    ],
    "source_raised": [
        (
            messages.source_raised(KeyError("s3cr3t")),
            RefreshTemporarilyFailed,
            "The token source failed with KeyError.",
            "What the store held is kept",
            "The log has its traceback at level DEBUG, under tokenadapter",
        ),
        (
            messages.source_raised(TypeError("s3cr3t")),
            RefreshConfigError,
            "The token source has a mistake in its code: it failed with TypeError.",
            "What the store held is kept",
            "Correct it; the next call tries again.",
        ),
    ],
    "source_returned": [
        (
            messages.source_returned(TypeError("it returned int")),
            RefreshConfigError,
            "The token source returned no token: it returned int.",
            "What the store held is kept",
            "It is to return a Token, a mapping",
        )
    ],
}
CASES = [pytest.param(*case, id=name) for name, cases in FAILURES.items() for case in cases]


def test_every_failure_is_tried_here() -> None:
    made = {
        name
        for name, value in vars(messages).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }
    assert made == FAILURES.keys()


@pytest.mark.parametrize(("error", "kind", "happened", "kept", "advice"), CASES)
def test_it_says_what_happened_what_was_kept_and_what_to_do_next(
    error: TokenError, kind: type[TokenError], happened: str, kept: str, advice: str
) -> None:
    assert type(error) is kind
    told = str(error)
    for words in (happened, kept, advice):
        assert words in told
    # In whole sentences, on one line, in a length that people read.
    assert told.endswith(".")
    assert told.isprintable()
    assert "  " not in told
    assert len(told) < 600


@pytest.mark.parametrize(("error", "kind", "happened", "kept", "advice"), CASES)
def test_it_tells_no_secret(
    error: TokenError, kind: type[TokenError], happened: str, kept: str, advice: str
) -> None:
    assert "s3cr3t" not in f"{error} {error!r} {error.args} {vars(error)}"
    assert b"s3cr3t" not in pickle.dumps(error)


def test_a_hold_says_until_when_by_our_clock() -> None:
    error = messages.held(HOLD, 4.25, NOW + 9000)
    assert isinstance(error, RefreshTemporarilyFailed)
    assert error.retry_at == NOW + 9004.25


@pytest.mark.parametrize("kind", ["temporary", "config", "refused"])
def test_a_hold_tells_what_the_server_said(kind: str) -> None:
    error = messages.held(HOLD._replace(kind=kind), 4.25, NOW)
    assert vars(error)["error"] == "slow_down"
    assert str(error).startswith(CAUSE)


def test_what_another_program_wrote_is_on_one_line_and_cut() -> None:
    theirs = {"client": "you\nERROR root all is lost" + "x" * 5000}
    for error in (
        messages.of_another(STORE, theirs, OURS),
        messages.asked_for_otherwise(STORE, theirs, OURS),
    ):
        assert r"you\nERROR" in str(error)
        assert str(error).isprintable()
        assert len(str(error)) < 1500


def test_a_dead_credential_tells_how_it_died() -> None:
    error = messages.dead(STONE)
    assert (str(error), error.reason, error.error) == (CAUSE, "uncertain_rotation", "invalid_grant")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (messages.lost(STORE), "store_lost"),
        (messages.begun_before(STORE), "store_lost"),
        (messages.private_copy(), "private_copy"),
        (messages.no_credential(STORE), "no_credential"),
    ],
)
def test_whoever_has_to_log_in_is_told_for_which_reason(error: ReauthRequired, reason: str) -> None:
    assert error.reason == reason
