"""The API that the tokens are for: it lets in, refuses, and echoes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import TIMEOUT, answer_to, call, connect, fingerprint


def test_the_api_echoes_the_request(server: TokenServer) -> None:
    token = server.issue()
    response = call(
        server, token, "PATCH", "a/b%20c", params={"q": "ü"}, data=b"body", headers={"X-One": "1"}
    )
    echo = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert (echo["method"], echo["path"]) == ("PATCH", "/api/a/b%20c")
    assert echo["query"] == "q=%C3%BC"
    assert echo["headers"]["x-one"] == "1"
    assert echo["headers"]["authorization"] == f"Bearer {fingerprint(token['access_token'])}"
    assert (echo["length"], echo["sha256"]) == (4, hashlib.sha256(b"body").hexdigest())
    assert [echo["count"], call(server, token).json()["count"]] == [1, 2]
    assert token["access_token"] not in response.text


def test_a_request_without_a_token_gets_a_challenge_without_an_error(server: TokenServer) -> None:
    response = requests.get(server.api_url, timeout=TIMEOUT)
    assert response.status_code == 401
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="api", resource_metadata="http://127.0.0.1:')
    assert (server.stats.api_requests, server.stats.api_refused) == (1, 1)


@pytest.mark.parametrize("authorization", ["Bearer no", "Basic {}", "bearer {}x"])
def test_a_bad_token_is_an_invalid_token(server: TokenServer, authorization: str) -> None:
    header = authorization.format(server.issue()["access_token"])
    response = requests.get(server.api_url, headers={"Authorization": header}, timeout=TIMEOUT)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token", ')


def test_the_scheme_bearer_is_case_insensitive(server: TokenServer) -> None:
    token = server.issue()["access_token"]
    assert requests.get(
        server.api_url, headers={"Authorization": f"bEARER {token}"}, timeout=TIMEOUT
    ).ok


@pytest.mark.parametrize(("scheme", "text"), [("", "{}"), ("token", "token {}")])
def test_the_token_may_be_in_another_header(scheme: str, text: str) -> None:
    with TokenServer(header="X-Api-Token", scheme=scheme) as server:
        token = server.issue()
        header = {"X-Api-Token": text.format(token["access_token"])}
        echo = requests.get(server.api_url, headers=header, timeout=TIMEOUT).json()
        assert echo["headers"]["x-api-token"] == text.format(fingerprint(token["access_token"]))
        assert call(server, token).status_code == 401


def test_the_public_api_requires_no_token_and_shows_no_secret(server: TokenServer) -> None:
    response = requests.get(
        server.public_url + "x", headers={"Authorization": "Bearer mine"}, timeout=TIMEOUT
    )
    assert response.json()["path"] == "/public/x"
    assert response.json()["headers"]["authorization"] == f"Bearer {fingerprint('mine')}"
    assert server.stats.api_requests == 0


@pytest.mark.parametrize("path", ["", "/", "/api", "/apix/", "/token/x"])
def test_an_unknown_path_is_not_found(server: TokenServer, path: str) -> None:
    assert requests.get(server.url + path, timeout=TIMEOUT).status_code == 404
    assert server.requests[0].path == (path or "/")


def test_a_redirect_leads_to_the_given_url(server: TokenServer) -> None:
    token = server.issue()
    to = {"to": server.public_url + "there?a=1"}
    response = call(server, token, path="redirect", params=to)
    assert response.json()["path"] == "/public/there"
    assert [step.status_code for step in response.history] == [302]
    response = call(
        server, token, "POST", "redirect", params={**to, "status": "307"}, data=b"again"
    )
    assert (response.json()["method"], response.json()["length"]) == ("POST", 5)
    assert requests.get(server.api_url + "redirect", params=to, timeout=TIMEOUT).status_code == 401


def test_a_body_in_chunks_is_read_to_its_end(server: TokenServer) -> None:
    pieces = [b"a" * size for size in (1, 70_000, 300)]
    with requests.Session() as session:
        for _ in range(2):  # nothing of it is left on the connection
            response = session.post(server.public_url, data=iter(pieces), timeout=TIMEOUT)
            assert response.json()["headers"]["transfer-encoding"] == "chunked"
            assert response.json()["length"] == 70_301
            assert response.json()["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_chunks_may_have_extensions_and_a_trailer(server: TokenServer) -> None:
    answer = answer_to(
        server,
        b"POST /public/ HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"GET /public/next HTTP/1.1\r\nConnection: close\r\n\r\n",
    )
    first, second = (json.loads(part.split(b"HTTP")[0]) for part in answer.split(b"\r\n\r\n")[1:])
    assert (first["length"], second["path"]) == (13, "/public/next")


def test_a_large_body_is_not_stored(server: TokenServer, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(20_000_000)
    with big.open("rb") as file:
        response = call(server, server.issue(), "PUT", data=file)
    assert response.json()["length"] == 20_000_000
    assert server.requests[-1].length == 20_000_000
    assert server.requests[-1].body == b""


def test_the_body_of_a_refused_request_is_read(server: TokenServer) -> None:
    with requests.Session() as session:
        for _ in range(2):
            url, body = server.api_url, b"x" * 1_000_000
            assert session.post(url, data=body, timeout=TIMEOUT).status_code == 401
        assert len({request.peer for request in server.requests}) == 1


def test_a_head_request_gets_no_body(server: TokenServer) -> None:
    answer = answer_to(server, b"HEAD /public/ HTTP/1.1\r\n\r\n")
    head, body = answer.split(b"\r\n\r\n")
    assert int(head.rpartition(b"Content-Length: ")[2]) > 0
    assert body == b""


def test_a_status_without_a_body_gets_none(server: TokenServer) -> None:
    server.fail_next(204, endpoint="public")
    assert answer_to(server, b"GET /public/ HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_client_that_waits_for_100_continue_gets_it(server: TokenServer) -> None:
    answer = answer_to(
        server,
        b"POST /public/ HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        b"abc",
    )
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_connections_are_kept_unless_the_client_says_otherwise(server: TokenServer) -> None:
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.public_url, timeout=TIMEOUT)
        assert len({request.peer for request in server.requests}) == 1
    for head in (b"GET /public/ HTTP/1.1\r\nConnection: Close", b"GET /public/ HTTP/1.0"):
        with connect(server) as connection:
            connection.sendall(head + b"\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))  # ends by itself
        assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HELLO\r\n\r\n",
        b"GET /public/ HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /public/ HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET /public/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_invalid_http_gets_a_400_and_closes_the_connection(
    server: TokenServer, nonsense: bytes
) -> None:
    answer = answer_to(server, nonsense)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "torso",
    [
        b"",
        b"GET /pub",
        b"POST /public/ HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
        b"POST /public/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
    ],
)
def test_a_client_that_disconnects_affects_no_other(server: TokenServer, torso: bytes) -> None:
    assert answer_to(server, torso) == b""
    assert server.requests == ()
    assert requests.get(server.public_url, timeout=TIMEOUT).ok
