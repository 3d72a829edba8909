"""FileStore: the contract, and what concerns files only."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path

import pytest

from tokenadapter.errors import StoreError
from tokenadapter.stores.file import FileStore
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract, StoreContract

from .helpers import failing, run, save


class TestFileStore(SharedStoreContract):
    LAPSES_WITHIN = 5.0

    @pytest.fixture
    def connect(self, path: Path) -> Connect:
        return lambda: FileStore(path)

    @pytest.fixture
    def corrupt(self, path: Path) -> Corrupt:
        return path.write_bytes


class TestFileStoreBehindALink(StoreContract):
    """A store that follows the link and a store that names the file share one slot."""

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        link, target = tmp_path / "link.json", tmp_path / "real" / "token.json"
        link.symlink_to(target)
        connections = 0

        def connect() -> FileStore:
            nonlocal connections
            connections += 1
            return FileStore(link, private=False) if connections % 2 else FileStore(target)

        return connect


def test_it_says_which_slot_it_is(store: FileStore, path: Path) -> None:
    assert repr(store) == str(store) == f"FileStore({str(path)!r})"


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileStore("~/state/token.json").path == str(tmp_path / "state" / "token.json")
    assert FileStore(Path("~/token.json")).path == str(tmp_path / "token.json")


def test_an_unknown_home_directory_is_no_directory_named_tilde() -> None:
    with pytest.raises(ValueError, match="~nobody-at-all/token"):
        FileStore("~nobody-at-all/token.json")


def test_a_relative_path_keeps_its_meaning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileStore("state/token.json")
    monkeypatch.chdir("/")
    save(store)
    assert (tmp_path / "state" / "token.json").exists()


def test_it_is_pickled_with_its_settings(path: Path) -> None:
    for private in (True, False):
        twin = pickle.loads(pickle.dumps(FileStore(path, private=private)))
        assert (twin.path, twin.private) == (str(path), private)


def test_a_person_can_read_the_file(store: FileStore, path: Path) -> None:
    save(store)
    assert json.loads(path.read_text()) == {
        "format": "tokenadapter/1",
        "tag": "tag 1",
        "document": {"n": 1},
    }
    assert path.read_text().startswith('{\n  "format": "tokenadapter/1",\n')


# Loading costs little


def test_loading_creates_nothing(store: FileStore, path: Path) -> None:
    assert store.load().document is None
    assert not store.was_spent("hash")
    assert not path.parent.exists()


def test_loading_imports_only_what_it_needs(store: FileStore, path: Path) -> None:
    save(store)
    run(f"""
        import sys
        before = set(sys.modules)
        from tokenadapter.stores.file import FileStore
        assert FileStore({str(path)!r}).load().document == {{"n": 1}}
        dear = {{"filelock", "requests", "dataclasses", "inspect", "logging", "pathlib",
                 "tokenadapter.errors"}}
        imported = dear & (sys.modules.keys() - before)
        assert not imported, imported
    """)


# Spent tokens


def test_a_glimpse_of_a_file_that_cannot_be_inspected_is_none(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = store.glimpse()
    assert nothing is not None
    save(store)
    assert store.glimpse() not in (None, nothing)
    monkeypatch.setattr(os, "stat", failing(os.stat, errno.EACCES, only=str(path).__eq__))
    assert store.glimpse() is None


def test_spent_tokens_are_remembered_without_the_record(store: FileStore, path: Path) -> None:
    save(store)
    for for_good in (True, False):
        store.remember_spent(f"hash {for_good}", for_good=for_good)
    path.unlink()
    assert FileStore(path).was_spent("hash True")
    assert FileStore(path).was_spent("hash False")


def test_spent_tokens_are_lines_of_text(store: FileStore, path: Path) -> None:
    for digest, for_good in [("a", True), ("b", False), ("c", False), ("b", False), ("a", True)]:
        store.remember_spent(digest, for_good=for_good)
    assert path.with_name("token.json.spent").read_text() == "c\nb\na for good\n"


def test_of_the_spent_tokens_that_may_be_forgotten_the_last_32_are_remembered(
    store: FileStore, path: Path
) -> None:
    lock = store.lock()
    assert lock.acquire(60)
    for number in range(40):
        store.remember_spent(f"kept {number}", for_good=True)
        store.remember_spent(f"other {number}", for_good=False)
    lock.release()
    twin = FileStore(path)
    assert all(twin.was_spent(f"kept {number}") for number in range(40))
    assert [twin.was_spent(f"other {number}") for number in range(40)] == [False] * 8 + [True] * 32
    assert len(path.with_name("token.json.spent").read_text().splitlines()) == 72


def test_a_failure_to_remember_a_spent_token_keeps_the_earlier_ones(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remember_spent("hash", for_good=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, errno.EIO))
        with pytest.raises(StoreError, match=r"cannot remember .* refresh token: .*Input/output"):
            store.remember_spent("another", for_good=True)
    assert [store.was_spent("hash"), store.was_spent("another")] == [True, False]
    assert [entry.name for entry in path.parent.glob(".*")] == []


def test_a_file_of_spent_tokens_that_others_can_write_is_refused(
    store: FileStore, path: Path
) -> None:
    store.remember_spent("hash", for_good=False)
    path.with_name("token.json.spent").chmod(0o622)
    with pytest.raises(StoreError, match=r"chmod 600 .*/token\.json\.spent"):
        store.was_spent("hash")
    with pytest.raises(StoreError, match=r"chmod 600 .*/token\.json\.spent"):
        store.remember_spent("another", for_good=True)
