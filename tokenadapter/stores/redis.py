"""The store for many machines that share a Redis: a hash, a lock that lapses, and Redis' clock.

Every step is one script on the server.  All keys of a slot are on one node of a cluster.
"""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.stores import _damage, _redis
from tokenadapter.stores._lease import LEASE, Lease
from tokenadapter.stores._redis_scripts import (
    ASIDE,
    EXTEND,
    FREE,
    HOLDER,
    LOOK,
    MARK,
    MARKED,
    SAVE,
    TAKE,
)
from tokenadapter.stores._text import FORMAT
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    import pickle
else:
    pickle = late("pickle")

__all__ = ["RedisStore"]

# How many notes that are not for good are kept.
_NOTES_KEPT = 32
# No document outlives as many seconds.
_LONGEST = 1e10


class RedisStore:
    """One slot in Redis or Valkey, for all processes of all machines that reach it.

    The keys are ``{key}``, a hash with the record; ``{key}:lock``; and, where refresh tokens were
    spent, ``{key}:notes``, which remembers them by their hashes if the record is deleted.  A *key*
    that has a hash tag of its own (``{app}:token``) is taken as it is.

    :param client_or_url: a client of redis-py or valkey-py, plain, of Sentinel or of a cluster,
        which is used with its own settings; or a URL: ``redis://``, ``rediss://``, ``unix://``,
        or, if valkey-py is installed, ``valkey://`` and ``valkeys://``.  With a URL the store can
        be pickled, and a request takes 5 seconds at most, unless the URL says otherwise
        (``?socket_timeout=2``).
    :param key: the name of the slot.
    :param lease: for how many seconds a holder of the lock that died keeps others waiting at most:
        fewer than the source's ``grace``, if it has one.
    :raises ImportError: if a URL is given and its client is not installed.
    :raises TypeError: if *client_or_url* is neither, or *key* is no text.
    :raises ValueError: if the URL cannot be read, *key* is empty or cannot be a hash tag, or
        *lease* is not above 0.
    """

    is_copy = False
    poll: tuple[float, float] = (0.05, 0.5)

    def __init__(self, client_or_url: Any, key: str, *, lease: float = LEASE) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key is a text, not {key!r}")
        if not key or key.startswith("}"):
            raise ValueError(f"key is the name of a slot, such as 'billing', not {key!r}")
        if not lease > 0:
            raise ValueError(f"lease must be above 0 seconds, not {lease!r}")
        self.key = key
        self.lease = lease
        self._url = client_or_url if isinstance(client_or_url, str) else None
        self._client = _redis.connect(client_or_url) if self._url else _redis.checked(client_or_url)
        self._place = (
            _redis.without_secrets(self._url) if self._url else type(client_or_url).__name__
        )
        self._record = _redis.tagged(key)
        self._warned = False

    def load(self) -> Snapshot:
        """What the slot holds now, and Redis' own time.

        A key that holds something else counts as empty; the log (``tokenadapter.store``) says so
        once, and the next save puts it aside.

        :raises StoreError: if it cannot be read.
        """
        kind, *held, seconds, microseconds = self._look()
        now = int(seconds) + int(microseconds) / 1e6
        record = self._decode(held)
        if record is None and kind != b"none" and not self._warned:
            self._warned = True
            _damage.found(self)
        document, tag = record or (None, None)
        return Snapshot(document, tag, now)

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        It is as durable as Redis makes it (``appendfsync``).  A key that holds something else is
        put aside under a name that ends in ``:damaged-`` and the time, and never overwritten.

        :param ttl: seconds after which Redis deletes it.
        :returns: ``False``, and nothing was written, if the tag has moved on.
        :raises StoreError: if it cannot be written, or nobody knows whether it was.
        """
        swap = partial(
            self._run,
            "save the token",
            SAVE,
            [self._record],
            "empty" if expected is None else f"tag {expected}",
            FORMAT,
            tag,
            json.dumps(document),
            "" if ttl is None else _milliseconds(min(ttl, _LONGEST)),
        )
        return bool(swap()) or (expected is None and self._put_aside() and bool(swap()))

    def prepare(self) -> None:
        """Nothing: the intent was written just now, the same way as the token will be."""

    def lock(self) -> Lease:
        """A lock on ``{key}:lock``, not yet taken: a lease by Redis' clock, which a thread keeps
        alive."""
        return _RedisLease(self)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note* in ``{key}:notes``.

        :param for_good: else it is forgotten when 32 others have come after it.
        :raises StoreError: if that cannot be written.
        """
        task, keys = "remember a spent refresh token", [f"{self._record}:notes"]
        self._run(task, MARK, keys, note, "good" if for_good else "", _NOTES_KEPT)

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if that cannot be read.
        """
        task, keys = "read which refresh tokens were spent", [f"{self._record}:notes"]
        return bool(self._run(task, MARKED, keys, note))

    def __repr__(self) -> str:
        return f"RedisStore({self._place!r}, {self.key!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise pickle.PicklingError(
                f"{self!r} has a client, which cannot be pickled: make it with a URL, or anew in "
                "the other process."
            )
        return partial(type(self), lease=self.lease), (self._url, self.key)

    def __deepcopy__(self, memo: dict[int, Any]) -> RedisStore:
        return self  # it is but the name of a slot

    def _look(self) -> Any:
        return self._run("read the token", LOOK, [self._record])

    def _decode(self, held: list[bytes | None]) -> tuple[Document, str] | None:
        try:
            return _redis.decode(held)
        except _redis.NewerFormat as error:
            raise _redis.failure(self, "read the token", error) from None

    def _put_aside(self) -> bool:
        """Move what is no record out of the way; ``False`` if there is no such thing."""
        kind, *held, _, _ = self._look()
        if kind == b"none" or self._decode(held) is not None:
            return False
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = f"{self._record}:damaged-{stamp}-{os.urandom(4).hex()}"
        seen = [kind, *(field or b"" for field in held)]
        if not self._run("put aside what it held", ASIDE, [self._record, aside], *seen):
            return False
        _damage.put_aside(self, aside)
        return True

    def _run(self, task: str, script: str, keys: list[str], *arguments: Any) -> Any:
        # Bytes there and back, whatever the client encodes and decodes: damage may be no text.
        items = [item.encode() if isinstance(item, str) else item for item in (*keys, *arguments)]
        try:
            return self._client.execute_command(
                "EVAL", script, len(keys), *items, NEVER_DECODE=True
            )
        except Exception as error:
            # redis-py and valkey-py have errors of their own, and let those of sockets through.
            _redis.leave_replica(self._client, error)
            raise _redis.failure(self, task, error) from error


class _RedisLease(Lease):
    def __init__(self, store: RedisStore) -> None:
        super().__init__(store.lease)
        self._store = store
        self._key = f"{store._record}:lock"

    def _take(self, owner: str, seconds: float, dead: str | None = None) -> str:
        holder: bytes = self._ask(TAKE, owner, _milliseconds(seconds), dead or "")
        return holder.decode("utf-8", "replace")

    def _extend(self, owner: str, seconds: float) -> bool:
        return bool(self._ask(EXTEND, owner, _milliseconds(seconds)))

    def _free(self, owner: str) -> None:
        self._ask(FREE, owner)

    def holder(self) -> str | None:
        """Who has the lease now; ``None`` if nobody has."""
        owner = self._store._run(f"look at {self._key}", HOLDER, [self._key])
        return None if owner is None else owner.decode("utf-8", "replace")

    def _ask(self, script: str, *arguments: Any) -> Any:
        return self._store._run(f"lock {self._key}", script, [self._key], *arguments)


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
