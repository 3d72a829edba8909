"""The store for machines that share a Redis: a hash, a lock that is a lease, and Redis' clock.

Every step is one script on the server.  All keys of a slot are on one node of a cluster.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.stores import _redis
from tokenadapter.stores import _redis_scripts as scripts
from tokenadapter.stores.toolkit import (
    FORMAT,
    LEASE,
    REMEMBERED,
    Lease,
    checked_lease,
    damaged_name,
    explained,
    is_remembered,
    warn_of_damage,
    warn_put_aside,
)
from tokenadapter.values import Document, Snapshot

if TYPE_CHECKING:
    import pickle
else:
    pickle = late("pickle")

__all__ = ["RedisStore"]

# The most seconds that Redis keeps a document that expires.
_LONGEST = 1e10


class RedisStore:
    """One slot in Redis or Valkey, for all processes of all machines that reach it.

    The keys are ``{key}``, a hash with the record; ``{key}:lock``; and, where refresh tokens were
    spent, ``{key}:spent``, which remembers them by their hashes in case the record is deleted.  A
    *key* that has a hash tag (``{app}:token``) is used as it is.

    :param client_or_url: a client of redis-py or valkey-py (plain, of Sentinel or of a cluster),
        which is used with its own settings; or a URL: ``redis://``, ``rediss://``, ``unix://``,
        or, if valkey-py is installed, ``valkey://`` and ``valkeys://``.  With a URL, the store can
        be pickled, and a request takes at most 5 seconds, unless the URL says otherwise
        (``?socket_timeout=2``).
    :param key: the name of the slot.
    :param lease: for how many seconds at most a holder of the lock that died keeps others waiting:
        fewer than the source's ``grace``, if it has one.
    :raises ImportError: if *client_or_url* is a URL and its client is not installed.
    :raises TypeError: if *client_or_url* is neither a client nor a URL, or *key* is not text.
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
        self.key = key
        self.lease: float = checked_lease(lease)
        self._url = client_or_url if isinstance(client_or_url, str) else None
        self._client = _redis.connect(client_or_url) if self._url else _redis.checked(client_or_url)
        self._place = (
            _redis.without_secrets(self._url) if self._url else type(client_or_url).__name__
        )
        self._record = _redis.tagged(key)

    def load(self) -> Snapshot:
        """The document in the slot, and Redis' time.

        A key with something else counts as empty; the log (``tokenadapter.store``) says so once,
        and the next save puts the content aside.

        :raises StoreError: if the key cannot be read.
        """
        kind, *held, seconds, microseconds = self._look()
        now = int(seconds) + int(microseconds) / 1e6
        record = self._decode(held)
        if record is None and kind != b"none":
            warn_of_damage(self)
        document, tag = record or (None, None)
        return Snapshot(document, tag, now)

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        The document is as durable as Redis makes it (``appendfsync``).  A key with something else
        is renamed, to a name that ends in ``:damaged-``, the time and a nonce, and never
        overwritten.

        :param ttl: seconds after which Redis deletes the document.
        :returns: ``False``, with nothing written, if the tag is another one.
        :raises StoreError: if the document cannot be written, or it is unknown whether it was.
        """
        swap = partial(
            self._run,
            "save the token",
            scripts.SAVE,
            [self._record],
            "empty" if expected is None else f"tag {expected}",
            FORMAT,
            tag,
            json.dumps(document),
            "" if ttl is None else _milliseconds(min(ttl, _LONGEST)),
        )
        return bool(swap()) or (expected is None and self._put_aside() and bool(swap()))

    def prepare(self) -> None:
        """Do nothing: saving the intent just before has shown that a save works."""

    def lock(self) -> Lease:
        """A lock on ``{key}:lock``, not yet taken: a lease by Redis' clock, which a thread
        extends."""
        return _RedisLease(self)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember *digest* in ``{key}:spent``.

        :param for_good: otherwise, *digest* is forgotten after 32 others.
        :raises StoreError: if the key cannot be written.
        """
        task, keys = "remember a spent refresh token", [f"{self._record}:spent"]
        self._run(task, scripts.REMEMBER, keys, digest, "good" if for_good else "", REMEMBERED)

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered.

        :raises StoreError: if the key cannot be read.
        """
        task, keys = "read which refresh tokens were spent", [f"{self._record}:spent"]
        lines = self._run(task, scripts.REMEMBERED, keys)
        return is_remembered([line.decode("utf-8", "replace") for line in lines], digest)

    def __repr__(self) -> str:
        return f"RedisStore({self._place!r}, {self.key!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise pickle.PicklingError(
                f"{self!r} has a client, which cannot be pickled: make the store with a URL, or "
                "make another one in the other process."
            )
        return partial(type(self), lease=self.lease), (self._url, self.key)

    def __deepcopy__(self, memo: dict[int, Any]) -> RedisStore:
        return self  # a copy would be the same slot

    def _look(self) -> Any:
        return self._run("read the token", scripts.LOOK, [self._record])

    def _decode(self, held: list[bytes | None]) -> tuple[Document, str] | None:
        with explained(self, "read the token", _redis.advice):
            return _redis.decode(held)

    def _put_aside(self) -> bool:
        """Rename a key that is not a record; ``False`` if there is none."""
        kind, *held, _, _ = self._look()
        if kind == b"none" or self._decode(held) is not None:
            return False
        aside = f"{self._record}:{damaged_name()}"
        seen = [kind, *(field or b"" for field in held)]
        if not self._run("put aside what it held", scripts.ASIDE, [self._record, aside], *seen):
            return False
        warn_put_aside(self, aside)
        return True

    def _run(self, task: str, script: str, keys: list[str], *arguments: Any) -> Any:
        # Bytes in both directions, whatever the client encodes and decodes: damaged content may not
        # be text.
        items = [item.encode() if isinstance(item, str) else item for item in (*keys, *arguments)]
        # redis-py and valkey-py have errors of their own, and let those of sockets through.
        with explained(self, task, self._advise):
            return self._client.execute_command(
                "EVAL", script, len(keys), *items, NEVER_DECODE=True
            )

    def _advise(self, error: Exception) -> str:
        _redis.leave_replica(self._client, error)
        return _redis.advice(error)


class _RedisLease(Lease):
    def __init__(self, store: RedisStore) -> None:
        super().__init__(store.lease)
        self._store = store
        self._key = f"{store._record}:lock"

    def take(self, owner: str, seconds: float, dead: str | None = None) -> str:
        holder: bytes = self._ask(scripts.TAKE, owner, _milliseconds(seconds), dead or "")
        return holder.decode("utf-8", "replace")

    def extend(self, owner: str, seconds: float) -> bool:
        return bool(self._ask(scripts.EXTEND, owner, _milliseconds(seconds)))

    def free(self, owner: str) -> None:
        self._ask(scripts.FREE, owner)

    def holder(self) -> str | None:
        """The owner of the lease now; ``None`` if the lease is free."""
        owner = self._store._run(f"look at {self._key}", scripts.HOLDER, [self._key])
        return None if owner is None else owner.decode("utf-8", "replace")

    def _ask(self, script: str, *arguments: Any) -> Any:
        return self._store._run(f"lock {self._key}", script, [self._key], *arguments)


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
