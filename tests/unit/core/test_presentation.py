"""A presentation: the writes before and after it, with failures and writes of other processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import LOST, Authority, Clockwork, Machinist, Shelf, ShelfLock

from tokenadapter import FileStore, TokenKeeper, errors
from tokenadapter.core import shutdown
from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.journal import Journal
from tokenadapter.core.presentation import Presenter
from tokenadapter.core.record import Backoff, Record, Waiter, digest, spent_hash
from tokenadapter.core.slot import Slot, View
from tokenadapter.events import (
    Event,
    ExtrasDropped,
    RenewalStarted,
    Renewed,
    SaveFailed,
    ScopeNarrowed,
)
from tokenadapter.protocols import Credential, Document
from tokenadapter.token import Token

FIRST = Credential("refresh_token", "refresh-0", True, True, True)
DOWN = errors.RefreshTemporarilyFailed("Down.", error="try_later", processed=False)
REFUSED = errors.ReauthRequired("Refused.", error="invalid_grant")
START = Clockwork().now


class Desk:
    """A process that presents credentials, and another one that shares its slot."""

    def __init__(self, grant: Authority) -> None:
        self.grant = grant
        self.clock = Clockwork()
        # What is done in other threads: a test runs it, or not.
        self.later: list[Callable[[], None]] = []
        self.clock.start = self.later.append  # type: ignore[assignment, method-assign]
        self.shelf = Shelf(self.clock)
        self.slot = Slot(self.shelf, grant, self.clock)
        self.other = Slot(self.shelf, grant, self.clock)
        self.eligibility = Eligibility(self.slot, grant, self.clock)
        self.events: list[Event] = []
        self.served: list[View] = []
        self.journal = Journal(self.shelf, self.events.append)
        self.presenter = Presenter(self.slot, grant, self.eligibility, self.clock, self.journal)

    def present(self, credential: Credential | None = None) -> View | None:
        lock = self.shelf.lock()
        assert lock.acquire(60)
        try:
            view = self.slot.look()
            if credential is None:
                credential = self.eligibility.credential(view)
            return self.presenter.present(
                lock, view, credential, view.record.token, self.served.append
            )
        finally:
            lock.release()

    def intrude(self, change: Callable[[View], Record], *, takes_lock: bool = False) -> None:
        """Have another process write while the request is in progress."""

        def write() -> None:
            self.grant.asking = lambda: None
            view = self.other.look()
            self.other.write(view, change(view))
            if takes_lock:
                self.shelf.holder = self.shelf.lock()

        self.grant.asking = write

    @property
    def stored(self) -> Document:
        assert self.shelf.slot is not None
        return self.shelf.slot[0]

    def emitted(self) -> list[str]:
        """What was emitted, beside the start of each presentation."""
        names = [type(event).__name__ for event in self.events]
        return [name for name in names if name != "RenewalStarted"]


@pytest.fixture
def desk() -> Desk:
    return Desk(Authority())


@pytest.fixture
def plain() -> Desk:
    """A desk whose grant spends nothing."""
    return Desk(Machinist())


def held(view: View) -> Record:
    return view.record.with_unknown_outcome(Backoff(view.read_at, 9.0, 1, cause="Theirs."))


def renewed_beside_the_intent(view: View) -> Record:
    token = Token("theirs", issued_at=view.read_at, refresh_token="theirs")
    return view.record.with_new_token(token, {}, view.read_at, intent=view.record.intent)


def renewed(view: View) -> Record:
    token = Token("theirs", issued_at=view.read_at, refresh_token="theirs")
    return view.record.with_new_token(token, {}, view.read_at)


def token_of(view: View | None) -> str | None:
    return view and view.record.token and view.record.token.access_token


# --- before the request ----------------------------------------------------------------------


@pytest.mark.parametrize("can_take_back", [True, False])
def test_obstacles_to_the_save_are_found_before_the_request_is_sent(
    desk: Desk, can_take_back: bool
) -> None:
    def fails(step: str) -> bool:
        if step == "prepare" and not can_take_back:
            desk.shelf.next = [(False, LOST)] * 4
        return step == "prepare"

    desk.shelf.failing = fails
    with pytest.raises(errors.StoreError, match="prepare fails"):
        desk.present()
    assert desk.grant.presented == []
    assert ("intent" in desk.stored) is not can_take_back
    # Others would believe it for as long as this process lives: it is withdrawn later.
    for withdraw in desk.later:
        withdraw()
    assert "intent" not in desk.stored


@pytest.mark.parametrize("is_overtaken", [True, False])
def test_after_losing_the_lock_a_process_sends_nothing_and_overwrites_nothing(
    desk: Desk, is_overtaken: bool
) -> None:
    def lose_lock() -> None:
        desk.shelf.holder = None
        if is_overtaken:
            view = desk.other.look()
            desk.other.write(view, held(view))

    desk.shelf.prepare = lose_lock  # type: ignore[method-assign]
    assert desk.present() is None
    assert desk.grant.presented == []
    assert ("backoff" in desk.stored, "intent" in desk.stored) == (is_overtaken, False)


def test_a_listener_that_takes_its_time_is_called_before_the_lock_is_confirmed(desk: Desk) -> None:
    """Else its lease may lapse, and another process presents the refresh token meanwhile."""

    def take_time(event: Event) -> None:
        if type(event).__name__ == "RenewalStarted":
            desk.shelf.holder = None

    desk.journal.listener = take_time
    assert desk.present() is None
    assert desk.grant.presented == []


def test_a_grant_may_take_its_time_to_make_a_key(desk: Desk) -> None:
    """It may have to read metadata.  The others respect the intent from the end of that."""
    desk.slot.lock_ends_with_holder = False

    def new_key(previous: Token | None) -> str:
        desk.clock.go_on(60.0)
        return "key"

    desk.grant.new_key = new_key  # type: ignore[attr-defined]
    assert desk.present() is not None
    assert len(desk.grant.presented) == 1


def test_a_process_that_is_told_to_end_while_a_key_is_made_presents_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the request and the save.  The time of the metadata is not part of that."""

    def new_key(previous: Token | None) -> str:
        monkeypatch.setattr(shutdown, "_is_ending", True)
        return "key"

    desk.grant.new_key = new_key  # type: ignore[attr-defined]
    with pytest.raises(errors.RefreshTemporarilyFailed, match="process is shutting down"):
        desk.present()
    assert desk.grant.presented == []
    assert desk.shelf.slot is None


def test_an_error_of_a_grant_that_makes_a_key_is_one_of_the_library(desk: Desk) -> None:
    def new_key(previous: Token | None) -> str:
        raise ValueError("s3cr3t")

    desk.grant.new_key = new_key  # type: ignore[attr-defined]
    with pytest.raises(errors.RefreshTemporarilyFailed, match="raised ValueError") as caught:
        desk.present()
    assert isinstance(caught.value.__cause__, ValueError)
    assert desk.grant.presented == []
    assert desk.shelf.slot is None


def test_a_withdrawal_ends_even_if_the_store_refuses_every_write(desk: Desk) -> None:
    def refuse() -> None:
        desk.shelf.save = lambda *_, **__: False  # type: ignore[method-assign]
        raise errors.StoreError("No space.")

    desk.shelf.prepare = refuse  # type: ignore[method-assign]
    with pytest.raises(errors.StoreError, match="No space"):
        desk.present()


def test_after_losing_the_lock_a_process_keeps_the_intent_of_the_new_holder(desk: Desk) -> None:
    def lose_lock() -> None:
        desk.shelf.holder = None
        view = desk.other.look()
        key = desk.eligibility.digest(view.record, FIRST)
        theirs = Waiter(desk.clock.process(), desk.clock.wall() + 60)
        desk.other.write(view, view.record.with_intent(key, desk.clock.wall(), theirs))

    desk.shelf.prepare = lose_lock  # type: ignore[method-assign]
    assert desk.present() is None
    assert desk.grant.presented == []
    intent = desk.stored["intent"]
    assert intent["attempt"] == 1
    assert len(intent["awaited"]) == 1
    assert intent["awaited"][0]["until"] == desk.clock.wall() + 60


# --- saving ----------------------------------------------------------------------------------


def test_only_spent_tokens_that_may_be_provided_again_are_remembered_permanently(
    desk: Desk,
) -> None:
    desk.present()
    before = desk.slot.look().record
    desk.present()
    assert desk.shelf.remembered == [
        (spent_hash("refresh-0"), True),
        (before.placed(spent_hash("refresh-1")), False),
    ]
    assert desk.stored["spent"] == [spent_hash("refresh-0")]
    view = desk.slot.look()
    adopted = Token("adopted", refresh_token="refresh-2", issued_at=view.read_at)
    desk.slot.write(view, view.record.with_adopted_token(adopted, {}, view.read_at))
    desk.present()
    before = desk.slot.look().record
    desk.present()
    assert desk.shelf.remembered[2:] == [
        (spent_hash("refresh-2"), True),
        (before.placed(spent_hash("refresh-3")), False),
    ]
    assert desk.stored["spent"] == [spent_hash("refresh-0"), spent_hash("refresh-2")]


def test_a_spent_token_that_cannot_be_remembered_is_reported_once_and_costs_nothing(
    desk: Desk,
) -> None:
    desk.shelf.failing = lambda step: step == "remember_spent"
    assert token_of(desk.present()) == "access-1"
    assert token_of(desk.present()) == "access-2"
    assert desk.emitted() == ["StoreFailed", "Renewed", "Renewed"]
    assert any("remember_spent fails in this test" in str(event) for event in desk.events)


@pytest.mark.parametrize("written", [True, False])
def test_a_save_is_repeated_as_the_same_write(desk: Desk, written: bool) -> None:
    def fail() -> None:
        desk.shelf.saves.clear()
        desk.shelf.next = [(written, LOST), (False, LOST)] * 3

    desk.grant.asking = fail
    assert token_of(desk.present()) == "access-1"
    assert len(desk.shelf.saves) == 7
    assert len({save.tag for save in desk.shelf.saves}) == 1


def test_a_token_is_saved_if_another_process_has_added_to_its_record(desk: Desk) -> None:
    def fail() -> None:
        desk.shelf.next = [(True, LOST), (False, LOST)]

    desk.grant.asking = fail
    go_on = desk.clock.sleep

    def sleep(seconds: float) -> None:
        go_on(seconds)
        view = desk.other.look()
        desk.other.write(view, held(view))

    desk.clock.sleep = sleep  # type: ignore[method-assign]
    view = desk.present()
    assert token_of(view) == "access-1"
    assert view is not None
    assert view.record.backoff is not None
    assert desk.stored["backoff"]
    # The spent token is remembered as usual.
    assert desk.shelf.remembered == [(spent_hash("refresh-0"), True)]
    assert [token_of(view) for view in desk.served] == ["access-1"]


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_plain", [True, False])
def test_a_renewal_by_another_process_is_not_overwritten(has_token: bool, is_plain: bool) -> None:
    desk = Desk(Machinist() if is_plain else Authority())
    if has_token:
        desk.present()
    desk.intrude(renewed)
    assert desk.present() is None
    assert desk.stored["token"]["access_token"] == "theirs"


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_plain", [True, False])
def test_other_writes_do_not_lose_the_new_token(has_token: bool, is_plain: bool) -> None:
    desk = Desk(Machinist() if is_plain else Authority())
    if has_token:
        desk.present()
    desk.intrude(held)
    view = desk.present()
    assert token_of(view) == f"access-{1 + has_token}"
    assert desk.stored["token"]["access_token"] == token_of(view)


def test_a_token_is_saved_into_a_record_that_another_process_created(desk: Desk) -> None:
    desk.intrude(lambda view: held(view)._replace(salt="other", intent=None))
    assert token_of(desk.present()) == "access-1"
    assert desk.stored["salt"] == "other"


def test_a_token_is_not_saved_after_a_logout(desk: Desk) -> None:
    desk.present()
    desk.intrude(lambda view: view.record.without_token(view.read_at))
    assert desk.present() is None
    assert "token" not in desk.stored


def test_a_token_that_spent_nothing_is_used_although_it_cannot_be_saved(plain: Desk) -> None:
    plain.shelf.next = [(False, LOST)] * 2
    assert token_of(plain.present()) == "access-1"
    assert plain.emitted() == ["StoreFailed", "Renewed"]
    assert "The answer got lost" in str(plain.events[1])


def test_the_event_of_a_renewal_names_credential_and_duration(desk: Desk) -> None:
    desk.grant.asking = lambda: desk.clock.go_on(2.5)
    view = desk.present()
    assert view is not None
    assert view.record.token is not None
    started, event = desk.events
    assert started == RenewalStarted("refresh_token", store="Shelf()")
    fingerprint = view.record.token.fingerprint
    assert event == Renewed(fingerprint, "refresh_token", 2.5, store="Shelf()")


def test_the_source_gets_the_previous_token(plain: Desk) -> None:
    given: list[Token | None] = []
    fetch = plain.grant.fetch

    def noting(credential: Credential, previous: Token | None) -> Any:
        given.append(previous)
        return fetch(credential, previous)

    plain.grant.fetch = noting  # type: ignore[method-assign]
    first = plain.present()
    plain.present()
    assert first is not None
    assert given == [None, first.record.token]


def test_the_owner_of_a_lease_tries_to_save_as_often_as_others_look(desk: Desk) -> None:
    """Else one of them would find the store first when it comes back."""

    def fail() -> None:
        desk.shelf.next = [(False, LOST)] * 18

    desk.slot.lock_ends_with_holder = False
    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    desk.present()
    assert max(desk.clock.slept) <= desk.shelf.poll[1]


def test_the_pauses_of_a_save_that_fails_grow_to_five_seconds(desk: Desk) -> None:
    def fail() -> None:
        desk.shelf.next = [(False, LOST)] * 18

    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    desk.present()
    assert desk.clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5])
    failed = SaveFailed(Token("access-1").fingerprint, str(LOST), store="Shelf()")
    assert [event for event in desk.events if isinstance(event, SaveFailed)] == [failed]


class LeaseLock(ShelfLock):
    """Lapses *hold_for* seconds after it was taken or confirmed."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self.end = self.hold_for = 0.0

    def acquire(self, hold_for: float) -> bool:
        holder, now = self.shelf.holder, self.shelf.runtime.monotonic()
        if isinstance(holder, LeaseLock) and holder.end <= now:
            self.shelf.holder = None
        self.hold_for = hold_for
        return super().acquire(hold_for)

    def confirm(self) -> bool:
        is_held = super().confirm()
        if is_held:
            self.end = self.shelf.runtime.monotonic() + self.hold_for
        return is_held


def test_the_lock_is_held_until_a_failing_save_succeeds(desk: Desk) -> None:
    taken: list[bool] = []
    sleep = desk.clock.sleep

    def sleep_while_others_try(seconds: float) -> None:
        sleep(seconds)
        taken.append(desk.shelf.lock().acquire(60))

    def fail() -> None:
        desk.shelf.next = [(False, LOST)] * 40

    desk.shelf.lock = lambda: LeaseLock(desk.shelf)  # type: ignore[method-assign]
    desk.clock.sleep = sleep_while_others_try  # type: ignore[method-assign]
    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    assert token_of(desk.present()) == "access-1"
    assert sum(desk.clock.slept) > 60  # longer than the lock was acquired for
    assert taken == [False] * 20


def test_a_token_that_is_saved_late_has_the_time_when_it_was_obtained(desk: Desk) -> None:
    """A token that another process obtained meanwhile is newer, even if the record was lost."""

    def fail() -> None:
        desk.shelf.next = [(False, LOST)] * 40

    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    began = desk.clock.wall()
    desk.present()
    assert desk.clock.wall() > began + 10
    assert desk.stored["written"] == pytest.approx(began, abs=0.1)


@pytest.mark.parametrize("name", ["access-1", "access-2"])
def test_a_late_answer_is_saved_while_another_refresh_token_is_presented(
    desk: Desk, name: str
) -> None:
    """Another process adopts that one, and the server has not answered yet."""
    if name == "access-2":
        desk.present()

    def announced(view: View) -> Record:
        key = digest(view.record.salt, "refresh_token", "handed in")
        return view.record.with_intent(key, view.read_at, Waiter("other", view.read_at + 9))

    desk.intrude(announced, takes_lock=True)
    assert token_of(desk.present()) == name
    assert desk.stored["token"]["access_token"] == name


def keep_refresh_token(desk: Desk) -> None:
    """Make the server stop rotating."""
    fetch = desk.grant.fetch

    def keeping(credential: Credential, previous: Token | None) -> Any:
        return {**fetch(credential, previous), "refresh_token": credential.secret}  # type: ignore[dict-item]

    desk.grant.fetch = keeping  # type: ignore[method-assign]


def announced_again(view: View) -> Record:
    intent = view.record.intent
    assert intent is not None
    until = intent.awaited[-1].until + 20
    return view.record.with_intent(intent.credential, view.read_at, Waiter("other", until))


@pytest.mark.parametrize("keeps", [True, False])
def test_a_late_answer_keeps_the_other_waiters_for_the_same_refresh_token(
    desk: Desk, keeps: bool
) -> None:
    """The other request may still spend it, although the late answer has no new refresh token."""
    desk.present()
    if keeps:
        keep_refresh_token(desk)
    desk.slot.lock_ends_with_holder = False
    desk.intrude(announced_again, takes_lock=True)
    assert token_of(desk.present()) == "access-2"
    intent = desk.stored.get("intent")
    assert (intent is not None) == keeps
    if intent is not None:
        assert [waiter["process"] for waiter in intent["awaited"]] == ["other"]
        assert intent["attempt"] == 1


def answered_first(view: View) -> Record:
    """The server has answered another process, and kept the refresh token."""
    token = view.record.token
    assert token is not None
    theirs = token.replace(access_token="theirs")
    return view.record.with_new_token(theirs, {}, view.read_at, intent=view.record.intent)


def test_after_the_last_answer_that_spent_nothing_no_intent_is_left(desk: Desk) -> None:
    desk.slot.lock_ends_with_holder = False
    desk.present()
    keep_refresh_token(desk)
    desk.intrude(answered_first, takes_lock=True)
    assert desk.present() is None
    assert desk.stored["token"]["access_token"] == "theirs"
    assert "intent" not in desk.stored


def test_a_late_answer_keeps_the_intent_while_another_process_waits(desk: Desk) -> None:
    def announced_and_answered(view: View) -> Record:
        return answered_first(view._replace(record=announced_again(view)))

    desk.slot.lock_ends_with_holder = False
    desk.present()
    keep_refresh_token(desk)
    desk.intrude(announced_and_answered, takes_lock=True)
    assert desk.present() is None
    intent = desk.stored["intent"]
    assert [waiter["process"] for waiter in intent["awaited"]] == ["other"]
    assert intent["attempt"] == 1


def test_the_successor_of_the_stored_refresh_token_is_saved_however_late(
    desk: Desk,
) -> None:
    """The server did not rotate for another process, and rotated for this one."""
    desk.present()
    desk.intrude(answered_first, takes_lock=True)
    assert token_of(desk.present()) == "access-2"
    assert desk.stored["token"]["refresh_token"] == "refresh-2"
    assert "intent" not in desk.stored


def test_the_refresh_token_of_a_late_answer_is_remembered_as_spent(desk: Desk) -> None:
    desk.intrude(renewed)
    assert desk.present() is None
    assert desk.stored["token"]["access_token"] == "theirs"
    assert desk.shelf.remembered == [(spent_hash("refresh-0"), True)]


# --- what a source returns -------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0.0, 100.0])
@pytest.mark.parametrize(
    ("age", "lifetime", "left"), [(0, 3600, 3600), (600, 3600, 3000), (-5, 3600, 3600)]
)
def test_a_token_that_a_function_cached_has_a_shorter_remaining_lifetime(
    plain: Desk, ahead: float, age: float, lifetime: float, left: float
) -> None:
    plain.shelf.ahead = ahead
    issued = plain.clock.now - age
    token = Token("abc", issued_at=issued, expires_at=issued + lifetime)
    plain.grant.fetch = lambda credential, previous: token  # type: ignore[method-assign]
    view = plain.present()
    assert view is not None
    stored = view.record.token
    assert stored is not None
    now = plain.clock.now + ahead
    assert (stored.issued_at, stored.expires_at) == (now, now + left)


@pytest.mark.parametrize("answer", ["abc", {"access_token": "abc"}])
def test_an_answer_without_a_time_is_issued_at_the_time_of_the_request(
    plain: Desk, answer: Any
) -> None:
    plain.grant.fetch = lambda credential, previous: answer  # type: ignore[method-assign]
    view = plain.present()
    assert view is not None
    assert view.record.token == Token("abc", issued_at=plain.clock.now)


def test_the_error_for_an_invalid_result_names_its_type(plain: Desk) -> None:
    plain.grant.fetch = lambda credential, previous: 5  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(errors.RefreshConfigError, match=r"no token: it returned int\. Nothing"):
        plain.present()


@pytest.mark.parametrize("answer", [5, {}])
def test_an_invalid_result_may_have_spent_the_refresh_token(desk: Desk, answer: Any) -> None:
    desk.grant.fetch = lambda credential, previous: answer  # type: ignore[method-assign]
    with pytest.raises(errors.RefreshConfigError, match="returned no token"):
        desk.present()
    assert desk.stored["intent"]["attempt"] == 1
    assert desk.stored["intent"]["awaited"] == []
    del desk.grant.fetch
    desk.grant.script = [REFUSED]
    assert desk.present() is None
    assert desk.stored["tombstones"][0]["reason"] == "uncertain_rotation"


# --- a failure -------------------------------------------------------------------------------


def presenting(desk: Desk, failure: Exception, change: Callable[[View], Record], **how: Any) -> Any:
    """A presentation that fails while another process writes."""
    desk.grant.script = [failure]
    desk.intrude(change, **how)
    return desk.present


def test_a_failure_is_saved_beside_other_writes_that_are_no_renewal(desk: Desk) -> None:
    with pytest.raises(errors.RefreshTemporarilyFailed):
        presenting(desk, DOWN, held)()
    assert desk.stored["backoff"]["cause"] == "Down."
    assert "intent" not in desk.stored


def test_a_failure_of_a_credential_that_is_not_spent_is_saved(plain: Desk) -> None:
    plain.present()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        presenting(plain, DOWN, held)()
    assert plain.stored["backoff"]["cause"] == "Down."


def test_a_refused_password_stays_refused_after_a_renewal_by_another_process(desk: Desk) -> None:
    desk.present()
    password = Credential("password", "s3cr3t", refusal_is_final=True)
    assert presenting(desk, REFUSED, renewed)(password) is None
    view = desk.slot.look()
    desk.eligibility.raise_if_backing_off(view.record, view.read_at)
    assert desk.eligibility.objection(view, password) is not None


@pytest.mark.parametrize("processed", [False, None])
def test_an_intent_that_another_process_kept_ends_unless_the_outcome_is_unknown(
    desk: Desk, processed: bool | None
) -> None:
    desk.present()
    failure = errors.RefreshTemporarilyFailed("Down.", processed=processed)
    assert presenting(desk, failure, renewed_beside_the_intent)() is None
    assert desk.stored["token"]["access_token"] == "theirs"
    assert ("intent" in desk.stored) is (processed is None)


@pytest.mark.parametrize("takes_lock", [True, False])
def test_a_backoff_stays_in_memory_if_another_process_renewed(desk: Desk, takes_lock: bool) -> None:
    desk.present()
    before = desk.slot.look().record
    change = held if takes_lock else renewed
    assert presenting(desk, DOWN, change, takes_lock=takes_lock)() is None
    assert desk.stored.get("backoff", {}).get("cause") != "Down."
    # The backoff applies to this process as long as the token is the same.
    with pytest.raises(errors.RefreshTemporarilyFailed, match=r"^Down"):
        desk.eligibility.raise_if_backing_off(before, 0.0)
    desk.eligibility.raise_if_backing_off(renewed(desk.slot.look()), 0.0)


@pytest.mark.parametrize("takes_lock", [True, False])
def test_a_refusal_stays_in_memory_if_another_process_renewed(desk: Desk, takes_lock: bool) -> None:
    change = held if takes_lock else renewed
    assert presenting(desk, REFUSED, change, takes_lock=takes_lock)() is None
    assert "tombstones" not in desk.stored
    view = desk.slot.look()
    desk.eligibility.raise_if_backing_off(
        view.record, view.read_at + 60
    )  # it is no other token to us
    view = view._replace(record=view.record._replace(token=None))
    with pytest.raises(errors.ReauthRequired, match=r"^Refused"):
        desk.eligibility.credential(view)


def test_a_failure_that_cannot_be_saved_applies_to_this_process(desk: Desk) -> None:
    desk.present()
    record = desk.slot.look().record

    def fail() -> None:
        desk.shelf.next = [(False, LOST)] * 2

    desk.grant.asking = fail
    desk.grant.script = [DOWN]
    with pytest.raises(errors.RefreshTemporarilyFailed) as caught:
        desk.present()
    assert caught.value is DOWN
    with pytest.raises(errors.RefreshTemporarilyFailed, match=r"^Down"):
        desk.eligibility.raise_if_backing_off(record, 0.0)
    desk.clock.go_on(60)
    desk.grant.asking = fail
    desk.grant.script = [REFUSED]
    with pytest.raises(errors.ReauthRequired) as refused:
        desk.present()
    assert refused.value is REFUSED
    desk.eligibility.raise_if_backing_off(record, 0.0)
    with pytest.raises(errors.ReauthRequired, match=r"^Refused"):
        desk.eligibility.credential(desk.slot.look())


def test_a_tombstone_has_the_credential_and_the_cause(desk: Desk) -> None:
    desk.grant.script = [REFUSED]
    assert desk.present() is None
    [stone] = desk.stored["tombstones"]
    assert (stone["kind"], stone["error"], stone["cause"], stone["at"]) == (
        "refresh_token",
        "invalid_grant",
        "Refused.",
        desk.clock.now,
    )


# --- backoffs --------------------------------------------------------------------------------


def hold_after(desk: Desk, failure: errors.TokenError) -> dict[str, Any]:
    desk.grant.script = [failure]
    with pytest.raises(type(failure)):
        desk.present()
    backoff: dict[str, Any] = desk.stored["backoff"]
    return backoff


def test_a_backoff_has_its_cause(desk: Desk) -> None:
    backoff = hold_after(desk, DOWN)
    assert (backoff["set_at"], backoff["step"], backoff["bound_to"]) == (desk.clock.now, 1, None)
    assert (backoff["kind"], backoff["error"], backoff["cause"]) == (
        "temporary",
        "try_later",
        "Down.",
    )


@pytest.mark.parametrize(
    ("retry_after", "duration"), [(0.2, 1), (1.5, 1.5), (30, 30), (7200, 3600)]
)
def test_retry_after_is_limited_to_between_a_second_and_an_hour(
    desk: Desk, retry_after: float, duration: float
) -> None:
    failure = errors.RefreshTemporarilyFailed("Later.", retry_after=retry_after, processed=False)
    assert hold_after(desk, failure)["duration"] == duration
    assert failure.retry_at == desk.clock.now + duration


@pytest.mark.parametrize(
    ("grace", "passed", "duration"),
    [(9.0, 0.0, 2.5), (9.0, 4.0, 0.5), (9.0, 5.5, 10.0), (60.0, 0.0, 5.0), (0.0, 0.0, 5.0)],
)
def test_the_backoff_leaves_time_for_a_retry_within_the_grace(
    desk: Desk, grace: float, passed: float, duration: float
) -> None:
    desk.grant.grace = grace
    unknown = errors.RefreshTemporarilyFailed("Gone.")
    if passed:
        hold_after(desk, unknown)
        desk.clock.go_on(passed)
    assert hold_after(desk, unknown)["duration"] == duration


@pytest.mark.parametrize(
    ("failure", "kind", "duration"),
    [
        (errors.RefreshTemporarilyFailed("Down."), "temporary", 5),
        (errors.RefreshTemporarilyFailed("Down.", retry_at=START + 30), "temporary", 30),
        (errors.RefreshTemporarilyFailed("Down.", retry_at=START + 600), "temporary", 60),
        (errors.RefreshTemporarilyFailed("Down.", retry_at=START - 9), "temporary", 1),
        (errors.RefreshConfigError("Down.", is_local=True), "config", 60),
        (errors.ReauthRequired("Down."), "refused", 60),
        (KeyError("a bug"), "temporary", 5),
    ],
)
def test_a_refused_credential_that_cannot_be_replaced_waits_alone(
    plain: Desk, failure: Exception, kind: str, duration: float
) -> None:
    refused = Credential("assertion", "refused", replaceable=True)

    def replacement(credential: Credential, refusal: errors.ReauthRequired) -> Credential:
        raise failure

    vars(plain.grant)["replacement"] = replacement
    plain.grant.script = [REFUSED]
    with pytest.raises(errors.TokenError):
        plain.present(refused)
    backoff = plain.stored["backoff"]
    assert (backoff["kind"], backoff["duration"]) == (kind, pytest.approx(duration))
    view = plain.slot.look()
    assert isinstance(plain.eligibility.objection(view, refused), errors.TokenError)
    assert plain.eligibility.objection(view, refused._replace(secret="renewed")) is None
    plain.eligibility.raise_if_backing_off(view.record, view.read_at)


# --- without the store -----------------------------------------------------------------------


def test_without_the_store_the_token_stays_in_memory_and_the_failure_is_logged(plain: Desk) -> None:
    plain.grant.requested = {"scope": "a"}
    view = plain.presenter.present_without_store(errors.StoreError("No such host."))
    assert token_of(view) == "access-1"
    assert view is not None
    assert (view.tag, view.record.requested) == (None, {"scope": "a"})
    assert "No such host" in str(plain.events[0])


def test_without_the_store_a_failure_starts_a_backoff_and_a_success_ends_it(plain: Desk) -> None:
    plain.grant.script = [DOWN]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        plain.presenter.present_without_store(LOST)
    with pytest.raises(errors.RefreshTemporarilyFailed, match="Next attempt in"):
        plain.presenter.present_without_store(LOST)
    assert plain.grant.presented == ["client"]
    plain.clock.go_on(10)
    assert token_of(plain.presenter.present_without_store(LOST)) == "access-1"
    assert plain.eligibility.next_step(plain.slot.empty_view().record) == 1
    assert plain.emitted() == ["StoreFailed"]


def test_without_the_store_no_credential_that_can_be_spent_is_presented(desk: Desk) -> None:
    assert desk.presenter.present_without_store(LOST) is None
    assert desk.grant.presented == []
    assert desk.events == []


# --- the fields of a token --------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


class Generous(Authority):
    """A server that answers with more than a token."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.more = more

    def issue(self) -> dict[str, Any]:
        return super().issue() | self.more


@pytest.mark.parametrize(
    "more",
    [
        {"more": nested(900)},
        {"more": nested(100_000)},
        {"more": "x" * 400_000},
        {"more": object()},
        {"scope": "x" * 1_000_000, "token_type": "y" * 1_000_000},
    ],
    ids=lambda _: "",
)
def test_extras_that_no_record_can_hold_do_not_cost_the_refresh_token(
    more: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "token.json"
    events: list[Event] = []
    keeper = TokenKeeper(Generous(**more), FileStore(path), on_event=events.append)
    token = keeper.current()
    assert (token.refresh_token, dict(token.extras)) == ("refresh-1", {})
    assert ExtrasDropped(token.fingerprint, store=repr(keeper.store)) in events
    assert not [event for event in events if isinstance(event, SaveFailed)]
    assert json.loads(path.read_text())["document"]["token"]["refresh_token"] == "refresh-1"


def test_extras_of_usual_size_are_kept(tmp_path: Path) -> None:
    more = {"id_token": "x" * 4000, "user": {"groups": [*range(1000)]}}
    keeper = TokenKeeper(Generous(**more), FileStore(tmp_path / "token.json"))
    assert keeper.current().extras == more
    assert "ExtrasDropped" not in keeper.stats


def test_a_mapping_that_is_nested_deeply_is_adopted_without_its_extras(tmp_path: Path) -> None:
    keeper = TokenKeeper(Authority(), FileStore(tmp_path / "token.json"))
    keeper.adopt({"access_token": "made-up", "refresh_token": "r", "more": nested(100_000)})
    token = TokenKeeper(Authority(), FileStore(tmp_path / "token.json")).current()
    assert (token.access_token, token.refresh_token, dict(token.extras)) == ("made-up", "r", {})


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("read", "admin write"),
        ("read admin", "write"),
        (["write"], "admin read"),
        ("read,write,admin", None),
        ("more write read admin", None),
        (None, None),
        ("", None),
    ],
)
def test_a_narrower_scope_than_requested_is_logged_once(
    granted: Any, missing: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    grant = Generous(scope=granted)
    grant.requested = {"scope": "admin read write"}
    events: list[Event] = []
    keeper = TokenKeeper(grant, on_event=events.append)
    keeper.current()
    keeper.refresh()
    emitted = [event for event in events if isinstance(event, ScopeNarrowed)]
    narrowed = [] if missing is None else [ScopeNarrowed(missing, store="MemoryStore()")]
    assert emitted == narrowed
    assert sum("granted less" in line for line in caplog.messages) == len(emitted)


def test_a_stored_error_message_is_cut(desk: Desk) -> None:
    desk.grant.script = [errors.RefreshConfigError("x" * 100_000)]
    with pytest.raises(errors.RefreshConfigError):
        desk.present()
    assert len(json.dumps(desk.shelf.writes[-1])) < 10_000
