"""A refresh token that is adopted alone is presented first, and only then replaces anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from doubles import Authority, Clockwork, Machinist, Shelf

from tokenadapter import TokenKeeper, errors
from tokenadapter.core.record import Backoff, Record, Waiter, digest, spent_hash
from tokenadapter.token import Token

Process = Callable[..., TokenKeeper]


@pytest.fixture
def process(shelf: Shelf, clock: Clockwork, authority: Authority) -> Process:
    """Each process has its own keeper, and all share the store."""

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


def test_adopting_a_refresh_token_starts_a_new_grant_for_all_processes(
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
def test_any_failure_keeps_the_stored_token(
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


def test_during_the_presentation_the_stored_token_stays_beside_an_intent(
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


def test_a_spent_refresh_token_is_not_presented(process: Process, authority: Authority) -> None:
    keeper = process()
    keeper.current()
    with pytest.raises(errors.RefreshConfigError, match="was already spent by an earlier renewal"):
        keeper.adopt({"refresh_token": "refresh-0"})
    assert authority.presented == ["refresh-0"]


def test_a_refused_refresh_token_can_be_adopted_again(
    process: Process, authority: Authority
) -> None:
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


def test_a_backoff_does_not_delay_an_adoption(process: Process, authority: Authority) -> None:
    keeper = process()
    token = keeper.current()
    authority.script = [errors.RefreshTemporarilyFailed("503", processed=False, retry_after=60)]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        keeper.renew(token)
    assert keeper.adopt({"refresh_token": log_in(authority)}).access_token == "access-102"


@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_an_adoption_waits_for_an_answer_that_another_process_awaits(
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


def test_a_failing_save_of_an_adoption_is_retried(
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
    """The store loses the lock, and another process renews the stored token."""
    token = Token("theirs", refresh_token="theirs", issued_at=clock.now)
    shelf.holder = None
    shelf.slot = record(shelf).with_new_token(token, {}, clock.now).to_document(), "9-theirs"


def test_an_adoption_replaces_a_token_that_another_process_renewed_meanwhile(
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


def test_a_refresh_token_that_another_process_adopted_meanwhile_is_not_presented_again(
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


def test_an_adoption_is_saved_even_if_the_store_was_emptied_meanwhile(
    process: Process, shelf: Shelf, authority: Authority
) -> None:
    login = log_in(authority)
    authority.asking = lambda: setattr(shelf, "slot", None)
    adopted = process().adopt({"refresh_token": login})
    assert record(shelf).token == adopted
    assert authority.presented == [login]


def test_an_adoption_is_saved_even_if_the_process_remembers_an_earlier_login(
    process: Process, shelf: Shelf, authority: Authority, clock: Clockwork
) -> None:
    keeper = process()
    keeper.current()
    # The record is lost, and another process leaves one without a token, which is lost, too.
    theirs = Record(authority.owner, authority.requested, "salt")
    backoff = Backoff(clock.now, 5.0, 1)
    shelf.slot = theirs.with_unknown_outcome(backoff).to_document(), "1-theirs"
    clock.go_on(1)
    login = log_in(authority)
    authority.asking = lambda: setattr(shelf, "slot", None)
    adopted = keeper.adopt({"refresh_token": login})
    assert record(shelf).token == adopted
    assert authority.presented == ["refresh-0", login]


@pytest.mark.parametrize("failing", ["remember_spent", ""])
def test_an_adoption_does_not_undo_a_logout_made_meanwhile(
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


def test_an_adopted_refresh_token_is_not_presented_again_after_a_lost_answer(
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


def test_a_function_gets_the_adopted_refresh_token_in_the_previous_token(process: Process) -> None:
    given: list[str | None] = []

    def source(previous: Token | None) -> dict[str, str]:
        given.append(previous and previous.refresh_token)
        return {"access_token": f"a{len(given)}", "refresh_token": f"r{len(given)}"}

    keeper = process(source)
    keeper.current()
    assert keeper.adopt({"refresh_token": "of-a-login"}).access_token == "a2"
    assert given == [None, "of-a-login"]


def test_a_source_without_refresh_tokens_refuses_an_adoption(process: Process) -> None:
    with pytest.raises(ValueError, match="the source presents no refresh token"):
        process(Machinist()).adopt({"refresh_token": "r"})


@pytest.mark.parametrize(
    ("given", "kind"), [(5, TypeError), ("caf\u00e9", ValueError), ("a\nb", ValueError)]
)
def test_an_invalid_refresh_token_is_not_presented(
    given: Any, kind: type[Exception], process: Process, authority: Authority
) -> None:
    with pytest.raises(kind, match="refresh_token"):
        process().adopt({"refresh_token": given})
    assert authority.presented == []


@pytest.mark.parametrize("given", [{}, {"refresh_token": ""}, {"refresh_token": None}])
def test_a_mapping_without_any_token_is_refused(given: Any, process: Process) -> None:
    with pytest.raises(ValueError, match="access_token"):
        process().adopt(given)
