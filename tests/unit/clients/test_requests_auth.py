"""``auth=`` for requests, against a real server."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import (
    ClientCredentials,
    ReauthRequired,
    RequestsAuth,
    Token,
    TokenAdapter,
    TokenKeeper,
    expired_on,
)
from tokenadapter.testing import TokenServer
from unit.clients.served import SECRET, fixed, source, told

DATA = bytes(range(256)) * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


# --- attach, renew, replay ---------------------------------------------------------------------


def test_a_single_call_is_signed_and_replayed(server: TokenServer) -> None:
    auth = RequestsAuth(server.api_url, source(server))
    assert requests.get(f"{server.api_url}x", auth=auth).ok
    server.expire_now()
    answer = requests.put(f"{server.api_url}x", data=b"whole body", auth=auth)
    assert (answer.status_code, answer.json()["length"]) == (200, 10)
    assert [past.status_code for past in answer.history] == [401]
    assert server.stats.renewals == 2
    assert auth.keeper.stats["Replayed"] == 1


def test_a_session_has_it_for_all_its_requests(
    session: requests.Session, server: TokenServer, other: TokenServer
) -> None:
    session.auth = RequestsAuth(server.api_url, fixed)
    session.get(f"{server.api_url}x")
    session.get(f"{other.api_url}x")
    assert [*told(server), *told(other)] == [("/api/x", True), ("/api/x", False)]


def test_a_refusal_is_handed_on_if_a_new_token_is_refused_too(server: TokenServer) -> None:
    auth = RequestsAuth(server.api_url, source(server))
    server.fail_next(401, endpoint="api", count=None, body={"why": "never"})
    answer = requests.get(f"{server.api_url}x", auth=auth)
    assert (answer.status_code, answer.json()) == (401, {"why": "never"})
    assert server.stats.renewals == 1
    assert auth.keeper.stats["HandedOn"] == 1


def test_a_verdict_of_ones_own_decides(session: requests.Session, server: TokenServer) -> None:
    verdict = expired_on(status=419, json={"error": "dead"})
    session.auth = RequestsAuth(server.api_url, source(server), verdict=verdict)
    session.get(f"{server.api_url}x")
    server.fail_next(419, endpoint="api", body={"error": "dead"})
    assert session.get(f"{server.api_url}x", stream=True).ok
    assert server.stats.renewals == 2


def test_a_403_for_a_larger_scope_is_reported(server: TokenServer) -> None:
    auth = RequestsAuth(server.api_url, source(server))
    headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="more"'}
    server.fail_next(403, endpoint="api", headers=headers)
    assert requests.get(f"{server.api_url}x", auth=auth).status_code == 403
    assert auth.keeper.stats["StepUpNeeded"] == 1


def test_the_keeper_can_be_that_of_an_adapter(
    session: requests.Session, server: TokenServer
) -> None:
    adapter = TokenAdapter(server.api_url, source(server)).mount(session)
    auth = RequestsAuth(server.api_url, adapter.keeper)
    session.get(f"{server.api_url}x")
    requests.get(f"{server.api_url}x", auth=auth)
    assert server.stats.renewals == 1


def test_header_and_scheme_and_attach_put_the_token_where_the_api_wants_it() -> None:
    with TokenServer(header="X-Api-Key", scheme="") as server:
        auth = RequestsAuth(server.api_url, source(server), header="X-Api-Key", scheme="")
        assert requests.get(f"{server.api_url}x", auth=auth).ok

        def attach(request: requests.PreparedRequest, token: Token) -> None:
            request.headers["X-Api-Key"] = token.access_token
            request.prepare_url(request.url or "", {"key": token.access_token})

        auth = RequestsAuth(server.api_url, source(server), attach=attach)
        requests.get(f"{server.api_url}x", auth=auth)
        server.expire_now()
        answer = requests.get(f"{server.api_url}x?y=1", auth=auth)
        secret = auth.keeper.current().access_token
        assert answer.ok
        assert answer.json()["query"] == f"y=1&key={secret}"
        for past in (answer, *answer.history):
            assert secret not in f"{past.url} {past.request.url} {past.request.headers}"


def test_an_authorization_of_the_caller_is_replaced_unless_disabled(
    server: TokenServer,
) -> None:
    mine = {"Authorization": "Bearer mine"}
    auth = RequestsAuth(server.api_url, fixed)
    answer = requests.get(f"{server.api_url}x", headers=mine, auth=auth)
    assert answer.request.headers["Authorization"] == "Bearer mine"
    auth = RequestsAuth(server.api_url, fixed, override_auth=False)
    requests.get(f"{server.api_url}x", headers=mine, auth=auth)
    sent = [r.headers["authorization"] for r in server.requests]
    assert sent == [f"Bearer {SECRET}", "Bearer mine"]


def test_cookies_of_a_refusal_are_kept_and_honoured_in_the_replay(
    session: requests.Session, server: TokenServer
) -> None:
    session.auth = RequestsAuth(server.api_url, source(server))
    session.get(f"{server.api_url}x")
    server.fail_next(401, endpoint="api", headers={"Set-Cookie": "b=2; Path=/"})
    answer = session.get(f"{server.api_url}x")
    assert answer.json()["headers"]["cookie"] == "b=2"
    assert session.cookies.get_dict() == {"b": "2"}


def test_the_replay_goes_through_the_adapter_of_the_session(
    session: requests.Session, server: TokenServer
) -> None:
    sent = []

    class Counting(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **how: Any) -> requests.Response:  # type: ignore[override]
            sent.append(how["timeout"])
            return super().send(request, **how)

    session.mount(server.api_url, Counting())
    session.auth = RequestsAuth(server.api_url, source(server))
    session.get(f"{server.api_url}x")
    server.expire_now()
    assert session.get(f"{server.api_url}x", timeout=7).ok
    assert sent == [None, 7, 7]
    assert len({one.peer for one in server.requests if one.path == "/api/x"}) == 1


# --- bodies ------------------------------------------------------------------------------------


def generator() -> Iterator[bytes]:
    for at in range(0, len(DATA), 10_000):
        yield DATA[at : at + 10_000]


def opened(folder: Path) -> Any:
    path = folder / "body"
    path.write_bytes(DATA)
    return path.open("rb")


BODIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "bytes": lambda _: {"data": DATA},
    "file": lambda folder: {"data": opened(folder)},
    "generator": lambda _: {"data": generator()},
    "multipart": lambda _: {"files": {"f": ("n", io.BytesIO(DATA))}},
}


@pytest.mark.parametrize("state", ["valid", "expired", "revoked"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_arrives_whole(
    session: requests.Session, server: TokenServer, tmp_path: Path, kind: str, state: str
) -> None:
    session.auth = RequestsAuth(server.api_url, source(server))
    if state != "expired":
        session.get(f"{server.api_url}x")
    if state == "revoked":
        server.expire_now()
    body = BODIES[kind](tmp_path)
    answer = session.post(f"{server.api_url}x", **body)
    assert answer.ok
    sent = [one for one in server.requests if one.method == "POST" and "/api/" in one.path]
    assert [one.status for one in sent] == [401, 200] if state == "revoked" else [200]
    assert len({one.sha256 for one in sent}) == 1
    assert kind == "multipart" or sent[0].sha256 == SHA
    if kind == "file":
        body["data"].close()


def test_a_body_that_cannot_be_replayed_in_full_is_not_sent_again(
    session: requests.Session, server: TokenServer
) -> None:
    auth = session.auth = RequestsAuth(server.api_url, source(server), replay_limit=1000)
    session.get(f"{server.api_url}x")
    server.expire_now()
    assert session.post(f"{server.api_url}x", data=generator()).status_code == 401
    assert [one.sha256 for one in server.requests if one.method == "POST"][-1] != SHA
    assert auth.keeper.stats["HandedOn"] == 1


# --- where the token goes ----------------------------------------------------------------------


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
def test_no_hop_of_a_redirect_takes_the_token_out_of_the_prefix(
    server: TokenServer, other: TokenServer, header: str
) -> None:
    settings = {} if header == "Authorization" else {"header": header, "scheme": ""}
    auth = RequestsAuth(f"{server.url}/api/redirect", fixed, **settings)
    for target in (
        f"{server.api_url}other",
        f"{server.api_url}redirect-too",
        f"{server.api_url}redirect/%2e%2e/y",
        f"{other.api_url}redirect",
    ):
        for status in (302, 307):
            since, there = len(server.requests), len(other.requests)
            server.fail_next(status, endpoint="api", headers={"Location": target})
            requests.get(f"{server.api_url}redirect", auth=auth)
            first, *hops = [*told(server, since), *told(other, there)]
            assert first == ("/api/redirect", True)
            assert [has_token for _, has_token in hops] == [False]


@pytest.mark.parametrize("kind", ["GET", "bytes", "file", "generator"])
def test_a_hop_under_the_prefix_that_is_refused_without_a_token_is_sent_again_with_it(
    session: requests.Session, server: TokenServer, tmp_path: Path, kind: str
) -> None:
    session.auth = RequestsAuth(server.api_url, source(server))
    how = {} if kind == "GET" else BODIES[kind](tmp_path)
    target = {"to": f"{server.api_url}y", "status": "307"}
    method = "GET" if kind == "GET" else "POST"
    answer = session.request(method, f"{server.api_url}redirect", params=target, **how)
    assert (answer.status_code, answer.json()["path"]) == (200, "/api/y")
    assert kind == "GET" or answer.json()["sha256"] == SHA
    assert server.stats.renewals == 1
    if kind == "file":
        how["data"].close()


def headers_seen(response: requests.Response, **_: object) -> None:
    """A hook of the program's own."""
    response.reason = f"{response.request.headers}"


def test_nothing_that_a_caller_sees_has_the_token(
    session: requests.Session, server: TokenServer
) -> None:
    auth = session.auth = RequestsAuth(server.api_url, fixed)
    answer = session.get(f"{server.api_url}x", hooks={"response": headers_seen})
    assert told(server) == [("/api/x", True)]
    assert SECRET not in f"{answer.reason} {answer.request.headers} {auth!r}"
    assert SECRET.encode() not in pickle.dumps(answer)
    assert pickle.loads(pickle.dumps(answer)).status_code == 401


def test_a_prepared_request_can_be_sent_again(
    session: requests.Session, server: TokenServer
) -> None:
    session.auth = RequestsAuth(server.api_url, source(server))
    prepared = session.prepare_request(requests.Request("POST", f"{server.api_url}x", data=DATA))
    for _ in range(2):
        answer = session.send(prepared)
        assert (answer.status_code, answer.json()["sha256"]) == (200, SHA)
    assert server.stats.renewals == 1


@pytest.mark.parametrize("copied", [requests.PreparedRequest.copy, copy.deepcopy])
@pytest.mark.parametrize("header", ["Authorization", "X-Token"])
def test_a_copy_of_a_prepared_request_takes_the_token_nowhere_else(
    session: requests.Session,
    server: TokenServer,
    other: TokenServer,
    header: str,
    copied: Callable[[Any], Any],
) -> None:
    session.auth = RequestsAuth(server.api_url, fixed, header=header, scheme="")
    prepared = session.prepare_request(requests.Request("GET", f"{server.api_url}x"))
    for target in (f"{server.url}/elsewhere", f"{other.api_url}x"):
        server.fail_next(302, endpoint="api", redirect=target)
        answer = session.send(copied(prepared))
        assert SECRET not in f"{answer.request.headers} {answer.history[0].request.headers}"
    assert told(server) == [("/api/x", True), ("/elsewhere", False), ("/api/x", True)]
    assert told(other) == [("/api/x", False)]


def test_a_token_in_the_body_goes_nowhere_else(server: TokenServer, other: TokenServer) -> None:
    def attach(request: Any, token: Token) -> None:
        request.prepare_body({"q": "1", "access_token": token.access_token}, None)

    server.fail_next(307, endpoint="api", redirect=f"{other.api_url}x")
    auth = RequestsAuth(server.api_url, fixed, attach=attach)
    answer = requests.post(f"{server.api_url}x", data={"q": "1"}, auth=auth)
    assert (answer.status_code, answer.request.url) == (401, f"{other.api_url}x")
    for request in (answer.request, answer.history[0].request):
        assert (request.body, request.headers["Content-Length"]) == ("q=1", "3")


def test_a_url_that_was_changed_after_signing_stays_and_decides_about_the_replay(
    session: requests.Session, server: TokenServer, other: TokenServer
) -> None:
    auth = session.auth = RequestsAuth(server.api_url, source(server))
    auth.keeper.current()
    for url in (f"{server.api_url}y%2Fz", f"{other.api_url}x"):
        prepared = session.prepare_request(requests.Request("GET", f"{server.api_url}x"))
        prepared.url = url
        server.expire_now()
        assert session.send(prepared).url == url
    assert [one.path for one in server.requests if one.path.startswith("/api/")] == (
        ["/api/y%2Fz", "/api/y%2Fz"]
    )
    assert [one.path for one in other.requests] == ["/api/x"]


def test_a_token_is_no_longer_new_in_a_request_that_is_sent_later(
    session: requests.Session, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.auth = RequestsAuth(server.api_url, source(server))
    prepared = session.prepare_request(requests.Request("GET", f"{server.api_url}x"))
    server.expire_now()
    later = time.monotonic() + 3600
    monkeypatch.setattr("tokenadapter.clients.requests_auth.monotonic", lambda: later)
    assert session.send(prepared).status_code == 200
    assert server.stats.renewals == 2


def test_an_adapter_may_take_the_header_away(
    session: requests.Session, server: TokenServer
) -> None:
    class Bare(requests.adapters.HTTPAdapter):
        def send(self, request: Any, *args: Any, **how: Any) -> Any:
            request.headers.pop("Authorization", None)
            return super().send(request, *args, **how)

    session.mount(server.url, Bare())
    session.auth = RequestsAuth(server.api_url, fixed)
    assert session.get(f"{server.api_url}x").status_code == 401


def test_a_request_to_the_token_endpoint_is_not_signed(server: TokenServer) -> None:
    grant = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    auth = RequestsAuth(server.url, grant)
    requests.get(f"{server.api_url}x", auth=auth)
    form = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "secret"}
    assert requests.post(server.token_url, data=form, auth=auth).ok
    assert "authorization" not in server.requests[-1].headers


# --- errors, and how it is made ----------------------------------------------------------------


def test_errors_are_those_of_requests(server: TokenServer) -> None:
    auth = RequestsAuth(server.api_url, source(server))
    server.fail_next(400, error="invalid_grant")
    with pytest.raises(requests.RequestException) as caught:
        requests.get(f"{server.api_url}x", auth=auth)
    assert isinstance(caught.value, ReauthRequired)


def test_settings_of_the_transport_are_refused() -> None:
    with pytest.raises(TypeError, match="pool_maxsize"):
        RequestsAuth("https://api.example.com/", fixed, pool_maxsize=3)  # type: ignore[call-arg]


def test_it_survives_pickle_and_shows_no_secret(server: TokenServer, tmp_path: Path) -> None:
    grant = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    auth = RequestsAuth(server.api_url, grant, store=str(tmp_path / "token.json"))
    twin = pickle.loads(pickle.dumps(auth))
    assert requests.get(f"{server.api_url}x", auth=twin).ok
    assert repr(twin).startswith(f"<RequestsAuth {server.api_url.rstrip('/')} of ")


def test_threads_that_share_it_share_one_renewal(server: TokenServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    auth = RequestsAuth(server.api_url, TokenKeeper(source(server)))
    with ThreadPoolExecutor(16) as pool:
        url = f"{server.api_url}x"
        answers = pool.map(lambda _: requests.get(url, auth=auth).status_code, range(16))
        assert [*answers] == [200] * 16
    assert server.stats.token_requests == 1


def test_users_of_adapters_do_not_import_it() -> None:
    program = "import sys, tokenadapter; tokenadapter.TokenAdapter; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "tokenadapter.clients.requests_auth" not in told.stdout.split(), os.linesep
