"""KeyringStore: the contract, the key in the keyring, and which keyrings are used."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backends import chainer, fail, null

from tokenadapter.errors import StoreError
from tokenadapter.stores.encrypted import EncryptedStore
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.keyring import KeyringStore
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract
from tokenadapter.testing.contract.terms import content_of

from .helpers import save
from .keyring_backend import Discouraged, Recommended

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
        return Path(KeyringStore("billing", "me").inner.path).write_bytes


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


def test_it_is_pickled_with_its_settings_and_without_its_key(tmp_path: Path) -> None:
    store = KeyringStore("a", "b", allow="x.Y", directory=tmp_path)
    save(store)
    pickled = pickle.dumps(store)
    twin = pickle.loads(pickled)
    assert (twin.service, twin.username, twin.allow) == ("a", "b", ("x.Y",))
    assert content_of(twin) == ({"n": 1}, "tag 1")
    assert (keyring.get_password("a", "b") or "").encode() not in pickled


def test_a_copy_in_another_directory_uses_the_same_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = KeyringStore("a", "b", directory="state")
    pickled = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    twin = pickle.loads(pickled)
    first, second = store.lock(), twin.lock()
    try:
        assert first.acquire(10)
        assert not second.acquire(10)
    finally:
        first.release()
        second.release()


def test_an_error_of_the_file_is_not_blamed_on_the_keyring(tmp_path: Path) -> None:
    store = KeyringStore("a", "b", directory=tmp_path)
    save(store)
    Path(store.inner.path).chmod(0o666)
    keyring.delete_password("a", "b")
    with pytest.raises(StoreError, match="chmod") as caught:
        save(KeyringStore("a", "b", directory=tmp_path))
    assert "keyring is unlocked" not in str(caught.value)


# The file


def test_the_record_is_an_encrypted_file_in_the_state_directory(
    store: KeyringStore, tmp_path: Path
) -> None:
    assert store.save({"token": SECRET}, tag="one", expected=None, ttl=None)
    other = KeyringStore("billin", "gme")
    assert other.load().document is None
    directory = tmp_path / "home" / ".local" / "state" / "tokenadapter"
    assert directory.stat().st_mode & 0o777 == 0o700
    [record, lock] = sorted(directory.iterdir())
    assert lock.name == f"{record.name}.lock"
    assert SECRET not in record.read_text()
    key = keyring.get_password("billing", "me")
    assert key is not None
    encrypted = EncryptedStore(FileStore(record), key, slot="billing/me")
    assert encrypted.load().document == {"token": SECRET}


def test_loading_creates_nothing(store: KeyringStore, tmp_path: Path) -> None:
    assert store.load().document is None
    assert not store.was_spent("hash")
    assert not (tmp_path / "home").exists()
    assert count() == 0


def test_a_save_waits_for_the_lock_for_a_while(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.stores._tenure.WRITE_TIMEOUT", 0.02)
    held = KeyringStore("billing", "me").lock()
    assert held.acquire(60)
    with pytest.raises(StoreError, match=r"others held .* for 0.02 s: try again\. Nothing stored"):
        save(store)
    held.release()


# The key


def count() -> int:
    return Recommended().entries()


def test_two_stores_that_save_at_once_create_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    set_password, get_password = Recommended.set_password, Recommended.get_password
    created: list[str] = []
    other_asks = threading.Event()

    def get(self: Recommended, *entry: str) -> str | None:
        if threading.current_thread() is other:
            other_asks.set()
        return get_password(self, *entry)

    def set_late(self: Recommended, *entry: str) -> None:
        if not created:
            other.start()
            # The other store waits for the lock.  Without the lock, it would find no key either.
            assert not other_asks.wait(0.2)
        created.append(entry[2])
        set_password(self, *entry)

    other = threading.Thread(
        target=lambda: KeyringStore("billing", "me").save(
            {"n": 2}, tag="tag 2", expected=None, ttl=None
        )
    )
    monkeypatch.setattr(Recommended, "get_password", get)
    monkeypatch.setattr(Recommended, "set_password", set_late)
    save(KeyringStore("billing", "me"))
    other.join()
    assert created == [keyring.get_password("billing", "me")]
    assert KeyringStore("billing", "me").load().document == {"n": 1}


def test_a_key_is_read_once(store: KeyringStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save(KeyringStore("billing", "me"))
    assert store.load().document == {"n": 1}
    monkeypatch.setattr(Recommended, "get_password", lambda *_: pytest.fail("the key is known"))
    assert store.load().document == {"n": 1}


def test_a_key_that_was_replaced_in_the_keyring_is_read_again(store: KeyringStore) -> None:
    save(store)
    keyring.delete_password("billing", "me")
    Path(store.inner.path).unlink()
    save(KeyringStore("billing", "me"), 2)
    assert store.load().document == {"n": 2}
    save(store, 3, expected="tag 2")
    assert KeyringStore("billing", "me").load().document == {"n": 3}


def test_a_key_that_vanished_is_put_back_by_a_process_that_knows_it(store: KeyringStore) -> None:
    save(store)
    key = keyring.get_password("billing", "me")
    keyring.delete_password("billing", "me")
    assert not store.save({"n": 2}, tag="tag 2", expected="another tag", ttl=None)
    assert keyring.get_password("billing", "me") == key
    assert KeyringStore("billing", "me").load().document == {"n": 1}


def test_a_record_whose_key_is_gone_is_an_error_and_is_kept(store: KeyringStore) -> None:
    save(store)
    keyring.delete_password("billing", "me")
    late = KeyringStore("billing", "me")
    for task in (late.load, lambda: save(late, 2, expected="tag 1")):
        with pytest.raises(StoreError, match=r"no longer has its key: .*\.json and log in"):
            task()
    assert count() == 0
    assert store.load().document == {"n": 1}


@pytest.mark.parametrize("there", [SECRET, "", "\ud800"])
def test_an_entry_that_is_not_a_key_is_an_error_and_is_kept(
    store: KeyringStore, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recommended, "get_password", lambda self, *name: there)
    monkeypatch.setattr(Recommended, "set_password", lambda *_: pytest.fail("it was replaced"))
    with pytest.raises(StoreError, match="contains something other than a key: choose") as caught:
        save(store)
    assert SECRET not in str(caught.value)


def test_a_keyring_that_forgets_the_new_key_is_an_error(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recommended, "set_password", lambda *_: None)
    with pytest.raises(StoreError, match="lost the key right after it was stored"):
        save(store)
    assert content_of(store) == (None, None)


# Which keyrings are used


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


def test_of_several_keyrings_only_the_best_is_used(
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
        save(KeyringStore("billing", "other"))
    del chain[0]
    with pytest.raises(StoreError, match="not recommended"):
        save(store, 2, expected="tag 1")
    del chain[0]
    with pytest.raises(StoreError, match=r"there is no keyring here|not recommended"):
        save(store, 2, expected="tag 1")


def test_the_error_names_the_class_of_what_a_keyring_raises(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(KeyringStore("billing", "me"))

    def locked(self: Any, *args: Any) -> None:
        raise keyring.errors.KeyringLocked(SECRET)

    monkeypatch.setattr(Recommended, "get_password", locked)
    for task in (store.load, lambda: save(store)):
        with pytest.raises(
            StoreError, match=r"failed with KeyringLocked\. Nothing .* unlocked"
        ) as e:
            task()
        assert SECRET not in str(e.value)
