"""The keeper, with a clock and a store that tests control."""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from doubles import Authority, Clockwork, Machinist, Shelf, ShelfLock

from tokenadapter import RefreshToken, errors
from tokenadapter.core.held_token import RenewalRequest
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.policy import windows
from tokenadapter.core.record import Record, Waiter, digest
from tokenadapter.protocols import Credential
from tokenadapter.stores.encrypted import EncryptedStore
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.memory import MemoryStore
from tokenadapter.token import Token
from tokenadapter.values import Account

HOUR = 3600.0


@pytest.fixture
def new_keeper(clock: Clockwork, shelf: Shelf, authority: Authority) -> Callable[..., TokenKeeper]:
    """Keepers on one shelf, each of which stands for a process."""

    def new(source: Any = authority, **settings: Any) -> TokenKeeper:
        return TokenKeeper(source, settings.pop("store", shelf), runtime=clock, **settings)

    return new


def settle(keeper: TokenKeeper) -> None:
    """Wait for a renewal in the background, and for its save."""
    assert keeper.wait(10)


def document(shelf: Shelf) -> dict[str, Any]:
    assert shelf.slot is not None
    return shelf.slot[0]


# --- fresh, stale, expired -------------------------------------------------------------------


def test_a_fresh_token_needs_no_store(new_keeper, shelf, clock):
    keeper = new_keeper()
    token = keeper.current()
    shelf.failing = lambda step: True
    clock.go_on((HOUR - 900) / 2)
    assert keeper.fresh() is token
    assert keeper.current() is token
    assert not keeper.obtain().is_new  # so that a refusal has it renewed


@pytest.mark.parametrize("inline", [True, False])
def test_modules_for_renewals_are_imported_by_the_first_renewal(
    new_keeper, clock, authority, inline
):
    new_keeper().current()
    keeper = new_keeper(inline=inline)
    loaded: list[str] = []
    authority.load = lambda: loaded.append("all")
    keeper.current()
    clock.go_on(HOUR - 900 - 1)
    keeper.current()
    assert not loaded
    keeper.refresh()
    keeper.refresh()
    assert loaded == ["all"]


def test_the_first_look_at_the_store_is_reused(new_keeper, shelf, clock):
    new_keeper().current()
    clock.go_on(HOUR)
    steps: list[str] = []
    shelf.failing = steps.append
    assert new_keeper().current().access_token == "access-2"
    # The second read is made under the lock.
    assert steps[: steps.index("save")] == ["load", "lock", "load"]


def test_a_fresh_stored_token_costs_one_read_and_no_lock(new_keeper, shelf):
    token = new_keeper().current()
    shelf.failing = lambda step: step != "load"
    keeper = new_keeper()
    assert keeper.current() == token
    assert keeper.stats == {}


def test_a_stale_token_is_renewed_in_the_background(new_keeper, authority, clock):
    keeper = new_keeper()
    first = keeper.current()
    clock.go_on(HOUR - 300)
    requested, answer = threading.Event(), threading.Event()
    authority.asking = lambda: (requested.set(), answer.wait(10))
    assert keeper.current() == first
    assert requested.wait(10)
    assert keeper.current() == first
    answer.set()
    settle(keeper)
    assert keeper.current().access_token == "access-2"
    assert authority.count == 2


def test_one_process_renews_a_stale_token_while_others_use_it(new_keeper, authority, clock):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    assert other.current() == first
    clock.go_on(HOUR - 300)
    requested, answer = threading.Event(), threading.Event()
    authority.asking = lambda: (requested.set(), answer.wait(10))
    one.current()
    assert requested.wait(10)
    assert other.current() == first
    settle(other)
    answer.set()
    settle(one)
    assert authority.count == 2
    # The other looks again after a small part of the window, and finds the new token.
    clock.go_on(60)
    other.current()
    settle(other)
    assert other.current().access_token == "access-2"
    assert authority.count == 2


def test_in_the_soft_window_a_process_without_the_lock_does_no_io_until_its_next_look(
    new_keeper, shelf, clock
):
    one, other = new_keeper(), new_keeper()
    one.current(), other.current()
    clock.go_on(HOUR - 300)
    lock = shelf.lock()
    assert lock.acquire(1)
    other.current()
    settle(other)
    looks: list[str] = []
    shelf.failing = lambda step: bool(looks.append(step))
    for _ in range(100):
        other.current()
    assert looks == []
    clock.go_on(30)
    other.current()
    settle(other)
    assert looks == ["load", "lock"]


def test_renew_early_can_be_turned_off(new_keeper, authority, clock):
    keeper = new_keeper(renew_early=False)
    first = keeper.current()
    clock.go_on(HOUR - 61)
    assert keeper.current() == first
    assert authority.count == 1
    clock.go_on(2)
    assert keeper.current().access_token == "access-2"


def test_callers_wait_for_the_renewal_of_an_expired_token(new_keeper, authority, clock):
    keeper = new_keeper()
    keeper.current()
    clock.go_on(HOUR)
    assert keeper.current().access_token == "access-2"


def test_a_patient_caller_waits_for_the_renewal_of_a_stale_token(new_keeper, clock):
    keeper = new_keeper()
    keeper.current()
    clock.go_on(HOUR - 300)
    assert keeper.obtain(patient=True).token.access_token == "access-2"


def test_a_token_without_expiry_is_used_until_it_is_refused(new_keeper, authority, clock):
    authority.lifetime = None
    keeper = new_keeper()
    token = keeper.current()
    clock.go_on(1000 * 24 * HOUR)
    assert keeper.current() is token
    assert keeper.renew(token).access_token == "access-2"


def test_expiry_counts_from_before_the_request(new_keeper, authority, clock):
    authority.asking = lambda: clock.go_on(7)
    token = new_keeper().current()
    assert token.issued_at == clock.now - 7
    assert token.expires_at == clock.now - 7 + HOUR


def test_expiry_is_judged_by_the_clock_of_the_store(new_keeper, shelf, authority, clock):
    shelf.ahead = 300.0
    token = new_keeper().current()
    assert token.expires_at == clock.now + 300 + HOUR
    other = new_keeper()
    assert other.current() == token
    assert authority.count == 1


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_jumps_makes_no_token_younger(new_keeper, authority, clock, jump):
    keeper = new_keeper()
    keeper.current()
    clock.now += jump
    clock.ticks += HOUR
    assert keeper.current().access_token == "access-2"


def test_suspended_time_counts_although_the_monotonic_clock_stopped(new_keeper, clock):
    keeper = new_keeper()
    keeper.current()
    clock.now += 24 * HOUR
    assert keeper.current().access_token == "access-2"


# --- one renewal -----------------------------------------------------------------------------


def test_threads_share_one_renewal(new_keeper, authority):
    keeper = new_keeper()
    barrier = threading.Barrier(32)
    tokens: list[Token] = []

    def work() -> None:
        barrier.wait()
        tokens.append(keeper.current())

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 32
    assert set(tokens) == {tokens[0]}
    assert authority.presented == ["refresh-0"]


def test_threads_share_one_error(new_keeper, authority):
    keeper = new_keeper()
    authority.script = [errors.RefreshTemporarilyFailed("down", processed=False)]
    barrier = threading.Barrier(8)
    caught: list[Exception] = []

    def work() -> None:
        barrier.wait()
        try:
            keeper.current()
        except errors.RefreshTemporarilyFailed as error:
            caught.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caught) == 8
    assert len(set(map(id, caught))) == 8
    assert authority.presented == ["refresh-0"]


@pytest.mark.parametrize("kind", [Authority, Machinist])
def test_the_store_is_read_again_under_the_lock(new_keeper, shelf, clock, kind):
    authority = kind()
    one, other = new_keeper(authority), new_keeper(authority)
    one.current()
    other.current()
    clock.go_on(HOUR)
    # The first keeper renews between the other's look and its lock.
    seen = threading.Lock()

    def once(step: str) -> bool:
        if step == "lock" and seen.acquire(blocking=False):
            one.current()
        return False

    shelf.failing = once
    assert other.current().access_token == "access-2"
    assert authority.count == len(authority.presented) == 2


def test_a_newer_stored_token_is_taken_without_a_renewal(new_keeper, authority):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    other.current()
    second = one.renew(first)
    assert other.renew(first) == second
    assert authority.count == 2


def test_the_rejected_issue_decides_and_not_the_text_of_the_token(new_keeper, clock):
    source = Machinist()
    source.issue = lambda: {"access_token": "same", "refresh_token": "", "expires_in": HOUR}
    keeper = new_keeper(source)
    first = keeper.current()
    clock.go_on(1)
    second = keeper.renew(first)
    assert second.access_token == first.access_token
    assert keeper.renew(first) == second
    assert source.presented == ["client", "client"]


def test_a_waiter_takes_a_token_minted_meanwhile_whatever_its_expiry(
    new_keeper, shelf, authority, clock
):
    authority.lifetime = 0.001
    one, other = new_keeper(), new_keeper()
    one.current()
    clock.go_on(1)
    lock = shelf.lock()
    assert lock.acquire(1)
    first_look = threading.Event()

    def sleep(seconds: float) -> None:
        # Another process renews during the wait, and the token has expired when it is read.
        if not first_look.is_set():
            first_look.set()
            lock.release()
            one.current()
            clock.go_on(1)
            assert lock.acquire(1)

    clock.sleep = sleep
    assert other.current().access_token == "access-2"
    assert authority.count == 2
    lock.release()


def test_a_waiter_replaces_a_holder_that_died(new_keeper, shelf, authority, clock):
    lock = shelf.lock()
    assert lock.acquire(1)
    clock.sleep = lambda seconds: lock.release()
    assert new_keeper().current().access_token == "access-1"


def test_the_wait_for_the_lock_times_out(new_keeper, shelf, authority):
    lock = shelf.lock()
    assert lock.acquire(1)
    with pytest.raises(errors.LockTimeout, match="lock_timeout"):
        new_keeper(lock_timeout=5.0).current()
    assert authority.presented == []


def test_the_token_is_saved_before_anyone_uses_it(new_keeper, shelf, authority):
    seen: list[str] = []
    keeper = new_keeper(
        on_refresh=lambda token: seen.append(document(shelf)["token"]["access_token"])
    )
    used: list[Any] = []
    shelf.failing = lambda step: step == "save" and used.append(keeper.fresh())
    assert keeper.current().access_token == "access-1"
    assert seen == ["access-1"]
    # While intent and token are saved, the keeper has no token.
    assert used == [None, None]


def test_an_intent_is_written_before_a_refresh_token_is_presented(new_keeper, shelf, authority):
    intents: list[Any] = []
    authority.asking = lambda: intents.append(document(shelf)["intent"])
    new_keeper().current()
    assert [intent["attempt"] for intent in intents] == [1]
    assert "intent" not in document(shelf)
    assert "refresh-0" not in str(shelf.writes)


def test_no_intent_is_written_if_nothing_can_be_spent(new_keeper, shelf):
    new_keeper(Machinist()).current()
    assert len(shelf.writes) == 1


def test_a_response_without_a_refresh_token_keeps_the_old_one(new_keeper, authority):
    keeper = new_keeper()
    first = keeper.current()
    authority.issue = lambda: {"access_token": "again", "expires_in": HOUR}
    assert keeper.renew(first).refresh_token == first.refresh_token


def test_a_write_whose_answer_is_lost_has_succeeded(new_keeper, shelf, authority):
    save = shelf.save
    lost: list[str] = []

    def save_and_lose(*args: Any, **kwargs: Any) -> bool:
        assert save(*args, **kwargs)
        lost.append(kwargs["tag"])
        return False

    shelf.save = save_and_lose
    assert new_keeper().current().access_token == "access-1"
    assert len(lost) == 2
    assert authority.count == 1


def test_a_late_answer_whose_parent_is_still_stored_is_saved_on_the_new_tag(
    new_keeper, shelf, authority
):
    keeper = new_keeper()
    first = keeper.current()

    def somebody_writes_a_note() -> None:
        content, _ = shelf.slot
        shelf.slot = (content, "99-other")

    authority.asking = somebody_writes_a_note
    assert keeper.renew(first).access_token == "access-2"
    assert shelf.slot[1].startswith("100-")


def test_a_late_answer_whose_parent_was_replaced_takes_the_stored_token(
    new_keeper, shelf, authority, clock
):
    keeper, other = new_keeper(), new_keeper()
    first = keeper.current()

    def a_new_login() -> None:
        authority.asking = lambda: None
        shelf.holder = None
        other.adopt({"access_token": "theirs", "refresh_token": "new", "expires_in": HOUR})

    authority.asking = a_new_login
    assert keeper.renew(first).access_token == "theirs"
    assert document(shelf)["token"]["access_token"] == "theirs"


def test_a_late_answer_does_not_replace_a_later_answer_to_the_same_refresh_token(new_keeper, shelf):
    source = Authority()
    source.issue = lambda: Authority.issue(source) | {"refresh_token": "refresh-0"}
    keeper, other = new_keeper(source), new_keeper(source)
    first = keeper.current()
    source.live = "refresh-0"

    def others_renew() -> None:
        source.asking = lambda: setattr(source, "live", "refresh-0")
        shelf.holder = None
        assert other.renew(first).access_token == "access-2"
        source.live = "refresh-0"

    source.asking = others_renew
    assert keeper.renew(first).access_token == "access-2"
    assert document(shelf)["token"]["access_token"] == "access-2"


def test_a_late_answer_is_saved_even_if_its_intent_is_gone(new_keeper, shelf, authority):
    """The store was set back to what it held before the first refresh token was announced."""
    authority.script = [None, errors.ReauthRequired("dead", error="invalid_grant")]
    keeper = new_keeper()
    first = keeper.current()
    authority.first = authority.live = "another"

    def set_back() -> None:
        if authority.presented[-1] == "another":
            content, _ = shelf.slot
            shelf.slot = ({name: content[name] for name in content if name != "intent"}, "9-old")

    authority.asking = set_back
    assert keeper.renew(first).access_token == "access-2"
    assert document(shelf)["token"]["access_token"] == "access-2"
    assert authority.presented == ["refresh-0", "refresh-1", "another"]


def test_a_function_is_not_called_again_after_its_token_was_just_saved(new_keeper, shelf):
    """Saved by a process that lost the lock: a function writes no intent."""
    calls: list[Token | None] = []

    def log_in(previous: Token | None) -> dict[str, Any]:
        calls.append(previous)
        return {"access_token": f"access-{len(calls)}", "refresh_token": "refresh"}

    keeper, other = new_keeper(log_in), new_keeper(log_in)
    was_spent = shelf.was_spent

    def saved_meanwhile(note: str) -> bool:
        holder = shelf.holder
        if holder is not None:
            shelf.was_spent, shelf.holder = was_spent, None
            other.current()
            shelf.holder = holder
        return was_spent(note)

    shelf.was_spent = saved_meanwhile
    assert keeper.current().access_token == "access-1"
    assert calls == [None]


def test_refresh_lets_a_function_begin_again_where_the_slot_is_empty(new_keeper, shelf):
    answers = [{"access_token": name, "refresh_token": "refresh"} for name in ("one", "two")]
    keeper = new_keeper(lambda previous: answers.pop(0))
    keeper.current()
    shelf.slot = None
    other = new_keeper(lambda previous: answers.pop(0))
    with pytest.raises(errors.ReauthRequired, match="has returned a refresh token before"):
        other.current()
    assert other.refresh().access_token == "two"


def test_refresh_lets_a_function_begin_again_in_its_own_process_only(new_keeper, shelf, clock):
    calls: list[Token | None] = []

    def function(previous: Token | None) -> dict[str, Any]:
        calls.append(previous)
        if len(calls) == 2:
            raise errors.RefreshTemporarilyFailed("cut off", processed=False)
        return {"access_token": "access", "refresh_token": "refresh"}

    keeper = new_keeper(function)
    keeper.current()
    keeper.forget()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.refresh()
    clock.go_on(60)
    clock.process = lambda: "a forked child"
    with pytest.raises(errors.ReauthRequired, match="has returned a refresh token before"):
        keeper.current()
    assert calls == [None, None]


def test_refresh_lets_a_function_begin_again_until_the_next_renewal(new_keeper, shelf, clock):
    calls: list[str] = []

    def function(name: str) -> Callable[[Token | None], dict[str, Any]]:
        def log_in(previous: Token | None) -> dict[str, Any]:
            calls.append(name)
            if calls == ["other", "one"]:
                raise errors.RefreshTemporarilyFailed("cut off", processed=False)
            return {"access_token": f"access-{len(calls)}", "refresh_token": "refresh"}

        return log_in

    one, other = new_keeper(function("one")), new_keeper(function("other"))
    other.current()
    other.forget()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        one.refresh()
    other.refresh()
    other.forget()
    clock.go_on(60)
    with pytest.raises(errors.ReauthRequired, match="has returned a refresh token before"):
        one.current()
    assert calls == ["other", "one", "other"]


def test_a_call_from_within_the_renewal_does_not_wait_for_itself(new_keeper, authority):
    keeper = new_keeper()
    caught: list[str] = []

    def ask_again() -> None:
        with pytest.raises(errors.TokenError, match="from within") as info:
            keeper.current()
        caught.append(str(info.value))

    authority.asking = ask_again
    keeper.current()
    assert len(caught) == 1


def test_on_refresh_may_use_the_new_token_and_may_fail(new_keeper, caplog):
    caplog.set_level("DEBUG", "tokenadapter")
    seen: list[Token] = []

    def on_refresh(token: Token) -> None:
        seen.append(keeper.current())
        raise ValueError("in this test")

    keeper = new_keeper(on_refresh=on_refresh)
    assert keeper.current() is seen[0]
    settle(keeper)
    assert keeper.stats["RefreshCallbackFailed"] == 1
    assert "on_refresh raised ValueError" in caplog.text
    assert "in this test" in caplog.text  # in the traceback


def test_on_refresh_is_called_once_per_renewal_by_the_renewer(new_keeper):
    calls: list[tuple[str, str]] = []
    one = new_keeper(on_refresh=lambda token: calls.append(("one", token.access_token)))
    other = new_keeper(on_refresh=lambda token: calls.append(("other", token.access_token)))
    first = one.current()
    other.current()
    other.renew(first)
    one.renew(first)
    assert calls == [("one", "access-1"), ("other", "access-2")]


def test_a_caller_that_gives_up_does_not_cancel_the_renewal(new_keeper, authority):
    keeper = new_keeper()
    answer = threading.Event()
    authority.asking = lambda: answer.wait(10)
    with pytest.raises(errors.LockTimeout, match="continues"):
        keeper.current(timeout=0.01)
    answer.set()
    settle(keeper)
    assert keeper.current().access_token == "access-1"
    assert authority.presented == ["refresh-0"]


# --- failure ---------------------------------------------------------------------------------


def test_a_failure_is_shared_until_its_backoff_ends(new_keeper, authority, clock):
    one, other = new_keeper(), new_keeper()
    authority.script = [errors.RefreshTemporarilyFailed("down", processed=False)]
    with pytest.raises(errors.RefreshTemporarilyFailed) as info:
        one.current()
    assert info.value.retry_at == clock.now + 5
    with pytest.raises(errors.RefreshTemporarilyFailed) as info:
        other.current()
    assert info.value.retry_at == clock.now + 5
    assert len(authority.presented) == 1
    clock.go_on(5)
    assert other.current().access_token == "access-1"
    assert one.current().access_token == "access-1"


def test_backoffs_grow_and_end_with_success(new_keeper, authority, clock, shelf):
    keeper = new_keeper()
    authority.script = [errors.RefreshTemporarilyFailed("down", processed=False)] * 6
    waits = []
    for _ in range(6):
        with pytest.raises(errors.RefreshTemporarilyFailed) as info:
            keeper.current()
        waits.append(info.value.retry_at - clock.now)
        clock.go_on(waits[-1])
    assert waits == [5, 10, 20, 40, 60, 60]
    keeper.current()
    assert "backoff" not in document(shelf)


def test_retry_after_is_honoured(new_keeper, authority, clock):
    authority.script = [errors.RefreshTemporarilyFailed("busy", processed=False, retry_after=120.0)]
    with pytest.raises(errors.RefreshTemporarilyFailed) as info:
        new_keeper().current()
    assert info.value.retry_at == clock.now + 120


def test_a_failing_renewal_raises_nothing_while_the_token_is_valid(new_keeper, authority, clock):
    keeper = new_keeper()
    first = keeper.current()
    clock.go_on(HOUR - 30)
    authority.script = [errors.RefreshTemporarilyFailed("down", processed=False)] * 9
    assert keeper.current() == first
    other = new_keeper()
    assert other.current() == first
    assert len(authority.presented) == 2
    clock.go_on(31)
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()


def test_a_refused_client_backs_off_alone(new_keeper, authority, clock):
    stale = Authority()
    stale.client_credential = "me\0old"
    stale.script = [errors.RefreshConfigError("wrong secret", error="invalid_client")]
    with pytest.raises(errors.RefreshConfigError):
        new_keeper(stale).current()
    with pytest.raises(errors.RefreshConfigError, match="wrong secret") as info:
        new_keeper(stale).current()
    assert info.value.error == "invalid_client"
    assert len(stale.presented) == 1
    assert new_keeper().current().access_token == "access-1"


def test_after_a_refusal_all_processes_fail_at_once_until_a_new_login(new_keeper, authority, shelf):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    other.current()
    authority.revoked = True
    for keeper in (one, other, one):
        with pytest.raises(errors.ReauthRequired) as info:
            keeper.renew(first)
        assert info.value.reason == "invalid_grant"
        assert info.value.error == "invalid_grant"
    assert len(authority.presented) == 2
    assert document(shelf)["token"]["access_token"] == first.access_token
    authority.revoked = False
    new_keeper().adopt(authority.issue())
    for keeper in (one, other):
        assert keeper.renew(first).access_token == "access-2"


def test_a_refusal_that_cannot_be_saved_applies_to_its_process(new_keeper, authority, lapsing):
    """Also with a declared grace, which limits when the request may be sent."""
    authority.grace = 9.0
    keeper = new_keeper()
    first = keeper.current()
    authority.script = [errors.ReauthRequired("dead", error="invalid_grant")]
    authority.asking = lambda: setattr(lapsing, "failing", lambda step: step == "save")
    authority.first = None
    for _ in range(2):
        with pytest.raises(errors.ReauthRequired, match="dead"):
            keeper.renew(first)
        authority.asking, lapsing.failing = lambda: None, lambda step: False
    assert authority.presented == ["refresh-0", "refresh-1"]


def test_after_a_refusal_the_access_token_is_used_while_it_is_valid(new_keeper, authority, clock):
    keeper = new_keeper()
    first = keeper.current()
    authority.revoked = True
    clock.go_on(HOUR - 30)
    assert keeper.current() == first
    clock.go_on(31)
    with pytest.raises(errors.ReauthRequired):
        keeper.current()


def test_a_new_first_refresh_token_in_the_configuration_ends_a_refusal(new_keeper, authority):
    keeper = new_keeper()
    first = keeper.current()
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        keeper.renew(first)
    configured = Authority(first="refresh-new")
    configured.count = 10
    assert new_keeper(configured).current().access_token == "access-11"
    assert new_keeper(configured).current().access_token == "access-11"
    # The process with the old configuration may belong to another user.
    with pytest.raises(errors.RefreshConfigError, match="descends from another refresh token"):
        keeper.renew(first)


def test_a_password_is_presented_after_a_refused_refresh_token(new_keeper, authority, shelf):
    keeper = new_keeper()
    first = keeper.current()

    class Login(Authority):
        def credentials(self, previous):
            return [*super().credentials(previous), Credential("password", "joe\0secret")]

        def fetch(self, credential, previous):
            if credential.kind == "password":
                self.presented.append("password")
                return self.issue()
            return super().fetch(credential, previous)

    source = Login(first=None)
    source.revoked, source.count = True, 10
    assert new_keeper(source).renew(first).access_token == "access-11"
    assert source.presented == ["refresh-1", "password"]


def test_a_refusal_after_a_lost_answer_is_an_uncertain_rotation(new_keeper, authority, clock):
    keeper = new_keeper()
    first = keeper.current()
    authority.script = [("lost", errors.RefreshTemporarilyFailed("cut off"))]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.renew(first)
    clock.go_on(5)
    with pytest.raises(errors.ReauthRequired) as info:
        new_keeper().renew(first)
    assert info.value.reason == "uncertain_rotation"
    assert authority.presented == ["refresh-0", "refresh-1", "refresh-1"]


# --- a lock that lapses while its holder lives -----------------------------------------------

# How long an intent of a writer of unknown state is respected: the deadline, a second to send the
# request, and a second of clock skew.
BELIEVED = Authority.deadline + 2


def while_asking(authority: Authority, shelf: Shelf, do: Callable[[], Any]) -> list[Any]:
    """Stop the holder during the next presentation, let its lock lapse, and call *do* in another
    process.

    :returns: a list, which gets the result or the error of *do*.
    """
    got: list[Any] = []

    def stopped() -> None:
        authority.asking = lambda: None
        shelf.holder = None
        try:
            got.append(do())
        except errors.TokenError as error:
            got.append(error)

    authority.asking = stopped
    return got


@pytest.fixture
def lapsing(shelf: Shelf) -> Shelf:
    """Its lock does not prove that an earlier holder has died."""
    shelf.lock_ends_with_holder = False
    return shelf


def test_a_holder_whose_lock_lapsed_may_still_get_its_answer(new_keeper, authority, lapsing):
    one, other = new_keeper(), new_keeper(lock_timeout=BELIEVED - 1)
    first = one.current()
    got = while_asking(authority, lapsing, lambda: other.renew(first))
    second = one.renew(first)
    assert [type(error) for error in got] == [errors.LockTimeout]
    assert authority.presented == ["refresh-0", "refresh-1"]
    assert other.renew(first) == second


@pytest.mark.parametrize("machines", ["same", "another"])
def test_the_intent_of_a_holder_of_unknown_state_is_respected_until_its_deadline(
    new_keeper, authority, lapsing, clock, machines
):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    if machines == "same":
        clock.dead.add(clock.process())
    began = clock.now
    got = while_asking(authority, lapsing, lambda: (other.renew(first), clock.now - began))
    authority.script = [None, errors.RefreshTemporarilyFailed("stopped for too long")]
    with contextlib.suppress(errors.TokenError):
        one.renew(first)
    [(token, waited)] = got
    assert authority.presented[:3] == ["refresh-0", "refresh-1", "refresh-1"]
    assert token.access_token == "access-2"
    least = 0 if machines == "same" else BELIEVED
    assert least <= waited < least + 0.1


def test_within_a_declared_grace_a_request_is_repeated_after_it_has_ended_and_before_the_grace_has(
    new_keeper, authority, lapsing, clock
):
    """One that arrives after its repetition, and after the grace, would look like a theft."""
    authority.grace = 2 * authority.deadline + 1
    one, other = new_keeper(), new_keeper()
    first, began = one.current(), clock.now
    got = while_asking(authority, lapsing, lambda: (other.renew(first), clock.now - began))
    authority.script = [None, errors.RefreshTemporarilyFailed("stopped for too long")]
    with contextlib.suppress(errors.TokenError):
        one.renew(first)
    assert authority.deadline < got[0][1] < authority.grace


def test_after_a_declared_grace_a_dead_holder_delays_no_request(
    new_keeper, authority, lapsing, clock
):
    authority.grace = 9.0
    first = new_keeper().current()
    record = Record.from_document(document(lapsing))
    key = digest(record.salt, "refresh_token", "refresh-1")
    killed = Waiter("killed", clock.now + BELIEVED)
    lapsing.slot = (record.with_intent(key, clock.now, killed).to_document(), "9-killed")
    clock.dead.add("killed")
    clock.go_on(authority.grace)
    began = clock.now
    assert new_keeper().renew(first).access_token == "access-2"
    assert clock.now == began


def test_the_death_of_a_renewing_process_ends_a_long_pause(new_keeper, authority, lapsing, clock):
    lapsing.poll = (10.0, 10.0)
    first = new_keeper().current()
    record = Record.from_document(document(lapsing))
    key = digest(record.salt, "refresh_token", "refresh-1")
    renewing = Waiter("renewing", clock.now + BELIEVED)
    lapsing.slot = (record.with_intent(key, clock.now, renewing).to_document(), "9-renewing")
    sleep, began = clock.sleep, clock.now

    def die_meanwhile(seconds: float) -> None:
        sleep(seconds)
        clock.dead.add("renewing")

    clock.sleep = die_meanwhile
    assert new_keeper().renew(first).access_token == "access-2"
    assert clock.now - began < 0.1


def test_a_living_holder_is_believed_while_its_store_is_away(new_keeper, authority, lapsing, clock):
    """It has the new token, and saves it as soon as the store is back."""
    clock.living.add(clock.process())
    one, other = new_keeper(), new_keeper(lock_timeout=1.0)
    first = one.current()

    def come_late() -> Token:
        clock.go_on(BELIEVED + 15)
        return other.renew(first)

    got = while_asking(authority, lapsing, come_late)
    second = one.renew(first)
    assert [type(error) for error in got] == [errors.LockTimeout]
    assert authority.presented == ["refresh-0", "refresh-1"]
    assert other.renew(first) == second


def test_a_living_process_that_is_not_saving_is_believed_for_a_minute(
    new_keeper, authority, lapsing, clock
):
    """A backup that was restored may hold its intent."""
    clock.living.add(clock.process())
    one, other = new_keeper(), new_keeper(lock_timeout=120.0)
    first, began = one.current(), clock.now
    got = while_asking(authority, lapsing, lambda: (other.renew(first), clock.now - began))
    authority.script = [None, errors.RefreshTemporarilyFailed("stopped for too long")]
    with contextlib.suppress(errors.TokenError):
        one.renew(first)
    assert BELIEVED + 60 <= got[0][1] < BELIEVED + 61


def test_after_an_outage_of_the_store_a_holder_elsewhere_has_time_to_save(
    new_keeper, authority, lapsing, clock
):
    one, other = new_keeper(), new_keeper(lock_timeout=4.0)
    first = one.current()

    def meet_an_outage() -> Token:
        clock.go_on(BELIEVED)
        lapsing.failing = lambda step: step == "load"
        with pytest.raises(errors.StoreError):
            other.renew(first)
        lapsing.failing = lambda step: False
        return other.renew(first)

    got = while_asking(authority, lapsing, meet_an_outage)
    second = one.renew(first)
    assert [type(error) for error in got] == [errors.LockTimeout]
    assert authority.presented == ["refresh-0", "refresh-1"]
    assert other.renew(first) == second


def test_a_process_that_waits_for_a_late_answer_tells_the_others(
    new_keeper, authority, lapsing, clock
):
    one, other = new_keeper(), new_keeper(lock_timeout=1.0)
    first = one.current()
    fetch, got = authority.fetch, []

    def answer_late(credential: Credential, previous: Token | None) -> Any:
        authority.fetch = fetch
        clock.go_on(authority.deadline)
        assert credential.keep_waiting()
        clock.go_on(30.0)
        assert credential.keep_waiting()
        lapsing.holder = None
        with pytest.raises(errors.LockTimeout):
            other.renew(first)
        clock.go_on(30.0 - authority.deadline - 1.0)
        got.append(credential.keep_waiting())
        return fetch(credential, previous)

    authority.fetch = answer_late
    with pytest.raises(errors.RefreshTemporarilyFailed, match="has not answered for 4 s"):
        one.renew(first)
    settle(one)
    assert got == [False]
    assert one.current() == other.renew(first)
    assert authority.presented == ["refresh-0", "refresh-1"]


def test_a_caller_that_renews_itself_gets_the_token_of_a_late_answer(new_keeper, authority):
    fetch = authority.fetch

    def answer_late(credential: Credential, previous: Token | None) -> Any:
        assert credential.keep_waiting()
        return fetch(credential, previous)

    authority.fetch = answer_late
    outcome = new_keeper(inline=True).obtain()
    assert outcome.is_new
    assert outcome.token.access_token == "access-1"


def test_a_login_is_not_lost_because_another_process_waits_for_an_answer(
    new_keeper, authority, shelf, clock
):
    one, other = new_keeper(), new_keeper(lock_timeout=1.0)
    first, began, sleep = one.current(), clock.now, clock.sleep
    lock = shelf.lock()

    def sleep_until_it_is_free(seconds: float) -> None:
        sleep(seconds)
        if clock.now > began + 5:
            lock.release()

    def log_in() -> Token:
        assert lock.acquire(60)
        clock.sleep = sleep_until_it_is_free
        return other.adopt({"access_token": "login", "refresh_token": "login-0"})

    got = while_asking(authority, shelf, log_in)
    assert one.renew(first) == got[0]
    assert document(shelf)["token"]["access_token"] == "login"


def test_with_a_grace_nobody_waits_for_a_late_answer(new_keeper, authority):
    authority.grace, kept = 9.0, []
    fetch = authority.fetch

    def ask(credential: Credential, previous: Token | None) -> Any:
        kept.append(credential.keep_waiting())
        return fetch(credential, previous)

    authority.fetch = ask
    new_keeper().current()
    assert kept == [False]


@pytest.mark.parametrize("grace", [5.0, 10.0, 30.0])
@pytest.mark.parametrize("timeout", [2.0, 10.0, 30.0])
def test_a_timeout_must_leave_time_for_a_repetition_within_the_grace(
    new_keeper, authority, grace, timeout
):
    authority.grace, authority.deadline = grace, timeout
    longest = (grace - 1) / 2
    if timeout <= longest:
        new_keeper()
    else:
        words = f"grace is {grace:g} s, .* may take {timeout:g} s: .* takes at most {longest:g} s"
        with pytest.raises(ValueError, match=words):
            new_keeper()


def test_a_clock_that_is_behind_does_not_extend_the_grace(new_keeper, authority, lapsing, clock):
    """The intent of another process seems to come from the future."""
    one, other = new_keeper(), new_keeper(lock_timeout=1.0)
    first = one.current()

    def come_by() -> Token:
        lapsing.ahead = -0.5
        return other.renew(first)

    got = while_asking(authority, lapsing, come_by)
    second = one.renew(first)
    assert [type(error) for error in got] == [errors.LockTimeout]
    assert authority.presented == ["refresh-0", "refresh-1"]
    assert second.access_token == "access-2"


def test_a_kernel_lock_proves_that_its_earlier_holder_has_died(new_keeper, authority, shelf, clock):
    one, other = new_keeper(), new_keeper()
    first, began = one.current(), clock.now
    got = while_asking(authority, shelf, lambda: (other.renew(first), clock.now - began))
    authority.script = [None, errors.RefreshTemporarilyFailed("it cannot go on")]
    with contextlib.suppress(errors.TokenError):
        one.renew(first)
    assert got[0][1] < 0.1


@pytest.mark.parametrize("grace", [0.0, 9.0])
def test_a_kernel_lock_proves_nothing_about_a_holder_that_lives(
    new_keeper, authority, shelf, clock, grace
):
    """Its lock file was deleted, and another process has created a new one."""
    authority.grace = grace
    clock.living.add(clock.process())
    one, other = new_keeper(), new_keeper(lock_timeout=1.0)
    first = one.current()
    got = while_asking(authority, shelf, lambda: other.renew(first))
    second = one.renew(first)
    assert [type(error) for error in got] == [errors.LockTimeout]
    assert authority.presented == ["refresh-0", "refresh-1"]
    assert other.renew(first) == second


def test_a_lock_that_does_not_exclude_another_machine_is_an_error(
    new_keeper, authority, shelf, clock
):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    clock.elsewhere.add(clock.process())
    got = while_asking(authority, shelf, lambda: other.renew(first))
    second = one.renew(first)
    assert [type(error) for error in got] == [errors.StoreError]
    assert "network file system" in str(got[0])
    assert authority.presented == ["refresh-0", "refresh-1"]
    assert other.renew(first) == second


@pytest.mark.parametrize("set_back", [100.0, 3600.0])
def test_a_clock_that_was_set_back_does_not_make_an_intent_last_for_ever(
    new_keeper, authority, lapsing, clock, set_back
):
    keeper = new_keeper()
    first = keeper.current()
    authority.script = [errors.RefreshTemporarilyFailed("cut off")]
    authority.asking = lambda: setattr(lapsing, "failing", lambda step: step == "save")
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.renew(first)
    authority.asking, lapsing.failing = lambda: None, lambda step: False
    clock.now -= set_back
    clock.ticks += 60
    began = clock.now
    assert new_keeper().renew(first).access_token == "access-2"
    assert clock.now - began < 1


def test_a_process_does_not_wait_for_its_own_lost_answer(new_keeper, authority, lapsing, clock):
    """It knows the outcome, even if that could not be saved."""
    keeper = new_keeper()
    first = keeper.current()
    authority.script = [errors.RefreshTemporarilyFailed("cut off", retry_after=1)]
    authority.asking = lambda: setattr(lapsing, "failing", lambda step: step == "save")
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.renew(first)
    assert [one["process"] for one in document(lapsing)["intent"]["awaited"]] == [clock.process()]
    authority.asking, lapsing.failing = lambda: None, lambda step: False
    clock.go_on(1.1)
    began = clock.now
    assert keeper.renew(first).access_token == "access-2"
    assert clock.now - began < 0.1


def test_a_late_request_is_not_sent(new_keeper, authority, lapsing, clock):
    """Other processes respect an intent for a limited time, within which the request must end."""
    keeper = new_keeper()
    first = keeper.current()
    pauses = [1.5]

    def stand_still(step: str) -> bool:
        if step == "prepare" and pauses:
            clock.go_on(pauses.pop())
        return False

    lapsing.failing = stand_still
    assert keeper.renew(first).access_token == "access-2"
    assert authority.presented == ["refresh-0", "refresh-1"]
    # The first intent was withdrawn.
    announced = ["intent" in written for written in lapsing.writes[-4:]]
    assert announced == [True, False, True, False]


# --- a file that was copied here -------------------------------------------------------------


def logged_in(authority: Authority, clock: Clockwork) -> Token:
    """A new login, somewhere else."""
    authority.revoked = False
    return Token.from_dict(authority.issue(), now=clock.now)


def test_a_login_file_copied_from_another_machine_is_used(new_keeper, authority, clock, shelf):
    laptop = Shelf(clock)
    at_home = new_keeper(store=laptop)
    at_home.current()
    shelf.slot = laptop.slot
    daemon = new_keeper()
    first = daemon.current()
    for _ in range(3):  # the record here grows older by many renewals
        first = daemon.renew(first)
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        daemon.renew(first)
    clock.go_on(60)
    login = at_home.adopt(logged_in(authority, clock))
    clock.go_on(60)
    with pytest.raises(errors.ReauthRequired):
        daemon.renew(first)
    shelf.slot = laptop.slot
    assert daemon.renew(first) == login


def test_a_copied_login_is_used_even_if_an_older_grant_was_renewed_more_often(
    new_keeper, clock, shelf
):
    laptop = Shelf(clock)
    at_home = new_keeper(store=laptop)
    at_home.current()
    shelf.slot = laptop.slot
    daemon = new_keeper()
    first = daemon.current()
    login = at_home.adopt(
        Token("login", refresh_token="other", issued_at=clock.now, expires_at=clock.now + HOUR)
    )
    clock.go_on(60)
    first = daemon.renew(first)
    clock.go_on(60)
    shelf.slot = laptop.slot
    assert daemon.renew(first) == login
    # The remembered record does not undo it.
    assert document(shelf)["token"]["access_token"] == "login"


# --- a plain function ------------------------------------------------------------------------


class Rotating:
    """A function that logs in by its own refresh token if it gets none."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.calls: list[str | None] = []

    def __call__(self, previous: Token | None) -> dict[str, Any]:
        refresh = "refresh-0" if previous is None else previous.refresh_token
        self.calls.append(refresh)
        credential = Credential("refresh_token", refresh or "")
        return self.authority.fetch(credential, previous)  # type: ignore[return-value]


@pytest.mark.parametrize("failing", ["load", "lock", "save"])
def test_a_spending_function_is_not_called_while_the_store_fails(new_keeper, shelf, clock, failing):
    source = Rotating()
    keeper = new_keeper(source)
    keeper.current()
    clock.go_on(HOUR)
    shelf.failing = lambda step: step == failing
    with pytest.raises(errors.StoreError):
        keeper.current()
    assert source.calls == ["refresh-0"]
    shelf.failing = lambda step: False
    assert keeper.current().access_token == "access-2"


def test_a_function_is_not_called_before_the_store_was_ever_read(new_keeper, shelf):
    source = Rotating()
    shelf.failing = lambda step: True
    with pytest.raises(errors.StoreError):
        new_keeper(source).current()
    assert source.calls == []


def test_a_function_does_not_begin_again_after_the_store_was_emptied(new_keeper, shelf):
    source = Rotating()
    new_keeper(source).current()
    shelf.slot = None
    keeper = new_keeper(source)
    with pytest.raises(errors.ReauthRequired) as info:
        keeper.current()
    assert info.value.reason == "store_lost"
    assert source.calls == ["refresh-0"]
    # Unless refresh() is called.
    source.authority.live = "refresh-0"
    assert keeper.refresh().access_token == "access-2"
    assert keeper.current().access_token == "access-2"


def test_the_save_of_a_functions_first_refresh_token_is_retried_until_it_succeeds(
    new_keeper, shelf
):
    source = Rotating()
    failures = iter([True, True, True, True])
    shelf.failing = lambda step: step == "save" and next(failures, False)
    keeper = new_keeper(source)
    token = keeper.current()
    settle(keeper)
    assert document(shelf)["token"]["access_token"] == token.access_token
    assert source.calls == ["refresh-0"]


def test_a_function_without_refresh_tokens_is_called_as_often_as_needed(new_keeper, shelf, clock):
    keeper = new_keeper(lambda previous: {"access_token": f"at-{clock.now}", "expires_in": 60})
    first = keeper.current()
    clock.go_on(60)
    shelf.slot = None
    second = keeper.current()
    clock.go_on(60)
    shelf.failing = lambda step: True
    assert len({first.access_token, second.access_token, keeper.current().access_token}) == 3


# --- distrust --------------------------------------------------------------------------------


def test_a_token_refused_when_new_is_not_renewed_again_for_a_while(new_keeper, authority, clock):
    one, other = new_keeper(), new_keeper()
    second = one.renew(one.current())
    one.distrust(second)
    assert one.renew(second) == second
    assert other.renew(second) == second
    assert authority.count == 2
    clock.go_on(5)
    third = one.renew(second)
    assert third.access_token == "access-3"
    # It lasts longer for each refused token.
    one.distrust(third)
    clock.go_on(9)
    assert one.renew(third) == third
    clock.go_on(1)
    assert one.renew(third).access_token == "access-4"


def test_refresh_ends_refusals_and_backoffs(new_keeper, authority, clock):
    keeper = new_keeper()
    first = keeper.current()
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        keeper.renew(first)
    authority.revoked = False
    assert keeper.refresh().access_token == "access-2"
    authority.script = [errors.RefreshTemporarilyFailed("down", processed=False)]
    clock.go_on(HOUR)
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()
    assert keeper.refresh().access_token == "access-3"


def test_a_failed_refresh_leaves_the_stored_token_to_callers_that_did_not_reject_it(
    new_keeper, shelf, authority
):
    keeper = new_keeper()
    authority.script = [errors.RefreshTemporarilyFailed("down", processed=False)]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()
    stored = new_keeper().refresh()
    results: list[Token] = []
    caller = threading.Thread(target=lambda: results.append(keeper.current()))
    authority.asking = caller.start
    authority.script = [errors.RefreshConfigError("invalid_client")]
    with pytest.raises(errors.RefreshConfigError):
        keeper.refresh()
    caller.join()
    shelf.failing = lambda step: True
    assert [*results, keeper.current()] == [stored, stored]


def test_a_refusal_that_is_not_final_is_retried_after_a_backoff(new_keeper, clock):
    source = Machinist()
    source.script = [errors.ReauthRequired("not today")]
    keeper = new_keeper(source)
    for _ in range(3):
        with pytest.raises(errors.ReauthRequired, match="not today"):
            keeper.current()
    assert len(source.presented) == 1
    clock.go_on(60)
    assert keeper.current().access_token == "access-1"


def test_the_answer_to_a_second_presentation_counts_from_the_first(new_keeper, authority, clock):
    authority.grace = 60.0
    started = clock.now
    authority.script = [errors.RefreshTemporarilyFailed("The answer was lost.", processed=None)]
    keeper = new_keeper()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()
    clock.go_on(31)
    assert keeper.current().expires_at == started + HOUR


def test_distrust_returns_the_token_that_another_process_has_obtained(new_keeper):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    second = other.renew(first)
    assert one.distrust(first) == second
    assert one.fresh() == second
    assert one.distrust(second) is None


def test_distrust_returns_no_token_with_another_request(new_keeper):
    reader, writer = Machinist(), Machinist()
    reader.requested, writer.requested = {"scope": "read"}, {"scope": "write"}
    writer.count = 1
    one, other = new_keeper(reader), new_keeper(writer)
    first = one.current()
    assert other.current() != first
    assert one.distrust(first) is None
    assert one.fresh() == first


def test_only_one_process_records_the_distrust_of_a_token(new_keeper, shelf):
    one, other = new_keeper(), new_keeper()
    token = one.renew(one.current())
    one.distrust(token)
    noted = shelf.slot
    assert other.distrust(token) is None
    assert shelf.slot == noted


def test_a_distrust_that_another_process_recorded_needs_no_lock(new_keeper, shelf, clock):
    one, other = new_keeper(), new_keeper()
    token = one.renew(one.current())
    other.current()
    shelf.holder = holder = shelf.lock()

    def sleep(seconds: float) -> None:
        Clockwork.sleep(clock, seconds)
        if shelf.holder is holder:
            shelf.holder = None
            one.distrust(token)
            shelf.holder = holder

    clock.sleep = sleep
    assert other.distrust(token) is None
    assert len(clock.slept) == 1


def test_a_declared_grace_period_is_used(new_keeper, authority, clock):
    authority.grace = 10.0
    keeper = new_keeper()
    first = keeper.current()
    began = clock.now
    authority.script = [errors.RefreshTemporarilyFailed("cut off", retry_after=60)] * 3
    for _ in range(3):
        with pytest.raises(errors.RefreshTemporarilyFailed) as info:
            keeper.renew(first)
        assert clock.now < info.value.retry_at < began + authority.grace - authority.deadline
        clock.go_on(info.value.retry_at - clock.now)
    assert keeper.renew(first).access_token == "access-2"


# --- the store fails -------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["load", "lock", "save", "prepare"])
def test_without_the_store_no_refresh_token_is_spent(new_keeper, shelf, authority, clock, step):
    keeper = new_keeper()
    first = keeper.current()
    shelf.failing = lambda name: name == step
    clock.go_on(HOUR - 30)
    assert keeper.current() == first
    clock.go_on(31)
    with pytest.raises(errors.StoreError):
        keeper.current()
    assert authority.presented == ["refresh-0"]
    shelf.failing = lambda name: False
    assert keeper.current().access_token == "access-2"


@pytest.mark.parametrize("step", ["load", "lock", "save"])
def test_without_the_store_credentials_that_are_not_spent_are_presented(
    new_keeper, shelf, clock, step
):
    source = Machinist()
    keeper = new_keeper(source)
    keeper.current()
    shelf.failing = lambda name: name == step
    clock.go_on(HOUR)
    assert keeper.current().access_token == "access-2"
    assert keeper.current().access_token == "access-2"


def test_without_the_store_a_failure_makes_this_process_back_off(new_keeper, shelf, clock):
    source = Machinist()
    source.script = [errors.RefreshTemporarilyFailed("down", processed=False)]
    shelf.failing = lambda name: True
    keeper = new_keeper(source)
    for _ in range(3):
        with pytest.raises(errors.RefreshTemporarilyFailed):
            keeper.current()
    assert len(source.presented) == 1
    clock.go_on(5)
    assert keeper.current().access_token == "access-1"


def test_a_new_token_that_cannot_be_saved_is_used_and_saved_later(
    new_keeper, shelf, authority, clock
):
    events: list[Any] = []
    keeper = new_keeper(on_event=events.append)
    first = keeper.current()
    intent_written, sleeping, disk_full = threading.Event(), threading.Event(), threading.Event()

    def failing(step: str) -> bool:
        if step != "save":
            return False
        if not intent_written.is_set():
            intent_written.set()
            return False
        return not disk_full.is_set()

    def sleep(seconds: float) -> None:
        sleeping.set()
        assert disk_full.wait(10)

    shelf.failing = failing
    clock.sleep = sleep
    second = keeper.renew(first)
    assert second.access_token == "access-2"
    assert sleeping.wait(10)
    assert document(shelf)["token"]["access_token"] == "access-1"
    assert keeper.current() == second
    with pytest.raises(errors.TokenNotPersisted):
        keeper.renew(second)
    disk_full.set()
    settle(keeper)
    assert document(shelf)["token"]["access_token"] == "access-2"
    assert [type(event).__name__ for event in events].count("SaveFailed") == 1
    assert authority.presented == ["refresh-0", "refresh-1"]


def test_a_process_that_ends_with_an_unsaved_token_logs_its_loss(
    new_keeper, shelf, authority, clock
):
    events: list[Any] = []
    keeper = new_keeper(on_event=events.append)
    first = keeper.current()
    writes = iter([False])
    shelf.failing = lambda step: step == "save" and next(writes, True)
    clock.is_exiting = True
    assert keeper.renew(first).access_token == "access-2"
    settle(keeper)
    assert [event.lost for event in events if type(event).__name__ == "SaveFailed"] == [False, True]
    assert 3 < sum(clock.slept) < 12


def test_inline_renewals_run_in_the_calling_thread(new_keeper, authority, clock):
    threads: list[int] = []
    authority.asking = lambda: threads.append(threading.get_ident())
    keeper = new_keeper(inline=True)
    keeper.current()
    clock.go_on(HOUR - 300)
    second = keeper.current()
    assert second.access_token == "access-2"
    keeper.renew(second)
    assert threads == [threading.get_ident()] * 3


def test_an_inline_caller_does_not_wait_for_others_while_the_token_is_stale(
    new_keeper, shelf, authority, clock
):
    keeper = new_keeper(inline=True)
    first = keeper.current()
    clock.go_on(HOUR - 300)
    assert shelf.lock().acquire(60)
    assert keeper.current() == first
    assert authority.presented == ["refresh-0"]
    assert clock.slept == []


def test_an_inline_caller_gives_up_a_failing_save_and_logs_it(new_keeper, shelf, authority, clock):
    events: list[Any] = []
    keeper = new_keeper(on_event=events.append, inline=True)
    first = keeper.current()
    writes = iter([False])
    shelf.failing = lambda step: step == "save" and next(writes, True)
    assert keeper.renew(first).access_token == "access-2"
    assert [event.lost for event in events if type(event).__name__ == "SaveFailed"] == [False, True]
    assert keeper.current().access_token == "access-2"


def test_an_emptied_store_is_restored_by_a_process_that_remembers_the_record(
    new_keeper, shelf, authority
):
    keeper = new_keeper()
    first = keeper.current()
    shelf.slot = None
    assert keeper.renew(first).access_token == "access-2"
    assert authority.presented == ["refresh-0", "refresh-1"]


@pytest.mark.parametrize("renewals", [3, 40])
@pytest.mark.parametrize("mishap", ["the record is deleted", "a backup is restored"])
def test_after_any_number_of_renewals_a_process_that_slept_presents_nothing(
    authority, clock, tmp_path, renewals, mishap
):
    """Only the last 32 spent refresh tokens are remembered."""
    path = tmp_path / "token.json"
    sleeper, other, newcomer = (
        TokenKeeper(authority, FileStore(path), runtime=clock) for _ in range(3)
    )
    token = sleeper.renew(sleeper.renew(sleeper.current()))
    backup = path.read_bytes()
    latest = token
    for _ in range(renewals):
        latest = other.renew(latest)
    presented = [*authority.presented]
    if mishap == "the record is deleted":
        path.unlink()
    else:
        path.write_bytes(backup)
    for keeper in (sleeper, newcomer):
        with pytest.raises(errors.ReauthRequired) as caught:
            keeper.renew(token)
        assert caught.value.reason == "store_lost"
    assert authority.presented == presented


def test_a_forced_renewal_does_not_prevent_restoring_an_emptied_store(new_keeper, shelf, authority):
    keeper, newcomer = new_keeper(), new_keeper()
    authority.first = None
    first = keeper.adopt({"access_token": "adopted", "refresh_token": "refresh-0"})
    shelf.slot = None
    with pytest.raises(errors.ReauthRequired):
        newcomer.refresh()
    assert keeper.renew(first).access_token == "access-1"


def test_a_forced_function_does_not_begin_again_after_another_has_begun(
    new_keeper, shelf, authority, clock
):
    def function(previous: Token | None) -> Any:
        return authority.fetch(authority.credentials(previous)[0], previous)

    forced, other = new_keeper(function), new_keeper(function)
    authority.script = [errors.RefreshTemporarilyFailed("503", processed=False)] * 2
    for attempt in (forced.current, forced.refresh):
        with pytest.raises(errors.RefreshTemporarilyFailed):
            attempt()
    backup = shelf.slot
    clock.go_on(HOUR)
    other.current()
    shelf.slot = backup
    with pytest.raises(errors.ReauthRequired, match="has returned a refresh token before"):
        forced.current()
    assert authority.presented == ["refresh-0"] * 3


def test_no_refresh_token_is_spent_twice_after_the_store_was_set_back(
    new_keeper, shelf, authority, clock
):
    keeper, fresh = new_keeper(), new_keeper()
    keeper.current()
    backup = shelf.slot
    clock.go_on(HOUR)
    keeper.current()
    shelf.slot = backup
    clock.go_on(HOUR)
    assert keeper.current().access_token == "access-3"
    assert authority.presented == ["refresh-0", "refresh-1", "refresh-2"]
    # A process without a memory uses the record that it wrote.
    assert fresh.current().access_token == "access-3"
    assert document(shelf)["token"]["access_token"] == "access-3"


def test_a_store_that_was_set_back_is_restored_by_a_process_that_remembers_the_record(
    new_keeper, shelf, authority, clock
):
    keeper = new_keeper()
    first = keeper.current()
    backup = shelf.slot
    clock.go_on(HOUR)
    second = keeper.current()
    lost = shelf.slot[0]
    shelf.slot = backup
    # The API refuses a token that another process has replaced: one look at the store is enough.
    assert keeper.renew(first) == second
    clock.go_on(HOUR - 300)
    authority.script = [errors.RefreshTemporarilyFailed("later", processed=False)]
    keeper.current()
    settle(keeper)
    assert document(shelf)["token"] == lost["token"]
    assert new_keeper().current() == second


@pytest.mark.parametrize("is_emptied", [True, False])
def test_a_remembered_token_is_written_back_at_the_next_look(
    new_keeper, shelf, authority, clock, is_emptied
):
    keeper, other = new_keeper(), new_keeper()
    first = keeper.current()
    backup = None if is_emptied else shelf.slot
    clock.go_on(60)
    second = other.renew(first)
    keeper._slot.look()  # the keeper sees the renewal, but its holder keeps the first token
    shelf.slot = backup
    assert keeper.renew(first) == second
    assert document(shelf)["token"]["access_token"] == second.access_token
    assert authority.count == 2


def test_no_caller_waits_because_of_a_record_to_which_the_store_was_set_back(
    new_keeper, shelf, authority, clock
):
    waiter, keeper = new_keeper(), new_keeper()
    keeper.current()
    backup = shelf.slot
    clock.go_on(HOUR)
    second = keeper.current()
    assert waiter.current() == second
    assert second.expires_at is not None
    shelf.slot = backup
    # An older token does not count as a renewal.
    assert waiter.renew(second).access_token == "access-3"
    assert authority.presented == ["refresh-0", "refresh-1", "refresh-2"]


def test_an_intent_in_a_record_to_which_the_store_was_set_back_is_respected(
    new_keeper, lapsing, clock
):
    """The server keeps its refresh token, so that the lost record has the same one."""

    class Keeping(Authority):
        def issue(self) -> dict[str, Any]:
            answer, self.live = super().issue(), "refresh-0"
            return {**answer, "refresh_token": self.live}

    keeping = Keeping()
    keeper = new_keeper(keeping, lock_timeout=BELIEVED - 1)
    keeper.current()
    backup = lapsing.slot
    clock.go_on(HOUR)
    second = keeper.current()
    lapsing.slot = backup
    clock.go_on(HOUR)
    newcomer = new_keeper(keeping)
    got = while_asking(keeping, lapsing, lambda: keeper.renew(second))
    third = newcomer.current()
    assert [type(error) for error in got] == [errors.LockTimeout]
    assert keeping.presented == ["refresh-0"] * 3
    assert keeper.renew(second) == third


def test_forget_removes_the_newest_token_even_if_the_store_was_set_back(new_keeper, shelf, clock):
    keeper = new_keeper()
    keeper.current()
    backup = shelf.slot
    clock.go_on(HOUR)
    second = keeper.current()
    shelf.slot = backup
    revoked = []
    assert keeper.forget(revoked.append) == second
    assert revoked == [second]
    assert "token" not in document(shelf)


def test_adopt_keeps_spent_credentials_that_the_store_has_lost(new_keeper, shelf, authority, clock):
    keeper = new_keeper()
    backup = keeper.current() and shelf.slot
    clock.go_on(HOUR)
    keeper.adopt(authority.issue())
    keeper.refresh()
    shelf.slot, shelf.spent = backup, set()
    with pytest.raises(errors.RefreshConfigError, match="was already spent by an earlier renewal"):
        keeper.adopt({"access_token": "again", "refresh_token": "refresh-2"})
    keeper.adopt({"access_token": "other", "refresh_token": "refresh-9"})
    assert document(shelf)["token"]["refresh_token"] == "refresh-9"
    assert len(document(shelf)["spent"]) == 2


def test_no_first_refresh_token_is_spent_twice_after_the_store_was_emptied(
    new_keeper, shelf, authority
):
    new_keeper().current()
    shelf.slot = None
    with pytest.raises(errors.ReauthRequired) as info:
        new_keeper().current()
    assert info.value.reason == "store_lost"
    assert authority.presented == ["refresh-0"]


def test_without_token_and_credential_a_login_is_required(new_keeper):
    with pytest.raises(errors.ReauthRequired, match="adopt") as info:
        new_keeper(Authority(first=None)).current()
    assert info.value.reason == "no_credential"


def test_the_first_visit_of_a_user_without_a_login_is_an_error_for_the_caller_alone(
    new_keeper, caplog
):
    events: list[Any] = []
    keeper = new_keeper(Authority(first=None), on_event=events.append)
    with caplog.at_level(logging.INFO), pytest.raises(errors.ReauthRequired):
        keeper.current()
    assert [(event.reason, event.level) for event in events] == [("no_credential", logging.INFO)]
    assert caplog.records == []


def test_an_old_remembered_record_does_not_present_a_spent_refresh_token(
    new_keeper, shelf, authority
):
    one, other = new_keeper(), new_keeper()
    first = one.current()
    assert other.current() == first
    second = one.renew(first)
    shelf.slot = None
    with pytest.raises(errors.ReauthRequired) as info:
        other.renew(first)
    assert info.value.reason == "store_lost"
    assert one.renew(second).access_token == "access-3"
    assert other.renew(first).access_token == "access-3"
    assert authority.presented == ["refresh-0", "refresh-1", "refresh-2"]


def test_a_token_in_memory_only_is_new_to_its_callers(new_keeper, shelf, clock):
    keeper = new_keeper(Machinist())
    keeper.current()
    clock.go_on(HOUR)
    shelf.failing = lambda step: True
    counts = dict(keeper.stats)
    outcome = keeper.obtain()
    assert (outcome.is_new, outcome.minted) == (True, True)
    assert keeper.stats == counts | {"StoreFailed": 1, "Waited": 2}


def test_an_unsaved_token_is_new_to_its_callers(new_keeper, shelf, authority, clock):
    keeper = new_keeper()
    keeper.current()
    clock.go_on(HOUR)
    may_save = threading.Event()
    authority.asking = lambda: setattr(shelf, "failing", lambda step: step == "save")
    clock.sleep = lambda seconds: may_save.wait(10)
    outcome = keeper.obtain()
    counts = dict(keeper.stats)
    shelf.failing = lambda step: False
    may_save.set()
    settle(keeper)
    assert (outcome.is_new, outcome.minted) == (True, True)
    assert counts == {"RenewalStarted": 2, "Renewed": 1, "SaveFailed": 1, "Waited": 2}


def test_the_outcome_of_a_renewal_by_another_process_is_new(new_keeper, shelf, clock):
    keeper, other = new_keeper(), new_keeper()
    first = keeper.current()
    other.renew(first)
    assert keeper.obtain(first).is_new is False  # it was stored before
    shelf.holder = shelf.lock()
    sleep = clock.sleep

    def sleep_and_renew(seconds):
        clock.sleep = sleep
        shelf.holder = None
        other.renew(keeper.current())

    clock.sleep = sleep_and_renew
    outcome = keeper.obtain(keeper.current())
    assert (outcome.token.access_token, outcome.is_new) == ("access-3", True)
    keeper.distrust(outcome.token)
    distrusted = keeper.obtain(outcome.token)
    assert (distrusted.is_new, distrusted.distrusted) == (False, True)


def test_a_waiting_process_looks_less_and_less_often_and_reports_its_wait(new_keeper, shelf, clock):
    shelf.holder = shelf.lock()
    with pytest.raises(
        errors.LockTimeout,
        match=r"^Other threads or .* the lock of Shelf\(\), or waited .* for 1\.0",
    ):
        new_keeper(lock_timeout=1.0).current()
    # Three quarters of each pause, by the fixed jitter.
    expected = [0.75 * min(0.01 * 1.5**n, 0.05) for n in range(len(clock.slept))]
    assert clock.slept == pytest.approx(expected)
    assert len(clock.slept) > 20


def test_a_waiting_process_checks_once_per_record_whether_its_refresh_token_was_spent(
    new_keeper, shelf, clock, monkeypatch
):
    new_keeper().current()
    clock.go_on(HOUR)
    requested: list[str] = []
    monkeypatch.setattr(shelf, "was_spent", requested.append)
    shelf.holder = shelf.lock()
    with pytest.raises(errors.LockTimeout):
        new_keeper(lock_timeout=1.0).current()
    assert len(clock.slept) > 20
    assert len(requested) == 1


@pytest.mark.parametrize("slow", ["load", "lock"])
def test_a_waiting_process_pauses_for_as_long_as_a_slow_store_took(new_keeper, shelf, clock, slow):
    shelf.failing = lambda step: step == slow and clock.go_on(0.2)
    shelf.holder = shelf.lock()
    with pytest.raises(errors.LockTimeout):
        new_keeper(lock_timeout=1.0).current()
    assert clock.slept == pytest.approx([0.2] * 3)


def test_with_glimpses_a_waiting_process_reads_only_changed_slots(new_keeper, shelf, clock):
    new_keeper().current()
    clock.go_on(HOUR)
    shelf.holder = shelf.lock()
    shelf.glimpse = lambda: shelf.slot[1]
    steps: list[str] = []
    shelf.failing = steps.append

    def sleep(seconds: float) -> None:
        Clockwork.sleep(clock, seconds)
        if len(clock.slept) == 40:
            document, _ = shelf.slot
            token = {**document["token"], "access_token": "theirs", "expires_at": clock.now + HOUR}
            shelf.slot = {**document, "token": token}, "99-theirs"

    clock.sleep = sleep
    assert new_keeper().current().access_token == "theirs"
    # The change is noticed at once, by a glimpse within the pause.
    assert len(clock.slept) == 40
    assert max(clock.slept) == 0.005
    # A dead holder is noticed all the same, since the lock is tried at each pause.
    assert steps.count("load") == 2
    assert 5 <= steps.count("lock") < 20


def test_a_holder_that_dies_without_writing_is_replaced_after_the_next_pause(
    new_keeper, shelf, clock
):
    new_keeper().current()
    clock.go_on(HOUR)
    shelf.holder = shelf.lock()
    shelf.glimpse = lambda: shelf.slot[1]

    def sleep(seconds: float) -> None:
        Clockwork.sleep(clock, seconds)
        if len(clock.slept) == 40:
            shelf.holder = None

    clock.sleep = sleep
    assert new_keeper().current().access_token == "access-2"
    assert 40 <= len(clock.slept) < 40 + 0.05 / 0.005


def test_a_token_is_saved_to_a_store_that_was_emptied_during_the_renewal(
    new_keeper, shelf, authority
):
    authority.asking = lambda: setattr(shelf, "slot", None)
    assert new_keeper().current().access_token == "access-1"
    assert document(shelf)["token"]["access_token"] == "access-1"


def test_a_stored_token_that_expires_during_its_renewal_causes_no_second_renewal(
    new_keeper, shelf, clock
):
    source = Machinist()
    keeper = new_keeper(source)
    keeper.current()
    clock.go_on(HOUR)
    source.asking = lambda: setattr(shelf, "slot", None)
    assert keeper.current().access_token == "access-2"
    assert len(source.presented) == 2


def test_a_token_that_is_saved_to_an_emptied_store_keeps_the_beginning_of_its_grant(
    new_keeper, shelf, authority
):
    """Also if the process remembers no record: it has looked for one to forget."""
    keeper = new_keeper()
    first = keeper.current()

    def forgotten() -> None:
        shelf.slot = shelf.holder = None
        forgetting = threading.Thread(target=keeper.forget)
        forgetting.start()
        forgetting.join(10)
        assert not forgetting.is_alive()

    authority.asking = forgotten
    second = keeper.renew(first)
    assert document(shelf)["token"]["access_token"] == "access-2"
    assert new_keeper().current() == second


def test_if_the_lock_is_lost_after_the_intent_the_intent_is_withdrawn(new_keeper, shelf, authority):
    keeper = new_keeper(lock_timeout=1.0)
    shelf.prepare = lambda: setattr(shelf, "holder", None)
    with pytest.raises(errors.LockTimeout):
        keeper.current()
    settle(keeper)
    assert "intent" not in document(shelf)
    assert authority.presented == []


def test_a_wrong_password_is_presented_once_even_without_the_store(new_keeper, shelf, clock):
    class Login(Machinist):
        def credentials(self, previous):
            return [Credential("password", "joe\0wrong", refusal_is_final=True)]

    source = Login()
    source.script = [errors.ReauthRequired("wrong password")] * 9
    shelf.failing = lambda step: True
    keeper = new_keeper(source)
    for _ in range(5):
        with pytest.raises(errors.ReauthRequired):
            keeper.current()
        clock.go_on(HOUR)
    assert len(source.presented) == 1


def test_a_failing_store_is_logged_once(new_keeper, shelf, clock):
    emitted = []
    keeper = new_keeper(Machinist(), on_event=emitted.append)
    shelf.failing = lambda step: step == "lock"
    for _ in range(3):
        keeper.current()
        clock.go_on(HOUR)
    assert keeper.stats["StoreFailed"] == 1
    assert "lock fails in this test" in str(emitted[0])


def test_keepers_of_one_grant_share_their_memory(clock, authority):
    one, other = TokenKeeper(authority, runtime=clock), TokenKeeper(authority, runtime=clock)
    assert one.current() == other.current()
    assert authority.presented == ["refresh-0"]


# --- the owner of a token --------------------------------------------------------------------


def test_a_record_of_another_owner_is_refused_and_kept(new_keeper, shelf):
    new_keeper().current()
    before = shelf.slot
    stranger = Authority(first="theirs")
    stranger.owner = {"endpoint": "https://other.example.com/token", "client": "them"}
    with pytest.raises(errors.RefreshConfigError, match=r"id\.example\.com.*other\.example\.com"):
        new_keeper(stranger).current()
    with pytest.raises(errors.RefreshConfigError):
        new_keeper(stranger).adopt({"access_token": "theirs"})
    assert shelf.slot == before
    assert stranger.presented == []


def test_a_change_of_scope_is_accepted_once(new_keeper, clock):
    reader, writer = Machinist(), Machinist()
    reader.requested, writer.requested = {"scope": "read"}, {"scope": "write"}
    one = new_keeper(reader)
    token = one.current()
    clock.go_on(1)
    new_keeper(writer).current()
    assert writer.presented == ["client"]
    with pytest.raises(errors.RefreshConfigError, match=r"'read'.*'write'"):
        one.renew(token)
    assert reader.presented == ["client"]
    clock.go_on(HOUR)
    assert one.current().access_token == "access-2"


def test_three_programs_with_different_requests_do_not_renew_for_ever(new_keeper, clock):
    sources = [Machinist() for _ in range(3)]
    for source, scope in zip(sources, "abc", strict=True):
        source.requested = {"scope": scope}
    for _ in range(10):
        for source in sources:
            with contextlib.suppress(errors.RefreshConfigError):
                new_keeper(source).current()
            clock.go_on(10)
    # Each of them has started since, and may replace the token once.
    assert [len(source.presented) for source in sources] == [2, 2, 2]
    with pytest.raises(errors.RefreshConfigError, match=r"^Programs that share Shelf\(\) request"):
        new_keeper(sources[0]).current()


def test_a_blank_record_of_another_owner_is_ignored(new_keeper):
    misspelt = Authority()
    misspelt.owner = {"client": "biling"}
    misspelt.script = [errors.RefreshConfigError("unknown client", error="invalid_client")]
    with pytest.raises(errors.RefreshConfigError):
        new_keeper(misspelt).current()
    assert new_keeper().current().access_token == "access-1"


def test_a_stored_token_of_the_same_account_with_another_first_token_is_logged(new_keeper):
    def of_ada(first):
        source = Authority(first=first)
        source.owner = {**source.owner, "user": "ada"}
        return new_keeper(source)

    token = of_ada("refresh-0").current()
    same, another = of_ada("refresh-0"), of_ada("refresh-of-a-later-login")
    for keeper in (same, another):
        keeper.grant.live = token.refresh_token
        token = keeper.renew(token)
    assert "FirstTokenUnused" not in same.stats
    assert another.stats["FirstTokenUnused"] == 1


def test_credentials_are_looked_up_only_when_a_renewal_is_due(new_keeper):
    fresh = new_keeper().current()
    late = Authority()
    late.live = "refresh-1"
    lookups = []
    late.credentials = lambda previous: (
        lookups.append(previous) or Authority.credentials(late, previous)
    )
    keeper = new_keeper(late)
    assert keeper.current() == fresh
    assert lookups == []
    assert keeper.renew(fresh) != fresh
    assert lookups


def test_a_credential_that_cannot_be_looked_up_spends_nothing(new_keeper, authority):
    def credentials(previous):
        raise errors.RefreshConfigError("The password manager is locked.", is_local=True)

    keeper = new_keeper()
    fresh = keeper.current()
    authority.credentials = credentials
    assert keeper.current() == fresh
    with pytest.raises(errors.RefreshConfigError, match="locked"):
        keeper.renew(fresh)
    del authority.credentials
    assert keeper.renew(fresh) != fresh
    assert authority.presented == ["refresh-0", "refresh-1"]


# --- adopting, copying -----------------------------------------------------------------------


def test_adopt_takes_tokens_and_mappings(new_keeper, authority, clock):
    keeper = new_keeper()
    adopted = keeper.adopt({"access_token": "a", "expires_at": clock.now + 100})
    assert keeper.current() == adopted
    assert new_keeper().current() == adopted
    keeper.adopt(Token("b", refresh_token="r", issued_at=clock.now))
    assert new_keeper().current().access_token == "b"
    assert authority.presented == []


def test_an_expired_adopted_token_is_renewed_and_its_predecessor_is_not_used(
    new_keeper, authority, clock
):
    keeper = new_keeper()
    before = keeper.current()
    login = authority.issue()
    keeper.adopt({**login, "expires_in": None, "expires_at": clock.now - 1})
    renewed = keeper.current()
    assert renewed.access_token not in (before.access_token, login["access_token"])
    assert authority.presented[-1] == login["refresh_token"]


def test_a_spent_refresh_token_is_not_adopted_again(new_keeper, authority, shelf):
    keeper = new_keeper(Authority(first=None))
    old_cache = {"access_token": "old", "refresh_token": "refresh-0", "expires_in": HOUR}
    keeper.source.live = "refresh-0"
    keeper.adopt(old_cache)
    keeper.adopt(old_cache)
    second = keeper.renew(keeper.current())
    for slot in (shelf.slot, None):
        shelf.slot = slot
        with pytest.raises(errors.RefreshConfigError, match=r"spent .* renewal in Shelf\(\)\. "):
            keeper.adopt(old_cache)
    assert keeper.current() == second


def test_a_read_from_before_an_adoption_does_not_undo_it(new_keeper, shelf, clock):
    keeper = new_keeper()
    keeper.current()
    load, old = shelf.load, shelf.load()

    def read_before_and_return_after():
        if threading.current_thread() is not threading.main_thread() and not adopted.is_set():
            adopted.set()
            shelf.load = load
            clock.go_on(0.001)
            thread = threading.Thread(
                target=keeper.adopt, args=(Token("new", issued_at=clock.now),)
            )
            thread.start()
            thread.join()
            return old
        return load()

    adopted = threading.Event()
    shelf.load = read_before_and_return_after
    clock.go_on(HOUR - 300)
    keeper.current()
    settle(keeper)
    assert keeper.current().access_token == "new"


def test_a_renewal_right_after_an_adoption_keeps_its_token(new_keeper, shelf, authority, clock):
    keeper = new_keeper()
    keeper.current()
    login = authority.issue()
    renewed: list[Token] = []

    def renew() -> None:
        keeper.look()
        renewed.append(keeper.renew(keeper.current()))

    class FirstRelease(ShelfLock):
        def release(self) -> None:
            del shelf.lock  # of the instance
            super().release()
            clock.go_on(0.001)
            thread = threading.Thread(target=renew)
            thread.start()
            thread.join()

    shelf.lock = lambda: FirstRelease(shelf)
    keeper.adopt(login)
    shelf.failing = lambda step: True
    assert renewed == [keeper.current()]


def test_adopt_raises_if_the_token_cannot_be_saved(new_keeper, shelf):
    keeper = new_keeper()
    shelf.failing = lambda step: step == "save"
    with pytest.raises(errors.TokenNotPersisted, match="not used: save fails in this test Call"):
        keeper.adopt({"access_token": "a"})
    assert keeper.fresh() is None


def test_an_adopted_token_has_its_event_and_the_time_of_the_store(new_keeper, shelf, clock):
    keeper = new_keeper()
    keeper.current()
    shelf.ahead = 100.0
    adopted = keeper.adopt(Token("abc", issued_at=clock.now - 10, expires_at=clock.now + 3000))
    assert (adopted.issued_at, adopted.expires_at) == (clock.now + 90, clock.now + 3100)
    assert keeper.current() == adopted
    assert keeper.stats == {"RenewalStarted": 1, "Renewed": 1, "Waited": 1, "Adopted": 1}


def test_a_slow_store_makes_no_adopted_token_younger(new_keeper, shelf, clock):
    keeper = new_keeper()
    shelf.failing = lambda step: clock.go_on(3 * (step == "load"))
    adopted = keeper.adopt(Token("abc", issued_at=clock.now, expires_at=clock.now + 3000))
    assert adopted.expires_at <= clock.now - 3 + 3000


def test_forgetting_an_empty_slot_keeps_an_intent(new_keeper, authority, shelf):
    authority.script = [errors.RefreshTemporarilyFailed("cut off")]
    keeper = new_keeper()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()
    assert keeper.forget() is None
    assert document(shelf)["intent"]["attempt"] == 1


def test_adopt_clears_only_the_refusal_of_the_adopted_refresh_token(new_keeper, shelf, authority):
    keeper = new_keeper()
    choice = keeper._renewal._eligibility
    dead = [Credential("refresh_token", name, True, False, True) for name in ("one", "two")]
    no = errors.ReauthRequired("no")

    def refuse():
        for credential in dead:
            choice.remember_refusal(shelf_record, credential, no)

    def refused():
        view = keeper._slot.look()
        return [credential for credential in dead if choice.objection(view, credential)]

    keeper.current()
    shelf_record = keeper._slot.look().record
    refuse()
    keeper.adopt({"access_token": "abc", "refresh_token": "one"})
    assert refused() == dead[1:]
    refuse()
    keeper.adopt({"access_token": "abc"})
    assert refused() == dead


def test_a_change_waits_for_the_lock(new_keeper, shelf, clock):
    keeper = new_keeper()
    shelf.holder = shelf.lock()
    sleep = clock.sleep

    def sleep_and_see(seconds):
        sleep(seconds)
        if len(clock.slept) == 3:
            shelf.holder = None

    clock.sleep = sleep_and_see
    keeper.adopt({"access_token": "abc"})
    assert len(clock.slept) == 3
    assert document(shelf)["token"]["access_token"] == "abc"


def test_a_change_that_changes_nothing_is_not_written(new_keeper, shelf):
    keeper = new_keeper()
    keeper.current()
    writes = len(shelf.writes)
    keeper.distrust(Token("of long ago", issued_at=1.0))
    assert len(shelf.writes) == writes
    shelf.slot = None
    assert keeper.forget().access_token == "access-1"
    assert shelf.slot is None


def test_locks_are_acquired_for_as_long_as_their_work_may_take(new_keeper, shelf, authority):
    requested, acquire = [], type(shelf.lock()).acquire

    class Lock(type(shelf.lock())):
        def acquire(self, hold_for):
            requested.append(hold_for)
            return acquire(self, hold_for)

    shelf.lock = lambda: Lock(shelf)
    keeper = new_keeper()
    keeper.current()
    keeper.adopt({"access_token": "abc"})
    keeper.forget(lambda token: None)
    # A renewal may send two requests; adopt sends none.
    # Without a grace, an answer may come later than the deadline.
    longest = authority.deadline + 60 + 10
    assert requested == [longest, 10, longest]


def test_refresh_renews_the_stored_token_before_the_first_use(new_keeper, authority):
    new_keeper().current()
    assert new_keeper().refresh().access_token == "access-2"
    assert authority.presented == ["refresh-0", "refresh-1"]


def test_late_secrets_are_not_read_for_a_valid_token(new_keeper, authority):
    token = new_keeper().current()
    authority.is_late = True
    authority.credentials = lambda previous: pytest.fail("looked up")
    assert new_keeper().current() == token


def test_without_the_store_nothing_is_renewed_in_the_background(new_keeper, shelf, clock):
    machinist = Machinist()
    keeper = new_keeper(machinist)
    first = keeper.current()
    clock.go_on(HOUR - 300)
    shelf.failing = lambda step: True
    assert keeper.current() == first
    settle(keeper)
    assert machinist.count == 1


def test_refresh_takes_a_token_that_another_process_has_renewed(new_keeper, authority, clock):
    keeper, other = new_keeper(), new_keeper()
    first = keeper.current()
    second = other.renew(first)
    assert keeper.refresh() == second
    assert authority.count == 2
    assert keeper.refresh().access_token == "access-3"


# --- how long callers wait ---------------------------------------------------------------------


@pytest.mark.parametrize("way", ["current", "renew", "refresh"])
def test_a_caller_waits_for_its_own_timeout(new_keeper, authority, way):
    keeper = new_keeper()
    first = keeper.current() if way != "current" else None
    answer = threading.Event()
    authority.asking = lambda: answer.wait(10)
    call = partial(getattr(keeper, way), *([first] if way == "renew" else []))
    with pytest.raises(errors.LockTimeout, match=r"within 0\.0 s"):
        call(timeout=0.01)
    answer.set()
    settle(keeper)
    assert keeper.current().access_token == f"access-{authority.count}"


def test_a_caller_with_more_time_outlasts_one_that_gave_up_on_the_lock(
    new_keeper, shelf, clock, authority
):
    keeper = new_keeper(lock_timeout=1.0)
    holder = shelf.lock()
    assert holder.acquire(60)
    # The run that it joined gives up, and there is time for another.
    expire, clock.sleep = clock.sleep, lambda seconds: None
    lapses = iter([0.0, 0.0, 2.0])

    def sleep(seconds: float) -> None:
        expire(next(lapses, 0.0))
        if clock.ticks > 501:
            holder.release()

    clock.sleep = sleep
    keeper.lock_timeout = 60.0
    assert keeper.obtain().token.access_token == "access-1"
    assert authority.presented == ["refresh-0"]


def test_a_process_that_lost_the_race_retries_after_a_twentieth_of_the_soft_window(
    new_keeper, shelf, clock
):
    keeper = new_keeper()
    keeper.current()
    assert shelf.lock().acquire(60)
    looks: list[float] = []
    load = shelf.load

    def counted() -> Any:
        looks.append(clock.ticks)
        return load()

    shelf.load = counted
    clock.go_on(HOUR - 500)
    for _ in range(120):
        keeper.current()
        settle(keeper)
        clock.go_on(1)
    pauses = [later - earlier for earlier, later in pairwise(looks)]
    soft, hard = windows(HOUR, clock.dice)
    assert set(pauses) == {ceil((soft - hard) / 20)}


# --- events and log ------------------------------------------------------------------------------


def test_a_failure_is_emitted_once_until_a_success(new_keeper, authority, clock):
    events: list[Any] = []
    keeper = new_keeper(on_event=events.append)
    down = errors.RefreshTemporarilyFailed("It is down.", processed=False)
    authority.script = [down, down]
    for _ in range(3):
        with pytest.raises(errors.RefreshTemporarilyFailed):
            keeper.current()
    clock.go_on(60)
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()
    (failed,) = [event for event in events if type(event).__name__ != "RenewalStarted"]
    assert type(failed).__name__ == "RenewalFailed"
    assert "It is down." in failed.error
    assert failed.retry_at == clock.now - 60 + 5
    clock.go_on(60)
    keeper.current()
    authority.script = [down]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.renew(keeper.current())
    assert [type(event).__name__ for event in events].count("RenewalFailed") == 2


def test_a_failure_is_raised_or_logged_and_not_both(new_keeper, authority, clock, caplog):
    keeper = new_keeper()
    down = errors.RefreshTemporarilyFailed("It is down.", processed=False)
    authority.script = [down]
    with pytest.raises(errors.RefreshTemporarilyFailed, match="It is down"):
        keeper.current()
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    assert keeper.stats["RenewalFailed"] == 1
    clock.go_on(60)
    keeper.current()
    clock.go_on(HOUR - 30)  # the old token is valid, so no caller gets an error
    authority.script = [down]
    keeper.current()
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "It is down." in record.getMessage()


def test_a_required_login_is_logged_with_its_reason_once_per_login(new_keeper, authority, clock):
    events: list[Any] = []
    keeper = new_keeper(on_event=events.append)
    for _ in range(2):
        authority.revoked = True
        with pytest.raises(errors.ReauthRequired):
            keeper.current()
        with pytest.raises(errors.ReauthRequired):
            keeper.current()
        authority.revoked = False
        adopted = keeper.adopt({**authority.issue(), "expires_in": 1})
        assert events[-1].token == adopted.fingerprint
        clock.go_on(2)
    needed = [event for event in events if type(event).__name__ == "ReauthNeeded"]
    assert [event.reason for event in needed] == ["invalid_grant"] * 2
    assert "invalid_grant" in needed[0].error


def test_the_events_of_two_slots_and_their_lines_in_the_log_name_the_slot(new_keeper, caplog):
    caplog.set_level(logging.DEBUG, "tokenadapter")
    events: list[Any] = []
    for store in (MemoryStore("user-1"), MemoryStore("user-2")):
        keeper = new_keeper(Authority(), store=store, on_event=events.append)
        keeper.adopt(keeper.renew(keeper.current()))
        assert len(events) > 3
        assert {event.store for event in events} == {repr(store)}
        assert [line.count(repr(store)) for line in caplog.messages] == [1] * len(events)
        events.clear()
        caplog.clear()


def test_a_token_found_in_the_store_is_logged_by_its_fingerprint(new_keeper):
    events: list[Any] = []
    one, other = new_keeper(), new_keeper(on_event=events.append)
    first = one.current()
    assert other.current() == first
    assert events == []
    second = one.renew(first)
    assert other.renew(first) == second
    (found,) = (event for event in events if type(event).__name__ == "Found")
    assert found.token == second.fingerprint
    other.renew(second)
    assert other.stats["Found"] == 1


def test_a_seed_that_cannot_be_looked_up_stops_no_grant_that_names_its_user(new_keeper):
    def seeds():
        raise errors.RefreshConfigError("The vault is down.", is_local=True)
        yield

    source = Authority()
    source.owner = {**source.owner, "user": "ada"}
    source.seeds = seeds
    keeper = new_keeper(source)
    keeper.adopt(Token("from-a-login", refresh_token="refresh-of-a-login"))
    source.live = "refresh-of-a-login"
    assert keeper.renew(keeper.current()).access_token == "access-1"


def test_a_first_token_that_was_used_before_is_not_reported(new_keeper):
    source = Authority()
    source.owner = {**source.owner, "user": "ada"}
    keeper = new_keeper(source)
    keeper.current()
    keeper.forget()
    other = Authority(first="refresh-of-a-login")
    other.owner = source.owner
    new_keeper(other).adopt(Token("from-a-login", refresh_token="refresh-of-a-login"))
    source.live = "refresh-of-a-login"
    again = new_keeper(source)
    again.renew(again.current())
    assert "FirstTokenUnused" not in again.stats


def test_a_token_that_was_adopted_with_the_same_configuration_is_not_reported(new_keeper):
    source = Authority()
    source.owner = {**source.owner, "user": "ada"}
    keeper = new_keeper(source)
    keeper.adopt(Token("from-a-login", refresh_token="refresh-of-a-login"))
    source.live = "refresh-of-a-login"
    keeper.renew(keeper.current())
    assert "FirstTokenUnused" not in keeper.stats


def test_a_configured_token_that_replaces_a_refused_one_is_not_reported(new_keeper):
    refused, source = Authority(), Authority(first="refresh-of-a-new-login")
    refused.owner = source.owner = {**source.owner, "user": "ada"}
    keeper = new_keeper(refused)
    token = keeper.current()
    refused.revoked = True
    with pytest.raises(errors.ReauthRequired):
        keeper.renew(token)
    other = new_keeper(source)
    source.count = 10
    other.renew(token)
    assert source.presented == ["refresh-of-a-new-login"]
    assert "FirstTokenUnused" not in other.stats


def test_an_unused_first_token_is_logged_once_with_the_store(new_keeper, authority):
    authority.owner = owner = {**authority.owner, "user": "ada"}
    new_keeper().current()
    events: list[Any] = []
    authority = Authority(first="another")
    authority.live = "refresh-1"
    authority.owner = owner
    keeper = new_keeper(authority, on_event=events.append)
    keeper.renew(keeper.current())
    unused = [event for event in events if type(event).__name__ == "FirstTokenUnused"]
    assert [event.store for event in unused] == ["Shelf()"]


def test_adopt_names_the_type_of_a_wrong_argument(new_keeper):
    with pytest.raises(TypeError, match="a Token or a mapping, not int"):
        new_keeper().adopt(42)


def test_adopting_within_a_renewal_does_not_wait_for_itself(new_keeper, authority):
    keeper = new_keeper()
    raised: list[Exception] = []

    def asking() -> None:
        try:
            keeper.adopt({"access_token": "another"})
        except errors.TokenError as error:
            raised.append(error)

    authority.asking = asking
    keeper.current()
    assert "from within the renewal in progress" in str(raised[0])


def a_token(previous: Token | None) -> str:
    return "plain"


def test_a_pickled_keeper_carries_settings_and_no_token():
    keeper = TokenKeeper(a_token, MemoryStore(), lock_timeout=7.0, inline=True)
    keeper.adopt({"access_token": "very-secret"})
    data = pickle.dumps(keeper)
    assert b"very-secret" not in data
    copy = pickle.loads(data)
    assert (copy.lock_timeout, copy.inline) == (7.0, True)
    assert copy.fresh() is None
    assert copy.current().access_token == "plain"


def test_a_setting_that_cannot_be_pickled_is_named(authority):
    def failure(source=len, **settings):
        with pytest.raises(pickle.PicklingError) as caught:
            pickle.dumps(TokenKeeper(source, **settings))
        return str(caught.value)

    text = failure(on_refresh=lambda token: None)
    assert text.startswith("The on_refresh of the TokenKeeper cannot be pickled: test_a_setting")
    assert text.endswith(
        "<lambda>. Pass a function of a module or a picklable object, or create the keeper in the "
        "other process."
    )
    assert "The source of the TokenKeeper cannot be pickled: Authority. Pass" in failure(authority)


def test_a_forked_child_starts_its_own_helper(new_keeper):
    keeper = new_keeper()
    keeper._after_fork()  # it has none yet
    goes_on = threading.Event()
    run = keeper._worker.flight.join(lambda run: goes_on.wait(30))
    keeper._after_fork()
    assert keeper.current().access_token == "access-1"
    goes_on.set()
    assert run.wait(30)


def test_a_view_from_before_another_renewal_is_not_reused(new_keeper, shelf, clock, authority):
    """Another process may have cleared the backoff."""
    authority.script = [errors.RefreshTemporarilyFailed("It is down.", processed=False)]
    keeper = new_keeper()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.current()
    seen = keeper._slot.look()
    keeper._worker.aside(lambda renewal: renewal.clear_refusals())
    find_under_way(keeper, lambda run: None)  # abandoned
    outcome = keeper._worker.join(RenewalRequest(), seen, clock.ticks + 30, 0.0)
    assert outcome.token.access_token == "access-1"


def test_a_caller_with_time_left_starts_another_run_after_a_timeout_of_the_first(new_keeper, clock):
    def ends(run: Any) -> None:
        raise errors.LockTimeout("It took too long.")

    keeper = new_keeper()
    find_under_way(keeper, ends)
    outcome = keeper._worker.join(RenewalRequest(), None, clock.ticks + 30, 0.0)
    assert outcome.token.access_token == "access-1"
    find_under_way(keeper, ends)
    with pytest.raises(errors.LockTimeout, match="It took too long"):
        keeper._worker.join(RenewalRequest(outcome.token), None, clock.ticks, 30.0)


def find_under_way(keeper: TokenKeeper, work: Callable[[Any], None]) -> None:
    """Make the next caller of a keeper join a run that does *work*."""
    flight = keeper._worker.flight
    runs, join = [flight.aside(work)], flight.join
    assert runs[0].wait(30)
    flight.join = lambda work: runs.pop() if runs else join(work)


def test_a_copied_process_does_not_spend_a_refresh_token_in_memory(clock, authority):
    keeper = TokenKeeper(authority, MemoryStore(), runtime=clock)
    first = keeper.current()
    keeper.store._slots.born[None] -= 1  # as seen by a forked child
    keeper._after_fork()
    assert keeper.current() == first
    with pytest.raises(errors.ReauthRequired, match="FileStore") as info:
        keeper.renew(first)
    assert info.value.reason == "private_copy"
    assert authority.presented == ["refresh-0"]


def test_plain_functions_may_return_text_mappings_and_tokens(new_keeper, clock):
    for answer in ("text", {"access_token": "text"}, Token("text", issued_at=clock.now)):
        keeper = new_keeper(lambda previous, answer=answer: answer, store=Shelf(clock))
        assert keeper.current().access_token == "text"


def test_the_error_of_a_failing_function_names_only_the_exception_type(new_keeper):
    def source(previous: Token | None) -> str:
        raise KeyError("a secret")

    with pytest.raises(errors.RefreshTemporarilyFailed, match="KeyError") as info:
        new_keeper(source).current()
    assert "a secret" not in str(info.value)
    assert isinstance(info.value.__cause__, KeyError)


@pytest.mark.parametrize("lease", [10.0, 12.5])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_lease_must_be_shorter_than_a_declared_grace(
    new_keeper, shelf, authority, lease, is_wrapped
):
    store: Any = shelf
    if is_wrapped:
        store = EncryptedStore(shelf, EncryptedStore.generate_key(), slot="me")
    authority.grace, shelf.lease = 10.0, lease
    advice = (
        f"^grace is 10 s, and the lease on the lock of .*Shelf.* is {lease:g} s: .* shorter than"
    )
    with pytest.raises(ValueError, match=advice):
        new_keeper(store=store)
    shelf.lease = 9.9
    new_keeper(store=store)


def test_without_a_grace_or_a_lease_any_combination_is_accepted(new_keeper, shelf, authority):
    shelf.lease = 60.0
    new_keeper()
    new_keeper(lambda previous: "abc")
    authority.grace = 10.0
    shelf.lease = None
    new_keeper()
    del shelf.lease
    new_keeper()
    new_keeper(store=EncryptedStore(shelf, EncryptedStore.generate_key(), slot="me"))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"on_refresh": 5}, TypeError, "^on_refresh must be a function, not of type int$"),
        ({"on_event": "x"}, TypeError, "^on_event must be a function, not of type str$"),
        ({"lock_timeout": True}, TypeError, "^lock_timeout must be a number of seconds, not True$"),
        ({"lock_timeout": "5"}, TypeError, "^lock_timeout must be a number of seconds, not '5'$"),
        ({"lock_timeout": 0}, ValueError, "^lock_timeout must be greater than 0 seconds, not 0$"),
    ],
)
def test_an_invalid_setting_is_named(new_keeper, settings, kind, message):
    with pytest.raises(kind, match=message):
        new_keeper(**settings)


def test_a_process_uses_the_old_valid_token_if_a_renewal_fails(new_keeper, authority, clock):
    keeper = new_keeper()
    first = keeper.current()
    clock.go_on(HOUR - 30)  # expired by the margin, but still valid
    authority.script = [errors.RefreshTemporarilyFailed("later", processed=False)]
    outcome = keeper.obtain()
    assert (outcome.token, outcome.is_new) == (first, False)
    assert keeper.stats == {"RenewalStarted": 2, "Renewed": 1, "Waited": 1, "RenewalFailed": 1}


def test_a_source_of_a_wrong_type_is_refused():
    with pytest.raises(TypeError, match="source must be an object"):
        TokenKeeper("https://id.example.com")  # type: ignore[arg-type]


# --- what is said about a login --------------------------------------------------------------


@pytest.fixture
def rejected(new_keeper, authority):
    """A keeper whose token the API has refused, and whose grant is revoked."""
    keeper = new_keeper()
    token = keeper.current()
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        keeper.renew(token)
    return keeper


def state_of(keeper):
    state = keeper.state()
    return state.state, state.reason, state.renewable


def test_the_states_of_a_login(new_keeper, authority, clock):
    keeper = new_keeper()
    assert state_of(keeper) == ("absent", None, True)
    token = keeper.current()
    assert keeper.state() == new_keeper().state()
    assert state_of(keeper) == ("usable", None, True)
    assert keeper.state().expires_at == token.expires_at
    clock.go_on(3600 - 60)
    assert state_of(keeper) == ("expired", None, True)
    authority.revoked = True
    assert new_keeper().current() == token
    revoked_at = clock.wall()
    assert state_of(keeper) == ("usable", "invalid_grant", False)
    clock.go_on(60)
    assert state_of(keeper) == ("reauth_required", "invalid_grant", False)
    assert keeper.state().since == pytest.approx(revoked_at, abs=1)
    keeper.adopt({"access_token": "new", "refresh_token": "new", "expires_in": 60})
    assert state_of(keeper) == ("usable", None, True)


def test_a_login_that_begins_with_a_person(new_keeper):
    source = RefreshToken("https://id.example.com/token", client_id="me")
    keeper = new_keeper(source)
    assert state_of(keeper) == ("absent", "no_credential", False)
    keeper.adopt({"access_token": "alone", "expires_in": 60})
    assert state_of(keeper) == ("usable", "no_credential", False)


def test_the_state_is_read_without_lock_write_or_request(rejected, shelf, authority):
    saves, presented = len(shelf.saves), len(authority.presented)
    shelf.failing = lambda step: step != "load"
    assert state_of(rejected) == ("reauth_required", "invalid_grant", False)
    assert (len(shelf.saves), len(authority.presented)) == (saves, presented)
    shelf.failing = lambda step: True
    with pytest.raises(errors.StoreError) as caught:
        rejected.state()
    assert caught.value.store == repr(shelf)


def test_the_state_of_another_users_login_is_not_told(new_keeper):
    new_keeper().current()
    with pytest.raises(errors.RefreshConfigError, match="may belong to another user"):
        new_keeper(Authority(first="refresh-of-another")).state()


def test_another_first_refresh_token_follows_a_dead_grant(rejected, new_keeper):
    assert state_of(new_keeper(Authority(first="refresh-of-another"))) == ("absent", None, True)


def test_a_token_that_the_api_refused_when_the_grant_was_dead_is_given_to_nobody(
    rejected, new_keeper, authority, shelf
):
    asked = len(authority.presented)
    for keeper in (rejected, new_keeper(), new_keeper()):
        keeper.look()
        assert keeper.fresh() is None
        with pytest.raises(errors.ReauthRequired):
            keeper.current()
        assert state_of(keeper) == ("reauth_required", "invalid_grant", False)
    assert len(authority.presented) == asked
    # A version that does not know of it reads a distrust that is over.
    assert document(shelf)["distrust"]["duration"] == 0.0


def test_a_process_that_holds_the_token_learns_of_its_refusal_when_it_renews(
    new_keeper, authority, shelf
):
    holder, other = new_keeper(), new_keeper()
    token = holder.current()
    assert other.current() == token
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        other.renew(token)
    shelf.failing = lambda step: True
    assert holder.current() == token  # fresh: no I/O
    shelf.failing = lambda step: False
    saves = len(shelf.saves)
    with pytest.raises(errors.ReauthRequired):
        holder.renew(token)
    assert len(shelf.saves) == saves  # it is recorded already
    with pytest.raises(errors.ReauthRequired):
        holder.current()


def test_a_refusal_by_the_api_after_that_of_the_grant_is_recorded_too(new_keeper, authority, shelf):
    keeper = new_keeper()
    token = keeper.current()
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        keeper.refresh()
    # So far, the API has not refused the token.
    assert keeper.current() == new_keeper().current() == token
    with pytest.raises(errors.ReauthRequired):
        new_keeper().renew(token)
    with pytest.raises(errors.ReauthRequired):
        new_keeper().current()


def test_a_refusal_that_cannot_be_recorded_is_raised_all_the_same(new_keeper, authority, shelf):
    keeper = new_keeper()
    token = keeper.current()
    authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        keeper.refresh()
    shelf.failing = lambda step: step == "save"
    with pytest.raises(errors.ReauthRequired):
        keeper.renew(token)


def test_the_next_token_is_usable_although_the_last_one_was_refused(rejected, authority):
    authority.revoked = False
    assert rejected.refresh().access_token == "access-2"
    assert state_of(rejected) == ("usable", None, True)


def test_a_token_of_the_same_text_that_was_issued_later_is_usable(
    rejected, new_keeper, authority, clock
):
    clock.go_on(1)
    authority.revoked, authority.count = False, 0
    assert rejected.refresh().access_token == "access-1"
    assert new_keeper().current().access_token == "access-1"


def test_an_error_says_whose_login_it_is(rejected, new_keeper):
    authority = Authority()
    authority.owner = {**authority.owner, "user": "ada"}
    with pytest.raises(errors.ReauthRequired) as caught:
        rejected.current()
    error = caught.value
    assert (error.store, error.slot, error.account) == ("Shelf()", None, None)
    assert error.since == rejected.state().since
    assert str(error).endswith(" [Shelf()]")
    for twin in (error.again(), pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)
    with pytest.raises(errors.RefreshConfigError, match="holds the token of") as caught:
        new_keeper(authority).current()
    assert (caught.value.store, caught.value.account) == ("Shelf()", "ada")


def test_an_error_names_the_account_that_logged_in(new_keeper, authority):
    keeper = new_keeper()
    account = Account("https://id.example.com", "7", "ada@example.com")
    keeper.adopt({"access_token": "a", "refresh_token": "b"}, account=account)
    with pytest.raises(errors.ReauthRequired) as caught:
        keeper.refresh()
    assert caught.value.account == "ada@example.com"


@pytest.mark.parametrize(
    ("advise", "said"),
    [
        ("Open Settings > Connections.", "Open Settings > Connections."),
        (lambda error: f"Reconnect ({error.reason}).", "Reconnect (invalid_grant)."),
        (lambda error: Path("settings/connections"), "settings/connections"),
        (lambda error: 1 / 0, "Log in with tokenadapter.login(), or in a web application"),
        (None, "Log in with tokenadapter.login(), or in a web application"),
    ],
    ids=["text", "function", "not a text", "broken", "none"],
)
def test_the_application_says_how_to_log_in(new_keeper, authority, advise, said):
    authority.script = [errors.ReauthRequired(f"It was refused. {errors.LOG_IN}")]
    events = []
    keeper = new_keeper(advise=advise, on_event=events.append)
    with pytest.raises(errors.ReauthRequired) as caught:
        keeper.current()
    assert str(caught.value).startswith(f"It was refused. {said}")
    assert "`" not in str(caught.value)
    assert said in str(events[-1])
    if advise is not None and "tokenadapter" not in said:
        assert caught.value.advice == said
    assert pickle.loads(pickle.dumps(TokenKeeper("x".join, "memory:a", advise="b")))._advise == "b"


def test_advice_is_a_text_or_a_function(new_keeper):
    with pytest.raises(TypeError, match="advise"):
        new_keeper(advise=7)
