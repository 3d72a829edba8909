"""A process that finds a reservation waits for the process that made it, for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from doubles import Authority, Clockwork, Shelf

from tokenadapter import errors
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.events import Event, Found, Waited
from tokenadapter.token import Token

HOUR = 3600.0


class Counter(Shelf):
    """A shelf with reservations and glimpses.

    :ivar reserved: whether a process has the reservation.
    :ivar steps: the operations so far.
    """

    def __init__(self, clock: Clockwork) -> None:
        super().__init__(clock)
        self.reserved = False
        self.steps: list[str] = []
        self.failing = lambda step: bool(self.steps.append(step))

    def glimpse(self) -> object:
        return self.slot and self.slot[1]

    def reserve(self) -> AbstractContextManager[object] | None:
        self.steps.append("reserve")
        if self.reserved or self.holder is not None:
            return None
        self.reserved = True
        return self._reservation()

    @contextmanager
    def _reservation(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.reserved = False


class Office:
    """Two processes that share a counter, and what happens while one of them sleeps."""

    def __init__(self) -> None:
        self.clock = Clockwork()
        self.counter = Counter(self.clock)
        self.authority = Authority()
        self.happens: dict[int, Callable[[], object]] = {}
        self.events: list[Event] = []
        self.threads = 0
        self.sleep, self.start = self.clock.sleep, self.clock.start
        self.clock.sleep, self.clock.start = self._sleep, self._start  # type: ignore[method-assign]
        self.other = self.keeper()
        self.first = self.other.current()
        self.counter.steps.clear()
        self.threads = 0

    def keeper(self, **settings: Any) -> TokenKeeper:
        heard = self.events.append
        return TokenKeeper(
            self.authority, self.counter, runtime=self.clock, on_event=heard, **settings
        )

    def expire(self) -> None:
        self.clock.go_on(HOUR)

    def renew(self) -> None:
        """The other process, which has the reservation, renews."""
        self.counter.reserved = False
        self.other.renew(self.first)

    def write(self, **changes: Any) -> None:
        assert self.counter.slot is not None
        document, tag = self.counter.slot
        self.counter.slot = {**document, **changes}, f"{int(tag.partition('-')[0]) + 1}-theirs"

    def _sleep(self, seconds: float) -> None:
        self.sleep(seconds)
        self.happens.get(len(self.clock.slept), lambda: None)()

    def _start(self, work: Callable[[], None]) -> bool:
        self.threads += 1
        return self.start(work)


@pytest.fixture
def office() -> Office:
    return Office()


def down() -> errors.RefreshTemporarilyFailed:
    """The error of a source whose server is down."""
    return errors.RefreshTemporarilyFailed("It is down.", processed=False)


def test_a_renewal_is_reserved_while_it_is_in_progress(office: Office) -> None:
    reserved: list[bool] = []
    office.authority.asking = lambda: reserved.append(office.counter.reserved)
    office.expire()
    assert office.keeper().current().access_token == "access-2"
    assert reserved == [True]
    assert not office.counter.reserved
    # The reservation comes right after the first look.
    assert office.counter.steps[:3] == ["load", "reserve", "lock"]


def test_a_process_that_finds_a_reservation_starts_no_thread_and_tries_no_lock(
    office: Office,
) -> None:
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()

    def steps_of_the_other() -> None:
        office.renew()
        office.counter.steps.clear()
        office.threads = 0

    office.happens[5] = steps_of_the_other
    outcome = keeper.obtain()
    assert (outcome.token.access_token, outcome.is_new, outcome.minted) == ("access-2", True, False)
    assert office.counter.steps == ["reserve", "load"]
    assert office.threads == 0
    assert len(office.authority.presented) == 2
    assert [event for event in office.events if isinstance(event, Waited)][-1].seconds > 0


def test_a_waiting_process_looks_less_and_less_often(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    office.happens[60] = office.renew
    office.keeper().current()
    assert office.clock.slept[:10] == [0.005] * 10
    assert office.clock.slept[20] == pytest.approx(sum(office.clock.slept[:20]) / 10)
    assert max(office.clock.slept) == office.counter.poll[1]
    # Until something is written, only glimpses are made.
    assert office.counter.steps[:61] == ["load", *["reserve"] * 60]


@pytest.mark.parametrize("is_refused", [False, True])
def test_the_reservation_of_an_ended_process_is_free(office: Office, is_refused: bool) -> None:
    keeper = office.keeper()
    rejected = keeper.current() if is_refused else None
    office.expire()
    office.counter.reserved = True
    office.happens[3] = lambda: setattr(office.counter, "reserved", False)
    outcome = keeper.obtain(rejected)
    assert (outcome.token.access_token, outcome.minted) == ("access-2", True)
    assert len(office.clock.slept) == 3


def test_a_reservation_is_respected_for_a_limited_time(office: Office) -> None:
    """Its owner may be stopped, or a forked child may have inherited it."""
    office.expire()
    office.counter.reserved = True
    began = office.clock.ticks
    assert office.keeper().current().access_token == "access-2"
    assert 5.0 <= office.clock.ticks - began < 5.1
    assert office.counter.reserved


def test_half_of_the_callers_time_is_left_for_its_own_renewal(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    assert office.keeper().current(timeout=1.0).access_token == "access-2"
    assert sum(office.clock.slept) == pytest.approx(0.5)


def test_waiting_for_a_reservation_counts_toward_the_timeout(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    office.counter.holder = office.counter.lock()
    began = office.clock.ticks
    with pytest.raises(errors.LockTimeout, match=r"^Other .* held the lock of .* for 8\.0"):
        office.keeper(lock_timeout=8.0, inline=True).current()
    assert 8.0 <= office.clock.ticks - began < 8.1


def intent(office: Office) -> dict[str, Any]:
    return {"credential": "x", "first_sent": office.clock.now, "attempt": 1}


def test_the_timeout_error_includes_the_wait_for_a_reservation(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    office.clock.start = lambda work: True  # type: ignore[method-assign]  # the work never runs
    with pytest.raises(errors.LockTimeout, match=r"did not finish within 0\.2 s"):
        office.keeper().current(timeout=0.2)


def write_hold(office: Office, remaining: float) -> None:
    backoff = {"set_at": office.clock.now - 5.0, "duration": 5.0 + remaining, "step": 1}
    office.write(backoff={**backoff, "kind": "temporary", "cause": "It is down."})


def test_during_a_backoff_no_caller_waits_for_a_reservation(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    write_hold(office, 5.0)
    with pytest.raises(errors.RefreshTemporarilyFailed, match="It is down"):
        office.keeper().current()
    assert office.clock.slept == []


@pytest.mark.parametrize("is_spent", [False, True])
def test_if_a_login_is_needed_no_caller_waits_for_a_reservation(
    office: Office, is_spent: bool
) -> None:
    """Unless that was before the token that is there."""
    office.expire()
    office.authority.revoked = True
    with pytest.raises(errors.ReauthRequired):
        office.keeper().current()
    if is_spent:
        office.authority.revoked = False
        office.clock.go_on(1.0)
        office.other.adopt(office.authority.issue())
        office.expire()
    office.counter.reserved = True
    office.clock.slept.clear()
    if is_spent:
        assert office.keeper().current().access_token == "access-3"
    else:
        with pytest.raises(errors.ReauthRequired):
            office.keeper().current()
    assert bool(office.clock.slept) == is_spent


def test_if_a_first_login_is_needed_no_caller_waits_for_a_reservation(office: Office) -> None:
    office.counter.slot = None
    office.authority.revoked = True
    office.counter.spent.clear()
    with pytest.raises(errors.ReauthRequired, match="invalid_grant"):
        office.keeper().current()
    office.counter.reserved = True
    with pytest.raises(errors.ReauthRequired, match="invalid_grant"):
        office.keeper().current()
    assert office.clock.slept == []


def test_a_token_that_was_refused_when_it_was_new_is_not_waited_for(office: Office) -> None:
    keeper = office.keeper()
    keeper.distrust(keeper.current())
    office.counter.reserved = True
    outcome = keeper.obtain(keeper.current())
    assert outcome.distrusted
    assert office.clock.slept == []


def test_no_caller_waits_for_a_process_that_has_given_up(office: Office) -> None:
    """The server is down for the other process, which has saved a backoff."""
    office.expire()
    office.authority.script = [down()]

    def fail() -> None:
        office.counter.reserved = False
        with pytest.raises(errors.RefreshTemporarilyFailed):
            office.other.renew(office.first)
        office.counter.reserved = True  # by the next process, which fails the same way

    office.counter.reserved = True
    office.happens[2] = fail
    with pytest.raises(errors.RefreshTemporarilyFailed, match="It is down"):
        office.keeper().current()
    assert len(office.clock.slept) == 2


def test_no_caller_waits_for_a_process_that_left_without_writing(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    office.happens[2] = office.write
    assert office.keeper().current().access_token == "access-2"
    assert len(office.clock.slept) == 2


@pytest.mark.parametrize("has_failed_before", [False, True])
def test_a_caller_keeps_waiting_while_an_intent_shows_a_renewal(
    office: Office, has_failed_before: bool
) -> None:
    office.expire()
    if has_failed_before:
        write_hold(office, -1.0)
    office.counter.reserved = True
    office.happens[2] = lambda: office.write(intent=intent(office))
    office.happens[4] = office.renew
    assert office.keeper().current().access_token == "access-2"
    assert len(office.clock.slept) == 4


def test_a_token_that_another_process_renewed_before_is_found_by_one_look(office: Office) -> None:
    keeper = office.keeper()
    rejected = keeper.current()
    office.other.renew(rejected)
    office.counter.steps.clear()
    office.threads = 0
    outcome = keeper.obtain(rejected)
    assert (outcome.token.access_token, outcome.is_new) == ("access-2", False)
    assert office.counter.steps == ["reserve", "load"]
    assert office.threads == 0


@pytest.mark.parametrize(
    ("age", "wanted"), [(HOUR - 120, {"patient": True}), (600.0, {"min_validity": 3300.0})]
)
def test_a_token_that_is_not_fresh_enough_does_not_end_the_wait(
    office: Office, age: float, wanted: dict[str, Any]
) -> None:
    keeper = office.keeper()
    keeper.current()
    office.clock.go_on(age)
    office.counter.reserved = True
    office.happens[2] = office.renew
    assert keeper.obtain(**wanted).token.access_token == "access-2"
    assert len(office.clock.slept) == 2


def test_a_token_minted_during_the_wait_is_taken_even_if_it_seems_old(office: Office) -> None:
    """Clocks differ, so a second renewal would not help."""
    office.expire()
    office.counter.reserved = True
    old = {"access_token": "theirs", "issued_at": office.clock.now - 2 * HOUR}
    token = Token.from_dict({**old, "expires_at": office.clock.now - HOUR}, now=office.clock.now)
    office.happens[2] = lambda: office.write(token=token.to_dict())
    outcome = office.keeper().obtain()
    assert (outcome.token.access_token, outcome.is_new) == ("theirs", True)
    assert len(office.authority.presented) == 1


def test_the_rejected_token_does_not_end_the_wait(office: Office) -> None:
    keeper = office.keeper()
    rejected = keeper.current()
    office.counter.reserved = True
    office.happens[2] = lambda: office.write(intent=intent(office))
    office.happens[4] = office.renew
    assert keeper.renew(rejected).access_token == "access-2"
    assert len(office.clock.slept) == 4


def test_the_rejected_token_is_not_taken_even_if_it_appears_in_the_store(
    office: Office,
) -> None:
    office.expire()
    office.counter.reserved = True
    refused = Token.from_dict({"access_token": "theirs"}, now=office.clock.now)
    office.happens[2] = lambda: office.write(token=refused.to_dict(), intent=intent(office))
    office.happens[4] = lambda: office.other.adopt(office.authority.issue())
    assert office.keeper().renew(refused).access_token == "access-2"
    assert len(office.clock.slept) == 4


def test_one_thread_waits_and_the_others_join_a_renewal(office: Office) -> None:
    """A signal handler in the waiting thread does so as well."""
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()
    found: list[Token] = []

    def join() -> None:
        found.append(keeper.current())
        found.append(keeper.renew(found[0]))  # the first thread still waits, so this one does not

    office.happens[2] = join
    assert keeper.current().is_same(found[1])
    assert [token.access_token for token in found] == ["access-2", "access-3"]
    assert office.threads == 2
    assert len(office.clock.slept) == 2

    def renew_in_the_other_process() -> None:
        office.counter.reserved = False
        office.other.refresh()

    # From now on, a thread waits again.
    office.expire()
    office.happens[4] = renew_in_the_other_process
    assert keeper.current().access_token == "access-4"
    assert len(office.clock.slept) == 4


def test_a_source_that_requests_a_token_from_its_own_renewal_fails_at_once(office: Office) -> None:
    """As a source does that sends its request through the session that it is for."""
    keeper = office.keeper()
    keeper.current()
    office.clock.go_on(HOUR - 500)
    raised: list[Exception] = []

    def ask() -> None:
        try:
            keeper.obtain(office.first)
        except errors.TokenError as error:
            raised.append(error)

    office.authority.asking = ask
    assert keeper.current().access_token == "access-1"
    landed(keeper)
    assert len(raised) == 1
    assert office.clock.slept == []


def test_an_interrupted_caller_leaves_no_reservation(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()

    def interrupt() -> None:
        raise KeyboardInterrupt

    office.happens[2] = interrupt
    with pytest.raises(KeyboardInterrupt):
        keeper.current()
    office.happens[4] = office.renew
    office.threads = 0
    assert keeper.current().access_token == "access-2"
    # Only the helper of the other keeper.
    assert (office.threads, len(office.clock.slept)) == (1, 4)


def test_a_forked_child_waits_although_a_thread_of_its_parent_did(office: Office) -> None:
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()
    waits, over = threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        over.wait(60)

    office.happens[1] = wait
    found: list[Token] = []
    thread = threading.Thread(target=lambda: found.append(keeper.current()))
    thread.start()
    assert waits.wait(60)
    keeper._after_fork()
    office.happens[3] = office.renew
    office.threads = 0
    assert keeper.current().access_token == "access-2"
    assert office.threads == 1
    assert "Renewed" not in keeper.stats
    over.set()
    thread.join()
    assert [token.access_token for token in found] == ["access-2"]


def test_a_child_forked_by_a_waiting_thread_continues(office: Office) -> None:
    """For example by a signal handler."""
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()
    office.happens[1] = keeper._after_fork
    office.happens[2] = office.renew
    outcome = keeper.obtain()
    assert (outcome.token.access_token, outcome.is_new) == ("access-2", True)


def test_a_stale_token_that_another_has_renewed_is_replaced_without_a_thread(
    office: Office,
) -> None:
    keeper = office.keeper()
    keeper.current()
    office.clock.go_on(HOUR - 500)
    office.renew()
    office.counter.steps.clear()
    office.threads = 0
    office.events.clear()
    assert keeper.current().access_token == "access-2"
    assert [type(event) for event in office.events] == [Found]
    assert office.counter.steps == ["load"]
    assert office.threads == 0


def landed(keeper: TokenKeeper) -> None:
    """Wait for what runs in the background."""
    assert keeper.wait(60)


def store_token(office: Office, name: str, age: float, left: float) -> None:
    """Another process has stored a token that is *age* seconds old and valid for *left* more."""
    now = office.clock.now
    times = {"issued_at": now - age, "expires_at": now + left}
    token = Token.from_dict({"access_token": name, **times}, now=now)
    office.write(token=token.to_dict(), generation=9)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(("left", "name"), [(3.0, "theirs"), (1.0, "access-1")])
def test_an_expired_token_of_another_process_is_not_taken(
    office: Office, inline: bool, left: float, name: str
) -> None:
    """Of a token for 20 seconds, the last two are no longer used."""
    keeper = office.keeper(inline=inline)
    keeper.current()
    office.clock.go_on(HOUR - 500)
    store_token(office, "theirs", 20.0 - left, left)
    office.authority.script = [down()] * 9
    assert keeper.current().access_token == name


def test_a_token_of_another_process_must_have_the_required_validity(office: Office) -> None:
    keeper = office.keeper()
    keeper.current()
    office.clock.go_on(HOUR - 500)
    store_token(office, "theirs", 3300.0, 300.0)
    assert keeper.obtain(min_validity=400.0).token.access_token == "access-1"
    assert keeper.obtain(min_validity=200.0).token.access_token == "theirs"


def test_an_unsaved_token_is_not_replaced_by_the_stored_one(office: Office) -> None:
    keeper = office.keeper()
    keeper.current()
    office.clock.go_on(HOUR - 500)
    view = keeper._slot.look()
    newer = Token.from_dict({"access_token": "newer", "expires_in": 1000}, now=office.clock.now)
    record = view.record._replace(token=newer, generation=view.record.generation + 1)
    keeper._take(view._replace(record=record), minted=True)
    office.clock.go_on(480)  # the earlier one is still valid
    keeper.look()
    assert keeper.obtain(min_validity=1.0).token.access_token == "newer"


@pytest.mark.parametrize("when", ["enter", "exit"])
@pytest.mark.parametrize("left", [500, 120, 0])
def test_a_failing_reservation_does_not_prevent_a_renewal(
    office: Office, when: str, left: float
) -> None:
    steps: list[str] = []

    class Failing(nullcontext[None]):
        def __enter__(self) -> None:
            self._fail("enter")

        def __exit__(self, *error: object) -> None:
            self._fail("exit")

        def _fail(self, step: str) -> None:
            steps.append(step)
            if step == when:
                raise OSError("no reservations today")

    tokens: list[Token] = []
    office.counter.reserve = Failing  # type: ignore[method-assign,assignment]
    keeper = office.keeper(on_refresh=tokens.append)
    keeper.current()
    office.clock.go_on(HOUR - left)
    keeper.current()
    landed(keeper)
    assert keeper.current().access_token == "access-2"
    assert [token.access_token for token in tokens] == ["access-2"]
    assert "RenewalFailed" not in keeper.stats
    assert steps == ["enter", "exit"] * (len(steps) // 2)


def renewing(office: Office) -> tuple[TokenKeeper, threading.Event]:
    """A process whose helper is requesting a token, and the event that releases the answer."""
    keeper = office.keeper()
    keeper.current()
    office.clock.go_on(HOUR - 500)
    requested, goes_on = threading.Event(), threading.Event()

    def ask() -> None:
        requested.set()
        assert goes_on.wait(60)

    office.authority.asking = ask
    assert keeper.current().access_token == "access-1"  # and a helper starts
    assert requested.wait(60)
    office.counter.steps.clear()
    return keeper, goes_on


def test_while_its_own_process_renews_a_stale_token_the_store_is_not_read(
    office: Office,
) -> None:
    keeper, goes_on = renewing(office)
    office.clock.go_on(30)
    assert keeper.current().access_token == "access-1"
    assert office.counter.steps == []
    goes_on.set()
    landed(keeper)


def test_a_renewal_of_its_own_process_is_joined(office: Office) -> None:
    """It has the lock like another process, but a caller joins its own process."""
    waits: list[Callable[[], None]] = []

    class Joined(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            for release in waits:
                release()
            return super().wait(timeout)

    office.clock.event = Joined  # type: ignore[method-assign]
    keeper, goes_on = renewing(office)
    office.expire()
    waits.append(goes_on.set)
    assert keeper.current().access_token == "access-2"
    assert office.clock.slept == []


def test_a_token_that_another_thread_obtained_is_used_even_if_it_cannot_be_saved(
    office: Office,
) -> None:
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()
    token = Token.from_dict({"access_token": "theirs"}, now=office.clock.now)
    view = keeper._slot.look()
    theirs = view._replace(record=view.record._replace(token=token))
    office.happens[2] = lambda: keeper._take(theirs, minted=True)
    outcome = keeper.obtain()
    assert (outcome.token.access_token, outcome.is_new) == ("theirs", True)
    assert len(office.clock.slept) == 2


def test_a_store_whose_reservations_fail_is_used_without_them(office: Office) -> None:
    office.expire()

    def fails() -> None:
        raise OSError("no reservations today")

    office.counter.reserve = fails  # type: ignore[method-assign,assignment]
    assert office.keeper().current().access_token == "access-2"


@pytest.mark.parametrize("when", [0, 2])
def test_a_store_failure_is_raised_by_the_renewal(office: Office, when: int) -> None:
    office.expire()
    office.counter.reserved = True
    keeper = office.keeper()

    def fail() -> None:
        office.write()
        office.counter.failing = lambda step: step == "load"

    if when:
        office.happens[when] = fail
    else:
        fail()
    with pytest.raises(errors.StoreError, match="load fails in this test"):
        keeper.current()
    assert len(office.clock.slept) == when


def test_a_store_with_reserve_but_without_glimpse_is_refused() -> None:
    """Waiting processes would load the whole record at each look."""

    class Reserved(Shelf):
        def reserve(self) -> AbstractContextManager[object] | None:
            raise AssertionError("not asked for")

    with pytest.raises(
        TypeError, match=r"^Reserved has reserve\(\) but no glimpse\(\): .* Add a method"
    ):
        TokenKeeper(Authority(), Reserved(Clockwork()))
