"""Clients in other processes, and forks while the server runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import TIMEOUT, ask, connect, ended, in_background


def _hammer(api_url: str, access_token: str, rounds: int) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {access_token}"
        for _ in range(rounds):
            assert session.get(api_url, timeout=TIMEOUT).ok


def test_processes_are_served_by_url(server: TokenServer) -> None:
    token = server.issue()["access_token"]
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_hammer, args=(server.api_url, token, 20)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert server.stats.api_requests == 80
    assert len({request.peer for request in server.requests}) == 4


@contextlib.contextmanager
def forked_child() -> Iterator[None]:
    """A forked child that is there, and does nothing, until the block is left."""
    until, done = os.pipe()
    tell, born = os.pipe()
    child = os.fork()
    if not child:
        os.write(born, b"!")
        os.close(done)
        os.read(until, 1)
        os._exit(0)
    try:
        os.read(tell, 1)
        yield
    finally:
        for descriptor in (until, done, tell, born):
            os.close(descriptor)
        os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_neither_port_nor_connection_open() -> None:
    server = TokenServer().start()
    with connect(server) as connection:
        connection.sendall(b"GET /public/ HTTP/1.1\r\n\r\n")
        assert connection.recv(100)  # the connection is known to the server
        with forked_child():
            server.stop()
            assert b"".join(iter(lambda: connection.recv(65536), b""))  # comes to an end
            with pytest.raises(ConnectionRefusedError):
                connect(server)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("ending", ["drop", "reset"])
def test_a_lost_connection_is_noticed_while_a_forked_child_lives(
    server: TokenServer, ending: str
) -> None:
    server.fail_next(drop=ending == "drop", reset=ending == "reset")
    with server.hold() as hold:
        client = in_background(lambda: ask(server, grant_type="client_credentials"))
        assert hold.arrived.wait(TIMEOUT)
        with forked_child():
            hold.release()
            assert ended(client)
