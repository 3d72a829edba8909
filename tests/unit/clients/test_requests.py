"""The face for requests, against a real server."""

from __future__ import annotations

import gc
import io
import pickle
import threading
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util import Retry, Timeout

from tokenadapter import (
    ClientCredentials,
    LockTimeout,
    MemoryStore,
    ReauthRequired,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenAdapter,
    TokenKeeper,
    UnsafeTarget,
    expired_on,
)
from tokenadapter.testing import TokenServer
from unit.clients.served import source, tokens_sent


@pytest.fixture(name="source")
def source_fixture(server: TokenServer) -> RefreshToken:
    return source(server)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def adapter(server: TokenServer, source: RefreshToken, session: requests.Session) -> TokenAdapter:
    return TokenAdapter(server.api_url, source).mount(session)


def get(session: requests.Session, server: TokenServer, path: str = "x", **kwargs: Any) -> Any:
    return session.get(server.api_url + path, **kwargs)


# --- attach, renew, replay -------------------------------------------------------------------


def test_requests_are_signed(adapter, session, server):
    answer = get(session, server)
    assert answer.ok
    assert tokens_sent(server) == [f"Bearer {adapter.keeper.current().access_token}"]


def test_a_revoked_token_is_renewed_and_the_request_replayed(adapter, session, server):
    get(session, server)
    server.expire_now()
    answer = session.put(server.api_url + "x?y=1", data=b"whole body", headers={"X-Mine": "1"})
    assert answer.ok
    echo = answer.json()
    assert (echo["method"], echo["query"], echo["length"]) == ("PUT", "y=1", 10)
    assert echo["headers"]["x-mine"] == "1"
    assert [past.status_code for past in answer.history] == [401]
    assert server.stats.renewals == 2
    assert adapter.keeper.stats["Replayed"] == 1


def test_a_listener_can_time_renewals_and_replays(server, source):
    events = []
    with requests.Session() as session:
        TokenAdapter(server.api_url, source, on_event=events.append).mount(session)
        get(session, server)
        server.expire_now()
        get(session, server)
    renewal = ["RenewalStarted", "Renewed", "Waited"]
    names = [type(event).__name__ for event in events]
    assert names == [*renewal, *renewal, "ReplayStarted", "Replayed"]
    start, end = events[-2:]
    assert (start.status, start.token) == (end.status, end.token) == (401, events[4].token)
    assert end.answer == 200


def test_a_source_runs_in_the_context_of_the_caller_that_needs_the_token():
    request_id = ContextVar("request_id", default="none")
    seen = []

    def source(previous):
        seen.append(request_id.get())
        return {"access_token": "made-up", "expires_in": 60}

    keeper = TokenKeeper(source)
    request_id.set("request 7")
    token = keeper.current()
    assert seen == ["request 7"]
    request_id.set("request 8")
    keeper.renew(token)
    assert seen == ["request 7", "request 8"]


def test_events_happen_in_the_context_of_the_caller():
    request_id = ContextVar("request_id", default="none")
    seen = []
    keeper = TokenKeeper(
        lambda previous: "made-up",
        on_event=lambda event: seen.append((type(event).__name__, request_id.get())),
    )
    request_id.set("request 7")
    token = keeper.current()
    request_id.set("request 8")
    keeper.renew(token)
    assert seen == [
        (name, request)
        for request in ("request 7", "request 8")
        for name in ("RenewalStarted", "Renewed", "Waited")
    ]


def test_a_failure_is_reported_in_the_context_of_the_caller():
    request_id = ContextVar("request_id", default="none")
    seen = []

    def source(previous):
        raise ReauthRequired("made up", reason="revoked")

    keeper = TokenKeeper(source, on_event=lambda event: seen.append(request_id.get()))
    request_id.set("request 7")
    with pytest.raises(ReauthRequired):
        keeper.current()
    assert {*seen} == {"request 7"}


def test_an_event_within_the_source_happens_in_the_context_of_the_caller(server):
    request_id = ContextVar("request_id", default="none")
    seen = []
    with requests.Session() as session:

        def source(previous):
            session.get(server.url)  # outside the prefix, which is reported
            return "made-up"

        adapter = TokenAdapter(
            server.api_url,
            source,
            on_event=lambda event: seen.append((type(event).__name__, request_id.get())),
        )
        session.mount(server.url, adapter)
        request_id.set("request 7")
        adapter.keeper.current()
    assert ("OutsidePrefix", "request 7") in seen


def test_a_store_and_a_callback_are_called_outside_the_context_of_the_caller():
    """A database session of the caller's context would commit the caller's transaction."""
    request_id = ContextVar("request_id", default="none")
    seen = set()

    class Store(MemoryStore):
        def save(self, *args, **kwargs):
            seen.add(request_id.get())
            return super().save(*args, **kwargs)

    keeper = TokenKeeper(
        lambda previous: "made-up",
        Store("context"),
        on_refresh=lambda token: seen.add(request_id.get()),
    )
    request_id.set("request 7")
    keeper.current()
    assert seen == {"none"}


def test_32_threads_with_an_expired_token_make_one_token_request(adapter, session, server):
    barrier = threading.Barrier(32)
    answers: list[int] = []

    def work() -> None:
        barrier.wait()
        answers.append(get(session, server).status_code)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 32
    assert server.stats.token_requests == 1


def test_a_revocation_under_load_fails_no_request(adapter, session, server):
    get(session, server)
    stop = threading.Event()
    answers: list[int] = []

    def work() -> None:
        with requests.Session() as mine:
            adapter.mount(mine)
            while not stop.is_set():
                answers.append(get(mine, server).status_code)
            mine.adapters.clear()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    server.wait_for(lambda stats: stats.api_requests > 100)
    server.expire_now()
    seen = server.stats.api_requests
    server.wait_for(lambda stats: stats.api_requests > seen + 100)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}
    assert server.stats.token_requests == 2
    assert server.stats.api_refused >= 1


def test_another_token_in_the_store_costs_no_renewal(server, source, session):
    store = MemoryStore()
    mine = TokenAdapter(server.api_url, source, store=store).mount(session)
    others = TokenKeeper(source, store)
    old = mine.keeper.current()
    others.renew(old)
    server.revoke(old.access_token)
    assert get(session, server).ok
    assert server.stats.renewals == 2


def test_if_the_token_of_others_is_refused_too_there_is_still_one_renewal(server, source, session):
    store = MemoryStore()
    mine = TokenAdapter(server.api_url, source, store=store).mount(session)
    TokenKeeper(source, store).renew(mine.keeper.current())
    server.expire_now()
    answer = get(session, server)
    assert answer.ok
    assert len(answer.history) == 2
    assert server.stats.renewals == 3


def test_a_new_token_that_others_have_renewed_already_costs_no_request(server, source, session):
    store = MemoryStore()
    others = TokenKeeper(source, store)

    def overtake(token: Token) -> None:
        if others.stats.get("Renewed") is None:
            others.renew(token)
            server.revoke(token.access_token)

    TokenAdapter(server.api_url, source, store=store, on_refresh=overtake).mount(session)
    answer = get(session, server)
    assert answer.ok
    assert len(answer.history) == 1
    assert server.stats.renewals == 2


def test_a_new_token_that_is_refused_is_handed_on_and_the_next_ones_too(
    adapter, session, server, caplog
):
    get(session, server)
    server.fail_next(401, count=None, endpoint="api")
    for _ in range(3):
        assert get(session, server).status_code == 401
    logged = [line for line in caplog.messages if line.startswith("handed on: ")]
    assert len(logged) == 3
    assert all(
        "(scope, resource, audience)" in line and "(header, scheme)" in line for line in logged
    )
    assert server.stats.renewals == 2
    server.recover("api")
    assert get(session, server).ok


def test_the_first_token_that_is_refused_is_not_renewed(adapter, session, server):
    server.fail_next(401, count=None, endpoint="api")
    assert get(session, server).status_code == 401
    assert server.stats.renewals == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {}),
        (407, {}),
        (401, {"WWW-Authenticate": 'Basic realm="x"'}),
        (401, {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}),
        (401, {"WWW-Authenticate": 'Bearer error="insufficient_user_authentication"'}),
        (500, {}),
    ],
)
def test_a_401_that_is_not_an_expiry_is_handed_on(adapter, session, server, status, headers):
    server.fail_next(status, endpoint="api", headers=headers)
    assert get(session, server).status_code == status
    assert server.stats.renewals == 1


def test_max_replays_0_renews_and_hands_the_refusal_on(server, source, session):
    TokenAdapter(server.api_url, source, max_replays=0).mount(session)
    get(session, server)
    server.expire_now()
    assert get(session, server).status_code == 401
    assert server.stats.renewals == 2
    assert get(session, server).ok


def test_more_replays_are_for_a_verdict_of_ones_own_and_never_renew_twice(server, source, session):
    TokenAdapter(server.api_url, source, verdict=expired_on(status=419), max_replays=3).mount(
        session
    )
    get(session, server)
    server.fail_next(419, count=3, endpoint="api")
    answer = get(session, server)
    assert answer.ok
    assert [past.status_code for past in answer.history] == [419] * 3
    assert server.stats.renewals == 2
    server.fail_next(419, count=5, endpoint="api")
    assert get(session, server).status_code == 419


def test_an_expiry_in_the_json_of_a_200_is_found_and_a_stream_stays_unread(server, source, session):
    verdict = expired_on(status=200, json={"error": "token_expired"})
    TokenAdapter(server.api_url, source, verdict=verdict).mount(session)
    get(session, server)
    server.fail_next(200, endpoint="api", body={"error": "token_expired"})
    answer = get(session, server, stream=True)
    assert b"".join(answer.iter_content(7)).startswith(b"{")
    assert len(answer.history) == 1


# --- where a token may go --------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "https://api.example.com.evil.com/v1/x",
        "https://api.example.com@evil.com/v1/x",
        "https://evil.com/?https://api.example.com/v1/",
        "https://api.example.com:8443/v1/x",
        "http://api.example.com/v1/x",
        "https://api.example.com/v10",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/%2e%2e/admin",
        "https://api.example.com/v1/..%2Fadmin",
        "https://api.example.com/v1/..;/admin",
        "https://api.example.com/v1/%5C..%5Cadmin",
        "https://api.example.com/V1/x",
    ],
)
def test_nothing_but_the_prefix_gets_the_token(target):
    sent = Recorder()
    adapter = TokenAdapter("https://api.example.com/v1", lambda previous: "secret", inner=sent)
    request = requests.Request("GET", target).prepare()
    adapter.send(request)
    assert "Authorization" not in sent.requests[0].headers
    assert sent.requests[0] is request
    adapter.send(requests.Request("GET", "https://api.example.com/v1/x").prepare())
    assert sent.requests[1].headers["Authorization"] == "Bearer secret"


def test_a_request_outside_the_prefix_is_logged_once():
    adapter = TokenAdapter("https://api.example.com/v1", lambda previous: "t", inner=Recorder())
    for _ in range(3):
        adapter.send(requests.Request("GET", "https://api.example.com/v2").prepare())
    assert adapter.keeper.stats == {"OutsidePrefix": 1}


@pytest.mark.parametrize("host", ["evil.example", b"evil.example", "", "api.example.com@evil"])
def test_a_request_whose_host_header_names_another_host_is_sent_without_a_token(host, caplog):
    sent = Recorder()
    adapter = TokenAdapter("https://api.example.com/v1", lambda previous: "secret", inner=sent)
    request = requests.Request("GET", "https://api.example.com/v1/x?key=s3cret").prepare()
    request.headers["hOST"] = host
    for _ in range(2):
        adapter.send(request)
    assert "Authorization" not in sent.requests[0].headers
    (logged,) = [record.getMessage() for record in caplog.records]
    assert logged.startswith("the Host header ")
    assert " of https://api.example.com/v1/x names another host than the prefix " in logged
    request.headers["Host"] = "API.example.com:443"
    adapter.send(request)
    assert sent.requests[-1].headers["Authorization"] == "Bearer secret"


def test_plain_http_is_refused_but_for_this_machine_or_on_demand():
    with pytest.raises(UnsafeTarget, match="allow_http"):
        TokenAdapter("http://api.example.com/", lambda previous: "t")
    TokenAdapter("http://api.example.com/", lambda previous: "t", allow_http=True)
    TokenAdapter("http://127.0.0.1:1/", lambda previous: "t")


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Token"])
def test_a_redirect_to_another_host_gets_no_token(source, session, header):
    with TokenServer(header=header) as server, TokenServer() as elsewhere:
        grant = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
        TokenAdapter(server.api_url, grant, header=header).mount(session)
        target = f"{server.api_url}redirect?to={elsewhere.public_url}x&status=307"
        answer = session.post(target, data=b"body")
        assert answer.ok
        received = elsewhere.requests[-1].headers
        assert header.lower() not in received
        assert "authorization" not in received
        # Back under the prefix, the token is there again.
        back = f"{server.api_url}redirect?to={server.api_url}y"
        assert session.get(back).ok


def test_a_redirect_of_the_token_request_is_not_followed(server, session, source):
    with TokenServer() as elsewhere:
        TokenAdapter(server.api_url, source).mount(session)
        server.fail_next(307, redirect=elsewhere.token_url)
        with pytest.raises(requests.RequestException, match="redirect"):
            get(session, server)
        assert elsewhere.requests == ()


def test_a_netrc_entry_neither_replaces_the_token_nor_joins_the_token_request(
    server, session, source, tmp_path, monkeypatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login joe password netrc-password\n")
    monkeypatch.setenv("NETRC", str(netrc))
    grant = RefreshToken(
        server.token_url, server.issue()["refresh_token"], client_id="client", client_auth="none"
    )
    TokenAdapter(server.api_url, source).mount(session)
    assert get(session, server).ok
    assert tokens_sent(server)[0].startswith("Bearer ")
    with pytest.raises(requests.RequestException):
        TokenKeeper(grant).current()
    requested = [r for r in server.requests if r.path == "/token"][-1]
    assert "authorization" not in requested.headers


def test_requests_to_the_token_endpoint_itself_are_left_alone(server, session, source):
    TokenAdapter(server.url, source).mount(session)
    session.post(server.token_url, auth=("client", "secret"), data={"grant_type": "x"})
    assert server.requests[-1].headers["authorization"].startswith("Basic ")
    assert server.stats.renewals == 0


def test_the_callers_request_never_carries_the_token(adapter, session, server):
    get(session, server)
    server.expire_now()
    request = session.prepare_request(requests.Request("GET", server.api_url + "x"))
    answer = session.send(request)
    assert answer.request is request
    assert answer.history[0].request is request
    assert "Authorization" not in request.headers
    with server.hold(endpoint="api"), pytest.raises(requests.ReadTimeout) as info:
        session.send(request, timeout=0.05)
    assert info.value.request is request


# --- fidelity --------------------------------------------------------------------------------


class Recorder(BaseAdapter):
    """An inner adapter that keeps what it is given."""

    def __init__(self) -> None:
        self.requests: list[requests.PreparedRequest] = []
        self.kwargs: list[dict[str, Any]] = []
        self.closed = False

    def send(self, request, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.requests.append(request)
        response = requests.Response()
        response.status_code = 200
        response.raw = io.BytesIO(b"")
        response.request = request
        response.url = request.url
        return response

    def close(self) -> None:
        self.closed = True


def test_an_inner_adapter_does_the_sending_and_is_closed():
    inner = Recorder()
    adapter = TokenAdapter("https://api.example.com/", lambda previous: "t", inner=inner)
    request = requests.Request("GET", "https://api.example.com/").prepare()
    assert adapter.send(request).request is request
    assert inner.requests[0].headers["Authorization"] == "Bearer t"
    adapter.close()
    assert inner.closed


def test_pool_settings_beside_an_inner_adapter_are_a_mistake():
    with pytest.raises(TypeError, match="pool_maxsize"):
        TokenAdapter(
            "https://api.example.com/", lambda previous: "t", inner=Recorder(), pool_maxsize=3
        )


def test_keeper_settings_beside_a_keeper_are_a_mistake():
    with pytest.raises(TypeError, match="TokenKeeper"):
        TokenAdapter(
            "https://api.example.com/", TokenKeeper(lambda previous: "t"), store=MemoryStore()
        )


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"header": ""}, ValueError, "header"),
        ({"header": "X Api"}, ValueError, "header"),
        ({"scheme": "Bea\nrer"}, ValueError, "scheme"),
        ({"scheme": "Bearer "}, ValueError, "scheme"),
        ({"scheme": None}, TypeError, "scheme"),
        ({"max_replays": -1}, ValueError, "max_replays"),
        ({"max_replays": None}, TypeError, "max_replays"),
        ({"replay_limit": None}, TypeError, "replay_limit"),
        ({"lock_timeout": 0}, ValueError, "lock_timeout"),
        ({"lock_timeout": None}, TypeError, "lock_timeout"),
        ({"verdict": 401}, TypeError, "verdict"),
        ({"attach": "X"}, TypeError, "attach"),
        ({"attach": print, "scheme": "x"}, TypeError, "attach"),
        ({"inner": "x"}, TypeError, "inner"),
        ({"store": 42}, TypeError, "FileStore"),
        ({"store": MemoryStore}, TypeError, "FileStore"),
        ({"on_refresh": "x"}, TypeError, "on_refresh"),
    ],
)
def test_invalid_settings_fail_at_once_and_not_at_the_first_renewal(settings, kind, message):
    with pytest.raises(kind, match=message):
        TokenAdapter("https://api.example.com/", lambda previous: "t", **settings)


@pytest.mark.parametrize("settings", [{"renew_early": False}, {"lock_timeout": 1.0}])
def test_keeper_settings_are_not_dropped_silently(settings):
    with pytest.raises(TypeError, match="TokenKeeper"):
        TokenAdapter("https://a.example.com/", TokenKeeper(lambda previous: "t"), **settings)


def test_plain_http_to_this_machine_bypasses_proxies(server, source, session):
    TokenAdapter(server.api_url, source).mount(session)
    session.proxies = {"http": "http://127.0.0.1:9/"}
    assert get(session, server).ok


def test_the_token_endpoint_is_left_alone_under_every_spelling():
    inner = Recorder()
    grant = ClientCredentials("https://a.example.com/token", client_id="c", client_secret="s")
    adapter = TokenAdapter("https://a.example.com", grant, inner=inner)
    for url in ("/token", ":443/token", "/token?x", "/token#y"):
        adapter.send(requests.Request("POST", "https://a.example.com" + url).prepare())
    assert all("Authorization" not in request.headers for request in inner.requests)


def test_changes_by_attach_stay_with_the_copy():
    def attach(request: requests.PreparedRequest, token: Token) -> None:
        request.register_hook("response", print)
        request.headers["X"] = token.access_token

    adapter = TokenAdapter("https://a.example.com", lambda p: "t", attach=attach, inner=Recorder())
    request = requests.Request("GET", "https://a.example.com/x").prepare()
    adapter.send(request)
    assert request.hooks == {"response": []}
    assert not request.headers


def test_the_longer_prefix_goes_first_under_every_spelling(session):
    whole = TokenAdapter("https://h.example.com", lambda previous: "a").mount(session)
    part = TokenAdapter("https://h.example.com/v1", lambda previous: "b").mount(session)
    for host in ("https://h.example.com", "https://h.example.com:443"):
        assert session.get_adapter(host + "/v1/x") is part
        assert session.get_adapter(host + "/v2/x") is whole


def test_two_adapters_can_share_a_keeper(server, source, session):
    keeper = TokenKeeper(source)
    TokenAdapter(server.api_url + "a", keeper).mount(session)
    TokenAdapter(server.api_url + "b", keeper).mount(session)
    assert get(session, server, "a/1").ok
    assert get(session, server, "b/1").ok
    assert get(session, server, "c/1").status_code == 401
    assert server.stats.token_requests == 1


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({}, "Authorization", "Bearer t"),
        ({"scheme": "token"}, "Authorization", "token t"),
        ({"header": "X-Api-Token", "scheme": ""}, "X-Api-Token", "t"),
    ],
)
def test_header_and_scheme(settings, header, value):
    inner = Recorder()
    adapter = TokenAdapter("https://a.example.com", lambda previous: "t", inner=inner, **settings)
    adapter.send(requests.Request("GET", "https://a.example.com/x").prepare())
    assert inner.requests[0].headers == {header: value}


def test_attach_may_use_the_query_and_the_logged_url_has_no_token():
    inner = Recorder()

    def attach(request: requests.PreparedRequest, token: Token) -> None:
        request.prepare_url(request.url, {"access_token": token.access_token})

    adapter = TokenAdapter("https://a.example.com", lambda p: "secret", attach=attach, inner=inner)
    answer = adapter.send(requests.Request("GET", "https://a.example.com/x").prepare())
    assert inner.requests[0].url == "https://a.example.com/x?access_token=secret"
    assert answer.url == "https://a.example.com/x"


def test_override_auth_can_be_turned_off(server, source, session):
    TokenAdapter(server.api_url, source, override_auth=False).mount(session)
    assert get(session, server, auth=("joe", "password")).status_code == 401
    assert tokens_sent(server)[0].startswith("Basic ")
    assert server.stats.token_requests == 0


def test_the_auth_of_a_session_is_replaced(adapter, session, server):
    session.auth = ("joe", "password")
    assert get(session, server).ok


def test_401_is_taken_out_of_a_retry(server, source, session):
    retry = Retry(2, status_forcelist=[401, 503], backoff_factor=0)
    adapter = TokenAdapter(server.api_url, source, max_retries=retry).mount(session)
    assert list(adapter.max_retries.status_forcelist) == [503]
    assert retry.status_forcelist == [401, 503]
    get(session, server)
    server.expire_now()
    server.fail_next(503, endpoint="api")
    assert get(session, server).ok
    assert server.stats.renewals == 2


def test_cookies_of_a_refusal_are_kept_and_sent_with_the_replay(adapter, session, server):
    get(session, server)
    session.cookies.set("old", "1")
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": "new=2; Path=/"})
    answer = get(session, server)
    assert answer.ok
    assert sorted(tokens_sent(server, "cookie")[-1].split("; ")) == ["new=2", "old=1"]
    assert session.cookies.get_dict() == {"old": "1", "new": "2"}


def test_a_cookie_header_of_the_callers_own_is_left_alone(adapter, session, server):
    get(session, server)
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": "new=2; Path=/"})
    assert get(session, server, headers={"Cookie": "mine=1"}).ok
    assert tokens_sent(server, "cookie")[-1] == "mine=1"
    assert session.cookies.get_dict() == {"new": "2"}


@pytest.mark.parametrize("stream", [False, True])
def test_one_connection_serves_refusals_and_replays(server, source, session, stream):
    TokenAdapter(server.api_url, source, pool_block=True, pool_maxsize=1).mount(session)
    for _ in range(5):
        server.expire_now()
        with get(session, server, stream=stream) as answer:
            assert answer.json()["method"] == "GET"
    peers = {r.peer for r in server.requests if r.path.startswith("/api/")}
    assert len(peers) == 1


def test_a_stream_is_given_unread(adapter, session, server):
    get(session, server)
    server.expire_now()
    with get(session, server, stream=True) as answer:
        assert not answer._content_consumed
        assert answer.raw.read(5)


def test_a_generator_is_replayed_whole(adapter, session, server):
    get(session, server)
    server.expire_now()
    answer = session.post(server.api_url + "x", data=(b"%d," % i for i in range(1000)))
    assert answer.json()["length"] == len(b"".join(b"%d," % i for i in range(1000)))


@pytest.mark.parametrize("one_shot", [True, False])
def test_for_a_one_shot_body_a_stale_token_is_renewed_before_it_is_sent(
    adapter, session, server, one_shot
):
    stale = server.issue() | {"expires_in": 3600, "expires_at": time.time() + 300}
    adapter.keeper.adopt(stale)
    with server.hold(endpoint="api") as hold:
        thread = threading.Thread(
            target=session.post,
            args=(server.api_url + "x",),
            kwargs={"data": iter([b"x"]) if one_shot else b"x"},
        )
        thread.start()
        assert hold.arrived.wait(10)
    thread.join()
    server.wait_for(lambda stats: stats.renewals == 1)
    is_old = tokens_sent(server) == [f"Bearer {stale['access_token']}"]
    assert is_old is not one_shot


def test_a_body_that_cannot_be_repeated_is_renewed_for_and_handed_on(server, source, session):
    adapter = TokenAdapter(server.api_url, source, replay_limit=10).mount(session)
    get(session, server)
    server.expire_now()
    assert session.post(server.api_url + "x", data=iter([b"x" * 100])).status_code == 401
    assert server.stats.renewals == 2
    assert adapter.keeper.stats["HandedOn"] == 1


def test_hooks_run_on_the_answer_that_the_caller_gets(adapter, session, server):
    get(session, server)
    server.expire_now()
    seen: list[int] = []
    get(session, server, hooks={"response": lambda r, **kwargs: seen.append(r.status_code)})
    assert seen == [200]


def test_the_error_of_a_failed_renewal_has_the_refused_response(adapter, session, server):
    get(session, server)
    server.expire_now()
    with server.outage(503), pytest.raises(RefreshTemporarilyFailed) as info:
        get(session, server)
    assert info.value.response.status_code == 401
    assert info.value.response.json()
    assert info.value.request.url == server.api_url + "x"


def test_a_dead_grant_is_an_error_that_callers_of_requests_catch(adapter, session, server):
    get(session, server)
    server.revoke_all()
    with pytest.raises(requests.RequestException) as info:
        get(session, server)
    assert isinstance(info.value, ReauthRequired)


@pytest.mark.parametrize("timeout", [0.05, (5, 0.05), Timeout(read=0.05), Timeout(total=0.05)])
def test_a_renewal_is_waited_for_no_longer_than_the_read_timeout(adapter, session, server, timeout):
    with server.hold(), pytest.raises(LockTimeout):
        get(session, server, timeout=timeout)
    assert adapter.keeper.wait(10)
    assert get(session, server).ok


def test_mount_takes_the_place_of_its_prefix_under_every_spelling(source, session):
    kept = HTTPAdapter()
    session.mount("https://api.example.com/v1/public/", kept)
    mounted = session.adapters
    adapter = TokenAdapter("https://API.example.com:443/v1/", source)
    assert adapter.mount(session) is adapter
    assert session.adapters is not mounted
    for url in ("/v1", "/v1/", "/v1/x", "/v1?x"):
        assert session.get_adapter("https://api.example.com" + url) is adapter
        assert session.get_adapter("https://api.example.com:443" + url) is adapter
    assert session.get_adapter("https://api.example.com/v1/public/x") is kept
    assert session.get_adapter("https://other.example.com/v1") is not adapter


def test_session_mount_works_too(server, source, session):
    adapter = TokenAdapter(server.api_url, source)
    session.mount(adapter.prefix, adapter)
    assert get(session, server).ok


def grow(previous: Token | None) -> str:
    return "very-secret"


def test_a_pickled_adapter_carries_its_settings_and_no_token():
    adapter = TokenAdapter(
        "https://api.example.com/v1",
        grow,
        max_replays=4,
        verdict=expired_on(status=419),
        header="X-Token",
        scheme="",
        inner=HTTPAdapter(pool_maxsize=3),
    )
    adapter.keeper.current()
    data = pickle.dumps(adapter)
    assert b"very-secret" not in data
    copy = pickle.loads(data)
    assert copy.prefix == adapter.prefix
    assert copy.rules.max_replays == 4
    copy.inner = Recorder()
    copy.send(requests.Request("GET", "https://api.example.com/v1/x").prepare())
    assert copy.inner.requests[0].headers["X-Token"] == "very-secret"


def test_an_adapter_that_is_dropped_is_freed_at_once(server, source):
    session = requests.Session()
    adapter = TokenAdapter(server.api_url, source).mount(session)
    get(session, server).close()
    reference = weakref.ref(adapter)
    gc.disable()
    try:
        del adapter
        session.close()
        del session
        assert reference() is None
    finally:
        gc.enable()


def test_close_and_use_again(adapter, session, server):
    get(session, server)
    adapter.close()
    assert get(session, server).ok


def test_positional_arguments_are_those_of_an_http_adapter(adapter, session, server):
    request = session.prepare_request(requests.Request("GET", server.api_url + "x"))
    assert adapter.send(request, True, 5, True, None, {}).ok


def test_it_can_be_a_base_in_multiple_inheritance(server, source, session):
    class Counting(HTTPAdapter):
        count = 0

        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            self.count += 1
            return super().send(*args, **kwargs)

    class Both(TokenAdapter, Counting):
        pass

    adapter = Both(server.api_url, source).mount(session)
    get(session, server)
    server.expire_now()
    get(session, server)
    assert adapter.count == 3


def test_on_refresh_is_called_before_the_replay(server, source, session):
    calls: list[tuple[str, int]] = []

    def saved(token: Token) -> None:
        calls.append((token.to_dict()["access_token"], server.stats.api_requests))

    adapter = TokenAdapter(server.api_url, source, on_refresh=saved).mount(session)
    get(session, server)
    server.expire_now()
    get(session, server)
    assert [requests_before for _, requests_before in calls] == [0, 2]
    assert calls[1][0] == adapter.keeper.current().access_token
