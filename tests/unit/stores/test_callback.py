"""CallbackStore: the contract, with a lock and without, and what concerns functions only."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from filelock import FileLock

from tokenadapter import FileStore, StoreError
from tokenadapter.protocols import StoreLock
from tokenadapter.stores.callback import CallbackStore
from tokenadapter.stores.lockfile import LockFile
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract, StoreContract
from tokenadapter.testing.contract.terms import content_of
from tokenadapter.testing.workers import in_threads, succeeds_in_child

from .helpers import run, save

SECRET = "s3cr3t"
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


class Place:
    """Where a program keeps things: a file, which has no lock of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Any:
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def save(self, data: dict[str, Any]) -> None:
        draft = self.path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(data))
        draft.replace(self.path)

    def load_bytes(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place.json")


@pytest.fixture
def lock(tmp_path: Path) -> partial[LockFile]:
    return partial(LockFile, str(tmp_path / "place.lock"), "the place")


class TestWithoutALock(StoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        held: list[dict[str, Any]] = []
        load = lambda: held[-1] if held else None  # noqa: E731
        return lambda: CallbackStore(load, held.append, None)


class TestAsText(StoreContract):
    @pytest.fixture
    def connect(self, place: Place) -> Connect:
        return lambda: CallbackStore(place.load_bytes, place.save, None)

    @pytest.fixture
    def corrupt(self, place: Place) -> Corrupt:
        return place.path.write_bytes


class TestWithALock(SharedStoreContract):
    LAPSES_WITHIN = 5.0

    @pytest.fixture
    def connect(self, place: Place, lock: partial[LockFile]) -> Connect:
        return lambda: CallbackStore(place.load, place.save, lock)


class TestWithAContextManager(StoreContract):
    @pytest.fixture
    def connect(self, place: Place, tmp_path: Path) -> Connect:
        lock = partial(FileLock, str(tmp_path / "place.lock"), timeout=0)
        return lambda: CallbackStore(place.load, place.save, lock)


class TestWithTheLockOfAnotherStore(StoreContract):
    @pytest.fixture
    def connect(self, place: Place, tmp_path: Path) -> Connect:
        lock = FileStore(tmp_path / "lent" / "token.json").lock
        return lambda: CallbackStore(place.load, place.save, lock)


def test_it_says_which_functions_it_has(place: Place) -> None:
    assert repr(CallbackStore(place.load, print, None)) == "CallbackStore(Place.load, print)"
    assert repr(CallbackStore(partial(place.load), print, None)) == "CallbackStore(partial, print)"


def test_a_name_tells_slots_of_the_same_functions_apart_even_after_pickling(place: Place) -> None:
    store = CallbackStore(place.load, print, None, name="user-42")
    shown = "CallbackStore(Place.load, print, name='user-42')"
    assert [repr(store), repr(pickle.loads(pickle.dumps(store)))] == [shown, shown]


@pytest.mark.parametrize(
    "arguments",
    [
        (None, print, None),
        ({}, print, None),
        (print, None, None),
        (print, print, 5),
        (print, print, threading.Lock()),
    ],
)
def test_arguments_that_are_not_functions_are_refused(arguments: Any) -> None:
    with pytest.raises(TypeError, match=r"^(load|save|lock) must be a function, not of type "):
        CallbackStore(*arguments)


def test_a_name_that_is_no_text_is_refused(place: Place) -> None:
    with pytest.raises(TypeError, match=r"^name is a text, not 5$"):
        CallbackStore(place.load, place.save, None, name=5)  # type: ignore[arg-type]


def test_save_gets_one_json_object(place: Place) -> None:
    store = CallbackStore(place.load, place.save, None)
    save(store)
    store.remember_spent("a", for_good=True)
    assert place.load() == {
        "format": "tokenadapter/1",
        "tag": "tag 1",
        "document": {"n": 1},
        "spent": ["a for good"],
    }


@pytest.mark.parametrize("nothing", [None, "", b"", {}])
def test_an_empty_value_counts_as_an_empty_slot(
    nothing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert content_of(CallbackStore(lambda: nothing, print, None)) == (None, None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("there", "aside"),
    [
        ({"access_token": SECRET}, f'{{"access_token": "{SECRET}"}}'),
        (SECRET, SECRET),
        ("[]", "[]"),
        (b"\xff{", "\ufffd{"),
        ("[" * 100_000, "[" * 100_000),
        (3, "3"),
        ([1], "[1]"),
        (("a",), '["a"]'),
        ({("a",): 1}, "{('a',): 1}"),
        (b"\xff", "\ufffd"),
        (memoryview(b"{}"), "{}"),
        (Ellipsis, '"Ellipsis"'),
        (CIRCLE, "[[...]]"),
    ],
)
def test_content_that_is_not_a_record_is_put_aside(
    there: Any, aside: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = [there]
    store = CallbackStore(lambda: held[-1], held.append, None)
    for _ in range(2):
        assert content_of(store) == (None, None)
    [message] = caplog.messages
    assert "load() returned something that save() was never given" in message
    assert "adopt()" in message
    assert SECRET not in message
    save(store)
    save(store, 2, expected="tag 1")
    assert store.load().document == {"n": 2}
    assert held[-1]["aside"] == aside


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_load_may_return_the_bytes_of_a_column(kind: Callable[[bytes], Any]) -> None:
    held: list[dict[str, Any]] = []
    load = lambda: kind(json.dumps(held[-1]).encode()) if held else None  # noqa: E731
    store = CallbackStore(load, held.append, None)
    save(store)
    assert store.load().document == {"n": 1}


def test_a_function_that_returns_an_object_to_await_has_not_loaded_or_saved() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            raise AssertionError

    with pytest.raises(StoreError, match=r"load\(\) returned an awaitable, Awaitable\. "):
        CallbackStore(Awaitable, pytest.fail, None).load()
    with pytest.raises(StoreError, match=r"save\(\) returned an awaitable, Awaitable\. "):
        save(CallbackStore(dict, lambda _: Awaitable(), None))


def test_the_error_about_a_later_format_is_on_one_line() -> None:
    store = CallbackStore(lambda: {"format": "tokenadapter/2\nx" + "x" * 5000}, pytest.fail, None)
    with pytest.raises(StoreError, match=r"wrote it, as tokenadapter/2\\nx+…: upgrade"):
        store.load()


def test_a_record_of_a_later_version_is_left_alone() -> None:
    store = CallbackStore(lambda: {"format": "tokenadapter/2"}, pytest.fail, None)
    with pytest.raises(StoreError, match=r"newer tokenadapter wrote it, .* left as it was"):
        store.load()
    with pytest.raises(StoreError, match="upgrade"):
        save(store)


def raising(*_: object) -> Any:
    raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("functions", "task"),
    [
        ((raising, print), lambda store: store.load()),
        ((raising, print), lambda store: store.was_spent("hash")),
        ((raising, print), save),
        ((dict, raising), save),
        ((dict, raising), lambda store: store.remember_spent("hash", for_good=True)),
    ],
)
def test_the_error_names_the_class_of_what_a_function_raises(
    functions: tuple[Any, Any], task: Callable[[CallbackStore], object]
) -> None:
    store = CallbackStore(*functions, None)
    with pytest.raises(
        StoreError, match=r"CallbackStore\((raising, print|dict, raising)"
    ) as caught:
        task(store)
    assert "() raised RuntimeError. What was saved before is left as it was" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_store_error_of_a_function_is_raised_unchanged() -> None:
    def load() -> None:
        raise StoreError("the vault is sealed")

    with pytest.raises(StoreError, match=r"^the vault is sealed$"):
        CallbackStore(load, print, None).load()


# Without a lock: threads of one process


def test_different_functions_are_different_slots(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other.json")
    first, second = (CallbackStore(it.load, it.save, None) for it in (place, other))
    held = first.lock()
    assert held.acquire(60)
    assert second.lock().acquire(60)
    assert not CallbackStore(place.load, place.save, None).lock().acquire(60)
    held.release()


def test_functions_without_a_hash_have_a_slot_of_their_own() -> None:
    class Function:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, *_: object) -> None:
            return None

    store = CallbackStore(Function(), Function(), None)
    save(store)
    assert not store.is_copy


def test_threads_that_make_their_first_stores_at_once_share_one_lock() -> None:
    class Load:
        """A function whose hash takes a while, in which other threads run."""

        def __call__(self) -> None:
            return None

        def __hash__(self) -> int:
            time.sleep(0)
            return 1

    barrier, rounds = threading.Barrier(8), 50
    loads = [Load() for _ in range(rounds)]
    holders: list[list[StoreLock]] = [[] for _ in range(rounds)]

    def take(_: int) -> None:
        for load, holding in zip(loads, holders, strict=True):
            barrier.wait()
            lock = CallbackStore(load, print, None).lock()
            if lock.acquire(60):
                holding.append(lock)

    in_threads(take, range(barrier.parties))
    assert [len(holding) for holding in holders] == [1] * rounds


def test_a_slot_ends_with_its_last_store(place: Place) -> None:
    store = CallbackStore(place.load, place.save, None)
    slot = weakref.ref(store._place)
    del store
    assert slot() is None


def test_a_save_without_the_lock_waits_for_its_holder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.stores.callback.WRITE_TIMEOUT", 0.02)
    store = CallbackStore(place.load, place.save, None)
    held = store.lock()
    assert held.acquire(60)
    raised: list[StoreError] = []

    def write() -> None:
        try:
            save(store)
        except StoreError as error:
            raised.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    assert "others held its lock for 0.02 s" in str(raised[0])
    save(store)
    held.release()


def test_in_a_forked_child_the_store_is_a_copy_and_its_lock_is_free(place: Place) -> None:
    store = CallbackStore(place.load, place.save, None)
    save(store)
    held = store.lock()
    assert held.acquire(60)

    def in_child() -> bool:
        own = store.lock()
        is_own = own.acquire(60) and own.confirm() and not held.confirm()
        held.release()
        return is_own and own.confirm() and store.is_copy and store.load().tag == "tag 1"

    assert succeeds_in_child(in_child)
    assert held.confirm()
    assert not store.is_copy
    held.release()


def test_a_slot_that_a_child_creates_is_no_copy_there(place: Place) -> None:
    assert succeeds_in_child(lambda: not CallbackStore(place.load, place.save, None).is_copy)


def load_nothing() -> None:
    return None


def test_a_store_that_is_unpickled_in_another_process_is_a_copy() -> None:
    store = CallbackStore(load_nothing, print, None)
    for duplicate in (copy.copy, copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))):
        assert not duplicate(store).is_copy
    run(f"""
        import pickle, sys
        sys.load_nothing = lambda: None
        # This module, and the packages that it is in.
        names = {__name__!r}.split(".")
        for end in range(len(names)):
            sys.modules[".".join(names[: end + 1])] = sys
        assert pickle.loads({pickle.dumps(store)!r}).is_copy
    """)


def test_with_a_lock_it_is_never_a_copy(place: Place, lock: partial[LockFile]) -> None:
    store = CallbackStore(place.load, place.save, lock)
    save(store)
    assert not store.is_copy
    assert succeeds_in_child(lambda: not store.is_copy)


# Locks


def anywhere(lock: Any) -> CallbackStore:
    """A store that shares its slot with no other test."""
    return CallbackStore(lambda: None, lambda record: None, lock)


class Expiring:
    """A lock that can lapse: what the store passes on to it is in *asked*."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.is_lost = False

    def acquire(self, hold_for: float) -> bool:
        self.asked.append(hold_for)
        return True

    def confirm(self) -> bool:
        return not self.is_lost

    def release(self) -> None:
        self.asked.append("release")


def test_a_lock_that_others_hold_is_not_taken(place: Place, lock: partial[LockFile]) -> None:
    store, held = CallbackStore(place.load, place.save, lock), lock()
    assert held.acquire(60)
    assert not store.lock().acquire(60)
    held.release()
    own = store.lock()
    assert own.acquire(60)
    assert not lock().acquire(60)
    own.release()


def test_a_lent_lock_is_asked_whether_it_is_held() -> None:
    lent = Expiring()
    own = anywhere(lambda: lent).lock()
    assert own.acquire(45)
    assert own.confirm()
    lent.is_lost = True
    assert not own.confirm()
    own.release()
    assert lent.asked == [45, "release"]


def test_after_the_lock_has_lapsed_its_holder_saves_under_a_new_one(place: Place) -> None:
    made: list[Expiring] = []

    def lock() -> Expiring:
        made.append(Expiring())
        return made[-1]

    store = CallbackStore(place.load, place.save, lock)
    own = store.lock()
    assert own.acquire(60)
    made[0].is_lost = True
    save(store)
    own.release()
    assert [lock.asked for lock in made] == [[60, "release"], [10, "release"]]


def test_a_store_error_of_a_lock_is_raised_unchanged() -> None:
    def lock() -> Any:
        raise StoreError("the server is down")

    with pytest.raises(StoreError, match=r"^the server is down$"):
        anywhere(lock).lock().acquire(60)


def test_context_managers_are_entered_and_left(place: Place) -> None:
    steps: list[str] = []

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        steps.append("in")
        yield
        steps.append("out")

    store = CallbackStore(place.load, place.save, lock)
    own = store.lock()
    assert own.acquire(60)
    save(store)
    assert own.confirm()
    assert steps == ["in"]
    own.release()
    assert steps == ["in", "out"]
    save(store, 2, expected="tag 1")
    assert steps == ["in", "out", "in", "out"]


@pytest.mark.parametrize("by", ["False", "TimeoutError", "BlockingIOError"])
def test_a_context_manager_can_say_that_the_lock_is_taken(by: str) -> None:
    is_left = []

    @contextlib.contextmanager
    def lock() -> Iterator[bool]:
        if by != "False":
            raise {"TimeoutError": TimeoutError, "BlockingIOError": BlockingIOError}[by]
        yield False
        is_left.append(True)

    own = anywhere(lock).lock()
    assert not own.acquire(60)
    own.release()
    assert is_left == [True] * (by == "False")


@pytest.mark.parametrize(
    "lock",
    [raising, lambda: 5, lambda: redis.asyncio.Redis().lock("billing")],
    ids=["raises", "returns a number", "has to be awaited"],
)
def test_an_object_that_is_not_a_lock_is_an_error(lock: Any) -> None:
    store = anywhere(lock)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"lock\(\) (raised RuntimeError|returned neither a StoreLock nor a)"
        ):
            store.lock().acquire(60)


def test_an_interrupt_leaves_no_lock_behind(caplog: pytest.LogCaptureFixture) -> None:
    def lock() -> Any:
        raise KeyboardInterrupt

    store = anywhere(lock)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.lock().acquire(60)
    assert caplog.get_records("call") == [] or caplog.records[0].levelno < logging.ERROR
