"""The store in the keyring of the system: encrypted by it, for the user who is logged in.

A keyring has neither a lock nor a compare-and-swap.  So there is a lock file, and a write is a
look, a comparison and a write under it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.stores import _damage, _keyring
from tokenadapter.stores._entries import Entries
from tokenadapter.stores._files import Draft, Tenure
from tokenadapter.stores._lockfile import TenureLock, under_lock
from tokenadapter.stores._notes import is_noted, noted
from tokenadapter.stores._reading import absolute, read
from tokenadapter.stores._system import Refused
from tokenadapter.stores._text import decode, encode
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    import hashlib

    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")
    hashlib = late("hashlib")

__all__ = ["KeyringStore"]

# The same for all programs of a user: two that named the lock by different environment variables
# would not exclude each other.
_DIRECTORY = {
    "win32": "~/AppData/Local/tokenadapter",
    "darwin": "~/Library/Application Support/tokenadapter",
}.get(sys.platform, "~/.local/state/tokenadapter")


class KeyringStore:
    """One slot in the system's keyring, for all processes of one user on one machine.

    The keyring is that of the package ``keyring``: Keychain, Secret Service, KWallet, the
    Credential Manager of Windows.  A text that is too long for an entry there (1280 characters) is
    spread over several, named ``service part a1`` and so on.

    Beside it, in ``~/.local/state/tokenadapter`` (Windows: ``~/AppData/Local/tokenadapter``; macOS:
    ``~/Library/Application Support/tokenadapter``), stand a lock file, and a file that remembers
    spent refresh tokens by their hashes; both are named by a hash of *service* and *username*.

    :param service: what the entry is called, such as the name of the program.
    :param username: whose token it is.
    :param allow: the full name of the class of a backend, or several such names, to be used
        although keyring does not recommend them.  Without it a keyring that may keep secrets in
        the clear is refused.
    :param directory: where the lock file is, if not there.
    :raises ImportError: if the package keyring is not installed.
    :raises ValueError: if *service* or *username* is empty.
    """

    is_copy = False
    lock_ends_with_holder = True
    poll: tuple[float, float] = (0.01, 0.2)

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
        _keyring.imported()
        self.service = service
        self.username = username
        self.slot: str = f"{service}/{username}"
        self.allow: tuple[str, ...] = (allow,) if isinstance(allow, str) else tuple(allow)
        self.directory: str = absolute(directory)
        self._tenure = Tenure()
        self._warned = False

    def load(self) -> Snapshot:
        """What the keyring holds, without a lock, and this machine's time.

        An entry that is no record counts as none; the log (``tokenadapter.store``) says so once,
        and the next save puts it aside.

        :raises StoreError: if the keyring cannot be used, or is locked.
        """
        with self._explained("read the token"):
            text = self._entries().read()
            record = None if text is None else decode(text.encode(errors="replace"))
        if record is not None:
            return Snapshot(*record, time.time())
        if text is not None and not self._warned:
            self._warned = True
            _damage.found(self)
        return Snapshot(None, None, time.time())

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the record if its tag is still *expected*.

        What is no record is put aside, as an entry of the same user and a service whose name ends
        in ``damaged`` and the time.

        :param ttl: of no account: an entry is kept until it is replaced.
        :returns: ``False``, and nothing was written, if the tag has moved on.
        :raises StoreError: if it cannot be written.
        """
        with self._locked(), self._explained("save the token"):
            content = encode(document, tag)
            entries = self._entries()
            stored = entries.read()
            known = None if stored is None else decode(stored.encode(errors="replace"))
            if (None if known is None else known[1]) not in (expected, tag):
                return False
            if stored is not None and known is None:
                name = f"{self.service} damaged {time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
                entries.set_aside(name)
                _damage.put_aside(self, f"the service {name!r}")
            entries.write(json.dumps(json.loads(content), separators=(",", ":")), tag)
        return True

    def prepare(self) -> None:
        """Nothing: the intent that was saved just before has shown that saving works."""

    def lock(self) -> TenureLock:
        """A lock on the lock file, not yet taken."""
        return TenureLock(f"{self._file}.lock", self, self._tenure)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note*, a line of text, in the file beside the lock file.

        :param for_good: else it is forgotten when 32 others have come after it.
        :raises StoreError: if that cannot be written.
        """
        with self._locked(), self._explained("remember a spent refresh token"):
            lines = noted(self._notes(), note, for_good=for_good)
            content = "".join(f"{line}\n" for line in lines)
            Draft(self._file).publish(content.encode(), f"{self._file}.notes")

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if that cannot be read.
        """
        with self._explained("read which refresh tokens were spent"):
            return is_noted(self._notes(), note)

    def __repr__(self) -> str:
        return f"KeyringStore({self.service!r}, {self.username!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), allow=self.allow, directory=self.directory)
        return make, (self.service, self.username)

    @property
    def _file(self) -> str:
        name = hashlib.sha256(f"{self.service}\0{self.username}".encode()).hexdigest()[:32]
        return os.path.join(self.directory, f"keyring-{name}")

    def _entries(self) -> Entries:
        backend = _keyring.system_keyring(self.allow)
        return Entries(backend, self.service, self.username, _keyring.entry_size(backend))

    def _notes(self) -> list[str]:
        content = read(f"{self._file}.notes", private=True)
        return [] if content is None else content.decode(errors="replace").splitlines()

    def _locked(self) -> AbstractContextManager[None]:
        return under_lock(self._tenure, self.lock, self._explained)

    @contextmanager
    def _explained(self, task: str) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            raise errors.StoreError(
                f"{self!r} cannot {task}: {error}. Nothing stored was lost."
            ) from None
        except Exception as error:
            # Each keyring has errors of its own, and what they say is not ours to repeat.
            raise errors.StoreError(
                f"{self!r} cannot {task}: the keyring failed with {type(error).__name__}. Nothing "
                "stored was lost. See that the keyring is unlocked, and that this process can "
                "reach it."
            ) from error
