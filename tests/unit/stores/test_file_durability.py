"""A record of FileStore is whole and durable, or an error says that it was not saved."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tokenadapter.errors import StoreError
from tokenadapter.stores.file import FileStore
from tokenadapter.testing.contract.terms import content_of
from tokenadapter.testing.workers import counting, process

from .helpers import failing, run, save

DRAFTS = ".token.json.*.tmp"


def test_the_file_is_durable_before_its_name_and_the_name_before_the_end(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(fd: int) -> None:
        steps.append("sync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        fsync(fd)

    def spy_replace(source: str, target: str) -> None:
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    save(store, 2, expected="tag 1")
    assert steps == ["sync file", "replace", "sync directory"]


def test_new_directories_are_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def spy(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)
    deeper = path.parent / "deeper" / path.name
    save(FileStore(deeper))
    assert {parent.stat().st_ino for parent in list(deeper.parents)[:3]} <= synced


def test_a_file_system_that_cannot_sync_directories_is_accepted(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EINVAL, only=os.path.isdir))
    save(store)
    assert store.load().document == {"n": 1}


def test_a_save_whose_durability_is_in_doubt_can_be_repeated(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync, errno.EIO, only=os.path.isdir))
        with pytest.raises(StoreError, match="Input/output error"):
            save(store, 2, expected="tag 1")
    save(store, 2, expected="tag 1")
    assert store.load().document == {"n": 2}


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_earlier_record(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(getattr(os, call), errno.ENOSPC))
        with pytest.raises(StoreError, match="No space left") as caught:
            save(store, 2, expected="tag 1")
    assert isinstance(caught.value.__cause__, OSError)
    assert "Free space" in str(caught.value)
    assert "Nothing stored was lost" in str(caught.value)
    assert store.load().document == {"n": 1}
    assert not list(path.parent.glob(DRAFTS))
    save(store, 2, expected="tag 1")


def test_a_killed_writer_leaves_a_whole_file_and_no_lock(store: FileStore, path: Path) -> None:
    save(store)
    for delay in (0.0, 0.001, 0.002, 0.003, 0.005, 0.008, 0.013):
        with process(_save_on_and_on, store) as (child, pipe):
            pipe.recv()
            time.sleep(delay)
            child.kill()
            child.join()
            document, tag = content_of(store)
            assert document is not None
            assert document["text"] == "x" * document["size"]
            lock = store.lock()
            assert lock.acquire(60)
            lock.release()
        save(FileStore(path), expected=tag)
        assert not list(path.parent.glob(DRAFTS))
    assert {entry.name for entry in path.parent.iterdir()} == {"token.json", "token.json.lock"}


def _save_on_and_on(pipe: Connection, store: FileStore) -> None:
    tag = store.load().tag
    for number in counting(pipe):
        lock = store.lock()
        assert lock.acquire(60)
        store.prepare()
        size = (number % 4) * 20_000
        record = {"size": size, "text": "x" * size}
        assert store.save(record, tag=f"{number}", expected=tag, ttl=None)
        tag = f"{number}"
        lock.release()
        if number == 0:
            pipe.send("ready")


# Prepared


def test_a_save_writes_the_prepared_file(store: FileStore, path: Path) -> None:
    save(store)
    lock = store.lock()
    assert lock.acquire(60)
    store.prepare()
    store.prepare()
    (draft,) = path.parent.glob(DRAFTS)
    assert draft.stat().st_blocks * 512 >= 64 << 10
    inode = draft.stat().st_ino
    save(store, 2, expected="tag 1")
    assert path.stat().st_ino == inode
    assert path.stat().st_size < 200
    save(store, 3, expected="tag 2")
    lock.release()
    assert {entry.name for entry in path.parent.iterdir()} == {"token.json", "token.json.lock"}


def test_a_save_that_writes_nothing_keeps_the_prepared_file(store: FileStore, path: Path) -> None:
    save(store)
    lock = store.lock()
    assert lock.acquire(60)
    store.prepare()
    assert not store.save({}, tag="other", expected="none", ttl=None)
    assert len(list(path.parent.glob(DRAFTS))) == 1
    lock.release()
    assert not list(path.parent.glob(DRAFTS))


def test_preparing_without_the_lock_leaves_nothing(store: FileStore, path: Path) -> None:
    store.prepare()
    assert [entry.name for entry in path.parent.iterdir()] == ["token.json.lock"]


def test_preparing_fails_if_a_save_would_fail(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    lock = store.lock()
    assert lock.acquire(60)
    monkeypatch.setattr(os, "posix_fallocate", failing(os.posix_fallocate, errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        store.prepare()
    assert not list(path.parent.glob(DRAFTS))
    lock.release()


@pytest.mark.parametrize("unknown", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_preparing_succeeds_where_space_cannot_be_allocated(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, unknown: int | None
) -> None:
    if unknown is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", failing(os.posix_fallocate, unknown))
    store.prepare()


def test_a_limit_on_the_size_of_files_is_found_before_the_save(
    store: FileStore, path: Path
) -> None:
    save(store)
    run(f"""
        import resource
        from tokenadapter.errors import StoreError
        from tokenadapter.stores.file import FileStore
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        store = FileStore({str(path)!r})
        for attempt in (
            store.prepare,
            lambda: store.save({{"a": "x" * 9999}}, tag="2", expected="tag 1", ttl=None),
        ):
            try:
                attempt()
            except StoreError as error:
                assert "ulimit" in str(error), error
            else:
                raise AssertionError("no error")
    """)
    assert store.load().document == {"n": 1}
    assert not list(path.parent.glob(DRAFTS))


def test_only_drafts_of_this_slot_are_swept(store: FileStore, path: Path) -> None:
    save(store)
    dead = path.parent / ".token.json.0123456789abcdef.tmp"
    others = [
        path.parent / name
        for name in (
            ".token.json.other.0123456789abcdef.tmp",
            ".token.json.tmp",
            ".token.json.0123456789abcdef.bak",
            ".other.json.0123456789abcdef.tmp",
            "token.json.0123456789abcdef.tmp",
        )
    ]
    for file in (dead, *others):
        file.touch()
    save(FileStore(path), 2, expected="tag 1")
    assert not dead.exists()
    assert all(other.exists() for other in others)


# Where nothing can be written


def test_a_parent_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    store = FileStore(tmp_path / "state" / "token.json")
    for attempt in (
        store.load,
        store.prepare,
        lambda: save(store),
        lambda: store.lock().acquire(60),
        lambda: store.remember_spent("hash", for_good=True),
        lambda: store.was_spent("hash"),
    ):
        with pytest.raises(StoreError, match="Not a directory") as caught:
            attempt()
        assert repr(store) in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.skipif(
    os.geteuid() == 0 and "coverage" in sys.modules,
    reason="coverage, too, would have to write as the user that root becomes",
)
def test_a_directory_that_cannot_be_written_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        store = FileStore(Path(name) / "token.json")
        save(store)
        Path(name).chmod(0o555)
        # Permissions do not stop root.
        run(f"""
            import filelock, os
            from tokenadapter.errors import StoreError
            from tokenadapter.stores.file import FileStore
            import tokenadapter.stores.lockfile
            import tokenadapter.stores._tenure
            if os.geteuid() == 0:
                for entry in os.scandir({name!r}):
                    os.chown(entry, 65534, 65534)
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            store = FileStore({str(store.path)!r})
            assert store.load().document == {{"n": 1}}
            lock = store.lock()
            assert lock.acquire(60)
            for attempt in (
                store.prepare,
                lambda: store.remember_spent("hash", for_good=True),
                lambda: store.save({{}}, tag="tag 2", expected="tag 1", ttl=None),
                lambda: FileStore({name!r} + "/new/token.json").lock().acquire(60),
                lambda: FileStore({name!r} + "/new.json").lock().acquire(60),
            ):
                try:
                    attempt()
                except StoreError as error:
                    assert "Permission denied" in str(error), error
                else:
                    raise AssertionError("no error")
            lock.release()
            assert store.load().document == {{"n": 1}}
        """)
        Path(name).chmod(0o700)
