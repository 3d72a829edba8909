"""The store for a place that a program already has: the program's functions load, save and lock.

The functions have no compare-and-swap.  So each write is a load, a comparison and a save under the
lock: the program's own, or, without one, a lock among the threads of this process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tokenadapter import spelling
from tokenadapter.late_imports import late
from tokenadapter.process_names import this_process
from tokenadapter.stores._text import understood
from tokenadapter.stores._turns import Lend, Turn, place_of
from tokenadapter.stores.toolkit import (
    FORMAT,
    WRITE_TIMEOUT,
    Refused,
    is_remembered,
    remembering,
    warn_once,
)
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")

__all__ = ["CallbackStore"]

_Loaded: TypeAlias = Mapping[str, Any] | str | bytes | None


class CallbackStore:
    """One slot in the place to which *load* and *save* lead: a row, a setting, a secrets manager.

    What is saved is one JSON object.  It contains secrets, and only this class reads it.

    :param load: returns what *save* was last given, as a mapping or as JSON text; ``None``, or
        something empty, if there is nothing yet.
    :param save: is given a new ``dict``, and has kept it when it returns.
    :param lock: returns a new lock that excludes all processes that use the slot: a
        :class:`~tokenadapter.protocols.StoreLock`, such as a
        :class:`~tokenadapter.stores.lockfile.LockFile` or the ``lock`` method of another store; or
        a context manager.  A context manager that waits for its lock can make a request wait for
        longer than ``lock_timeout``.  One whose lock expires must last for the source's deadline
        and ten seconds.

        Pass ``None`` only if no other process uses the slot.  A process that was forked, or that
        unpickled the store, then goes on using and obtaining tokens, but spends no refresh token:
        :class:`~tokenadapter.ReauthRequired`, reason ``private_copy``.
    :param name: names the slot in messages and events, where all the stores that one function of
        the program makes would otherwise look alike.
    :raises TypeError: if one of the first three arguments is not a function, or is a coroutine
        function; or if *name* is no text.

    Stores with the same *load* and *save* share one slot.  Functions that are created again each
    time are different functions: without a lock, create them once.
    """

    poll: tuple[float, float] = (0.05, 0.5)

    def __init__(
        self,
        load: Callable[[], _Loaded],
        save: Callable[[dict[str, Any]], object],
        lock: Lend | None,
        *,
        name: str | None = None,
    ) -> None:
        spelling.check_function("load", load)
        spelling.check_function("save", save)
        if lock is not None:
            spelling.check_function("lock", lock)
        if not isinstance(name, str | None):
            raise TypeError(f"name is a text, not {name!r}")
        self.name = name
        self._load, self._save, self._lend = load, save, lock
        self._place = place_of((load, save))

    @property
    def is_copy(self) -> bool:
        """Whether the slot began in another process, and no lock keeps the two apart."""
        return self._lend is None and self._place.born != this_process()

    @property
    def lock_ends_with_holder(self) -> bool:
        """Whether the lock is that of this process alone: a lent lock may lapse."""
        return self._lend is None

    def load(self) -> Snapshot:
        """What *load* returns, without a lock, and this machine's time.

        Something that *save* was never given counts as empty; the log (``tokenadapter.store``) says
        so once, and the next save keeps it as text, under the key ``aside``.

        :raises StoreError: if *load* raises an exception.
        """
        stored = self._read()
        return Snapshot(stored.document, stored.tag, time.time())

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Pass the document to *save* if what *load* returns still has the tag *expected*.

        :param ttl: not used.
        :returns: ``False``, with nothing saved, if the tag is another one.
        :raises StoreError: if *load*, *save* or *lock* raises an exception.
        """
        with self._turn():
            stored = self._read()
            if stored.tag not in (expected, tag):
                return False
            self._write(stored._replace(document=document, tag=tag))
        return True

    def prepare(self) -> None:
        """Do nothing: saving the intent just before has shown that a save works."""

    def lock(self) -> Turn:
        """The right to write, not yet taken."""
        return Turn(self._place, self._lend, self._failure)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember *digest* beside the document, and in this process.

        :param for_good: otherwise, *digest* is forgotten after 32 others.
        :raises StoreError: if *load*, *save* or *lock* raises an exception.
        """
        self._place.spent = remembering(self._place.spent, digest, for_good=for_good)
        with self._turn():
            stored = self._read()
            spent = remembering(stored.spent, digest, for_good=for_good)
            self._write(stored._replace(spent=tuple(spent)))

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered.

        :raises StoreError: if *load* raises an exception.
        """
        return is_remembered([*self._place.spent, *self._read().spent], digest)

    def __repr__(self) -> str:
        slot = "" if self.name is None else f", name={self.name!r}"
        return f"CallbackStore({_named(self._load)}, {_named(self._save)}{slot})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._load, self._save, self._lend, self.name, self._place.born)

    def _read(self) -> _Content:
        try:
            content, is_new = _parsed(self._call("load", self._load))
        except Refused as error:
            raise self._failure(str(error)) from None
        if is_new:
            warn_once(
                self,
                "%r: load() returned something that save() was never given. It counts as empty, "
                "and the next save keeps it under the key 'aside'. Pass a token of another library "
                "to TokenKeeper.adopt().",
                self,
            )
        return content

    def _write(self, content: _Content) -> None:
        # By way of JSON: neither side can change what the other has.
        self._call("save", self._save, json.loads(content.as_text()))

    def _call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            result = function(*args)
        except errors.StoreError:
            raise
        except Exception as error:
            # The text of the exception may contain what was saved: do not repeat it.
            raise self._failure(f"{name}() raised {type(error).__name__}") from error
        if hasattr(result, "__await__"):
            # Nothing was loaded or saved.  An empty slot would be written over.
            raise self._failure(f"{name}() returned an awaitable, {type(result).__name__}")
        return result

    def _failure(self, cause: str) -> errors.StoreError:
        return errors.StoreError(
            f"{self!r} cannot be used: {cause}. What was saved before is left as it was: check "
            "load, save and lock, then try again."
        )

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Write in a block: in this thread's turn, or else in a new one."""
        current = self._place.turn
        if current is not None and current.is_mine():
            # A token that must not be lost is written although the lent lock has lapsed: under
            # a new lock.
            end = time.monotonic() + WRITE_TIMEOUT
            if not current.confirm() and not current.borrow(end, WRITE_TIMEOUT):
                raise self._busy()
            yield
            return
        turn = self.lock()
        try:
            if not turn.acquire_within(WRITE_TIMEOUT, WRITE_TIMEOUT):
                raise self._busy()
            yield
        finally:
            turn.release()

    def _busy(self) -> errors.StoreError:
        return self._failure(f"others held its lock for {WRITE_TIMEOUT:g} s")


class _Content(NamedTuple):
    """What the functions keep."""

    document: Document | None = None
    tag: str | None = None
    spent: tuple[str, ...] = ()
    aside: str | None = None
    """What was there before, and was not a record."""

    def as_text(self) -> str:
        parts = self._asdict().items()
        return json.dumps(
            {"format": FORMAT, **{name: part for name, part in parts if part not in (None, ())}}
        )


def _parsed(data: _Loaded) -> tuple[_Content, bool]:
    """The content, and whether *data* is something else, which the content now has as ``aside``.

    :raises Refused: if a newer version wrote it.
    """
    if not data:
        return _Content(), False
    text = _text_of(data)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    document, tag = understood(record) or (None, None)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        return _Content(aside=text), True
    return _Content(
        document, tag, tuple(map(str, record.get("spent", ()))), record.get("aside")
    ), False


def _text_of(data: object) -> str | bytes:
    """*data* as JSON text, unless it is text already."""
    if isinstance(data, (str, bytes)):
        return data
    if isinstance(data, (bytearray, memoryview)):  # as some databases return a column
        return bytes(data)
    try:
        return json.dumps(dict(data) if isinstance(data, Mapping) else data, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(data)


def _named(function: object) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__name__


def _arrived(load: Any, save: Any, lock: Lend | None, name: str | None, born: str) -> CallbackStore:
    """An unpickled store: its slot belongs to the process in which its first store was made."""
    place = place_of((load, save), born)
    store = CallbackStore(load, save, lock, name=name)
    store._place = place
    return store
