"""EncryptedStore: the contract, and what concerns encryption only."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from doubles import Authority

from tokenadapter import FileStore, MemoryStore, StoreError, TokenKeeper, TokenNotPersisted
from tokenadapter.stores.callback import CallbackStore
from tokenadapter.stores.encrypted import EncryptedStore
from tokenadapter.stores.keyring import KeyringStore
from tokenadapter.testing.contract import Connect, Corrupt, StoreContract
from tokenadapter.testing.contract.terms import content_of

from .helpers import save

SECRET = "s3cr3t"
KEY, OTHER = (base64.urlsafe_b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))


class TestOverAFile(StoreContract):
    @pytest.fixture
    def connect(self, path: Path) -> Connect:
        return lambda: EncryptedStore(FileStore(path), KEY, slot="billing")

    @pytest.fixture
    def corrupt(self, path: Path) -> Corrupt:
        return path.write_bytes


class TestOverFunctions(StoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        held: list[dict[str, Any]] = []
        load = lambda: held[-1] if held else None  # noqa: E731
        # Old and new programs beside each other: all have both keys, in either order.
        orders = [[KEY, OTHER], [OTHER, KEY]] * 1000
        return lambda: EncryptedStore(
            CallbackStore(load, held.append, None), orders.pop(), slot="billing"
        )


@pytest.fixture
def inner(path: Path) -> FileStore:
    return FileStore(path)


def encrypted(inner: Any, keys: Any = KEY, slot: str | None = "billing") -> EncryptedStore:
    return EncryptedStore(inner, keys, slot=slot)


def test_it_says_which_slot_it_is_and_no_key(inner: FileStore) -> None:
    assert repr(encrypted(inner)) == f"EncryptedStore({inner!r}, slot='billing')"


def test_only_the_tag_and_the_slot_are_in_clear(inner: FileStore, path: Path) -> None:
    store = encrypted(inner)
    assert store.save({"token": SECRET}, tag="one", expected=None, ttl=None)
    snapshot = inner.load()
    assert snapshot.tag == "one"
    assert snapshot.document is not None
    assert snapshot.document.keys() == {"encrypted", "slot", "key", "data"}
    assert snapshot.document["slot"] == "billing"
    for text in (path.read_text(), str(base64.b64decode(snapshot.document["data"]))):
        assert SECRET not in text
        assert KEY not in text


def test_a_document_is_encrypted_differently_each_time(inner: FileStore) -> None:
    store, seen = encrypted(inner), set()
    for _ in range(3):
        save(store)
        document = inner.load().document
        assert document is not None
        seen.add(document["data"])
    assert len(seen) == 3


def test_the_inner_store_remembers_spent_tokens(inner: FileStore) -> None:
    encrypted(inner).remember_spent("a hash", for_good=True)
    assert inner.was_spent("a hash")
    assert encrypted(inner).was_spent("a hash")


def test_the_optional_members_are_those_of_the_inner_store(inner: FileStore, path: Path) -> None:
    memory = MemoryStore()
    assert encrypted(inner).poll == inner.poll
    assert encrypted(inner).glimpse() == inner.glimpse()
    for name in ("glimpse", "reserve"):
        assert not hasattr(encrypted(memory), name)
    save(encrypted(inner))
    with encrypted(inner).reserve():
        assert inner.reserve() is None
    assert not encrypted(memory).is_copy
    assert encrypted(pickle.loads(pickle.dumps(memory))).is_copy
    held = encrypted(inner).lock()
    assert held.acquire(60)
    assert not inner.lock().acquire(60)
    encrypted(inner).prepare()
    held.release()
    assert encrypted(MemoryStore("a")).save({}, tag="one", expected=None, ttl=0.0)
    assert MemoryStore("a").load().document is None


# Keys


@pytest.mark.parametrize("key", [bytes(range(32)), b"\n" * 32])
def test_a_key_has_many_forms(inner: FileStore, key: bytes) -> None:
    text = base64.urlsafe_b64encode(key).decode()
    forms: list[Any] = [key, text, text.encode(), text.rstrip("="), f"{text}\n", [key], (text,)]
    save(encrypted(inner, key))
    for form in forms:
        assert encrypted(inner, form).load().document == {"n": 1}


def test_a_new_key_is_32_random_bytes_as_text(inner: FileStore) -> None:
    keys = {EncryptedStore.generate_key() for _ in range(10)}
    assert len(keys) == 10
    for key in keys:
        assert len(base64.urlsafe_b64decode(key)) == 32
    save(encrypted(inner, keys.pop()))


@pytest.mark.parametrize(
    "keys",
    [
        SECRET,
        SECRET.encode(),
        KEY + "x",
        KEY[:-2],
        "ż" * 32,
        b"\xff" * 31,
        KEY.replace("=", "!"),
        "",
    ],
)
def test_an_invalid_key_is_refused_and_not_shown(inner: FileStore, keys: Any) -> None:
    with pytest.raises(ValueError, match=r"not a key: .*generate_key\(\) makes one") as caught:
        encrypted(inner, [KEY, keys])
    assert not keys or str(keys) not in str(caught.value)


def test_at_least_one_key_is_required(inner: FileStore) -> None:
    with pytest.raises(ValueError, match="keys is empty"):
        encrypted(inner, [])
    with pytest.raises(TypeError, match="a key is text or bytes, not int"):
        encrypted(inner, [1])


def test_the_first_key_encrypts_and_all_decrypt(inner: FileStore) -> None:
    save(encrypted(inner, KEY))
    changed = encrypted(inner, [OTHER, KEY])
    assert changed.load().document == {"n": 1}
    save(changed, 2, expected="tag 1")
    assert encrypted(inner, OTHER).load().document == {"n": 2}
    assert encrypted(inner, [KEY, OTHER]).load().document == {"n": 2}


def test_a_wrong_key_is_a_clear_error_and_destroys_nothing(inner: FileStore, path: Path) -> None:
    authority = Authority()
    TokenKeeper(authority, encrypted(inner, KEY)).current()
    before, written = path.read_bytes(), inner.load()
    assert written.document is not None
    name = written.document["key"]
    wrong = encrypted(inner, OTHER)
    with pytest.raises(StoreError, match=f"encrypted with the key {name}, and the keys here are "):
        wrong.load()
    keeper = TokenKeeper(authority, wrong)
    with pytest.raises(StoreError, match="Nothing was changed: add that key after the first one"):
        keeper.current()
    with pytest.raises(TokenNotPersisted, match="add that key"):
        keeper.adopt({"access_token": "x", "refresh_token": "y"})
    assert path.read_bytes() == before
    assert authority.presented == ["refresh-0"]


def test_without_the_package_the_error_names_the_extra(
    inner: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match=r"pip install 'tokenadapter\[crypto\]'"):
        encrypted(inner)


# What it is bound to


def put(inner: FileStore, **changes: Any) -> None:
    """Change the document, as a user might who can write to the store."""
    document, tag = content_of(inner)
    assert document is not None
    assert inner.save(document | changes, tag=tag or "", expected=tag, ttl=None)


def test_another_slot_s_document_is_refused(inner: FileStore, tmp_path: Path) -> None:
    other = FileStore(tmp_path / "other.json")
    save(encrypted(other, slot="customers"))
    save(encrypted(inner))
    theirs = other.load().document
    assert theirs is not None
    put(inner, **theirs)
    with pytest.raises(StoreError, match=r"encrypted for the slot 'customers'.* pass slot='custom"):
        encrypted(inner).load()
    put(inner, slot="billing")
    with pytest.raises(StoreError, match="changed since it was encrypted, or replaces"):
        encrypted(inner).load()


def test_an_earlier_document_is_refused(inner: FileStore) -> None:
    store = encrypted(inner)
    save(store)
    earlier = inner.load().document
    assert earlier is not None
    save(store, 2, expected="tag 1")
    put(inner, **earlier)
    with pytest.raises(StoreError, match="find out which program writes there"):
        store.load()


@pytest.mark.parametrize("data", ["", "AAAA", "!", "ż", "A" * 100, None])
def test_a_changed_document_is_refused(inner: FileStore, data: str | None) -> None:
    store = encrypted(inner)
    save(store)
    if data is None:
        document = inner.load().document
        assert document is not None
        sealed = bytearray(base64.b64decode(document["data"]))
        sealed[-20] ^= 1
        data = base64.b64encode(sealed).decode()
    put(inner, data=data)
    with pytest.raises(StoreError, match="changed since it was encrypted"):
        store.load()


def test_a_document_that_a_later_version_encrypted_is_left_alone(inner: FileStore) -> None:
    store = encrypted(inner)
    save(store)
    put(inner, encrypted="aes-256-gcm/2\n" + "x" * 5000)
    with pytest.raises(StoreError, match=r"as aes-256-gcm/2\\nx+…\. "):
        store.load()
    put(inner, encrypted="aes-256-gcm/2")
    with pytest.raises(StoreError, match=r"newer tokenadapter .* as aes-256-gcm/2\. .* upgrade"):
        store.load()


def test_a_document_that_is_not_encrypted_is_refused_and_can_be_encrypted(inner: FileStore) -> None:
    save(inner)
    store = encrypted(inner)
    with pytest.raises(StoreError, match=r"it is not encrypted\. Nothing was changed: load"):
        store.load()
    document, tag = content_of(inner)
    assert document is not None
    assert store.save(document, tag="two", expected=tag, ttl=None)
    assert content_of(store) == ({"n": 1}, "two")


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (MemoryStore("billing"), "billing"),
        ("memory:billing", "billing"),
        (KeyringStore("billing", "me"), "billing/me"),
    ],
)
def test_the_slot_has_the_name_that_the_inner_store_has_for_it(inner: Any, name: str) -> None:
    assert EncryptedStore(inner, KEY).slot == name
    assert EncryptedStore(inner, KEY, slot="x").slot == "x"


def test_a_slot_without_a_name_is_refused(inner: FileStore) -> None:
    for nameless in (inner, MemoryStore()):
        with pytest.raises(ValueError, match="no name for its slot: pass one, such as"):
            EncryptedStore(nameless, KEY)


@pytest.mark.parametrize("inner", [None, {}, json])
def test_an_inner_object_that_is_not_a_store_is_refused(inner: Any) -> None:
    with pytest.raises(TypeError, match="inner must be a store such as FileStore"):
        encrypted(inner)


def test_it_is_pickled_with_its_keys_and_shows_none(inner: FileStore) -> None:
    store = encrypted(inner, [OTHER, KEY])
    save(store)
    twin = pickle.loads(pickle.dumps(store))
    assert (twin.slot, twin.load().document) == ("billing", {"n": 1})
    attributes: Sequence[Any] = [twin, twin._cipher, *vars(twin._cipher).values()]
    assert all(key not in repr(it) for it in attributes for key in (KEY, OTHER))
