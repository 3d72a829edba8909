"""The token server does what it says: as an authority, as an API, and as a saboteur."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import multiprocessing
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from requests.auth import HTTPBasicAuth

from tokenadapter.testing import TokenServer
from tokenadapter.testing.authority import Authority, Refused

CLIENT = ("client", "secret")
TIMEOUT = 10


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


Auth = tuple[str, str] | HTTPBasicAuth | None


def ask(server: TokenServer, auth: Auth = CLIENT, **form: str) -> requests.Response:
    return requests.post(
        server.token_url, data=form, auth=auth, timeout=TIMEOUT, allow_redirects=False
    )


def refresh(server: TokenServer, token: dict[str, Any], **form: str) -> requests.Response:
    form |= {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    return ask(server, CLIENT, **form)


def call(
    server: TokenServer, token: dict[str, Any], method: str = "GET", path: str = "x", **kwargs: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {token['access_token']}", **kwargs.pop("headers", {})}
    url = server.api_url + path
    return requests.request(method, url, headers=headers, timeout=TIMEOUT, **kwargs)


def answer_to(server: TokenServer, *pieces: bytes) -> bytes:
    """All that the server answers to these bytes on a connection of their own."""
    with connect(server) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def connect(server: TokenServer) -> socket.socket:
    port = int(server.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def in_background(work: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        with contextlib.suppress(requests.RequestException):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(TIMEOUT)
    return not thread.is_alive()


# Start and stop


def test_stopping_leaves_no_thread_and_no_socket() -> None:
    before = set(threading.enumerate())
    with TokenServer() as server, requests.Session() as session:
        session.get(server.public_url, timeout=TIMEOUT)  # the connection stays open
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_stopping_does_not_wait_for_a_connection_on_which_nothing_comes() -> None:
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
def test_stopping_ends_a_request_under_way(trouble: str) -> None:
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


def test_a_request_that_is_held_when_the_server_stops_is_not_carried_out() -> None:
    server = TokenServer().start()
    with server.hold() as hold:
        client = in_background(lambda: ask(server, grant_type="client_credentials"))
        assert hold.arrived.wait(TIMEOUT)
        server.stop()
        assert ended(client)
    assert server.stats.renewals == 0


def test_a_server_started_again_has_its_port_and_its_memory() -> None:
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
    assert server.revoke_url == f"{server.url}/revoke"
    assert server.api_url == f"{server.url}/api/"
    assert server.public_url == f"{server.url}/public/"


# Grants and client authentication


def test_client_credentials_give_an_access_token_and_no_refresh_token(server: TokenServer) -> None:
    response = ask(server, grant_type="client_credentials", scope="a b")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    token = response.json()
    assert token == {
        "access_token": token["access_token"],
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "a b",
    }
    assert call(server, token).ok


def test_a_password_gives_a_refresh_token_too(server: TokenServer) -> None:
    response = ask(server, grant_type="password", username="user", password="password")
    assert call(server, response.json()).ok
    assert refresh(server, response.json()).ok


def test_the_secret_may_stand_in_the_form(server: TokenServer) -> None:
    form = {"grant_type": "client_credentials", "client_id": "client"}
    assert ask(server, None, client_secret="secret", **form).ok
    assert ask(server, None, client_secret="wrong", **form).status_code == 401
    assert ask(server, None, **form).status_code == 401


@pytest.mark.parametrize("auth", [None, ("app", "")])
def test_a_client_without_a_secret_gives_its_name_alone(auth: tuple[str, str] | None) -> None:
    with TokenServer(clients={"app": None}) as server:
        assert ask(server, auth, grant_type="client_credentials", client_id="app").ok


def test_name_and_secret_are_form_encoded_in_basic() -> None:
    name, secret = "https://app:1/", "p+ss w%rd:ü"
    with TokenServer(clients={name: secret}) as server:
        encoded = HTTPBasicAuth(quote(name, safe=""), quote(secret, safe=""))
        assert ask(server, encoded, grant_type="client_credentials").ok
        plain = HTTPBasicAuth(name.encode(), secret.encode())
        assert ask(server, plain, grant_type="client_credentials").status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic " + base64.b64encode(b"client:wrong").decode(),
        "Basic " + base64.b64encode(b"nobody:secret").decode(),
        "Basic " + base64.b64encode(b"client").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic ???",
        "Bearer " + base64.b64encode(b"client:secret").decode(),
        "Basic",
    ],
)
def test_a_client_that_is_not_known_gets_invalid_client(
    server: TokenServer, authorization: str
) -> None:
    response = requests.post(
        server.token_url,
        data={"grant_type": "client_credentials"},
        headers={"Authorization": authorization},
        timeout=TIMEOUT,
    )
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert server.stats.refusals == 1


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "client_credentials", "client_secret": "secret"}, "invalid_request"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "user", "password": "no"}, "invalid_grant"),
        ({"grant_type": "password", "username": "no", "password": "password"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "no"}, "invalid_grant"),
    ],
)
def test_a_bad_request_gets_its_oauth_error(
    server: TokenServer, form: dict[str, str], error: str
) -> None:
    response = ask(server, CLIENT, **form)
    assert response.status_code == 400
    assert response.json()["error"] == error
    assert response.json()["error_description"]
    assert server.stats.refusals == 1
    assert server.stats.renewals == 0


def test_a_refresh_token_belongs_to_its_client() -> None:
    with TokenServer(clients={"one": "1", "two": "2"}) as server:
        token = server.issue(client="two")["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": token}
        assert ask(server, ("one", "1"), **form).json()["error"] == "invalid_grant"
        assert ask(server, ("two", "2"), **form).ok


def test_a_refresh_may_narrow_the_scope_and_not_widen_it(server: TokenServer) -> None:
    token = server.issue(scope="read write")
    narrow = refresh(server, token, scope="read").json()
    assert narrow["scope"] == "read"
    assert refresh(server, narrow, scope="read admin").json()["error"] == "invalid_scope"
    assert refresh(server, narrow).json()["scope"] == "read write"
    assert refresh(server, server.issue(), scope="x").json()["error"] == "invalid_scope"


def test_the_token_endpoints_want_a_post(server: TokenServer) -> None:
    for url in (server.token_url, server.revoke_url):
        response = requests.get(url, timeout=TIMEOUT)
        assert response.status_code == 405
        assert response.headers["Allow"] == "POST"


# The life of a token


def test_an_access_token_lives_for_its_lifetime() -> None:
    clock = Clock()
    with TokenServer(lifetime=2, clock=clock) as server:
        token = server.issue()
        assert token["expires_in"] == 2
        clock.now += 1.9
        assert call(server, token).ok
        clock.now += 0.1
        assert call(server, token).status_code == 401
        assert call(server, refresh(server, token).json()).ok


def test_without_a_lifetime_nothing_is_said_of_expiry_and_nothing_expires() -> None:
    clock = Clock()
    with TokenServer(lifetime=None, clock=clock) as server:
        token = server.issue()
        assert "expires_in" not in token
        clock.now += 1e9
        assert call(server, token).ok


def test_issue_logs_in_the_first_user_of_the_first_client_unless_told_otherwise() -> None:
    clients, users = {"one": "1", "two": "2"}, {"ann": "x", "bob": "y"}
    with TokenServer(clients=clients, users=users) as server:
        token = server.issue(scope="a")
        assert set(token) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
        assert server.issue(user="bob", client="two")["access_token"] != token["access_token"]
        assert server.stats.renewals == 0


def test_expire_now_ends_access_tokens_and_no_refresh_token(server: TokenServer) -> None:
    token = server.issue()
    server.expire_now()
    assert call(server, token).status_code == 401
    assert call(server, refresh(server, token).json()).ok


def test_revoking_an_access_token_ends_that_one_alone(server: TokenServer) -> None:
    token = server.issue()
    server.revoke(token["access_token"])
    assert call(server, token).status_code == 401
    assert refresh(server, token).ok
    with pytest.raises(LookupError):
        server.revoke(token["access_token"])


def test_revoking_a_refresh_token_ends_its_family(server: TokenServer) -> None:
    token, other = server.issue(), server.issue()
    child = refresh(server, token).json()
    server.revoke(token["refresh_token"])
    assert call(server, token).status_code == call(server, child).status_code == 401
    assert refresh(server, child).json()["error"] == "invalid_grant"
    assert call(server, other).ok
    assert server.stats.families_revoked == 1
    assert server.stats.reuse_detections == 0


def test_revoke_all_ends_everything(server: TokenServer) -> None:
    token = server.issue()
    tokens = [token, refresh(server, token).json(), server.issue()]  # of two families
    own = ask(server, grant_type="client_credentials").json()
    server.revoke_all()
    assert [call(server, token).status_code for token in (*tokens, own)] == [401] * 4
    assert [refresh(server, token).status_code for token in tokens] == [400] * 3
    assert server.stats.families_revoked == 2


def test_the_revocation_endpoint_revokes_for_a_client_it_knows(server: TokenServer) -> None:
    token = server.issue()
    form = {"token": token["refresh_token"]}
    refused = requests.post(server.revoke_url, data=form, auth=("client", "no"), timeout=TIMEOUT)
    assert refused.status_code == 401
    assert call(server, token).ok
    for _ in range(2):  # a token that is no more counts as revoked
        assert requests.post(server.revoke_url, data=form, auth=CLIENT, timeout=TIMEOUT).ok
    assert call(server, token).status_code == 401


# Rotation and reuse


def test_a_refresh_rotates_and_the_access_token_before_lives_on(server: TokenServer) -> None:
    token = server.issue()
    child = refresh(server, token).json()
    assert child["refresh_token"] != token["refresh_token"]
    assert call(server, token).ok
    assert call(server, child).ok
    assert server.stats.refreshes == server.stats.renewals == 1


def test_a_spent_refresh_token_shown_again_ends_the_family(server: TokenServer) -> None:
    token = server.issue()
    child = refresh(server, token).json()
    assert refresh(server, token).json()["error"] == "invalid_grant"
    assert refresh(server, child).json()["error"] == "invalid_grant"
    assert call(server, token).status_code == call(server, child).status_code == 401
    assert server.stats.reuse_detections == server.stats.families_revoked == 1


def test_without_reuse_detection_a_spent_refresh_token_is_just_refused() -> None:
    with TokenServer(reuse_detection=False) as server:
        token = server.issue()
        child = refresh(server, token).json()
        assert refresh(server, token).json()["error"] == "invalid_grant"
        assert refresh(server, child).ok
        assert server.stats.reuse_detections == server.stats.families_revoked == 0


def test_without_rotation_the_refresh_token_stays_and_is_not_sent_again() -> None:
    with TokenServer(rotate=False) as server:
        token = server.issue()
        for _ in range(3):
            assert "refresh_token" not in refresh(server, token).json()
        assert server.stats.refreshes == 3


def test_within_its_grace_the_previous_refresh_token_gives_one_more_of_the_latest() -> None:
    clock = Clock()
    with TokenServer(grace=5, clock=clock) as server:
        token = server.issue()
        first = refresh(server, token).json()
        clock.now += 4.9
        second = refresh(server, token).json()
        assert call(server, second).ok
        assert first["refresh_token"] != second["refresh_token"]
        assert refresh(server, first).ok  # good still, though the second was given out since
        assert refresh(server, second).ok  # of the previous generation now, and in its grace
        assert server.stats.reuse_detections == 0


def test_the_grace_counts_from_the_rotation() -> None:
    clock = Clock()
    with TokenServer(grace=5, clock=clock) as server:
        token = server.issue()
        refresh(server, token)
        clock.now += 3
        assert refresh(server, token).ok
        clock.now += 2
        assert refresh(server, token).status_code == 400
        assert server.stats.reuse_detections == 1


def test_the_grace_is_over_when_the_new_refresh_token_is_spent() -> None:
    with TokenServer(grace=3600) as server:
        token = server.issue()
        refresh(server, refresh(server, token).json())
        assert refresh(server, token).status_code == 400
        assert server.stats.reuse_detections == 1


@given(picks=st.lists(st.integers(0, 20), max_size=20))
def test_without_grace_only_the_latest_of_an_unbroken_family_is_good(picks: list[int]) -> None:
    authority = Authority(
        clients={"client": "secret"},
        users={},
        lifetime=None,
        rotate=True,
        grace=0,
        reuse_detection=True,
        clock=Clock(),
    )
    family = [authority.issue("client", "user", None)["refresh_token"]]
    broken = False
    for pick in picks:
        presented = family[pick % len(family)]
        good = presented == family[-1] and not broken
        try:
            form = {"grant_type": "refresh_token", "refresh_token": presented}
            family.append(authority.token("client", form)["refresh_token"])
            assert good
        except Refused:
            assert not good
            broken = True
    assert authority.reuse_detections == broken


def test_of_many_threads_with_one_refresh_token_one_is_served(server: TokenServer) -> None:
    token = server.issue()
    barrier = threading.Barrier(16)

    def race(_: int) -> int:
        barrier.wait(TIMEOUT)
        return refresh(server, token).status_code

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(race, range(16))) == [200] + [400] * 15
    assert server.stats.token_requests == 16
    assert (server.stats.refreshes, server.stats.reuse_detections) == (1, 1)


# The API


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


def test_a_request_without_a_token_is_told_the_scheme_and_no_error(server: TokenServer) -> None:
    response = requests.get(server.api_url, timeout=TIMEOUT)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert (server.stats.api_requests, server.stats.api_refused) == (1, 1)


@pytest.mark.parametrize("authorization", ["Bearer no", "Basic {}", "bearer {}x"])
def test_a_bad_token_is_an_invalid_token(server: TokenServer, authorization: str) -> None:
    header = authorization.format(server.issue()["access_token"])
    response = requests.get(server.api_url, headers={"Authorization": header}, timeout=TIMEOUT)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_the_word_bearer_has_no_case(server: TokenServer) -> None:
    token = server.issue()["access_token"]
    assert requests.get(
        server.api_url, headers={"Authorization": f"bEARER {token}"}, timeout=TIMEOUT
    ).ok


@pytest.mark.parametrize(("scheme", "text"), [("", "{}"), ("token", "token {}")])
def test_the_token_may_stand_in_another_header(scheme: str, text: str) -> None:
    with TokenServer(header="X-Api-Token", scheme=scheme) as server:
        token = server.issue()
        header = {"X-Api-Token": text.format(token["access_token"])}
        echo = requests.get(server.api_url, headers=header, timeout=TIMEOUT).json()
        assert echo["headers"]["x-api-token"] == text.format(fingerprint(token["access_token"]))
        assert call(server, token).status_code == 401


def test_the_public_api_asks_for_nothing_and_shows_no_secret(server: TokenServer) -> None:
    response = requests.get(
        server.public_url + "x", headers={"Authorization": "Bearer mine"}, timeout=TIMEOUT
    )
    assert response.json()["path"] == "/public/x"
    assert response.json()["headers"]["authorization"] == f"Bearer {fingerprint('mine')}"
    assert server.stats.api_requests == 0


@pytest.mark.parametrize("path", ["", "/", "/api", "/apix/", "/token/x"])
def test_elsewhere_is_nothing(server: TokenServer, path: str) -> None:
    assert requests.get(server.url + path, timeout=TIMEOUT).status_code == 404
    assert server.requests[0].path == (path or "/")


def test_a_redirect_leads_where_it_is_told(server: TokenServer) -> None:
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


def test_a_large_body_is_not_kept(server: TokenServer, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(20_000_000)
    with big.open("rb") as file:
        response = call(server, server.issue(), "PUT", data=file)
    assert response.json()["length"] == 20_000_000
    assert server.requests[-1].length == 20_000_000
    assert server.requests[-1].body == b""


def test_the_body_of_a_refused_request_is_read_too(server: TokenServer) -> None:
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
def test_what_is_not_http_gets_a_400_and_an_end(server: TokenServer, nonsense: bytes) -> None:
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
def test_a_client_that_leaves_halfway_harms_nobody(server: TokenServer, torso: bytes) -> None:
    assert answer_to(server, torso) == b""
    assert server.requests == ()
    assert requests.get(server.public_url, timeout=TIMEOUT).ok


# Failures on demand


def test_a_failure_is_played_as_often_as_said_and_carries_nothing_out(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(count=2)
    for _ in range(2):
        response = refresh(server, token)
        assert response.status_code == 503
        assert response.json() == {"error": "temporarily_unavailable"}
    assert refresh(server, token).ok
    assert server.stats.failures == 2
    assert server.stats.token_requests == 3
    assert server.stats.refusals == server.stats.reuse_detections == 0


def test_failures_come_in_the_order_given_and_each_at_its_endpoint(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(500)
    server.fail_next(502)
    server.fail_next(418, endpoint="api")
    server.fail_next(504, endpoint="public")
    server.fail_next(429, endpoint="revoke")
    assert call(server, token).status_code == 418
    assert call(server, token).status_code == 200
    assert [refresh(server, token).status_code for _ in range(3)] == [500, 502, 200]
    assert requests.get(server.public_url, timeout=TIMEOUT).status_code == 504
    assert requests.post(server.revoke_url, timeout=TIMEOUT).status_code == 429


@pytest.mark.parametrize(
    ("status", "endpoint", "error"),
    [
        (500, "token", "server_error"),
        (429, "token", "temporarily_unavailable"),
        (400, "token", "invalid_request"),
        (401, "token", "invalid_client"),
        (401, "api", "invalid_token"),
        (403, "api", "insufficient_scope"),
    ],
)
def test_a_failure_has_the_error_that_suits_it(
    server: TokenServer, status: int, endpoint: Any, error: str
) -> None:
    server.fail_next(status, endpoint=endpoint)
    response = (
        call(server, server.issue()) if endpoint == "api" else refresh(server, server.issue())
    )
    assert response.status_code == status
    assert response.json() == {"error": error}
    challenge = f'Bearer error="{error}"' if endpoint == "api" else None
    assert response.headers.get("WWW-Authenticate") == challenge


def test_an_error_alone_is_a_400(server: TokenServer) -> None:
    server.fail_next(error="invalid_grant")
    response = refresh(server, server.issue())
    assert (response.status_code, response.json()) == (400, {"error": "invalid_grant"})


def test_retry_after_and_any_header_can_be_set(server: TokenServer) -> None:
    server.fail_next(429, retry_after=7, headers={"X-One": "1"})
    headers = refresh(server, server.issue()).headers
    assert (headers["Retry-After"], headers["X-One"]) == ("7", "1")
    server.fail_next(401, endpoint="api", headers={"WWW-Authenticate": "Negotiate"})
    assert call(server, server.issue()).headers["WWW-Authenticate"] == "Negotiate"


@pytest.mark.parametrize(
    ("body", "content_type", "sent", "sent_type"),
    [
        ("<p>ü", None, "<p>ü".encode(), "text/html; charset=utf-8"),
        (b"\xff", "text/plain", b"\xff", "text/plain"),
        ('{"access_', "application/json", b'{"access_', "application/json"),
        ({"ok": False}, None, b'{"ok": false}', "application/json"),
        ([], "text/json", b"[]", "text/json"),
        ("", None, b"", "text/html; charset=utf-8"),
    ],
)
def test_the_body_can_be_anything(
    server: TokenServer, body: Any, content_type: str | None, sent: bytes, sent_type: str
) -> None:
    server.fail_next(200, body=body, content_type=content_type)
    response = refresh(server, server.issue())
    assert (response.status_code, response.content) == (200, sent)
    assert response.headers["Content-Type"] == sent_type


def test_a_failure_can_come_after_the_request_was_carried_out(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(502, processed=True)
    assert refresh(server, token).status_code == 502
    assert server.stats.refreshes == 1
    assert refresh(server, token).status_code == 400  # it was rotated


def test_the_token_endpoint_can_redirect(server: TokenServer) -> None:
    server.fail_next(redirect="http://elsewhere.invalid/token")
    response = refresh(server, server.issue())
    assert response.status_code == 307
    assert response.headers["Location"] == "http://elsewhere.invalid/token"


def test_a_dropped_answer_is_lost_after_the_rotation(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(drop=True)
    with pytest.raises(requests.ConnectionError):
        refresh(server, token)
    assert server.stats.refreshes == 1
    assert server.requests[-1].status is None
    refresh(server, token)
    assert server.stats.reuse_detections == 1


def test_a_reset_comes_before_anything_is_done(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(reset=True)
    with pytest.raises(requests.ConnectionError, match="reset"):
        refresh(server, token)
    assert server.stats.refreshes == 0
    assert refresh(server, token).ok


@pytest.mark.parametrize("processed", [False, True])
def test_a_request_can_be_left_hanging(server: TokenServer, processed: bool) -> None:
    token = server.issue()
    server.fail_next(hang=True, processed=processed)
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            server.token_url,
            data={"grant_type": "refresh_token", "refresh_token": token["refresh_token"]},
            auth=CLIENT,
            timeout=0.05,
        )
    server.wait_for(lambda stats: stats.token_requests == 1)
    assert refresh(server, token).ok is not processed


def test_a_dripping_answer_is_the_genuine_one_byte_by_byte(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(drip=0.0)
    assert call(server, refresh(server, token).json()).ok
    assert server.stats.refreshes == 1


def test_another_answer_can_drip_too(server: TokenServer) -> None:
    server.fail_next(503, drip=0.0)
    assert refresh(server, server.issue()).json()["error"] == "temporarily_unavailable"
    assert server.stats.refreshes == 0


def test_a_drip_sends_the_first_byte_alone(server: TokenServer) -> None:
    server.fail_next(endpoint="public", drip=3600)
    with connect(server) as connection:
        connection.sendall(b"GET /public/ HTTP/1.1\r\n\r\n")
        assert connection.recv(100) == b"H"


def test_a_failure_has_one_ending(server: TokenServer) -> None:
    with pytest.raises(ValueError, match="exclude"):
        server.fail_next(hang=True, drop=True)


def test_an_outage_lasts_until_its_block_is_left(server: TokenServer) -> None:
    token = server.issue()
    with server.outage(502, retry_after="soon"):
        for _ in range(3):
            assert refresh(server, token).status_code == 502
        assert refresh(server, token).headers["Retry-After"] == "soon"
        assert call(server, token).ok
    assert refresh(server, token).ok
    with server.outage(endpoint="api"):
        assert call(server, token).status_code == 503
    assert call(server, token).ok


def test_a_failure_without_end_lasts_until_recovery(server: TokenServer) -> None:
    token = server.issue()
    server.fail_next(count=None)
    assert [refresh(server, token).status_code for _ in range(3)] == [503] * 3
    server.recover()
    assert refresh(server, token).ok


# Latency and holds


def test_latency_delays_the_answer_and_not_the_rotation(server: TokenServer) -> None:
    server.latency = 3600
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            server.token_url,
            data={"grant_type": "client_credentials"},
            auth=CLIENT,
            timeout=0.05,
        )
    server.wait_for(lambda stats: stats.renewals == 1)
    server.latency = 0
    assert ask(server, grant_type="client_credentials").ok


def test_the_api_has_a_latency_of_its_own(server: TokenServer) -> None:
    server.api_latency = 3600
    token = ask(server, grant_type="client_credentials").json()
    header = {"Authorization": f"Bearer {token['access_token']}"}
    with pytest.raises(requests.ReadTimeout):
        requests.get(server.api_url, headers=header, timeout=0.05)
    assert requests.get(server.public_url, timeout=TIMEOUT).ok


@pytest.mark.parametrize("processed", [False, True])
def test_a_hold_stops_a_renewal_before_or_after_it_is_carried_out(
    server: TokenServer, processed: bool
) -> None:
    token = server.issue()
    with server.hold(processed=processed) as hold:
        assert not hold.arrived.is_set()
        client = in_background(lambda: refresh(server, token))
        assert hold.arrived.wait(TIMEOUT)
        assert server.stats.refreshes == processed
        assert server.requests[-1].form["refresh_token"] == token["refresh_token"]
        assert server.requests[-1].status is None
        assert call(server, token).ok  # the API goes on
    assert ended(client)
    assert server.stats.refreshes == 1


def test_a_hold_released_early_stops_nobody_any_more(server: TokenServer) -> None:
    token = server.issue()
    with server.hold(endpoint="api") as hold:
        client = in_background(lambda: call(server, token))
        assert hold.arrived.wait(TIMEOUT)
        hold.release()
        assert ended(client)
        assert call(server, token).ok


# What was seen


def test_the_log_has_each_request_as_it_came(server: TokenServer) -> None:
    clock = Clock()
    with TokenServer(clock=clock) as server:
        token = server.issue()
        requests.post(
            server.token_url,
            data=[
                ("grant_type", "refresh_token"),
                ("refresh_token", token["refresh_token"]),
                ("resource", "one"),
                ("resource", "two"),
            ],
            auth=CLIENT,
            timeout=TIMEOUT,
        )
        clock.now += 1
        call(server, {"access_token": "bad"}, "PUT", "y?q=1", data=b"body")
        renewal, refused = server.requests
    assert (renewal.method, renewal.path, renewal.status) == ("POST", "/token", 200)
    assert renewal.form["refresh_token"] == token["refresh_token"]
    assert renewal.body.endswith(b"resource=one&resource=two")
    assert renewal.headers["authorization"].startswith("Basic ")
    assert renewal.time == 1_000_000.0
    assert renewal.peer.startswith("127.0.0.1:")
    assert (refused.method, refused.path, refused.query) == ("PUT", "/api/y", "q=1")
    assert (refused.status, refused.time, refused.form) == (401, 1_000_001.0, {})
    assert (refused.length, refused.sha256) == (4, hashlib.sha256(b"body").hexdigest())
    assert renewal.peer != refused.peer


def test_the_repr_of_a_request_shows_no_secret(server: TokenServer) -> None:
    token = server.issue()
    refresh(server, token)
    call(server, token, params={"access_token": token["access_token"]})
    for request in server.requests:
        shown = repr(request)
        assert request.path in shown
        assert token["access_token"] not in shown
        assert token["refresh_token"] not in shown
        assert base64.b64encode(b"client:secret").decode() not in shown


def test_repeated_headers_are_joined(server: TokenServer) -> None:
    answer_to(server, b"GET /public/ HTTP/1.1\r\nX-One: 1\r\nx-one: 2\r\n\r\n")
    assert server.requests[-1].headers == {"x-one": "1, 2"}


def test_stats_are_a_snapshot(server: TokenServer) -> None:
    before = server.stats
    ask(server, grant_type="client_credentials")
    assert before.token_requests == 0
    assert server.stats.token_requests == server.stats.renewals == 1
    with pytest.raises(AttributeError):
        before.token_requests = 1  # type: ignore[misc]


def test_wait_for_returns_when_the_counters_are_as_wished(server: TokenServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.wait_for, lambda stats: stats.families_revoked == 1)
        server.revoke(server.issue()["refresh_token"])
        assert waiting.result(TIMEOUT).families_revoked == 1
    assert server.wait_for(lambda _: True) == server.stats


def test_wait_for_says_what_the_counters_were_when_they_did_not_get_there(
    server: TokenServer,
) -> None:
    with pytest.raises(TimeoutError, match="renewals=0"):
        server.wait_for(lambda stats: stats.renewals == 1, timeout=0)


# Other processes


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
def test_a_lost_connection_is_seen_although_a_forked_child_lives(
    server: TokenServer, ending: str
) -> None:
    server.fail_next(drop=ending == "drop", reset=ending == "reset")
    with server.hold() as hold:
        client = in_background(lambda: ask(server, grant_type="client_credentials"))
        assert hold.arrived.wait(TIMEOUT)
        with forked_child():
            hold.release()
            assert ended(client)


# HTTPS


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[TokenServer, str]]:
    """A server with a certificate, and the file with its issuer's."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with TokenServer(tls=context) as server:
        yield server, str(bundle)


def test_with_a_tls_context_it_speaks_https(secure: tuple[TokenServer, str]) -> None:
    server, bundle = secure
    assert server.token_url.startswith("https://127.0.0.1:")
    form = {"grant_type": "client_credentials"}
    response = requests.post(
        server.token_url, data=form, auth=CLIENT, verify=bundle, timeout=TIMEOUT
    )
    assert call(server, response.json(), verify=bundle).ok
    server.fail_next(drop=True)
    with pytest.raises(requests.ConnectionError):
        requests.post(server.token_url, data=form, auth=CLIENT, verify=bundle, timeout=TIMEOUT)


def test_a_client_that_never_shakes_hands_does_not_stop_the_others(
    secure: tuple[TokenServer, str],
) -> None:
    server, bundle = secure
    with connect(server):
        assert requests.get(server.public_url, verify=bundle, timeout=TIMEOUT).ok
        server.stop()
