"""FileStore.reserve(): one process gets a reservation, which ends with it."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tokenadapter.stores.file import FileStore
from tokenadapter.testing.workers import process

from .helpers import failing, save


def is_reserved(store: FileStore) -> bool:
    reservation = FileStore(store.path).reserve()
    if reservation is None:
        return True
    with reservation:
        return False


def test_without_a_directory_every_caller_gets_a_reservation(store: FileStore) -> None:
    first, second = store.reserve(), store.reserve()
    assert first is not None
    assert second is not None
    with first, second:
        pass


def test_a_reservation_ends_with_its_process(store: FileStore) -> None:
    save(store)
    with process(_reserve, store) as (child, pipe):
        assert pipe.recv() is True
        assert is_reserved(store)
        child.kill()
        child.join()
        assert not is_reserved(store)


def _reserve(pipe: Connection, store: FileStore) -> None:
    reservation = store.reserve()
    assert reservation is not None
    with reservation:
        pipe.send(True)
        pipe.recv()


def test_a_reservation_ends_with_its_process_although_that_has_forked(store: FileStore) -> None:
    save(store)
    with process(_reserve_and_fork, store) as (child, pipe):
        grandchild = pipe.recv()
        assert is_reserved(store)
        child.kill()
        child.join()
        assert not is_reserved(store)
        os.kill(grandchild, signal.SIGKILL)


def _reserve_and_fork(pipe: Connection, store: FileStore) -> None:
    reservation = store.reserve()
    assert reservation is not None
    with reservation:
        if os.fork() == 0:
            signal.alarm(60)
            pipe.send(os.getpid())
            signal.pause()
        pipe.recv()


def test_a_reservation_ends_with_its_block_although_a_child_has_the_file_open(
    store: FileStore,
) -> None:
    """A child that was forked in some way of which Python knows nothing."""
    save(store)
    reservation = store.reserve()
    assert isinstance(reservation, io.FileIO)
    with reservation:
        twin = os.dup(reservation.fileno())
    try:
        assert not is_reserved(store)
    finally:
        os.close(twin)


def test_a_reservation_that_is_not_entered_ends(store: FileStore) -> None:
    """Its caller was interrupted just then."""
    save(store)
    with pytest.warns(ResourceWarning):
        assert [store.reserve()] != [None]
    assert not is_reserved(store)


def test_while_the_lock_is_taken_there_is_no_reservation(store: FileStore) -> None:
    save(store)
    locked, over = threading.Event(), threading.Event()

    def hold() -> None:
        lock = store.lock()
        assert lock.acquire(60)
        locked.set()
        over.wait(60)
        lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(60)
    assert is_reserved(store)
    over.set()
    thread.join()
    assert not is_reserved(store)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF])
def test_if_files_cannot_be_locked_every_caller_gets_a_reservation(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As on a network file system that knows no such locks."""
    save(store)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", failing(fcntl.flock, number))
        assert not is_reserved(store)
        assert not is_reserved(store)


def test_a_link_is_not_followed(store: FileStore, path: Path) -> None:
    save(store)
    target = path.with_name("target")
    path.with_name("token.json.reserve").symlink_to(target)
    assert not is_reserved(store)
    assert not target.exists()


def test_the_file_is_for_its_owner_alone_and_stays(store: FileStore, path: Path) -> None:
    save(store)
    file = path.with_name("token.json.reserve")
    for _ in range(2):
        assert not is_reserved(store)
        assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, 0)


def test_a_reservation_blocks_no_reader_or_writer(store: FileStore) -> None:
    """Also where a lock does, as on a share that Windows serves."""
    save(store)
    reservation = store.reserve()
    assert isinstance(reservation, io.FileIO)
    with reservation:
        assert reservation.name not in (store.path, f"{store.path}.lock", f"{store.path}.spent")
        save(store, 2, expected="tag 1")
