"""A lock for the processes of one machine, as a file.  If its holder dies, the lock is free.

The kernel keeps the lock (``flock``) with the open file, so that the lock ends with its process,
however the process ends.  filelock makes sure that a forked child neither holds nor releases its
parent's lock.  Where a file system has no such locks, locking is an error: a lock that consists in
the existence of a file would outlive its holder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late, load
from tokenadapter.stores import _strangers
from tokenadapter.stores._files import advice, make_directory_of, touch
from tokenadapter.stores._flock import is_locked
from tokenadapter.stores._reading import absolute
from tokenadapter.stores.toolkit import explained, failure

if TYPE_CHECKING:
    import filelock
    from filelock import BaseFileLock
else:
    filelock = late("filelock")

__all__ = ["LockFile"]


class LockFile:
    """A lock on the file *path*, which is created when it is first locked, and never deleted.

    It is a :class:`~tokenadapter.protocols.StoreLock` that ends with its holder.

    :param path: of the lock file, not of the file that the lock protects; a leading ``~`` is the
        user's home directory.
    :param slot: what the lock protects, to name it in messages.
    :param private: if another user owns the file and holds the lock, raise an error at once
        instead of waiting.
    :param for_group: create the file with mode 0660, so that the group can take the lock too.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        slot: object,
        *,
        private: bool = False,
        for_group: bool = False,
    ) -> None:
        self.path: str = absolute(path)
        self._slot = slot
        self._private = private
        self._mode = 0o660 if for_group else 0o600
        self._lock: BaseFileLock | None = None
        self._descriptors: list[int] = []

    @staticmethod
    def load() -> None:
        """Import what :meth:`acquire` needs."""
        load(filelock)

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: not used: the lock ends when it is released or its process ends.
        :raises StoreError: if the lock cannot be taken for another reason than a holder.
        """
        # Many waiting processes try often, and the process that renews needs the processor.
        if not self.held and is_locked(self.path):
            self._check_owner()
            return False
        return self.acquire_within(0)

    def acquire_within(self, seconds: float) -> bool:
        """Take the lock, or return ``False`` if others held it for so many *seconds*.

        :raises StoreError: if the lock cannot be taken for another reason than a holder.
        """
        with explained(self._slot, f"lock {self.path}", advice, OSError):
            make_directory_of(self.path)
            if self._lock is None:
                self._lock = filelock.FileLock(
                    self.path,
                    mode=self._mode,
                    fallback_to_soft=False,
                    preserve_lock_file=True,
                    on_acquired=self._descriptors.append,
                )
            try:
                # filelock does not take a lock on a file that was deleted since it was opened.
                self._lock.acquire(timeout=seconds, poll_interval=0.01)
            except filelock.Timeout:
                self._check_owner()
                return False
            touch(self.path)
        return True

    @property
    def held(self) -> bool:
        """Whether this thread took the lock and did not release it."""
        return self._lock is not None and self._lock.is_locked

    def confirm(self) -> bool:
        """Whether this thread holds the lock, and the locked file is the one at *path* now."""
        if not self.held:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptors[-1]), os.lstat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock.  Never raises."""
        if self._lock is not None:
            with suppress(Exception):  # a closed descriptor has ended the lock
                self._lock.release(force=True)

    def _check_owner(self) -> None:
        owner = _strangers.owner(self.path) if self._private else None
        if owner is None:
            return
        raise failure(
            self._slot,
            f"lock {self.path}",
            f"{self.path} belongs to another user ({owner}), one of whose programs holds the "
            f"lock: end that program, and run `{_strangers.chown(self.path)}` as root",
        )
