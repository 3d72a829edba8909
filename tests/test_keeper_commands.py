"""What the command asks of a keeper: for how long a token must live, to give it up, to renew it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from doubles import Authority, Clockwork, Shelf

from tokenadapter import ReauthRequired, RefreshTemporarilyFailed, TokenKeeper

Processes = Callable[[], TokenKeeper]


@pytest.fixture
def process(clock: Clockwork, shelf: Shelf, authority: Authority) -> Processes:
    """Each has a keeper of its own, and all share the store."""
    return lambda: TokenKeeper(authority, shelf, runtime=clock)


# --- min_validity ------------------------------------------------------------------------


def test_a_token_that_lives_for_less_is_renewed(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    process().current()
    clock.go_on(1800)
    process().obtain(min_validity=1790)
    assert len(authority.presented) == 1
    process().obtain(min_validity=1800)
    assert len(authority.presented) == 2


def test_that_holds_in_one_process_too(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    keeper = process()
    first = keeper.current()
    clock.go_on(1800)
    assert keeper.obtain(min_validity=1790).token.is_same(first)
    assert not keeper.obtain(min_validity=1810).token.is_same(first)


def test_it_never_makes_a_token_last_longer_than_it_is_good(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    process().current()
    clock.go_on(3570)  # expired by the usual margin
    process().obtain(min_validity=1)
    assert len(authority.presented) == 2


@pytest.mark.parametrize("wanted", [3600, 7200])
def test_what_no_token_has_does_not_renew_each_time(
    wanted: float, process: Processes, authority: Authority, clock: Clockwork
) -> None:
    for _ in range(3):
        process().obtain(min_validity=wanted)
    assert len(authority.presented) == 1
    clock.go_on(3100)  # stale: now it is renewed, and waited for
    assert process().obtain(min_validity=wanted).is_new
    assert len(authority.presented) == 2


def test_a_token_whose_end_is_not_known_is_as_good_as_any(clock: Clockwork, shelf: Shelf) -> None:
    authority = Authority(lifetime=None)
    for _ in range(2):
        TokenKeeper(authority, shelf, runtime=clock).obtain(min_validity=1e6)
    assert len(authority.presented) == 1


def test_what_cannot_be_renewed_is_served_while_it_lives(
    process: Processes, authority: Authority, clock: Clockwork
) -> None:
    first = process().current()
    clock.go_on(1800)
    authority.script = [RefreshTemporarilyFailed("no answer", processed=False)]
    assert process().obtain(min_validity=3000).token.is_same(first)


# --- forget ------------------------------------------------------------------------------


def test_a_token_that_is_forgotten_is_nobodys(process: Processes, shelf: Shelf) -> None:
    keeper = process()
    token = keeper.current()
    forgotten = keeper.forget()
    assert token.is_same(forgotten)
    assert keeper.fresh() is None
    assert shelf.slot is not None
    assert "token" not in shelf.slot[0]
    assert keeper.forget() is None


def test_what_was_spent_stays_remembered(process: Processes, authority: Authority) -> None:
    process().current()
    process().forget()
    with pytest.raises(ReauthRequired) as caught:
        process().current()
    assert caught.value.reason == "store_lost"
    assert authority.presented == ["refresh-0"]


def test_it_is_not_written_back_by_who_forgot_it(
    process: Processes, shelf: Shelf, authority: Authority
) -> None:
    keeper = process()
    keeper.current()
    keeper.forget()
    shelf.slot = None
    shelf.notes.clear()
    authority.first = None
    with pytest.raises(ReauthRequired) as caught:
        keeper.current()
    assert caught.value.reason == "no_credential"


def test_another_token_can_be_adopted_afterwards(process: Processes) -> None:
    process().current()
    process().forget()
    process().adopt({"access_token": "from-a-login", "expires_in": 3600})
    assert process().current().access_token == "from-a-login"


def test_the_server_is_told_while_nobody_can_renew(process: Processes, shelf: Shelf) -> None:
    token = process().current()
    told = []

    def revoke(given: object) -> None:
        told.append(given)
        assert shelf.holder is not None

    process().forget(revoke)
    assert [one.is_same(token) for one in told] == [True]  # type: ignore[attr-defined]
    process().forget(revoke)
    assert len(told) == 1


def test_if_it_cannot_be_told_nothing_is_forgotten(process: Processes) -> None:
    token = process().current()

    def revoke(given: object) -> None:
        raise RefreshTemporarilyFailed("no answer")

    with pytest.raises(RefreshTemporarilyFailed):
        process().forget(revoke)
    assert process().current().is_same(token)


# --- refresh -----------------------------------------------------------------------------


def test_a_process_that_has_not_looked_yet_renews_what_is_stored(
    process: Processes, authority: Authority
) -> None:
    first = process().current()
    assert not process().refresh().is_same(first)
    assert len(authority.presented) == 2


# --- secrets that are looked up late -----------------------------------------------------


def test_a_grant_that_looks_its_secrets_up_late_is_not_asked_for_a_good_token(
    process: Processes, authority: Authority
) -> None:
    process().current()
    authority.is_late = True  # type: ignore[attr-defined]
    authority.credentials = lambda previous: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert process().current().access_token
