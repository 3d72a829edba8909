"""The store for a Django project: one of its caches, by the cache API alone.

The lock is a key that lapses.  The API can neither extend nor delete a key on the condition that
it is one's own, and still no two processes present a credential on its account:

* Who extends it touches the key and *then* reads it.  An owner's name is used once; so if it is
  there still, it was touched as one's own.  If not, another's lock may last a little longer.
* Who releases it deletes it only well before it could have lapsed, else it is left to lapse.
* A release that comes late all the same frees another's lock.  That other finds out when it
  confirms the lock, just before it presents anything; and whoever writes has to swap.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tokenadapter.late_imports import imported
from tokenadapter.stores import _damage, _django
from tokenadapter.stores._django_chain import Chain, Unsure
from tokenadapter.stores._lease import LEASE, Lease
from tokenadapter.stores._notes import is_noted, noted
from tokenadapter.values import Document, Snapshot

__all__ = ["DjangoCacheStore"]


class DjangoCacheStore:
    """One slot in a cache of Django, for all processes of all machines that share that cache.

    Any backend will do whose ``add`` is atomic: Redis, Memcached, a database.  Those that are
    known not to be, or that processes do not share, are refused.  Times are by this machine's
    clock, since a cache has none: the clocks of the machines have to agree within some seconds.

    The keys are ``key:record``, ``key:after:…``, ``key:lock`` and ``key:notes``, within the prefix
    and version of the cache.

    :param alias: which of ``settings.CACHES``.
    :param key: the name of the slot.
    :param lease: for how many seconds a holder of the lock that died keeps others waiting at most:
        fewer than the source's ``grace``, if it has one.  Locks last for whole seconds, and for 2
        at least.
    :raises ImportError: if Django is not installed.
    :raises ImproperlyConfigured: if there is no such cache, or it cannot hold a token; from
        ``django.core.exceptions``.
    :raises ValueError: if *key* is empty, or *lease* is not above 0.
    """

    is_copy = False
    poll: tuple[float, float] = (0.05, 0.5)

    def __init__(
        self, alias: str = "default", key: str = "tokenadapter", *, lease: float = LEASE
    ) -> None:
        if not key or not key.isprintable() or " " in key or len(key) > 100:
            raise ValueError(f"key is a name of at most 100 characters, not {key!r}")
        if not lease > 0:
            raise ValueError(f"lease must be above 0 seconds, not {lease!r}")
        self.alias = alias
        self.key = key
        self.lease = lease
        self._warned = False
        try:
            exceptions = imported("django.core.exceptions")
        except ImportError as error:
            raise ImportError(
                "DjangoCacheStore needs Django: pip install 'tokenadapter[django]'"
            ) from error
        reason = _django.objection(alias)
        if reason is not None:
            raise exceptions.ImproperlyConfigured(f"{reason}.")
        _django.watch(alias)

    def load(self) -> Snapshot:
        """What the slot holds now, and this machine's time.

        A key that holds something else counts as empty; the log (``tokenadapter.store``) says so
        once, and the next save puts it aside.

        :raises StoreError: if it cannot be read.
        """
        with self._cache("read the token") as cache:
            chain = Chain(cache, self.key)
            link = chain.last()
        if chain.damage is not None and not self._warned:
            self._warned = True
            _damage.found(self)
        if link is None:
            return Snapshot(None, None, time.time())
        return Snapshot(link.document, link.tag, time.time())

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        It is as durable as the cache makes it.  Something else at the key of the record is put
        aside under ``key:damaged:…``, and never overwritten.

        :param ttl: seconds after which the cache may drop it.
        :returns: ``False``, and nothing was written, if the tag has moved on.
        :raises StoreError: if it cannot be written, or nobody knows whether it was.
        """
        with self._cache("save the token") as cache:
            chain = Chain(cache, self.key)
            if chain.swap(document, tag, expected, ttl):
                return True
            if expected is not None or chain.damage is None:
                return False
            aside = chain.put_aside()
            if aside is not None:
                _damage.put_aside(self, aside)
            return chain.swap(document, tag, expected, ttl)

    def prepare(self) -> None:
        """Nothing: the intent was written just now, the same way as the token will be."""

    def lock(self) -> Lease:
        """A lock on ``key:lock``, not yet taken: a lease, which a thread keeps alive."""
        return _DjangoLease(self)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note* in ``key:notes``.

        :param for_good: else it is forgotten when 32 others have come after it.
        :raises StoreError: if that cannot be written.
        """
        with self._cache("remember a spent refresh token") as cache:
            lines = noted(self._notes(cache), note, for_good=for_good)
            cache.set(f"{self.key}:notes", json.dumps(lines), None)
            if self._notes(cache) != lines:
                raise Unsure("the cache does not hold what was written")

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if that cannot be read.
        """
        with self._cache("read which refresh tokens were spent") as cache:
            return is_noted(self._notes(cache), note)

    def __repr__(self) -> str:
        return f"DjangoCacheStore({self.alias!r}, {self.key!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), lease=self.lease), (self.alias, self.key)

    def _notes(self, cache: Any) -> list[str]:
        return [str(line) for line in json.loads(cache.get(f"{self.key}:notes") or "[]")]

    @contextmanager
    def _cache(self, task: str) -> Iterator[Any]:
        try:
            with _django.call(self.alias, [f"{self.key}:lock", f"{self.key}:record"]) as cache:
                yield cache
        except Exception as error:
            # Each backend has errors of its own.
            raise _django.failure(self, task, error) from error


class _DjangoLease(Lease):
    def __init__(self, store: DjangoCacheStore) -> None:
        super().__init__(store.lease)
        self._store = store
        self._key = f"{store.key}:lock"
        # Until when it has certainly not lapsed, with something in hand for what comes late.
        self._safe_until = 0.0

    def _take(self, owner: str, seconds: float, dead: str | None = None) -> str:
        began, timeout = time.monotonic(), _whole(seconds)
        with self._cache() as cache:
            if dead is not None and cache.get(self._key) == dead:
                # Of those who saw it die, one deletes what it left: who comes late might delete the
                # lock of another that has taken its place.
                nonce = dead.rpartition(":")[2]
                if not cache.add(f"{self._key}:dead:{nonce}", owner, timeout):
                    return dead
                cache.delete(self._key)
            # Some caches fail silently; and it may lapse in between.
            for _ in range(2):
                is_taken = cache.add(self._key, owner, timeout)
                holder = owner if is_taken else cache.get(self._key)
                if holder is not None:
                    break
            else:
                raise Unsure(f"the cache does not take {self._key}")
        if holder == owner:
            self._know(began, timeout)
        return str(holder)

    def _extend(self, owner: str, seconds: float) -> bool:
        began, timeout = time.monotonic(), _whole(seconds)
        with self._cache() as cache:
            is_touched = cache.touch(self._key, timeout)
            if cache.get(self._key) != owner:
                return False
            if not is_touched:
                raise Unsure(f"the cache did not extend {self._key}")
        self._know(began, timeout)
        return True

    def _free(self, owner: str) -> None:
        with self._cache() as cache:
            if cache.get(self._key) == owner and time.monotonic() < self._safe_until:
                cache.delete(self._key)

    def _know(self, began: float, timeout: int) -> None:
        # A cache in a database cuts off the fractions of a second.
        self._safe_until = began + (timeout - 1) * 2 / 3

    def _cache(self) -> Any:
        return self._store._cache(f"lock {self._key}")


def _whole(seconds: float) -> int:
    return max(int(seconds), 2)
