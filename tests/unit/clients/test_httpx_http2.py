"""The face for httpx and httpx2 over HTTP/2, where one connection carries many requests at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import TokenAuth
from tokenadapter.http import responses
from tokenadapter.testing import TokenServer
from unit.clients.http2_front import Front, Stream
from unit.clients.httpx_face import Face
from unit.clients.served import source
from unit.clients.test_httpx import BODIES, BOUNDARY, OF_ASYNC, OF_SYNC, SHA

CROWD = 50


@pytest.fixture
def front(server: TokenServer) -> Iterator[Front]:
    with Front(server) as front:
        yield front


def client(face: Face, front: Front, auth: Any = None) -> Any:
    return face.client(auth, http2=True, verify=front.trust)


@pytest.mark.parametrize("state", ["valid", "expired", "revoked"])
@pytest.mark.parametrize("kind", ["bytes", "file", "generator", "async generator", "multipart"])
def test_a_body_arrives_whole(
    face: Face, server: TokenServer, front: Front, tmp_path: Path, kind: str, state: str
) -> None:
    if kind in (OF_SYNC if face.is_async else OF_ASYNC):
        pytest.skip("httpx does not send it")
    request = client(face, front, TokenAuth(f"{front.url}/api/", source(server)))
    url = f"{front.url}/api/x"
    if state != "expired":
        request("GET", url)
    if state == "revoked":
        server.expire_now()
    body = BODIES[kind](tmp_path)
    expected = SHA
    if kind == "multipart":
        body["headers"] = BOUNDARY
        plain = face.library.Request("POST", url, **BODIES[kind](tmp_path) | {"headers": BOUNDARY})
        expected = hashlib.sha256(plain.read()).hexdigest()
    with contextlib.ExitStack() as stack:
        if kind == "file":
            stack.enter_context(body["content"])
        answer = request("POST", url, **body)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    assert [past.status_code for past in answer.history] == [401] * (state == "revoked")
    sent = [one for one in server.requests if one.method == "POST" and "/api/" in one.path]
    assert [one.sha256 for one in sent] == [expected] * (1 + (state == "revoked"))
    assert len(front.connections) == 1


class Crowded(Front):
    """Answers none of a crowd of requests before all are there."""

    async def answer(self, stream: Stream) -> None:
        if stream.number == 0:
            self.barrier = asyncio.Barrier(CROWD)
        elif stream.number <= CROWD:
            await self.barrier.wait()
        await super().answer(stream)


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_the_streams_of_a_connection_share_one_renewal(
    library: Any, server: TokenServer, state: str
) -> None:
    async def ask(client: Any, url: str, number: int) -> list[Any]:
        body = b"%d" % number
        answer = await client.post(f"{url}/api/{number}", content=body)
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        assert answer.json()["path"] == f"/api/{number}"
        assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
        return [past.status_code for past in answer.history]

    async def crowd() -> list[list[Any]]:
        auth = TokenAuth(f"{front.url}/api/", source(server))
        settings = {"http2": True, "verify": front.trust, "timeout": 60}
        async with library.AsyncClient(auth=auth, **settings) as client:
            await ask(client, front.url, 0)
            token = auth.keeper.current()
            server.expire_now()
            if state == "expired":
                auth.keeper.adopt(server.issue() | {"expires_in": None, "expires_at": 1})
            else:
                assert auth.keeper.current().is_same(token)
            return await asyncio.gather(*(ask(client, front.url, n) for n in range(CROWD)))

    with Crowded(server) as front:
        past = asyncio.run(crowd())
        assert len(front.connections) == 1
    assert past == [[401] * (state == "revoked")] * CROWD
    assert server.stats.renewals == 2
    assert server.stats.api_refused == sum(map(len, past))


# --- refusals that come early, or slowly -------------------------------------------------------


class Early(Front):
    """Refuses a request before its body is there, and resets its stream if *resets*."""

    def __init__(self, server: TokenServer, *, resets: bool) -> None:
        super().__init__(server)
        self._resets = resets
        self._has_refused = threading.Event()

    async def answer(self, stream: Stream) -> None:
        refusal = await self.forward(stream)
        if refusal.status_code != 401:
            await super().answer(stream)
            return
        stream.begin(refusal)
        stream.send(refusal.content)
        if self._resets and not stream.has_ended.is_set():
            stream.reset()
        self._has_refused.set()

    def upload(self, face: Face, size: int) -> Any:
        """A body that goes on when its request has been refused."""
        self._has_refused.clear()
        chunks = [b"x" * 1000] * (size // 1000)

        def generator() -> Iterator[bytes]:
            yield chunks[0]
            assert self._has_refused.wait(10)
            yield from chunks[1:]

        async def async_generator() -> AsyncIterator[bytes]:
            yield chunks[0]
            assert await asyncio.to_thread(self._has_refused.wait, 10)
            for chunk in chunks[1:]:
                yield chunk

        return async_generator() if face.is_async else generator()


# A body larger than the window of the server (65,535 bytes) is sent only as the server takes it.
@pytest.mark.parametrize(("resets", "size"), [(True, 60_000), (False, 300_000)])
def test_after_an_early_refusal_the_body_arrives_whole(
    face: Face, server: TokenServer, resets: bool, size: int
) -> None:
    with Early(server, resets=resets) as front:
        request = client(face, front, TokenAuth(f"{front.url}/api/", source(server)))
        request("GET", f"{front.url}/api/x")
        server.expire_now()
        answer = request("POST", f"{front.url}/api/x", content=front.upload(face, size))
        assert [past.json() for past in answer.history] == [{"error": "invalid_token"}]
        assert answer.json()["sha256"] == hashlib.sha256(b"x" * size).hexdigest()
        assert (answer.http_version, len(front.connections)) == ("HTTP/2", 1)


def test_an_upload_that_is_reset_while_it_waits_for_the_window_fails_as_without_us(
    face: Face, server: TokenServer
) -> None:
    with Early(server, resets=True) as front:
        url = f"{front.url}/api/x"
        for auth in (None, TokenAuth(f"{front.url}/api/", source(server))):
            request = client(face, front, auth)
            request("GET", url if auth else f"{front.url}/public/x")
            server.expire_now()
            # httpx does not look at the answer while it sends.
            with pytest.raises(face.library.ReadTimeout):
                request("POST", url, content=front.upload(face, 300_000), timeout=0.2)
        assert request("GET", url).status_code == 200


class Stalling(Front):
    """Sends a refusal slowly: the end of it comes long after another request."""

    def __init__(self, server: TokenServer) -> None:
        super().__init__(server)
        self._another = asyncio.Event()
        self._is_over = asyncio.Event()

    async def answer(self, stream: Stream) -> None:
        answer = await self.forward(stream, await stream.body())
        if answer.status_code == 401:
            stream.begin(answer)
            await self._another.wait()
            await asyncio.sleep(2 * responses.DRAINED_FOR)
            stream.send(answer.content)
            self._is_over.set()
            return
        if "public" in stream.path:
            self._another.set()
            await self._is_over.wait()
        stream.begin(answer)
        stream.send(answer.content)


def test_a_slow_refusal_harms_no_other_request_of_its_connection(
    library: Any, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "DRAINED_FOR", 0.3)

    async def both(front: Front) -> list[Any]:
        auth = TokenAuth(f"{front.url}/api/", source(server))
        async with library.AsyncClient(auth=auth, http2=True, verify=front.trust) as client:
            await client.get(f"{front.url}/api/x")
            server.expire_now()
            is_read = asyncio.Event()

            async def trace(event: str, _: object) -> None:
                if event == "http2.receive_response_body.started":
                    is_read.set()

            slow = client.get(f"{front.url}/api/x", extensions={"trace": trace})
            refused = asyncio.create_task(slow)
            await is_read.wait()
            other = await client.get(f"{front.url}/public/x")
            return [other, await refused]

    with Stalling(server) as front:
        other, replayed = asyncio.run(both(front))
        assert (other.status_code, replayed.status_code) == (200, 200)
        assert [past.status_code for past in replayed.history] == [401]
        assert len(front.connections) == 1
