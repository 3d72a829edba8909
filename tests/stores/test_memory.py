"""MemoryStore: the contract, and what concerns memory only."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from tokenadapter.stores import memory
from tokenadapter.stores.memory import MemoryStore

from .contract import Connect, StoreContract
from .helpers import succeeds_in_child


class TestPrivateMemoryStore(StoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        store = MemoryStore()
        return lambda: store


class TestNamedMemoryStore(StoreContract):
    @pytest.fixture
    def connect(self, request: pytest.FixtureRequest) -> Connect:
        return lambda: MemoryStore(request.node.nodeid)


def test_it_is_not_shared() -> None:
    assert not MemoryStore().shared
    assert not MemoryStore("a").shared


def test_it_says_which_slot_it_is() -> None:
    assert repr(MemoryStore("billing")) == "MemoryStore('billing')"
    assert repr(MemoryStore()) == "MemoryStore()"


def test_other_names_are_other_slots() -> None:
    first, second, private = MemoryStore("first"), MemoryStore("second"), MemoryStore()
    assert first.save({"n": 1}, tag="one", expected=None, ttl=None)
    first.mark("note")
    lock = first.lock()
    assert lock.acquire(60)
    for other in (second, private, MemoryStore()):
        assert other.load().document is None
        assert not other.marked("note")
        assert other.lock().acquire(60)
    lock.release()


def test_a_document_is_dropped_when_its_time_has_come() -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=0.05)
    while store.load().document is not None:
        time.sleep(0.01)
    assert store.load().tag is None
    assert not store.save({"n": 2}, tag="two", expected="one", ttl=None)
    assert store.save({"n": 2}, tag="two", expected=None, ttl=None)


@pytest.mark.parametrize("ttl", [0.0, -5.0])
def test_a_document_that_is_worth_nothing_leaves_the_slot_empty(ttl: float) -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
    assert store.save({"n": 2}, tag="two", expected="one", ttl=ttl)
    assert store.load()[:2] == (None, None)


def test_many_slots_push_none_out() -> None:
    stores = [MemoryStore(f"crowd {number}") for number in range(500)]
    for store in stores:
        assert store.save({"slot": repr(store)}, tag="one", expected=None, ttl=None)
    assert all(store.load().document == {"slot": repr(store)} for store in stores)


def test_a_private_slot_ends_with_its_store() -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
    slots = weakref.ref(store._slots)
    del store
    gc.collect()
    assert slots() is None


def test_a_named_store_is_pickled_by_its_name() -> None:
    store = MemoryStore("pickled")
    assert store.save({"secret": "s3cr3t"}, tag="one", expected=None, ttl=None)
    pickled = pickle.dumps(store)
    assert b"s3cr3t" not in pickled
    assert pickle.loads(pickled).load().tag == "one"


@pytest.mark.parametrize(
    "duplicate", [lambda store: pickle.loads(pickle.dumps(store)), copy.copy, copy.deepcopy]
)
def test_a_private_store_arrives_empty(duplicate: Callable[[MemoryStore], MemoryStore]) -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
    store.mark("note")
    twin = duplicate(store)
    assert twin.load().document is None
    assert not twin.marked("note")
    assert twin.save({"n": 2}, tag="two", expected=None, ttl=None)
    assert store.load().document == {"n": 1}


@pytest.mark.parametrize("name", [None, "forked"])
def test_a_child_has_a_copy_and_no_lock_of_its_parent(name: str | None) -> None:
    store = MemoryStore(name)
    tag = store.load().tag
    assert store.save({"n": 1}, tag="parent", expected=tag, ttl=None)
    taken, done = threading.Event(), threading.Event()
    lock = store.lock()

    def hold() -> None:
        assert lock.acquire(60)
        taken.set()
        done.wait()
        lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()

    def in_child() -> bool:
        own = store.lock()
        return (
            not lock.confirm()
            and store.load().tag == "parent"
            and own.acquire(60)
            and not store.lock().acquire(60)
            and store.save({"n": 2}, tag="child", expected="parent", ttl=None)
        )

    assert succeeds_in_child(in_child)
    assert lock.confirm()
    assert not store.lock().acquire(60)
    assert store.load().tag == "parent"
    done.set()
    holder.join()


def test_a_fork_in_the_middle_of_a_change_leaves_no_guard_behind() -> None:
    store, stop = MemoryStore("busy"), threading.Event()

    def write() -> None:
        while not stop.is_set():
            tag = store.load().tag
            store.save({"text": "x" * 1000}, tag=f"not {tag}"[:50], expected=tag, ttl=None)

    def in_child() -> bool:
        document, tag, _ = store.load()
        return document is None or store.save(document, tag="child", expected=tag, ttl=None)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all(succeeds_in_child(in_child) for _ in range(40))
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_its_guard_may_be_taken_again_by_a_signal_handler() -> None:
    store = MemoryStore()
    with memory._GUARD:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
