"""What another store holds, encrypted: whoever reads or writes there learns and forges nothing.

The tag stays in clear, since the other store compares it; so do the notes, which are hashes.  The
encryption is bound to the slot and to the tag: what belongs to another slot, or was written
earlier, cannot be put in the place of what is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, cast

from tokenadapter.late_imports import late
from tokenadapter.protocols import Document, Snapshot, StoreLock, TokenStore
from tokenadapter.stores._cipher import Cipher, Forged, Key, UnknownKey, new_key
from tokenadapter.values import checked_store, one_line

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.stores import urls
else:
    errors = late("tokenadapter.errors")
    urls = late("tokenadapter.stores.urls")

__all__ = ["EncryptedStore"]

_KIND: Final = "aes-256-gcm/1"
# How stores call their slots.
_NAMES: Final = ("slot", "key", "name")


class EncryptedStore:
    """One slot of *inner*, whose documents are encrypted by AES-256-GCM before they get there.

    Who can write to *inner* can still empty it, or bring back all of an earlier state at once,
    tag and notes included: only a process that saw a later one notices.

    A pickled store holds its keys: what can read the pickle can decrypt the token.

    :param inner: where it is kept: any store, the path of a file, or the URL of a store.
    :param keys: a key, or several: the first one writes, all of them read.  To change the key, put
        the new one first, everywhere; the next renewal writes with it.
    :param slot: what the slot is called, for the encryption to be bound to; by default what
        *inner* calls it.  A file and functions have no such name: give one, and the same in all
        programs that share it.
    :raises TypeError: if *inner* is no store, or a key is neither text nor bytes.
    :raises ValueError: if a key is none, or the slot has no name.
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
        """A new key: 32 random bytes in URL-safe Base64.  Keep it where secrets are kept."""
        return new_key()

    @property
    def is_copy(self) -> bool:
        """What the inner store says."""
        return self.inner.is_copy

    @property
    def poll(self) -> tuple[float, float]:
        """What the inner store says."""
        return self.inner.poll

    @property
    def lease(self) -> float | None:
        """The inner store's, if its lock is one."""
        return getattr(self.inner, "lease", None)

    @property
    def lock_ends_with_holder(self) -> bool:
        """What the inner store says, if it does."""
        return getattr(self.inner, "lock_ends_with_holder", False)

    @property
    def glimpse(self) -> Callable[[], object]:
        """The inner store's, if it tells of writes at a glimpse."""
        glimpse: Callable[[], object] = cast(Any, self.inner).glimpse
        return glimpse

    @property
    def reserve(self) -> Callable[[], AbstractContextManager[object] | None]:
        """The inner store's, if renewals can be claimed there."""
        reservation: Callable[[], AbstractContextManager[object] | None] = cast(
            Any, self.inner
        ).reserve
        return reservation

    def load(self) -> Snapshot:
        """What the inner store holds, decrypted.

        :raises StoreError: if that fails: none of the keys is that of the document, or it was
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
        """What the inner store does."""
        self.inner.prepare()

    def lock(self) -> StoreLock:
        """The inner store's lock, not yet taken."""
        return self.inner.lock()

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Let the inner store remember *note*, a hash."""
        self.inner.remember_spent(note, for_good=for_good)

    def was_spent(self, note: str) -> bool:
        """Whether the inner store remembers *note*."""
        return self.inner.was_spent(note)

    def __repr__(self) -> str:
        return f"EncryptedStore({self.inner!r}, slot={self.slot!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.inner, self._keys, self.slot)

    def _context(self, tag: str) -> bytes:
        return json.dumps([_KIND, self.slot, tag]).encode()

    def _opened(self, envelope: Document, tag: str) -> Document:
        match envelope:
            case {"encrypted": str(kind)} if kind != _KIND:
                name = one_line(kind, 50)
                raise self._failure(f"a newer tokenadapter encrypted it, as {name}", "upgrade")
            case {"encrypted": _, "slot": str(slot), "key": str(key), "data": str(sealed)}:
                try:
                    document = json.loads(self._cipher.decrypt(key, sealed, self._context(tag)))
                except UnknownKey:
                    used, at_hand = one_line(key, 50), ", ".join(self._cipher.names)
                    raise self._failure(
                        f"it was encrypted with the key {used}, and those at hand are {at_hand}",
                        "add that key behind the first one",
                    ) from None
                except Forged:
                    if slot != self.slot:
                        raise self._failure(
                            f"it was encrypted for the slot {slot!r:.300}",
                            f"give slot={slot!r:.300} if that is the same one by another name",
                        ) from None
                    raise self._failure(
                        "it was changed since it was encrypted, or stands in the place of another",
                        "find out who writes there, move it away, and log in again",
                    ) from None
                assert isinstance(document, dict)
                return document
        raise self._failure(
            "it is not encrypted", "read it with the inner store, and save it here with its tag"
        )

    def _failure(self, what: str, advice: str) -> errors.StoreError:
        return errors.StoreError(f"{self!r} cannot be read: {what}. Nothing was changed: {advice}.")


def _name(inner: TokenStore) -> str:
    for attribute in _NAMES:
        name = getattr(inner, attribute, None)
        if isinstance(name, str) and name:
            return name
    raise ValueError(f"{inner!r} has no name for its slot: give slot='billing', or what you like")


def _rebuilt(inner: TokenStore, keys: Sequence[Key], slot: str) -> EncryptedStore:
    return EncryptedStore(inner, keys, slot=slot)
