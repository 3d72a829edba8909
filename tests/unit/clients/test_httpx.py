"""The face for httpx and httpx2, sync and async, against a real server."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import httpx2
import pytest
import trio
from behaviour.test_prefix_attacks import DOTS, SLASHES

from tokenadapter import (
    ClientCredentials,
    FileStore,
    LockTimeout,
    MemoryStore,
    ReauthRequired,
    RefreshTemporarilyFailed,
    Token,
    TokenAuth,
    TokenError,
    TokenKeeper,
    UnsafeTarget,
    expired_on,
)
from tokenadapter.http.exchange import Verdict
from tokenadapter.sources import discovery
from tokenadapter.testing import FrozenClock, TokenServer
from unit.clients.httpx_face import LIBRARIES, Face
from unit.clients.served import SECRET, client_credentials, fixed, source, tokens_sent, told

DATA = bytes(range(256)) * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["sync", "asyncio", "trio"])
def each(request: pytest.FixtureRequest, library: Any) -> Iterator[Face]:
    """The same under trio too."""
    face = Face(library, request.param)
    yield face
    face.close()


# --- attach, renew, replay ---------------------------------------------------------------------


def test_requests_are_signed(each: Face, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, source(server))
    assert each.client(auth)("GET", f"{server.api_url}x").status_code == 200
    assert tokens_sent(server) == [f"Bearer {auth.keeper.current().access_token}"]


def test_a_token_that_expires_is_renewed_first(each: Face) -> None:
    with FrozenClock() as clock, TokenServer(lifetime=60) as server:
        request = each.client(TokenAuth(server.api_url, source(server)))
        for _ in range(2):
            answer = request("GET", f"{server.api_url}x")
            assert (answer.status_code, answer.history) == (200, [])
            clock.move(60)
        assert server.stats.renewals == 2
        assert server.stats.api_refused == 0


def test_a_revoked_token_is_renewed_and_the_request_replayed(
    each: Face, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    request = each.client(auth)
    request("GET", f"{server.api_url}x")
    server.expire_now()
    answer = request(
        "PUT", f"{server.api_url}x?y=1", content=b"whole body", headers={"X-Mine": "1"}
    )
    echo = answer.json()
    assert (echo["method"], echo["query"], echo["length"]) == ("PUT", "y=1", 10)
    assert echo["headers"]["x-mine"] == "1"
    assert [past.status_code for past in answer.history] == [401]
    assert answer.history[0].json() == {"error": "invalid_token"}
    assert server.stats.renewals == 2
    assert auth.keeper.stats["Replayed"] == 1


def test_a_refusal_is_handed_on_if_a_new_token_is_refused_too(
    face: Face, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    request = face.client(auth)
    server.fail_next(401, endpoint="api", count=None, body={"why": "never"})
    answer = request("GET", f"{server.api_url}x")
    assert (answer.status_code, answer.json()) == (401, {"why": "never"})
    assert answer.history == []
    assert server.stats.renewals == 1
    assert auth.keeper.stats["HandedOn"] == 1
    server.recover("api")
    request("GET", f"{server.api_url}x")
    server.fail_next(401, endpoint="api", count=None)
    assert request("GET", f"{server.api_url}x").status_code == 401


def test_a_refusal_that_no_renewal_helps_is_handed_on_at_once(
    face: Face, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    request = face.client(auth)
    for status, challenge in (
        (403, 'Bearer error="insufficient_scope", scope="more"'),
        (401, 'Bearer error="insufficient_user_authentication", acr_values="high"'),
        (401, 'Basic realm="x"'),
    ):
        headers = {"WWW-Authenticate": challenge}
        server.fail_next(status, endpoint="api", headers=headers)
        answer = request("GET", f"{server.api_url}x")
        assert (answer.status_code, answer.history) == (status, [])
    assert server.stats.renewals == 1
    assert auth.keeper.stats["StepUpNeeded"] == 2


def test_max_replays_0_renews_and_hands_the_refusal_on(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, source(server), max_replays=0))
    request("GET", f"{server.api_url}x")
    server.expire_now()
    assert request("GET", f"{server.api_url}x").status_code == 401
    assert request("GET", f"{server.api_url}x").status_code == 200
    assert server.stats.renewals == 2


def test_one_auth_serves_clients_of_both_libraries(server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, source(server))
    assert isinstance(auth, httpx.Auth)
    assert isinstance(auth, httpx2.Auth)
    for library in LIBRARIES.values():
        with library.Client() as client:
            assert client.get(f"{server.api_url}x", auth=auth).status_code == 200
    assert server.stats.renewals == 1


def test_a_keeper_is_shared_with_requests(face: Face, server: TokenServer) -> None:
    keeper = TokenKeeper(source(server))
    request = face.client(TokenAuth(server.api_url, keeper))
    request("GET", f"{server.api_url}x")
    assert tokens_sent(server) == [f"Bearer {keeper.current().access_token}"]
    assert server.stats.renewals == 1


def test_header_and_scheme_and_attach_put_the_token_where_the_api_wants_it(face: Face) -> None:
    with TokenServer(header="X-Api-Key", scheme="") as server:
        request = face.client(
            TokenAuth(server.api_url, source(server), header="X-Api-Key", scheme="")
        )
        assert request("GET", f"{server.api_url}x").status_code == 200

        def attach(copy: Any, token: Token) -> None:
            copy.headers["X-Api-Key"] = token.access_token
            copy.url = copy.url.copy_merge_params({"key": token.access_token})

        auth = TokenAuth(server.api_url, source(server), attach=attach)
        request = face.client(auth)
        request("GET", f"{server.api_url}x")
        server.expire_now()
        answer = request("GET", f"{server.api_url}x?y=1")
        secret = auth.keeper.current().access_token
        assert answer.status_code == 200
        assert answer.json()["query"] == f"y=1&key={secret}"
        assert str(answer.url) == f"{server.api_url}x?y=1"
        assert secret not in f"{answer.request.url} {answer.request.headers.raw}"


def test_an_authorization_of_the_caller_is_replaced_unless_disabled(
    face: Face, server: TokenServer
) -> None:
    mine = {"Authorization": "Bearer mine"}
    request = face.client(TokenAuth(server.api_url, fixed))
    request("GET", f"{server.api_url}x", headers=mine)
    request = face.client(TokenAuth(server.api_url, fixed, override_auth=False))
    request("GET", f"{server.api_url}x", headers=mine)
    request("GET", f"{server.api_url}x")
    assert tokens_sent(server)[0] == f"Bearer {SECRET}"
    assert tokens_sent(server)[-2:] == ["Bearer mine", f"Bearer {SECRET}"]


def test_cookies_of_a_refusal_are_honoured_in_the_replay(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, source(server)), cookies={"a": "1", "b": "1"})
    request("GET", f"{server.api_url}x")
    for _ in range(2):
        server.fail_next(401, endpoint="api", headers={"Set-Cookie": "b=2; Path=/"})
        answer = request("GET", f"{server.api_url}x")
        assert {*answer.json()["headers"]["cookie"].split("; ")} >= {"a=1", "b=2"}
        server.expire_now()


# --- verdicts ----------------------------------------------------------------------------------


def test_a_verdict_of_ones_own_is_given_the_response(face: Face, server: TokenServer) -> None:
    seen: list[Any] = []

    def verdict(response: Any) -> bool:
        seen.append(response)
        return response.status_code == 419

    request = face.client(TokenAuth(server.api_url, source(server), verdict=verdict))
    request("GET", f"{server.api_url}x")
    server.fail_next(419, endpoint="api")
    answer = request("GET", f"{server.api_url}x")
    assert [past.status_code for past in answer.history] == [419]
    assert [type(one) for one in seen] == [face.library.Response] * 3


@pytest.mark.parametrize("each", ["asyncio", "trio"], indirect=True)
@pytest.mark.parametrize("body", [{"error": "dead"}, {"error": "busy"}])
def test_an_async_client_awaits_a_verdict(
    each: Face, server: TokenServer, body: dict[str, str]
) -> None:
    async def verdict(response: Any) -> bool:
        await response.aread()
        return response.json().get("error") == "dead"

    request = each.client(TokenAuth(server.api_url, source(server), verdict=verdict))
    server.fail_next(419, endpoint="api", body=body)
    answer = request("POST", f"{server.api_url}x", content=b"one")
    if body["error"] == "dead":
        assert [past.json() for past in answer.history] == [body]
        assert (answer.status_code, server.stats.api_requests) == (200, 2)
    else:
        assert (answer.status_code, answer.json()) == (419, body)
        assert (server.stats.api_requests, server.stats.renewals) == (1, 1)


def test_a_client_that_blocks_refuses_a_verdict_to_await(library: Any, server: TokenServer) -> None:
    class Awaitable:
        def __await__(self) -> Any:
            raise AssertionError

    auth = TokenAuth(server.api_url, source(server), verdict=lambda response: Awaitable())
    with (
        library.Client(auth=auth) as client,
        pytest.raises(TypeError, match=r"\(Awaitable\)"),
    ):
        client.post(f"{server.api_url}x")
    assert (server.stats.api_requests, server.stats.renewals) == (1, 1)


def test_a_verdict_looks_into_json_that_the_caller_can_still_read(
    face: Face, server: TokenServer
) -> None:
    verdict = expired_on(status=[200, 403], json={"error.code": "expired"})
    request = face.client(TokenAuth(server.api_url, source(server), verdict=verdict))
    request("GET", f"{server.api_url}x")
    server.fail_next(403, endpoint="api", body={"error": {"code": "expired"}})
    answer = request("GET", f"{server.api_url}x")
    assert [past.json()["error"]["code"] for past in answer.history] == ["expired"]
    for body in ({"error": {"code": "forbidden"}}, {"long": "x" * 200_000}):
        server.fail_next(403, endpoint="api", body=body)
        answer = request("GET", f"{server.api_url}x")
        assert (answer.status_code, answer.json()) == (403, body)
    assert server.stats.renewals == 2


def stalling(library: Any, begun: bytes) -> Any:
    """A body that stops after it has begun."""

    class Stalling(library.SyncByteStream, library.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield begun
            raise library.ReadTimeout("it stalls")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

    return Stalling()


@pytest.mark.parametrize("size", [1, 70_000])
def test_an_answer_that_stalls_while_a_verdict_looks_into_it_fails_as_without_us(
    face: Face, size: int
) -> None:
    def answer(request: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        body = stalling(face.library, b"x" * size)
        return face.library.Response(403, headers=headers, stream=body)

    verdict = expired_on(status=403, json={"error": "expired"})
    auth = TokenAuth("https://api.example.com/", fixed, verdict=verdict)
    request = face.client(auth, transport=face.library.MockTransport(answer))
    with pytest.raises(face.library.ReadTimeout, match="it stalls"):
        request("GET", "https://api.example.com/x")


def test_a_body_in_tiny_chunks_takes_no_longer_to_look_into(face: Face) -> None:
    measured = []

    class Chunk(bytes):
        def __len__(self) -> int:
            measured.append(self)
            return super().__len__()

    class Chunks(face.library.SyncByteStream, face.library.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from [Chunk(b" ")] * 1000

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

    def answer(request: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        return face.library.Response(403, headers=headers, stream=Chunks())

    verdict = expired_on(status=403, json={"error": "expired"})
    auth = TokenAuth("https://api.example.com/", fixed, verdict=verdict)
    request = face.client(auth, transport=face.library.MockTransport(answer))
    assert request("GET", "https://api.example.com/x").text == " " * 1000
    assert len(measured) < 10_000


def test_a_refusal_that_stalls_is_replayed_all_the_same(face: Face) -> None:
    statuses = iter([401, 200])

    def answer(request: Any) -> Any:
        status = next(statuses)
        body = {"stream": stalling(face.library, b"x")} if status == 401 else {"content": b"good"}
        return face.library.Response(status, **body)

    auth = TokenAuth("https://api.example.com/", lambda previous: {"access_token": "made-up"})
    auth.keeper.current()
    request = face.client(auth, transport=face.library.MockTransport(answer))
    got = request("GET", "https://api.example.com/x")
    assert (got.content, [past.content for past in got.history]) == (b"good", [b""])


def test_a_proof_that_was_refused_is_sent_again_once(face: Face, server: TokenServer) -> None:
    verdict = lambda response: Verdict.SEND_AGAIN if response.status_code == 401 else False  # noqa: E731
    request = face.client(TokenAuth(server.api_url, source(server), verdict=verdict))
    server.fail_next(401, endpoint="api", count=3)
    assert request("GET", f"{server.api_url}x").status_code == 401
    assert server.stats.renewals == 1
    assert len(tokens_sent(server)) == 2


# --- bodies ------------------------------------------------------------------------------------


def generator() -> Iterator[bytes]:
    for at in range(0, len(DATA), 10_000):
        yield DATA[at : at + 10_000]


async def async_generator() -> AsyncIterator[bytes]:
    for chunk in generator():
        await asyncio.sleep(0)
        yield chunk


class Again:
    """Iterable any number of times, by its looks."""

    def __init__(self) -> None:
        self.chunks = generator()

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks


class AsyncReader:
    def __init__(self) -> None:
        self.file = io.BytesIO(DATA)

    def __aiter__(self) -> Any:
        raise AssertionError("it has aread")

    async def aread(self, size: int) -> bytes:
        return self.file.read(size)


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


BODIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "bytes": lambda _: {"content": DATA},
    "form": lambda _: {"data": {"a": "1"}},
    "parts": lambda _: {"content": [*generator()]},
    "file": lambda folder: {"content": opened(folder)},
    "generator": lambda _: {"content": generator()},
    "iterable": lambda _: {"content": Again()},
    "async generator": lambda _: {"content": async_generator()},
    "async reader": lambda _: {"content": AsyncReader()},
    "multipart": lambda _: {"files": {"f": ("n", io.BytesIO(DATA))}, "data": {"a": "1"}},
    "multipart pipe": lambda _: {"files": {"f": ("n", Pipe())}},
}
OF_SYNC = {"parts", "file", "generator", "iterable"}
OF_ASYNC = {"async generator", "async reader"}
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize("state", ["valid", "expired", "revoked"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_arrives_whole(
    face: Face, server: TokenServer, tmp_path: Path, kind: str, state: str
) -> None:
    if kind in (OF_SYNC if face.is_async else OF_ASYNC):
        pytest.skip("httpx does not send it")
    auth = TokenAuth(server.api_url, source(server))
    request = face.client(auth)
    body = BODIES[kind](tmp_path)
    if "multipart" in kind:
        body["headers"] = BOUNDARY
    if state != "expired":
        request("GET", f"{server.api_url}x")
    if state == "revoked":
        server.expire_now()
    answer = request("POST", f"{server.api_url}x", **body)
    assert answer.status_code == 200
    assert len(answer.history) == (state == "revoked")
    sent = [one for one in server.requests if one.method == "POST" and "/api/" in one.path]
    assert len(sent) == 1 + (state == "revoked")
    plain = (
        face.library.Request("POST", server.url, **BODIES[kind](tmp_path) | body)
        if (kind in ("form", "multipart"))
        else None
    )
    if kind == "multipart pipe":
        assert DATA in face.library.Request("POST", "http://x/", files={"f": ("n", DATA)}).read()
        assert len({one.sha256 for one in sent}) == 1
        assert answer.json()["length"] > len(DATA)
    elif plain is not None:
        assert {one.sha256 for one in sent} == {hashlib.sha256(plain.read()).hexdigest()}
    else:
        assert {one.sha256 for one in sent} == {SHA}
    for thing in body.values():
        if isinstance(thing, io.IOBase):
            thing.close()


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_body_that_cannot_be_replayed_in_full_is_not_sent_again(
    face: Face, server: TokenServer, limit: int
) -> None:
    auth = TokenAuth(server.api_url, source(server), replay_limit=limit)
    request = face.client(auth)
    request("GET", f"{server.api_url}x")
    server.expire_now()
    content = async_generator() if face.is_async else generator()
    answer = request("POST", f"{server.api_url}x", content=content)
    assert answer.status_code == 401
    assert {
        one.sha256 for one in server.requests if one.method == "POST" and "/api/" in one.path
    } == {SHA}
    assert server.stats.renewals == 2
    assert auth.keeper.stats["HandedOn"] == 1


def test_a_file_that_changes_its_size_is_not_sent_again(
    library: Any, server: TokenServer, tmp_path: Path
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    with library.Client(auth=auth) as client, opened(tmp_path) as file:
        client.get(f"{server.api_url}x")
        server.expire_now()
        with server.hold() as hold:
            answers: list[Any] = []
            work = threading.Thread(
                target=lambda: answers.append(client.post(f"{server.api_url}x", content=file))
            )
            work.start()
            assert hold.arrived.wait(10)
            with (tmp_path / "body").open("ab") as more:
                more.write(b"more")
        work.join()
    assert answers[0].status_code == 401


def test_an_error_of_a_body_reaches_the_caller(face: Face, server: TokenServer) -> None:
    async def broken_async() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("the body broke")

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("the body broke")

    request = face.client(TokenAuth(server.api_url, source(server)))
    with pytest.raises(LookupError, match="the body broke"):
        request("POST", f"{server.api_url}x", content=broken_async() if face.is_async else broken())


# --- where the token goes ----------------------------------------------------------------------


@pytest.mark.parametrize("dots", DOTS)
def test_no_dots_in_whatever_spelling_take_the_token_out(
    library: Any, server: TokenServer, dots: str
) -> None:
    with library.Client(auth=TokenAuth(server.api_url, fixed)) as client:
        for slash in SLASHES:
            with suppress(library.HTTPError, library.InvalidURL):
                client.get(f"{server.api_url}{dots}{slash}public/x")
    assert [path for path, has_token in told(server, 0) if has_token] == []


@pytest.mark.parametrize(
    "url",
    [
        "{host}.evil.example/api/x",
        "{scheme}user@{place}/api/x",
        "{scheme}{place}@evil.example/api/x",
        "{scheme}localhost:{port}/api/x",
        "{host}/apix",
        "{host}/API/x",
        "{host}/api;/x",
        "{host}/x",
        "http://127.0.0.1:1/api/x",
        "https://{place}/api/x",
        "{host}\\@evil.example/api/x",
    ],
)
def test_a_url_that_only_resembles_the_prefix_gets_no_token(
    library: Any, server: TokenServer, url: str
) -> None:
    place = urlsplit(server.url)
    url = url.format(scheme="http://", host=server.url, place=place.netloc, port=place.port)
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(request.headers.get("authorization"))
        return library.Response(200)

    auth = TokenAuth(server.api_url, fixed)
    with library.Client(auth=auth, transport=library.MockTransport(answer)) as client:
        with suppress(library.InvalidURL):
            client.get(url)
        assert SECRET not in str(sent)
        client.get(f"{server.api_url}x")
        assert sent[-1] == f"Bearer {SECRET}"


def test_a_host_header_that_names_another_host_gets_no_token(
    face: Face, server: TokenServer
) -> None:
    request = face.client(TokenAuth(server.api_url, fixed))
    place = urlsplit(server.url)
    for host in ("evil.example", "127.0.0.2", f"evil.example:{place.port}", "", "127.0.0.1@x"):
        with suppress(face.library.HTTPError):
            request("GET", f"{server.api_url}x", headers={"host": host})
    assert not any(has_token for _, has_token in told(server, 0))
    since = len(server.requests)
    for host in ("127.0.0.1", place.netloc):
        request("GET", f"{server.api_url}x", headers={"Host": host})
    assert [has_token for _, has_token in told(server, since)] == [True, True]


def test_another_target_than_the_url_gets_no_token(library: Any, server: TokenServer) -> None:
    with library.Client(auth=TokenAuth(server.api_url, fixed)) as client:
        client.get(f"{server.api_url}x", extensions={"target": b"/public/x"})
    assert told(server, 0) == [("/public/x", False)]


def test_the_sources_own_urls_get_no_token(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.url, client_credentials(server)))
    request("GET", f"{server.api_url}x")
    request("POST", server.token_url)
    assert "bearer" not in str(server.requests[-1].headers).lower()


def test_a_token_request_to_an_issuer_is_not_signed(
    each: Face, server: TokenServer, tmp_path: Path
) -> None:
    client: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}
    store = FileStore(tmp_path / "token.json")
    token = (
        TokenKeeper(ClientCredentials(issuer=server.issuer, **client), store).current().access_token
    )
    discovery._known.clear()  # as in another process, which has read no metadata
    later = ClientCredentials(issuer=server.issuer, **client)
    request = each.client(TokenAuth(server.url, later, store=store))
    request("POST", server.token_url, data={"grant_type": "password"})
    assert server.requests[-1].path == "/token"
    assert "authorization" not in server.requests[-1].headers
    request("POST", f"{server.api_url}x", data={"token": "x"})
    assert tokens_sent(server) == [f"Bearer {token}"]


def test_outside_the_prefix_a_request_is_sent_as_without_us(
    face: Face, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, fixed)
    request = face.client(auth)
    with_user = server.public_url.replace("//", "//user:pw@")
    assert "authorization" in request("GET", f"{with_user}x").json()["headers"]
    assert "authorization" not in request("GET", f"{server.public_url}x").json()["headers"]
    assert auth.keeper.stats["OutsidePrefix"] == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
def test_no_redirect_takes_the_token_out(
    face: Face, server: TokenServer, other: TokenServer, status: int, method: str, header: str
) -> None:
    auth = TokenAuth(server.api_url, fixed, header=header, scheme="")
    request = face.client(auth, follow_redirects=True)
    elsewhere = [
        other.public_url,
        other.api_url,
        other.url.replace("127.0.0.1", "localhost") + "/public/",
        server.url.replace("127.0.0.1", "localhost") + "/api/",
        server.public_url,
        server.url.replace("//", "//user:pw@") + "/api/",
        *(
            f"{server.api_url}{dots}{slash}public/"
            for dots, slash in zip(cycle(DOTS[1:4]), SLASHES, strict=False)
        ),
    ]
    for target in elsewhere:
        server.fail_next(status, endpoint="api", redirect=f"{target}x")
        with suppress(face.library.HTTPError):
            request(method, f"{server.api_url}redirect")
        server.recover("api")
    assert {path for path, has_token in told(server, 0) if has_token} == {"/api/redirect"}
    assert not any(has_token for _, has_token in told(other, 0))


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_under_the_prefix_is_signed(
    face: Face, server: TokenServer, status: int, method: str
) -> None:
    """httpx follows it without us, and without the token: it is sent once more."""
    auth = TokenAuth(server.api_url, source(server))
    request = face.client(auth, follow_redirects=True)
    to = quote(f"{server.api_url}x", safe="")
    content = (async_generator() if face.is_async else generator()) if method == "POST" else None
    answer = request(method, f"{server.api_url}redirect?to={to}&status={status}", content=content)
    assert answer.status_code == 200
    assert [past.status_code for past in answer.history] == [status, 401]
    assert str(answer.url) == f"{server.api_url}x"
    assert len({*tokens_sent(server)}) == 2  # one, and none
    if (method, status) == ("POST", 307):
        assert answer.json()["sha256"] == SHA
    assert server.stats.renewals == 1


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_redirect_of_a_body_that_was_not_recorded_fails_as_without_us(
    face: Face, server: TokenServer, limit: int
) -> None:
    auth = TokenAuth(server.api_url, fixed, replay_limit=limit)
    request = face.client(auth, follow_redirects=True)
    server.fail_next(307, endpoint="api", redirect=f"{server.public_url}x")
    content = async_generator() if face.is_async else generator()
    with pytest.raises(face.library.StreamConsumed):
        request("POST", f"{server.api_url}x", content=content)


def test_a_redirect_into_the_prefix_is_signed(
    face: Face, server: TokenServer, other: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    request = face.client(auth, follow_redirects=True)
    auth.keeper.current()
    server.expire_now()
    to = quote(f"{server.api_url}x", safe="")
    answer = request("GET", f"{other.public_url}redirect?to={to}&status=302")
    assert answer.status_code == 200
    assert [past.status_code for past in answer.history] == [302, 401, 401]


def test_an_anonymous_answer_under_the_prefix_is_not_taken_for_the_signed_one(
    face: Face, server: TokenServer
) -> None:
    request = face.client(TokenAuth(server.url, fixed), follow_redirects=True)
    server.fail_next(302, endpoint="public", redirect=f"{server.public_url}x")
    answer = request("GET", f"{server.public_url}redirect")
    assert told(server, 0)[-1] == ("/public/x", True)
    assert [past.status_code for past in answer.history] == [302, 200]


def test_a_request_that_was_processed_unsigned_is_not_sent_twice(
    face: Face, server: TokenServer
) -> None:
    request = face.client(TokenAuth(server.url, fixed), follow_redirects=True)
    server.fail_next(307, endpoint="public", redirect=f"{server.public_url}x")
    answer = request("POST", f"{server.public_url}redirect", content=b"an order")
    assert answer.status_code == 200
    assert [path for path, _ in told(server, 0)].count("/public/x") == 1


def test_the_next_request_of_a_redirect_carries_no_token(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, fixed, header="X-Api-Key", scheme=""))
    server.fail_next(307, endpoint="api", redirect=f"{server.public_url}x")
    answer = request("GET", f"{server.api_url}x")
    assert answer.next_request is not None
    assert SECRET not in str(answer.next_request.headers.raw)


def test_a_library_that_copies_headers_otherwise_is_refused() -> None:
    from tokenadapter.clients.httpx_parts import Parts

    class Headers(httpx.Headers):
        def __init__(self, headers: Any = None) -> None:
            super().__init__([*headers.items()] if headers else None)

    class Library(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return Headers if name == "Headers" else getattr(httpx, name)

    with pytest.raises(ImportError, match="copies headers in a way"):
        Parts(Library("httpx9"))


# --- what others see of the token --------------------------------------------------------------


def test_the_callers_request_never_carries_the_token(face: Face, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, fixed, header="X-Api-Key", scheme="")
    request = face.client(auth)
    answer = request("GET", f"{server.api_url}x")
    assert SECRET not in str(answer.request.headers.raw)
    for past in answer.history:
        assert SECRET not in str(past.request.headers.raw)
    server.fail_next(reset=True, endpoint="api")
    with pytest.raises(face.library.RequestError) as caught:
        request("GET", f"{server.api_url}x", headers={"X-Mine": "1"})
    assert SECRET not in str(caught.value.request.headers.raw)
    assert caught.value.request.headers["x-mine"] == "1"


def test_the_request_that_was_sent_is_the_callers_own(library: Any, server: TokenServer) -> None:
    with library.Client(auth=TokenAuth(server.api_url, source(server))) as client:
        for _ in range(2):
            mine = client.build_request("GET", f"{server.api_url}x")
            answer = client.send(mine)
            assert answer.request is mine
            assert all(past.request is mine for past in answer.history)
            assert mine.extensions["timeout"]["read"] == 5.0
            server.expire_now()


def test_an_event_hook_sees_the_token_and_may_change_the_headers(
    library: Any, server: TokenServer
) -> None:
    shown: list[str] = []

    def hook(request: Any) -> None:
        shown.append(f"{request.headers!r} {pickle.loads(pickle.dumps(request.headers)).raw}")
        assert request.headers["x-api-key"] == SECRET
        assert "x-api-key" in request.headers
        assert dict(request.headers.items())["x-api-key"] == SECRET
        assert SECRET in request.headers.values()
        assert "x-api-key" in request.headers.keys()  # noqa: SIM118
        assert ("x-api-key", SECRET) in request.headers.multi_items()
        assert request.headers.get_list("X-Api-Key") == [SECRET]
        assert request.headers.get("nothing") is None
        assert request.headers.encoding == "ascii"
        request.headers.encoding = "utf-8"
        assert request.headers == library.Headers(request.headers.raw)
        assert len(request.headers) == len([*request.headers])
        assert "x-api-key" not in request.headers.copy()
        request.headers["X-Hook"] = "1"
        request.headers.update({"X-More": "2", "X-Gone": "3"})
        del request.headers["X-Gone"]

    auth = TokenAuth(server.api_url, fixed, header="X-Api-Key", scheme="")
    with library.Client(auth=auth, event_hooks={"request": [hook]}) as client:
        answer = client.get(f"{server.api_url}x")
    assert SECRET not in str(shown)
    sent = server.requests[-1].headers
    assert (sent["x-hook"], sent["x-more"], sent["x-api-key"]) == ("1", "2", SECRET)
    assert "x-gone" not in sent
    assert answer.request.headers["x-hook"] == "1"


def test_a_transport_that_puts_copied_headers_in_place_keeps_the_token(
    library: Any, server: TokenServer
) -> None:
    """As the instrumentation of OpenTelemetry does."""

    class Tracing(library.HTTPTransport):
        def handle_request(self, request: Any) -> Any:
            headers = library.Headers(request.headers)
            headers["traceparent"] = "00-1"
            request.headers = headers
            return super().handle_request(request)

    auth = TokenAuth(server.api_url, source(server))
    with library.Client(auth=auth, transport=Tracing(), follow_redirects=True) as client:
        assert client.get(f"{server.api_url}x").json()["headers"]["traceparent"] == "00-1"
        server.fail_next(307, endpoint="api", redirect=f"{server.public_url}x")
        echo = client.get(f"{server.api_url}x").json()
    assert "authorization" not in echo["headers"]


def test_a_mock_that_keeps_its_requests_shows_what_was_sent(library: Any) -> None:
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(request)
        return library.Response(200 if len(sent) > 1 else 401)

    auth = TokenAuth("https://api.example.com/", lambda previous: {"access_token": SECRET})
    auth.keeper.current()
    with library.Client(auth=auth, transport=library.MockTransport(answer)) as client:
        client.get("https://api.example.com/x")
    assert [one.headers["Authorization"] for one in sent] == [f"Bearer {SECRET}"] * 2
    assert SECRET not in str([repr(one.headers) for one in sent])


def test_no_log_shows_the_token(
    face: Face, server: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        face.client(TokenAuth(server.api_url, fixed))("GET", f"{server.api_url}x")
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("httpcore")]
    assert ours
    assert SECRET not in str(ours)


# --- refusals are bounded ----------------------------------------------------------------------


@cache
def bomb() -> bytes:
    once = zlib.compressobj(9, wbits=31)
    return once.compress(b" " * (48 << 20)) + once.flush()


def test_a_refusal_is_not_decoded_beyond_the_limit(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, source(server)))
    for encoding in ("gzip", "zstd", "br, gzip"):
        request("GET", f"{server.api_url}x")
        body = bomb()
        headers = {"Content-Encoding": encoding}
        server.fail_next(401, endpoint="api", body=body, headers=headers)
        answer = request("GET", f"{server.api_url}x")
        assert answer.status_code == 200
        assert answer.history[0].content == b""
        server.expire_now()


def test_a_refusal_that_is_long_slow_or_broken_is_closed(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, source(server)))
    request("GET", f"{server.api_url}x")
    for how in (
        {"body": b"x" * 300_000},
        {"body": b"x" * 400, "drip": 0.005},
        {"body": b"not gzip", "headers": {"Content-Encoding": "gzip"}},
    ):
        server.fail_next(401, endpoint="api", **how)
        started = time.monotonic()
        answer = request("GET", f"{server.api_url}x", timeout=None)
        assert time.monotonic() - started < 10
        assert answer.status_code == 200
        assert [past.content for past in answer.history] == [b""]
        server.expire_now()


def test_a_small_refusal_leaves_its_connection_to_the_replay(
    library: Any, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    with library.Client(auth=auth, limits=library.Limits(max_connections=1)) as client:
        for _ in range(3):
            assert client.get(f"{server.api_url}x", timeout=2).status_code == 200
            server.expire_now()


def test_a_streamed_answer_is_left_to_the_caller(library: Any, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, source(server))
    with library.Client(auth=auth) as client:
        client.get(f"{server.api_url}x")
        server.expire_now()
        with client.stream("GET", f"{server.api_url}x") as answer:
            assert not answer.is_stream_consumed
            assert [past.status_code for past in answer.history] == [401]
            assert json.loads(answer.read())["path"] == "/api/x"
            assert answer.elapsed.total_seconds() > 0


# --- errors ------------------------------------------------------------------------------------


def test_an_error_is_one_of_the_library_too(each: Face, server: TokenServer) -> None:
    request = each.client(TokenAuth(server.api_url, source(server)))
    server.fail_next(400, error="invalid_grant", count=None)
    with pytest.raises(each.library.RequestError) as caught:
        request("GET", f"{server.api_url}x")
    error = caught.value
    assert isinstance(error, ReauthRequired)
    assert error.reason == "invalid_grant"
    assert str(error.request.url) == f"{server.api_url}x"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, each.library.RequestError)
    assert isinstance(again, ReauthRequired)
    assert type(again).__name__ == "ReauthRequired"


def test_an_error_after_a_refusal_tells_of_the_refusal(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, source(server)))
    request("GET", f"{server.api_url}x")
    server.expire_now()
    server.fail_next(503, count=None)
    with pytest.raises(RefreshTemporarilyFailed) as caught:
        request("GET", f"{server.api_url}x")
    assert caught.value.response is not None
    assert caught.value.response.status_code == 401


def test_a_token_of_another_type_is_not_sent_as_a_bearer_token(
    face: Face, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, lambda previous: {"access_token": "x", "token_type": "mac"})
    with pytest.raises(face.library.HTTPError) as caught:
        face.client(auth)("GET", f"{server.api_url}x")
    assert isinstance(caught.value, TokenError)
    assert server.requests == ()


def test_the_read_timeout_bounds_the_wait(each: Face, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, source(server))
    with server.hold() as hold:
        started = time.monotonic()
        with pytest.raises(LockTimeout):
            each.client(auth)("GET", f"{server.api_url}x", timeout=0.3)
        assert 0.25 < time.monotonic() - started < 5
        hold.release()
    assert auth.keeper.wait(10)
    assert each.client(auth)("GET", f"{server.api_url}x").status_code == 200
    assert server.stats.token_requests == 1


def test_settings_are_checked_as_those_of_an_adapter() -> None:
    with pytest.raises(UnsafeTarget):
        TokenAuth("http://api.example.com/", fixed)
    with pytest.raises(TypeError, match="header and scheme have no effect"):
        TokenAuth("https://api.example.com/", fixed, scheme="x", attach=lambda *_: None)
    with pytest.raises(TypeError, match="belong to the TokenKeeper"):
        TokenAuth("https://api.example.com/", TokenKeeper(fixed), lock_timeout=3)
    auth = TokenAuth("https://api.example.com/v1/", fixed)
    assert repr(auth).startswith("<TokenAuth https://api.example.com/v1 of ")
    assert auth.prefix == "https://api.example.com/v1"


def test_a_chain_of_redirects_under_the_prefix_is_not_followed_from_each_hop(face: Face) -> None:
    sent = []

    def answer(request: Any) -> Any:
        at = int(request.url.path[1:])
        sent.append(at)
        status = 302 if at < 20 else 200 if "authorization" in request.headers else 401
        return face.library.Response(status, headers={"Location": f"/{at + 1}"})

    auth = TokenAuth("https://api.example.com/", fixed)
    request = face.client(auth, transport=face.library.MockTransport(answer), follow_redirects=True)
    assert request("GET", "https://api.example.com/0").status_code == 200
    assert (sent.count(20), len(sent)) == (3, 21 + 20 + 1)


def test_a_login_page_under_the_prefix_is_not_the_answer_to_a_hop(face: Face) -> None:
    def answer(request: Any) -> Any:
        leads = {"/a": "/b"}
        if "authorization" not in request.headers and request.url.path == "/b":
            leads["/b"] = "/login"
        to = leads.get(request.url.path)
        headers = {} if to is None else {"Location": to}
        return face.library.Response(200 if to is None else 302, headers=headers)

    auth = TokenAuth("https://api.example.com/", fixed)
    request = face.client(auth, transport=face.library.MockTransport(answer), follow_redirects=True)
    got = request("GET", "https://api.example.com/a")
    assert (got.status_code, got.url.path) == (200, "/b")


def test_an_auth_survives_pickle(server: TokenServer, tmp_path: Path) -> None:
    auth = TokenAuth(server.api_url, client_credentials(server), store=str(tmp_path / "token.json"))
    twin = pickle.loads(pickle.dumps(auth))
    with httpx.Client(auth=twin) as client:
        assert client.get(f"{server.api_url}x").status_code == 200


def test_something_else_than_a_request_of_httpx_is_refused() -> None:
    flow = TokenAuth("https://api.example.com/", fixed).sync_auth_flow(object())
    with pytest.raises(TypeError, match="signs requests of httpx and httpx2, not object"):
        next(flow)


def test_inline_renews_in_the_thread_of_the_caller(face: Face, server: TokenServer) -> None:
    request = face.client(TokenAuth(server.api_url, source(server), inline=True))
    request("GET", f"{server.api_url}x")
    server.expire_now()
    assert request("GET", f"{server.api_url}x").status_code == 200


# --- many tasks --------------------------------------------------------------------------------


def renewal_threads() -> int:
    return sum(thread.name == "tokenadapter renewal" for thread in threading.enumerate())


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_200_tasks_make_one_token_request_in_two_threads(
    library: Any, server: TokenServer, state: str
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    threads: list[int] = []

    async def main() -> None:
        async with library.AsyncClient(auth=auth, timeout=30) as client:
            if state == "revoked":
                await client.get(f"{server.api_url}x")
                server.expire_now()
            with server.hold() as hold:
                tasks = [asyncio.create_task(client.get(f"{server.api_url}x")) for _ in range(200)]
                while not hold.arrived.is_set():
                    await asyncio.sleep(0.001)
                threads.append(renewal_threads())
            done: set[Any] = set()
            while len(done) < 200:
                threads.append(renewal_threads())
                done, _ = await asyncio.wait(tasks, timeout=0.01)
            assert {task.result().status_code for task in tasks} == {200}

    asyncio.run(main())
    assert threads[0] >= 1
    assert max(threads) <= 2
    assert server.stats.token_requests == 1 + (state == "revoked")


def test_the_event_loop_goes_on_while_tasks_wait(library: Any, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, source(server))

    async def main() -> int:
        async with library.AsyncClient(auth=auth) as client:
            with server.hold() as hold:
                task = asyncio.create_task(client.get(f"{server.api_url}x"))
                turns = 0
                while not hold.arrived.is_set():
                    await asyncio.sleep(0.001)
                    turns += 1
                await asyncio.sleep(0.05)
                assert not task.done()
            assert (await task).status_code == 200
            return turns

    assert asyncio.run(main()) > 0


def test_a_task_that_is_cancelled_leaves_the_renewal_as_it_is(
    library: Any, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))

    async def main() -> None:
        async with library.AsyncClient(auth=auth, timeout=30) as client:
            with server.hold() as hold:
                tasks = [asyncio.create_task(client.get(f"{server.api_url}x")) for _ in range(5)]
                while not hold.arrived.is_set():
                    await asyncio.sleep(0.001)
                tasks[0].cancel()
                tasks[3].cancel()
                await asyncio.sleep(0.01)
                assert [task.done() for task in tasks] == [True, False, False, True, False]
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 2
            assert sum(getattr(answer, "status_code", 0) == 200 for answer in answers) == 3

    asyncio.run(main())
    assert server.stats.token_requests == 1


def test_a_task_of_trio_that_is_cancelled_leaves_the_renewal_as_it_is(
    library: Any, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))

    async def main() -> Any:
        async with library.AsyncClient(auth=auth) as client:
            with server.hold():
                with trio.move_on_after(0.1) as scope:
                    await client.get(f"{server.api_url}x")
                assert scope.cancelled_caught
            return await client.get(f"{server.api_url}x")

    assert trio.run(main).status_code == 200
    assert server.stats.token_requests == 1


def test_loops_in_several_threads_and_requests_that_block_share_one_renewal(
    library: Any, server: TokenServer
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    answers: list[int] = []

    async def ask() -> None:
        async with library.AsyncClient(auth=auth, timeout=30) as client:
            answers.append((await client.get(f"{server.api_url}x")).status_code)

    async def many() -> None:
        await asyncio.gather(*(ask() for _ in range(5)))

    def block() -> None:
        with library.Client(auth=auth, timeout=30) as client:
            answers.append(client.get(f"{server.api_url}x").status_code)

    works: list[Callable[[], object]] = [
        lambda: asyncio.run(many()),
        lambda: asyncio.run(many()),
        lambda: trio.run(ask),
        block,
    ]
    with server.hold() as hold:
        threads = [threading.Thread(target=work) for work in works]
        for thread in threads:
            thread.start()
        assert hold.arrived.wait(10)
    for thread in threads:
        thread.join()
    assert answers == [200] * 12
    assert server.stats.token_requests == 1


def test_an_error_reaches_every_task_as_its_own(library: Any, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, source(server))
    server.fail_next(400, error="invalid_grant")

    async def main() -> list[Any]:
        async with library.AsyncClient(auth=auth) as client:
            requests = (client.get(f"{server.api_url}x") for _ in range(5))
            return await asyncio.gather(*requests, return_exceptions=True)

    errors = asyncio.run(main())
    assert {type(error).__name__ for error in errors} == {"ReauthRequired"}
    assert len({id(error) for error in errors}) == 5


def test_a_stale_token_is_used_while_it_is_renewed_in_the_background(library: Any) -> None:
    with TokenServer(lifetime=100) as server:
        auth = TokenAuth(server.api_url, source(server))
        first = auth.keeper.current()
        # Of 100 s, 12 s are left: the token is stale.
        first = auth.keeper.adopt(
            first.replace(issued_at=first.issued_at - 88, expires_at=first.expires_at - 88)
        )

        async def main() -> None:
            async with library.AsyncClient(auth=auth) as client:
                with server.hold() as hold:
                    answers = await asyncio.gather(
                        *(client.get(f"{server.api_url}x") for _ in range(20))
                    )
                    assert {answer.status_code for answer in answers} == {200}
                    while not hold.arrived.is_set():
                        await asyncio.sleep(0.001)

        asyncio.run(main())
        server.wait_for(lambda stats: stats.renewals == 2)
        assert auth.keeper.wait(10)
        assert {*tokens_sent(server)} == {f"Bearer {first.access_token}"}
        assert not auth.keeper.current().is_same(first)
        assert server.stats.token_requests == 2


def test_a_fresh_token_needs_no_thread_and_no_lock(
    library: Any, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = TokenAuth(server.api_url, source(server))
    auth.keeper.current()

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("not with a fresh token")

    monkeypatch.setattr(auth.keeper, "obtain", refuse)
    monkeypatch.setattr(auth.keeper, "aobtain", refuse)

    async def main() -> int:
        async with library.AsyncClient(auth=auth) as client:
            return (await client.get(f"{server.api_url}x")).status_code

    assert asyncio.run(main()) == 200
    with library.Client(auth=auth) as client:
        assert client.get(f"{server.api_url}x").status_code == 200


def test_a_source_that_asks_for_its_own_token_gets_an_error_and_does_not_wait(
    server: TokenServer,
) -> None:
    async def ask() -> Token:
        return await keeper.acurrent()

    def source(previous: Token | None) -> str:
        with pytest.raises(TokenError, match="from within the renewal"):
            asyncio.run(ask())
        return "made-up"

    keeper = TokenKeeper(source)
    started = time.monotonic()
    assert asyncio.run(ask()).access_token == "made-up"
    assert time.monotonic() - started < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_during_a_wait_renews_for_itself(library: Any, server: TokenServer) -> None:
    auth = TokenAuth(server.api_url, client_credentials(server))

    async def ask() -> int:
        async with library.AsyncClient(auth=auth) as client:
            return int((await client.get(f"{server.api_url}x")).status_code)

    with server.hold() as hold:
        thread = threading.Thread(target=lambda: asyncio.run(ask()))
        thread.start()
        assert hold.arrived.wait(10)
        hold.release()
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                code = 0 if asyncio.run(ask()) == 200 else 2
            os._exit(code)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_nothing_of_a_request_is_kept(library: Any, server: TokenServer) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

    auth = TokenAuth(server.api_url, source(server))
    bodies = []
    with library.Client(auth=auth) as client:
        for _ in range(2):
            body = Body()
            bodies.append(weakref.ref(body))
            client.post(f"{server.api_url}x", content=body)
            del body
            server.expire_now()
    assert auth.keeper.wait(10)  # a helper may still be about to end
    gc.collect()
    assert [body() for body in bodies] == [None, None]


def test_users_of_requests_import_neither_library() -> None:
    program = (
        "import sys, tokenadapter; tokenadapter.TokenAdapter; tokenadapter.TokenPoolManager;"
        "print([n for n in ('httpx', 'httpx2', 'trio', 'asyncio') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout == "[]\n"


def test_without_either_library_the_name_tells_of_the_extra() -> None:
    program = (
        "import sys; sys.modules['httpx'] = sys.modules['httpx2'] = None\n"
        "from tokenadapter import *\n"
        "try: TokenAuth('https://api.example.com/', str)\n"
        "except ImportError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'tokenadapter[httpx]'" in told.stdout, told.stderr


@pytest.mark.parametrize("name", LIBRARIES)
def test_one_of_the_libraries_is_enough(name: str) -> None:
    (missing,) = LIBRARIES.keys() - {name}
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"import {name}, tokenadapter\n"
        "auth = tokenadapter.TokenAuth('https://api.example.com/', lambda previous: 'a')\n"
        f"{name}.Client(auth=auth).close()"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def test_httpx2_in_the_place_of_httpx_is_one_library() -> None:
    program = (
        "import httpx2; httpx2.alias_httpx(); import httpx, tokenadapter\n"
        "auth = tokenadapter.TokenAuth('https://api.example.com/', lambda previous: 'a')\n"
        "httpx.Client(auth=auth).close()"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def test_a_task_that_came_later_waits_for_its_own_time() -> None:
    """Only the time of the first task is over when the shared wait ends."""
    release = threading.Event()

    def slow(previous: Token | None) -> str:
        release.wait(10)
        return "made-up"

    keeper = TokenKeeper(slow, lock_timeout=1.0)

    async def first() -> Token | BaseException:
        try:
            return await keeper.acurrent()
        except LockTimeout as error:
            return error

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(first())]
        await asyncio.sleep(1.7)
        tasks.append(asyncio.create_task(first()))
        told = await tasks[0]
        release.set()
        return [told, await tasks[1]]

    told, token = asyncio.run(main())
    assert isinstance(told, LockTimeout)
    assert token.access_token == "made-up"


def test_a_source_and_events_have_the_context_of_the_task_and_a_store_does_not() -> None:
    request_id = ContextVar("request_id", default="none")
    seen: list[tuple[str, str]] = []

    class Store(MemoryStore):
        def save(self, *args: Any, **kwargs: Any) -> bool:
            seen.append(("store", request_id.get()))
            return super().save(*args, **kwargs)

    def function(previous: Token | None) -> dict[str, Any]:
        seen.append(("source", request_id.get()))
        return {"access_token": f"made-up-{len(seen)}"}

    async def main() -> None:
        request_id.set("request 7")
        keeper = TokenKeeper(
            function,
            Store("the context of a task"),
            on_event=lambda event: seen.append((type(event).__name__, request_id.get())),
        )
        await keeper.arenew(await keeper.acurrent())

    asyncio.run(main())
    events = ("RenewalStarted", "Renewed", "Waited")
    assert {*seen} == {
        ("source", "request 7"),
        ("store", "none"),
        *((name, "request 7") for name in events),
    }


def test_a_task_that_times_out_gets_the_token_that_is_still_valid(server: TokenServer) -> None:
    keeper = TokenKeeper(source(server))
    token = keeper.current()

    async def main() -> Any:
        with server.hold() as hold:
            waiting = asyncio.create_task(keeper.arenew(token, timeout=0.2))
            while not hold.arrived.is_set():
                await asyncio.sleep(0.001)
            with pytest.raises(LockTimeout):
                await waiting
            assert (await keeper.acurrent(timeout=0.1)).is_same(token)
        return await keeper.arenew(token)

    assert not asyncio.run(main()).is_same(token)
    assert server.stats.token_requests == 2


WORKER = """
import asyncio, sys
import httpx
from tokenadapter import RefreshToken, TokenAuth

api, token_url, first, store = sys.argv[1:]
source = RefreshToken(token_url, first, client_id="client", client_secret="secret")
auth = TokenAuth(api, source, store=store)


async def main():
    async with httpx.AsyncClient(auth=auth, timeout=30) as client:
        answers = await asyncio.gather(*(client.get(f"{api}x") for _ in range(10)))
        print({answer.status_code for answer in answers})


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
