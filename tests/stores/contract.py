"""The contract that every token store keeps, as suites for a test class to inherit.

A subclass says where its slot is, with a fixture that returns a function::

    class TestMyStore(SharedStoreContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyStore(tmp_path / "slot")

Each call makes one more store object for the same slot, which is empty when a test begins.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

import pytest

from tokenadapter.protocols import TokenStore

from .helpers import succeeds_in_child

Connect: TypeAlias = Callable[[], TokenStore]

# What children are started with: nothing of this process but what they are given.
SPAWN = multiprocessing.get_context("spawn")


class StoreContract:
    """What a store promises to the threads of one process."""

    HOLD = 60.0
    """For how many seconds the locks of the tests are taken: longer than any test runs."""

    @pytest.fixture
    def connect(self) -> Connect:
        raise NotImplementedError("say where the slot is")

    @pytest.fixture
    def store(self, connect: Connect) -> TokenStore:
        return connect()

    # What is stored

    def test_an_empty_slot_has_neither_document_nor_tag(self, store: TokenStore) -> None:
        snapshot = store.load()
        assert (snapshot.document, snapshot.tag) == (None, None)

    def test_the_time_of_a_snapshot_does_not_run_backwards(self, store: TokenStore) -> None:
        times = [store.load().now for _ in range(5)]
        assert times == sorted(times)

    def test_what_was_saved_is_loaded(self, connect: Connect) -> None:
        document = {
            "text": 'ASCII, "quotes", \\ and \n',
            "unicode": "żółć – 東京 – 🗝️ – \u202e",
            "numbers": [0, -1, 1.5, 1e300, 2**53, 1_700_000_000.123456],
            "words": [True, False, None, "", [], {}],
            "nested": {"a": [{"b": {"c": [[1], [2]]}}]},
            "": "a key without a name",
        }
        assert connect().save(document, tag="one", expected=None, ttl=None)
        snapshot = connect().load()
        assert snapshot.document == document
        assert snapshot.tag == "one"

    def test_values_of_100_kb_are_kept_whole(self, store: TokenStore) -> None:
        document = {"token": "x" * 100_000, "unicode": "🗝" * 10_000}
        assert store.save(document, tag="one", expected=None, ttl=None)
        assert store.load().document == document

    def test_a_document_that_changes_after_the_save_is_not_saved(self, store: TokenStore) -> None:
        document: dict[str, Any] = {"list": [1]}
        assert store.save(document, tag="one", expected=None, ttl=None)
        document["list"].append(2)
        loaded = store.load().document
        assert loaded == {"list": [1]}
        loaded["list"].append(3)
        assert store.load().document == {"list": [1]}

    @pytest.mark.parametrize("ttl", [None, 3600.0])
    def test_a_document_is_kept_while_it_is_worth_something(
        self, store: TokenStore, ttl: float | None
    ) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=ttl)
        assert store.load().document == {"n": 1}

    def test_a_longer_life_replaces_a_shorter_one(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=0.05)
        while not store.save({"n": 2}, tag="two", expected=store.load().tag, ttl=None):
            pass
        time.sleep(0.1)
        assert store.load().document == {"n": 2}

    def test_neither_store_nor_snapshot_shows_a_secret(self, store: TokenStore) -> None:
        assert store.save({"secret": "s3cr3t"}, tag="one", expected=None, ttl=None)
        assert "s3cr3t" not in f"{store!r} {store} {store.load()!r} {store.load()}"

    # Compare and swap

    def test_the_tag_that_is_there_may_be_replaced(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert store.load()[:2] == ({"n": 2}, "two")

    @pytest.mark.parametrize("expected", [None, "zero"])
    def test_any_other_expectation_writes_nothing(
        self, store: TokenStore, expected: str | None
    ) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert not store.save({"n": 2}, tag="two", expected=expected, ttl=None)
        assert store.load()[:2] == ({"n": 1}, "one")

    def test_an_empty_slot_has_no_tag_that_could_be_expected(self, store: TokenStore) -> None:
        assert not store.save({"n": 1}, tag="one", expected="zero", ttl=None)
        assert store.load().document is None

    def test_a_write_that_is_tried_again_succeeds_again(self, store: TokenStore) -> None:
        for _ in range(2):
            assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        for _ in range(2):
            assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert store.load()[:2] == ({"n": 2}, "two")

    def test_what_a_write_that_is_tried_again_writes_is_the_latest(self, store: TokenStore) -> None:
        # Time has passed meanwhile: a record may say so.
        for number in range(3):
            assert store.save({"n": number}, tag="one", expected=None, ttl=None)
            assert store.load()[:2] == ({"n": number}, "one")

    def test_a_write_that_is_tried_again_after_another_one_fails(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert not store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.load()[:2] == ({"n": 2}, "two")

    def test_of_the_writes_of_many_threads_one_wins(self, connect: Connect) -> None:
        barrier = threading.Barrier(12)
        won: list[list[str]] = [[], [], []]

        def write(number: int) -> None:
            store = connect()
            for winners in won:
                expected = store.load().tag
                barrier.wait()
                tag = f"{expected}-{number}"
                if store.save({"by": tag}, tag=tag, expected=expected, ttl=None):
                    winners.append(tag)
                barrier.wait()

        in_threads(write, range(barrier.parties))
        assert [len(winners) for winners in won] == [1, 1, 1]
        assert connect().load()[:2] == ({"by": won[-1][0]}, won[-1][0])

    # The lock

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

    def test_release_frees_no_lock_of_another(self, connect: Connect) -> None:
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

    def test_of_many_threads_that_try_at_once_one_takes_the_lock(self, connect: Connect) -> None:
        barrier = threading.Barrier(8)
        taken: list[list[int]] = [[] for _ in range(30)]

        def take(number: int) -> None:
            store = connect()
            for takers in taken:
                lock = store.lock()
                barrier.wait()
                if lock.acquire(self.HOLD):
                    takers.append(number)
                barrier.wait()
                lock.release()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            in_threads(take, range(barrier.parties))
        finally:
            sys.setswitchinterval(interval)
        assert [len(takers) for takers in taken] == [1] * len(taken)

    def test_the_holder_of_the_lock_writes(self, store: TokenStore) -> None:
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        store.prepare()
        store.mark("note", for_good=True)
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert lock.confirm()
        lock.release()
        assert store.load()[:2] == ({"n": 2}, "two")

    def test_loading_waits_for_no_lock(self, connect: Connect) -> None:
        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
        lock = connect().lock()
        assert lock.acquire(self.HOLD)
        assert connect().load().tag == "one"
        assert not connect().marked("note")
        lock.release()

    def test_what_was_prepared_need_not_be_saved(self, store: TokenStore) -> None:
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        store.prepare()
        store.prepare()
        lock.release()
        assert store.load().document is None
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)

    # Notes

    @pytest.mark.parametrize("for_good", [True, False])
    def test_notes_are_remembered(self, connect: Connect, for_good: bool) -> None:
        store = connect()
        for note in ("first", "second", "first"):
            lock = store.lock()
            assert lock.acquire(self.HOLD)
            store.mark(note, for_good=for_good)
            lock.release()
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert [connect().marked(note) for note in ("first", "second", "fir", "third", "")] == [
            True,
            True,
            False,
            False,
            False,
        ]

    def test_notes_for_good_outlast_all_others_and_of_those_some_dozens_are_remembered(
        self, connect: Connect
    ) -> None:
        store = connect()
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        store.mark("raised", for_good=False)
        for note in ("kept", "raised"):
            store.mark(note, for_good=True)
        store.mark("kept", for_good=False)
        others = [f"other {number}" for number in range(40)]
        for note in others:
            store.mark(note, for_good=False)
        lock.release()
        for note in ("kept", "raised", *others[-24:]):
            assert connect().marked(note), note

    # Copies

    def test_no_slot_is_a_copy_where_it_came_into_being(self, connect: Connect) -> None:
        assert not connect().is_copy
        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
        assert not connect().is_copy


class SharedStoreContract(StoreContract):
    """What a shared store promises to processes, too.  Its objects can be pickled."""

    PATIENCE = 30.0
    """How many seconds after its holder was killed a lock is free at the latest."""

    def test_a_pickled_store_names_the_same_slot(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        twin = pickle.loads(pickle.dumps(store))
        assert twin.load()[:2] == ({"n": 1}, "one")
        assert not twin.is_copy

    def test_it_is_no_copy_in_other_processes(self, store: TokenStore) -> None:
        assert succeeds_in_child(lambda: not store.is_copy)
        with process(_tell_whether_it_is_a_copy, store) as (_, pipe):
            assert pipe.recv() is False

    def test_a_lock_excludes_other_processes(self, store: TokenStore) -> None:
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        with process(_take_when_told, store) as (_, pipe):
            pipe.send(self.HOLD)
            assert pipe.recv() is False
            lock.release()
            pipe.send(self.HOLD)
            assert pipe.recv() is True
            assert not store.lock().acquire(self.HOLD)

    def test_the_lock_of_a_killed_process_is_free(self, store: TokenStore) -> None:
        with process(_take_when_told, store) as (child, pipe):
            pipe.send(1.0)
            assert pipe.recv() is True
            assert not store.lock().acquire(self.HOLD)
            os.kill(child.pid or 0, signal.SIGKILL)
            lock = store.lock()
            deadline = time.monotonic() + self.PATIENCE
            while not lock.acquire(self.HOLD):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
            lock.release()

    def test_of_the_writes_of_many_processes_one_wins(self, store: TokenStore) -> None:
        children = 4
        barrier = SPAWN.Barrier(children)
        with (
            process(_write_in_rounds, store, barrier, 0) as (_, a),
            process(_write_in_rounds, store, barrier, 1) as (_, b),
            process(_write_in_rounds, store, barrier, 2) as (_, c),
            process(_write_in_rounds, store, barrier, 3) as (_, d),
        ):
            rounds = list(zip(a.recv(), b.recv(), c.recv(), d.recv(), strict=True))
        assert [sum(won) for won in rounds] == [1] * ROUNDS
        assert store.load().tag == f"{rounds[-1].index(True)}-{ROUNDS - 1}"

    def test_readers_see_whole_documents_only(self, store: TokenStore) -> None:
        assert store.save({"size": 0, "text": ""}, tag="begin", expected=None, ttl=None)
        seen: set[str | None] = set()
        with process(_write_on_and_on, store) as (_, pipe):
            while len(seen) < 20:
                document, tag, _ = store.load()
                assert document is not None
                assert len(document["text"]) == document["size"]
                seen.add(tag)
            pipe.send("enough")


ROUNDS = 10


def in_threads(work: Callable[[int], object], numbers: range) -> None:
    """Run *work* for each number in a thread of its own; raise the first error."""
    errors: list[Exception] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:  # noqa: BLE001  (raised below)
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[number]) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def process(work: Callable[..., None], *args: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that runs ``work(pipe, *args)``, and is killed at the end of the block."""
    pipe, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=work, args=(theirs, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield child, pipe
    finally:
        child.kill()
        child.join()
        child.close()
        pipe.close()


def _take_when_told(pipe: Connection, store: TokenStore) -> None:
    while True:
        lock = store.lock()
        pipe.send(lock.acquire(pipe.recv()))


def _tell_whether_it_is_a_copy(pipe: Connection, store: TokenStore) -> None:
    pipe.send(store.is_copy)


def _write_in_rounds(pipe: Connection, store: TokenStore, barrier: Any, number: int) -> None:
    won = []
    for round_ in range(ROUNDS):
        expected = store.load().tag
        barrier.wait()
        won.append(store.save({}, tag=f"{number}-{round_}", expected=expected, ttl=None))
        barrier.wait()
    pipe.send(won)
    pipe.recv()


def _write_on_and_on(pipe: Connection, store: TokenStore) -> None:
    tag = store.load().tag
    for number in counting(pipe):
        size = (number % 3) ** 2 * 25_000
        document = {"size": size, "text": "x" * size}
        assert store.save(document, tag=str(number), expected=tag, ttl=None)
        tag = str(number)


def counting(pipe: Connection) -> Iterator[int]:
    """The numbers from 0 on, until something comes through the pipe."""
    number = 0
    while not pipe.poll():
        yield number
        number += 1
