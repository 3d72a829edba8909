"""A host may have addresses that do not answer.  A token comes in time if one address does."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partialmethod
from urllib.parse import urlsplit

import pytest
from behaviour.fidelity.proxy import SocksProxy
from urllib3.util.connection import HAS_IPV6

from tokenadapter import ClientCredentials, RefreshConfigError, RefreshTemporarilyFailed
from tokenadapter.sources import deadline
from tokenadapter.testing import TokenServer

# In seconds, of a source whose token comes, and of one that waits in vain.
ENOUGH, SHORT = 2.0, 0.3

Address = tuple[str, int]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Address]], None]:
    """Let the name host.test have the given addresses, each with a port of its own."""

    def resolve(addresses: list[Address]) -> None:
        found = [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                address,
            )
            for address in addresses
        ]
        real = socket.getaddrinfo

        def getaddrinfo(host: str, *args: object, **options: object) -> object:
            return found if host == "host.test" else real(host, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


@contextlib.contextmanager
def silent(host: str = "127.0.0.1") -> Iterator[Address]:
    """An address that answers no attempt to connect: its queue is full."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, 0))
        listener.listen(0)
        address = listener.getsockname()[:2]
        for _ in range(2):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(address)
        yield address


@pytest.fixture
def dead() -> Iterator[list[Address]]:
    with silent() as one, silent() as two, silent() as three:
        yield [one, two, three]


@pytest.fixture
def refused() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return "127.0.0.1", port


def living(server: TokenServer) -> Address:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def source(
    timeout: float = ENOUGH, url: str = "http://host.test/token", **proxies: str
) -> ClientCredentials:
    return ClientCredentials(
        url,
        client_id="client",
        client_secret="secret",
        timeout=timeout,
        allow_http=True,
        proxies=proxies,
    )


def failure(timeout: float, **proxies: str) -> RefreshTemporarilyFailed:
    with pytest.raises(RefreshTemporarilyFailed) as caught:
        source(timeout, **proxies)()
    assert caught.value.processed is False
    return caught.value


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_token_comes_although_addresses_before_the_living_one_are_dead(
    server: TokenServer, resolve: Callable[..., None], dead: list[Address], number: int
) -> None:
    resolve([*dead[:number], living(server)])
    assert source()()


def test_an_address_gets_a_fraction_of_a_second_before_the_next_is_tried(
    server: TokenServer,
    resolve: Callable[..., None],
    dead: list[Address],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    select = deadline.selectors.DefaultSelector.select

    def recorded(self: object, timeout: float) -> object:
        pauses.append(timeout)
        return select(self, timeout)  # type: ignore[arg-type]

    monkeypatch.setattr(deadline.selectors.DefaultSelector, "select", recorded)
    resolve([*dead, living(server)])
    assert source(1000.0)()
    assert pauses[:3] == [0.25, 0.25, 0.25]
    assert 0.25 < pauses[3] < 1000


def test_the_last_of_many_addresses_is_tried_in_time(
    server: TokenServer, resolve: Callable[..., None], dead: list[Address]
) -> None:
    # A quarter of a second for each would be longer than the timeout.
    resolve([*dead * 4, living(server)])
    assert source()()


def test_an_error_names_the_addresses_that_did_not_answer(
    resolve: Callable[..., None], dead: list[Address]
) -> None:
    resolve(dead)
    words = "connecting took too long for the total timeout of 0.3 s (tried 127.0.0.1, 127.0.0.1"
    assert words in str(failure(SHORT))


@pytest.mark.skipif(not HAS_IPV6, reason="needs IPv6 on loopback")
def test_the_families_of_addresses_take_turns(resolve: Callable[..., None]) -> None:
    with silent("::1") as one, silent("::1") as two, silent() as other:
        resolve([one, two, other])
        assert "(tried ::1, 127.0.0.1, ::1)" in str(failure(SHORT))


def test_no_other_address_is_tried_if_the_first_one_answers(
    server: TokenServer, resolve: Callable[..., None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        resolve([living(server), other.getsockname()])
        assert source()()
        with pytest.raises(BlockingIOError):
            other.accept()


def test_after_a_refusal_the_next_address_is_tried_at_once(
    server: TokenServer,
    resolve: Callable[..., None],
    refused: Address,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadline, "_PAUSE", 1000.0)
    # The second one is refused by this machine itself.
    resolve([refused, ("255.255.255.255", 1), living(server)])
    assert source(10_000.0)()


def test_an_error_says_why_no_address_was_reached(
    resolve: Callable[..., None], refused: Address
) -> None:
    resolve([refused, refused])
    assert "Connection refused" in str(failure(ENOUGH))
    resolve([])
    assert "getaddrinfo returns an empty list" in str(failure(ENOUGH))


def test_a_socket_is_made_as_urllib3_makes_it(
    server: TokenServer, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    init_poolmanager = deadline.DeadlineAdapter.init_poolmanager
    monkeypatch.setattr(
        deadline.DeadlineAdapter,
        "init_poolmanager",
        partialmethod(init_poolmanager, source_address=("127.0.0.5", 0)),
    )
    made: list[tuple[int, str]] = []
    connect = socket.socket.connect

    def recorded(self: socket.socket, address: Address) -> None:
        no_delay = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        made.append((no_delay, self.getsockname()[0]))
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", recorded)
    resolve([living(server)])
    assert source()()
    assert made == [(1, "127.0.0.5")]


def test_a_proxy_may_have_dead_addresses_too(
    server: TokenServer, resolve: Callable[..., None], dead: list[Address]
) -> None:
    resolve([*dead, living(server)])
    # The server does not know a whole URL as a path.
    with pytest.raises(RefreshConfigError, match="404"):
        source(url="http://id.example/token", http="http://host.test")()
    assert len(server.requests) == 1


def test_a_socks_proxy_takes_no_longer_than_the_timeout(
    resolve: Callable[..., None], dead: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(dead)
    given: list[float] = []

    def create_connection(*_: object, timeout: float, **__: object) -> None:
        given.append(timeout)
        raise TimeoutError("timed out")

    # PySocks may wait for so long for each address of the proxy.
    monkeypatch.setattr("socks.create_connection", create_connection)
    error = failure(10.0, http="socks5://host.test:1")
    assert "connecting took too long for the total timeout of 10 s" in str(error)
    assert 2.0 < given[0] < 10 / 3


def test_a_socks_proxy_is_used_as_ever(server: TokenServer) -> None:
    with SocksProxy() as proxy:
        assert source(url=server.token_url, http=proxy.url)()
        assert proxy.opened == 1
