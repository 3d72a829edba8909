"""RedisStore when something breaks: the line, the server, its memory, its role, its rights."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import trustme
from doubles import Authority
from redis.sentinel import Sentinel

from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.errors import StoreError
from tokenadapter.events import Event
from tokenadapter.stores.redis import RedisStore
from tokenadapter.testing.contract.terms import content_of

from .helpers import save
from .proxy import Proxy
from .servers import RedisServer, free_port


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that a test can do anything with: it forgets nothing that it has answered."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.socket) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy) -> Iterator[RedisStore]:
    """Its client asks a second time when an answer is lost, and then gives up."""
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", "billing")
    yield store
    store._client.close()


def restart(server: RedisServer) -> None:
    server.stop()
    server.start()


# Answers that get lost


def test_a_save_whose_answer_is_lost_is_repeated(store: RedisStore, proxy: Proxy) -> None:
    save(store)
    proxy.lose(1)
    assert store.save({"n": 2}, tag="tag 2", expected="tag 1", ttl=None)
    assert store.load().tag == "tag 2"


def test_a_save_whose_answers_are_all_lost_is_an_error_and_can_be_repeated(
    store: RedisStore, proxy: Proxy
) -> None:
    save(store)
    proxy.lose(1, 2)
    with pytest.raises(StoreError, match=r"cannot save the token: .*Nothing stored was lost"):
        store.save({"n": 2}, tag="tag 2", expected="tag 1", ttl=None)
    assert store.save({"n": 3}, tag="tag 2", expected="tag 1", ttl=None)
    assert content_of(store) == ({"n": 3}, "tag 2")


def test_a_lock_whose_answer_is_lost_is_taken(store: RedisStore, proxy: Proxy) -> None:
    lock, other = store.lock(), store.lock()
    proxy.lose(1)
    assert lock.acquire(30)
    assert not other.acquire(30)
    proxy.lose(1)
    assert lock.confirm()
    proxy.lose(1)
    lock.release()
    assert other.acquire(30)
    other.release()


def test_a_lock_whose_answers_are_all_lost_is_an_error_and_is_released(
    store: RedisStore, proxy: Proxy
) -> None:
    lock, other = store.lock(), store.lock()
    proxy.lose(1, 2)
    with pytest.raises(StoreError, match="cannot lock"):
        lock.acquire(30)
    assert not other.acquire(30)
    lock.release()
    assert other.acquire(30)
    other.release()


def test_spent_tokens_whose_answers_are_lost_are_remembered_once(
    store: RedisStore, proxy: Proxy, client: redis.Redis
) -> None:
    for digest, for_good in (("a", False), ("b", True), ("b", False)):
        proxy.lose(1)
        store.remember_spent(digest, for_good=for_good)
    assert store.was_spent("a")
    assert client.zcard("{billing}:spent") == 2
    client.zadd("{billing}:spent", {b"\xff": 1.0})
    assert not store.was_spent("c")


@pytest.mark.parametrize("number", range(1, 11))
def test_no_refresh_token_is_spent_twice_whichever_answers_are_lost(
    store: RedisStore, proxy: Proxy, number: int
) -> None:
    """A renewal asks Redis ten times.  Each time, the answers to all tries of the store but the
    keeper's second one are lost."""
    authority = Authority()
    keeper = TokenKeeper(authority, store)
    token = keeper.current()
    began = proxy.requested
    proxy.lose(number, number + 1)
    try:
        renewed = keeper.renew(token)
    except StoreError:
        renewed = keeper.renew(token)
    assert not token.is_same(renewed)
    assert renewed.is_same(TokenKeeper(authority, store).current())
    assert proxy.requested >= began + number + 1
    assert authority.presented == ["refresh-0", "refresh-1"]


# The server


def test_the_store_works_again_when_the_server_is_back(
    server: RedisServer, proxy: Proxy, store: RedisStore
) -> None:
    save(store)
    lock = store.lock()
    assert lock.acquire(30)
    server.stop()
    attempts: list[Callable[[], object]] = [
        store.load,
        lambda: save(store, 2, expected="tag 1"),
        lambda: store.lock().acquire(30),
        lambda: store.was_spent("hash"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="Check its address, and that it runs"):
            attempt()
    assert not lock.confirm()
    server.start()
    assert store.load().tag == "tag 1"
    assert lock.confirm()
    save(store, 2, expected="tag 1")
    lock.release()


def test_a_token_is_used_while_the_server_is_down_and_renewed_afterwards(
    server: RedisServer, store: RedisStore
) -> None:
    authority = Authority(lifetime=600)
    keeper = TokenKeeper(authority, store)
    token = keeper.current()
    server.stop()
    assert keeper.current().is_same(token)
    with pytest.raises(StoreError):
        keeper.renew(token)
    assert authority.presented == ["refresh-0"]
    server.start()
    assert not keeper.renew(token).is_same(token)
    assert authority.presented == ["refresh-0", "refresh-1"]


def test_a_process_writes_its_token_back_to_an_emptied_server(
    store: RedisStore, server: RedisServer
) -> None:
    authority = Authority()
    keeper, other = TokenKeeper(authority, store), TokenKeeper(authority, store)
    token = keeper.renew(keeper.current())
    assert other.current().is_same(token)
    with server.client() as client:
        client.flushall()
    # A process with the newest token continues to use it ...
    renewed = keeper.renew(token)
    assert not renewed.is_same(token)
    # ... and for all.
    assert other.renew(token).is_same(renewed)
    assert authority.presented == ["refresh-0", "refresh-1", "refresh-2"]


def test_a_store_that_reaches_a_replica_finds_the_primary(
    client: redis.Redis, store: RedisStore, proxy: Proxy
) -> None:
    save(store)
    client.config_set("replica-serve-stale-data", "yes")
    client.replicaof("127.0.0.1", free_port())
    assert store.load().tag == "tag 1"
    for attempt in (lambda: save(store, 2, expected="tag 1"), lambda: store.lock().acquire(30)):
        connections = proxy.connections
        with pytest.raises(StoreError, match="It is a replica: name the primary"):
            attempt()
        assert store.load().tag == "tag 1"
        assert proxy.connections == connections + 1


def test_without_memory_nothing_is_spent(client: redis.Redis, store: RedisStore) -> None:
    events: list[Event] = []
    authority = Authority()
    keeper = TokenKeeper(authority, store, on_event=events.append)
    token = keeper.current()
    client.config_set("maxmemory", 1)
    with pytest.raises(StoreError, match="more memory"):
        keeper.renew(token)
    assert authority.presented == ["refresh-0"]
    assert store.load().tag is not None
    client.config_set("maxmemory", 0)
    assert not keeper.renew(token).is_same(token)


def test_a_server_without_memory_for_the_save_loses_no_token(
    client: redis.Redis, store: RedisStore
) -> None:
    authority = Authority()
    keeper = TokenKeeper(authority, store)
    token = keeper.current()

    def serve_memory(event: Event) -> None:
        # The token could not be saved: the keeper tries again until it can.
        if type(event).__name__ == "SaveFailed":
            client.config_set("maxmemory", 0)

    keeper = TokenKeeper(authority, store, on_event=serve_memory)
    authority.asking = lambda: client.config_set("maxmemory", 1)
    renewed = keeper.renew(token)
    assert TokenKeeper(authority, store).renew(token).is_same(renewed)
    assert len(authority.presented) == 2


@pytest.mark.parametrize("name", ["lock", "spent"])
def test_a_key_that_holds_something_else_is_left_alone(
    client: redis.Redis, store: RedisStore, name: str
) -> None:
    client.hset(f"{{billing}}:{name}", "some", "hash")
    attempts: list[Callable[[], object]] = [lambda: store.lock().acquire(30)]
    if name == "spent":
        attempts = [lambda: store.remember_spent("a", for_good=True), lambda: store.was_spent("a")]
        attempts.append(lambda: store.remember_spent("a", for_good=False))
    for attempt in attempts:
        with pytest.raises(StoreError, match="Something else uses that key"):
            attempt()
    assert client.hgetall(f"{{billing}}:{name}") == {b"some": b"hash"}


# Rights

RIGHTS = (
    "~{billing}* +eval +type +hmget +hset +time +persist +pexpire +renamenx +set +get +del"
    " +zadd +zscore +zrange +zcount +zrevrangebyscore +zremrangebyrank"
)


def test_a_user_needs_no_more_rights_than_documented(
    server: RedisServer, client: redis.Redis
) -> None:
    client.execute_command("ACL SETUSER app on >s3cr3t", *RIGHTS.split())
    store = RedisStore(f"unix://app:s3cr3t@{server.socket}", "billing")
    client.set("{billing}", "something else")
    assert store.save({}, tag="one", expected=None, ttl=None)
    assert store.save({}, tag="two", expected="one", ttl=5)
    assert store.load().tag == "two"
    for number in range(40):
        store.remember_spent(f"{number}", for_good=number % 2 > 0)
    assert store.was_spent("39")
    lock = store.lock()
    assert lock.acquire(30)
    assert lock.confirm()
    lock.release()


@pytest.mark.parametrize(
    ("rights", "password", "advice"),
    [
        ("~* +@all -eval", "s3cr3t", "Allow this user EVAL"),
        ("~other* +@all", "s3cr3t", "Allow this user EVAL, and the keys"),
        ("~* +@all", "wr0ng", "Check the user and the password"),
    ],
)
def test_the_error_about_missing_rights_shows_no_password(
    server: RedisServer, client: redis.Redis, rights: str, password: str, advice: str
) -> None:
    client.execute_command("ACL SETUSER app on >s3cr3t", *rights.split())
    store = RedisStore(f"unix://app:{password}@{server.socket}", "billing")
    with pytest.raises(StoreError, match=advice) as caught:
        store.load()
    assert password not in str(caught.value)


def test_a_missing_password_is_an_error(client: redis.Redis, store: RedisStore) -> None:
    client.config_set("requirepass", "s3cr3t")
    with pytest.raises(StoreError, match="Check the user and the password"):
        store.load()


# Other ways to a server


def test_the_store_works_through_tls(server: RedisServer, tmp_path_factory: Any) -> None:
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with Proxy(server.socket, context) as proxy:
        url = f"rediss://localhost:{proxy.port}"
        store = RedisStore(f"{url}?ssl_ca_certs={file}", "billing")
        save(store)
        proxy.lose(1)
        assert store.load().tag == "tag 1"
        with pytest.raises(StoreError, match="certificate"):
            RedisStore(url, "billing").load()


def test_sentinel_finds_the_primary() -> None:
    with RedisServer(port=free_port()) as primary:
        text = f"sentinel monitor tokens 127.0.0.1 {primary.port} 1\n"
        with RedisServer(port=free_port(), sentinel=text) as watching:
            sentinel = Sentinel([("127.0.0.1", watching.port)])
            store = RedisStore(sentinel.master_for("tokens"), "billing")
            save(store)
            lock = store.lock()
            assert lock.acquire(30)
            assert not store.lock().acquire(30)
            lock.release()
            primary.stop()
            with pytest.raises(StoreError, match="Nothing stored was lost"):
                store.load()
            for client in sentinel.sentinels:
                client.close()


def test_a_redirection_of_a_cluster_names_the_client_for_it(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_: object, **__: object) -> None:
        raise redis.exceptions.MovedError("1234 127.0.0.1:7001")

    monkeypatch.setattr(type(store._client), "execute_command", moved)
    with pytest.raises(StoreError, match="pass a RedisCluster client"):
        store.load()


def test_the_error_names_the_client_for_a_cluster() -> None:
    options = ("--cluster-enabled", "yes")
    with RedisServer(*options) as server, pytest.raises(StoreError, match="the cluster is down"):
        RedisStore(server.url, "billing").load()
