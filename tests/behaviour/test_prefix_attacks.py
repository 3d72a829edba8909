"""Attacks on the prefix through each client: no token leaves its prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tokenadapter import TokenAdapter, TokenPoolManager, installed, retrofit
from tokenadapter.testing import TokenServer

SECRET = "s3cret-of-the-api"
Send = Callable[..., Any]


def source(previous: object) -> str:
    return SECRET


def _mounted(server: TokenServer, stack: ExitStack) -> Send:
    session = stack.enter_context(requests.Session())
    TokenAdapter(server.api_url, source).mount(session)
    return session.request


def _fitted_session(server: TokenServer, stack: ExitStack) -> Send:
    session = stack.enter_context(requests.Session())
    stack.enter_context(retrofit(session, server.api_url, source))
    return session.request


def _installed(server: TokenServer, stack: ExitStack) -> Send:
    stack.enter_context(installed(TokenAdapter(server.api_url, source)))
    return requests.request


def _manager(server: TokenServer, stack: ExitStack) -> Send:
    return stack.enter_context(TokenPoolManager(server.api_url, source)).request


def _fitted_manager(server: TokenServer, stack: ExitStack) -> Send:
    manager = stack.enter_context(urllib3.PoolManager())
    stack.enter_context(retrofit(manager, server.api_url, source))
    return manager.request


def _fitted_pool(server: TokenServer, stack: ExitStack) -> Send:
    """A bare pool: it has one host, whatever it is asked for."""
    place = urlsplit(server.url)
    pool = stack.enter_context(urllib3.HTTPConnectionPool(str(place.hostname), place.port))
    stack.enter_context(retrofit(pool, server.api_url, source))
    return lambda method, url, **how: pool.request(method, url.removeprefix(server.url), **how)


FACES: dict[str, Callable[[TokenServer, ExitStack], Send]] = {
    "mount": _mounted,
    "retrofit session": _fitted_session,
    "installed": _installed,
    "manager": _manager,
    "retrofit manager": _fitted_manager,
    "retrofit pool": _fitted_pool,
}


@pytest.fixture(scope="module")
def server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


@pytest.fixture(scope="module")
def other() -> Iterator[TokenServer]:
    with TokenServer() as other:
        yield other


@pytest.fixture(params=FACES)
def send(request: pytest.FixtureRequest, server: TokenServer) -> Iterator[Send]:
    with ExitStack() as stack:
        ask = FACES[request.param](server, stack)

        def send(method: str, url: str, **how: Any) -> None:
            with suppress(requests.RequestException, urllib3.exceptions.HTTPError):
                ask(method, url, **how)

        yield send


def seen(server: TokenServer, since: int) -> list[tuple[str, bool]]:
    """The paths of the requests, and whether each had the token."""
    return [(one.path, SECRET in str(one.headers)) for one in server.requests[since:]]


def test_a_request_under_the_prefix_has_the_token(send: Send, server: TokenServer) -> None:
    since = len(server.requests)
    send("GET", f"{server.api_url}x")
    assert seen(server, since)[0] == ("/api/x", True)


DOTS = [
    "..",
    "%2e%2e",
    "%252e%252e",
    "..;",
    "%5C..",
    "\uff0e\uff0e",
    "%EF%BC%8E%EF%BC%8E",
    "%25EF%25BC%258E%25EF%25BC%258E",
    "%E2%80%A5",
    "%E2%80%A4%E2%80%A4",
    "%EF%B9%92%EF%B9%92",
    "%E3%80%82%E3%80%82",
    "%EF%BC%852e%EF%BC%852e",
    "%c0%ae%c0%ae",
]
SLASHES = ["/", "%2F", "%5C", "%EF%BC%8F", "%E2%88%95", "%EF%BC%BC", "%252F"]


@pytest.mark.parametrize("dots", DOTS)
def test_no_dots_in_whatever_spelling_take_the_token_out(
    send: Send, server: TokenServer, dots: str
) -> None:
    since = len(server.requests)
    for slash in SLASHES:
        send("GET", f"{server.api_url}{dots}{slash}public/x")
    assert [path for path, has_token in seen(server, since) if has_token] == []


def test_a_host_header_that_names_another_host_gets_no_token(
    send: Send, server: TokenServer
) -> None:
    """A reverse proxy may route the request to another host."""
    place = urlsplit(server.url)
    for name in ("Host", "host", "HOST"):
        since = len(server.requests)
        for host in ("evil.example", "127.0.0.2", f"evil.example:{place.port}", "", "127.0.0.1@x"):
            send("GET", f"{server.api_url}x", headers={name: host})
        assert not any(has_token for _, has_token in seen(server, since))
        since = len(server.requests)
        for host in ("127.0.0.1", place.netloc):
            send("GET", f"{server.api_url}x", headers={name: host})
        assert [has_token for _, has_token in seen(server, since)] == [True, True]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_the_token_out(
    send: Send, server: TokenServer, other: TokenServer, status: int, method: str
) -> None:
    here, there = len(server.requests), len(other.requests)
    elsewhere = [
        other.public_url,
        other.api_url,
        other.url.replace("127.0.0.1", "localhost") + "/public/",
        server.url.replace("127.0.0.1", "localhost") + "/api/",
        server.public_url,
        server.url.replace("//", "//user:pw@") + "/api/",
        *(
            f"{server.api_url}{dots}{slash}public/"
            for dots, slash in zip(DOTS[1:8], SLASHES, strict=True)
        ),
    ]
    for target in elsewhere:
        to = quote(f"{target}x", safe="")
        send(method, f"{server.api_url}redirect?to={to}&status={status}")
    signed = {path for path, has_token in seen(server, here) if has_token}
    assert signed == {"/api/redirect"}
    assert not any(has_token for _, has_token in seen(other, there))


def test_a_redirect_with_the_callers_host_header_gets_no_token(
    send: Send, server: TokenServer
) -> None:
    """The redirected request keeps the header of the first one."""
    since = len(server.requests)
    to = quote(f"{server.api_url}x", safe="")
    send("GET", f"{server.public_url}redirect?to={to}", headers={"Host": "evil.example"})
    assert not any(has_token for _, has_token in seen(server, since))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.evil.example/api/x",
        "http://127.0.0.1:80@evil.example/api/x",
        "http://evil.example/api/x",
    ],
)
def test_a_look_alike_host_is_left_to_the_sessions_own_adapter(url: str) -> None:
    class Own(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
            sent.append(dict(request.headers))
            answer = requests.Response()
            answer.status_code, answer.url = 200, str(request.url)
            return answer

    sent: list[dict[str, Any]] = []
    for prefix in ("http://127.0.0.1", "http://127.0.0.1:80"):
        with requests.Session() as session:
            session.mount("http://", Own())
            TokenAdapter(prefix, source).mount(session)
            assert session.get(url, auth=lambda request: request).ok
    assert len(sent) == 2
    assert SECRET not in str(sent)
