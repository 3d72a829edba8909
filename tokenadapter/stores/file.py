"""The store for one machine: a JSON file, with a lock file beside it.

A record is replaced as a whole, by a durable rename.  So a reader needs no lock, and sees either
the earlier record or the next.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.stores._reading import absolute, is_for_group, read
from tokenadapter.stores._text import LIMIT, decode, encode
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    from tokenadapter.stores import _files, _flock, _tenure, toolkit
    from tokenadapter.stores._files import Draft
    from tokenadapter.stores._tenure import Tenure, TenureLock
else:
    _files = late("tokenadapter.stores._files")
    _flock = late("tokenadapter.stores._flock")
    _tenure = late("tokenadapter.stores._tenure")
    toolkit = late("tokenadapter.stores.toolkit")

__all__ = ["FileStore"]

# What a save allocates on the file system beforehand: more than the records of most servers need.
_RESERVE = 64 << 10


class FileStore:
    """One slot in a file, for all processes of one machine.

    Beside the record *path* there are ``path.lock`` and ``path.reserve``, both empty, and, where
    refresh tokens were spent, ``path.spent``, which remembers them by their hashes in case the
    record is deleted.  The files are created with mode 0600; their directory, if it does not exist,
    with mode 0700.

    :param path: of the record; a leading ``~`` is the user's home directory.
    :param private: refuse to use a file that others can read or write, that belongs to another
        user, or that is a symbolic link; and a directory in which another user could replace the
        file, because that user owns the directory or one above it, or can write to it.  With
        ``False``, every user who can write to the directory is trusted, and a link is followed: the
        record and the files beside it stand where the link leads.  If the group can write to the
        directory, the group can then read and write these files as well: its members share the
        token.
    :raises ValueError: if *path* is empty, or its home directory is unknown.
    """

    is_copy = False
    lock_ends_with_holder = True
    # Looking more often makes a herd slower: each look takes time from the process that renews.
    poll: tuple[float, float] = (0.02, 0.05)

    def __init__(self, path: str | os.PathLike[str], *, private: bool = True) -> None:
        if not os.fspath(path):
            raise ValueError("path is empty: name a file")
        self.path: str = absolute(path)
        self.private = private
        self._made: dict[str, Tenure] = {}
        self._swept = False

    def load(self) -> Snapshot:
        """The content of the file, read without a lock.

        A file that is not a record (torn, empty, or something else altogether) counts as empty; the
        log (``tokenadapter.store``) says so once, and the next save puts the file aside.

        :raises StoreError: if the file cannot be read, or must not be used.
        """
        try:
            content = self._read()
            record = None if content is None else decode(content)
        except OSError:
            with self._explained("read the token"):
                raise
        if record is not None:
            return Snapshot(*record, time.time())
        if content is not None:
            toolkit.warn_of_damage(self)
        return Snapshot(None, None, time.time())

    def glimpse(self) -> object:
        """A value that changes when the record is replaced.  Costs much less than a load."""
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            return ()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def reserve(self) -> AbstractContextManager[object] | None:
        """Reserve the renewal of the token.  Costs much less than the lock.

        :returns: the reservation, to be entered and left; ``None`` if another process has the
            reservation or the lock.  If the directory does not exist, files cannot be locked, or on
            Windows, every caller gets a reservation.
        """
        return _flock.reserve(f"{self._file}.reserve", f"{self._file}.lock")

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the record durably if its tag is still *expected*.

        A file that is not a record is renamed, to a name that ends in ``.damaged-``, the time and a
        nonce.  It is never overwritten.

        :param ttl: not used: a file is kept until it is replaced.
        :returns: ``False``, with nothing written, if the tag is another one.
        :raises StoreError: if the file cannot be written.  It is never torn: it has the
            earlier record or the new one.
        """
        with self._locked(), self._explained("save the token"):
            content = encode(document, tag)
            stored = self._read()
            known = None if stored is None else decode(stored)
            # Its own tag is there if an earlier attempt was not known to be durable.
            if (None if known is None else known[1]) not in (expected, tag):
                return False
            if stored is not None and known is None:
                toolkit.warn_put_aside(self, _files.set_aside(self._file))
            draft, self._tenure.draft = self._tenure.draft or self._draft(), None
            draft.publish(content, self._file)
            for end in ("reserve", "spent"):
                _files.touch(f"{self._file}.{end}")
        return True

    def prepare(self) -> None:
        """Create the file that the next save writes, and allocate space for it.

        The file is kept as long as this thread holds the lock.

        :raises StoreError: if a save would fail now.
        """
        with self._locked(), self._explained("make ready to save the token"):
            if self._tenure.draft is None:
                draft = self._draft()
                draft.reserve(_RESERVE)
                self._tenure.draft = draft

    def lock(self) -> TenureLock:
        """A lock on ``path.lock``, not yet taken.  It excludes all others, also those of other
        ``FileStore`` objects in the same process and thread."""
        return _tenure.TenureLock(
            f"{self._file}.lock",
            self,
            self._tenure,
            private=self.private,
            for_group=self._is_for_group,
        )

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember *digest* in ``path.spent``.

        :param for_good: otherwise, *digest* is forgotten after 32 others.
        :raises StoreError: if the file cannot be written.
        """
        with self._locked(), self._explained("remember a spent refresh token"):
            lines = toolkit.remembering(self._spent(), digest, for_good=for_good)
            content = "".join(f"{line}\n" for line in lines)
            self._draft().publish(content.encode(), f"{self._file}.spent")

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered.

        :raises StoreError: if the file cannot be read.
        """
        with self._explained("read which refresh tokens were spent"):
            return toolkit.is_remembered(self._spent(), digest)

    def __repr__(self) -> str:
        return f"FileStore({self.path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), private=self.private), (self.path,)

    @property
    def _tenure(self) -> Tenure:
        # Atomic, unlike functools.cached_property, whose lock in Python 3.11 a fork may leave shut.
        return self._made.setdefault("tenure", _tenure.Tenure())

    @property
    def _file(self) -> str:
        return self.path if self.private else os.path.realpath(self.path)

    @property
    def _is_for_group(self) -> bool:
        return not self.private and is_for_group(os.path.dirname(self._file))

    def _read(self) -> bytes | None:
        return read(self._file, private=self.private, enough=LIMIT + 1)

    def _spent(self) -> list[str]:
        content = read(f"{self._file}.spent", private=self.private)
        return [] if content is None else content.decode(errors="replace").splitlines()

    def _draft(self) -> Draft:
        if not self._swept:
            _files.sweep(self._file)
            self._swept = True
        return _files.Draft(self._file, for_group=self._is_for_group)

    def _locked(self) -> AbstractContextManager[None]:
        return self._tenure.locked(self.lock())

    def _explained(self, task: str) -> AbstractContextManager[None]:
        return toolkit.explained(self, task, _advice, OSError)


def _advice(error: Exception) -> str:
    return _files.advice(error)  # imports _files only if something fails
