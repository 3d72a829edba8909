"""One holder at a time; waiting processes learn what it does from the slot alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import TYPE_CHECKING, cast

import pytest

from tokenadapter.testing.contract.terms import Connect, Terms, content_of
from tokenadapter.testing.workers import (
    Take,
    first_use,
    in_threads,
    step_by_step,
    take_in_rounds,
)

if TYPE_CHECKING:
    from tokenadapter.protocols import Glimpsed, Reserving, StoreLock, TokenStore

__all__ = ["Locks", "check_holders", "take_within"]


class Locks(Terms):
    """The lock, which may be a lease, and the processes that wait for it."""

    def test_one_lock_excludes_every_other(self, connect: Connect) -> None:
        first, second = connect().lock(), connect().lock()
        assert first.acquire(self.HOLD)
        assert not second.acquire(self.HOLD)
        assert (first.confirm(), second.confirm()) == (True, False)
        first.release()
        assert not first.confirm()
        assert second.acquire(self.HOLD)
        assert (first.confirm(), second.confirm()) == (False, True)
        second.release()

    def test_two_locks_of_one_store_exclude_each_other(self, store: TokenStore) -> None:
        first, second = store.lock(), store.lock()
        assert first.acquire(self.HOLD)
        assert not second.acquire(self.HOLD)
        first.release()

    def test_a_lock_that_was_not_taken_is_not_held(self, store: TokenStore) -> None:
        lock = store.lock()
        assert not lock.confirm()
        lock.release()
        assert lock.acquire(self.HOLD)
        lock.release()

    def test_a_lock_excludes_other_threads(self, connect: Connect) -> None:
        lock = connect().lock()
        assert lock.acquire(self.HOLD)
        taken: list[bool] = []
        in_threads(lambda _: taken.append(connect().lock().acquire(self.HOLD)), range(4))
        assert taken == [False] * 4
        lock.release()

    def test_release_does_not_release_the_lock_of_another(self, connect: Connect) -> None:
        early, holder, late = connect().lock(), connect().lock(), connect().lock()
        assert early.acquire(self.HOLD)
        early.release()
        assert holder.acquire(self.HOLD)
        assert not late.acquire(self.HOLD)
        for lock in (early, early, late):
            lock.release()
        assert holder.confirm()
        assert not connect().lock().acquire(self.HOLD)
        holder.release()
        holder.release()
        assert late.acquire(self.HOLD)
        late.release()

    def test_one_of_many_threads_that_try_at_once_takes_the_lock(self, connect: Connect) -> None:
        barrier = threading.Barrier(4, timeout=self.HOLD)
        takes: list[list[Take | None]] = []

        def take(_: int) -> None:
            barrier.wait()
            with step_by_step():
                store = connect()
            takes.append(take_in_rounds(store, barrier, self.HOLD))

        in_threads(take, range(barrier.parties))
        check_holders(connect(), takes)

    def test_the_holder_of_the_lock_writes(self, store: TokenStore) -> None:
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        store.prepare()
        store.remember_spent("hash", for_good=True)
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert lock.confirm()
        lock.release()
        assert content_of(store) == ({"n": 2}, "two")

    def test_loading_does_not_wait_for_the_lock(self, connect: Connect) -> None:
        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
        lock = connect().lock()
        assert lock.acquire(self.HOLD)
        assert connect().load().tag == "one"
        assert not connect().was_spent("hash")
        lock.release()

    def test_a_prepared_save_may_be_left_out(self, store: TokenStore) -> None:
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        store.prepare()
        store.prepare()
        lock.release()
        assert store.load().document is None
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)

    # Leases

    def test_the_lock_of_a_living_holder_does_not_lapse(self, connect: Connect) -> None:
        lock = connect().lock()
        assert lock.acquire(self.HOLD)
        end = time.monotonic() + 2.5 * (self.LEASE or 0.0)
        while time.monotonic() < end:
            assert not connect().lock().acquire(self.HOLD)
            time.sleep(0.05)
        assert lock.confirm()
        lock.release()

    def test_the_lease_of_a_holder_that_has_given_up_lapses(self, connect: Connect) -> None:
        if self.LEASE is None:
            pytest.skip("the lock of this store is no lease: it ends with its holder")
        store, other = connect(), connect()
        first, second = store.lock(), other.lock()
        assert first.acquire(2 * self.LEASE)
        take_within(self.LAPSES_WITHIN + 2 * self.LEASE, second, self.HOLD)
        assert not first.confirm()
        first.release()
        assert second.confirm()
        # A holder that has lost the lock does not overwrite what the next holder saves.
        assert other.save({"n": 2}, tag="two", expected=None, ttl=None)
        assert not store.save({"n": 1}, tag="one", expected=None, ttl=None)
        second.release()

    # Waiting processes

    def test_a_waiting_process_polls_soon_and_then_less_often(self, store: TokenStore) -> None:
        first, longest = store.poll
        assert 0 < first <= longest <= 5

    def test_a_waiting_process_sees_what_the_holder_writes(self, connect: Connect) -> None:
        locked, waits, seen, over = (threading.Event() for _ in range(4))

        def hold() -> None:
            store = connect()
            lock = store.lock()
            try:
                assert lock.acquire(self.HOLD)
                locked.set()
                assert waits.wait(self.HOLD)
                assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
                # The holder keeps the lock: a waiting process watches the slot.
                assert seen.wait(self.HOLD)
                assert lock.confirm()
            finally:
                lock.release()
                over.set()
                locked.set()

        def wait() -> None:
            store = connect()
            try:
                assert locked.wait(self.HOLD)
                assert store.load().tag is None
                assert not store.lock().acquire(self.HOLD)
                waits.set()
                while store.load().tag is None:
                    assert not over.is_set()
                    time.sleep(store.poll[0])
            finally:
                waits.set()
                seen.set()

        roles = [hold, wait]
        in_threads(lambda number: roles[number](), range(2))

    def test_a_glimpse_changes_with_each_write(self, connect: Connect) -> None:
        store = connect()
        if not hasattr(store, "glimpse") or cast("Glimpsed", store).glimpse() is None:
            pytest.skip("this store has no glimpse(): waiting processes load the record")
        glimpse = cast("Glimpsed", store).glimpse
        expected = None
        for tag in ("one", "two", "three"):
            before = glimpse()
            assert glimpse() == before
            assert connect().save({"n": 1}, tag=tag, expected=expected, ttl=None)
            assert glimpse() != before
            expected = tag

    def test_one_process_gets_the_reservation_and_all_can_take_the_lock(
        self, connect: Connect
    ) -> None:
        if not hasattr(connect(), "reserve"):
            pytest.skip("this store has no reserve(): waiting processes try the lock")
        assert hasattr(connect(), "glimpse"), "a keeper refuses reserve() without glimpse()"

        def reserve() -> AbstractContextManager[object] | None:
            return cast("Reserving", connect()).reserve()

        def reserved() -> AbstractContextManager[object]:
            reservation = reserve()
            assert reservation is not None, "another process has the reservation or the lock"
            return reservation

        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
        with reserved():
            if reserve() is not None:
                pytest.skip("files cannot be locked here: every caller gets a reservation")
            lock = connect().lock()
            assert lock.acquire(self.HOLD)
            lock.release()
        with reserved():
            assert reserve() is None
        lock = connect().lock()
        assert lock.acquire(self.HOLD)
        assert reserve() is None
        lock.release()
        with reserved():
            pass

    def test_one_of_many_threads_fills_an_empty_slot(self, connect: Connect) -> None:
        barrier = threading.Barrier(8)
        told: list[tuple[str, bool]] = []

        def use(number: int) -> None:
            store = connect()
            barrier.wait()
            told.append(first_use(store, f"thread {number}", self.HOLD))

        in_threads(use, range(barrier.parties))
        assert len({name for name, _ in told}) == 1
        assert sum(filled for _, filled in told) == 1

    # Copies

    def test_a_slot_is_no_copy_in_the_process_that_created_it(self, connect: Connect) -> None:
        assert not connect().is_copy
        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
        assert not connect().is_copy


def check_holders(store: TokenStore, takes: Sequence[Sequence[Take | None]]) -> None:
    """Check that at most one had the lock at any time.

    :param takes: for each thread or process that tried, when it took the lock in each round.
    """
    assert any(any(tries) for tries in takes), "the lock was free, and was never taken"
    lease = getattr(store, "lease", None) or inf
    for number, tries in enumerate(zip(*takes, strict=True)):
        taken = [take for take in tries if take is not None]
        for first, _ in taken:
            # A lease does not lapse within half of its time: a lock that is taken in that time is
            # taken twice.
            end = first + lease / 2
            holders = sum(first <= began and ended < end for began, ended in taken)
            assert holders <= 1, f"round {number}: {holders} hold the lock at the same time"


def take_within(seconds: float, lock: StoreLock, hold_for: float) -> None:
    """Take a lock that will be free in at most *seconds*."""
    deadline = time.monotonic() + seconds
    while not lock.acquire(hold_for):
        assert time.monotonic() < deadline, f"the lock is not free after {seconds:g} s"
        time.sleep(0.01)
