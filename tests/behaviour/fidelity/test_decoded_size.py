"""Responses are bounded by their decoded size: some hundred bytes may decode to gigabytes."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial

import pytest
import requests
import urllib3

from tokenadapter import (
    ClientCredentials,
    Login,
    RefreshTemporarilyFailed,
    TokenAdapter,
    TokenPoolManager,
    expired_on,
)
from tokenadapter.http.responses import peek_json
from tokenadapter.testing import TokenServer

MEGABYTE = 1 << 20
# Neither ours nor urllib3's buffers come near it, and each bomb is many times as large.
MOST = 8 * MEGABYTE
SIZE = 48 * MEGABYTE


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    compress = zlib.compressobj(9, wbits=31)
    yield from map(compress.compress, pieces)
    yield compress.flush()


@cache
def bomb(layers: int, first: bytes = b"") -> bytes:
    """Spaces, compressed so many times: what parses as JSON if *first* does."""
    pieces = iter([first, *[b" " * MEGABYTE] * (SIZE // MEGABYTE)])
    for _ in range(layers):
        pieces = gzipped(pieces)
    return b"".join(pieces)


def peak(work: Callable[[], object]) -> int:
    """The most memory that *work* had at once, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(server: TokenServer, layers: int, status: int = 401, first: bytes = b"") -> None:
    body = bomb(layers, first)
    assert len(body) < SIZE / 500
    headers = {"Content-Encoding": ", ".join(["gzip"] * layers)}
    server.fail_next(
        status, endpoint="api", body=body, content_type="application/json", headers=headers
    )


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_that_is_replayed_is_not_decoded_beyond_the_limit(
    server: TokenServer, layers: int, stream: bool
) -> None:
    with requests.Session() as session:
        TokenAdapter(server.api_url, client(server)).mount(session)
        session.get(server.api_url)
        refuse(server, layers)
        answers: list[requests.Response] = []
        get = partial(session.get, server.api_url, stream=stream)
        assert peak(lambda: answers.append(get())) < MOST
        assert answers[0].status_code == 200
        # Nor is it decoded later, when the caller reads the history.
        assert peak(lambda: answers[0].history[0].content) < MOST
        assert answers[0].history[0].content == b""


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("verdict", [None, expired_on(status=401, json={"code": 1})])
def test_a_refusal_is_not_decoded_beyond_the_limit_in_the_client_for_urllib3(
    server: TokenServer, layers: int, preload: bool, verdict: Callable[..., bool] | None
) -> None:
    with TokenPoolManager(server.api_url, client(server), verdict=verdict) as http:
        http.request("GET", server.api_url)
        refuse(server, layers)
        answers: list[urllib3.BaseHTTPResponse] = []
        get = partial(http.request, "GET", server.api_url, preload_content=preload)
        assert peak(lambda: answers.append(get())) < MOST
        assert answers[0].status == 200
        answers[0].drain_conn()


def test_a_verdict_on_json_decodes_only_up_to_the_limit(server: TokenServer) -> None:
    with requests.Session() as session:
        TokenAdapter(
            server.api_url, client(server), verdict=expired_on(status=200, json={"code": 1})
        ).mount(session)
        refuse(server, 2, status=200, first=b'{"code": 1}')
        get = partial(session.get, server.api_url, stream=True)
        answers: list[requests.Response] = []
        assert peak(lambda: answers.append(get())) < MOST
        assert answers[0].history == []
        # The response belongs to the caller, and can be read in full.
        assert next(answers[0].iter_content(11)) == b'{"code": 1}'
        answers[0].close()


def test_a_verdict_decodes_a_body_only_up_to_the_limit(server: TokenServer) -> None:
    refuse(server, 2, status=200, first=b'{"code": 1}')
    response = requests.get(server.api_url, stream=True)
    assert peak(lambda: peek_json(response)) < MOST
    response.close()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_token_endpoint_has_its_answer_decoded_up_to_a_limit(
    server: TokenServer, layers: int, chunked: bool
) -> None:
    body, headers = bomb(layers), {"Content-Encoding": ", ".join(["gzip"] * layers)}
    if chunked:
        body = b"%X\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        headers["Transfer-Encoding"] = "chunked"
    for endpoint, source in (
        ("token", client(server)),
        ("login", Login(server.login_url, json={})),
    ):
        server.fail_next(200, endpoint=endpoint, body=body, headers=headers)

        def ask(source: Callable[[], object] = source) -> None:
            with pytest.raises(RefreshTemporarilyFailed, match="longer than 1 MiB"):
                source()

        assert peak(ask) < MOST


@pytest.mark.parametrize("decode", [True, False, None])
def test_urllib3_decodes_answers_as_without_us(server: TokenServer, decode: bool | None) -> None:
    text = json.dumps({"text": "made-up " * 50_000}).encode()
    body = b"".join(gzipped(iter([text])))
    how = {} if decode is None else {"decode_content": decode}
    with (
        TokenPoolManager(server.api_url, client(server)) as ours,
        urllib3.PoolManager() as plain,
    ):
        token = ours.keeper.current()
        results = []
        for http, headers in (
            (ours, {}),
            (plain, {"Authorization": f"Bearer {token.access_token}"}),
        ):
            server.fail_next(400, endpoint="api", body=body, headers={"Content-Encoding": "gzip"})
            answer = http.request("GET", server.api_url, headers=headers, **how)
            assert isinstance(answer, urllib3.HTTPResponse)
            results.append((answer.data, answer.decode_content, answer.closed, answer.tell()))
        assert results[0] == results[1]
        assert results[0][0] == (body if decode is False else text)


def test_an_undecodable_answer_is_an_error_of_urllib3_as_without_us(server: TokenServer) -> None:
    headers = {"Content-Encoding": "gzip"}
    with TokenPoolManager(server.api_url, client(server)) as http:
        server.fail_next(400, endpoint="api", body=b"not gzip", headers=headers)
        with pytest.raises(urllib3.exceptions.DecodeError):
            http.request("GET", server.api_url)
