"""A request ends in time whatever server and proxy do, and sends nothing too late.

Without a total time-out, a server that drips would keep a client waiting until the time limit for
tests.  The tests replace the clock, except where the system measures the time.
"""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from tokenadapter import RefreshTemporarilyFailed, RefreshToken
from tokenadapter.sources import deadline
from tokenadapter.sources.deadline import Deadline
from tokenadapter.testing import TokenServer

from .raw import answering, drip, wait_for_end


class Clock:
    """Stands in for the module time."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.asleep = 0.0

    def monotonic(self) -> float:
        return 500.0 + self.elapsed

    def time(self) -> float:
        return 1e9 + self.elapsed + self.asleep

    def tick(self) -> None:
        self.elapsed += 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


def failure(url: str, timeout: float = 10.0, **proxies: str) -> RefreshTemporarilyFailed:
    source = RefreshToken(
        url, "r3fresh", client_id="client", timeout=timeout, verify=False, proxies=proxies
    )
    with pytest.raises(RefreshTemporarilyFailed) as caught:
        source()
    return caught.value


# What a deadline is


def test_a_deadline_knows_how_many_seconds_are_left(clock: Clock) -> None:
    limit = Deadline(10)
    clock.elapsed = 4
    assert limit.left() == 6
    assert not limit.sending
    assert limit.begin_sending() == 6
    assert limit.sending


def test_nothing_is_sent_after_the_deadline(clock: Clock) -> None:
    limit = Deadline(10)
    clock.elapsed = 10
    with pytest.raises(TimeoutError):
        limit.begin_sending()
    assert not limit.sending


def test_nothing_is_sent_after_the_machine_slept(clock: Clock) -> None:
    limit = Deadline(10)
    clock.asleep = 10
    with pytest.raises(TimeoutError):
        limit.begin_sending()
    assert not limit.sending


def test_an_answer_is_read_although_the_wall_clock_was_set(clock: Clock) -> None:
    limit = Deadline(10)
    limit.begin_sending()
    clock.asleep = 3600
    assert limit.left() == 10


def test_a_wait_is_prolonged_only_for_the_answer_to_a_request_that_was_sent(clock: Clock) -> None:
    asked: list[float] = []

    def keep_waiting() -> bool:
        asked.append(clock.elapsed)
        return clock.elapsed < 30

    limit = Deadline(10, keep_waiting)
    clock.elapsed = 10
    with pytest.raises(TimeoutError):
        limit.left()
    assert asked == []
    clock.elapsed = 5
    limit.begin_sending()
    clock.elapsed = 10
    assert limit.left() == 1
    clock.elapsed = 10.5
    assert limit.left() == 0.5
    assert asked == [10]
    clock.elapsed = 30
    with pytest.raises(TimeoutError):
        limit.left()
    assert asked == [10, 30]


# Before the request is sent


def test_nothing_is_sent_if_connecting_takes_too_long(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect

    def connect_late(self: socket.socket, address: tuple[str, int]) -> None:
        clock.elapsed += 11
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_late)
    received = []
    with answering(lambda connection: received.append(connection.recv(1))) as address:
        source = RefreshToken(f"http://{address}/token", "r3fresh", client_id="client", timeout=10)
        [credential] = source.credentials(None)
        with pytest.raises(RefreshTemporarilyFailed) as caught:
            source.fetch(credential._replace(keep_waiting=lambda: True), None)
    assert received == [b""]
    assert caught.value.processed is False
    assert "connecting took too long for the total timeout of 10 s" in str(caught.value)


def test_a_tls_handshake_without_an_answer_ends_at_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/token"
        error = failure(url, timeout=0.2)
    assert error.processed is False
    assert "connecting took too long" in str(error)


def test_a_tls_handshake_that_drips_ends_at_the_timeout() -> None:
    def shake(connection: socket.socket) -> None:
        # The head of a record of 8 KiB, which then never gets complete.
        drip(connection, b"\x16\x03\x03\x20\x00", b"\0", lambda: time.sleep(0.02))

    with answering(shake) as address:
        error = failure(f"https://{address}/token", timeout=0.2)
    assert error.processed is False
    assert "connecting took too long" in str(error)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 Connected\r\nX-Drip: "])
def test_a_proxy_that_drips_while_it_opens_the_tunnel_ends_at_the_deadline(
    clock: Clock, start: bytes
) -> None:
    with answering(lambda proxy: drip(proxy, start, b"x", clock.tick)) as address:
        error = failure("https://id.example/token", https=f"http://{address}")
    assert error.processed is False
    assert "connecting took too long" in str(error)


def test_a_tls_handshake_through_a_proxy_ends_at_the_timeout() -> None:
    def tunnel(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        wait_for_end(connection)

    with answering(tunnel) as address:
        error = failure("https://id.example/token", timeout=0.2, https=f"http://{address}")
    assert error.processed is False


# After it was sent


def test_a_request_without_an_answer_ends_at_the_deadline(server: TokenServer) -> None:
    server.fail_next(hang=True)
    error = failure(server.token_url, timeout=1.0)
    assert error.processed is None
    assert "answering took too long for the total timeout of 1 s" in str(error)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Drip: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        b'HTTP/1.0 200 OK\r\n\r\n{"access_token": "abc"}',
        b"HTTP/1.1 100 Continue\r\nX-Drip: ",
    ],
    ids=["head", "body", "chunk", "until-close", "continue"],
)
@pytest.mark.parametrize("over", ["http", "https"])
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_an_answer_that_drips_ends_at_the_deadline(
    clock: Clock, tls: ssl.SSLContext, over: str, head: bytes
) -> None:
    def answer(connection: socket.socket) -> None:
        if over == "https":
            connection = tls.wrap_socket(connection, server_side=True)
        with connection:
            connection.recv(65536)
            drip(connection, head, b" ", clock.tick)

    with answering(answer) as address:
        error = failure(f"{over}://{address}/token")
    assert error.processed is None
    assert "answering took too long for the total timeout of 10 s" in str(error)
