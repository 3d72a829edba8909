"""The store for one machine: a JSON file, a lock file beside it.

A record is replaced whole, by a durable rename, so a reader needs no lock and sees either the
earlier record or the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.stores._reading import absolute, read
from tokenadapter.stores._system import is_for_group
from tokenadapter.stores._text import LIMIT, decode, encode
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    from tokenadapter.stores import _damage, _files, _lockfile, _notes, _reservation, _trouble
    from tokenadapter.stores._files import Draft, Tenure
    from tokenadapter.stores._lockfile import TenureLock
else:
    _reservation = late("tokenadapter.stores._reservation")
    _damage = late("tokenadapter.stores._damage")
    _files = late("tokenadapter.stores._files")
    _lockfile = late("tokenadapter.stores._lockfile")
    _notes = late("tokenadapter.stores._notes")
    _trouble = late("tokenadapter.stores._trouble")

__all__ = ["FileStore"]

# What a save claims of the file system beforehand: more than the records of most servers need.
_RESERVE = 64 << 10


class FileStore:
    """One slot in a file, for all processes of one machine.

    Beside the record *path* there are ``path.lock`` and ``path.claim``, both empty, and, where
    refresh tokens were spent, ``path.notes``, which remembers them by their hashes if the record
    is deleted.  They are created with mode 0600; their directory, if it is not there, with mode
    0700.

    :param path: of the record; a leading ``~`` is the user's home directory.
    :param private: refuse to use a file that others can read or write, that belongs to another
        user, or that is a symbolic link; and a directory in which another user could replace it,
        because that user owns the directory or one above it, or may write there.  With ``False``
        every user who can write there is trusted, and a link is followed: the record, its lock
        and its notes stand where it leads.  Where the group may write to the directory, it may
        then read and write these files, too: its members share the token.
    :raises ValueError: if *path* is empty, or begins with the home directory of nobody.
    """

    is_copy = False
    lock_ends_with_holder = True
    # A herd that looks more often is done later: each look takes time from whoever renews.
    poll: tuple[float, float] = (0.02, 0.05)

    def __init__(self, path: str | os.PathLike[str], *, private: bool = True) -> None:
        if not os.fspath(path):
            raise ValueError("path is empty: name a file")
        self.path: str = absolute(path)
        self.private = private
        self._made: dict[str, Tenure] = {}
        self._swept = False
        self._warned = False

    def load(self) -> Snapshot:
        """What the file holds, without a lock.

        A file that is no record (torn, empty, or something else altogether) counts as none; the
        log (``tokenadapter.store``) says so once, and the next save puts it aside.

        :raises StoreError: if it cannot be read, or must not be used.
        """
        with self._explained("read the token"):
            content = self._read()
            record = None if content is None else decode(content)
        if record is not None:
            return Snapshot(*record, time.time())
        if content is not None and not self._warned:
            self._warned = True
            _damage.found(self)
        return Snapshot(None, None, time.time())

    def glimpse(self) -> object:
        """What differs when the record was replaced meanwhile: much less than a look."""
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            return ()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def reserve(self) -> AbstractContextManager[object] | None:
        """Say that one is about to renew the token: much less than the lock takes.

        :returns: the claim, to be entered and left; ``None`` if another has it, or the lock.
            Where there is no directory yet or a file cannot be locked, and on Windows, everybody
            has it.
        """
        return _reservation.reserve(f"{self._file}.claim", f"{self._file}.lock")

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the record if its tag is still *expected*, durably.

        A file that is no record is put aside, under a name that ends in ``.damaged-`` and the
        time, and never overwritten.

        :param ttl: of no account: a file is kept until it is replaced.
        :returns: ``False``, and nothing was written, if the tag has moved on.
        :raises StoreError: if it cannot be written.  The file is whole all the same, with the
            earlier record or with this one.
        """
        with self._locked(), self._explained("save the token"):
            content = encode(document, tag)
            stored = self._read()
            known = None if stored is None else decode(stored)
            # Its own tag is there if an earlier attempt was not known to be durable.
            if (None if known is None else known[1]) not in (expected, tag):
                return False
            if stored is not None and known is None:
                _damage.put_aside(self, _files.set_aside(self._file))
            draft, self._tenure.draft = self._tenure.draft or self._draft(), None
            draft.publish(content, self._file)
        return True

    def prepare(self) -> None:
        """Create the file that the next save writes, and claim space for it.

        It is kept as long as this thread holds the lock.

        :raises StoreError: if a save would fail now.
        """
        with self._locked(), self._explained("make ready to save the token"):
            if self._tenure.draft is None:
                draft = self._draft()
                draft.reserve(_RESERVE)
                self._tenure.draft = draft

    def lock(self) -> TenureLock:
        """A lock on ``path.lock``, not yet taken.  It excludes all others, those of other
        ``FileStore`` objects of the same process and thread included."""
        path = f"{self._file}.lock"
        return _lockfile.TenureLock(
            path, self, self._tenure, private=self.private, for_group=self._is_for_group
        )

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note*, a line of text, in ``path.notes``.

        :param for_good: else it is forgotten when 32 others have come after it.
        :raises StoreError: if that cannot be written.
        """
        with self._locked(), self._explained("remember a spent refresh token"):
            lines = _notes.noted(self._notes(), note, for_good=for_good)
            content = "".join(f"{line}\n" for line in lines)
            self._draft().publish(content.encode(), f"{self._file}.notes")

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if that cannot be read.
        """
        with self._explained("read which refresh tokens were spent"):
            return _notes.is_noted(self._notes(), note)

    def __repr__(self) -> str:
        return f"FileStore({self.path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), private=self.private), (self.path,)

    @property
    def _tenure(self) -> Tenure:
        # Atomic, unlike functools.cached_property, whose lock in Python 3.11 a fork may leave shut.
        return self._made.setdefault("tenure", _files.Tenure())

    @property
    def _file(self) -> str:
        return self.path if self.private else os.path.realpath(self.path)

    @property
    def _is_for_group(self) -> bool:
        return not self.private and is_for_group(os.path.dirname(self._file))

    def _read(self) -> bytes | None:
        return read(self._file, private=self.private, enough=LIMIT + 1)

    def _notes(self) -> list[str]:
        content = read(f"{self._file}.notes", private=self.private)
        return [] if content is None else content.decode(errors="replace").splitlines()

    def _draft(self) -> Draft:
        if not self._swept:
            _files.sweep(self._file)
            self._swept = True
        return _files.Draft(self._file, for_group=self._is_for_group)

    def _locked(self) -> AbstractContextManager[None]:
        return _lockfile.under_lock(self._tenure, self.lock, self._explained)

    @contextmanager
    def _explained(self, task: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _trouble.failure(self, task, error) from error
