"""The store for one user's machine: a file, encrypted with a key in the system's keyring."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tokenadapter.late_imports import late, load
from tokenadapter.stores._cipher import Cipher, new_key
from tokenadapter.stores._reading import absolute
from tokenadapter.stores.encrypted import EncryptedStore
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.toolkit import Refused, failure
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    import hashlib

    import keyring
    from keyring.backend import KeyringBackend
    from keyring.backends import chainer

    from tokenadapter import errors
else:
    chainer = late("keyring.backends.chainer")
    errors = late("tokenadapter.errors")
    hashlib = late("hashlib")
    keyring = late("keyring")

__all__ = ["KeyringStore"]

# Not from environment variables: programs that differ in these would not share the token.
_DIRECTORY = {
    "win32": "~/AppData/Local/tokenadapter",
    "darwin": "~/Library/Application Support/tokenadapter",
}.get(sys.platform, "~/.local/state/tokenadapter")

# Backends that keep nothing: `allow` cannot admit them.
_KEEP_NOTHING: Final = ("keyring.backends.fail.", "keyring.backends.null.")


class KeyringStore(EncryptedStore):
    """One slot for all processes of one user on one machine: an :class:`EncryptedStore` around a
    :class:`FileStore`, with the key in the system's keyring.

    The keyring is that of the package ``keyring``: Keychain, Secret Service, KWallet, or the
    Credential Manager of Windows.  The first save creates the key.

    The file stands in ``~/.local/state/tokenadapter`` (Windows: ``~/AppData/Local/tokenadapter``;
    macOS: ``~/Library/Application Support/tokenadapter``).  Its name is ``keyring-`` and a hash of
    *service* and *username*.

    :param service: the service of the key's entry in the keyring, such as the name of the program.
    :param username: the user name of that entry: whose token it is.
    :param allow: the full name of a backend's class, or several names: use the backend although
        keyring does not recommend it.  Otherwise, a keyring that may keep secrets in the clear is
        refused.
    :param directory: where to put the file instead.
    :raises ImportError: if the package keyring or cryptography is not installed.
    :raises ValueError: if *service* or *username* is empty.
    """

    inner: FileStore

    def __init__(
        self,
        service: str,
        username: str,
        *,
        allow: str | Collection[str] = (),
        directory: str | os.PathLike[str] = _DIRECTORY,
    ) -> None:
        if not service or not username:
            raise ValueError("service and username must not be empty: name an entry of the keyring")
        try:
            load(keyring)
        except ImportError as error:
            raise ImportError(
                "KeyringStore needs the package keyring: run `pip install 'tokenadapter[keyring]'`."
            ) from error
        self.service = service
        self.username = username
        self.allow: tuple[str, ...] = (allow,) if isinstance(allow, str) else tuple(allow)
        # As it is now: a copy of this store must use the same lock, also in another directory.
        self.directory: str = absolute(directory)
        self._known: str | None = None
        name = hashlib.sha256(f"{service}\0{username}".encode()).hexdigest()[:32]
        file = FileStore(os.path.join(self.directory, f"keyring-{name}.json"))
        # This key encrypts nothing: the one in the keyring replaces it before a save.
        super().__init__(file, new_key(), slot=f"{service}/{username}")

    def load(self) -> Snapshot:
        """The record in the file, decrypted, and this machine's time.

        :raises StoreError: if the file or the keyring cannot be used, the keyring is locked, or it
            does not have the key any more.
        """
        if self._known is None:
            # Also if there is nothing to decrypt yet: a keyring that cannot be used is an error.
            with self._explained("read the token"):
                self._backend()
        return super().load()

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Encrypt and replace the record durably if its tag is still *expected*.

        :param ttl: not used: a file is kept until it is replaced.
        :returns: ``False``, with nothing written, if the tag is another one.
        :raises StoreError: if the file or the keyring cannot be written.
        """
        # Under the lock: two processes that each create a key would lose one of them.
        with self.inner._locked():
            with self._explained("save the token"):
                self._use(self._key() or self._put_key())
            return super().save(document, tag=tag, expected=expected, ttl=ttl)

    def __repr__(self) -> str:
        return f"KeyringStore({self.service!r}, {self.username!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), allow=self.allow, directory=self.directory)
        return make, (self.service, self.username)

    def _cipher_with(self, name: str) -> Cipher:
        if name not in self._cipher.names:
            with self._explained("read the token"):
                key = self._key()
                if key is None:
                    raise self._lost()
                self._use(key)
        return self._cipher

    def _use(self, key: str) -> None:
        self._known, self._cipher = key, Cipher([key])

    def _lost(self) -> Refused:
        return Refused(
            "the keyring no longer has its key: restore that entry, or delete "
            f"{self.inner.path} and log in again"
        )

    def _key(self) -> str | None:
        """The key in the keyring, if there is one.

        :raises Refused: if the keyring or the entry cannot be used.
        """
        key = self._backend().get_password(self.service, self.username)
        if key is not None:
            try:
                Cipher([key])
            except ValueError:
                raise Refused(
                    "the keyring entry contains something other than a key: choose another "
                    "service or username"
                ) from None
        return key

    def _put_key(self) -> str:
        """Put the key that this process knows, or a new one, into the keyring, which has none.

        The caller has the lock.

        :raises Refused: if there is a record that needs another key: a new key must not take the
            place of one that the keyring may have again later.
        """
        if self._known is None and self.inner.load().document is not None:
            raise self._lost()
        key = self._known or new_key()
        self._backend().set_password(self.service, self.username, key)
        if self._key() != key:
            raise Refused("the keyring lost the key right after it was stored: use another store")
        return key

    def _backend(self) -> KeyringBackend:
        return _recommended(self.allow)

    @contextmanager
    def _explained(self, task: str) -> Iterator[None]:
        try:
            yield
        except errors.StoreError:
            raise  # it is about the file
        except Refused as error:
            raise failure(self, task, str(error)) from None
        except Exception as error:
            # Each keyring has its own errors, and their texts may contain secrets.
            raise failure(
                self,
                task,
                f"the keyring failed with {type(error).__name__}",
                "See that the keyring is unlocked, and that this process can reach it.",
            ) from error


def _recommended(allowed: Collection[str]) -> KeyringBackend:
    """The backend that keyring is set to, or chooses.

    If keyring chains several, the best one: a chain falls back to the next one silently.

    :param allowed: the full names of the backends' classes that are used although keyring does not
        recommend them.
    :raises Refused: if secrets would not be safe in the backend.
    """
    backend = keyring.get_keyring()
    if isinstance(backend, chainer.ChainerBackend):
        backend = next(iter(backend.backends), backend)
    kind = type(backend)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name.startswith(_KEEP_NOTHING):
        raise Refused(
            "there is no keyring here: start the keyring of the desktop (for a service, see the "
            "documentation of the package keyring), or use another store"
        )
    # What keyring itself calls recommended.
    if backend.priority >= 1 or name in allowed:
        return backend
    raise Refused(
        f"the configured keyring, {name}, is not recommended: it may keep secrets where others can "
        f"read them. Install a better one, use another store, or pass allow={name!r} if it is "
        "intended"
    )
