"""Redirects across prefixes, hosts and schemes, and sessions with several adapters."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from tokenadapter import TokenAdapter
from tokenadapter.testing import TokenServer

from .bodies import DATA, Place, chunks
from .conftest import Way

BODIES: dict[str, Callable[[Place], dict[str, Any]]] = {
    "bytes": lambda place: {"data": DATA},
    "file": lambda place: {"data": place.file(b"skipped" + DATA, start=7)},
    "BytesIO": lambda place: {"data": io.BytesIO(DATA)},
    "multipart": lambda place: {"files": {"f": ("name", DATA)}},
}


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def mount(session: requests.Session, server: TokenServer, prefix: str = "") -> TokenAdapter:
    adapter = TokenAdapter(prefix or server.api_url, Way(server).source()).mount(session)
    adapter.keeper.adopt(server.issue())
    return adapter


def redirect(server: TokenServer, to: str, status: int = 307) -> str:
    return f"{server.api_url}redirect?to={to}&status={status}"


def authorizations(server: TokenServer, path: str = "/") -> list[str | None]:
    return [r.headers.get("authorization") for r in server.requests if r.path.startswith(path)]


@pytest.mark.parametrize("revoked", ["neither", "first", "second", "both"])
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_goes_whole_from_one_prefix_to_the_next_with_the_token_of_each(
    server: TokenServer,
    other: TokenServer,
    session: requests.Session,
    place: Place,
    kind: str,
    status: int,
    revoked: str,
) -> None:
    first, second = mount(session, server), mount(session, other)
    old = {first.keeper.current().access_token, second.keeper.current().access_token}
    if revoked in ("first", "both"):
        server.expire_now()
    if revoked in ("second", "both"):
        other.expire_now()
    kwargs = BODIES[kind](place)
    answer = session.post(redirect(server, f"{other.api_url}x", status), **kwargs)
    assert answer.ok
    assert [past.status_code for past in answer.history] == [status]
    for each in (*server.requests, *other.requests):
        if each.path.startswith("/api/"):
            assert each.method == "POST"
            assert each.sha256 == server.requests[0].sha256
    if kind != "multipart":
        assert answer.json()["sha256"] == hashlib.sha256(DATA).hexdigest()
    tokens = {f"Bearer {a.keeper.current().access_token}" for a in (first, second)}
    assert {authorizations(server, "/api")[-1], authorizations(other, "/api")[-1]} == tokens
    assert not {f"Bearer {token}" for token in old} & tokens or revoked != "both"
    assert not {*authorizations(server, "/api")} & {*authorizations(other, "/api")}


def test_a_generator_is_handled_as_by_a_plain_adapter(
    server: TokenServer, other: TokenServer, session: requests.Session
) -> None:
    """It has been drawn when the redirect comes; requests does not send it again."""

    def arrived() -> int:
        url = redirect(server, f"{other.public_url}x").replace(server.api_url, server.public_url)
        return session.post(url, data=chunks(DATA)).json()["length"]

    plain = arrived()
    mount(session, server, server.url)
    assert arrived() == plain


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_drops_the_body_drops_it_after_a_replay_too(
    server: TokenServer, other: TokenServer, session: requests.Session, status: int
) -> None:
    mount(session, server)
    mount(session, other)
    server.expire_now()
    other.expire_now()
    echo = session.post(redirect(server, f"{other.api_url}x", status), data=chunks(DATA)).json()
    assert (echo["method"], echo["length"]) == ("GET", 0)


def test_cookies_of_a_refusal_before_a_redirect_are_kept(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server)
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": "seen=1; Path=/"})
    answer = session.get(redirect(server, f"{server.api_url}x"))
    assert [past.status_code for past in answer.history] == [307]
    assert answer.json()["headers"]["cookie"] == "seen=1"


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("there", ["plain", "secure"])
def test_no_token_goes_to_another_scheme(
    ways: dict[str, Way], ca_file: str, there: str, status: int
) -> None:
    plain, secure = ways["http"], ways["https"]
    here, to = (secure, plain) if there == "plain" else (plain, secure)
    with here.session() as session:
        session.verify = ca_file
        TokenAdapter(here.server.api_url, here.source()).mount(session).keeper.adopt(
            here.server.issue()
        )
        answer = session.put(redirect(here.server, f"{to.server.public_url}x", status), data=b"a")
        assert answer.ok
        assert "authorization" not in answer.json()["headers"]


def test_no_token_leaves_the_path_of_its_prefix(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server)
    echo = session.put(redirect(server, f"{server.public_url}x"), data=b"body").json()
    assert echo["length"] == 4
    assert "authorization" not in echo["headers"]
    echo = session.get(redirect(server, "/public/y", 302)).json()
    assert "authorization" not in echo["headers"]


def test_a_chain_that_comes_back_is_signed_again(
    server: TokenServer, other: TokenServer, session: requests.Session
) -> None:
    mount(session, server)
    back = f"{other.public_url}redirect?to={server.api_url}x"
    answer = session.get(redirect(server, back))
    assert answer.ok
    assert len(answer.history) == 2
    assert authorizations(other) == [None]


# --- several adapters --------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["ours", "plain"])
def test_a_longer_prefix_opts_out(
    server: TokenServer, session: requests.Session, first: str
) -> None:
    steps = [
        lambda: mount(session, server, server.url),
        lambda: session.mount(server.public_url, HTTPAdapter()),
    ]
    for step in steps if first == "ours" else reversed(steps):
        step()
    assert "authorization" in session.get(f"{server.api_url}x").json()["headers"]
    assert "authorization" not in session.get(f"{server.public_url}x").json()["headers"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_prefixes_the_longest_signs(
    server: TokenServer, session: requests.Session, order: int
) -> None:
    adapters = {}
    for path in ["", "public", "public/a", "public/a/b"][::order]:
        adapters[path] = TokenAdapter(
            f"{server.url}/{path}", lambda previous, path=path: path or "-"
        )
        adapters[path].mount(session)
    for path, owner in [
        ("public/a/b/c", "public/a/b"),
        ("public/a/b", "public/a/b"),
        ("public/x", "public"),
    ]:
        assert session.get(f"{server.url}/{path}").ok
        assert authorizations(server)[-1] == f"Bearer {owner}"


def test_a_name_that_only_begins_like_a_prefix_gets_no_token_at_all(
    server: TokenServer, session: requests.Session
) -> None:
    """requests takes the adapter by the beginning of the text, and that refuses to sign."""
    for path in ("public", "public/a"):
        TokenAdapter(f"{server.url}/{path}", lambda previous, path=path: path).mount(session)
    assert session.get(f"{server.url}/public/ab").ok
    assert authorizations(server) == [None]


def test_a_later_adapter_takes_the_place_of_one_on_the_same_prefix(
    server: TokenServer, session: requests.Session
) -> None:
    for token in ("one", "two"):
        TokenAdapter(server.public_url, lambda previous, token=token: token).mount(session)
        session.get(f"{server.public_url}x")
    assert authorizations(server) == ["Bearer one", "Bearer two"]


def test_adapters_can_be_mounted_while_others_send(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server)
    stop = threading.Event()
    statuses: list[int] = []
    failures: list[Exception] = []

    def send() -> None:
        try:
            while not stop.is_set():
                statuses.append(session.get(f"{server.api_url}x").status_code)
        except Exception as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        TokenAdapter(f"https://api{number}.example.com/v{number}", lambda previous: "t").mount(
            session
        )
    server.wait_for(lambda stats: stats.api_requests > 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(statuses) == {200}
