"""A server starts, stops, and leaves nothing behind."""

from __future__ import annotations

import threading

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import TIMEOUT, ask, call, connect, ended, in_background


def test_stopping_leaves_no_thread_and_no_socket() -> None:
    before = set(threading.enumerate())
    with TokenServer() as server, requests.Session() as session:
        session.get(server.public_url, timeout=TIMEOUT)  # the connection stays open
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_stopping_does_not_wait_for_an_idle_connection() -> None:
    with TokenServer() as server:
        silent = connect(server)
        requests.get(server.public_url, timeout=TIMEOUT)  # the silent one is accepted by now
    assert silent.recv(1) == b""
    silent.close()


def test_stopping_waits_for_the_last_step_of_a_request() -> None:
    under_way, go_on = threading.Event(), threading.Event()
    steps = []

    def slow_clock() -> float:
        under_way.set()
        steps.append(go_on.wait(TIMEOUT))
        return 0.0

    with TokenServer(clock=slow_clock) as server:
        client = in_background(lambda: requests.get(server.public_url, timeout=TIMEOUT))
        assert under_way.wait(TIMEOUT)
        threading.Timer(0.05, go_on.set).start()
    assert steps == [True]
    assert ended(client)


def test_connections_that_have_ended_are_forgotten(server: TokenServer) -> None:
    for _ in range(20):
        requests.get(server.public_url, timeout=TIMEOUT, headers={"Connection": "close"})
    assert server._listener is not None
    assert len(server._listener._connections) < 20


@pytest.mark.parametrize("trouble", ["hang", "latency", "drip"])
def test_stopping_ends_a_request_in_progress(trouble: str) -> None:
    server = TokenServer().start()
    if trouble == "hang":
        server.fail_next(hang=True)
    elif trouble == "drip":
        server.fail_next(drip=3600)
    else:
        server.latency = 3600
    client = in_background(lambda: ask(server, grant_type="client_credentials"))
    server.wait_for(lambda stats: stats.token_requests == 1)
    server.stop()
    assert ended(client)


def test_a_held_request_is_not_processed_when_the_server_stops() -> None:
    server = TokenServer().start()
    with server.hold() as hold:
        client = in_background(lambda: ask(server, grant_type="client_credentials"))
        assert hold.arrived.wait(TIMEOUT)
        server.stop()
        assert ended(client)
    assert server.stats.renewals == 0


def test_a_restarted_server_keeps_its_port_and_state() -> None:
    server = TokenServer()
    with server:
        url, token = server.api_url, server.issue()
    with server:
        assert server.api_url == url
        assert call(server, token).ok


def test_stopping_twice_is_harmless_and_starting_twice_is_not() -> None:
    with TokenServer() as server:
        with pytest.raises(RuntimeError, match="running"):
            server.start()
        server.stop()
        server.stop()


def test_there_is_no_url_before_the_first_start() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        _ = TokenServer().token_url


def test_the_urls_are_on_loopback_and_the_prefixes_end_with_a_slash(server: TokenServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert server.token_url == f"{server.url}/token"
    assert server.revocation_url == f"{server.url}/revoke"
    assert server.api_url == f"{server.url}/api/"
    assert server.public_url == f"{server.url}/public/"
