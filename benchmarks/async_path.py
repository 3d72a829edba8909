"""A request of httpx or aiohttp with a valid token

What token handling adds to a request when there is nothing to do, in instructions.

Each contender sends the same GET through all of its library: httpx with httpcore, blocking and
asynchronous, and aiohttp. Only the network is missing, as in the measurement above, which says how
instructions are counted.

The references are no token at all, a fixed header, and what one writes by hand: an `Auth` of httpx
or a middleware of aiohttp that sets the header, and does nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import aiohttp
import httpcore
import httpx
from hot_path import ANSWER, API, LIMIT, URL, instructions
from measuring import VALGRIND, Claim, Finding, Table, alone

from tokenadapter import TokenAuth, TokenMiddleware

SECRET = "0123456789abcdef" * 4
HEADERS = {"Authorization": f"Bearer {SECRET}"}
FIRST, FIXED, BY_HAND, OURS = "no token", "fixed header", "by hand", "tokenadapter"
KINDS = ("httpx, blocking", "httpx, asynchronous", "aiohttp")


class Stream(httpcore.NetworkStream):
    """A connection that takes everything, and has the same answer ready each time it is read."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return ANSWER

    def write(self, buffer: bytes, timeout: float | None = None) -> None: ...

    def close(self) -> None: ...

    def start_tls(self, *_: object, **__: object) -> Stream:
        return self

    def get_extra_info(self, info: str) -> Any:
        return None


class AsyncStream(httpcore.AsyncNetworkStream):
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return ANSWER

    async def write(self, buffer: bytes, timeout: float | None = None) -> None: ...

    async def aclose(self) -> None: ...

    async def start_tls(self, *_: object, **__: object) -> AsyncStream:
        return self

    def get_extra_info(self, info: str) -> Any:
        return None


class Backend(httpcore.NetworkBackend):
    def connect_tcp(self, *_: object, **__: object) -> Stream:
        return Stream()


class AsyncBackend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(self, *_: object, **__: object) -> AsyncStream:
        return AsyncStream()


class Transport(asyncio.Transport):
    """The same for aiohttp."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: Any) -> None:
        asyncio.get_running_loop().call_soon(self._protocol.data_received, ANSWER)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


class Unplugged(aiohttp.TCPConnector):
    async def _create_connection(self, *_: object, **__: object) -> Any:
        protocol = self._factory()
        protocol.connection_made(Transport(protocol))
        return protocol


class ByHand(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {SECRET}"
        yield request

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {SECRET}"
        yield request


async def by_hand(request: Any, handler: Any) -> Any:
    request.headers["Authorization"] = f"Bearer {SECRET}"
    return await handler(request)


def source(previous: object) -> str:
    return SECRET


def settings(name: str) -> dict[str, Any]:
    """What a client of httpx is made with."""
    auth = {BY_HAND: ByHand(), OURS: TokenAuth(API, source)}.get(name)
    return {"auth": auth, "headers": HEADERS if name == FIXED else None}


def blocking(name: str, count: int) -> None:
    transport = httpx.HTTPTransport()
    transport._pool = httpcore.ConnectionPool(network_backend=Backend())
    with httpx.Client(transport=transport, **settings(name)) as client:
        for _ in range(count):
            assert client.get(URL).status_code == 200


async def asynchronous(name: str, count: int) -> None:
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=AsyncBackend())
    async with httpx.AsyncClient(transport=transport, **settings(name)) as client:
        for _ in range(count):
            assert (await client.get(URL)).status_code == 200


async def of_aiohttp(name: str, count: int) -> None:
    middlewares = {BY_HAND: [by_hand], OURS: [TokenMiddleware(API, source)]}.get(name, [])
    headers = HEADERS if name == FIXED else None
    async with aiohttp.ClientSession(
        connector=Unplugged(), middlewares=middlewares, headers=headers
    ) as session:
        for _ in range(count):
            async with session.get(URL) as answer:
                await answer.read()
                assert answer.status == 200


RUNS: dict[str, Callable[[str, int], Awaitable[None] | None]] = dict(
    zip(KINDS, (blocking, asynchronous, of_aiohttp), strict=True)
)


def run(label: str, count: int) -> None:
    """What valgrind looks at."""
    gc.disable()
    kind, name = label.split("/")
    work = RUNS[kind](name, count)
    if work is not None:
        asyncio.run(work)  # type: ignore[arg-type]


def measure(quick: bool) -> Finding:
    names = (FIRST, FIXED, BY_HAND, OURS)
    labels = [f"{kind}/{name}" for kind in KINDS for name in names]
    if quick or shutil.which(VALGRIND[0]) is None:
        for label in labels:
            run(label, 2)
        return Finding([Table(["", "requests"], [[label, "2"] for label in labels])])
    # More of them: what an event loop does in between varies.
    counts = instructions(labels, "", layouts=4, few=50, many=450, script=__file__)
    rows, claims = [], []
    for kind in KINDS:
        least = counts[f"{kind}/{FIRST}"]
        for name in names:
            count = counts[f"{kind}/{name}"]
            rows.append([f"{kind}: {name}", f"{count:,.0f}", f"{count / least:.3f}"])
        more = counts[f"{kind}/{OURS}"] / least
        text = f"{kind}: at most {LIMIT} of the instructions without a token: {more:.4f}"
        claims.append(Claim(text, more <= LIMIT))
    return Finding([Table(["", "instructions", "to no token"], rows)], claims=claims)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], int(sys.argv[4]))
    else:
        alone(measure)
