"""A store's lock as a file: one holder per machine, and a dead holder is none.

The kernel keeps the lock (``flock``) with the open file, so it ends with its holder, however that
ends.  filelock sees to it that a forked child neither holds nor frees the lock of its parent.
There is no substitute where a file system knows no such lock: one that is a file's mere existence
would outlive its holder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late, load
from tokenadapter.stores import _strangers
from tokenadapter.stores._files import Tenure, make_directory_of
from tokenadapter.stores._system import Refused, is_locked
from tokenadapter.stores._trouble import failure

if TYPE_CHECKING:
    import shlex

    import filelock
    from filelock import BaseFileLock
else:
    filelock = late("filelock")
    shlex = late("shlex")

__all__ = ["LockFile", "TenureLock", "under_lock"]

# How long a write by a thread that does not hold the lock waits for whoever does, in seconds.
_PATIENCE = 10.0


class LockFile:
    """A lock on the file *path*, which is created when first locked and never deleted.

    :param slot: what the lock guards, to name it in messages.
    :param private: refuse to wait for a lock on a file that belongs to another user.
    :param for_group: whether its group may take the lock, too.
    """

    def __init__(
        self, path: str, slot: object, *, private: bool = False, for_group: bool = False
    ) -> None:
        self.path = path
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

        :param hold_for: of no account: the lock is held until it is released or its holder dies.
        :raises StoreError: if the lock cannot be had for another reason than a holder.
        """
        # Many who wait ask often, and whoever renews needs the processor.
        if not self.held and is_locked(self.path):
            self._check_owner()
            return False
        return self.acquire_within(0)

    def acquire_within(self, seconds: float) -> bool:
        """Take the lock, or return ``False`` if others held it for so many *seconds*.

        :raises StoreError: if the lock cannot be had for another reason than a holder.
        """
        try:
            make_directory_of(self.path)
            if self._lock is None:
                self._lock = filelock.FileLock(
                    self.path,
                    mode=self._mode,
                    fallback_to_soft=False,
                    preserve_lock_file=True,
                    on_acquired=self._descriptors.append,
                )
            self._lock.acquire(timeout=seconds, poll_interval=0.01)
        except filelock.Timeout:
            self._check_owner()
            return False
        except OSError as error:
            raise failure(self._slot, f"lock {self.path}", error) from error
        return True

    @property
    def held(self) -> bool:
        """Whether this thread took the lock and did not release it."""
        return self._lock is not None and self._lock.is_locked

    def confirm(self) -> bool:
        """Whether this thread holds the lock on the file that has its name now."""
        if not self.held:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptors[-1]), os.lstat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Let others take it.  Never raises."""
        if self._lock is not None:
            with suppress(Exception):  # a descriptor that is gone took the lock with it
                self._lock.release(force=True)

    def _check_owner(self) -> None:
        owner = _strangers.owner(self.path) if self._private else None
        if owner is not None:
            command = f"chown {os.geteuid()} {shlex.quote(self.path)}"
            message = (
                f"{self.path} belongs to another user ({owner}), one of whose programs holds the "
                f"lock: end that program, and run `{command}` as root"
            )
            raise failure(self._slot, f"lock {self.path}", Refused(message))


class TenureLock(LockFile):
    """A lock that keeps the account of its store's tenure."""

    def __init__(
        self,
        path: str,
        slot: object,
        tenure: Tenure,
        *,
        private: bool = True,
        for_group: bool = False,
    ) -> None:
        super().__init__(path, slot, private=private, for_group=for_group)
        self._tenure = tenure

    def acquire_within(self, seconds: float) -> bool:
        if not super().acquire_within(seconds):
            return False
        self._tenure.lock, self._tenure.draft = self, None
        return True

    def release(self) -> None:
        if self.held and self._tenure.lock is self:
            if self._tenure.draft is not None:
                self._tenure.draft.discard()
            self._tenure.lock = self._tenure.draft = None
        super().release()


@contextmanager
def under_lock(
    tenure: Tenure,
    make: Callable[[], TenureLock],
    explained: Callable[[str], AbstractContextManager[None]],
) -> Iterator[None]:
    """Under a store's lock: the one that this thread holds, or else one for the time being.

    :param make: makes such a lock.
    :param explained: makes an error of the store's of what goes wrong in its block.
    :raises StoreError: if others held it for too long.
    """
    held, lock = tenure.lock, make()

    def is_held() -> bool:
        return held is not None and held.confirm()

    try:
        # Ask again before waiting: if only that look failed, this thread would wait for itself.
        is_ours = is_held() or lock.acquire_within(0) or is_held()
        if not (is_ours or lock.acquire_within(_PATIENCE)):
            with explained("be written"):
                owner = _strangers.owner(lock.path)
                owner = f" (which belongs to another user, {owner})" if owner else ""
                raise Refused(f"others held {lock.path}{owner} for {_PATIENCE:g} s: try again")
        yield
    finally:
        lock.release()
