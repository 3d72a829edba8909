"""MemoryStore: the contract, and what concerns memory only."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest

from tokenadapter.stores import memory
from tokenadapter.stores.memory import MemoryStore, own_store
from tokenadapter.testing.contract import Connect, StoreContract
from tokenadapter.testing.contract.terms import content_of
from tokenadapter.testing.workers import in_threads, process, succeeds_in_child

from .helpers import run


class TestPrivateMemoryStore(StoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        store = MemoryStore()
        return lambda: store


class TestNamedMemoryStore(StoreContract):
    @pytest.fixture
    def connect(self, request: pytest.FixtureRequest) -> Connect:
        return lambda: MemoryStore(request.node.nodeid)


def test_it_says_which_slot_it_is() -> None:
    assert repr(MemoryStore("billing")) == "MemoryStore('billing')"
    assert repr(MemoryStore()) == "MemoryStore()"


def test_different_names_are_different_slots() -> None:
    first, second, private = MemoryStore("first"), MemoryStore("second"), MemoryStore()
    assert first.save({"n": 1}, tag="one", expected=None, ttl=None)
    first.remember_spent("hash", for_good=True)
    lock = first.lock()
    assert lock.acquire(60)
    for other in (second, private, MemoryStore()):
        assert other.load().document is None
        assert not other.was_spent("hash")
        assert other.lock().acquire(60)
    lock.release()


def test_a_document_is_dropped_when_it_expires() -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=0.05)
    while store.load().document is not None:
        time.sleep(0.01)
    assert store.load().tag is None
    assert not store.save({"n": 2}, tag="two", expected="one", ttl=None)
    assert store.save({"n": 2}, tag="two", expected=None, ttl=None)


@pytest.mark.parametrize("ttl", [0.0, -5.0])
def test_a_document_that_has_expired_already_leaves_the_slot_empty(ttl: float) -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
    assert store.save({"n": 2}, tag="two", expected="one", ttl=ttl)
    assert content_of(store) == (None, None)


def test_no_slot_is_dropped_for_others() -> None:
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
    twin = pickle.loads(pickled)
    assert twin.load().tag == "one"
    assert not twin.is_copy


@pytest.mark.parametrize(
    "duplicate", [lambda store: pickle.loads(pickle.dumps(store)), copy.copy, copy.deepcopy]
)
def test_an_unpickled_private_store_is_empty(
    duplicate: Callable[[MemoryStore], MemoryStore],
) -> None:
    store = MemoryStore()
    assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
    store.remember_spent("hash", for_good=True)
    twin = duplicate(store)
    assert twin.load().document is None
    assert not twin.was_spent("hash")
    # The token of the first process may still be in use there.
    assert twin.is_copy
    assert duplicate(twin).is_copy
    assert not store.is_copy
    assert twin.save({"n": 2}, tag="two", expected=None, ttl=None)
    assert store.load().document == {"n": 1}


@pytest.mark.parametrize("name", [None, "born before the fork"])
def test_in_a_forked_child_a_slot_is_a_copy(name: str | None) -> None:
    store = MemoryStore(name)
    store.remember_spent("hash", for_good=True)

    def in_child() -> bool:
        grandchild = succeeds_in_child(lambda: store.is_copy)
        pickled = pickle.loads(pickle.dumps(store))
        return store.is_copy and pickled.is_copy and store.was_spent("hash") and grandchild

    assert succeeds_in_child(in_child)
    assert not store.is_copy


@pytest.mark.parametrize("name", [None, "born after the fork"])
def test_a_slot_that_a_child_creates_is_no_copy_there(name: str | None) -> None:
    def in_child() -> bool:
        store = MemoryStore(name)
        grandchild = succeeds_in_child(lambda: store.is_copy)
        return not store.is_copy and not MemoryStore(name).is_copy and grandchild

    assert succeeds_in_child(in_child)


@pytest.mark.parametrize("name", [None, "sent"])
def test_a_store_that_is_unpickled_in_another_process_is_a_copy(name: str | None) -> None:
    with process(_tell_of, MemoryStore(name)) as (_, pipe):
        assert pipe.recv() == (None, True, True, False)


def _tell_of(pipe: Connection, store: MemoryStore) -> None:
    same, other = MemoryStore(store.name or "sent"), MemoryStore("at home here")
    arrived = pickle.loads(pickle.dumps(store))
    is_copy = same.is_copy if store.name else store.is_copy
    pipe.send((store.load().document, is_copy, arrived.is_copy, other.is_copy))


def test_a_slot_that_exists_already_in_the_unpickling_process_is_no_copy() -> None:
    pickled = pickle.dumps(MemoryStore("at home in both"))
    run(f"""
        import pickle
        from tokenadapter.stores.memory import MemoryStore
        store = MemoryStore("at home in both")
        assert not pickle.loads({pickled!r}).is_copy
    """)


# The store of a keeper that was given none


def test_keepers_of_one_source_without_a_store_share_one() -> None:
    source, other = object_with_weak_references(), object_with_weak_references()
    store = own_store(source)
    assert own_store(source) is store
    assert own_store(other) is not store
    assert not store.is_copy
    assert store.name is None


def test_threads_that_use_one_source_at_once_without_a_store_share_one() -> None:
    class Source:
        """One whose hash takes a while, in which other threads run."""

        def __hash__(self) -> int:
            time.sleep(0)
            return 1

    barrier = threading.Barrier(8)
    sources = [Source() for _ in range(50)]
    stores: list[set[MemoryStore]] = [set() for _ in sources]

    def use(_: int) -> None:
        for source, found in zip(sources, stores, strict=True):
            barrier.wait()
            found.add(own_store(source))

    in_threads(use, range(barrier.parties))
    assert [len(found) for found in stores] == [1] * len(stores)


def test_the_store_of_a_source_ends_with_it() -> None:
    source = object_with_weak_references()
    store = weakref.ref(own_store(source))
    assert store() is not None
    del source
    gc.collect()
    assert store() is None


@pytest.mark.parametrize("source", [object(), {}], ids=["no weak references", "no hash"])
def test_a_source_without_weak_references_gets_a_new_store_each_time(
    source: object,
) -> None:
    assert own_store(source) is not own_store(source)


def test_in_a_forked_child_the_store_of_a_source_is_a_copy() -> None:
    source = object_with_weak_references()
    store = own_store(source)
    assert succeeds_in_child(lambda: own_store(source) is store and store.is_copy)


def object_with_weak_references() -> object:
    return type("Source", (), {})()


@pytest.mark.parametrize("name", [None, "forked"])
def test_a_child_has_a_copy_of_the_slot_and_not_its_parents_lock(name: str | None) -> None:
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

    try:
        assert succeeds_in_child(in_child)
        assert lock.confirm()
        assert not store.lock().acquire(60)
        assert store.load().tag == "parent"
    finally:
        done.set()
        holder.join()


def test_a_fork_in_the_middle_of_a_change_leaves_no_guard_behind() -> None:
    store, stop = MemoryStore("busy"), threading.Event()

    def write() -> None:
        while not stop.is_set():
            tag = store.load().tag
            store.save({"text": "x" * 1000}, tag=f"not {tag}"[:50], expected=tag, ttl=None)

    def in_child() -> bool:
        found = store.load()
        return found.document is None or store.save(
            found.document, tag="child", expected=found.tag, ttl=None
        )

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all(succeeds_in_child(in_child) for _ in range(12))
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_compare_and_swap_is_atomic_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    store, won, taken = MemoryStore(), [], []
    find, getpid = memory._Slots.find, os.getpid

    def find_slowly(slots: memory._Slots, name: str | None) -> memory._Item | None:
        item = find(slots, name)
        time.sleep(0.01)
        return item

    def getpid_slowly() -> int:
        time.sleep(0.01)
        return getpid()

    def try_both(number: int) -> None:
        if store.save({}, tag=f"tag {number}", expected=None, ttl=None):
            won.append(number)
        if store.lock().acquire(60):
            taken.append(number)

    monkeypatch.setattr(memory._Slots, "find", find_slowly)
    monkeypatch.setattr(os, "getpid", getpid_slowly)
    in_threads(try_both, range(4))
    assert (len(won), len(taken)) == (1, 1)


def test_a_signal_handler_can_use_the_store() -> None:
    store = MemoryStore()
    with memory._GUARD:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
