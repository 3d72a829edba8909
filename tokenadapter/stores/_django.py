"""Django's caches: which of them can store a token, how to call them, and what to do about their
errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from tokenadapter.late_imports import importing

__all__ = ["advice", "call", "objection", "watch"]

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
    """Why the cache *alias* cannot store a token for many processes; ``None`` if it can.

    :raises ImproperlyConfigured: if there is no such cache.
    """
    with importing():
        from django.core.cache import caches
        from django.core.cache.backends.dummy import DummyCache
        from django.core.cache.backends.filebased import FileBasedCache
        from django.core.cache.backends.locmem import LocMemCache

    reasons = {
        DummyCache: "it stores nothing",
        FileBasedCache: "two processes can both add one key: use FileStore for a file",
        LocMemCache: "each process has a cache of its own: use MemoryStore for one process",
    }
    for kind, reason in reasons.items():
        if isinstance(caches[alias], kind):
            return f"the cache {alias!r} ({kind.__name__}) cannot store a token: {reason}"
    return None


@contextmanager
def call(alias: str, keys: Sequence[str]) -> Iterator[Any]:
    """The cache *alias* for this thread.

    For Memcached, each call makes a client of its own.  A client that is kept reports every key as
    missing for a second after it failed to reach the server, treats the server as dead for a minute
    after three failures, and in a forked child reads its parent's answers.

    :param keys: the keys of the call, as :func:`_on_own_connection` needs them.
    """
    with importing():
        from django.core.cache import caches
        from django.core.cache.backends.db import BaseDatabaseCache
        from django.core.cache.backends.memcached import BaseMemcachedCache

    cache = caches[alias]
    if isinstance(cache, BaseMemcachedCache):
        with closing(caches.create_connection(alias)) as own_cache:
            yield own_cache
    elif isinstance(cache, BaseDatabaseCache):
        with _on_own_connection(cache, keys):
            yield cache
    else:
        yield cache


@contextmanager
def _on_own_connection(cache: Any, keys: Sequence[str]) -> Iterator[None]:
    """Have a cache in a database use a connection of its own, without a transaction: a request that
    is rolled back would undo a rotated token, and other processes would see the lock only after the
    end of the transaction.  Reads go to the database that is written, not to a replica.

    Expired entries are deleted beforehand.  Otherwise two processes that add a key at the same time
    would both succeed if the key has an expired entry, and a process that reads an expired entry
    would delete whatever has replaced it.

    :param keys: the keys for which that matters.
    """
    with importing():
        from django.db import connections, router

    model = cache.cache_model_class
    database = router.db_for_write(model)
    own = connections[database].copy()
    own.settings_dict["AUTOCOMMIT"] = True
    # With DEBUG, Django logs each statement and what it writes: here, tokens.
    own.make_debug_cursor = own.make_cursor
    if own.vendor == "sqlite":
        # Otherwise it fails at once, and silently, if another process writes at the same time.
        own.settings_dict["OPTIONS"].setdefault("transaction_mode", "IMMEDIATE")
    # Django's connections are per thread.
    usual = {name: connections[name] for name in {database, router.db_for_read(model)}}
    try:
        for name in usual:
            connections[name] = own
        _delete_expired(own, cache, keys)
        yield
    finally:
        for name, connection in usual.items():
            connections[name] = connection
        own.close()


def _delete_expired(connection: Any, cache: Any, keys: Sequence[str]) -> None:
    """Delete those of *keys* that have expired, but no entry that has replaced one since."""
    with importing():
        from django.utils.timezone import now

    quote = connection.ops.quote_name
    places = ", ".join(["%s"] * len(keys))
    expired = (
        f"FROM {quote(cache._table)} WHERE {quote('cache_key')} IN ({places}) "
        f"AND {quote('expires')} < %s"
    )
    values = [
        *(cache.make_and_validate_key(key) for key in keys),
        connection.ops.adapt_datetimefield_value(now()),
    ]
    with connection.cursor() as cursor:
        # Count first: in SQLite, a statement that deletes waits for other writers.
        cursor.execute(f"SELECT count(*) {expired}", values)
        if cursor.fetchone()[0]:
            cursor.execute(f"DELETE {expired}", values)


def watch(alias: str) -> None:
    """Make ``manage.py check`` examine the cache *alias*."""
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
        # 300 is Django's default.
        if isinstance(cache, BaseDatabaseCache) and cache._max_entries <= 300:
            found.append(
                checks.Warning(
                    f"The cache {alias!r} has at most {cache._max_entries} entries, and deletes "
                    "some when it has more, which may include a token.",
                    hint="Give tokens a cache of their own. In its OPTIONS, set MAX_ENTRIES to at "
                    "least five times the number of slots.",
                    id="tokenadapter.W001",
                )
            )
    return found


def advice(error: Exception) -> str:
    """What to do about an error of a cache."""
    return next((_ADVICE[sign] for sign in _ADVICE if sign in str(error)), _OTHERWISE)
