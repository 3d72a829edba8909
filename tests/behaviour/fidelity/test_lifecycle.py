"""Adapters that are copied, pickled, passed to other processes, closed, and garbage-collected."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import ClientCredentials, FileStore, Token, TokenAdapter
from tokenadapter.testing import TokenServer

from .conftest import Way

# Of the cheapest kind, and a tenth of it of the others; "10000" finds what leaks slowly.
REPLAYS = int(os.environ.get("REPLAYS", "600"))


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


def numbered(previous: Token | None) -> str:
    return str(1 if previous is None else int(previous.access_token) + 1)


def open_files() -> int:
    gc.collect()
    return len([*Path("/proc/self/fd").iterdir()])


# --- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda adapter: pickle.loads(pickle.dumps(adapter))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("what", ["adapter", "session"])
def test_a_copy_has_the_settings_and_works(
    server: TokenServer, session: requests.Session, what: str, copied: Callable[[Any], Any]
) -> None:
    adapter = TokenAdapter(
        server.api_url, client(server), pool_block=True, pool_maxsize=3, max_replays=2
    ).mount(session)
    assert session.get(f"{server.api_url}x").ok
    twin = copied(adapter if what == "adapter" else session)
    if what == "session":
        twin, adapter = twin.get_adapter(server.api_url), session.get_adapter(server.api_url)
    assert isinstance(twin, TokenAdapter)
    assert twin.prefix == adapter.prefix
    assert twin.rules.max_replays == 2
    assert (twin._pool_block, twin._pool_maxsize) == (True, 3)
    assert twin.keeper is not adapter.keeper
    with requests.Session() as other:
        twin.mount(other)
        server.expire_now()
        assert other.put(f"{server.api_url}x", data=iter([b"body"])).ok


def test_a_pickle_has_no_token(server: TokenServer, session: requests.Session) -> None:
    adapter = TokenAdapter(server.api_url, Way(server).source()).mount(session)
    token = adapter.keeper.adopt(server.issue())
    assert token.refresh_token is not None
    for pickled in (pickle.dumps(adapter), pickle.dumps(session)):
        assert token.access_token.encode() not in pickled
        assert token.refresh_token.encode() not in pickled


class WithLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, previous: Token | None) -> str:
        return "token"


def plain(previous: Token | None) -> str:
    return "token"


@pytest.mark.parametrize("name", ["source", "on_refresh", "on_event"])
def test_an_object_that_cannot_be_pickled_is_named(name: str) -> None:
    settings: dict[str, Any] = {"source": plain, name: WithLock()}
    adapter = TokenAdapter("https://api.example.com/", **settings)
    with pytest.raises(pickle.PicklingError, match=f"The {name} of .* WithLock"):
        pickle.dumps(adapter)


def test_a_lambda_can_be_copied_and_not_pickled() -> None:
    adapter = TokenAdapter("https://api.example.com/", lambda previous: "token")
    assert copy.deepcopy(adapter).keeper.current().access_token == "token"
    with pytest.raises(pickle.PicklingError, match="The source of"):
        pickle.dumps(adapter)


def in_another_process(adapter: TokenAdapter, url: str, results: Any) -> None:
    with requests.Session() as session:
        adapter.mount(session)
        results.put(session.put(url, data=iter([b"body"])).json()["length"])


def test_an_adapter_can_be_handed_to_spawned_processes_that_share_its_token(
    server: TokenServer, session: requests.Session, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "state" / "token.json")
    adapter = TokenAdapter(server.api_url, client(server), store=store).mount(session)
    assert session.get(f"{server.api_url}x").ok
    server.expire_now()
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (adapter, f"{server.api_url}x", results)
    processes = [context.Process(target=in_another_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    lengths = [results.get() for _ in processes]
    for process in processes:
        process.join()
        process.close()
    assert lengths == [4, 4]
    assert session.get(f"{server.api_url}x").ok
    assert server.stats.token_requests == 2


# --- close, and use again ----------------------------------------------------------------------


def test_closing_closes_connections_and_the_next_request_opens_another(
    server: TokenServer, session: requests.Session
) -> None:
    adapter = TokenAdapter(server.api_url, client(server)).mount(session)
    for _ in range(3):
        server.expire_now()
        assert session.put(f"{server.api_url}x", data=b"body").ok
        adapter.close()
        adapter.close()
    assert len({r.peer for r in server.requests if r.path.startswith("/api/")}) == 3


def test_a_session_that_is_closed_can_be_used_again(
    server: TokenServer, session: requests.Session
) -> None:
    TokenAdapter(server.api_url, client(server)).mount(session)
    for _ in range(2):
        with session:
            server.expire_now()
            assert session.get(f"{server.api_url}x").ok


def test_closing_while_other_threads_send_fails_no_request(
    server: TokenServer, session: requests.Session
) -> None:
    adapter = TokenAdapter(server.api_url, client(server)).mount(session)
    statuses: list[int] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            statuses.append(session.get(f"{server.api_url}x").status_code)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for count in range(10, 100, 10):
        server.wait_for(lambda stats, count=count: stats.api_requests >= count)
        adapter.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


# --- forgotten, and leaking nothing ------------------------------------------------------------


def test_objects_of_a_replay_are_freed_without_garbage_collection(
    server: TokenServer,
) -> None:
    gc.collect()
    gc.disable()
    try:
        session = requests.Session()
        adapter = TokenAdapter(server.api_url, client(server)).mount(session)
        adapter.keeper.current()
        server.expire_now()
        answer = session.put(f"{server.api_url}x", data=iter([b"body"]))
        assert answer.history
        pools = list(adapter.poolmanager.pools._container.values())
        freed = [weakref.ref(each) for each in (adapter, *pools, answer)]
        session.close()
        del pools, adapter, answer, session
        assert [reference() for reference in freed] == [None] * len(freed)
    finally:
        gc.enable()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["generator", "large generator", "file"])
def test_replays_leak_no_descriptors(
    server: TokenServer, session: requests.Session, tmp_path: Path, kind: str, stream: bool
) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * 1000)
    make: Callable[[], Any] = {
        "generator": lambda: iter([b"bo", b"dy"]),
        # Recorded in a file.
        "large generator": lambda: iter([b"x" * 700_000] * 2),
        "file": lambda: path.open("rb"),
    }[kind]
    TokenAdapter(server.public_url, numbered).mount(session)

    def replay() -> None:
        server.fail_next(401, endpoint="public")
        body = make()
        with session.put(f"{server.public_url}x", data=body, stream=stream) as answer:
            assert answer.history
        getattr(body, "close", int)()

    session.get(f"{server.public_url}x")
    replay()
    before = open_files()
    for _ in range(REPLAYS if (kind, stream) == ("generator", False) else REPLAYS // 10):
        replay()
    server.stop()  # whose own descriptors of dropped connections may outlive them for a moment
    assert open_files() <= before


def test_failures_leak_no_descriptors(server: TokenServer, session: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    TokenAdapter(server.api_url, client(server)).mount(session)
    TokenAdapter(nobody, client(server)).mount(session)
    session.get(f"{server.api_url}x")

    def fail() -> None:
        with pytest.raises(requests.ConnectionError):
            session.put(nobody, data=iter([b"x" * 700_000] * 2))
        server.fail_next(401, endpoint="api", count=2)
        assert session.put(f"{server.api_url}x", data=iter([b"x"]), stream=True).status_code == 401

    fail()
    before = open_files()
    for _ in range(30):
        fail()
    server.stop()
    assert open_files() <= before
