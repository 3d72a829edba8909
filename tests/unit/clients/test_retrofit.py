"""An existing session is signed under a prefix, and can be restored."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
import requests
import requests_mock
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util import Retry

from tokenadapter import (
    ClientCredentials,
    MemoryStore,
    Token,
    TokenAdapter,
    UnsafeTarget,
    installed,
    retrofit,
)
from tokenadapter.testing import TokenServer

API = "https://api.example.com/v1"


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


def fixed(text: str) -> Any:
    def source(previous: Token | None) -> str:
        return text

    return source


def module_level_source(previous: Token | None) -> str:
    return "pickled"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def mocked(session: requests.Session, key: str) -> requests_mock.Adapter:
    """An adapter that answers everything, mounted on *key*."""
    mock = requests_mock.Adapter()
    mock.register_uri(requests_mock.ANY, requests_mock.ANY)
    session.mount(key, mock)
    return mock


def sent(mock: requests_mock.Adapter) -> list[str | None]:
    return [request.headers.get("Authorization") for request in mock.request_history]


def test_one_line_signs_a_session_and_undo_restores_it(
    server: TokenServer, session: requests.Session
) -> None:
    before = list(session.adapters.items())
    with retrofit(session, server.api_url, client(server), store=MemoryStore()) as fitted:
        assert session.get(f"{server.api_url}x").ok
        server.expire_now()
        answer = session.put(f"{server.api_url}x", data=iter([b"bo", b"dy"]))
        assert [past.status_code for past in answer.history] == [401]
        assert fitted.keeper.stats["Replayed"] == 1
        assert repr(fitted) == f"<Retrofit {server.api_url[:-1]} of MemoryStore()>"
    assert list(session.adapters.items()) == before
    assert session.get(f"{server.api_url}x").status_code == 401
    fitted.undo()
    assert list(session.adapters.items()) == before


def test_the_adapter_mounted_before_sends_the_request(
    server: TokenServer, session: requests.Session
) -> None:
    retries = Retry(2, status_forcelist=[401, 503], backoff_factor=0, raise_on_status=False)
    adapter = HTTPAdapter(max_retries=retries)
    session.mount("http://", adapter)
    retrofit(session, server.api_url, client(server))
    server.fail_next(503, endpoint="api")
    assert session.get(f"{server.api_url}x").ok
    server.expire_now()
    assert session.get(f"{server.api_url}x").history
    assert server.stats.api_requests == 4
    (key,) = adapter.poolmanager.pools.keys()
    assert adapter.poolmanager.pools[key].num_requests == 4
    # Its retries are unchanged for other requests.
    assert adapter.max_retries is retries
    server.fail_next(401, endpoint="public", count=2)
    assert session.get(f"{server.public_url}x").ok


def test_adapters_on_and_below_the_prefix_are_wrapped(session: requests.Session) -> None:
    there = mocked(session, f"{API}/")
    below = mocked(session, f"{API}/uploads/")
    beside = mocked(session, f"{API}0/")
    own = mocked(session, f"{API}/own/")
    TokenAdapter(f"{API}/own", fixed("own"), inner=own).mount(session)
    before = list(session.adapters.items())
    with retrofit(session, API, fixed("made-up")):
        for path in ("/x", "/uploads/x", "0/x", "/own/x"):
            session.get(f"{API}{path}")
    made_up = ["Bearer made-up"]
    assert (sent(there), sent(below), sent(beside), sent(own)) == (
        made_up,
        made_up,
        [None],
        ["Bearer own"],
    )
    assert sorted(session.adapters) == sorted(key for key, _ in before)
    assert dict(session.adapters) == dict(before)


def test_a_token_adapter_for_a_wider_prefix_does_not_sign_as_well(
    session: requests.Session,
) -> None:
    plain = mocked(session, "https://")
    TokenAdapter("https://api.example.com/", fixed("wide"), inner=plain).mount(session)
    with retrofit(session, API, fixed("narrow")):
        session.get(f"{API}/x")
        session.get("https://api.example.com/v2")
    session.get(f"{API}/x")
    assert sent(plain) == ["Bearer narrow", "Bearer wide", "Bearer wide"]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_retrofits_are_undone_in_any_order(session: requests.Session, order: Any) -> None:
    plain = mocked(session, "https://")
    below = mocked(session, f"{API}/uploads/")
    before = dict(session.adapters)
    fits = [
        retrofit(session, prefix, fixed(name))
        for name, prefix in (("0", API), ("1", "https://api.example.com"), ("2", API))
    ]
    left = {0, 1, 2}
    for number in order:
        fits[number].undo()
        left.discard(number)
        session.get(f"{API}/x")
        best = 2 if 2 in left else 0 if 0 in left else 1
        assert sent(plain)[-1] == (f"Bearer {best}" if left else None)
    session.get(f"{API}/uploads/x")
    assert sent(below) == [None]
    assert dict(session.adapters) == before


def test_adapters_mounted_meanwhile_stay(session: requests.Session) -> None:
    mocked(session, "https://")
    fitted = retrofit(session, API, fixed("made-up"))
    other = mocked(session, f"{API}/")
    fitted.undo()
    assert session.get_adapter(f"{API}/x") is other


def test_a_retrofit_takes_precedence_over_an_installed_adapter(session: requests.Session) -> None:
    plain = mocked(session, "https://")
    with installed(TokenAdapter(API, fixed("installed"))):
        with retrofit(session, API, fixed("fitted")):
            session.get(f"{API}/x")
        session.get(f"{API}/x")
    assert sent(plain) == ["Bearer fitted", "Bearer installed"]


def test_a_session_and_its_retrofit_are_garbage_collected(session: requests.Session) -> None:
    forgotten = requests.Session()
    fitted = retrofit(forgotten, API, fixed("made-up"))
    gone = weakref.ref(forgotten)
    del forgotten
    gc.collect()
    assert gone() is None
    fitted.undo()


def test_a_pickled_session_still_signs(server: TokenServer, session: requests.Session) -> None:
    retrofit(session, server.api_url, module_level_source)
    with pickle.loads(pickle.dumps(session)) as copy:
        copy.get(f"{server.api_url}x")
    assert server.requests[-1].headers["authorization"] == "Bearer pickled"


class OwnLookup(requests.Session):
    def get_adapter(self, url: str) -> BaseAdapter:
        return HTTPAdapter()


def test_a_session_that_ignores_mounted_adapters_is_refused() -> None:
    with OwnLookup() as session:
        before = dict(session.adapters)
        with pytest.raises(TypeError, match="OwnLookup ignores mounted adapters"):
            retrofit(session, API, fixed("made-up"))
        assert dict(session.adapters) == before


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        (
            {"inner": HTTPAdapter()},
            TypeError,
            "does not take inner: the session or pool sends",
        ),
        ({"max_retries": 3}, TypeError, "does not take max_retries: the session or pool sends"),
        ({"scheme": 3}, TypeError, "scheme must be a str"),
        ({"prefix": "http://api.example.com"}, UnsafeTarget, "allow_http=True"),
        ({"target": "session"}, TypeError, "retrofit\\(\\) takes a requests.Session, .*type str"),
    ],
)
def test_an_object_that_cannot_be_retrofitted_is_refused(
    session: requests.Session, settings: Any, kind: type[Exception], said: str
) -> None:
    before = dict(session.adapters)
    arguments = {"target": session, "prefix": API, "source": fixed("made-up"), **settings}
    with pytest.raises(kind, match=said):
        retrofit(**arguments)
    assert dict(session.adapters) == before


def test_a_session_without_an_adapter_for_the_prefix_is_refused_at_once(
    session: requests.Session,
) -> None:
    session.adapters.clear()
    with pytest.raises(requests.exceptions.InvalidSchema, match=r"adapters were found for .*/v1/"):
        retrofit(session, API, fixed("made-up"))
    assert not session.adapters
