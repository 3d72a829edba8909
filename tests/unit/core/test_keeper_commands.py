"""The keeper as the command uses it: minimum validity, forget and refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from doubles import Authority, Clockwork, Shelf

from tokenadapter import ReauthRequired, RefreshTemporarilyFailed, TokenKeeper

Processes = Callable[[], TokenKeeper]


@pytest.fixture
def process(clock: Clockwork, shelf: Shelf, authority: Authority) -> Processes:
    """Each process has its own keeper, and all share the store."""
    return lambda: TokenKeeper(authority, shelf, runtime=clock)


# --- min_validity ------------------------------------------------------------------------


def test_a_token_below_the_minimum_validity_is_renewed(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    process().current()
    clock.go_on(1800)
    process().obtain(min_validity=1790)
    assert len(authority.presented) == 1
    process().obtain(min_validity=1800)
    assert len(authority.presented) == 2


def test_the_minimum_validity_applies_within_one_process(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    keeper = process()
    first = keeper.current()
    clock.go_on(1800)
    assert keeper.obtain(min_validity=1790).token.is_same(first)
    assert not keeper.obtain(min_validity=1810).token.is_same(first)


def test_a_minimum_validity_never_extends_a_lifetime(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    process().current()
    clock.go_on(3570)  # expired by the usual margin
    process().obtain(min_validity=1)
    assert len(authority.presented) == 2


@pytest.mark.parametrize("wanted", [3600, 7200])
def test_an_unreachable_minimum_validity_does_not_renew_at_each_call(
    wanted: float, process: Processes, authority: Authority, clock: Clockwork
) -> None:
    for _ in range(3):
        process().obtain(min_validity=wanted)
    assert len(authority.presented) == 1
    clock.go_on(3100)  # stale: the caller waits for its renewal
    assert process().obtain(min_validity=wanted).is_new
    assert len(authority.presented) == 2


def test_a_token_without_expiry_satisfies_any_minimum_validity(
    clock: Clockwork, shelf: Shelf
) -> None:
    authority = Authority(lifetime=None)
    for _ in range(2):
        TokenKeeper(authority, shelf, runtime=clock).obtain(min_validity=1e6)
    assert len(authority.presented) == 1


def test_a_token_that_cannot_be_renewed_is_used_while_it_is_valid(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    first = process().current()
    clock.go_on(1800)
    authority.script = [RefreshTemporarilyFailed("no answer", processed=False)]
    assert process().obtain(min_validity=3000).token.is_same(first)


# --- look --------------------------------------------------------------------------------


def test_a_keeper_that_looks_uses_the_token_of_a_later_login(process: Processes) -> None:
    keeper, other = process(), process()
    first = keeper.current()
    login = other.adopt({"access_token": "later", "refresh_token": "r", "expires_in": 3600})
    assert keeper.fresh() == first
    keeper.look()
    assert keeper.fresh() == login


def test_a_keeper_that_looks_gives_up_a_token_that_was_logged_out(process: Processes) -> None:
    keeper, other = process(), process()
    assert keeper.current() == other.current()
    other.forget()
    assert keeper.fresh() is not None
    keeper.look()
    assert keeper.fresh() is None
    with pytest.raises(ReauthRequired):
        keeper.current()


def test_a_keeper_that_looks_does_not_go_on_with_an_account_that_was_replaced(
    process: Processes, clock: Clockwork
) -> None:
    keeper, other = process(), process()
    keeper.current()
    other.adopt({"access_token": "later", "refresh_token": "r", "expires_in": 2})
    clock.go_on(3)
    keeper.look()
    assert keeper.fresh() is None


@pytest.mark.parametrize("trouble", ["lost", "down"])
def test_a_keeper_that_looks_keeps_its_token_if_the_store_has_lost_it(
    process: Processes, shelf: Shelf, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = process()
    token = keeper.current()
    if trouble == "lost":
        shelf.slot = None
    else:
        monkeypatch.setattr(shelf, "load", lambda: 1 / 0)
    keeper.look()
    assert keeper.fresh() == token


def test_a_task_can_have_its_keeper_look(process: Processes) -> None:
    keeper, other = process(), process()
    keeper.current()
    login = other.adopt({"access_token": "later", "refresh_token": "r", "expires_in": 3600})
    asyncio.run(keeper.alook())
    assert keeper.fresh() == login


# --- forget ------------------------------------------------------------------------------


def test_forget_removes_the_token_for_all_processes(process: Processes, shelf: Shelf) -> None:
    keeper = process()
    token = keeper.current()
    forgotten = keeper.forget()
    assert token.is_same(forgotten)
    assert keeper.fresh() is None
    assert shelf.slot is not None
    assert "token" not in shelf.slot[0]
    assert keeper.forget() is None


def test_forget_keeps_spent_refresh_tokens_remembered(
    process: Processes, authority: Authority
) -> None:
    process().current()
    process().forget()
    with pytest.raises(ReauthRequired) as caught:
        process().current()
    assert caught.value.reason == "store_lost"
    assert authority.presented == ["refresh-0"]


def test_a_process_does_not_restore_a_token_that_it_forgot(
    process: Processes, shelf: Shelf, authority: Authority
) -> None:
    keeper = process()
    keeper.current()
    keeper.forget()
    shelf.slot = None
    shelf.spent.clear()
    authority.first = None
    with pytest.raises(ReauthRequired) as caught:
        keeper.current()
    assert caught.value.reason == "no_credential"


def test_another_token_can_be_adopted_afterwards(process: Processes) -> None:
    process().current()
    process().forget()
    process().adopt({"access_token": "from-a-login", "expires_in": 3600})
    assert process().current().access_token == "from-a-login"


def test_the_token_is_revoked_under_the_lock(process: Processes, shelf: Shelf) -> None:
    token = process().current()
    calls = []

    def revoke(given: object) -> None:
        calls.append(given)
        assert shelf.holder is not None

    process().forget(revoke)
    assert [one.is_same(token) for one in calls] == [True]  # type: ignore[attr-defined]
    process().forget(revoke)
    assert len(calls) == 1


def test_a_failed_revocation_keeps_the_token(process: Processes) -> None:
    token = process().current()

    def revoke(given: object) -> None:
        raise RefreshTemporarilyFailed("no answer")

    with pytest.raises(RefreshTemporarilyFailed):
        process().forget(revoke)
    assert process().current().is_same(token)


# --- refresh -----------------------------------------------------------------------------


def test_a_refresh_before_the_first_look_renews_the_stored_token(
    process: Processes, authority: Authority
) -> None:
    first = process().current()
    assert not process().refresh().is_same(first)
    assert len(authority.presented) == 2


# --- secrets that are looked up late -----------------------------------------------------


def test_late_secrets_are_not_looked_up_for_a_valid_token(
    process: Processes, authority: Authority
) -> None:
    process().current()
    authority.is_late = True  # type: ignore[attr-defined]
    authority.credentials = lambda previous: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert process().current().access_token
