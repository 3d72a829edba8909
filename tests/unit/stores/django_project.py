"""A Django project with caches of each kind, for this process and for those that tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from tokenadapter.stores.django import DjangoCacheStore

_BACKENDS = "django.core.cache.backends"
# Otherwise a reader blocks all writers.
_PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"
_PLACE: list[str] = []


def configure(folder: str, redis_url: str, memcached: str) -> None:
    """Make this process one of the project's."""
    _PLACE[:] = folder, redis_url, memcached
    if settings.configured:
        return
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(folder) / "project.sqlite3",
        "ATOMIC_REQUESTS": True,
        "OPTIONS": {"timeout": 30, "init_command": _PRAGMAS},
    }
    table = {"BACKEND": f"{_BACKENDS}.db.DatabaseCache", "LOCATION": "cached"}
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        SECRET_KEY="not a secret",
        USE_TZ=True,
        DATABASES={
            "default": database,
            # Nothing is there.
            "replica": {**database, "NAME": Path(folder) / "replica.sqlite3"},
        },
        CACHES={
            "default": {"BACKEND": f"{_BACKENDS}.redis.RedisCache", "LOCATION": redis_url},
            "database": {**table, "OPTIONS": {"MAX_ENTRIES": 10_000}},
            "small": table,
            "memcached": {
                "BACKEND": f"{_BACKENDS}.memcached.PyMemcacheCache",
                "LOCATION": memcached,
            },
            "local": {"BACKEND": f"{_BACKENDS}.locmem.LocMemCache"},
            "files": {"BACKEND": f"{_BACKENDS}.filebased.FileBasedCache", "LOCATION": folder},
            "none": {"BACKEND": f"{_BACKENDS}.dummy.DummyCache"},
            "nowhere": {"BACKEND": f"{_BACKENDS}.redis.RedisCache", "LOCATION": "redis://[::1]:1"},
            "no table": {**table, "LOCATION": "missing"},
        },
        VERIFY_SSL=True,
    )
    django.setup()


def create_table() -> None:
    call_command("createcachetable", "cached")
    connections.close_all()


class Store(DjangoCacheStore):
    """One that brings its project along when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_project, (_PLACE, self.alias, self.key, self.lease)


def _in_project(place: list[str], alias: str, key: str, lease: float) -> Store:
    configure(*place)
    return Store(alias, key, lease=lease)
