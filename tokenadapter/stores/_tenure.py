"""A file store's lock in this process, and the draft that was prepared under the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tokenadapter.stores import _strangers
from tokenadapter.stores._files import Draft
from tokenadapter.stores.lockfile import LockFile
from tokenadapter.stores.toolkit import WRITE_TIMEOUT, failure

__all__ = ["Tenure", "TenureLock"]


class Tenure:
    """The lock that a thread of this process took last, and what was prepared since."""

    def __init__(self) -> None:
        self.lock: LockFile | None = None
        self.draft: Draft | None = None

    @contextmanager
    def locked(self, lock: LockFile) -> Iterator[None]:
        """Hold the store's lock for a block: the one that this thread holds, or else *lock*.

        :raises StoreError: if others held the lock for too long.
        """
        held = self.lock

        def is_held() -> bool:
            return held is not None and held.confirm()

        try:
            # Check again before waiting: if only the first check failed, this thread would wait for
            # itself.
            is_ours = is_held() or lock.acquire_within(0) or is_held()
            if not (is_ours or lock.acquire_within(WRITE_TIMEOUT)):
                owner = _strangers.owner(lock.path)
                owner = f" (which belongs to another user, {owner})" if owner else ""
                why = f"others held {lock.path}{owner} for {WRITE_TIMEOUT:g} s: try again"
                raise failure(lock._slot, "be written", why)
            yield
        finally:
            lock.release()


class TenureLock(LockFile):
    """A lock that updates the tenure of its store."""

    def __init__(
        self, path: str, slot: object, tenure: Tenure, *, private: bool, for_group: bool
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
