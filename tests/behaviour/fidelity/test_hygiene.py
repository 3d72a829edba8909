"""A refusal has no side effects that a caller, a pool or a server could notice."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tokenadapter import TokenAdapter
from tokenadapter.testing import TokenServer

from .conftest import Way

BIG = b"x" * 200_000  # more than is drained


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


Mount = Callable[..., TokenAdapter]


@pytest.fixture
def mount(server: TokenServer, session: requests.Session) -> Mount:
    def mount(**settings: Any) -> TokenAdapter:
        adapter = TokenAdapter(server.api_url, Way(server).source(), **settings).mount(session)
        adapter.keeper.adopt(server.issue())
        return adapter

    return mount


def connections(server: TokenServer) -> int:
    return len({r.peer for r in server.requests if r.path.startswith("/api/")})


# --- connections -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["http", "https", "tunnel"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_many_replays_take_one_connection(ways: dict[str, Way], way: str, stream: bool) -> None:
    server = ways[way].server
    seen = connections(server)
    with ways[way].session() as session:
        adapter = TokenAdapter(
            server.api_url, ways[way].source(), pool_block=True, pool_maxsize=1
        ).mount(session)
        adapter.keeper.adopt(server.issue())
        for _ in range(20):
            server.expire_now()
            with session.put(f"{server.api_url}x", data=iter([b"body"]), stream=stream) as answer:
                assert len(answer.history) == 1
                assert answer.json()["length"] == 4
        assert connections(server) == seen + 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_on_refresh_may_use_the_session_although_the_pool_has_one_connection(
    server: TokenServer, session: requests.Session, mount: Mount, stream: bool
) -> None:
    seen: list[int] = []

    def on_refresh(token: object) -> None:
        seen.append(session.get(f"{server.api_url}me").status_code)

    mount(on_refresh=on_refresh, pool_block=True, pool_maxsize=1)
    assert session.get(f"{server.api_url}x").ok
    server.expire_now()
    with session.get(f"{server.api_url}x", stream=stream) as answer:
        assert answer.json()
        assert answer.history[0].json() == {"error": "invalid_token"}
    assert seen == [200]
    assert server.stats.api_requests == 4
    assert connections(server) == 1


def test_threads_that_share_one_connection_all_get_through(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount(pool_block=True, pool_maxsize=1)
    server.expire_now()
    answers: list[int] = []

    def work() -> None:
        for _ in range(5):
            answers.append(session.put(f"{server.api_url}x", data=b"body").status_code)
            server.expire_now()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A request may meet a token that the others have expired again; none of them hangs.
    assert len(answers) == 30
    assert set(answers) <= {200, 401}
    assert connections(server) == 1


def test_a_long_refusal_is_not_waited_for(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount(pool_block=True, pool_maxsize=1)
    server.fail_next(401, endpoint="api", body=BIG)
    answer = session.get(f"{server.api_url}x")
    assert answer.ok
    assert answer.history[0].content == b""
    assert connections(server) == 2


# --- the body of the answer --------------------------------------------------------------------


def handed_on(server: TokenServer, mount: Mount, how: str, block: bool) -> dict[str, Any]:
    """Settings and arguments of a request whose refusal is handed on after a renewal."""
    match how:
        case "max_replays is 0":
            mount(max_replays=0, pool_block=block)
            return {}
        case "not recorded":
            mount(replay_limit=0, pool_block=block)
            return {"data": iter([b"body"])}
        case _:
            adapter = mount(pool_block=block)
            adapter.keeper.distrust(adapter.keeper.current())
            return {}


@pytest.mark.parametrize("block", [False, True], ids=["", "one connection"])
@pytest.mark.parametrize("body", [{"error": "x", "text": "zwölf"}, BIG], ids=["short", "long"])
@pytest.mark.parametrize("how", ["max_replays is 0", "not recorded", "refused when new"])
@pytest.mark.parametrize("read", ["content", "raw", "iter_content"])
def test_a_refusal_that_is_handed_on_is_unread_and_whole(
    server: TokenServer,
    session: requests.Session,
    mount: Mount,
    how: str,
    body: Any,
    read: str,
    block: bool,
) -> None:
    kwargs = handed_on(server, mount, how, block)
    fields = {"Set-Cookie": "a=1", "X-Own": "field"}
    server.fail_next(401, endpoint="api", body=body, headers=fields, count=2)
    with session.put(f"{server.public_url}x", **{**kwargs, "data": None}) as plain:
        assert plain.ok
    answer = session.put(f"{server.api_url}x", stream=True, **kwargs)
    assert answer.status_code == 401
    assert answer.history == []
    assert answer._content_consumed is False
    assert answer.raw.headers["X-Own"] == "field"
    assert (answer.raw.status, answer.raw.version) == (401, 11)
    assert session.cookies.get_dict() == {"a": "1"}
    content = {
        "content": lambda: answer.content,
        "raw": answer.raw.read,
        "iter_content": lambda: b"".join(answer.iter_content(1000)),
    }[read]()
    assert len(content) == int(answer.headers["Content-Length"])
    answer.close()


@pytest.mark.parametrize(
    "read",
    [
        lambda answer: answer.content,
        lambda answer: b"".join(answer.iter_content(7)),
        lambda answer: b"\n".join(answer.iter_lines()),
        lambda answer: answer.raw.read(),
        lambda answer: b"".join(answer.raw.stream(7)),
        lambda answer: answer.text.encode(),
    ],
    ids=["content", "iter_content", "iter_lines", "raw.read", "raw.stream", "text"],
)
def test_after_a_replay_a_stream_is_unread(
    server: TokenServer, session: requests.Session, mount: Mount, read: Any
) -> None:
    mount()
    server.expire_now()
    with session.get(f"{server.api_url}x", stream=True) as answer:
        assert not answer._content_consumed
        assert answer.raw._fp_bytes_read == 0
        assert len(read(answer)) == int(answer.headers["Content-Length"])


# --- all else that an answer has ---------------------------------------------------------------


def looks(answer: requests.Response) -> dict[str, Any]:
    """What can be seen of an answer, but for what is its own in each."""
    raw = answer.raw
    return {
        **{name: getattr(answer, name) for name in ("status_code", "reason", "encoding", "ok")},
        **{name: getattr(answer, name) for name in ("is_redirect", "next", "links")},
        "fields": [name for name in answer.headers if name != "Content-Length"],
        "cookies": answer.cookies.get_dict(),
        "attributes": sorted(vars(answer)),
        "elapsed": answer.elapsed > timedelta(),
        "raw": type(raw),
        "version": (raw.version, raw.status, raw.reason, raw.decode_content, raw.closed),
        "retries": raw.retries.history,
        "connection": answer.connection is not None,
    }


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("replayed", [False, True], ids=["at once", "replayed"])
def test_an_answer_looks_like_that_of_a_plain_adapter(
    server: TokenServer, session: requests.Session, mount: Mount, replayed: bool, stream: bool
) -> None:
    adapter = mount()
    if replayed:
        server.expire_now()
    plain = session.get(f"{server.public_url}x?a=b", stream=stream)
    request = session.prepare_request(requests.Request("GET", f"{server.api_url}x?a=b"))
    ours = session.send(request, stream=stream)
    assert looks(ours) == looks(plain)
    assert ours.url == f"{server.api_url}x?a=b"
    assert ours.request is request
    assert request.url == ours.url
    assert ours.connection is adapter
    assert [past.request for past in ours.history] == [request] * replayed
    for past in ours.history:
        assert past.connection is adapter
        assert past.url == ours.url
        assert isinstance(past.raw, urllib3.HTTPResponse)
    plain.close()
    ours.close()


def test_the_connection_of_an_answer_signs_too(server: TokenServer) -> None:
    """Auth handlers send their second request through it."""
    for inner in (None, HTTPAdapter()):
        with requests.Session() as session:
            adapter = TokenAdapter(server.api_url, Way(server).source(), inner=inner).mount(session)
            adapter.keeper.adopt(server.issue())
            answer = session.get(f"{server.api_url}x")
            assert answer.connection is adapter
            assert answer.connection.send(answer.request).status_code == 200


def test_an_answer_with_its_history_can_be_pickled_and_holds_no_token(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    adapter = mount()
    old = adapter.keeper.current().access_token
    server.expire_now()
    data = pickle.dumps(session.get(f"{server.api_url}x"))
    twin = pickle.loads(data)
    assert [past.status_code for past in (*twin.history, twin)] == [401, 200]
    for secret in (old, adapter.keeper.current().access_token):
        assert secret.encode() not in data


def test_each_hook_is_called_once_and_may_replace_the_answer(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.expire_now()
    seen: list[str] = []
    other = requests.Response()

    def look(answer: requests.Response, **kwargs: Any) -> None:
        seen.append(f"{answer.status_code} {kwargs['timeout']}")

    def replace(answer: requests.Response, **kwargs: Any) -> requests.Response:
        return other

    hooks = {"response": [look, replace]}
    assert session.get(f"{server.api_url}x", hooks=hooks, timeout=9) is other
    assert seen == ["200 9"]


def test_the_elapsed_time_includes_the_renewal_and_the_replay(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.expire_now()
    times: list[timedelta] = []
    with server.hold() as hold:
        thread = threading.Thread(
            target=lambda: times.append(session.get(f"{server.api_url}x").elapsed)
        )
        thread.start()
        assert hold.arrived.wait(10)
        with requests.Session() as other:
            meanwhile = other.get(f"{server.public_url}x").elapsed
    thread.join()
    assert times[0] > meanwhile


# --- cookies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "replayed", "kept"),
    [
        ("new=2; Path=/", {"old=1", "new=2"}, {"old": "1", "new": "2"}),
        ("old=2; Path=/", {"old=2"}, {"old": "2"}),
        ("old=; Path=/; Max-Age=0", set(), {}),
        ("far=3; Path=/elsewhere", {"old=1"}, {"old": "1", "far": "3"}),
        ("foreign=4; Domain=example.com", {"old=1"}, {"old": "1"}),
        ("safe=5; Secure; Path=/", {"old=1"}, {"old": "1", "safe": "5"}),
    ],
    ids=["new", "changed", "deleted", "another path", "another domain", "for https"],
)
def test_cookies_of_a_refusal_are_kept_and_sent_as_their_rules_say(
    server: TokenServer,
    session: requests.Session,
    mount: Mount,
    cookie: str,
    replayed: set[str],
    kept: dict[str, str],
) -> None:
    mount()
    session.cookies.set("old", "1", domain="127.0.0.1", path="/")
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": cookie})
    answer = session.get(f"{server.api_url}x")
    assert answer.ok
    sent = [r.headers.get("cookie", "") for r in server.requests if r.path.startswith("/api/")]
    assert sent[0] == "old=1"
    assert set(sent[1].split("; ")) - {""} == replayed
    assert session.cookies.get_dict() == kept


def test_cookies_of_one_request_stay_its_own(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": "new=2; Path=/"})
    assert session.get(f"{server.api_url}x", cookies={"mine": "1"}).ok
    sent = server.requests[-1].headers["cookie"]
    assert set(sent.split("; ")) == {"mine=1", "new=2"}
    assert session.cookies.get_dict() == {"new": "2"}
