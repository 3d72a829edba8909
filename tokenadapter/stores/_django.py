"""Which of Django's caches can hold a token, how they are called, and what their errors mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import importing, late
from tokenadapter.stores._system import Refused

if TYPE_CHECKING:
    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")

__all__ = ["call", "failure", "objection", "watch"]

_ADVICE = {
    "no such table": "Create its table: manage.py createcachetable.",
    "does not exist": "Create its table: manage.py createcachetable.",
    "doesn't exist": "Create its table: manage.py createcachetable.",
    "locked": "SQLite has one writer at a time: end the transaction that is open, or use another "
    "database for this cache.",
    "async context": "Call it in a thread: asgiref.sync.sync_to_async.",
}
_OTHERWISE = "Check this cache in settings.CACHES, and that its server runs: try again."
# The aliases of all stores of this process.
_WATCHED: set[str] = set()


def objection(alias: str) -> str | None:
    """Why the cache *alias* cannot hold a token for many processes; ``None`` if it may.

    :raises ImproperlyConfigured: if there is no such cache.
    """
    with importing():
        from django.core.cache import caches
        from django.core.cache.backends.dummy import DummyCache
        from django.core.cache.backends.filebased import FileBasedCache
        from django.core.cache.backends.locmem import LocMemCache

    reasons = {
        DummyCache: "it keeps nothing",
        FileBasedCache: "two processes can both add one key: FileStore is the store for files",
        LocMemCache: "each process has one of its own: MemoryStore is the store for one process",
    }
    for kind, reason in reasons.items():
        if isinstance(caches[alias], kind):
            return f"the cache {alias!r} ({kind.__name__}) cannot hold a token: {reason}"
    return None


@contextmanager
def call(alias: str, keys: Sequence[str]) -> Iterator[Any]:
    """The cache *alias* for this thread.

    A Memcached is called by a client of this call alone.  One that is kept reports each key as
    missing for a second after it has failed to reach the server, takes the server for dead for a
    minute after it has failed three times, and in a forked child reads its parent's answers.

    A cache in a database is called on a connection of its own, without a transaction around it: a
    request that is rolled back would take a rotated token with it, and the lock would be seen by
    others only after its end.  What is read comes from where it is written, not from a replica.

    Entries that have lapsed are deleted there beforehand.  Two who add a key at the same time both
    succeed if a lapsed entry is at that key, and who reads one deletes whatever is there by then.

    :param keys: those of which that matters.
    """
    with importing():
        from django.core.cache import caches
        from django.core.cache.backends.db import BaseDatabaseCache
        from django.core.cache.backends.memcached import BaseMemcachedCache

    cache = caches[alias]
    if isinstance(cache, BaseMemcachedCache):
        with closing(caches.create_connection(alias)) as own_cache:
            yield own_cache
        return
    if not isinstance(cache, BaseDatabaseCache):
        yield cache
        return
    with importing():
        from django.db import connections, router

    model = cache.cache_model_class
    database = router.db_for_write(model)
    own = connections[database].copy()
    own.settings_dict["AUTOCOMMIT"] = True
    # With DEBUG, Django logs each statement with what it writes: here, tokens.
    own.make_debug_cursor = own.make_cursor
    if own.vendor == "sqlite":
        # Else it fails at once, and silently, where another writes at the same time.
        own.settings_dict["OPTIONS"].setdefault("transaction_mode", "IMMEDIATE")
    # Both are this thread's alone.
    usual = {name: connections[name] for name in {database, router.db_for_read(model)}}
    try:
        for name in usual:
            connections[name] = own
        _delete_lapsed(own, cache, keys)
        yield cache
    finally:
        for name, connection in usual.items():
            connections[name] = connection
        own.close()


def _delete_lapsed(connection: Any, cache: Any, keys: Sequence[str]) -> None:
    """Delete those of *keys* that have lapsed, but nothing that was put in their place since."""
    with importing():
        from django.utils.timezone import now

    quote = connection.ops.quote_name
    places = ", ".join(["%s"] * len(keys))
    lapsed = (
        f"FROM {quote(cache._table)} WHERE {quote('cache_key')} IN ({places}) "
        f"AND {quote('expires')} < %s"
    )
    values = [
        *(cache.make_and_validate_key(key) for key in keys),
        connection.ops.adapt_datetimefield_value(now()),
    ]
    with connection.cursor() as cursor:
        # Asked first: in SQLite, who deletes has to wait for others that write.
        cursor.execute(f"SELECT count(*) {lapsed}", values)
        if cursor.fetchone()[0]:
            cursor.execute(f"DELETE {lapsed}", values)


def watch(alias: str) -> None:
    """Let ``manage.py check`` look at the cache *alias*."""
    with importing():
        from django.core import checks

    if not _WATCHED:
        checks.register(_check, checks.Tags.caches)
    _WATCHED.add(alias)


def _check(app_configs: object, **options: object) -> list[Any]:
    with importing():
        from django.core import checks
        from django.core.cache import caches
        from django.core.cache.backends.db import BaseDatabaseCache

    found: list[Any] = []
    for alias in sorted(_WATCHED):
        reason = objection(alias)
        if reason is not None:
            hint = "Use Django's RedisCache, DatabaseCache or a Memcached backend."
            found.append(checks.Error(f"{reason}.", hint=hint, id="tokenadapter.E001"))
        cache: Any = caches[alias]
        # Django's own number, unless it was set.
        if isinstance(cache, BaseDatabaseCache) and cache._max_entries <= 300:
            found.append(
                checks.Warning(
                    f"The cache {alias!r} holds {cache._max_entries} entries, and deletes some "
                    "when it has more, a token included.",
                    hint="Give tokens a cache of their own, with MAX_ENTRIES of 10000 in OPTIONS.",
                    id="tokenadapter.W001",
                )
            )
    return found


def failure(slot: object, task: str, error: Exception) -> errors.StoreError:
    """The :class:`StoreError` for *error*, which kept *slot* from doing its *task*."""
    kind, text = type(error).__name__, str(error).rstrip(".")
    message = f"{slot!r} cannot {task}: {text or kind}. Nothing stored was lost."
    if not isinstance(error, Refused):
        message += " " + next((_ADVICE[sign] for sign in _ADVICE if sign in text), _OTHERWISE)
    return errors.StoreError(message)
