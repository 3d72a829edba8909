"""What a store promises to many processes."""

from __future__ import annotations

import os
import pickle
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tokenadapter.testing.contract.locks import check_holders, take_within
from tokenadapter.testing.contract.terms import Terms, content_of
from tokenadapter.testing.workers import (
    ROUNDS,
    SPAWN,
    compete,
    process,
    succeeds_in_child,
    take_when_told,
    tell_whether_it_is_a_copy,
    use_first,
    write_in_rounds,
    write_on_and_on,
)

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore

__all__ = ["Processes"]

# How many processes use the slot at once.
_CHILDREN = 4


class Processes(Terms):
    """One slot for many processes, some of which are killed."""

    def test_a_pickled_store_names_the_same_slot(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        twin = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own
        assert content_of(twin) == ({"n": 1}, "one")
        assert not twin.is_copy

    def test_it_is_no_copy_in_another_process(self, store: TokenStore) -> None:
        with process(tell_whether_it_is_a_copy, store) as (_, pipe):
            assert pipe.recv() is False

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_child_uses_the_same_slot(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        lock = store.lock()
        assert lock.acquire(self.HOLD)

        def in_child() -> bool:
            return (
                not store.is_copy
                and store.load().tag == "one"
                and not lock.confirm()
                and not store.lock().acquire(self.HOLD)
            )

        assert succeeds_in_child(in_child)
        assert lock.confirm()
        lock.release()

    def test_a_lock_excludes_other_processes(self, store: TokenStore) -> None:
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        with process(take_when_told, store) as (_, pipe):
            pipe.send(self.HOLD)
            assert pipe.recv() is False
            lock.release()
            pipe.send(self.HOLD)
            assert pipe.recv() is True
            assert not store.lock().acquire(self.HOLD)

    def test_one_of_many_processes_that_try_at_once_takes_the_lock(self, store: TokenStore) -> None:
        barrier = SPAWN.Barrier(_CHILDREN, timeout=self.HOLD)
        with ExitStack() as stack:
            pipes = [
                stack.enter_context(process(compete, store, barrier, self.HOLD))[1]
                for _ in range(_CHILDREN)
            ]
            check_holders(store, [pipe.recv() for pipe in pipes])

    def test_the_lock_of_a_killed_process_is_free(self, store: TokenStore) -> None:
        with process(take_when_told, store) as (child, pipe):
            pipe.send(self.HOLD)
            assert pipe.recv() is True
            assert not store.lock().acquire(self.HOLD)
            child.kill()
            lock = store.lock()
            take_within(self.LAPSES_WITHIN, lock, self.HOLD)
            assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
            lock.release()

    def test_one_of_many_processes_that_save_at_once_succeeds(self, store: TokenStore) -> None:
        barrier = SPAWN.Barrier(_CHILDREN)
        with ExitStack() as stack:
            pipes = [
                stack.enter_context(process(write_in_rounds, store, barrier, number))[1]
                for number in range(_CHILDREN)
            ]
            rounds = list(zip(*(pipe.recv() for pipe in pipes), strict=True))
        assert [sum(won) for won in rounds] == [1] * ROUNDS
        assert store.load().tag == f"{rounds[-1].index(True)}-{ROUNDS - 1}"

    def test_one_of_many_processes_fills_an_empty_slot(self, store: TokenStore) -> None:
        barrier = SPAWN.Barrier(_CHILDREN)
        with ExitStack() as stack:
            pipes = [
                stack.enter_context(process(use_first, store, barrier, f"process {number}"))[1]
                for number in range(_CHILDREN)
            ]
            told = [pipe.recv() for pipe in pipes]
        assert len({name for name, _ in told}) == 1
        assert sum(filled for _, filled in told) == 1

    def test_readers_see_whole_documents_only(self, store: TokenStore) -> None:
        assert store.save({"size": 0, "text": ""}, tag="begin", expected=None, ttl=None)
        seen: set[str | None] = set()
        with process(write_on_and_on, store, self.LARGE) as (_, pipe):
            while len(seen) < 20:
                found = store.load()
                assert found.document is not None
                assert len(found.document["text"]) == found.document["size"]
                seen.add(found.tag)
            pipe.send("enough")
