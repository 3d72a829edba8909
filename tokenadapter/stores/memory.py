"""The store for one process: a cache whose items expire, and a lock among threads."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from tokenadapter.late_imports import late, load
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    import cachetools
    from cachetools import TLRUCache

    from tokenadapter.stores import toolkit
else:
    cachetools = late("cachetools")
    toolkit = late("tokenadapter.stores.toolkit")

__all__ = ["MemoryStore"]


class MemoryStore:
    """One slot in the memory of this process.

    The document is dropped when its ``ttl`` has passed, and not before.  A forked child gets a copy
    of its own.

    :param name: share the slot with every other ``MemoryStore`` of that name in this process, so
        that each of many short-lived sessions finds the same token.  Without a name, the slot
        belongs to this object: it ends with the object, and is empty in a pickled copy.
    """

    lock_ends_with_holder = True
    poll: tuple[float, float] = (0.005, 0.05)

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._slots = _Slots() if name is None else _NAMED
        self._slots.born.setdefault(name, os.getpid())

    @property
    def is_copy(self) -> bool:
        """Whether the slot was created in another process: this process was forked from it, or the
        store was unpickled here."""
        return self._slots.born[self.name] != os.getpid()

    def load(self) -> Snapshot:
        """The document in the slot, and this machine's time."""
        with _GUARD:
            item = self._slots.find(self.name)
        if item is None:
            return Snapshot(None, None, time.time())
        return Snapshot(json.loads(item.text), item.tag, time.time())

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document if its tag is still *expected*.

        :param ttl: seconds after which the document is dropped; ``None``: never.
        :returns: ``False``, with nothing replaced, if the tag is another one.
        """
        item = _Item(json.dumps(document), tag, inf if ttl is None else ttl)
        load(cachetools)  # not under _GUARD: a fork takes both _GUARD and the guard of imports
        with _GUARD:
            stored = self._slots.find(self.name)
            if (None if stored is None else stored.tag) not in (expected, tag):
                return False
            self._slots.put(self.name, item)
        return True

    def prepare(self) -> None:
        """Do nothing: memory needs no preparation."""

    def lock(self) -> _Lock:
        """A lock among the threads of this process, not yet taken."""
        return _Lock(self._slots, self.name)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember *digest* for as long as the slot exists.

        :param for_good: not used.
        """
        self._slots.spent.setdefault(self.name, set()).add(digest)

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered."""
        return toolkit.is_remembered(self._slots.spent.get(self.name, ()), digest)

    def __repr__(self) -> str:
        return f"MemoryStore({'' if self.name is None else repr(self.name)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.name, self._slots.born[self.name])


def own_store(source: object) -> MemoryStore:
    """The store of a keeper that was given none: the same for all keepers of one source object."""
    try:
        # Atomic, unlike that of a WeakValueDictionary: concurrent threads get the same store.
        return _OWN.setdefault(source, MemoryStore())
    except TypeError:  # it has no hash, or no weak references
        return MemoryStore()


def empty_named() -> None:
    """Empty the slots of all stores that have a name.  Their locks stay with their holders."""
    with _GUARD:
        _NAMED.clear()


def _arrived(name: str | None, born: int) -> MemoryStore:
    # A private slot is empty here, but its token may be in use in the process that it came from.
    if name is None:
        store = MemoryStore()
        store._slots.born[None] = 0
    else:
        _NAMED.born.setdefault(name, born)
        store = MemoryStore(name)
    return store


class _Item(NamedTuple):
    text: str
    """The document as JSON, so that callers cannot change it."""
    tag: str
    ttl: float


class _Slots:
    """By their names: the slots' contents, the holders of their locks, the processes that created
    them, and the hashes of their spent tokens.

    :data:`_GUARD` protects it.
    """

    def __init__(self) -> None:
        self._items: TLRUCache[str | None, _Item] | None = None
        self.holders: dict[str | None, _Lock] = {}
        self.born: dict[str | None, int] = {}
        self.spent: dict[str | None, set[str]] = {}

    def find(self, name: str | None) -> _Item | None:
        if self._items is None:
            return None
        try:
            return self._items[name]
        except KeyError:
            return None

    def put(self, name: str | None, item: _Item) -> None:
        if self._items is None:
            self._items = cachetools.TLRUCache(inf, lambda name, item, now: now + item.ttl)
        self._items.pop(name, None)  # an item that expires at once would keep the earlier one
        self._items[name] = item

    def clear(self) -> None:
        self._items = None
        self.spent.clear()


class _Lock:
    """A lock on one slot.  A lock that another process took before it forked this one is free."""

    def __init__(self, slots: _Slots, name: str | None) -> None:
        self._slots = slots
        self._name = name
        self._process: int | None = None

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: not used: the lock is held until it is released.
        """
        with _GUARD:
            holder = self._slots.holders.get(self._name)
            if holder is not None and holder.confirm():
                return False
            self._process = os.getpid()
            self._slots.holders[self._name] = self
            return True

    def confirm(self) -> bool:
        """Whether the lock is still held."""
        return self._slots.holders.get(self._name) is self and self._process == os.getpid()

    def release(self) -> None:
        """Release the lock."""
        with _GUARD:
            if self._slots.holders.get(self._name) is self:
                del self._slots.holders[self._name]


# Protects every _Slots.  Reentrant: a signal handler may use a session, too.
_GUARD = threading.RLock()
_NAMED = _Slots()
_OWN: WeakKeyDictionary[object, MemoryStore] = WeakKeyDictionary()


def _before_fork() -> None:
    # Do not fork in the middle of a change: the child would keep half of it.
    _GUARD.acquire()


def _after_fork() -> None:
    with suppress(RuntimeError):  # the fork began before this module was imported
        _GUARD.release()


def _after_fork_in_child() -> None:
    global _GUARD  # noqa: PLW0603
    _GUARD = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )
