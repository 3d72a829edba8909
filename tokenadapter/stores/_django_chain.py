"""Compare-and-swap on a cache that has none: every record names the one that came after it.

``head`` holds the record.  To replace the record with tag T, a writer *adds* the next one under a
key that follows from T, ``after:T``.  ``add`` is atomic, and of all writers who saw T one
succeeds: that was the swap.  Only then it brings the head up to date.  A reader begins at the head
and goes on as long as there is a record after the one that it has.  So

* a writer that dies in between has written: its record is after the head;
* a writer that is late sets the head back for a moment, from where the way still leads on; it
  looks at once, and brings the head forward again.

An empty slot is filled by adding the head itself.

What leads on from old heads is forgotten a while after the head has been set: no writer is so late
as to need it.  One that is all the same has lost: it finds that its record cannot be reached from
the head, and takes it back.  Tags are not used twice, so nothing old is ever taken for new.
"""

from __future__ import annotations

import hashlib
import os
import time
from math import ceil
from typing import Any, NamedTuple

from tokenadapter.stores import _text
from tokenadapter.values import Document

__all__ = ["Chain", "Unsure"]

# Seconds for which the way from an old head is kept, and within which a writer sets the head.  What
# it has sent may arrive much later: TCP goes on trying for a quarter of an hour.
_KEPT = 3600
_SOON = 15.0
# How often the head is set in vain.
_TRIES = 3


class Unsure(Exception):
    """Nobody knows whether the cache has done what it was asked for."""


class _Link(NamedTuple):
    """A record in the cache."""

    key: str
    value: str
    document: Document
    tag: str


class Chain:
    """The record at the key *slot* of a cache.

    :param cache: what Django calls one, for this thread.
    """

    def __init__(self, cache: Any, slot: str) -> None:
        self._cache = cache
        # Caches in a database delete what comes first in the alphabet when they are full.
        self._head = f"{slot}:record"
        self._after = f"{slot}:after:"
        self._aside = f"{slot}:damaged:"
        self.damage: str | None = None
        """The key of what is no record, if the last look came upon it."""

    def last(self) -> _Link | None:
        """The record, or ``None`` if there is none, or something else.

        :raises Refused: if it is one that this version cannot read.
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

        :returns: ``False`` if it is neither: nothing was written.
        :raises Unsure: if it may be written or not: the same again will tell.
        :raises Refused: if the record is too long, or the one there cannot be read.
        """
        began = time.monotonic()
        value = _text.encode(document, tag).decode()
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
        """Move what is no record to another key, and tell which; ``None`` if there is nothing."""
        if self.damage is None or self._read(self.damage) is not None:
            return None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = f"{self._aside}{stamp}-{os.urandom(4).hex()}"
        if not self._cache.add(aside, self._cache.get(self.damage), None):
            raise Unsure("what is no record could not be put aside")
        self._cache.delete(self.damage)
        return aside

    def _is_reached(self, tag: str) -> bool:
        """Whether the record with that tag is the last one, or was."""
        link = self.last()
        is_last = link is not None and link.tag == tag
        # Others are faster: they have seen it.
        return is_last or self._read(self._key_after(tag)) is not None

    def _bring_forward(self, link: _Link, timeout: int | None) -> None:
        """Let the head hold *link*, or whatever came after it."""
        failures = 0
        while failures < _TRIES:
            self._cache.set(self._head, link.value, timeout)
            last = self.last()
            if last is None or (last.tag == link.tag and last[:2] != (self._head, link.value)):
                failures += 1  # some caches fail silently
            elif last.key == self._head:
                return
            else:
                link, timeout = last, None  # others went on meanwhile
        raise Unsure("the cache does not hold what was written")

    def _add(self, key: str, value: str, tag: str, timeout: int | None) -> bool:
        """Whether *value* is at *key*, and nothing was there before."""
        if self._cache.add(key, value, timeout):
            return True
        # A client that lost an answer may have asked twice.
        link = self._read(key)
        if link is None and not key == self.damage == self._head:
            raise Unsure(f"the cache did not take {key}")
        return link is not None and link.tag == tag

    def _read(self, key: str) -> _Link | None:
        value = self._cache.get(key)
        if value is None:
            return None
        record = _text.decode(value.encode()) if isinstance(value, str) else None
        if record is None:
            self.damage = key
            return None
        return _Link(key, value, *record)

    def _key_after(self, tag: str) -> str:
        return self._after + hashlib.sha256(tag.encode()).hexdigest()[:32]
