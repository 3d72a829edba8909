"""One presentation: what is written before it and after it, whatever comes between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import Authority, Clockwork, Machinist, Shelf, ShelfLock

from tokenadapter import FileStore, TokenKeeper, errors
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
LOST = errors.StoreError("The answer got lost.")
DOWN = errors.RefreshTemporarilyFailed("Down.", error="try_later", processed=False)
REFUSED = errors.ReauthRequired("Refused.", error="invalid_grant")


class Notebook(Shelf):
    """A shelf that notes how it is asked.

    ``next`` holds what the next saves do: each writes or not, and then raises.
    """

    def __init__(self, clock: Clockwork) -> None:
        super().__init__(clock)
        self.tags: list[str] = []
        self.next: list[bool] = []
        self.marks: list[tuple[str, bool]] = []

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        self.tags.append(tag)
        if not self.next:
            return super().save(document, tag=tag, expected=expected, ttl=ttl)
        if self.next.pop(0):
            super().save(document, tag=tag, expected=expected, ttl=ttl)
        raise LOST

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        super().remember_spent(note, for_good=for_good)
        self.marks.append((note, for_good))


class Desk:
    """One process that presents things, and another that shares its slot."""

    def __init__(self, grant: Authority) -> None:
        self.grant = grant
        self.clock = Clockwork()
        self.shelf = Notebook(self.clock)
        self.slot = Slot(self.shelf, grant, self.clock)
        self.other = Slot(self.shelf, grant, self.clock)
        self.eligibility = Eligibility(self.slot, grant, self.clock)
        self.events: list[Event] = []
        self.served: list[View] = []
        self.presenter = Presenter(
            self.slot, grant, self.eligibility, self.clock, Journal(self.events.append)
        )

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
        """While the server is asked, somebody else writes."""

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

    def told(self) -> list[str]:
        """What was emitted, beside the start of each presentation."""
        names = [type(event).__name__ for event in self.events]
        return [name for name in names if name != "RenewalStarted"]


@pytest.fixture
def desk() -> Desk:
    return Desk(Authority())


@pytest.fixture
def plain() -> Desk:
    """One whose grant spends nothing."""
    return Desk(Machinist())


def held(view: View) -> Record:
    return view.record.unknown(Backoff(view.read_at, 9.0, 1, cause="Theirs."))


def renewed(view: View) -> Record:
    token = Token("theirs", issued_at=view.read_at, refresh_token="theirs")
    return view.record.minted(token, {}, view.read_at)


def token_of(view: View | None) -> str | None:
    return view and view.record.token and view.record.token.access_token


# --- before the request ----------------------------------------------------------------------


@pytest.mark.parametrize("can_take_back", [True, False])
def test_what_stands_in_the_way_of_the_save_is_found_before_anything_is_sent(
    desk: Desk, can_take_back: bool
) -> None:
    def fails(step: str) -> bool:
        if step == "prepare" and not can_take_back:
            desk.shelf.next = [False] * 2
        return step == "prepare"

    desk.shelf.failing = fails
    with pytest.raises(errors.StoreError, match="prepare fails"):
        desk.present()
    assert desk.grant.presented == []
    assert ("intent" in desk.stored) is not can_take_back


@pytest.mark.parametrize("is_overtaken", [True, False])
def test_who_has_lost_the_lock_sends_nothing_and_leaves_what_others_wrote(
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


def test_who_has_lost_the_lock_leaves_the_announcement_of_who_has_it(desk: Desk) -> None:
    def lose_lock() -> None:
        desk.shelf.holder = None
        view = desk.other.look()
        key = desk.eligibility.digest(view.record, FIRST)
        theirs = Waiter(desk.clock.process(), desk.clock.wall() + 60)
        desk.other.write(view, view.record.presenting(key, desk.clock.wall(), theirs))

    desk.shelf.prepare = lose_lock  # type: ignore[method-assign]
    assert desk.present() is None
    assert desk.grant.presented == []
    assert desk.stored["intent"]["attempt"] == 2


# --- saving ----------------------------------------------------------------------------------


def test_of_what_was_spent_only_what_may_come_back_is_remembered_for_good(desk: Desk) -> None:
    for _ in range(2):
        desk.present()
    assert desk.shelf.marks == [(spent_hash("refresh-0"), True), (spent_hash("refresh-1"), False)]
    assert desk.stored["spent"] == [spent_hash("refresh-0")]
    view = desk.slot.look()
    adopted = Token("adopted", refresh_token="refresh-2", issued_at=view.read_at)
    desk.slot.write(view, view.record.adopted(adopted, {}, view.read_at))
    for _ in range(2):
        desk.present()
    assert desk.shelf.marks[2:] == [
        (spent_hash("refresh-2"), True),
        (spent_hash("refresh-3"), False),
    ]
    assert desk.stored["spent"] == [spent_hash("refresh-0"), spent_hash("refresh-2")]


def test_a_spent_token_that_cannot_be_remembered_is_reported_once_and_costs_nothing(
    desk: Desk,
) -> None:
    desk.shelf.failing = lambda step: step == "remember_spent"
    assert token_of(desk.present()) == "access-1"
    assert token_of(desk.present()) == "access-2"
    assert desk.told() == ["StoreFailed", "Renewed", "Renewed"]
    assert any("remember_spent fails in this test" in str(event) for event in desk.events)


@pytest.mark.parametrize("written", [True, False])
def test_a_save_is_repeated_as_the_same_write(desk: Desk, written: bool) -> None:
    def fail() -> None:
        desk.shelf.tags.clear()
        desk.shelf.next = [written, False] * 3

    desk.grant.asking = fail
    assert token_of(desk.present()) == "access-1"
    assert len(desk.shelf.tags) == 7
    assert len(set(desk.shelf.tags)) == 1


def test_a_token_that_others_have_added_to_was_saved(desk: Desk) -> None:
    def fail() -> None:
        desk.shelf.next = [True, False]

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
    # It is noted as if nothing had been the matter.
    assert desk.shelf.marks == [(spent_hash("refresh-0"), True)]
    assert [token_of(view) for view in desk.served] == ["access-1"]


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_plain", [True, False])
def test_who_renewed_meanwhile_is_not_overwritten(has_token: bool, is_plain: bool) -> None:
    desk = Desk(Machinist() if is_plain else Authority())
    if has_token:
        desk.present()
    desk.intrude(renewed)
    assert desk.present() is None
    assert desk.stored["token"]["access_token"] == "theirs"


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_plain", [True, False])
def test_who_wrote_something_else_meanwhile_costs_no_token(has_token: bool, is_plain: bool) -> None:
    desk = Desk(Machinist() if is_plain else Authority())
    if has_token:
        desk.present()
    desk.intrude(held)
    view = desk.present()
    assert token_of(view) == f"access-{1 + has_token}"
    assert desk.stored["token"]["access_token"] == token_of(view)


def test_a_token_is_saved_where_others_began_a_record_anew(desk: Desk) -> None:
    desk.intrude(lambda view: held(view)._replace(salt="other", intent=None))
    assert token_of(desk.present()) == "access-1"
    assert desk.stored["salt"] == "other"


def test_a_token_is_not_saved_where_somebody_gave_it_up(desk: Desk) -> None:
    desk.present()
    desk.intrude(lambda view: view.record.forgotten(view.read_at))
    assert desk.present() is None
    assert "token" not in desk.stored


def test_a_token_that_spent_nothing_is_used_although_it_cannot_be_saved(plain: Desk) -> None:
    plain.shelf.next = [False] * 2
    assert token_of(plain.present()) == "access-1"
    assert plain.told() == ["StoreFailed", "Renewed"]
    assert "The answer got lost" in str(plain.events[1])


def test_a_renewal_is_told_with_what_was_presented_and_how_long_it_took(desk: Desk) -> None:
    desk.grant.asking = lambda: desk.clock.go_on(2.5)
    view = desk.present()
    assert view is not None
    assert view.record.token is not None
    started, event = desk.events
    assert started == RenewalStarted("refresh_token")
    assert event == Renewed(view.record.token.fingerprint, "refresh_token", 2.5)


def test_the_source_is_given_the_token_before(plain: Desk) -> None:
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


def test_the_pauses_of_a_save_that_fails_grow_to_five_seconds(desk: Desk) -> None:
    def fail() -> None:
        desk.shelf.next = [False] * 18

    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    desk.present()
    assert desk.clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5])
    failed = SaveFailed(Token("access-1").fingerprint, str(LOST), lost=False)
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


def test_a_token_that_cannot_be_saved_keeps_others_from_the_lock_until_it_is(desk: Desk) -> None:
    taken: list[bool] = []
    sleep = desk.clock.sleep

    def sleep_while_others_try(seconds: float) -> None:
        sleep(seconds)
        taken.append(desk.shelf.lock().acquire(60))

    def fail() -> None:
        desk.shelf.next = [False] * 40

    desk.shelf.lock = lambda: LeaseLock(desk.shelf)  # type: ignore[method-assign]
    desk.clock.sleep = sleep_while_others_try  # type: ignore[method-assign]
    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    assert token_of(desk.present()) == "access-1"
    assert sum(desk.clock.slept) > 60  # for longer than the lock was taken for
    assert taken == [False] * 20


def test_a_token_that_is_saved_late_counts_from_when_it_was_obtained(desk: Desk) -> None:
    """What others obtained meanwhile is newer, also where the record was lost since."""

    def fail() -> None:
        desk.shelf.next = [False] * 40

    desk.clock.is_helper = lambda: True  # type: ignore[method-assign]
    desk.grant.asking = fail
    began = desk.clock.wall()
    desk.present()
    assert desk.clock.wall() > began + 10
    assert desk.stored["written"] == pytest.approx(began, abs=0.1)


@pytest.mark.parametrize("name", ["access-1", "access-2"])
def test_a_late_answer_counts_while_another_refresh_token_is_presented(
    desk: Desk, name: str
) -> None:
    """Somebody hands that one in, and nobody knows yet whether the server accepts it."""
    if name == "access-2":
        desk.present()

    def announced(view: View) -> Record:
        key = digest(view.record.salt, "refresh_token", "handed in")
        return view.record.presenting(key, view.read_at, Waiter("other", view.read_at + 9))

    desk.intrude(announced, takes_lock=True)
    assert token_of(desk.present()) == name
    assert desk.stored["token"]["access_token"] == name


def keep_refresh_token(desk: Desk) -> None:
    """Have the server rotate none any more."""
    fetch = desk.grant.fetch

    def keeping(credential: Credential, previous: Token | None) -> Any:
        return {**fetch(credential, previous), "refresh_token": credential.secret}  # type: ignore[dict-item]

    desk.grant.fetch = keeping  # type: ignore[method-assign]


def announced_again(view: View) -> Record:
    intent = view.record.intent
    assert intent is not None
    until = intent.awaited[-1].until + 20
    return view.record.presenting(intent.credential, view.read_at, Waiter("other", until))


@pytest.mark.parametrize("keeps", [True, False])
def test_a_late_answer_keeps_others_waiting_for_the_answer_to_the_same_refresh_token(
    desk: Desk, keeps: bool
) -> None:
    """By that, the server may spend it yet, although it gave no new one to the late process."""
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
    return view.record.minted(theirs, {}, view.read_at, intent=view.record.intent)


def test_who_gets_an_answer_after_another_token_is_awaited_no_more(desk: Desk) -> None:
    desk.present()
    keep_refresh_token(desk)
    desk.intrude(answered_first, takes_lock=True)
    assert desk.present() is None
    assert desk.stored["token"]["access_token"] == "theirs"
    assert desk.stored["intent"]["awaited"] == []


def test_a_refresh_token_that_takes_the_place_of_the_stored_one_is_saved_however_late(
    desk: Desk,
) -> None:
    """The server has kept it for another process, and spent it for this one."""
    desk.present()
    desk.intrude(answered_first, takes_lock=True)
    assert token_of(desk.present()) == "access-2"
    assert desk.stored["token"]["refresh_token"] == "refresh-2"
    assert "intent" not in desk.stored


def test_what_brought_a_token_that_comes_too_late_is_marked_as_spent(desk: Desk) -> None:
    desk.intrude(renewed)
    assert desk.present() is None
    assert desk.stored["token"]["access_token"] == "theirs"
    assert desk.shelf.marks == [(spent_hash("refresh-0"), True)]


# --- what a source returns -------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0.0, 100.0])
@pytest.mark.parametrize(
    ("age", "lifetime", "left"), [(0, 3600, 3600), (600, 3600, 3000), (-5, 3600, 3600)]
)
def test_a_token_that_was_obtained_a_while_ago_has_less_left(
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
def test_an_answer_without_a_time_was_issued_when_it_was_asked_for(
    plain: Desk, answer: Any
) -> None:
    plain.grant.fetch = lambda credential, previous: answer  # type: ignore[method-assign]
    view = plain.present()
    assert view is not None
    assert view.record.token == Token("abc", issued_at=plain.clock.now)


def test_what_is_no_token_is_told_by_its_kind(plain: Desk) -> None:
    plain.grant.fetch = lambda credential, previous: 5  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(errors.RefreshConfigError, match=r"no token: it returned int\. What"):
        plain.present()


@pytest.mark.parametrize("answer", [5, {}])
def test_what_is_no_token_may_have_spent_the_refresh_token(desk: Desk, answer: Any) -> None:
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
    """What comes of a presentation that fails while somebody else writes."""
    desk.grant.script = [failure]
    desk.intrude(change, **how)
    return desk.present


def test_a_failure_is_written_beside_what_others_wrote_if_that_is_no_renewal(desk: Desk) -> None:
    with pytest.raises(errors.RefreshTemporarilyFailed):
        presenting(desk, DOWN, held)()
    assert desk.stored["backoff"]["cause"] == "Down."
    assert "intent" not in desk.stored


def test_a_failure_of_what_spends_nothing_is_written_too(plain: Desk) -> None:
    plain.present()
    with pytest.raises(errors.RefreshTemporarilyFailed):
        presenting(plain, DOWN, held)()
    assert plain.stored["backoff"]["cause"] == "Down."


def test_a_password_that_was_refused_stays_so_although_others_have_renewed(desk: Desk) -> None:
    desk.present()
    password = Credential("password", "s3cr3t", refusal_is_final=True)
    assert presenting(desk, REFUSED, renewed)(password) is None
    view = desk.slot.look()
    desk.eligibility.raise_if_backing_off(view.record, view.read_at)
    assert [*desk.eligibility._own_refusals] == [password]


@pytest.mark.parametrize("takes_lock", [True, False])
def test_a_failure_is_kept_where_others_go_on_with_the_record(desk: Desk, takes_lock: bool) -> None:
    desk.present()
    before = desk.slot.look().record
    change = held if takes_lock else renewed
    assert presenting(desk, DOWN, change, takes_lock=takes_lock)() is None
    assert desk.stored.get("backoff", {}).get("cause") != "Down."
    # It binds us as long as the token that we saw is there.
    with pytest.raises(errors.RefreshTemporarilyFailed, match=r"^Down"):
        desk.eligibility.raise_if_backing_off(before, 0.0)
    desk.eligibility.raise_if_backing_off(renewed(desk.slot.look()), 0.0)


@pytest.mark.parametrize("takes_lock", [True, False])
def test_a_refusal_is_kept_where_others_go_on_with_the_record(desk: Desk, takes_lock: bool) -> None:
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


def test_what_cannot_be_written_binds_this_process(desk: Desk) -> None:
    desk.present()
    record = desk.slot.look().record

    def fail() -> None:
        desk.shelf.next = [False] * 2

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


def test_a_tombstone_says_what_was_refused_and_how(desk: Desk) -> None:
    desk.grant.script = [REFUSED]
    assert desk.present() is None
    [stone] = desk.stored["tombstones"]
    assert (stone["kind"], stone["error"], stone["cause"], stone["at"]) == (
        "refresh_token",
        "invalid_grant",
        "Refused.",
        desk.clock.now,
    )


# --- how long nobody asks --------------------------------------------------------------------


def hold_after(desk: Desk, failure: errors.TokenError) -> dict[str, Any]:
    desk.grant.script = [failure]
    with pytest.raises(type(failure)):
        desk.present()
    backoff: dict[str, Any] = desk.stored["backoff"]
    return backoff


def test_a_hold_says_what_it_is_for(desk: Desk) -> None:
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
def test_what_the_server_asks_for_is_done_within_a_second_and_an_hour(
    desk: Desk, retry_after: float, duration: float
) -> None:
    failure = errors.RefreshTemporarilyFailed("Later.", retry_after=retry_after, processed=False)
    assert hold_after(desk, failure)["duration"] == duration
    assert failure.retry_at == desk.clock.now + duration


@pytest.mark.parametrize(
    ("grace", "passed", "duration"),
    [(8.0, 0.0, 4.0), (8.0, 6.0, 1.0), (8.0, 7.5, 10.0), (60.0, 0.0, 5.0), (0.0, 0.0, 5.0)],
)
def test_while_a_grace_lasts_there_is_another_try(
    desk: Desk, grace: float, passed: float, duration: float
) -> None:
    desk.grant.grace = grace
    unknown = errors.RefreshTemporarilyFailed("Gone.")
    if passed:
        hold_after(desk, unknown)
        desk.clock.go_on(passed)
    assert hold_after(desk, unknown)["duration"] == duration


# --- without the store -----------------------------------------------------------------------


def test_without_the_store_its_trouble_is_told_and_the_token_is_ours_alone(plain: Desk) -> None:
    plain.grant.requested = {"scope": "a"}
    view = plain.presenter.present_alone(errors.StoreError("No such host."))
    assert token_of(view) == "access-1"
    assert view is not None
    assert (view.tag, view.record.requested) == (None, {"scope": "a"})
    assert "No such host" in str(plain.events[0])


def test_without_the_store_a_failure_holds_and_a_success_frees(plain: Desk) -> None:
    plain.grant.script = [DOWN]
    with pytest.raises(errors.RefreshTemporarilyFailed):
        plain.presenter.present_alone(LOST)
    with pytest.raises(errors.RefreshTemporarilyFailed, match="Nobody asks again"):
        plain.presenter.present_alone(LOST)
    assert plain.grant.presented == ["client"]
    plain.clock.go_on(10)
    assert token_of(plain.presenter.present_alone(LOST)) == "access-1"
    assert plain.eligibility.step_after(plain.slot.nowhere().record) == 1
    assert plain.told() == ["StoreFailed"]


def test_without_the_store_what_would_be_spent_is_not_presented(desk: Desk) -> None:
    assert desk.presenter.present_alone(LOST) is None
    assert desk.grant.presented == []
    assert desk.events == []


# --- what comes with a token ------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


class Generous(Authority):
    """Answers with more than a token."""

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
def test_what_no_record_can_hold_does_not_cost_the_refresh_token(
    more: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "token.json"
    events: list[Event] = []
    keeper = TokenKeeper(Generous(**more), FileStore(path), on_event=events.append)
    token = keeper.current()
    assert (token.refresh_token, dict(token.extras)) == ("refresh-1", {})
    assert ExtrasDropped(token.fingerprint) in events
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
def test_a_scope_that_is_narrower_than_asked_for_is_told_once(
    granted: Any, missing: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    grant = Generous(scope=granted)
    grant.requested = {"scope": "admin read write"}
    events: list[Event] = []
    keeper = TokenKeeper(grant, on_event=events.append)
    keeper.current()
    keeper.refresh()
    told = [event for event in events if isinstance(event, ScopeNarrowed)]
    assert told == ([] if missing is None else [ScopeNarrowed(missing)])
    assert sum("granted less" in line for line in caplog.messages) == len(told)


def test_of_an_error_no_more_is_stored_than_people_read(desk: Desk) -> None:
    desk.grant.script = [errors.RefreshConfigError("x" * 100_000)]
    with pytest.raises(errors.RefreshConfigError):
        desk.present()
    assert len(json.dumps(desk.shelf.writes[-1])) < 10_000
