"""Compare-and-swap on a cache that has none: a chain, in which each record leads to the next.

``head`` contains the record.  To replace the record with tag T, a writer *adds* the next record
under a key that is derived from T, ``after:T``.  ``add`` is atomic, so that of all writers that saw
T one succeeds: that is the swap.  Only then does the writer update the head.  A reader starts at
the head and follows the chain to its last record.  So

* a writer that dies in between has written: its record comes after the head;
* a writer that is late sets the head back for a moment, to a record from which the chain still
  leads on; it reads the chain at once, and brings the head forward again.

An empty slot is filled by adding the head itself.

The links after old heads expire a while after the head was set, when no writer should need them any
more.  A writer that is even later has lost: it finds that its record cannot be reached from the
head, and deletes it.  Tags are not used twice, so an old record is never mistaken for a new one.
"""

from __future__ import annotations

import hashlib
import time
from math import ceil
from typing import Any, NamedTuple

from tokenadapter.stores.toolkit import damaged_name, decode, encode
from tokenadapter.values import Document

__all__ = ["Chain", "Unsure"]

# Seconds for which a link after an old head is kept, and within which a writer must set the head.
# What it has sent may arrive much later: TCP retries for a quarter of an hour.
_KEPT = 1200
_SOON = 15.0
# How often to try to set the head.
_TRIES = 3


class Unsure(Exception):
    """It is unknown whether the cache did what it was asked to."""


class _Link(NamedTuple):
    """A record in the cache."""

    key: str
    value: str
    document: Document
    tag: str


class Chain:
    """The record at the key *slot* of a cache.

    :param cache: a cache object of Django's, for this thread.
    """

    def __init__(self, cache: Any, slot: str) -> None:
        self._cache = cache
        self._head = f"{slot}:record"
        # A full cache in a database deletes a third of its entries, those whose keys come first in
        # the alphabet.  The links of all slots come before the records.
        self._after = f"!{slot}:after:"
        self._slot = slot
        self.damage: str | None = None
        """The key of content that is not a record, if :meth:`last` found some."""

    def last(self) -> _Link | None:
        """The record, or ``None`` if there is none, or something else.

        :raises Refused: if a newer version wrote the record.
        """
        self.damage = None
        link = self._read(self._head)
        while link is not None:
            following = self._read(self._key_after(link.tag))
            if following is None:
                break
            link = following
        return link

    def swap(self, document: Document, tag: str, expected: str | None, ttl: float | None) -> bool:
        """Replace the record if its tag is *expected*, or *tag* itself.

        :returns: ``False``, with nothing written, if it is neither.
        :raises Unsure: if it is unknown whether the record was written: a repetition will tell.
        :raises Refused: if the record is too long, or a newer version wrote the one in the cache.
        """
        began = time.monotonic()
        value = encode(document, tag).decode()
        timeout = None if ttl is None else ceil(ttl) + 1
        link = self.last()
        if (None if link is None else link.tag) not in (expected, tag):
            return False
        if link is None:
            return self._add(self._head, value, tag, timeout)
        if link.tag != tag:
            link = _Link(self._key_after(link.tag), value, document, tag)
            if not self._add(link.key, value, tag, None):
                return False
            if not self._is_reached(tag):
                self._cache.delete(link.key)
                return False
        if time.monotonic() > began + _SOON:
            raise Unsure("the cache took too long")
        self._bring_forward(link._replace(value=value), timeout)
        if link.key != self._head:
            self._cache.touch(link.key, _KEPT)
        return True

    def put_aside(self) -> str | None:
        """Move content that is not a record to another key, and return that key; ``None`` if there
        is no such content."""
        if self.damage is None or self._read(self.damage) is not None:
            return None
        aside = f"{self._slot}:{damaged_name()}"
        if not self._cache.add(aside, self._cache.get(self.damage), None):
            raise Unsure("content that is not a record could not be put aside")
        self._cache.delete(self.damage)
        return aside

    def _is_reached(self, tag: str) -> bool:
        """Whether the record with that tag is the last one, or was."""
        link = self.last()
        is_last = link is not None and link.tag == tag
        # A record that another one follows was the last one.
        return is_last or self._read(self._key_after(tag)) is not None

    def _bring_forward(self, link: _Link, timeout: int | None) -> None:
        """Set the head to *link*, or to the last record after it."""
        failures = 0
        while failures < _TRIES:
            self._cache.set(self._head, link.value, timeout)
            last = self.last()
            if last is None or (last.tag == link.tag and last[:2] != (self._head, link.value)):
                failures += 1  # some caches fail silently
            elif last.key == self._head:
                return
            else:
                link, timeout = last, None  # other processes have written meanwhile
        raise Unsure("the cache does not hold what was written")

    def _add(self, key: str, value: str, tag: str, timeout: int | None) -> bool:
        """Add *value* at *key*, and return whether *key* was free."""
        if self._cache.add(key, value, timeout):
            return True
        # A client whose answer got lost may have added it before.
        link = self._read(key)
        if link is None and not key == self.damage == self._head:
            raise Unsure(f"the cache did not take {key}")
        return link is not None and link.tag == tag

    def _read(self, key: str) -> _Link | None:
        value = self._cache.get(key)
        if value is None:
            return None
        record = decode(value.encode()) if isinstance(value, str) else None
        if record is None:
            self.damage = key
            return None
        return _Link(key, value, *record)

    def _key_after(self, tag: str) -> str:
        return self._after + hashlib.sha256(tag.encode()).hexdigest()[:32]
