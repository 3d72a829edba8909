"""A lock that a program has already, as a store needs it: tried without waiting, and asked after.

Locks differ in how they are tried and in what they say of themselves; filelock, redis-py,
:mod:`threading` and :mod:`multiprocessing` are understood, and whatever is like them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeAlias

__all__ = ["Borrowed", "LockLike", "NoLock", "checked_lock"]

LockLike: TypeAlias = Any
"""An object with ``acquire`` and ``release``; or a function without arguments that returns a new
one, or a context manager."""


class NoLock(TypeError):
    """Something else came where a lock was expected.  The text says what."""


def checked_lock(lock: LockLike) -> LockLike:
    """*lock* itself.

    :raises TypeError: if it can be no lock.
    """
    if callable(lock) or _is_lock(lock):
        return lock
    raise TypeError(
        "lock is an object with acquire() and release(), or a function that returns one or a "
        f"context manager, not {type(lock).__name__}"
    )


class Borrowed:
    """One attempt at a lock.

    :param lock: what :func:`checked_lock` has let pass.
    """

    def __init__(self, lock: LockLike) -> None:
        self._given = lock
        self._release: Callable[[], object] | None = None
        self._lock: Any = None

    def take(self) -> bool:
        """Take the lock now, or return ``False`` at once.

        A context manager can only be waited for, unless it gives ``False`` for that it is taken.
        What it raises goes on, but for the errors by which locks say that they are taken.
        """
        made = not _is_lock(self._given)
        lock = self._given() if made else self._given
        try:
            if _is_lock(lock):
                taken = _try(lock)
                if hasattr(taken, "__await__"):
                    # It is true of itself, and keeps nobody out.
                    getattr(taken, "close", lambda: None)()
                    raise NoLock(f"{type(lock).__name__}.acquire() has to be awaited")
                is_taken, release = bool(taken), lock.release
            elif isinstance(lock, AbstractContextManager):
                is_taken, release = lock.__enter__() is not False, _exit(lock)
                if not is_taken:
                    release()
            else:
                raise NoLock(
                    f"lock() returned no lock and no context manager but {type(lock).__name__}"
                )
        except (TimeoutError, BlockingIOError):
            return False
        if is_taken:
            self._lock, self._release = lock, release
        return is_taken

    def is_held(self) -> bool:
        """Whether it is still held, as far as it can tell.  One that expires begins anew."""
        if self._release is None:
            return False
        lock = self._lock
        try:
            if getattr(lock, "timeout", None) and callable(getattr(lock, "reacquire", None)):
                return bool(lock.reacquire())  # redis-py
            if callable(getattr(lock, "owned", None)):
                return bool(lock.owned())
            return bool(getattr(lock, "is_locked", True))  # filelock
        except Exception:  # noqa: BLE001 - who cannot tell does not hold it
            return False

    def give_back(self) -> None:
        """Let others take it.  Never raises."""
        release, self._release = self._release, None
        if release is not None:
            with suppress(Exception):
                release()


def _is_lock(lock: LockLike) -> bool:
    return not isinstance(lock, type) and all(
        callable(getattr(lock, name, None)) for name in ("acquire", "release")
    )


def _try(lock: Any) -> object:
    try:
        return lock.acquire(blocking=False)
    except TypeError:
        return lock.acquire(False)  # multiprocessing calls it by another name


def _exit(manager: AbstractContextManager[Any]) -> Callable[[], object]:
    return lambda: manager.__exit__(None, None, None)
