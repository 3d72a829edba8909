"""A refresh token that is adopted alone is presented first, and only then replaces anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from doubles import Authority, Clockwork, Machinist, Shelf

from tokenadapter import TokenKeeper, errors
from tokenadapter.core.record import Record, Waiter, digest, spent_hash
from tokenadapter.token import Token

Process = Callable[..., TokenKeeper]


@pytest.fixture
def process(shelf: Shelf, clock: Clockwork, authority: Authority) -> Process:
    """Each has a keeper of its own, and all share the store."""

    def new(source: Any = authority, **settings: Any) -> TokenKeeper:
        return TokenKeeper(source, shelf, runtime=clock, **settings)

    return new


def record(shelf: Shelf) -> Record:
    assert shelf.slot is not None
    return Record.from_document(shelf.slot[0])


def log_in(authority: Authority) -> str:
    """A refresh token from another login, which the server knows."""
    authority.count += 100
    authority.live = f"login-{authority.count}"
    return authority.live


def test_what_it_brings_is_a_new_beginning_for_all(
    process: Process, shelf: Shelf, authority: Authority
) -> None:
    keeper, other = process(), process()
    before = keeper.current()
    other.current()
    login = log_in(authority)
    adopted = keeper.adopt({"refresh_token": login})
    assert adopted.access_token == "access-102"
    assert keeper.current() == adopted
    assert other.renew(before) == adopted
    assert authority.presented == ["refresh-0", login]
    found = record(shelf)
    assert found.origin == spent_hash(login)
    assert {spent_hash("refresh-0"), spent_hash(login)} <= {*found.spent}
    assert found.intent is None
    assert keeper.stats["Adopted"] == 1


@pytest.mark.parametrize(
    "failure",
    [
        errors.ReauthRequired("No.", error="invalid_grant"),
        errors.RefreshConfigError("Unknown client.", error="invalid_client"),
        errors.RefreshTemporarilyFailed("503", processed=False),
        errors.RefreshTemporarilyFailed("No answer."),
    ],
)
def test_any_failure_leaves_what_is_stored(
    failure: errors.TokenError,
    process: Process,
    shelf: Shelf,
    authority: Authority,
    clock: Clockwork,
) -> None:
    keeper = process()
    before = keeper.current()
    authority.script = [failure]
    with pytest.raises(type(failure), match=str(failure)):
        keeper.adopt({"refresh_token": "pasted"})
    assert record(shelf).token == before
    assert keeper.current() == before
    clock.go_on(3700)  # and it can still be renewed
    assert process().current().access_token == "access-2"


def test_while_it_is_presented_the_stored_token_stays_with_an_intent(
    process: Process, shelf: Shelf, authority: Authority
) -> None:
    before = process().current()
    login = log_in(authority)
    seen: list[Record] = []
    authority.asking = lambda: seen.append(record(shelf))
    process().adopt({"refresh_token": login})
    (during,) = seen
    assert during.token == before
    assert during.intent is not None
    assert during.intent.credential == digest(during.salt, "refresh_token", login)


def test_one_that_was_spent_is_not_presented(process: Process, authority: Authority) -> None:
    keeper = process()
    keeper.current()
    with pytest.raises(errors.RefreshConfigError, match="was already spent by an earlier renewal"):
        keeper.adopt({"refresh_token": "refresh-0"})
    assert authority.presented == ["refresh-0"]


def test_one_that_was_refused_may_be_tried_again(process: Process, authority: Authority) -> None:
    keeper = process()
    keeper.current()
    login = log_in(authority)
    authority.script = [errors.ReauthRequired("Not yet.", error="invalid_grant")]
    for _ in range(2):
        with pytest.raises(errors.ReauthRequired, match="Not yet"):
            keeper.adopt({"refresh_token": login})
        authority.script.append(errors.ReauthRequired("Not yet.", error="invalid_grant"))
    authority.script = []
    renewed = keeper.adopt({"refresh_token": login})
    assert keeper.renew(renewed).access_token == "access-103"


def test_what_is_held_does_not_hold_a_person_up(process: Process, authority: Authority) -> None:
    keeper = process()
    token = keeper.current()
    authority.script = [errors.RefreshTemporarilyFailed("503", processed=False, retry_after=60)]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.renew(token)
    assert keeper.adopt({"refresh_token": log_in(authority)}).access_token == "access-102"


@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_the_answer_that_another_awaits_is_awaited_first(
    grace: float, process: Process, shelf: Shelf, authority: Authority, clock: Clockwork
) -> None:
    authority.grace = grace
    process().current()
    shelf.lock_ends_with_holder = False
    assert shelf.slot is not None
    document, tag = shelf.slot
    before = Record.from_document(document)
    waiter = Waiter("another", clock.now + 3)
    key = digest(before.salt, "refresh_token", "refresh-1")
    shelf.slot = before.with_intent(key, clock.now, waiter).to_document(), tag
    began = clock.now
    process().adopt({"refresh_token": log_in(authority)})
    assert clock.now >= began + 3


def test_a_token_that_cannot_be_saved_at_once_is_saved_later(
    process: Process, shelf: Shelf, authority: Authority
) -> None:
    process().current()
    login = log_in(authority)
    tries = [0]

    def fails(step: str) -> bool:
        tries[0] += step == "save"
        return step == "save" and tries[0] < 6

    authority.asking = lambda: setattr(shelf, "failing", fails)
    assert process().adopt({"refresh_token": login}).access_token == "access-102"
    assert process().current().access_token == "access-102"


def lose_lock_to_a_renewal(shelf: Shelf, clock: Clockwork) -> None:
    """The store forgets who has the lock, and somebody else renews what is stored."""
    token = Token("theirs", refresh_token="theirs", issued_at=clock.now)
    shelf.holder = None
    shelf.slot = record(shelf).with_new_token(token, {}, clock.now).to_document(), "9-theirs"


def test_what_it_brings_replaces_what_others_have_renewed_meanwhile(
    process: Process, shelf: Shelf, authority: Authority, clock: Clockwork
) -> None:
    keeper = process()
    keeper.current()
    login = log_in(authority)
    authority.asking = lambda: lose_lock_to_a_renewal(shelf, clock)
    adopted = keeper.adopt({"refresh_token": login})
    assert adopted.access_token == "access-102"
    assert record(shelf).token == adopted
    assert authority.presented == ["refresh-0", login]


def test_what_another_has_adopted_meanwhile_is_not_presented_again(
    process: Process, shelf: Shelf, authority: Authority, clock: Clockwork
) -> None:
    keeper = process()
    before = keeper.current()
    login = log_in(authority)

    def another_adopts() -> None:
        token = Token("theirs", refresh_token="theirs", issued_at=clock.now)
        shelf.holder = None
        adopted = record(shelf).with_new_token(token, {}, clock.now, spent_hash(login), begins=True)
        shelf.slot = adopted.to_document(), "9-theirs"

    authority.asking = another_adopts
    with pytest.raises(errors.RefreshConfigError, match="was already spent by an earlier renewal"):
        keeper.adopt({"refresh_token": login})
    assert keeper.renew(before).access_token == "theirs"
    assert authority.presented == ["refresh-0", login]


def test_what_it_brings_is_saved_although_the_store_was_emptied_meanwhile(
    process: Process, shelf: Shelf, authority: Authority
) -> None:
    login = log_in(authority)
    authority.asking = lambda: setattr(shelf, "slot", None)
    adopted = process().adopt({"refresh_token": login})
    assert record(shelf).token == adopted
    assert authority.presented == [login]


@pytest.mark.parametrize("failing", ["remember_spent", ""])
def test_it_does_not_undo_a_logout_that_came_meanwhile(
    failing: str, process: Process, shelf: Shelf, authority: Authority
) -> None:
    keeper, other = process(), process()
    keeper.current()
    login = log_in(authority)

    def log_out() -> None:
        shelf.holder = None
        other.forget()
        shelf.failing = lambda step: step == failing

    authority.asking = log_out
    with pytest.raises(errors.RefreshConfigError, match="was already spent by an earlier renewal"):
        keeper.adopt({"refresh_token": login})
    assert record(shelf).token is None
    assert authority.presented == ["refresh-0", login]


def test_it_is_not_presented_again_after_an_answer_that_got_lost(
    process: Process, shelf: Shelf, authority: Authority, clock: Clockwork
) -> None:
    keeper = process()
    before = keeper.current()
    login = log_in(authority)
    authority.script = [errors.RefreshTemporarilyFailed("No answer.")]
    authority.asking = lambda: lose_lock_to_a_renewal(shelf, clock)
    with pytest.raises(errors.RefreshTemporarilyFailed, match="No answer"):
        keeper.adopt({"refresh_token": login})
    assert authority.presented == ["refresh-0", login]
    assert keeper.renew(before).access_token == "theirs"


def test_a_function_is_given_it_as_that_of_the_token_before(process: Process) -> None:
    given: list[str | None] = []

    def source(previous: Token | None) -> dict[str, str]:
        given.append(previous and previous.refresh_token)
        return {"access_token": f"a{len(given)}", "refresh_token": f"r{len(given)}"}

    keeper = process(source)
    keeper.current()
    assert keeper.adopt({"refresh_token": "of-a-login"}).access_token == "a2"
    assert given == [None, "of-a-login"]


def test_a_source_that_presents_none_says_so(process: Process) -> None:
    with pytest.raises(ValueError, match="the source presents no refresh token"):
        process(Machinist()).adopt({"refresh_token": "r"})


@pytest.mark.parametrize(
    ("given", "kind"), [(5, TypeError), ("caf\u00e9", ValueError), ("a\nb", ValueError)]
)
def test_what_cannot_be_one_is_not_presented(
    given: Any, kind: type[Exception], process: Process, authority: Authority
) -> None:
    with pytest.raises(kind, match="refresh_token"):
        process().adopt({"refresh_token": given})
    assert authority.presented == []


@pytest.mark.parametrize("given", [{}, {"refresh_token": ""}, {"refresh_token": None}])
def test_a_mapping_without_either_is_refused(given: Any, process: Process) -> None:
    with pytest.raises(ValueError, match="access_token"):
        process().adopt(given)
