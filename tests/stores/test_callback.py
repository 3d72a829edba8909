"""CallbackStore: the contract with a lock and without, and what concerns a program's own functions
only."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import multiprocessing
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
from doubles import Authority, Machinist
from filelock import FileLock

from tokenadapter import ReauthRequired, StoreError, TokenKeeper
from tokenadapter.protocols import StoreLock
from tokenadapter.stores.callback import CallbackStore
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract, StoreContract
from tokenadapter.testing.contract.terms import content_of
from tokenadapter.testing.workers import in_threads, succeeds_in_child

from .helpers import run, save

SECRET = "s3cr3t"


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
def lock(tmp_path: Path) -> partial[FileLock]:
    return partial(FileLock, str(tmp_path / "place.lock"))


class TestWithoutALock(StoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        held: list[dict[str, Any]] = []
        load = lambda: held[-1] if held else None  # noqa: E731
        return lambda: CallbackStore(load, held.append)


class TestAsText(StoreContract):
    @pytest.fixture
    def connect(self, place: Place) -> Connect:
        return lambda: CallbackStore(place.load_bytes, place.save)

    @pytest.fixture
    def corrupt(self, place: Place) -> Corrupt:
        return place.path.write_bytes


class TestWithALock(SharedStoreContract):
    LAPSES_WITHIN = 5.0

    @pytest.fixture
    def connect(self, place: Place, lock: partial[FileLock]) -> Connect:
        return lambda: CallbackStore(place.load, place.save, lock)


class TestWithOneLockObject(StoreContract):
    @pytest.fixture
    def connect(self, place: Place, lock: partial[FileLock]) -> Connect:
        one = lock()
        return lambda: CallbackStore(place.load, place.save, one)


def test_it_says_which_functions_it_has(place: Place) -> None:
    assert repr(CallbackStore(place.load, print)) == "CallbackStore(Place.load, print)"
    assert repr(CallbackStore(partial(place.load), print)) == "CallbackStore(partial, print)"


@pytest.mark.parametrize(
    "arguments", [(None, print), ({}, print), (print, None), (print, print, 5)]
)
def test_what_is_no_function_is_refused(arguments: Any) -> None:
    with pytest.raises(TypeError, match=r"(load|save|lock) is a"):
        CallbackStore(*arguments)


def test_what_is_saved_is_one_json_object(place: Place) -> None:
    store = CallbackStore(place.load, place.save, threading.Lock())
    save(store)
    store.remember_spent("a", for_good=True)
    assert place.load() == {
        "format": "tokenadapter/1",
        "tag": "tag 1",
        "document": {"n": 1},
        "notes": ["a for good"],
    }


@pytest.mark.parametrize("nothing", [None, "", b"", {}])
def test_what_is_empty_holds_nothing(nothing: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert content_of(CallbackStore(lambda: nothing, print)) == (None, None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("there", "aside"),
    [
        ({"access_token": SECRET}, f'{{"access_token": "{SECRET}"}}'),
        (SECRET, SECRET),
        ("[]", "[]"),
        (b"\xff{", "\ufffd{"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_what_it_did_not_write_is_put_aside(
    there: Any, aside: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = [there]
    store = CallbackStore(lambda: held[-1], held.append)
    for _ in range(2):
        assert content_of(store) == (None, None)
    [told] = caplog.messages
    assert "load() returned something that save() was never given" in told
    assert "adopt()" in told
    assert SECRET not in told
    save(store)
    save(store, 2, expected="tag 1")
    assert store.load().document == {"n": 2}
    assert held[-1]["aside"] == aside


def test_what_a_later_version_wrote_is_named_on_one_line() -> None:
    store = CallbackStore(lambda: {"format": "tokenadapter/2\nx" + "x" * 5000}, pytest.fail)
    with pytest.raises(StoreError, match=r"wrote it, as tokenadapter/2\\nx+…: upgrade"):
        store.load()


def test_what_a_later_version_wrote_is_left_alone() -> None:
    store = CallbackStore(lambda: {"format": "tokenadapter/2"}, pytest.fail)
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
        ((raising, print), lambda store: store.was_spent("note")),
        ((raising, print), save),
        ((dict, raising), save),
        ((dict, raising), lambda store: store.remember_spent("note", for_good=True)),
    ],
)
def test_what_a_function_raises_is_told_by_its_kind(
    functions: tuple[Any, Any], task: Callable[[CallbackStore], object]
) -> None:
    store = CallbackStore(*functions)
    with pytest.raises(
        StoreError, match=r"CallbackStore\((raising, print|dict, raising)"
    ) as caught:
        task(store)
    assert "() raised RuntimeError. What was saved before is left as it was" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_store_error_of_a_function_goes_on_as_it_is() -> None:
    def load() -> None:
        raise StoreError("the vault is sealed")

    with pytest.raises(StoreError, match=r"^the vault is sealed$"):
        CallbackStore(load, print).load()


# Without a lock: threads of one process


def test_other_functions_are_other_slots(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other.json")
    first, second = (CallbackStore(it.load, it.save) for it in (place, other))
    held = first.lock()
    assert held.acquire(60)
    assert second.lock().acquire(60)
    assert not CallbackStore(place.load, place.save).lock().acquire(60)
    held.release()


def test_functions_without_a_hash_are_a_slot_of_their_own() -> None:
    class Function:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, *_: object) -> None:
            return None

    store = CallbackStore(Function(), Function())
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
            lock = CallbackStore(load, print).lock()
            if lock.acquire(60):
                holding.append(lock)

    in_threads(take, range(barrier.parties))
    assert [len(holding) for holding in holders] == [1] * rounds


def test_a_slot_ends_with_its_last_store(place: Place) -> None:
    store = CallbackStore(place.load, place.save)
    slot = weakref.ref(store._place)
    del store
    assert slot() is None


def test_who_does_not_hold_the_lock_waits_for_who_does(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.stores.callback._PATIENCE", 0.02)
    store = CallbackStore(place.load, place.save)
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


def test_in_a_forked_child_it_is_a_copy_and_the_turn_is_free(place: Place) -> None:
    store = CallbackStore(place.load, place.save)
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


def test_what_came_into_being_in_a_child_is_no_copy_there(place: Place) -> None:
    assert succeeds_in_child(lambda: not CallbackStore(place.load, place.save).is_copy)


def load_nothing() -> None:
    return None


def test_a_store_that_arrives_in_another_process_is_a_copy() -> None:
    store = CallbackStore(load_nothing, print)
    for duplicate in (copy.copy, copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))):
        assert not duplicate(store).is_copy
    run(f"""
        import pickle, sys
        sys.modules["stores.test_callback"] = sys
        sys.load_nothing = lambda: None
        arrived = {pickle.dumps(store).replace(__name__.encode(), b"stores.test_callback")!r}
        assert pickle.loads(arrived).is_copy
    """)


def second_store(place: Place) -> CallbackStore:
    """A store that this process would not know for the same."""
    return CallbackStore(partial(place.load), place.save)


@contextlib.contextmanager
def another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module in ("_turns", "callback"):
            patch.setattr(f"tokenadapter.stores.{module}.this_process", lambda: "other:1:abc")
        yield


def test_who_sees_that_another_process_writes_spends_nothing_any_more(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(lifetime=None)
    keeper = TokenKeeper(authority, CallbackStore(place.load, place.save))
    first = keeper.current()
    with another_process(monkeypatch):
        # It begins later, so it takes over.
        other = TokenKeeper(authority, second_store(place))
        second = other.renew(other.current())
    assert keeper.renew(first) == second
    with pytest.raises(ReauthRequired) as caught:
        keeper.renew(second)
    assert caught.value.reason == "private_copy"
    assert authority.presented == ["refresh-0", "refresh-1"]
    [told] = [message for message in caplog.messages if "writes here too" in message]
    assert "other:1:abc" in told
    assert "give the store a lock" in told
    # What it may still write does not make the slot its own.
    keeper.store.remember_spent("note", for_good=False)
    with another_process(monkeypatch):
        assert other.renew(second) != second


def test_who_spends_nothing_goes_on_beside_another_process(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = TokenKeeper(Machinist(), CallbackStore(place.load, place.save))
    keeper.current()
    with another_process(monkeypatch):
        other = TokenKeeper(keeper.grant, second_store(place))
        token = other.renew(other.current())
    assert keeper.renew(keeper.current()) == token
    assert keeper.renew(token) != token


def test_with_a_lock_it_is_never_a_copy(place: Place, lock: partial[FileLock]) -> None:
    store = CallbackStore(place.load, place.save, lock)
    save(store)
    assert "writer" not in place.load()
    place.save(place.load() | {"writer": "other:1:abc"})
    store.load()
    place.save(place.load() | {"writer": "third:1:abc"})
    store.load()
    assert not store.is_copy
    assert succeeds_in_child(lambda: not store.is_copy)


# Locks of all kinds


def anywhere(lock: Any) -> CallbackStore:
    """A store that shares its slot with no other test."""
    return CallbackStore(lambda: None, lambda record: None, lock)


class RedisLikeLock:
    """Expires unless it is extended; says whether it is its taker's."""

    timeout = 5.0

    def __init__(self) -> None:
        self.extended = 0
        self.is_lost = False

    def acquire(self, sleep: Any = None, blocking: bool = True) -> bool:
        assert not blocking
        return True

    def reacquire(self) -> bool:
        self.extended += 1
        if self.is_lost:
            raise RuntimeError("not owned")
        return True

    def owned(self) -> bool:
        return False

    def release(self) -> None:
        if self.is_lost:
            raise RuntimeError("not owned")


@pytest.mark.parametrize(
    "made",
    [threading.Lock, threading.RLock, multiprocessing.Lock, threading.BoundedSemaphore],
    ids=["threading", "reentrant", "multiprocessing", "semaphore"],
)
@pytest.mark.parametrize("as_function", [True, False])
def test_the_locks_of_the_standard_library(made: Callable[[], Any], as_function: bool) -> None:
    lent = made()
    store = anywhere((lambda: lent) if as_function else lent)
    first, second = store.lock(), store.lock()
    assert first.acquire(60)
    assert first.confirm()
    assert not second.acquire(60)
    assert not second.confirm()
    first.release()
    assert second.acquire(60)
    second.release()
    assert lent.acquire()
    lent.release()


def test_a_lock_that_others_hold_is_not_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    store = anywhere(lambda: FileLock(path))
    with FileLock(path):
        assert not store.lock().acquire(60)
    own = store.lock()
    assert own.acquire(60)
    own.release()


def test_a_lock_that_expires_is_extended_and_may_be_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RedisLikeLock] = []

    def lock() -> RedisLikeLock:
        made.append(RedisLikeLock())
        return made[-1]

    store = CallbackStore(place.load, place.save, lock)
    own = store.lock()
    assert own.acquire(60)
    assert own.confirm()
    assert made[0].extended == 1
    made[0].is_lost = True
    assert not own.confirm()
    # What cannot be lost is written all the same, with the lock taken once more.
    save(store)
    assert len(made) == 2
    own.release()


def test_a_lock_that_tells_whose_it_is_is_asked() -> None:
    lent = RedisLikeLock()
    lent.timeout = None  # type: ignore[assignment]
    own = anywhere(lent).lock()
    assert own.acquire(60)
    assert not own.confirm()
    assert lent.extended == 0


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
def test_context_managers_may_say_that_others_hold_it(by: str) -> None:
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


@pytest.mark.parametrize("lock", [raising, lambda: 5], ids=["raises", "returns no lock"])
def test_a_lock_that_fails_is_no_lock(lock: Any) -> None:
    store = anywhere(lock)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"lock\(\) (raised RuntimeError|returned no lock)"):
            store.lock().acquire(60)


def test_a_lock_that_has_to_be_awaited_is_no_lock() -> None:
    """What its acquire() returns is true, and nobody is kept out."""
    store = anywhere(lambda: redis.asyncio.Redis().lock("billing"))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"Lock\.acquire\(\) has to be awaited"):
            store.lock().acquire(60)


def test_an_early_end_leaves_no_turn_behind(caplog: pytest.LogCaptureFixture) -> None:
    def lock() -> Any:
        raise KeyboardInterrupt

    store = anywhere(lock)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.lock().acquire(60)
    assert caplog.get_records("call") == [] or caplog.records[0].levelno < logging.ERROR
