"""RedisStore: the contract, by each kind of client, and what concerns Redis only."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import valkey

from tokenadapter.errors import StoreError
from tokenadapter.stores._redis import without_secrets
from tokenadapter.stores.redis import RedisStore
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract, StoreContract
from tokenadapter.testing.contract.terms import content_of

from .helpers import save
from .servers import RedisServer, free_port

SHORT = 1.0


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    name = getattr(request.node, "originalname", "")
    return f"{name}-{os.urandom(4).hex()}"


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def store(redis_server: RedisServer, key: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url, key)
    yield store
    store._client.close()


class TestRedisStore(SharedStoreContract):
    LEASE = SHORT
    LAPSES_WITHIN = 10.0

    @pytest.fixture
    def connect(self, redis_server: RedisServer, key: str) -> Connect:
        return lambda: RedisStore(redis_server.url, key, lease=SHORT)

    @pytest.fixture
    def corrupt(self, client: redis.Redis, key: str) -> Corrupt:
        return lambda content: client.hset(f"{{{key}}}", "document", content)


class TestRedisStoreOfAClientThatDecodes(StoreContract):
    @pytest.fixture
    def connect(self, redis_server: RedisServer, key: str) -> Connect:
        url = f"{redis_server.url}?decode_responses=True&protocol=3"
        return lambda: RedisStore(redis.Redis.from_url(url), key)

    @pytest.fixture
    def corrupt(self, client: redis.Redis, key: str) -> Corrupt:
        def corrupt(content: bytes) -> None:
            client.delete(f"{{{key}}}")
            client.set(f"{{{key}}}", b"\xff" + content)

        return corrupt


class TestRedisStoreByValkey(StoreContract):
    @pytest.fixture
    def connect(self, redis_server: RedisServer, key: str) -> Connect:
        return lambda: RedisStore(f"valkey://127.0.0.1:{redis_server.port}", key)


class TestRedisStoreInACluster(StoreContract):
    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls) -> Iterator[redis.RedisCluster[Any]]:
        with RedisServer("--cluster-enabled", "yes", port=free_port()) as server:
            with server.client() as node:
                node.execute_command("CLUSTER ADDSLOTS", *range(16384))
                while "fail" in str(node.execute_command("CLUSTER INFO")["cluster_state"]):
                    time.sleep(0.05)
            with redis.RedisCluster("127.0.0.1", server.port) as cluster:
                yield cluster

    @pytest.fixture
    def connect(self, cluster: Any, key: str) -> Connect:
        return lambda: RedisStore(cluster, key)

    def test_damage_is_put_aside_on_the_same_node(
        self, connect: Connect, cluster: Any, key: str
    ) -> None:
        cluster.set(f"{{{key}}}", "something else")
        save(connect())  # type: ignore[arg-type]
        (aside,) = cluster.keys(f"{{{key}}}:damaged-*")
        assert cluster.get(aside) == b"something else"


# Names


def test_the_lock_names_its_holder(store: RedisStore) -> None:
    lock = store.lock()
    assert lock.holder() is None
    assert lock.acquire(5.0)
    assert (store.lock().holder() or "").startswith(f"{socket.gethostname()}:{os.getpid()}:")
    lock.release()
    assert lock.holder() is None


def test_all_keys_begin_with_the_slot(store: RedisStore, client: redis.Redis, key: str) -> None:
    save(store)
    store.remember_spent("hash", for_good=False)
    lock = store.lock()
    assert lock.acquire(30)
    keys = {name.decode() for name in client.keys(f"*{key}*")}
    lock.release()
    assert keys == {f"{{{key}}}", f"{{{key}}}:lock", f"{{{key}}}:spent"}


@pytest.mark.parametrize(
    "name",
    ["plain", "{app}:token", "app:{user}:token", "a}b", "a{b", "{}", "{}a", "a{}b{c}", "żółć"],
)
def test_all_keys_are_on_one_node(
    redis_server: RedisServer, client: redis.Redis, name: str
) -> None:
    before = set(client.keys())
    store = RedisStore(redis_server.url, name)
    save(store)
    (record,) = set(client.keys()) - before
    assert name in record.decode()
    client.hset(record, "document", "damaged")
    assert store.load().document is None
    store.remember_spent("spent", for_good=True)
    lock = store.lock()
    assert lock.acquire(60)
    keys = set(client.keys()) - before
    lock.release()
    assert len(keys) >= 3  # the lock, the spent tokens, and the damaged record
    assert {redis.cluster.key_slot(key) for key in keys} == {redis.cluster.key_slot(record)}
    client.delete(*keys, record)


def test_a_hash_tag_in_the_key_is_kept(redis_server: RedisServer, client: redis.Redis) -> None:
    save(RedisStore(redis_server.url, "{app}:token of its own"))
    assert client.delete("{app}:token of its own") == 1


def test_a_person_can_read_the_keys(store: RedisStore, client: redis.Redis, key: str) -> None:
    save(store)
    held = client.hgetall(f"{{{key}}}")
    assert held[b"tag"] == b"tag 1"
    assert held[b"document"] == b'{"n": 1}'
    assert held[b"format"] == b"tokenadapter/1"


@pytest.mark.parametrize("password", ["12/s3cr3t", "12/s3cr3t@x"])
def test_a_password_with_a_slash_is_an_error_that_does_not_show_it(password: str) -> None:
    with pytest.raises(ValueError, match="the password is percent-encoded") as caught:
        RedisStore(f"redis://me:{password}@host/0", "billing")
    assert "12" not in f"{caught.value!r} {caught.value.__context__!r}"


@pytest.mark.parametrize("password", ["12/s3cr3t", "12?s3cr3t", "12#s3cr3t", "12@s3cr3t"])
def test_no_message_shows_a_password_that_was_not_encoded(password: str) -> None:
    shown = without_secrets(f"redis://me:{password}@host:6379/0?password=s3cr3t")
    assert shown == "redis://host:6379/0"


def test_it_says_which_slot_it_is_and_no_secret() -> None:
    store = RedisStore("redis://user:s3cr3t@cache.example.com:6380/2?password=s3cr3t", "billing")
    assert repr(store) == "RedisStore('redis://cache.example.com:6380/2', 'billing')"
    assert repr(RedisStore(redis.Redis(password="s3cr3t"), "a")) == "RedisStore('Redis', 'a')"


@pytest.mark.parametrize(
    ("place", "name", "options", "error"),
    [
        ("redis://", "", {}, ValueError),
        ("redis://", "}", {}, ValueError),
        ("redis://", b"key", {}, TypeError),
        ("redis://", "key", {"lease": 0}, ValueError),
        ("http://localhost", "key", {}, ValueError),
        (None, "key", {}, TypeError),
        (redis.Redis, "key", {}, TypeError),
        (redis.asyncio.Redis(), "key", {}, TypeError),
    ],
)
def test_invalid_arguments_are_refused(
    place: Any, name: Any, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        RedisStore(place, name, **options)


def test_a_url_of_another_type_is_not_shown() -> None:
    with pytest.raises(TypeError, match=r"not builtins\.bytes") as caught:
        RedisStore(b"redis://:s3cr3t@localhost", "key")
    assert "s3cr3t" not in str(caught.value)


def test_a_url_that_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(ValueError, match="percent-encoded") as caught:
        RedisStore("redis://:s3cr3t/rest@localhost", "key")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_the_error_names_a_client_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ImportError, match=rf"tokenadapter\[{kind}\]"):
        RedisStore(f"{kind}://localhost", "key")


def test_the_module_imports_no_client() -> None:
    program = "import sys, tokenadapter.stores.redis as r; assert not {'redis'} & {*sys.modules}"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# Settings


def test_it_is_pickled_with_its_settings(redis_server: RedisServer) -> None:
    twin = pickle.loads(pickle.dumps(RedisStore(redis_server.url, "key", lease=3)))
    assert (twin.key, twin.lease, repr(twin)) == (
        "key",
        3,
        repr(RedisStore(redis_server.url, "key")),
    )


def test_with_a_client_it_is_copied_but_not_pickled(client: redis.Redis) -> None:
    store = RedisStore(client, "key")
    assert copy.deepcopy([store])[0] is store
    with pytest.raises(pickle.PicklingError, match="make the store with a URL"):
        pickle.dumps(store)


def test_the_settings_of_a_url_go_first() -> None:
    pools = [
        RedisStore(url, "key")._client.connection_pool
        for url in ("redis://", "redis://?socket_timeout=2", "valkey://?socket_timeout=2")
    ]
    assert [pool.connection_kwargs["socket_timeout"] for pool in pools] == [5, 2, 2]
    assert isinstance(pools[2], valkey.ConnectionPool)


# Time


def test_the_time_is_that_of_redis(redis_server: RedisServer, client: redis.Redis) -> None:
    seconds, microseconds = client.time()
    now = RedisStore(redis_server.url, "key").load().now
    later, _ = client.time()
    assert seconds + microseconds / 1e6 <= now <= later + 1


def test_redis_deletes_an_expired_document(
    store: RedisStore, client: redis.Redis, key: str
) -> None:
    assert store.save({}, tag="one", expected=None, ttl=50.0)
    assert 49_000 < client.pttl(f"{{{key}}}") <= 50_000
    assert store.save({}, tag="two", expected="one", ttl=1e300)
    assert client.pttl(f"{{{key}}}") > 1e12
    assert store.save({}, tag="three", expected="two", ttl=None)
    assert client.pttl(f"{{{key}}}") == -1


def test_a_lock_lapses_unless_it_is_extended(
    redis_server: RedisServer, client: redis.Redis, key: str
) -> None:
    lock = RedisStore(redis_server.url, key, lease=20).lock()
    assert lock.acquire(50)
    assert 10_000 < client.pttl(f"{{{key}}}:lock") <= 20_000
    client.pexpire(f"{{{key}}}:lock", 5_000)
    assert lock.confirm()
    assert 10_000 < client.pttl(f"{{{key}}}:lock") <= 20_000
    # An owner that repeats its request because an answer got lost has the lock.
    assert lock.take(client.get(f"{{{key}}}:lock").decode(), 15)
    assert 10_000 < client.pttl(f"{{{key}}}:lock") <= 15_000
    client.set(f"{{{key}}}:lock", "another")
    assert not lock.confirm()
    lock.release()
    assert client.get(f"{{{key}}}:lock") == b"another"


# Damage


def test_content_that_is_not_a_record_is_put_aside_and_reported(
    store: RedisStore, client: redis.Redis, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.rpush(f"{{{key}}}", "some", "list")
    client.expire(f"{{{key}}}", 1000)
    for _ in range(2):
        assert content_of(store) == (None, None)
    assert len(caplog.records) == 1
    save(store)
    (aside,) = client.keys(f"{{{key}}}:damaged-*")
    assert client.lrange(aside, 0, -1) == [b"some", b"list"]
    assert client.ttl(aside) == -1
    assert aside.decode() in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("document", '{"n": 2}'),
        ("document", None),
        ("format", None),
        ("format", "something/1"),
        ("sha1", "0"),
        ("tag", None),
        ("tag", b"\xff"),
    ],
)
def test_a_torn_record_is_put_aside(
    store: RedisStore, client: redis.Redis, key: str, field: str, value: Any
) -> None:
    save(store)
    record = f"{{{key}}}"
    if value is None:
        client.hdel(record, field)
    else:
        client.hset(record, field, value)
    torn = client.hgetall(record)
    assert content_of(store) == (None, None)
    save(store, 2)
    assert content_of(store) == ({"n": 2}, "tag 2")
    (aside,) = [
        name
        for name in client.scan_iter(count=1000)
        if name.startswith(f"{record}:damaged-".encode())
    ]
    assert client.hgetall(aside) == torn


@pytest.mark.parametrize("text", ["[1]", '"text"', "{", "[" * 100_000])
def test_a_document_that_is_no_object_is_no_record(
    store: RedisStore, client: redis.Redis, key: str, text: str
) -> None:
    from hashlib import sha1

    save(store)
    total = sha1(text.encode()).hexdigest()
    client.hset(f"{{{key}}}", mapping={"document": text, "sha1": total})
    assert content_of(store) == (None, None)
    save(store, 2)
    assert store.load().document == {"n": 2}


@pytest.mark.parametrize("is_hash", [True, False])
def test_a_record_that_appears_while_damage_is_put_aside_stays(
    store: RedisStore,
    client: redis.Redis,
    key: str,
    redis_server: RedisServer,
    is_hash: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_hash:
        client.hset(f"{{{key}}}", "some", "hash")
    else:
        client.set(f"{{{key}}}", "something else")
    other = RedisStore(redis_server.url, key)
    run = store._run

    def late(task: str, *arguments: Any) -> Any:
        if task.startswith("put aside"):
            save(other)
        return run(task, *arguments)

    monkeypatch.setattr(store, "_run", late)
    assert not store.save({"n": 2}, tag="two", expected=None, ttl=None)
    assert store.load().document == {"n": 1}


def test_a_newer_format_is_refused_and_left_alone(
    store: RedisStore, client: redis.Redis, key: str
) -> None:
    client.hset(f"{{{key}}}", mapping={"format": "tokenadapter/2", "tag": "t", "document": "?"})
    for attempt in (store.load, lambda: save(store)):
        with pytest.raises(StoreError, match="upgrade, or use another key"):
            attempt()
    assert client.hget(f"{{{key}}}", "document") == b"?"
