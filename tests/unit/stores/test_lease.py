"""Lease: what its holder can rely on if the store fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from interpreters import in_another_interpreter

from tokenadapter.errors import StoreError
from tokenadapter.stores import _lease
from tokenadapter.stores._lease import LEASE, Lease
from tokenadapter.stores.redis import RedisStore
from tokenadapter.testing.workers import succeeds_in_child

LONG = 1000.0
# After so many seconds its lock lapses.
LAPSE = LEASE * 0.85
SHORT = 0.004


class Clock:
    """It stands still unless a test moves it: no busy machine makes an answer late."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asleep = 0.0
        """The seconds for which the monotonic clock has stopped."""
        self.looks = threading.Semaphore(0)
        """The owner at each request."""

    def monotonic(self) -> float:
        self.looks.release()
        return self.now

    def time(self) -> float:
        return 1e9 + self.now + self.asleep


class Table:
    """A store's lease, which a test can let lapse."""

    def __init__(self) -> None:
        self.owner: str | None = None
        self.seconds: list[float] = []
        """For how long it was taken or extended, each time."""
        self.beats = threading.Semaphore(0)
        self.answer: Callable[[str], object] = lambda step: None
        """Called when a step is done, before its answer: it may raise."""


class TableLease(Lease):
    def __init__(self, table: Table, seconds: float = LEASE) -> None:
        super().__init__(seconds)
        self.table = table

    def take(self, owner: str, seconds: float, dead: str | None = None) -> str:
        if self.table.owner in (None, owner, dead):
            self.table.owner = owner
            self.table.seconds.append(seconds)
        self.table.answer("take")
        return self.table.owner or owner

    def extend(self, owner: str, seconds: float) -> bool:
        is_mine = self.table.owner == owner
        if is_mine:
            self.table.seconds.append(seconds)
        self.table.beats.release()
        self.table.answer("extend")
        return is_mine

    def free(self, owner: str) -> None:
        if self.table.owner == owner:
            self.table.owner = None
        self.table.answer("free")


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_lease, "time", clock)
    return clock


def losing(*steps: str) -> Callable[[str], None]:
    """An answer that gets lost after each of *steps*."""

    def answer(step: str) -> None:
        if step in steps:
            raise StoreError(f"the answer to {step} got lost")

    return answer


def test_a_lease_has_one_owner_and_its_duration(table: Table) -> None:
    first, second = TableLease(table), TableLease(table)
    assert first.acquire(LONG)
    assert not second.acquire(LONG)
    assert (first.confirm(), second.confirm()) == (True, False)
    # Sooner: a waiting process has yet to try the lock, and to renew.
    assert table.seconds == [LAPSE, LAPSE]
    assert LAPSE + RedisStore.poll[1] < LEASE
    second.release()
    assert first.confirm()
    first.release()
    assert table.owner is None
    assert not first.confirm()


def test_a_lease_is_not_longer_than_its_holder_asked_for(table: Table) -> None:
    lease = TableLease(table)
    assert lease.acquire(1.5)
    assert lease.confirm()
    assert table.seconds == [1.5, 1.5]
    lease.release()


def test_owners_differ_by_lease_and_time(table: Table) -> None:
    owners = set()
    for lease in (TableLease(table), TableLease(table)):
        for _ in range(2):
            assert lease.acquire(LONG)
            owners.add(table.owner)
            lease.release()
    assert len(owners) == 4


def test_heartbeats_extend_a_lease_many_times(table: Table) -> None:
    lease = TableLease(table, SHORT)
    assert lease.acquire(LONG)
    for _ in range(20):
        assert table.beats.acquire(timeout=30)
    lease.release()
    assert set(table.seconds) == {SHORT * 0.85}


def test_heartbeats_go_on_after_some_failed(table: Table) -> None:
    table.answer = losing("extend")
    lease = TableLease(table, SHORT)
    assert lease.acquire(LONG)
    for _ in range(5):
        assert table.beats.acquire(timeout=30)
    table.answer = losing()
    lease.release()


def test_heartbeats_end_when_the_holder_should_have_given_up(table: Table, clock: Clock) -> None:
    lease = TableLease(table, SHORT)
    assert lease.acquire(0.0045)
    clock.now += 0.003
    while min(table.seconds) == SHORT * 0.85:
        assert table.beats.acquire(timeout=30)
    # The last heartbeat lets the lease end when the holder gives up ...
    assert min(table.seconds) == pytest.approx(0.0015)
    clock.now += 0.002
    while clock.looks.acquire(blocking=False):
        pass
    # With the next look, the heartbeat that was under way is over.
    assert clock.looks.acquire(timeout=30)
    seen = len(table.seconds)
    for _ in range(3):
        assert clock.looks.acquire(timeout=30)
    assert len(table.seconds) == seen
    # ... unless it says that it has not.
    assert lease.confirm()
    assert table.seconds[-1] == SHORT * 0.85
    for _ in range(3):
        assert table.beats.acquire(timeout=30)
    lease.release()


def test_heartbeats_end_when_the_lease_is_lost(table: Table) -> None:
    lease = TableLease(table, SHORT)
    assert lease.acquire(LONG)
    (beating,) = [one for one in threading.enumerate() if one.name == "tokenadapter lease"]
    table.owner = "another"
    beating.join(30)
    assert not beating.is_alive()
    assert not lease.confirm()
    lease.release()
    assert table.owner == "another"


def test_a_late_heartbeat_does_not_shorten_a_confirmed_lease(table: Table) -> None:
    lease = TableLease(table, SHORT)
    goes_on = threading.Event()
    is_held_up = threading.Event()

    def answer(step: str) -> None:
        if threading.current_thread().name == "tokenadapter lease":
            is_held_up.set()
            goes_on.wait(30)

    assert lease.acquire(LONG)
    table.answer = answer
    assert is_held_up.wait(30)
    confirmed: list[bool] = []
    other = threading.Thread(target=lambda: confirmed.append(lease.confirm()))
    other.start()
    before = len(table.seconds)
    assert not confirmed
    goes_on.set()
    other.join(30)
    assert confirmed == [True]
    assert len(table.seconds) > before
    lease.release()


def test_a_lost_answer_to_taking_a_lease_is_an_error_and_frees_it(table: Table) -> None:
    table.answer = losing("take")
    lease = TableLease(table)
    with pytest.raises(StoreError):
        lease.acquire(LONG)
    assert table.owner is not None
    lease.release()
    assert table.owner is None


def test_a_lease_that_cannot_be_confirmed_is_not_held(table: Table) -> None:
    lease = TableLease(table)
    assert lease.acquire(LONG)
    table.answer = losing("extend")
    assert not lease.confirm()
    table.answer = losing()
    assert lease.confirm()
    lease.release()


def test_a_release_that_fails_raises_nothing(table: Table) -> None:
    lease = TableLease(table)
    assert lease.acquire(LONG)
    table.answer = losing("free")
    lease.release()
    lease.release()
    assert not lease.confirm()


def test_a_lease_can_be_taken_again(table: Table) -> None:
    lease = TableLease(table, SHORT)
    for _ in range(2):
        lease.release()
        assert lease.acquire(LONG)
        for _ in range(3):
            assert table.beats.acquire(timeout=30)
    lease.release()


def test_a_forked_child_neither_holds_nor_releases_the_lease(table: Table) -> None:
    lease = TableLease(table, SHORT)
    assert lease.acquire(LONG)

    def check() -> bool:
        is_held = lease.confirm()
        lease.release()
        return not is_held and table.owner is not None

    # A heartbeat under way may have a lock that no thread releases in the child.
    with lease._extending, lease._released._cond:
        assert succeeds_in_child(check)
    assert lease.confirm()
    lease.release()


@pytest.mark.parametrize(("took", "is_held"), [(LAPSE / 2 - 0.1, True), (LAPSE / 2, False)])
def test_a_late_answer_does_not_confirm_a_lease(
    table: Table, clock: Clock, monkeypatch: pytest.MonkeyPatch, took: float, is_held: bool
) -> None:
    """The lease lapses while a network or this process is stopped."""

    def answer(step: str) -> None:
        if step == "extend":
            clock.now += took

    table.answer = answer
    lease = TableLease(table)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)  # it would extend it, too
    assert lease.acquire(LONG)
    assert lease.confirm() == is_held
    took = 0.0
    assert lease.confirm()
    lease.release()


def test_without_a_thread_one_long_lease_is_taken(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    lease = TableLease(table)
    assert lease.acquire(LONG)
    assert lease.confirm()
    assert table.seconds == [LAPSE, LONG, LONG]
    lease.release()


def test_in_a_subinterpreter_one_long_lease_is_taken() -> None:
    """It may start no daemon threads."""
    lines = in_another_interpreter("""
        from tokenadapter.stores._lease import Lease

        class Told(Lease):
            def take(self, owner, seconds, dead=None):
                print("taken", seconds)
                return owner

            def extend(self, owner, seconds):
                print("extended", seconds)
                return True

            def free(self, owner):
                print("free")

        lease = Told(5.0)
        print(lease.acquire(1000.0))
        lease.release()
    """)
    assert lines == ["taken 4.25", "extended 1000.0", "True", "free"]


def test_without_a_thread_a_lost_lease_is_not_held(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        table.owner = "another"
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    lease = TableLease(table)
    assert not lease.acquire(LONG)
    lease.release()
    assert table.owner == "another"


def test_the_holder_is_named_by_machine_and_process(table: Table) -> None:
    import os
    import socket

    lease: Any = TableLease(table)
    assert lease.acquire(LONG)
    assert str(table.owner).startswith(f"{socket.gethostname()}:{os.getpid()}:")
    lease.release()
