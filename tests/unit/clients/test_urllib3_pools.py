"""Bare urllib3: each hop is signed and replayed separately, and otherwise unchanged."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import pickle
import ssl
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3
from behaviour.fidelity.proxy import Proxy, SocksProxy
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, PoolManager, Retry, Timeout
from urllib3.contrib.socks import SOCKSProxyManager
from urllib3.exceptions import HTTPError, MaxRetryError

from tokenadapter import (
    ClientCredentials,
    LockTimeout,
    MemoryStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    StoreError,
    Token,
    TokenAdapter,
    TokenError,
    TokenKeeper,
    TokenPoolManager,
    UnsafeTarget,
    expired_on,
    retrofit,
)
from tokenadapter.clients.urllib3_hop import for_urllib3
from tokenadapter.testing import Request, TokenServer


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


def fixed(text: str) -> Any:
    def source(previous: Token | None) -> str:
        return text

    return source


def numbered(previous: Token | None) -> str:
    return str(1 if previous is None else int(previous.access_token) + 1)


def port_of(server: TokenServer) -> int:
    return int(server.url.rpartition(":")[2])


def to_api(server: TokenServer) -> list[Request]:
    """All requests but token requests."""
    return [request for request in server.requests if request.path != "/token"]


def authorizations(server: TokenServer) -> list[str | None]:
    return [request.headers.get("authorization") for request in to_api(server)]


@pytest.fixture
def http(server: TokenServer) -> Iterator[TokenPoolManager]:
    with TokenPoolManager(server.api_url, client(server)) as http:
        yield http


@pytest.fixture
def pool(server: TokenServer) -> Iterator[HTTPConnectionPool]:
    with HTTPConnectionPool("127.0.0.1", port_of(server)) as pool:
        yield pool


# --- signed, renewed, replayed -----------------------------------------------------------------


def test_the_repr_of_a_manager_has_prefix_and_store() -> None:
    store = MemoryStore("shown")
    with TokenPoolManager(
        "https://API.example.com:443/v1/", lambda _: "s3cr3t", store=store
    ) as http:
        assert repr(http) == f"<TokenPoolManager https://api.example.com/v1 of {store!r}>"


def test_a_manager_signs_renews_and_replays(server: TokenServer, http: TokenPoolManager) -> None:
    assert http.request("GET", f"{server.api_url}x").status == 200
    server.expire_now()
    answer = http.request("PUT", f"{server.api_url}x", body=b"body", fields=None)
    assert (answer.status, answer.json()["length"]) == (200, 4)
    assert (server.stats.renewals, server.stats.api_requests) == (2, 3)
    assert http.keeper.stats["Replayed"] == 1
    # Outside the prefix it is like any other manager.
    assert "authorization" not in http.request("GET", f"{server.public_url}x").json()["headers"]


def test_every_pool_of_the_manager_signs(server: TokenServer, http: TokenPoolManager) -> None:
    for pool in (
        http.connection_from_url(server.api_url),
        http.connection_from_host("127.0.0.1", port_of(server)),
        http.connection_from_context(
            {"scheme": "http", "host": "127.0.0.1", "port": port_of(server)}
        ),
    ):
        pool.request("GET", "/api/x")
        pool.urlopen("GET", f"{server.api_url}x")
        assert None not in authorizations(server)[-2:]
        pool.request("GET", "/public/x")
        assert authorizations(server)[-1] is None


def test_a_manager_takes_the_settings_of_adapter_and_pool_manager(server: TokenServer) -> None:
    with TokenPoolManager(
        server.api_url,
        fixed("made-up"),
        store=MemoryStore(),
        header="X-Token",
        scheme="",
        num_pools=3,
        headers={"User-Agent": "mine"},
        timeout=3,
        maxsize=2,
    ) as http:
        http.request("GET", f"{server.api_url}x")
        assert http.connection_pool_kw == {"timeout": 3, "maxsize": 2}
    headers = server.requests[-1].headers
    assert (headers["x-token"], headers["user-agent"]) == ("made-up", "mine")


class Reader:
    """Can be read only once, and has no position."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)


def opened(path: Path) -> Any:
    path.write_bytes(b"skipped" + b"x" * 60_000)
    file = path.open("rb")
    file.seek(7)
    return file


def piped(content: bytes) -> Any:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as end:
        end.write(content)
    return os.fdopen(reading, "rb")


BODIES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: b"x" * 60_000,
    "text": lambda path: "x" * 60_000,
    "buffer": lambda path: bytearray(b"x" * 60_000),
    "parts": lambda path: [b"x" * 30_000, b"x" * 30_000],
    "BytesIO": lambda path: io.BytesIO(b"x" * 60_000),
    "file": opened,
    "pipe": lambda path: piped(b"x" * 60_000),  # less than it holds
    "reader": lambda path: Reader(b"x" * 60_000),
    "generator": lambda path: iter([b"x" * 30_000, b"x" * 30_000]),
}


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("kind", BODIES)
def test_bodies_are_replayed_unchanged(
    server: TokenServer, http: TokenPoolManager, tmp_path: Path, kind: str, preload: bool
) -> None:
    http.keeper.current()
    server.expire_now()
    body = BODIES[kind](tmp_path / "body")
    answer = http.request("POST", f"{server.api_url}x", body=body, preload_content=preload)
    assert answer.json()["sha256"] == hashlib.sha256(b"x" * 60_000).hexdigest()
    # Both requests, as they are without us.
    refused, accepted = to_api(server)
    assert (refused.status, accepted.status) == (401, 200)
    again = BODIES[kind](tmp_path / "body")
    urllib3.request("POST", f"{server.public_url}x", body=again)
    plain = server.requests[-1]
    del accepted.headers["authorization"], refused.headers["authorization"]
    assert plain.headers == accepted.headers == refused.headers
    for file in (body, again):
        getattr(file, "close", lambda: None)()


def test_a_body_with_a_given_position_is_rewound_to_it(
    server: TokenServer, http: TokenPoolManager
) -> None:
    http.keeper.current()
    server.expire_now()
    body = io.BytesIO(b"skipped, body")
    body.seek(3)
    answer = http.request("POST", f"{server.api_url}x", body=body, body_pos=9)
    assert answer.json()["length"] == 4


def test_for_a_body_that_cannot_be_replayed_the_refusal_is_returned(server: TokenServer) -> None:
    with TokenPoolManager(server.api_url, client(server), replay_limit=0) as http:
        http.keeper.current()
        server.expire_now()
        body = iter([b"bo", b"dy"])
        refused = http.request("POST", f"{server.api_url}x", body=body, preload_content=False)
        assert refused.status == 401
        assert refused.json()["error"] == "invalid_token"
        assert server.stats.renewals == 2


@pytest.mark.parametrize("preload", [True, False])
def test_the_response_is_like_that_of_urllib3(
    server: TokenServer, http: TokenPoolManager, preload: bool
) -> None:
    http.keeper.current()
    server.expire_now()
    answer = http.request("GET", f"{server.api_url}x", preload_content=preload)
    assert isinstance(answer, urllib3.HTTPResponse)
    assert answer.geturl() == "/api/x"
    assert (answer.isclosed(), answer.connection is None) == (preload, preload)
    assert answer.json()["path"] == "/api/x"
    answer.release_conn()
    pool = http.connection_from_url(server.api_url)
    # The refusal has returned its connection, so a single one was used.
    assert (pool.num_connections, pool.num_requests) == (1, 2)
    assert pool.pool is not None
    assert pool.pool.qsize() == 1


def test_one_connection_is_enough_for_a_refusal_its_renewal_and_a_callback(
    server: TokenServer,
) -> None:
    statuses = []

    def on_refresh(token: Token) -> None:
        statuses.append(http.request("GET", f"{server.api_url}statuses").status)

    with TokenPoolManager(
        server.api_url, client(server), on_refresh=on_refresh, maxsize=1, block=True
    ) as http:
        http.keeper.current()
        server.expire_now()
        answer = http.request("GET", f"{server.api_url}x", preload_content=False, pool_timeout=20)
        assert answer.json()
    assert statuses == [200, 200]


def test_other_headers_stay_unchanged(server: TokenServer, pool: HTTPConnectionPool) -> None:
    """Fields that are there twice, and those of the caller in whatever spelling."""
    headers = HTTPHeaderDict({"X-Twice": "a", "authorization": "mine"})
    headers.add("X-Twice", "b")
    before = list(headers.items())
    sent: list[tuple[str, str]] = []

    class Connection(urllib3.connection.HTTPConnection):
        def putheader(self, header: str, *values: Any) -> None:  # type: ignore[override]
            sent.append((header, *values))
            super().putheader(header, *values)

    pool.ConnectionCls = Connection
    retrofit(pool, server.api_url, fixed("ours"))
    pool.request("GET", "/api/x", headers=headers)
    assert [values for name, *values in sent if name == "X-Twice"] == [["a"], ["b"]]
    assert [values for name, *values in sent if name.lower() == "authorization"] == [
        ["Bearer ours"]
    ]
    assert list(headers.items()) == before


def test_override_auth_false_keeps_the_callers_authorization(server: TokenServer) -> None:
    with TokenPoolManager(server.api_url, fixed("ours"), override_auth=False) as http:
        http.request("GET", f"{server.api_url}x", headers={"authorization": "mine"})
        http.request("GET", f"{server.api_url}x")
    assert authorizations(server) == ["mine", "Bearer ours"]


def test_attach_may_change_query_and_body(server: TokenServer) -> None:
    def attach(request: requests.PreparedRequest, token: Token) -> None:
        request.prepare_url(request.url, {"key": token.access_token})
        request.headers["X-Body"] = str(len(request.body or b""))
        del request.headers["X-Old"]

    with TokenPoolManager(server.public_url, numbered, attach=attach) as http:
        http.keeper.current()
        for _ in range(2):
            http.request("PUT", f"{server.public_url}x?a=b", body=b"four", headers={"X-Old": "1"})
            server.fail_next(401, endpoint="public")
    sent = [(request.query, request.headers["x-body"]) for request in to_api(server)]
    assert sent == [("a=b&key=1", "4"), ("a=b&key=1", "4"), ("a=b&key=2", "4")]
    assert not any("x-old" in request.headers for request in server.requests)


def test_verdicts_are_the_same_as_for_requests(server: TokenServer) -> None:
    verdict = expired_on(status=200, json={"ok": False}, default=False)
    seen = []

    def watched(response: requests.Response) -> bool:
        seen.append((response.status_code, response.url, response.request.method))
        return verdict(response)

    for preload in (True, False):
        with TokenPoolManager(server.api_url, numbered, verdict=watched) as http:
            http.keeper.current()
            server.fail_next(200, endpoint="api", body={"ok": False})
            server.fail_next(200, endpoint="api", body={"ok": True})
            answer = http.request("GET", f"{server.api_url}x", preload_content=preload)
            # It read the response, which is still readable.
            assert answer.json() == {"ok": True}
        old, new = authorizations(server)[-2:]
        assert old != new
    assert seen == [(200, f"{server.api_url}x", "GET")] * 4


# --- retries, time-outs, errors ----------------------------------------------------------------


@pytest.mark.parametrize("where", ["manager", "call"])
def test_retries_do_not_repeat_a_refused_token(server: TokenServer, where: str) -> None:
    retries = Retry(3, status_forcelist=[401, 503], backoff_factor=0)
    settings = {"manager": {"retries": retries}, "call": {}}[where]
    call = {"manager": {}, "call": {"retries": retries}}[where]
    with TokenPoolManager(server.api_url, client(server), **settings) as http:
        http.keeper.current()
        server.expire_now()
        server.fail_next(503, endpoint="api")
        answer = http.request("GET", f"{server.api_url}x", **call)
        assert answer.status == 200
        assert [request.status for request in server.requests if "/api/" in request.path] == [
            503,
            401,
            200,
        ]
        # Outside the prefix they do, also after a redirect, if this release of urllib3 does so.
        there = f"{server.api_url}redirect?to={server.public_url}x"
        headers = {"Authorization": f"Bearer {http.keeper.current().access_token}"}
        with PoolManager(**settings) as plain:
            statuses = []
            for manager in (plain, http):
                server.fail_next(401, endpoint="public", count=2)
                answer = manager.request("GET", there, headers=headers, **call)
                statuses.append(answer.status)
                server.recover("public")
        assert statuses in ([200, 200], [401, 401])


def test_retries_repeat_the_token_that_they_began_with(
    server: TokenServer, http: TokenPoolManager
) -> None:
    class Renewing(Retry):
        def sleep(self, response: Any = None) -> None:
            http.keeper.refresh()

    http.keeper.current()
    server.fail_next(503, endpoint="api")
    retries = Renewing(2, status_forcelist=[503])
    assert http.request("GET", f"{server.api_url}x", retries=retries).status == 200
    first, again = authorizations(server)
    assert first == again
    assert server.stats.renewals == 2


def test_exhausted_retries_end_as_without_us(server: TokenServer, http: TokenPoolManager) -> None:
    server.fail_next(503, endpoint="api", count=None)
    retries = Retry(1, status_forcelist=[503], backoff_factor=0)
    with pytest.raises(MaxRetryError) as caught:
        http.request("GET", f"{server.api_url}x", retries=retries)
    assert "Bearer" not in repr(vars(caught.value))
    assert server.stats.api_requests == 2
    retries = Retry(1, status_forcelist=[503], backoff_factor=0, raise_on_status=False)
    answer = http.request("GET", f"{server.api_url}x", retries=retries)
    assert answer.retries is not None
    assert [past.status for past in answer.retries.history] == [503]


def test_connection_errors_are_those_of_urllib3(
    http: TokenPoolManager, server: TokenServer
) -> None:
    http.keeper.current()
    server.fail_next(endpoint="api", reset=True, count=2)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        http.request("GET", f"{server.api_url}x", retries=False)
    answer = http.request("GET", f"{server.api_url}x", retries=1)
    assert answer.status == 200


@pytest.mark.parametrize("timeout", [0.05, Timeout(read=0.05), Timeout(total=0.05), None])
def test_the_read_timeout_limits_the_wait_for_a_renewal(server: TokenServer, timeout: Any) -> None:
    pooled = {"timeout": Timeout(read=0.05)} if timeout is None else {}
    call = {} if timeout is None else {"timeout": timeout}
    with (
        TokenPoolManager(server.api_url, client(server), **pooled) as http,
        server.hold() as hold,
    ):
        with pytest.raises(LockTimeout):
            http.request("GET", f"{server.api_url}x", **call)
        assert hold.arrived.wait(10)
    http.keeper.current()


def test_the_timeout_of_a_pool_applies_after_a_redirect(server: TokenServer) -> None:
    with (
        HTTPConnectionPool("127.0.0.1", port_of(server), timeout=Timeout(read=0.05)) as pool,
        retrofit(pool, server.api_url, client(server)) as fitted,
    ):
        with server.hold() as hold:
            with pytest.raises(LockTimeout):
                pool.request("GET", "/public/redirect?to=/api/x")
            assert hold.arrived.wait(10)
        fitted.keeper.current()


def test_errors_are_token_errors_and_urllib3_errors(server: TokenServer) -> None:
    source = RefreshToken(server.token_url, "wrong", client_id="client", client_secret="secret")
    with TokenPoolManager(server.api_url, source) as http:
        for kind in (ReauthRequired, TokenError, HTTPError, requests.RequestException):
            with pytest.raises(kind) as caught:
                http.request("GET", f"{server.api_url}x")
            error: Any = caught.value
            assert type(error).__name__ == "ReauthRequired"
            assert error.reason == "invalid_grant"
            assert error.request.url == f"{server.api_url}x"
            # In the source as well.
            assert {"with_token", "_obtain"} <= {entry.name for entry in caught.traceback}


@pytest.mark.parametrize(
    "kind", [RefreshTemporarilyFailed, RefreshConfigError, StoreError, LockTimeout, UnsafeTarget]
)
def test_an_error_of_both_kinds_can_be_pickled_and_raised_again(kind: type[TokenError]) -> None:
    error = for_urllib3(kind("what happened", retry_at=3))
    assert isinstance(error, HTTPError)
    assert type(for_urllib3(error)) is type(error)
    for copy in (pickle.loads(pickle.dumps(error)), error.again()):
        assert type(copy) is type(error)
        assert isinstance(copy, kind)
        assert str(copy) == "what happened"
        assert copy.retry_at == 3


# --- where a token goes ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("header", ["Authorization", "X-Token"])
def test_each_hop_is_compared_with_the_prefix(status: int, bare: bool, header: str) -> None:
    """Redirects out of the prefix and into it, with the header that urllib3 strips and others."""
    with TokenServer(header=header) as server:
        origin = "" if bare else server.url
        target = HTTPConnectionPool("127.0.0.1", port_of(server)) if bare else PoolManager()
        with target, retrofit(target, server.api_url, client(server), header=header):
            path = f"{origin}/api/redirect?to=/public/x&status={status}"
            fields = {"Content-Type": "text/plain", "Cookie": "a=b"}
            for body in (b"body", io.BytesIO(b"body")):
                answer = target.request("POST", path, body=body, headers=fields).json()
                assert header.lower() not in answer["headers"]
                assert answer["method"] == ("GET" if status == 303 else "POST")
                assert ("content-type" in answer["headers"]) == (status != 303)
                assert answer["headers"]["cookie"] == "a=b"
                # For a manager, urllib3 does not rewind what it has read to its end.
                if bare or isinstance(body, bytes) or status == 303:
                    assert answer["length"] == (0 if status == 303 else 4)
                    assert "transfer-encoding" not in answer["headers"] or status != 303
            path = f"{origin}/public/redirect?to=/api/x&status={status}"
            assert target.request("POST", path, body=b"body").json()["path"] == "/api/x"


@pytest.mark.parametrize("preload", [True, False])
def test_redirects_of_a_bare_pool_are_those_of_urllib3(
    server: TokenServer, other: TokenServer, preload: bool
) -> None:
    """The same calls are followed, counted and refused as without us."""

    waited: list[int] = []

    class Noted(Retry):
        def sleep_for_retry(self, response: Any) -> bool:
            waited.append(response.status)
            return super().sleep_for_retry(response)

    def state_of(pool: HTTPConnectionPool, base: str) -> list[Any]:
        calls: list[Any] = [
            (f"{base}redirect?to={base}x", {}),
            (f"{base}redirect?to={base}x", {"redirect": False}),
            (f"{base}redirect?to={base}x", {"retries": False}),
            (f"{base}redirect?to={base}x", {"retries": 0}),
            (f"{base}redirect?to={base}x", {"retries": Retry(0, raise_on_redirect=False)}),
            (f"{base}redirect?to={other.public_url}x", {}),
            (f"{base}redirect?to={other.public_url}x", {"assert_same_host": False}),
            (f"{base}redirect?to={base}x", {"retries": Noted(2)}),
            (f"{base}redirect?to=elsewhere", {}),
            (f"{base}redirect?to={base}redirect%3Fto={base}x", {"retries": 1}),
            (f"{base}redirect?to={base}redirect%3Fto={base}x", {"retries": 2}),
        ]
        results = []
        for url, how in calls:
            try:
                answer = pool.request("POST", url, body=b"body", preload_content=preload, **how)
                history = answer.retries.history if answer.retries else ()
                answer.drain_conn()
                results.append((answer.status, [past.status for past in history]))
            except HTTPError as error:
                results.append(type(error))
        results += [pool.num_connections, waited.copy()]
        waited.clear()
        return results

    with (
        HTTPConnectionPool("127.0.0.1", port_of(server)) as plain,
        HTTPConnectionPool("127.0.0.1", port_of(server)) as fitted,
    ):
        retrofit(fitted, server.api_url, client(server))
        assert state_of(fitted, "/api/") == state_of(plain, "/public/")


def test_a_cookie_stays_with_its_host(server: TokenServer, pool: HTTPConnectionPool) -> None:
    """As with newer releases of urllib3, whatever the release."""
    retrofit(pool, server.api_url, client(server))
    for place in ("http://other.example.com/", "/public/x"):
        path = f"/api/redirect?to={place}"
        pool.request("GET", path, headers={"Cookie": "a=b"}, assert_same_host=False)
    cookies = [request.headers.get("cookie") for request in to_api(server)]
    assert cookies == ["a=b", None, "a=b", "a=b"]


def test_a_redirect_of_a_bare_pool_rewinds_the_body(
    server: TokenServer, pool: HTTPConnectionPool
) -> None:
    retrofit(pool, server.api_url, client(server))
    body = io.BytesIO(b"skipped, body")
    body.seek(9)
    path = "/api/redirect?to=/api/x&status=307"
    assert pool.request("POST", path, body=body).json()["length"] == 4


@pytest.mark.parametrize(
    "path",
    [
        "/public/x",
        "/apiary",
        "/api/../public/x",
        "/api/%2e%2e/public/x",
        "/api/..%2Fpublic",
        "/api/..;/public/x",
        "/api/%5C..%5Cpublic",
        "//api/x",
        "http://other.example.com/api/x",
        "https://127.0.0.1/api/x",
        "http://127.0.0.1/api/x",
        "http://127.0.0.1@other.example.com/api/x",
        "api/x",
        "*",
    ],
)
def test_no_path_of_a_pool_leads_outside_the_prefix(
    server: TokenServer, pool: HTTPConnectionPool, path: str
) -> None:
    retrofit(pool, server.api_url, fixed("secret"))
    with suppress(HTTPError):
        pool.urlopen("GET", path, assert_same_host=False)
    assert set(authorizations(server)) <= {None}


@pytest.mark.parametrize(
    ("host", "is_signed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:{port}", True),
        ("other.example.com", False),
        ("127.0.0.1.example.com", False),
        ("127.0.0.1@other.example.com", False),
        ("[", False),
    ],
)
@pytest.mark.parametrize("spelling", ["Host", "host"])
def test_a_host_header_with_another_host_gets_no_token(
    server: TokenServer, pool: HTTPConnectionPool, host: str, is_signed: bool, spelling: str
) -> None:
    """The server at the address may route the request to another host."""
    retrofit(pool, server.api_url, fixed("secret"))
    host = host.format(port=port_of(server))
    pool.request("GET", "/api/x", headers={spelling: host})
    assert authorizations(server) == ["Bearer secret" if is_signed else None]


def test_a_pool_to_another_host_gets_no_token_for_a_url_of_the_api(
    server: TokenServer, other: TokenServer
) -> None:
    """The URL is under the prefix; the connection is not."""
    with HTTPConnectionPool("127.0.0.1", port_of(other)) as pool:
        retrofit(pool, server.api_url, fixed("secret"))
        pool.urlopen("GET", f"{server.api_url}x", assert_same_host=False)
    assert authorizations(other) == [None]


@pytest.mark.parametrize(
    ("kind", "through"),
    [(Proxy, urllib3.ProxyManager), (SocksProxy, SOCKSProxyManager)],
)
def test_a_token_for_this_machine_is_not_sent_through_a_proxy(
    server: TokenServer, kind: Any, through: Any
) -> None:
    with kind() as proxy, through(proxy.url) as manager:
        with retrofit(manager, server.api_url, client(server)):
            with pytest.raises(UnsafeTarget, match="A proxy could read the token") as caught:
                manager.request("GET", f"{server.api_url}x")
            assert isinstance(caught.value, HTTPError)
            # Other requests are sent.
            assert manager.request("GET", f"{server.public_url}x").status == 200
        assert authorizations(server) == [None]
        with retrofit(manager, server.api_url, client(server), allow_http=True):
            assert manager.request("GET", f"{server.api_url}x").status == 200
            server.expire_now()
            assert manager.request("POST", f"{server.api_url}x", body=b"x").status == 200
            if kind is Proxy:
                # As without us: a pool to a proxy gets requests for other hosts only on purpose.
                pool = manager.connection_from_url(server.api_url)
                with pytest.raises(urllib3.exceptions.HostChangedError):
                    pool.urlopen("GET", f"{server.api_url}x")


def test_requests_through_a_tunnel_use_the_tls_settings_of_the_pool(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = {"ca_certs": str(tmp_path / "ca.pem"), "retries": False}
    with TokenServer(tls=context) as server, Proxy() as proxy:
        source = RefreshToken(
            server.token_url,
            server.issue()["refresh_token"],
            client_id="client",
            client_secret="secret",
            verify=settings["ca_certs"],
        )
        with urllib3.ProxyManager(proxy.url, **settings) as manager:
            retrofit(manager, server.api_url, source)
            assert manager.request("GET", f"{server.api_url}x").status == 200
            server.expire_now()
            assert manager.request("PUT", f"{server.api_url}x", body=b"x").status == 200
        # The proxy has seen only the target of the tunnel.
        assert {method for method, _ in proxy.requested} == {"CONNECT"}
        assert not any(b"uthorization" in head for head in proxy.heads)
        with PoolManager(retries=False) as manager:
            retrofit(manager, server.api_url, source)
            with pytest.raises(urllib3.exceptions.SSLError):
                manager.request("GET", f"{server.api_url}x")


def test_a_failed_renewal_returns_the_connection(server: TokenServer) -> None:
    with TokenPoolManager(server.api_url, client(server), maxsize=1, block=True) as http:
        http.keeper.current()
        server.expire_now()
        server.fail_next(400, error="invalid_client")
        for _ in range(2):
            with pytest.raises(RefreshConfigError) as caught:
                http.request("GET", f"{server.api_url}x", preload_content=False, pool_timeout=5)
            assert caught.value.response.status_code == 401
        assert http.connection_from_url(server.api_url).num_connections == 1


def test_token_requests_are_left_untouched(server: TokenServer) -> None:
    headers = {
        **urllib3.util.make_headers(basic_auth="client:secret"),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    form = "grant_type=client_credentials"

    def source(previous: Token | None) -> Any:
        return http.request("POST", server.token_url, body=form, headers=headers).json()

    for kind in (source, client(server)):
        with TokenPoolManager(server.url, kind) as http:
            assert http.request("GET", f"{server.api_url}x").status == 200
            server.expire_now()
            assert http.request("GET", f"{server.api_url}x").status == 200
    with TokenPoolManager(server.url, client(server)) as http:
        assert http.request("POST", server.token_url, body=form, headers=headers).status == 200
    assert server.stats.refusals == 0


# --- fitting and undoing -----------------------------------------------------------------------


def test_an_existing_manager_and_its_pools_are_retrofitted(server: TokenServer) -> None:
    with PoolManager() as manager:
        old = manager.connection_from_url(server.api_url)
        assert old.request("GET", "/api/x").status == 401
        with retrofit(manager, server.api_url, client(server)) as fitted:
            assert isinstance(fitted.keeper, TokenKeeper)
            assert old.request("GET", "/api/x").status == 200
            assert manager.request("GET", f"{server.api_url}x").status == 200
            manager.clear()
            # Pools created meanwhile, and one that the manager has dropped.
            new = manager.connection_from_url(server.api_url)
            assert new is not old
            assert new.request("GET", "/api/x").status == 200
            assert old.request("GET", "/api/x").status == 200
            assert isinstance(new, HTTPConnectionPool)
        for pool in (new, old):
            assert pool.request("GET", "/api/x").status == 401
        assert (type(manager), type(new)) == (PoolManager, HTTPConnectionPool)
        old.close()
    fitted.undo()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_retrofits_of_pools_are_undone_in_any_order(
    server: TokenServer, pool: HTTPConnectionPool, order: Any
) -> None:
    fits = [
        retrofit(pool, prefix, fixed(name))
        for name, prefix in (("0", server.api_url), ("1", server.url), ("2", server.api_url))
    ]
    left = {0, 1, 2}
    for number in order:
        fits[number].undo()
        left.discard(number)
        pool.request("GET", "/api/x")
        best = 2 if 2 in left else 0 if 0 in left else 1
        assert authorizations(server)[-1] == (f"Bearer {best}" if left else None)
    assert type(pool) is HTTPConnectionPool


def test_a_token_pool_manager_can_be_retrofitted_for_another_api(
    server: TokenServer, other: TokenServer, http: TokenPoolManager
) -> None:
    with retrofit(http, other.api_url, client(other)):
        for each in (server, other):
            assert http.request("GET", f"{each.api_url}x").status == 200
    assert http.request("GET", f"{server.api_url}x").status == 200
    assert http.request("GET", f"{other.api_url}x").status == 401
    assert type(http) is TokenPoolManager


def test_a_retrofit_can_be_undone_while_a_request_is_in_progress(
    server: TokenServer, pool: HTTPConnectionPool
) -> None:
    fitted = retrofit(pool, server.api_url, client(server))
    fitted.keeper.current()
    server.expire_now()
    answers = []

    def ask() -> None:
        retries = Retry(2, status_forcelist=[503], backoff_factor=0)
        answers.append(pool.request("GET", "/api/x", retries=retries).status)

    server.fail_next(503, endpoint="api")
    with server.hold(endpoint="api") as hold:
        thread = threading.Thread(target=ask)
        thread.start()
        assert hold.arrived.wait(10)
        fitted.undo()
        assert type(pool) is HTTPConnectionPool
    thread.join()
    # The request in progress is still retried, refused, renewed and replayed.
    assert answers == [200]


def test_nothing_keeps_a_pool_or_its_connections_alive(server: TokenServer) -> None:
    manager = TokenPoolManager(server.api_url, client(server))
    plain = PoolManager()
    fitted = retrofit(plain, server.api_url, client(server))
    gone = [weakref.ref(each) for each in (manager, plain)]
    gc.disable()  # reference counts alone: connections are closed with their pool
    try:
        for each in (manager, plain):
            each.request("GET", f"{server.api_url}x")
            pool = each.connection_from_url(server.api_url)
            connection = pool.pool.queue[-1]
            gone.append(weakref.ref(pool))
            assert connection.sock is not None
            del pool
            each.clear()
            assert connection.sock is None
        del manager, plain, each
        assert [ref() for ref in gone] == [None] * 4
    finally:
        gc.enable()
    fitted.undo()


def test_threads_share_one_renewal(server: TokenServer, http: TokenPoolManager) -> None:
    http.keeper.current()
    server.expire_now()
    answers = []

    def ask() -> None:
        answers.append(http.request("POST", f"{server.api_url}x", body=b"body").status)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert server.stats.renewals == 2


@pytest.mark.parametrize("wrong", [None, "pool", object(), TokenAdapter, sys])
def test_an_object_that_is_neither_manager_nor_pool_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"retrofit\(\) takes a requests\.Session, or of urllib3"):
        retrofit(wrong, "https://api.example.com/", fixed("x"))
