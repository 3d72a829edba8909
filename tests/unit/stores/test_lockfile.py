"""The lock of FileStore and its holder, across kills, forks and lost files."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tokenadapter.errors import StoreError
from tokenadapter.stores._flock import is_locked
from tokenadapter.stores._tenure import Tenure
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.lockfile import LockFile
from tokenadapter.testing.workers import in_threads, succeeds_in_child

from .helpers import failing, run, save


def test_the_lock_file_is_never_deleted(store: FileStore, path: Path) -> None:
    lock = store.lock()
    assert lock.acquire(60)
    inode = path.with_name("token.json.lock").stat().st_ino
    lock.release()
    save(store)
    assert path.with_name("token.json.lock").stat().st_ino == inode


@pytest.mark.parametrize("again", [True, False])
def test_a_lock_on_a_file_that_is_gone_is_not_confirmed(
    store: FileStore, path: Path, again: bool
) -> None:
    save(store)
    lock = store.lock()
    assert lock.acquire(60)
    assert lock.confirm()
    store.prepare()
    shutil.rmtree(path.parent)
    if again:
        path.parent.mkdir(0o700)
        path.with_name("token.json.lock").touch(0o600)
    assert not lock.confirm()
    # The holder can still save, under the lock file that is there now.
    save(store, 2)
    assert store.load().document == {"n": 2}
    lock.release()
    other = store.lock()
    assert other.acquire(60)
    other.release()


@pytest.mark.parametrize("times", [1, 4])
def test_a_lock_on_a_file_that_is_deleted_before_it_is_locked_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Whatever the lock is for."""
    flock, deleted = fcntl.flock, list[int]()
    name = path.with_name("token.json.login")

    def delete_and_lock(fd: int, operation: int) -> None:
        if len(deleted) < times:
            deleted.append(fd)
            name.unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", delete_and_lock)
    lock = LockFile(name, "slot")
    assert not lock.acquire(60)
    assert lock.acquire_within(60)
    assert len(deleted) == times
    assert lock.confirm()
    assert not LockFile(name, "slot").acquire(60)
    lock.release()
    assert LockFile(name, "slot").acquire(60)


def test_a_save_without_the_lock_does_not_wait_forever(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.stores._tenure.WRITE_TIMEOUT", 0.05)
    lock = FileStore(store.path).lock()
    assert lock.acquire(60)
    with pytest.raises(StoreError, match="try again"):
        save(store)
    lock.release()
    save(store)


@pytest.mark.parametrize("call", ["fstat", "lstat"])
def test_a_holder_whose_lock_file_cannot_be_inspected_once_does_not_wait_for_itself(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr("tokenadapter.stores._tenure.WRITE_TIMEOUT", 0.05)
    lock = store.lock()
    assert lock.acquire(60)
    monkeypatch.setattr(os, call, failing(getattr(os, call), errno.EIO, times=1))
    save(store)
    assert lock.confirm()
    lock.release()


def test_a_thread_that_holds_the_lock_does_not_wait_for_itself_however_many_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Tenure):
        """Takes a while, in which other threads run."""

        def __init__(self) -> None:
            time.sleep(0)
            super().__init__()

    monkeypatch.setattr("tokenadapter.stores._tenure.Tenure", Slow)
    monkeypatch.setattr("tokenadapter.stores._tenure.WRITE_TIMEOUT", 0.05)
    barrier = threading.Barrier(8)

    def use(store: FileStore, _: int) -> None:
        barrier.wait()
        lock = store.lock()
        if lock.acquire(60):
            save(store)
        lock.release()

    for number in range(20):
        in_threads(partial(use, FileStore(tmp_path / f"{number}.json")), range(barrier.parties))


def test_the_kernel_alone_is_asked_whether_the_lock_is_taken(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many waiting processes ask often, and the process that renews needs the processor."""
    lock_path = f"{path}.lock"
    assert not is_locked(lock_path)
    holder, other = store.lock(), FileStore(store.path).lock()
    assert holder.acquire(60)
    assert is_locked(lock_path)
    # The holder does not mistake itself for another.
    assert holder.acquire(60)
    monkeypatch.setattr(other, "acquire_within", lambda seconds: pytest.fail("it was tried"))
    assert not other.acquire(60)
    holder.release()
    assert not is_locked(lock_path)


def test_processes_that_ask_at_the_same_time_do_not_see_each_others_locks(
    store: FileStore, path: Path
) -> None:
    save(store)
    lock_path = f"{path}.lock"
    fd = os.open(lock_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # as in the midst of asking
        assert not is_locked(lock_path)
    finally:
        os.close(fd)


def test_if_the_kernel_cannot_be_asked_the_lock_is_tried(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, errno.ENOLCK))
    assert not is_locked(f"{store.path}.lock")


@pytest.mark.parametrize("is_held", [True, False])
def test_the_kernels_answer_counts_if_the_lock_file_cannot_be_closed(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    lock = store.lock()
    assert lock.acquire(60)
    if not is_held:
        lock.release()
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", closing_badly)
        assert is_locked(f"{store.path}.lock") == is_held
    lock.release()


def closing_badly(fd: int, close: Callable[[int], None] = os.close) -> None:
    """Close *fd* as a network file system does that could not be reached."""
    close(fd)
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_no_other_lock_is_used_where_the_file_system_has_none(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", failing(fcntl.flock, errno.ENOSYS))
    with pytest.raises(StoreError, match="has no locks"):
        store.lock().acquire(60)
    monkeypatch.undo()
    assert store.lock().acquire(60)


def test_a_lock_that_cannot_be_taken_is_an_error(store: FileStore, path: Path) -> None:
    path.with_name("token.json.lock").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot lock .*/token\.json\.lock") as caught:
        store.lock().acquire(60)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StoreError):
        save(store)


def test_a_closed_descriptor_has_no_lock(store: FileStore) -> None:
    lock = store.lock()
    assert lock.acquire(60)
    os.close(lock._descriptors[-1])  # as daemons do with all that they inherit
    assert not lock.confirm()
    lock.release()
    other = FileStore(store.path).lock()
    assert other.acquire(60)
    other.release()


# Forks


def test_a_child_that_is_forked_during_a_probe_keeps_no_lock(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    flock, children, (wait, go_on) = fcntl.flock, list[int](), os.pipe()

    def flock_and_fork(fd: int, operation: int) -> None:
        flock(fd, operation)
        if not children:
            children.append(os.fork())
            if children == [0]:
                os.close(go_on)
                os.read(wait, 1)
                os._exit(0)

    monkeypatch.setattr(fcntl, "flock", flock_and_fork)
    try:
        assert not is_locked(f"{path}.lock")
        lock = store.lock()
        assert lock.acquire(60)
        lock.release()
    finally:
        os.close(go_on)
        os.close(wait)
        os.waitpid(children[0], 0)


def test_a_forked_child_neither_holds_nor_releases_the_lock(store: FileStore, path: Path) -> None:
    lock = store.lock()
    assert lock.acquire(60)
    store.prepare()

    def in_child() -> bool:
        held = lock.confirm()
        lock.release()
        return not held and not store.lock().acquire(60)

    assert succeeds_in_child(in_child)
    assert lock.confirm()
    assert not FileStore(path).lock().acquire(60)
    save(store)  # with what was prepared, which the child left alone
    lock.release()
    assert succeeds_in_child(lambda: store.lock().acquire(60))


def test_a_child_that_ends_does_not_release_the_lock_of_its_parent(path: Path) -> None:
    run(f"""
        import os, subprocess, sys
        from tokenadapter.stores.file import FileStore
        store = FileStore({str(path)!r})
        lock = store.lock()
        assert lock.acquire(60)
        child = os.fork()
        if child == 0:
            sys.exit(0)  # with all the finalizers and exit handlers that there are
        assert os.waitpid(child, 0)[1] == 0
        assert lock.confirm()
        probe = "from tokenadapter.stores.file import FileStore as F; import sys; " \\
            f"sys.exit(F({{store.path!r}}).lock().acquire(60))"
        assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
    """)


def test_a_living_child_does_not_keep_the_lock_of_its_dead_parent(store: FileStore) -> None:
    ready, tell_ready = os.pipe()
    done, tell_done = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            assert store.lock().acquire(60)
        finally:
            if os.fork() == 0:
                os.close(tell_done)
                os.write(tell_ready, b"!")
                os.read(done, 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(tell_ready)
    os.waitpid(parent, 0)
    assert os.read(ready, 1) == b"!"
    lock = store.lock()
    taken = lock.acquire(60)
    os.close(tell_done)
    assert os.read(ready, 1) == b""  # the grandchild has lived until now
    assert taken
    lock.release()
    os.close(ready)
    os.close(done)
