"""The middleware for aiohttp, against a real server."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import pickle
import socket
import subprocess
import sys
import threading
import tracemalloc
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tokenadapter import (
    ReauthRequired,
    Token,
    TokenAuth,
    TokenError,
    TokenKeeper,
    TokenMiddleware,
    expired_on,
)
from tokenadapter.http.exchange import Verdict
from tokenadapter.testing import TokenServer
from unit.clients.served import SECRET, client_credentials, fixed, source, tokens_sent, told

DATA = bytes(range(256)) * 1000
SHA = hashlib.sha256(DATA).hexdigest()


class Client:
    """A session whose requests are awaited one after the other, with their answers read."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.sessions: list[aiohttp.ClientSession] = []

    def __call__(self, tokens: Any, **settings: Any) -> Callable[..., Any]:
        return self.run(self._made(tokens, settings))

    async def _made(self, tokens: Any, settings: dict[str, Any]) -> Callable[..., Any]:
        session = aiohttp.ClientSession(middlewares=[tokens], **settings)
        self.sessions.append(session)

        async def ask(*args: Any, **how: Any) -> Any:
            async with session.request(*args, **how) as response:
                await response.read()
                return response

        return lambda *args, **how: self.run(ask(*args, **how))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def close(self) -> None:
        for session in self.sessions:
            await session.close()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.run(client.close())
    client.runner.close()


def json_of(response: Any) -> Any:
    import json

    return json.loads(response._body)


# --- attach, renew, replay ---------------------------------------------------------------------


def test_requests_are_signed(client: Client, server: TokenServer) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    assert client(tokens)("GET", f"{server.api_url}x").status == 200
    assert tokens_sent(server) == [f"Bearer {tokens.keeper.current().access_token}"]


def test_a_revoked_token_is_renewed_and_the_request_replayed(
    client: Client, server: TokenServer
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    request = client(tokens)
    request("GET", f"{server.api_url}x")
    server.expire_now()
    answer = request("PUT", f"{server.api_url}x?y=1", data=b"whole body", headers={"X-Mine": "1"})
    echo = json_of(answer)
    assert (echo["method"], echo["query"], echo["length"]) == ("PUT", "y=1", 10)
    assert echo["headers"]["x-mine"] == "1"
    assert answer.history == ()
    assert server.stats.renewals == 2
    assert tokens.keeper.stats["Replayed"] == 1
    peers = {one.peer for one in server.requests if one.path.startswith("/api/")}
    assert len(peers) == 1, "the refusal was not read to its end"


def test_a_refusal_is_handed_on_if_a_new_token_is_refused_too(
    client: Client, server: TokenServer
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    request = client(tokens)
    server.fail_next(401, endpoint="api", count=None, body={"why": "never"})
    answer = request("GET", f"{server.api_url}x")
    assert (answer.status, json_of(answer)) == (401, {"why": "never"})
    assert server.stats.renewals == 1
    assert tokens.keeper.stats["HandedOn"] == 1


def test_a_refusal_that_no_renewal_helps_is_handed_on_at_once(
    client: Client, server: TokenServer
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    request = client(tokens)
    for status, challenge in (
        (403, 'Bearer error="insufficient_scope", scope="more"'),
        (401, 'Bearer error="insufficient_user_authentication", acr_values="high"'),
        (401, 'Basic realm="x"'),
    ):
        headers = {"WWW-Authenticate": challenge}
        server.fail_next(status, endpoint="api", headers=headers)
        assert request("GET", f"{server.api_url}x").status == status
    assert server.stats.renewals == 1
    assert tokens.keeper.stats["StepUpNeeded"] == 2


def test_max_replays_0_renews_and_hands_the_refusal_on(client: Client, server: TokenServer) -> None:
    request = client(TokenMiddleware(server.api_url, source(server), max_replays=0))
    request("GET", f"{server.api_url}x")
    server.expire_now()
    refused = request("GET", f"{server.api_url}x")
    assert (refused.status, json_of(refused)) == (401, {"error": "invalid_token"})
    assert request("GET", f"{server.api_url}x").status == 200
    assert server.stats.renewals == 2


def test_a_keeper_is_shared_with_other_clients(client: Client, server: TokenServer) -> None:
    keeper = TokenKeeper(source(server))
    auth = TokenAuth(server.api_url, keeper)
    request = client(TokenMiddleware(server.api_url, auth.keeper))
    request("GET", f"{server.api_url}x")
    assert tokens_sent(server) == [f"Bearer {keeper.current().access_token}"]


def test_header_and_scheme_and_attach_put_the_token_where_the_api_wants_it(client: Client) -> None:
    with TokenServer(header="X-Api-Key", scheme="") as server:
        request = client(
            TokenMiddleware(server.api_url, source(server), header="X-Api-Key", scheme="")
        )
        assert request("GET", f"{server.api_url}x").status == 200

        def attach(request: Any, token: Token) -> None:
            request.headers["X-Api-Key"] = token.access_token
            request.url = request.url.update_query(key=token.access_token)

        tokens = TokenMiddleware(server.api_url, source(server), attach=attach)
        request = client(tokens)
        request("GET", f"{server.api_url}x")
        server.expire_now()
        answer = request("GET", f"{server.api_url}x?y=1")
        secret = tokens.keeper.current().access_token
        assert answer.status == 200
        assert json_of(answer)["query"] == f"y=1&key={secret}"
        assert str(answer.url) == f"{server.api_url}x?y=1"
        assert secret not in f"{answer.request_info} {answer!r}"


def test_no_error_shows_a_token_that_attach_put_into_the_url(client: Client) -> None:
    """Neither that of an answer that is not HTTP, nor that of a connection that takes too long."""

    def attach(request: Any, token: Token) -> None:
        request.url = request.url.update_query(key=token.access_token)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"no HTTP\r\n\r\n")
        writer.close()

    async def main() -> list[Exception]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        tokens = TokenMiddleware(url, fixed, attach=attach)
        full = aiohttp.TCPConnector(limit=1)
        at_once = aiohttp.ClientTimeout(connect=0.001)
        async with (
            server,
            full,
            aiohttp.ClientSession(middlewares=[tokens], connector=full) as session,
        ):
            with pytest.raises(aiohttp.ClientResponseError) as answered:
                await session.get(url)
            full._available_connections = lambda key: 0  # type: ignore[method-assign]
            with pytest.raises(aiohttp.ConnectionTimeoutError, match=url) as timed_out:
                await session.get(url, timeout=at_once)
        return [answered.value, timed_out.value]

    for error in client.run(main()):
        assert SECRET not in f"{error!r} {error} {vars(error)}"


def test_a_middleware_below_may_take_the_header_away(client: Client, server: TokenServer) -> None:
    async def bare(request: Any, handler: Any) -> Any:
        del request.headers["Authorization"]
        return await handler(request)

    tokens = TokenMiddleware(server.api_url, fixed)
    request = client(tokens)
    answer = request("GET", f"{server.api_url}x", middlewares=[tokens, bare])
    assert answer.status == 401


def test_an_authorization_of_the_caller_is_replaced_unless_disabled(
    client: Client, server: TokenServer
) -> None:
    mine = {"Authorization": "Bearer mine"}
    request = client(TokenMiddleware(server.api_url, fixed))
    answer = request("GET", f"{server.api_url}x", headers=mine)
    assert answer.request_info.headers["Authorization"] == "Bearer mine"
    request = client(TokenMiddleware(server.api_url, fixed, override_auth=False))
    request("GET", f"{server.api_url}x", headers=mine)
    request("GET", f"{server.api_url}x")
    assert tokens_sent(server)[0] == f"Bearer {SECRET}"
    assert tokens_sent(server)[-2:] == ["Bearer mine", f"Bearer {SECRET}"]


def test_cookies_of_a_refusal_are_kept_and_honoured_in_the_replay(
    client: Client, server: TokenServer
) -> None:
    jar = client.run(_jar())
    request = client(TokenMiddleware(server.api_url, source(server)), cookie_jar=jar)
    request("GET", f"{server.api_url}x", cookies={"a": "1", "b": "1"})
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": "b=2; Path=/"})
    answer = request("GET", f"{server.api_url}x", cookies={"a": "1", "b": "1"})
    assert {*json_of(answer)["headers"]["cookie"].split("; ")} == {"a=1", "b=2"}
    assert {cookie.key: cookie.value for cookie in jar} == {"b": "2"}


async def _jar() -> aiohttp.CookieJar:
    return aiohttp.CookieJar(unsafe=True)  # for an address without a name


# --- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_a_verdict_of_ones_own_is_given_the_response(
    client: Client, server: TokenServer, is_async: bool
) -> None:
    async def looks(response: aiohttp.ClientResponse) -> bool:
        return (await response.json()).get("error") == "dead"

    def glances(response: aiohttp.ClientResponse) -> bool:
        return response.status == 419

    verdict = looks if is_async else glances
    request = client(TokenMiddleware(server.api_url, source(server), verdict=verdict))
    request("GET", f"{server.api_url}x")
    server.fail_next(419, endpoint="api", body={"error": "dead"})
    assert request("GET", f"{server.api_url}x").status == 200
    assert server.stats.renewals == 2


@pytest.mark.parametrize("how", ["read", "stream"])
def test_a_verdict_looks_into_json_that_the_caller_can_still_read(
    client: Client, server: TokenServer, how: str
) -> None:
    verdict = expired_on(status=[200, 403], json={"error.code": "expired"})
    tokens = TokenMiddleware(server.api_url, source(server), verdict=verdict)

    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=[tokens]) as session:
            await session.get(f"{server.api_url}x")
            server.fail_next(403, endpoint="api", body={"error": {"code": "expired"}})
            assert (await session.get(f"{server.api_url}x")).status == 200
            for body in ({"error": {"code": "forbidden"}}, {"long": "x" * 200_000}):
                server.fail_next(403, endpoint="api", body=body)
                async with session.get(f"{server.api_url}x") as answer:
                    if how == "stream":
                        chunks = [chunk async for chunk in answer.content.iter_any()]
                        answer._body = b"".join(chunks)
                    assert (answer.status, await answer.json()) == (403, body)

    client.run(main())
    assert server.stats.renewals == 2


def test_a_proof_that_was_refused_is_sent_again_once(client: Client, server: TokenServer) -> None:
    verdict = lambda response: Verdict.SEND_AGAIN if response.status == 401 else False  # noqa: E731
    request = client(TokenMiddleware(server.api_url, source(server), verdict=verdict))
    server.fail_next(401, endpoint="api", count=3)
    assert request("GET", f"{server.api_url}x").status == 401
    assert server.stats.renewals == 1
    assert len(tokens_sent(server)) == 2


def test_several_challenges_are_read_as_one(client: Client) -> None:
    """A challenge for a password does not hide the one for a token."""
    answers = iter([401, 200])

    async def answer(request: web.Request) -> web.Response:
        response = web.Response(status=next(answers))
        if response.status == 401:
            for challenge in ('Basic realm="x"', "Bearer"):
                response.headers.add("WWW-Authenticate", challenge)
        return response

    async def main() -> int:
        async with serving(answer) as url:
            tokens = TokenMiddleware(url, lambda previous: {"access_token": "a"})
            await tokens.keeper.acurrent()
            async with aiohttp.ClientSession(middlewares=[tokens]) as session:
                return (await session.get(url)).status

    assert client.run(main()) == 200


def test_a_refusal_that_decodes_to_much_is_not_decoded(client: Client) -> None:
    bomb = zlib.compressobj(wbits=31)
    body = b"".join(bomb.compress(bytes(1024 * 1024)) for _ in range(200)) + bomb.flush()

    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] == "Bearer new":
            return web.Response(text="good")
        return web.Response(status=401, body=body, headers={"Content-Encoding": "gzip"})

    async def main() -> str:
        names = iter(["old", "new"])
        async with serving(answer) as url:
            tokens = TokenMiddleware(url, lambda previous: {"access_token": next(names)})
            await tokens.keeper.acurrent()
            async with (
                aiohttp.ClientSession(middlewares=[tokens]) as session,
                session.get(url) as got,
            ):
                return await got.text()

    tracemalloc.start()
    try:
        assert client.run(main()) == "good"
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


# --- bodies ------------------------------------------------------------------------------------


async def generator() -> AsyncIterator[bytes]:
    for at in range(0, len(DATA), 10_000):
        await asyncio.sleep(0)
        yield DATA[at : at + 10_000]


async def one_buffer() -> AsyncIterator[memoryview]:
    """It reads each chunk into the same memory."""
    buffer = bytearray(10_000)
    for at in range(0, len(DATA), 10_000):
        chunk = DATA[at : at + 10_000]
        buffer[: len(chunk)] = chunk
        yield memoryview(buffer)[: len(chunk)]


class Pipe(io.RawIOBase):
    """A file that cannot be rewound."""

    def __init__(self) -> None:
        self.file = io.BytesIO(DATA)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)


def opened(folder: Path) -> Any:
    path = folder / "body"
    path.write_bytes(DATA)
    return path.open("rb")


def multipart(part: Any) -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("form-data", boundary="b")
    writer.append(b"1")
    writer.append(part)
    return writer


def form() -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("f", io.BytesIO(DATA), filename="n")
    form.add_field("a", "1")
    return form


# For each body, its sha256 if it does not depend on a boundary that is made up.
BODIES: dict[str, tuple[Callable[[Path], Any], str | None]] = {
    "bytes": (lambda _: DATA, SHA),
    "text": (lambda _: DATA.decode("latin-1"), None),
    "form": (lambda _: {"a": "1"}, hashlib.sha256(b"a=1").hexdigest()),
    "file": (opened, SHA),
    "bytes in memory": (lambda _: io.BytesIO(DATA), SHA),
    "pipe": (lambda _: Pipe(), SHA),
    "async generator": (lambda _: generator(), SHA),
    "async generator of one buffer": (lambda _: one_buffer(), SHA),
    "multipart": (lambda _: form(), None),
    "multipart file": (lambda folder: multipart(opened(folder)), None),
    "multipart async generator": (lambda _: multipart(generator()), None),
}


@pytest.mark.parametrize("state", ["valid", "expired", "revoked"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_arrives_whole(
    client: Client, server: TokenServer, tmp_path: Path, kind: str, state: str
) -> None:
    request = client(TokenMiddleware(server.api_url, source(server)))
    make, sha = BODIES[kind]
    if state != "expired":
        request("GET", f"{server.api_url}x")
    if state == "revoked":
        server.expire_now()
    answer = request("POST", f"{server.api_url}x", data=make(tmp_path))
    assert answer.status == 200
    sent = [one for one in server.requests if one.method == "POST" and "/api/" in one.path]
    assert [one.status for one in sent] == [401, 200] if state == "revoked" else [200]
    assert len({one.sha256 for one in sent}) == 1
    if sha is not None:
        assert sent[0].sha256 == sha
    else:
        assert json_of(answer)["length"] > len(DATA)


@pytest.mark.parametrize("limit", [0, 1000])
@pytest.mark.parametrize("kind", ["async generator", "multipart async generator", "pipe"])
def test_a_body_that_cannot_be_replayed_in_full_is_not_sent_again(
    client: Client, server: TokenServer, tmp_path: Path, kind: str, limit: int
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server), replay_limit=limit)
    request = client(tokens)
    request("GET", f"{server.api_url}x")
    server.expire_now()
    answer = request("POST", f"{server.api_url}x", data=BODIES[kind][0](tmp_path))
    assert (answer.status, json_of(answer)) == (401, {"error": "invalid_token"})
    sent = [one for one in server.requests if one.method == "POST" and "/api/" in one.path]
    assert len(sent) == 1
    assert sent[0].length >= len(DATA)
    assert server.stats.renewals == 2
    assert tokens.keeper.stats["HandedOn"] == 1


def test_a_content_length_of_the_callers_own_stays(client: Client, server: TokenServer) -> None:
    request = client(TokenMiddleware(server.api_url, source(server)))
    request("GET", f"{server.api_url}x")
    server.expire_now()
    headers = {"Content-Length": str(len(DATA))}
    answer = request("POST", f"{server.api_url}x", data=generator(), headers=headers)
    assert json_of(answer)["sha256"] == SHA
    assert json_of(answer)["headers"]["content-length"] == str(len(DATA))


def test_an_error_of_a_body_reaches_the_caller(client: Client, server: TokenServer) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("the body broke")

    request = client(TokenMiddleware(server.api_url, source(server)))
    with pytest.raises(aiohttp.ClientError, match="the body broke"):
        request("POST", f"{server.api_url}x", data=broken())


def test_a_body_that_waits_for_what_was_cancelled_ends_the_request(
    client: Client, server: TokenServer
) -> None:
    async def waiting() -> AsyncIterator[bytes]:
        yield b"a"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.cancel()
        yield await future

    request = client(TokenMiddleware(server.api_url, source(server)))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        request("POST", f"{server.api_url}x", data=waiting(), timeout=aiohttp.ClientTimeout(10))


class serving:  # noqa: N801
    """A server of aiohttp with one handler, and the URL that leads to it."""

    def __init__(self, handler: Any) -> None:
        self.app = web.Application()
        self.app.router.add_route("*", "/{tail:.*}", handler)
        self.runner = web.AppRunner(self.app)

    async def __aenter__(self) -> str:
        await self.runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self.runner, listener).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


@pytest.mark.parametrize("kind", ["async generator", "file", "pipe"])
def test_an_early_refusal_leaves_the_rest_of_the_body_for_the_replay(
    client: Client, tmp_path: Path, kind: str
) -> None:
    """The server refuses by the headers alone, while the body is still being sent."""
    lengths: list[int] = []
    big = DATA * 40  # more than the buffers of the sockets take

    async def many() -> AsyncIterator[bytes]:
        for at in range(0, len(big), 100_000):
            await asyncio.sleep(0)
            yield big[at : at + 100_000]

    def body() -> Any:
        if kind == "async generator":
            return many()
        path = tmp_path / "big"
        path.write_bytes(big)
        if kind == "file":
            return path.open("rb")
        pipe = Pipe()
        pipe.file = io.BytesIO(big)
        return pipe

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"Bearer new" in head:
            received = b""
            if b"chunked" in head.lower():
                while size := int(await reader.readline(), 16):
                    received += await reader.readexactly(size)
                    await reader.readline()
                await reader.readline()
            else:
                received = await reader.readexactly(len(big))
            lengths.append(len(received))
            assert received == big
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
            with suppress(ConnectionError):
                await writer.drain()
                await reader.read()  # until the client hangs up: only what is under way is read
        writer.close()

    async def main() -> int:
        names = iter(["old", "new"])
        server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1000)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        tokens = TokenMiddleware(url, lambda previous: {"access_token": next(names)})
        await tokens.keeper.acurrent()
        async with (
            server,
            aiohttp.ClientSession(middlewares=[tokens]) as session,
            session.post(url, data=body()) as answer,
        ):
            return answer.status

    assert client.run(main()) == 200
    assert lengths == [len(big)]


def test_an_early_answer_that_is_no_refusal_ends_no_body(client: Client) -> None:
    """Bodies go both ways at once: the recording may not be dropped with the answer's headers."""

    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    async def main() -> None:
        async with serving(echo) as url:
            tokens = TokenMiddleware(url, fixed)
            heard = asyncio.Event()

            async def talk() -> AsyncIterator[bytes]:
                yield b"first"
                await heard.wait()
                yield b"last"

            async with (
                aiohttp.ClientSession(middlewares=[tokens]) as session,
                session.post(url, data=talk()) as answer,
            ):
                assert await answer.content.readany() == b"first"
                heard.set()
                assert await answer.content.read() == b"last"

    client.run(main())


def test_a_body_that_waits_for_100_continue_is_replayed(client: Client) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        answer = b"401 No"
        if b"Bearer new" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await reader.readexactly(1000) == b"x" * 1000
            answer = b"200 OK"
        writer.write(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def main() -> int:
        names = iter(["old", "new"])
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        tokens = TokenMiddleware(url, lambda previous: {"access_token": next(names)})
        await tokens.keeper.acurrent()
        async with (
            server,
            aiohttp.ClientSession(middlewares=[tokens]) as session,
            session.post(url, data=b"x" * 1000, expect100=True) as answer,
        ):
            return answer.status

    assert client.run(main()) == 200


# --- where the token goes ----------------------------------------------------------------------


def test_nothing_that_a_caller_sees_has_the_token(client: Client, server: TokenServer) -> None:
    tokens = TokenMiddleware(server.api_url, fixed)
    request = client(tokens)
    answer = request("GET", f"{server.api_url}x")
    assert told(server)[-1] == ("/api/x", True)
    assert SECRET not in f"{answer.request_info} {answer!r} {tokens!r} {vars(tokens)}"
    server.fail_next(500, endpoint="api")
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        request("GET", f"{server.api_url}x", raise_for_status=True)
    assert SECRET not in f"{caught.value!r} {caught.value}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    request = client(TokenMiddleware(url, fixed))
    with pytest.raises(aiohttp.ClientConnectorError) as refused:
        request("GET", url)
    assert SECRET not in f"{refused.value!r} {refused.value}"


def test_each_hop_of_a_redirect_is_compared_with_the_prefix(
    client: Client, server: TokenServer, other: TokenServer
) -> None:
    tokens = TokenMiddleware(f"{server.api_url}redirect", source(server))
    request = client(tokens)
    for target, gets_it in (
        (f"{server.api_url}redirect/y", True),
        (f"{server.api_url}other", False),
        (f"{server.api_url}redirect-too", False),
        (f"{other.api_url}redirect/y", False),
        (f"{server.api_url}redirect/%2e%2e/y", False),
    ):
        since, there = len(server.requests), len(other.requests)
        for status in (302, 307):
            how = {"to": target, "status": str(status)}
            answer = request("GET", f"{server.api_url}redirect", params=how)
            assert [past.status for past in answer.history] == [status]
            secret = tokens.keeper.current().access_token
            assert secret not in f"{answer.request_info} {answer.history[0].request_info}"
        heard = [*server.requests[since:], *other.requests[there:]]
        heard = [one for one in heard if one.path.startswith("/api/")]
        assert len(heard) == 4
        signed = ["authorization" in one.headers for one in heard if one.path != "/api/redirect"]
        assert signed == [gets_it, gets_it]


def test_a_hop_that_leads_back_under_the_prefix_is_signed(
    client: Client, server: TokenServer, other: TokenServer
) -> None:
    request = client(TokenMiddleware(server.api_url, source(server)))
    mine = {"Authorization": f"Bearer {other.issue()['access_token']}"}
    answer = request("GET", f"{other.api_url}redirect?to={server.api_url}x", headers=mine)
    assert (answer.status, len(answer.history)) == (200, 1)
    assert len(server.requests) == 2


def test_a_request_to_the_token_endpoint_is_not_signed(client: Client, server: TokenServer) -> None:
    request = client(TokenMiddleware(server.url, client_credentials(server)))
    request("GET", f"{server.api_url}x")
    form = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "secret"}
    assert request("POST", server.token_url, data=form).status == 200
    assert "authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    ("prefix", "host"),
    [
        ("https://api.example.com/", "api.example.com?x.evil.example"),
        ("https://api.example.com/", "api.example.com#x.evil.example"),
        ("https://api.example.com/", "api.example.com/x.evil.example"),
        # The resolver of Python looks up strasse.example.
        ("https://straße.example/", "straße.example"),
    ],
)
def test_a_host_that_is_not_the_one_in_the_text_of_the_url_gets_no_token(
    client: Client, prefix: str, host: str
) -> None:
    headers: list[str] = []

    async def seen(request: Any, handler: Any) -> Any:
        headers.append(f"{request.headers}")
        raise aiohttp.ClientError

    tokens = TokenMiddleware(prefix, fixed)
    request = client(tokens)
    for built in (
        URL.build(scheme="https", host="api.example.com", path="/"),
        URL.build(scheme="https", host=host, path="/", encoded=True),
    ):
        with pytest.raises(aiohttp.ClientError):
            request("GET", built, middlewares=[tokens, seen])
    assert SECRET not in headers[-1]
    assert (SECRET in headers[0]) is (prefix == "https://api.example.com/")


def test_a_host_header_of_another_host_gets_no_token(client: Client, server: TokenServer) -> None:
    request = client(TokenMiddleware(server.api_url, fixed))
    request("GET", f"{server.api_url}x", headers={"Host": "evil.example"})
    assert told(server) == [("/api/x", False)]


def test_a_plain_prefix_on_this_machine_is_reached_without_a_proxy(
    client: Client, server: TokenServer, other: TokenServer
) -> None:
    request = client(TokenMiddleware(server.api_url, fixed))
    request("GET", f"{server.api_url}x", proxy=other.url)
    assert told(server) == [("/api/x", True)]
    assert len(other.requests) == 0


def test_a_websocket_is_signed(client: Client) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("hello")
        await socket.close()
        return socket

    async def main() -> list[str]:
        async with serving(talk) as url:
            tokens = TokenMiddleware(url, fixed)
            async with aiohttp.ClientSession(middlewares=[tokens]) as session:
                heard = []
                for scheme in ("ws", "http"):
                    async with session.ws_connect(url.replace("http", scheme)) as talking:
                        heard.append(await talking.receive_str())
                return heard

    assert client.run(main()) == ["hello", "hello"]


# --- errors, and how it is made ----------------------------------------------------------------


def test_an_error_is_one_of_aiohttp_too(client: Client, server: TokenServer) -> None:
    request = client(TokenMiddleware(server.api_url, source(server)))
    server.fail_next(400, error="invalid_grant")
    with pytest.raises(aiohttp.ClientError) as caught:
        request("POST", f"{server.api_url}x", data=generator())
    assert isinstance(caught.value, ReauthRequired)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), aiohttp.ClientError)


def test_a_renewal_that_fails_after_a_refusal_is_an_error_with_the_refusal(
    client: Client, server: TokenServer
) -> None:
    request = client(TokenMiddleware(server.api_url, source(server)))
    request("GET", f"{server.api_url}x")
    server.expire_now()
    server.fail_next(400, error="invalid_grant")
    with pytest.raises(aiohttp.ClientError) as caught:
        request("GET", f"{server.api_url}x")
    assert isinstance(caught.value, TokenError)
    assert caught.value.response.status == 401  # type: ignore[attr-defined, union-attr]


def test_a_token_type_that_is_not_bearer_is_an_error(client: Client, server: TokenServer) -> None:
    token = {"access_token": SECRET, "token_type": "mac"}
    request = client(TokenMiddleware(server.api_url, lambda previous: token))
    with pytest.raises(aiohttp.ClientError, match="mac") as caught:
        request("GET", f"{server.api_url}x")
    assert isinstance(caught.value, TokenError)


def test_a_middleware_survives_pickle(client: Client, server: TokenServer, tmp_path: Path) -> None:
    tokens = TokenMiddleware(server.api_url, client_credentials(server), store=str(tmp_path / "t"))
    twin = pickle.loads(pickle.dumps(tokens))
    assert client(twin)("GET", f"{server.api_url}x").status == 200
    assert twin.prefix == server.api_url.rstrip("/")


def test_settings_of_another_client_are_refused() -> None:
    with pytest.raises(TypeError, match="pool_maxsize"):
        TokenMiddleware("https://api.example.com/", fixed, pool_maxsize=3)  # type: ignore[call-arg]


def test_users_of_requests_do_not_import_aiohttp() -> None:
    program = (
        "import sys, tokenadapter; tokenadapter.TokenAdapter; tokenadapter.TokenPoolManager;"
        "print([n for n in ('aiohttp', 'asyncio') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize("state", ["None", "type(sys)('aiohttp')"])
def test_without_aiohttp_the_name_tells_of_the_extra(state: str) -> None:
    program = (
        f"import sys; sys.modules['aiohttp'] = {state}\n"
        "from tokenadapter import *\n"
        "try: TokenMiddleware('https://api.example.com/', str)\n"
        "except ImportError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'tokenadapter[aiohttp]'" in told.stdout, told.stderr


# --- many tasks --------------------------------------------------------------------------------


def renewal_threads() -> int:
    return sum(thread.name == "tokenadapter renewal" for thread in threading.enumerate())


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_200_tasks_make_one_token_request_in_two_threads(
    client: Client, server: TokenServer, state: str
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    threads: list[int] = []

    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=[tokens]) as session:
            if state == "revoked":
                await session.get(f"{server.api_url}x")
                server.expire_now()
            with server.hold() as hold:
                tasks = [asyncio.create_task(session.get(f"{server.api_url}x")) for _ in range(200)]  # type: ignore[arg-type]
                while not hold.arrived.is_set():
                    await asyncio.sleep(0.001)
                threads.append(renewal_threads())
            done: set[Any] = set()
            while len(done) < 200:
                threads.append(renewal_threads())
                done, _ = await asyncio.wait(tasks, timeout=0.01)
                for task in done:
                    task.result().release()
            assert {task.result().status for task in tasks} == {200}

    client.run(main())
    assert threads[0] >= 1
    assert max(threads) <= 2
    assert server.stats.token_requests == 1 + (state == "revoked")


def test_a_task_that_is_cancelled_leaves_the_renewal_as_it_is(
    client: Client, server: TokenServer
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))

    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=[tokens]) as session:

            async def ask() -> int:
                async with session.post(f"{server.api_url}x", data=generator()) as answer:
                    return answer.status

            with server.hold() as hold:
                tasks = [asyncio.create_task(ask()) for _ in range(5)]
                while not hold.arrived.is_set():
                    await asyncio.sleep(0.001)
                tasks[0].cancel()
                tasks[3].cancel()
                await asyncio.sleep(0.01)
                assert [task.done() for task in tasks] == [True, False, False, True, False]
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 2
            assert answers.count(200) == 3

    client.run(main())
    assert server.stats.token_requests == 1


def test_the_total_timeout_of_a_request_bounds_its_wait(
    client: Client, server: TokenServer
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    request = client(tokens)
    with server.hold() as hold:
        with pytest.raises(asyncio.TimeoutError):
            request("GET", f"{server.api_url}x", timeout=aiohttp.ClientTimeout(total=0.3))
        assert hold.arrived.wait(10)
    assert request("GET", f"{server.api_url}x").status == 200
    assert server.stats.token_requests == 1


def test_a_fresh_token_needs_no_thread_and_no_lock(
    client: Client, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = TokenMiddleware(server.api_url, source(server))
    tokens.keeper.current()

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("not with a fresh token")

    monkeypatch.setattr(tokens.keeper, "obtain", refuse)
    monkeypatch.setattr(tokens.keeper, "aobtain", refuse)
    assert client(tokens)("GET", f"{server.api_url}x").status == 200


def test_nothing_of_a_request_is_kept(client: Client, server: TokenServer) -> None:
    class Body:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"

    request = client(TokenMiddleware(server.api_url, source(server)))
    kept = []
    for _ in range(2):
        body = Body()
        kept.append(weakref.ref(body))
        request("POST", f"{server.api_url}x", data=body)
        del body
        server.expire_now()
    client.run(asyncio.sleep(0))
    gc.collect()
    assert [body() for body in kept] == [None, None]
    assert client.run(_tasks()) == 1, "a body is still being drawn"


def test_a_body_that_is_no_longer_sent_is_no_longer_drawn(client: Client) -> None:
    async def forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield DATA

    async def main() -> None:
        server = await asyncio.start_server(forbid, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        tokens = TokenMiddleware(url, fixed, replay_limit=1000)
        async with server, aiohttp.ClientSession(middlewares=[tokens]) as session:
            with suppress(aiohttp.ClientError):  # if the server hangs up first
                async with session.post(url, data=endless()) as answer:
                    assert answer.status == 403
            async with asyncio.timeout(20):
                while any("_Drawn._draw" in f"{task}" for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.01)

    client.run(main())


async def _tasks() -> int:
    return len(asyncio.all_tasks())


WORKER = """
import asyncio, sys
import aiohttp
from tokenadapter import RefreshToken, TokenMiddleware

api, token_url, first, store = sys.argv[1:]
source = RefreshToken(token_url, first, client_id="client", client_secret="secret")
tokens = TokenMiddleware(api, source, store=store)


async def main():
    async with aiohttp.ClientSession(middlewares=[tokens]) as session:
        answers = await asyncio.gather(*(session.get(f"{api}x") for _ in range(10)))
        print({answer.status for answer in answers})


asyncio.run(main())
"""


def test_processes_of_async_workers_share_one_renewal(server: TokenServer, tmp_path: Path) -> None:
    args = [server.api_url, server.token_url, server.issue()["refresh_token"]]
    args.append(str(tmp_path / "token.json"))
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, *args], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["{200}\n"] * 4
    assert server.stats.token_requests == 1
    assert server.stats.api_refused == 0
