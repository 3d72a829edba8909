"""KeyringStore: the contract, and what concerns keyrings only."""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backends import chainer, fail, null

from tokenadapter.errors import StoreError
from tokenadapter.stores import _keyring
from tokenadapter.stores._entries import Entries
from tokenadapter.stores.keyring import KeyringStore
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract
from tokenadapter.testing.contract.terms import content_of

from .helpers import save
from .keyring_backend import Discouraged, Recommended, Short, ShortStore

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Sets the keyring of this process and of those that it starts."""
    directory = tmp_path / "keyring"
    directory.mkdir()
    monkeypatch.setenv("TEST_KEYRING", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("keyring.core._keyring_backend", None)

    def use(backend: Any) -> None:
        name = f"{backend.__module__}.{backend.__name__}"
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
        keyring.set_keyring(backend())

    use(Recommended)
    return use


@pytest.fixture
def store() -> KeyringStore:
    return KeyringStore("billing", "me")


class TestKeyringStore(SharedStoreContract):
    LAPSES_WITHIN = 5.0

    @pytest.fixture
    def connect(self) -> Connect:
        return lambda: KeyringStore("billing", "me")

    @pytest.fixture
    def corrupt(self) -> Corrupt:
        return lambda content: keyring.set_password("billing", "me", content.decode())


class TestWithShortEntries(SharedStoreContract):
    LAPSES_WITHIN = 5.0
    LARGE = 6_000

    @pytest.fixture(autouse=True)
    def _short(self, use: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
        use(Short)

    @pytest.fixture
    def connect(self) -> Connect:
        return ShortStore


def test_it_says_which_slot_it_is(store: KeyringStore) -> None:
    assert repr(store) == str(store) == "KeyringStore('billing', 'me')"


@pytest.mark.parametrize("name", [("", "me"), ("billing", "")])
def test_a_slot_has_a_name(name: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        KeyringStore(*name)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ImportError, match=r"pip install 'tokenadapter\[keyring\]'"):
        KeyringStore("billing", "me")


def test_it_is_pickled_with_its_settings(tmp_path: Path) -> None:
    twin = pickle.loads(pickle.dumps(KeyringStore("a", "b", allow="x.Y", directory=tmp_path)))
    assert (twin.service, twin.username, twin.allow) == ("a", "b", ("x.Y",))
    assert twin.directory == str(tmp_path)


def test_a_person_finds_the_record(store: KeyringStore) -> None:
    save(store)
    assert json.loads(keyring.get_password("billing", "me") or "") == {
        "format": "tokenadapter/1",
        "tag": "tag 1",
        "document": {"n": 1},
    }


def test_the_lock_and_the_notes_are_in_the_state_directory(
    store: KeyringStore, tmp_path: Path
) -> None:
    save(store)
    store.remember_spent("note", for_good=True)
    store.remember_spent("note", for_good=False)
    other = KeyringStore("billin", "gme")
    assert not other.was_spent("note")
    directory = tmp_path / "home" / ".local" / "state" / "tokenadapter"
    assert directory.stat().st_mode & 0o777 == 0o700
    [lock, notes] = sorted(directory.iterdir())
    assert lock.name == f"{notes.stem}.lock"
    assert notes.read_text() == "note for good\n"
    held = store.lock()
    assert held.acquire(60)
    lock_of_other = other.lock()
    assert lock_of_other.acquire(60)
    for it in (held, lock_of_other):
        it.release()


def test_loading_creates_nothing(store: KeyringStore, tmp_path: Path) -> None:
    assert store.load().document is None
    assert not store.was_spent("note")
    assert not (tmp_path / "home").exists()


def test_who_does_not_hold_the_lock_waits_for_who_does(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.stores._lockfile._PATIENCE", 0.02)
    held = KeyringStore("billing", "me").lock()
    assert held.acquire(60)
    with pytest.raises(StoreError, match=r"others held .* for 0.02 s: try again\. Nothing stored"):
        save(store)
    held.release()


# What is in the entry


@pytest.mark.parametrize("there", [SECRET, '{"access_token": "s3cr3t"}', "", "\ud800"])
def test_what_it_did_not_write_is_put_aside(
    store: KeyringStore, there: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    held = {("billing", "me"): there}
    monkeypatch.setattr(Recommended, "get_password", lambda self, *name: held.get(name))
    monkeypatch.setattr(
        Recommended, "set_password", lambda self, *name: held.__setitem__(name[:2], name[2])
    )
    for _ in range(2):
        assert content_of(store) == (None, None)
    save(store)
    assert store.load().document == {"n": 1}
    [aside] = held.keys() - {("billing", "me")}
    assert aside[0].startswith("billing damaged 2")
    assert held[aside] == there
    assert len(caplog.messages) == 2
    assert "adopt()" in caplog.messages[0]
    assert SECRET not in caplog.text


def test_what_a_later_version_wrote_is_left_alone(store: KeyringStore) -> None:
    later = '{"format": "tokenadapter/2"}'
    keyring.set_password("billing", "me", later)
    for task in (store.load, lambda: save(store)):
        with pytest.raises(StoreError, match="newer tokenadapter wrote it"):
            task()
    assert keyring.get_password("billing", "me") == later


# Entries that are too short


@pytest.fixture
def entries(use: Callable[[Any], None]) -> Entries:
    use(Short)
    return Entries(keyring.get_keyring(), "billing", "me", 100)


def count() -> int:
    return Recommended().entries()


def test_what_is_no_longer_needed_is_deleted(entries: Entries) -> None:
    for length, parts in [(950, 10), (250, 3), (251, 3), (100, 0), (101, 2), (1, 0), (950, 10)]:
        text = "x" * length
        entries.write(text, "tag")
        assert entries.read() == text
        assert count() == 1 + parts


@pytest.mark.parametrize("step", range(60))
def test_a_writer_that_is_killed_leaves_the_earlier_text_or_the_next(
    entries: Entries, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    class Killed(BaseException):
        pass

    left = step

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def die(*args: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return call(*args)

        return die

    first, second, third = "a" * 1050, "b" * 730, "c" * 450
    entries.write(first, "one")
    with monkeypatch.context() as patch:
        for name in ("set_password", "delete_password"):
            patch.setattr(Recommended, name, dying(getattr(Recommended, name)))
        with contextlib.suppress(Killed):
            entries.write(second, "two")
    assert entries.read() in (first, second)
    entries.write(third, "three")
    assert entries.read() == third
    assert count() == 1 + 5


def test_who_reads_while_others_write_begins_again(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries.write("a" * 1050, "one")
    get_password, looks = Recommended.get_password, []

    def get_late(self: Recommended, service: str, username: str) -> str | None:
        looks.append(service)
        if len(looks) == 5:
            entries.write("b" * 1050, "two")
        return get_password(self, service, username)

    monkeypatch.setattr(Recommended, "get_password", get_late)
    assert entries.read() == "b" * 1050


def test_who_never_reads_anything_whole_says_so(
    entries: Entries, monkeypatch: pytest.MonkeyPatch, store: KeyringStore
) -> None:
    entries.write("a" * 1050, "one")
    get_password, looks = Recommended.get_password, []

    def get_changing(self: Recommended, service: str, username: str) -> str | None:
        looks.append(service)
        if service == "billing":
            head = json.loads(get_password(self, service, username) or "")
            head["parts"]["sha256"] = str(len(looks))
            return json.dumps(head)
        return get_password(self, service, username)

    monkeypatch.setattr(Recommended, "get_password", get_changing)
    with pytest.raises(StoreError, match="others write to it all the time: try again"):
        store.load()


def test_a_record_whose_parts_are_lost_counts_as_none(
    entries: Entries, store: KeyringStore, caplog: pytest.LogCaptureFixture
) -> None:
    entries.write("a" * 1050, "one")
    keyring.delete_password("billing part a3", "me")
    assert content_of(store) == (None, None)
    assert "is torn or holds something else" in caplog.text


@pytest.mark.parametrize(
    "head",
    [
        '{"format": "tokenadapter/1", "parts": {"set": "c", "sha256": ""}}',
        '{"format": "other/1", "parts": {"set": "a", "sha256": ""}}',
        '{"format": "tokenadapter/1", "parts": {"set": "a", "sha256": 1}}',
        "[" * 100_000,
    ],
)
def test_what_only_looks_like_a_head_is_text(head: str, use: Callable[[Any], None]) -> None:
    keyring.set_password("billing", "me", head)
    assert Entries(keyring.get_keyring(), "billing", "me", None).read() == head


# Which keyrings are used


def test_the_keyring_of_windows_is_known_to_be_short() -> None:
    class WinVaultKeyring(Recommended):
        __module__ = "keyring.backends.Windows"

    WinVaultKeyring.__qualname__ = "WinVaultKeyring"
    assert _keyring.entry_size(WinVaultKeyring()) == 1280
    assert _keyring.entry_size(Recommended()) is None


def test_a_keyring_that_is_not_recommended_is_refused_unless_it_is_named(
    store: KeyringStore, use: Callable[[Any], None]
) -> None:
    use(Discouraged)
    name = f"{Discouraged.__module__}.Discouraged"
    for task in (store.load, lambda: save(store)):
        with pytest.raises(StoreError, match=f"{name}, is not recommended: it may keep secrets"):
            task()
    assert count() == 0
    for allow in (name, [name, "other"]):
        assert KeyringStore("billing", "me", allow=allow).load().document is None
    save(KeyringStore("billing", "me", allow=name))
    with pytest.raises(StoreError, match=f"allow='{name}'"):
        KeyringStore("billing", "me", allow="other").load()


def test_the_plaintext_keyring_is_refused(store: KeyringStore) -> None:
    file = pytest.importorskip("keyrings.alt.file")
    keyring.set_keyring(file.PlaintextKeyring())
    with pytest.raises(StoreError, match=r"keyrings\.alt\.file\.PlaintextKeyring"):
        save(store)


@pytest.mark.parametrize("backend", [fail.Keyring, null.Keyring])
def test_a_keyring_that_keeps_nothing_is_refused(backend: Any) -> None:
    keyring.set_keyring(backend())
    name = f"{backend.__module__}.Keyring"
    with pytest.raises(StoreError, match="there is no keyring here"):
        KeyringStore("billing", "me", allow=name).load()


def test_of_several_the_best_is_used_and_no_other(
    store: KeyringStore, use: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain: list[Any] = [Recommended(), Discouraged()]
    monkeypatch.setattr(chainer.ChainerBackend, "backends", chain)
    keyring.set_keyring(chainer.ChainerBackend())
    save(store)

    def not_today(self: Any, *args: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(Recommended, "set_password", not_today)
    with pytest.raises(StoreError, match="the keyring failed with NotImplementedError"):
        save(store, 2, expected="tag 1")
    del chain[0]
    with pytest.raises(StoreError, match="not recommended"):
        store.load()
    del chain[0]
    with pytest.raises(StoreError, match=r"there is no keyring here|not recommended"):
        store.load()


def test_what_a_keyring_raises_is_told_by_its_kind(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(self: Any, *args: Any) -> None:
        raise keyring.errors.KeyringLocked(SECRET)

    monkeypatch.setattr(Recommended, "get_password", locked)
    for task in (store.load, lambda: save(store)):
        with pytest.raises(
            StoreError, match=r"failed with KeyringLocked\. Nothing .* unlocked"
        ) as e:
            task()
        assert SECRET not in str(e.value)
