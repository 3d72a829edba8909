"""The store that encrypts what another store keeps.

The tag stays in clear, since the other store compares it, and so do the hashes of spent tokens.
The encryption is bound to the slot and to the tag: the document of another slot, or an earlier one,
is not accepted in place of the current one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, cast

from tokenadapter.late_imports import late
from tokenadapter.protocols import Document, Glimpsed, Reserving, Snapshot, StoreLock, TokenStore
from tokenadapter.stores._cipher import Cipher, Forged, Key, UnknownKey, new_key
from tokenadapter.values import checked_store, one_line

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.stores import urls
else:
    errors = late("tokenadapter.errors")
    urls = late("tokenadapter.stores.urls")

__all__ = ["EncryptedStore", "innermost"]

_KIND: Final = "aes-256-gcm/1"
# The attributes in which stores have the names of their slots.
_NAMES: Final = ("slot", "key", "name")


class EncryptedStore:
    """One slot of *inner*, whose documents are encrypted with AES-256-GCM before they get there.

    A user who can write to *inner* can still empty it, or restore an earlier state of it as a
    whole: only a process that has seen a later state notices that.

    A pickled store contains its keys: a program that can read the pickle can decrypt the token.

    :param inner: where the encrypted document is kept: any store, the path of a file, or the URL of
        a store.
    :param keys: a key, or several: the first one encrypts, all of them decrypt.  To change the key,
        put the new one first, everywhere; the next renewal encrypts with it.
    :param slot: the name of the slot, to which the encryption is bound; by default the name that
        *inner* has for it.  A file and functions have no such name: pass one, the same in all
        programs that share the slot.
    :raises TypeError: if *inner* is not a store, or a key is neither text nor bytes.
    :raises ValueError: if a key cannot be one, or the slot has no name.
    :raises ImportError: if the package cryptography is not installed.
    """

    def __init__(
        self,
        inner: TokenStore | str | os.PathLike[str],
        keys: Key | Sequence[Key],
        *,
        slot: str | None = None,
    ) -> None:
        if isinstance(inner, (str, os.PathLike)):
            inner = urls.store_from_url(inner)
        self.inner: TokenStore = checked_store("inner", inner)
        self._keys = (keys,) if isinstance(keys, (str, bytes)) else tuple(keys)
        self._cipher = Cipher(self._keys)
        self.slot: str = slot or _name(inner)

    @staticmethod
    def generate_key() -> str:
        """A new key: 32 random bytes in URL-safe Base64.  Keep it where you keep secrets."""
        return new_key()

    @property
    def is_copy(self) -> bool:
        """As in the inner store."""
        return self.inner.is_copy

    @property
    def poll(self) -> tuple[float, float]:
        """As in the inner store."""
        return self.inner.poll

    @property
    def lease(self) -> float | None:
        """As in the inner store; ``None`` if its lock is not a lease."""
        return getattr(self.inner, "lease", None)

    @property
    def path(self) -> str | None:
        """The file of the inner store; ``None`` if there is none."""
        return getattr(self.inner, "path", None)

    @property
    def lock_ends_with_holder(self) -> bool:
        """As in the inner store."""
        return getattr(self.inner, "lock_ends_with_holder", False)

    @property
    def glimpse(self) -> Callable[[], object]:
        """The inner store's method, if it has one."""
        return cast("Glimpsed", self.inner).glimpse

    @property
    def reserve(self) -> Callable[[], AbstractContextManager[object] | None]:
        """The inner store's method, if it has one."""
        return cast("Reserving", self.inner).reserve

    def load(self) -> Snapshot:
        """The document in the inner store, decrypted.

        :raises StoreError: if the document cannot be decrypted: none of the keys fits, it was
            changed, or it is not encrypted.  It is left as it is, and does not count as empty.
        """
        snapshot = self.inner.load()
        if snapshot.document is None:
            return snapshot
        return snapshot._replace(document=self._opened(snapshot.document, snapshot.tag or ""))

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the tag is still *expected*, as the inner store
        does."""
        name, sealed = self._cipher.encrypt(json.dumps(document).encode(), self._context(tag))
        envelope = {"encrypted": _KIND, "slot": self.slot, "key": name, "data": sealed}
        return self.inner.save(envelope, tag=tag, expected=expected, ttl=ttl)

    def prepare(self) -> None:
        """Prepare the inner store."""
        self.inner.prepare()

    def lock(self) -> StoreLock:
        """The inner store's lock, not yet taken."""
        return self.inner.lock()

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Let the inner store remember *digest*."""
        self.inner.remember_spent(digest, for_good=for_good)

    def was_spent(self, digest: str) -> bool:
        """Whether the inner store remembers *digest*."""
        return self.inner.was_spent(digest)

    def __repr__(self) -> str:
        return f"EncryptedStore({self.inner!r}, slot={self.slot!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.inner, self._keys, self.slot)

    def _cipher_with(self, name: str) -> Cipher:
        """The cipher to decrypt with.

        :param name: of the key that the cipher should have.
        """
        return self._cipher

    def _context(self, tag: str) -> bytes:
        return json.dumps([_KIND, self.slot, tag]).encode()

    def _opened(self, envelope: Document, tag: str) -> Document:
        slot, key, sealed = self._parts(envelope)
        cipher = self._cipher_with(key)
        try:
            document = json.loads(cipher.decrypt(key, sealed, self._context(tag)))
        except UnknownKey:
            used, at_hand = one_line(key, 50), ", ".join(cipher.names)
            raise self._failure(
                f"it was encrypted with the key {used}, and the keys here are {at_hand}",
                "add that key after the first one",
            ) from None
        except Forged:
            if slot != self.slot:
                raise self._failure(
                    f"it was encrypted for the slot {slot!r:.300}",
                    f"pass slot={slot!r:.300} if that is another name of the same slot",
                ) from None
            raise self._failure(
                "it was changed since it was encrypted, or replaces another version of it",
                "find out which program writes there, move it away, and log in again",
            ) from None
        assert isinstance(document, dict)
        return document

    def _parts(self, envelope: Document) -> tuple[str, str, str]:
        """The slot, the name of the key, and the encrypted document.  No key is needed for that.

        :raises StoreError: if *envelope* is none, or one of a newer version.
        """
        match envelope:
            case {"encrypted": str(kind)} if kind != _KIND:
                name = one_line(kind, 50)
                raise self._failure(f"a newer tokenadapter encrypted it, as {name}", "upgrade")
            case {"encrypted": _, "slot": str(slot), "key": str(key), "data": str(sealed)}:
                return slot, key, sealed
        raise self._failure("it is not encrypted", self._how_to_encrypt())

    def _how_to_encrypt(self) -> str:
        return "load it from the inner store, and save it here with its tag"

    def _failure(self, what: str, advice: str) -> errors.StoreError:
        return errors.StoreError(f"{self!r} cannot be read: {what}. Nothing was changed: {advice}.")


def innermost(store: TokenStore) -> TokenStore:
    """The store that keeps what *store* encrypts, or *store* itself."""
    while isinstance(store, EncryptedStore):
        store = store.inner
    return store


def _name(inner: TokenStore) -> str:
    for attribute in _NAMES:
        name = getattr(inner, attribute, None)
        if isinstance(name, str) and name:
            return name
    raise ValueError(f"{inner!r} has no name for its slot: pass one, such as slot='billing'")


def _rebuilt(inner: TokenStore, keys: Sequence[Key], slot: str) -> EncryptedStore:
    return EncryptedStore(inner, keys, slot=slot)
