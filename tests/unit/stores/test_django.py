"""DjangoCacheStore: the contract on Redis and on a database, and what concerns Django only."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from doubles import Authority, Clockwork
from redis.backoff import NoBackoff
from redis.retry import Retry

from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.policy import windows
from tokenadapter.errors import StoreError
from tokenadapter.stores import _django
from tokenadapter.stores.django import DjangoCacheStore
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract
from tokenadapter.testing.contract.terms import content_of
from tokenadapter.values import Snapshot

from .django_project import Store
from .helpers import save
from .proxy import Proxy
from .servers import Memcached, RedisServer

pytestmark = pytest.mark.usefixtures("project")
on_memcached = pytest.mark.skipif(
    not Memcached.is_here(), reason="this machine has no Memcached server"
)


@pytest.fixture
def key() -> str:
    return f"slot-{os.urandom(4).hex()}"


@pytest.fixture
def store(project: None, key: str) -> DjangoCacheStore:
    return DjangoCacheStore("default", key)


@contextmanager
def cache_at(alias: str, location: str, options: dict[str, Any] | None = None) -> Iterator[None]:
    """The cache *alias* has another server."""
    cache = settings.CACHES[alias] | {"LOCATION": location, "OPTIONS": options or {}}
    with override_settings(CACHES={"default": cache, alias: cache}):
        yield


class OnCache(SharedStoreContract):
    LEASE = 1.0
    LAPSES_WITHIN = 15.0
    ALIAS: str

    @pytest.fixture
    def connect(self, project: None, key: str) -> Connect:
        return lambda: Store(self.ALIAS, key, lease=self.LEASE)

    @pytest.fixture
    def corrupt(self, key: str) -> Corrupt:
        return lambda content: caches[self.ALIAS].set(f"{key}:record", content)


class TestOnRedis(OnCache):
    ALIAS = "default"


class TestOnADatabase(OnCache):
    ALIAS = "database"


@on_memcached
class TestOnMemcached(OnCache):
    ALIAS = "memcached"
    # Its clock ticks once a second: a lock of 3 s lasts for 2 at least, one of 2 s for 1.
    LEASE = 4.0

    def test_a_record_that_the_server_refuses_leaves_the_last_one(
        self, store: DjangoCacheStore
    ) -> None:
        save(store)
        # Less than any store takes, and more than a Memcached does with its key.
        large = {"token": "x" * ((1 << 20) - 200)}
        with pytest.raises(StoreError, match="object too large"):
            store.save(large, tag="tag 2", expected="tag 1", ttl=None)
        assert store.load().tag == "tag 1"

    def test_while_the_server_is_down_each_call_is_an_error_and_later_calls_succeed(
        self, key: str
    ) -> None:
        """The client that Django keeps takes a server that failed for empty, and then for dead."""
        with Memcached() as server, cache_at(self.ALIAS, server.location):
            store = DjangoCacheStore(self.ALIAS, key)
            save(store)
            server.stop()
            for _ in range(5):
                with pytest.raises(StoreError, match="that its server runs"):
                    store.load()
            server.start()
            assert content_of(store) == (None, None)
            save(store)

    def test_no_key_moves_to_another_server_while_one_is_down(self, key: str) -> None:
        with (
            Memcached() as one,
            Memcached() as other,
            cache_at(self.ALIAS, f"{one.location};{other.location}"),
        ):
            stores = [DjangoCacheStore(self.ALIAS, f"{key}-{number}") for number in range(16)]
            for store in stores:
                save(store)
            other.stop()
            found = Counter()
            for store in [*stores, *stores, *stores]:
                try:
                    found[store.load().tag] += 1
                except StoreError:
                    found["StoreError"] += 1
        assert set(found) == {"tag 1", "StoreError"}

    def test_a_forked_child_and_its_parent_do_not_read_each_others_answers(self, key: str) -> None:
        stores = {name: Store(self.ALIAS, f"{key}-{name}") for name in ("parent", "child")}
        for name, store in stores.items():
            assert store.save({}, tag=name, expected=None, ttl=None)

        def get_answers(name: str) -> None:
            assert {stores[name].load().tag for _ in range(200)} == {name}

        child = multiprocessing.get_context("fork").Process(target=get_answers, args=["child"])
        child.start()
        try:
            get_answers("parent")
        finally:
            child.join(60)
        assert child.exitcode == 0


# Clocks


class OnMachine(DjangoCacheStore):
    """A store on a machine whose clock differs from others'."""

    def __init__(self, clock: Clockwork, key: str) -> None:
        super().__init__("default", key)
        self.clock = clock

    def load(self) -> Snapshot:
        return super().load()._replace(now=self.clock.now)


def test_machines_whose_clocks_are_five_minutes_apart_renew_once_for_both(key: str) -> None:
    authority = Authority(lifetime=3600.0)
    clocks = [Clockwork(1_000_000.0), Clockwork(1_000_300.0)]
    keepers = [TokenKeeper(authority, OnMachine(clock, key), runtime=clock) for clock in clocks]
    hours = 4
    for _ in range(hours * 60):
        for keeper in keepers:
            keeper.current()
            assert keeper.wait(10)
        for clock in clocks:
            clock.go_on(60)
    assert len(authority.presented) == len({*authority.presented})
    assert not authority.revoked
    # The clock that is ahead decides for both.
    interval = 3600 - 300 - windows(3600.0, 1.0)[0]
    assert authority.count <= 1 + hours * 3600 / interval


# Names and settings


def test_it_says_which_slot_it_is_and_is_pickled_with_its_settings() -> None:
    store = DjangoCacheStore("database", "billing", lease=3)
    twin = pickle.loads(pickle.dumps(store))
    assert repr(twin) == repr(store) == "DjangoCacheStore('database', 'billing')"
    assert twin.lease == 3


def test_without_arguments_the_store_uses_the_default_cache() -> None:
    assert repr(DjangoCacheStore()) == "DjangoCacheStore('default', 'tokenadapter')"


@pytest.mark.parametrize(
    ("key", "lease"), [("", 5), ("two words", 5), ("line\n", 5), ("x" * 101, 5), ("key", 0)]
)
def test_invalid_arguments_are_refused(key: str, lease: float) -> None:
    with pytest.raises(ValueError, match=r"key is a name|lease must be above 0"):
        DjangoCacheStore("default", key, lease=lease)


@pytest.mark.parametrize(
    ("alias", "advice"),
    [
        ("local", "each process has a cache of its own: use MemoryStore"),
        ("files", "two processes can both add one key: use FileStore"),
        ("none", "it stores nothing"),
        ("unknown", "doesn't exist"),
    ],
)
def test_a_cache_that_cannot_store_a_token_is_refused(alias: str, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=advice):
        DjangoCacheStore(alias)


def test_without_django_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django.core.exceptions", None)
    with pytest.raises(ImportError, match=r"pip install 'tokenadapter\[django\]'"):
        DjangoCacheStore()


def test_the_module_imports_no_django() -> None:
    program = "import sys, tokenadapter.stores.django; assert 'django' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_manage_py_check_examines_the_caches_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_django, "_WATCHED", set())
    for alias in ("default", "database", "small"):
        DjangoCacheStore(alias)
    found = [message for message in checks.run_checks() if str(message.id).startswith("tokena")]
    assert [(m.id, "'small' has at most 300 entries" in m.msg) for m in found] == [
        ("tokenadapter.W001", True)
    ]
    _django.watch("local")
    found = checks.run_checks(tags=[checks.Tags.caches])
    assert "tokenadapter.E001" in [message.id for message in found]


# Errors


@pytest.mark.parametrize(
    ("alias", "advice"),
    [
        ("nowhere", "Check this cache in settings.CACHES, and that its server runs"),
        ("no table", "manage.py createcachetable"),
    ],
)
def test_an_error_of_the_cache_becomes_a_store_error(alias: str, advice: str, key: str) -> None:
    store = DjangoCacheStore(alias, key)
    attempts: list[Callable[[], object]] = [
        store.load,
        lambda: save(store),
        lambda: store.lock().acquire(5),
        lambda: store.remember_spent("hash", for_good=True),
        lambda: store.was_spent("hash"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match=advice):
            attempt()


def test_a_record_of_a_newer_format_is_refused_and_left_alone(
    store: DjangoCacheStore, key: str
) -> None:
    newer = '{"format": "tokenadapter/2"}'
    caches["default"].set(f"{key}:record", newer, None)
    for attempt in (store.load, lambda: save(store)):
        with pytest.raises(StoreError, match="upgrade"):
            attempt()
    assert caches["default"].get(f"{key}:record") == newer


def test_content_that_is_not_a_record_is_put_aside_and_reported(
    store: DjangoCacheStore, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caches["default"].set(f"{key}:record", ["some", "list"], 1000)
    for _ in range(2):
        assert content_of(store) == (None, None)
    assert len(caplog.records) == 1
    save(store)
    assert len(caplog.records) == 2
    aside = caplog.records[1].getMessage().split()[-2]
    assert caches["default"].get(aside) == ["some", "list"]
    assert store.load().tag == "tag 1"


def test_a_record_that_is_too_long_is_an_error(store: DjangoCacheStore) -> None:
    with pytest.raises(StoreError, match="bytes"):
        store.save({"token": "x" * (1 << 20)}, tag="one", expected=None, ttl=None)


@pytest.mark.parametrize("number", range(1, 60, 2))
def test_no_refresh_token_is_spent_twice_whichever_answers_of_redis_are_lost(
    redis_server: RedisServer, key: str, number: int
) -> None:
    """All that the client asks for at one step, again and again, is done, and it never hears."""
    options = {"retry": Retry(NoBackoff(), 1)}
    with (
        Proxy(redis_server.socket) as proxy,
        cache_at("default", f"redis://127.0.0.1:{proxy.port}", options),
    ):
        renew_without_answers("default", key, proxy, number, number + 1)


@on_memcached
@pytest.mark.parametrize("number", range(1, 38))
def test_no_refresh_token_is_spent_twice_whichever_answer_of_memcached_is_lost(
    memcached: Memcached, key: str, number: int
) -> None:
    with (
        Proxy(memcached.socket) as proxy,
        cache_at("memcached", f"127.0.0.1:{proxy.port}"),
    ):
        renew_without_answers("memcached", key, proxy, number)


def renew_without_answers(alias: str, key: str, proxy: Proxy, *numbers: int) -> None:
    authority, store = Authority(), DjangoCacheStore(alias, key)
    keeper = TokenKeeper(authority, store)
    token = keeper.current()
    proxy.lose(*numbers)
    try:
        renewed = keeper.renew(token)
    except StoreError:
        renewed = keeper.renew(token)
    assert not token.is_same(renewed)
    assert renewed.is_same(TokenKeeper(authority, store).current())
    assert authority.presented == ["refresh-0", "refresh-1"]


def test_a_process_writes_its_token_back_to_an_emptied_cache(
    store: DjangoCacheStore, key: str
) -> None:
    authority = Authority()
    keeper, other = TokenKeeper(authority, store), TokenKeeper(authority, store)
    token = keeper.renew(keeper.current())
    assert other.current().is_same(token)
    for name in ("record", "spent", "lock"):
        caches["default"].delete(f"{key}:{name}")
    renewed = keeper.renew(token)
    assert not renewed.is_same(token)
    assert other.renew(token).is_same(renewed)
    assert authority.presented == ["refresh-0", "refresh-1", "refresh-2"]


# The lock


@pytest.fixture
def locked(key: str, store: DjangoCacheStore) -> Iterator[Any]:
    lock = store.lock()
    assert lock.acquire(60)
    yield lock
    lock.release()


def test_a_lock_lasts_whole_seconds(key: str, locked: Any, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        assert 3_000 < client.pttl(f":1:{key}:lock") <= 4_000
        assert locked.extend(caches["default"].get(f"{key}:lock"), 3.9)
        assert 2_000 < client.pttl(f":1:{key}:lock") <= 3_000
        # Django takes less than 1 for nothing at all.
        assert locked.extend(caches["default"].get(f"{key}:lock"), 0.1)
        assert 1_000 < client.pttl(f":1:{key}:lock") <= 2_000


def test_a_lock_whose_first_answer_was_lost_is_taken(key: str, locked: Any) -> None:
    assert locked.take(caches["default"].get(f"{key}:lock"), 5)


@pytest.mark.parametrize("other", ["another", None])
def test_a_lost_lock_is_neither_confirmed_nor_released(
    key: str, locked: Any, other: str | None
) -> None:
    caches["default"].delete(f"{key}:lock")
    if other is not None:
        caches["default"].add(f"{key}:lock", other, 50)
    assert not locked.confirm()
    locked.release()
    assert caches["default"].get(f"{key}:lock") == other


def test_a_lock_that_may_expire_at_any_moment_is_not_deleted(key: str, locked: Any) -> None:
    locked._safe_until = 0.0
    locked.release()
    assert caches["default"].get(f"{key}:lock") is not None


def test_a_silent_failure_of_the_cache_is_found(
    store: DjangoCacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = store.lock()
    assert lock.acquire(60)
    cache: Any = caches["default"]
    # This thread's: the heartbeat has its own.
    monkeypatch.setattr(cache, "touch", lambda *arguments: False)
    assert not lock.confirm()
    monkeypatch.undo()
    assert lock.confirm()
    lock.release()
    monkeypatch.setattr(cache, "add", lambda *arguments: False)
    with pytest.raises(StoreError, match="does not take"):
        store.lock().acquire(60)
    monkeypatch.setattr(cache, "set", lambda *arguments: None)
    with pytest.raises(StoreError, match="does not hold"):
        store.remember_spent("hash", for_good=True)
