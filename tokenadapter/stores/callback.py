"""The store for a place that a program has already: its own two functions, to load and to save.

What the functions do not give is a compare-and-swap, so each write is a look, a comparison and a
save under a lock: the program's own, or, without one, a lock among the threads of this process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.stores import _damage
from tokenadapter.stores._borrowed import LockLike, checked_lock
from tokenadapter.stores._kept import Kept, Loaded, kept
from tokenadapter.stores._notes import is_noted, noted
from tokenadapter.stores._system import Refused
from tokenadapter.stores._turns import Turn, place_of, this_process
from tokenadapter.values import Document, Snapshot, one_line

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import StoreError
else:
    errors = late("tokenadapter.errors")

__all__ = ["CallbackStore"]

# How long a save by a thread that does not hold the lock waits for whoever does, in seconds.
_PATIENCE = 10.0


class CallbackStore:
    """One slot in whatever *load* and *save* lead to: a row, a setting, a secrets manager.

    What is saved is one JSON object.  It holds secrets, and means nothing but to this class.

    **Without a lock** the threads of this process are kept apart, and nobody else: no other
    process may use the slot.  A process that was forked or unpickled from this one, and one that
    finds that another has written since it began, goes on using and obtaining tokens, but spends
    no refresh token any more: :class:`~tokenadapter.ReauthRequired`, reason ``private_copy``.
    A process that starts later takes over.

    **With a lock** that excludes all processes that use the slot, they share one token.

    :param load: returns what *save* was last given, as a mapping or as JSON text; ``None``, or
        something empty, if there is nothing yet.
    :param save: is given a new ``dict`` to keep; when it returns, the dict is kept.
    :param lock: an object with ``acquire`` and ``release``, such as a ``FileLock``; or a function
        without arguments that returns a new one (``lambda: redis.lock("billing", timeout=60)``)
        or a context manager.  One that expires by itself must last for the deadline of the source
        and ten seconds; one that cannot be tried without waiting lets a request wait for longer
        than ``lock_timeout``.
    :raises TypeError: if an argument is not what it should be.

    Stores with the same *load* and *save* share one slot.  Functions that are made anew each time
    are other functions: without a lock, make them once.
    """

    poll: tuple[float, float] = (0.05, 0.5)

    def __init__(
        self,
        load: Callable[[], Loaded],
        save: Callable[[dict[str, Any]], object],
        lock: LockLike | None = None,
    ) -> None:
        for name, function in (("load", load), ("save", save)):
            if not callable(function):
                raise TypeError(f"{name} is a function, not {type(function).__name__}")
        self._lent = None if lock is None else checked_lock(lock)
        self._load, self._save = load, save
        self._place = place_of((load, save))
        self._warned = False

    @property
    def is_copy(self) -> bool:
        """Whether another process may use the slot, and no lock keeps the two apart."""
        place = self._place
        return self._lent is None and (place.born != this_process() or place.is_contested)

    @property
    def lock_ends_with_holder(self) -> bool:
        """Whether the lock is one of this process alone, and not lent: that may lapse."""
        return self._lent is None

    def load(self) -> Snapshot:
        """What *load* returns, without a lock, and this machine's time.

        What *save* was never given counts as nothing; the log (``tokenadapter.store``) says so
        once, and the next save keeps it as text, under the key ``aside``.

        :raises StoreError: if *load* raises something.
        """
        stored = self._read()
        return Snapshot(stored.document, stored.tag, time.time())

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Give *save* the document if what *load* returns still has the tag *expected*.

        :param ttl: of no account.
        :returns: ``False``, and nothing was saved, if the tag has moved on.
        :raises StoreError: if *load* or *save* raises something.
        """
        with self._turn():
            stored = self._read()
            if stored.tag not in (expected, tag):
                return False
            self._write(stored._replace(document=document, tag=tag))
        return True

    def prepare(self) -> None:
        """Nothing: the intent that was saved just before has shown that saving works."""

    def lock(self) -> Turn:
        """The right to write, not yet taken."""
        return Turn(self._place, self._lent, self._failure)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note* beside the document, and in this process.

        :param for_good: else it is forgotten when 32 others have come after it.
        :raises StoreError: if *load* or *save* raises something.
        """
        self._place.notes = noted(self._place.notes, note, for_good=for_good)
        with self._turn():
            stored = self._read()
            notes = noted(stored.notes, note, for_good=for_good)
            self._write(stored._replace(notes=tuple(notes)))

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if *load* raises something.
        """
        return is_noted(self._place.notes, note) or is_noted(self._read().notes, note)

    def __repr__(self) -> str:
        return f"CallbackStore({_named(self._load)}, {_named(self._save)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._load, self._save, self._lent, self._place.born)

    def _read(self) -> Kept:
        try:
            stored = kept(self._call("load", self._load))
        except Refused as error:
            raise self._failure(str(error)) from None
        if stored.aside is not None and stored.is_new and not self._warned:
            self._warned = True
            _damage.warn(
                "%r: load() returned something that save() was never given. It counts as nothing, "
                "and the next save keeps it under the key 'aside'. A token of another library "
                "goes into TokenKeeper.adopt().",
                self,
            )
        if self._lent is None and self._place.meets(stored.writer):
            _damage.warn(
                "%r: another process (%s) writes here too, and no lock keeps the two apart. This "
                "one spends no refresh token any more: give the store a lock.",
                self,
                one_line(str(stored.writer), 200),
            )
        return stored

    def _write(self, stored: Kept) -> None:
        writer = None
        if self._lent is None:
            # Who only copies another process' slot does not take it over.
            writer = stored.writer if self.is_copy else this_process()
        # By way of JSON: neither side sees what the other does with its own.
        self._call("save", self._save, json.loads(stored._replace(writer=writer).as_text()))

    def _call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except errors.StoreError:
            raise
        except Exception as error:
            # What it says may hold anything, what was saved too: it is not ours to repeat.
            raise self._failure(f"{name}() raised {type(error).__name__}") from error

    def _failure(self, what: str) -> errors.StoreError:
        return errors.StoreError(
            f"{self!r} cannot be used: {what}. What was saved before is left as it was: see to "
            "load, save and lock, then try again."
        )

    def _busy(self) -> StoreError:
        return self._failure(f"others held its lock for {_PATIENCE:g} s")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """When it is our turn to write: this thread's, or else for the time being."""
        current = self._place.turn
        if current is not None and current.is_mine():
            # A lent lock that has expired is taken once more, to write what cannot be lost.
            if not current.confirm() and not current.borrow(time.monotonic() + _PATIENCE):
                raise self._busy()
            yield
            return
        turn = self.lock()
        try:
            if not turn.acquire_within(_PATIENCE):
                raise self._busy()
            yield
        finally:
            turn.release()


def _named(function: object) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__name__


def _arrived(load: Any, save: Any, lock: LockLike | None, born: str) -> CallbackStore:
    """A store that comes out of a pickle: its slot belongs to the process that first knew it."""
    place = place_of((load, save), born)
    store = CallbackStore(load, save, lock)
    store._place = place
    return store
