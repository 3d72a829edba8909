"""Which files FileStore trusts, and what others may do with its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokenadapter import groups
from tokenadapter.errors import StoreError
from tokenadapter.stores.file import FileStore

from .helpers import mode, save


@pytest.fixture
def open_handed() -> Iterator[None]:
    """Without a umask that would hide which modes are asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_handed")
def test_files_and_directories_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "token.json"
    store = FileStore(path)
    save(store)
    store.remember_spent("hash", for_good=True)
    with store.reserve():
        pass
    lock = store.lock()
    assert lock.acquire(60)
    store.prepare()
    assert {entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")} == {
        "token.json",
        "token.json.reserve",
        "token.json.lock",
        "token.json.spent",
    }
    assert {mode(entry) for entry in path.parent.iterdir()} == {0o600}
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    lock.release()


@pytest.mark.parametrize("bits", [0o640, 0o620, 0o604, 0o602, 0o644, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(
    store: FileStore, path: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_is_alone_in", lambda gid: False)
    save(store)
    path.chmod(bits)
    for attempt in (store.load, lambda: save(store, 2, expected="tag 1")):
        with pytest.raises(StoreError, match=f"chmod 600 {path}"):
            attempt()
    assert mode(path) == bits
    assert FileStore(path, private=False).load().document == {"n": 1}
    path.chmod(0o600)
    assert store.load().document == {"n": 1}


def test_the_command_to_run_can_be_pasted(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "my token.json")
    save(store)
    Path(store.path).chmod(0o644)
    with pytest.raises(StoreError, match=f"`chmod 600 '{store.path}'`"):
        store.load()


def test_a_file_of_another_user_is_refused(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for attempt in (store.load, lambda: save(store, 2, expected="tag 1")):
        with pytest.raises(StoreError, match="belongs to another user") as caught:
            attempt()
        assert f"`chown {os.geteuid()} {path}` as root if the file was copied" in str(caught.value)
    assert FileStore(path, private=False).load().document == {"n": 1}


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    save(FileStore(target))
    link.symlink_to(target)
    store = FileStore(link)
    for attempt in (store.load, lambda: save(store, 2, expected="tag 1")):
        with pytest.raises(StoreError, match=f"is a symbolic link to {target}"):
            attempt()
    assert FileStore(target).load().document == {"n": 1}


def test_a_link_that_may_be_followed_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real" / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    store = FileStore(link, private=False)
    save(store)
    store.remember_spent("hash", for_good=True)
    assert link.is_symlink()
    assert FileStore(target).load().document == {"n": 1}
    assert FileStore(target).was_spent("hash")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "real"] == ["link.json"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_path_that_is_not_a_regular_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "thing")
    for private in (True, False):
        with pytest.raises(StoreError, match="not a regular file"):
            FileStore(tmp_path / "thing", private=private).load()
