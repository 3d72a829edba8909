"""The store for a Django project: one of its caches, through the cache API alone.

The lock is a key that expires.  The API cannot extend or delete a key on the condition that it has
a certain value.  This is why two processes still do not present one credential:

* A holder that extends the lock touches the key and *then* reads it.  An owner's name is used once,
  so if the name is still there, the holder extended its own lock.  If not, the lock of another
  process may last a little longer.
* A holder deletes the key only well before it could have expired.  Otherwise it lets it expire.
* A deletion that arrives late nevertheless frees the lock of another process.  That process finds
  out when it confirms the lock, just before it presents anything; and each write is a swap.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tokenadapter.late_imports import imported
from tokenadapter.stores import _django
from tokenadapter.stores._django_chain import Chain, Unsure
from tokenadapter.stores.toolkit import (
    LEASE,
    Lease,
    checked_lease,
    explained,
    is_remembered,
    remembering,
    warn_of_damage,
    warn_put_aside,
)
from tokenadapter.values import Document, Snapshot

__all__ = ["DjangoCacheStore"]


class DjangoCacheStore:
    """One slot in a cache of Django, for all processes of all machines that share that cache.

    The backend's ``add`` must be atomic, as with Redis, Memcached or a database.  Backends that are
    known to be different, or that processes do not share, are refused.  Times are by this machine's
    clock, since a cache has none: the clocks of the machines must agree within some seconds.

    The keys are ``key:record``, ``key:after:…``, ``key:lock`` and ``key:spent``, within the prefix
    and version of the cache.

    :param alias: which of ``settings.CACHES``.
    :param key: the name of the slot.
    :param lease: for how many seconds at most a holder of the lock that died keeps others waiting:
        fewer than the source's ``grace``, if it has one.  Locks last for whole seconds, and for at
        least 2.
    :raises ImportError: if Django is not installed.
    :raises ImproperlyConfigured: if there is no such cache, or it cannot store a token; from
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
        self.alias = alias
        self.key = key
        self.lease: float = checked_lease(lease)
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
        """The document in the slot, and this machine's time.

        A key with something else counts as empty; the log (``tokenadapter.store``) says so once,
        and the next save puts the content aside.

        :raises StoreError: if the cache cannot be read.
        """
        with self._cache("read the token") as cache:
            chain = Chain(cache, self.key)
            link = chain.last()
        if chain.damage is not None:
            warn_of_damage(self)
        if link is None:
            return Snapshot(None, None, time.time())
        return Snapshot(link.document, link.tag, time.time())

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        The document is as durable as the cache makes it.  Something else at the key of the record
        is moved to a key ``key:damaged-…``, and never overwritten.

        :param ttl: seconds after which the cache may drop the document.
        :returns: ``False``, with nothing written, if the tag is another one.
        :raises StoreError: if the document cannot be written, or it is unknown whether it was.
        """
        with self._cache("save the token") as cache:
            chain = Chain(cache, self.key)
            if chain.swap(document, tag, expected, ttl):
                return True
            if expected is not None or chain.damage is None:
                return False
            aside = chain.put_aside()
            if aside is not None:
                warn_put_aside(self, aside)
            return chain.swap(document, tag, expected, ttl)

    def prepare(self) -> None:
        """Do nothing: saving the intent just before has shown that a save works."""

    def lock(self) -> Lease:
        """A lock on ``key:lock``, not yet taken: a lease, which a thread extends."""
        return _DjangoLease(self)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember *digest* in ``key:spent``.

        :param for_good: otherwise, *digest* is forgotten after 32 others.
        :raises StoreError: if the key cannot be written.
        """
        with self._cache("remember a spent refresh token") as cache:
            lines = remembering(self._spent(cache), digest, for_good=for_good)
            cache.set(f"{self.key}:spent", json.dumps(lines), None)
            if self._spent(cache) != lines:
                raise Unsure("the cache does not hold what was written")

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered.

        :raises StoreError: if the key cannot be read.
        """
        with self._cache("read which refresh tokens were spent") as cache:
            return is_remembered(self._spent(cache), digest)

    def __repr__(self) -> str:
        return f"DjangoCacheStore({self.alias!r}, {self.key!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), lease=self.lease), (self.alias, self.key)

    def _spent(self, cache: Any) -> list[str]:
        return [str(line) for line in json.loads(cache.get(f"{self.key}:spent") or "[]")]

    @contextmanager
    def _cache(self, task: str) -> Iterator[Any]:
        keys = [f"{self.key}:lock", f"{self.key}:record"]
        # Each backend has errors of its own.
        with explained(self, task, _django.advice), _django.call(self.alias, keys) as cache:
            yield cache


class _DjangoLease(Lease):
    def __init__(self, store: DjangoCacheStore) -> None:
        super().__init__(store.lease)
        self._store = store
        self._key = f"{store.key}:lock"
        # Until when it has certainly not expired, less some time for what arrives late.
        self._safe_until = 0.0

    def take(self, owner: str, seconds: float, dead: str | None = None) -> str:
        began, timeout = time.monotonic(), _whole(seconds)
        with self._cache() as cache:
            if dead is not None and cache.get(self._key) == dead:
                # Of the processes that found the owner dead, one deletes its lock: a later one
                # might delete the lock of the next holder.
                nonce = dead.rpartition(":")[2]
                if not cache.add(f"{self._key}:dead:{nonce}", owner, timeout):
                    return dead
                cache.delete(self._key)
            # Some caches fail silently; and the key may expire in between.
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

    def extend(self, owner: str, seconds: float) -> bool:
        began, timeout = time.monotonic(), _whole(seconds)
        with self._cache() as cache:
            is_touched = cache.touch(self._key, timeout)
            if cache.get(self._key) != owner:
                return False
            if not is_touched:
                raise Unsure(f"the cache did not extend {self._key}")
        self._know(began, timeout)
        return True

    def free(self, owner: str) -> None:
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
