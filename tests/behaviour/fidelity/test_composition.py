"""Other packages for requests, combined with a token adapter."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests
import requests_mock
import responses
import vcr
from cachecontrol import CacheControlAdapter
from requests.adapters import HTTPAdapter
from requests_ratelimiter import LimiterAdapter, LimiterMixin, LimiterSession
from requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor
from requests_toolbelt.adapters.source import SourceAddressAdapter
from requests_toolbelt.sessions import BaseUrlSession
from requests_toolbelt.utils import dump

from tokenadapter import ClientCredentials, Token, TokenAdapter
from tokenadapter.testing import TokenServer

API = "https://api.example.com/"


def numbered(previous: Token | None) -> str:
    """The tokens ``1``, ``2``, ..."""
    return str(1 if previous is None else int(previous.access_token) + 1)


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def mount(session: requests.Session, server: TokenServer, **settings: Any) -> TokenAdapter:
    """An adapter with a token that has ended meanwhile."""
    adapter = TokenAdapter(server.api_url, client(server), **settings).mount(session)
    adapter.keeper.current()
    server.expire_now()
    return adapter


# --- mocks -------------------------------------------------------------------------------------


def test_responses(session: requests.Session) -> None:
    adapter = TokenAdapter(API, numbered).mount(session)
    adapter.keeper.current()
    with responses.RequestsMock() as mock:
        mock.add("PUT", f"{API}x", status=401, headers={"Set-Cookie": "a=1; Path=/"})
        mock.add("PUT", f"{API}x", json={"is": "there"})
        answer = session.put(f"{API}x", data=b"body", stream=True)
        assert answer.raw.read() == b'{"is": "there"}'
        assert [past.status_code for past in answer.history] == [401]
        sent = [call.request for call in mock.calls]
    assert [request.headers["Authorization"] for request in sent] == ["Bearer 1", "Bearer 2"]
    assert [request.headers.get("Cookie") for request in sent] == [None, "a=1"]
    assert [request.body for request in sent] == [b"body"] * 2


def test_responses_for_the_token_endpoint_too(session: requests.Session) -> None:
    url = "https://id.example.com/token"
    TokenAdapter(API, ClientCredentials(url, client_id="a", client_secret="b")).mount(session)
    with responses.RequestsMock() as mock:
        mock.add("POST", url, json={"access_token": "made-up", "token_type": "Bearer"})
        mock.add("GET", f"{API}x", json={})
        assert session.get(f"{API}x").ok
        assert mock.calls[1].request.headers["Authorization"] == "Bearer made-up"


def test_an_adapter_of_requests_mock_goes_inside(session: requests.Session) -> None:
    mock = requests_mock.Adapter()
    adapter = TokenAdapter(API, numbered, inner=mock).mount(session)
    adapter.keeper.current()
    mock.register_uri("PUT", f"{API}x", [{"status_code": 401}, {"json": {"is": "there"}}])
    answer = session.put(f"{API}x", data=b"body")
    assert answer.json() == {"is": "there"}
    sent = mock.request_history
    assert [each.headers["Authorization"] for each in sent] == ["Bearer 1", "Bearer 2"]
    assert [each.body for each in sent] == [b"body"] * 2


def test_a_mocker_of_requests_mock_takes_the_place_of_all_adapters(
    session: requests.Session,
) -> None:
    """That is why there is the way above."""
    TokenAdapter(API, numbered).mount(session)
    with requests_mock.Mocker() as mock:
        mock.get(f"{API}x")
        session.get(f"{API}x")
        assert "Authorization" not in mock.last_request.headers


def test_a_mocker_that_lets_ours_pass_serves_the_rest(session: requests.Session) -> None:
    mock = requests_mock.Adapter()
    mock.register_uri("GET", f"{API}x")
    TokenAdapter(API, numbered, inner=mock).mount(session)
    with requests_mock.Mocker() as mocker:
        mocker.get(requests_mock.ANY, text="the rest")
        mocker.get(requests_mock.ANY, real_http=True, additional_matcher=is_ours)
        assert session.get("https://elsewhere.example.com/").text == "the rest"
        assert session.get(f"{API}x").ok
        assert mock.last_request.headers["Authorization"] == "Bearer 1"


def is_ours(request: Any) -> bool:
    return str(request.url).startswith(API)


# --- records -----------------------------------------------------------------------------------


def test_a_cassette_of_vcrpy_holds_no_token_and_plays_without_the_server(
    server: TokenServer, tmp_path: Path
) -> None:
    recorder = vcr.VCR(
        cassette_library_dir=str(tmp_path),
        filter_headers=["Authorization"],
        before_record_request=lambda request: None if request.path == "/token" else request,
    )

    def run(source: Any) -> tuple[list[int], Any]:
        with requests.Session() as session, recorder.use_cassette("calls.yaml"):
            adapter = TokenAdapter(server.api_url, source).mount(session)
            adapter.keeper.current()
            if recording:
                server.expire_now()
            answer = session.put(f"{server.api_url}x", data=iter([b"bo", b"dy"]))
            assert answer.json()["sha256"] == hashlib.sha256(b"body").hexdigest()
            return [past.status_code for past in answer.history], answer.json()

    recording = True
    recorded = run(client(server))
    assert recorded[0] == [401]
    assert "access-" not in (tmp_path / "calls.yaml").read_text()
    assert server.stats.token_requests == 2
    recording = False
    api_requests = server.stats.api_requests
    assert run(numbered) == recorded
    assert server.stats.api_requests == api_requests


def test_a_cassette_of_vcrpy_can_hold_the_token_requests_too(
    server: TokenServer, tmp_path: Path
) -> None:
    """Also where it is the first token request of the program that is recorded."""
    script = """
import sys
import requests
import vcr
from tokenadapter import ClientCredentials, TokenAdapter
api, token_url, folder = sys.argv[1:]
for name in ("a.yaml", "b.yaml", "a.yaml", "b.yaml"):
    with vcr.use_cassette(f"{folder}/{name}"), requests.Session() as session:
        source = ClientCredentials(token_url, client_id="client", client_secret="secret")
        TokenAdapter(api, source).mount(session)
        assert session.get(f"{api}x").ok
"""
    arguments = [server.api_url, server.token_url, str(tmp_path)]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    assert (server.stats.token_requests, server.stats.api_requests) == (2, 2)


def test_a_dump_of_requests_toolbelt_shows_the_refusal_and_no_token(
    server: TokenServer, session: requests.Session
) -> None:
    adapter = mount(session, server)
    old = adapter.keeper.current().access_token
    answer = session.put(f"{server.api_url}x", data=b"body")
    text = dump.dump_all(answer).decode()
    assert text.count("PUT /api/x HTTP/1.1") == 2
    assert "401 Unauthorized" in text
    assert "authorization: " not in text.lower()
    for token in (old, adapter.keeper.current().access_token):
        assert token not in text


# --- adapters and sessions ---------------------------------------------------------------------


def test_cachecontrol_goes_inside(server: TokenServer, session: requests.Session) -> None:
    adapter = mount(session, server, inner=CacheControlAdapter())
    fields = {"Cache-Control": "max-age=60", "Date": formatdate(usegmt=True)}
    server.fail_next(200, endpoint="api", body={"is": "there"}, headers=fields)
    assert [session.get(f"{server.api_url}x").json() for _ in range(3)] == [{"is": "there"}] * 3
    assert server.stats.api_requests == 1
    # What is not in the cache is asked for as ever.
    answer = session.get(f"{server.api_url}y")
    assert answer.ok
    assert [past.status_code for past in answer.history] == [401]
    assert adapter.keeper.stats["Replayed"] == 1


def test_a_cached_answer_is_confirmed_with_a_token(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server, inner=CacheControlAdapter())
    server.fail_next(200, endpoint="api", body={"is": "there"}, headers={"ETag": '"one"'})
    session.get(f"{server.api_url}x")
    server.fail_next(401, endpoint="api")
    server.fail_next(304, endpoint="api", headers={"ETag": '"one"'})
    assert session.get(f"{server.api_url}x").json() == {"is": "there"}
    first, second = server.requests[-3], server.requests[-1]
    assert first.headers["if-none-match"] == second.headers["if-none-match"] == '"one"'
    assert first.headers["authorization"] != second.headers["authorization"]


def test_a_limiter_goes_inside_and_counts_replays(
    server: TokenServer, session: requests.Session
) -> None:
    inner = LimiterAdapter(per_second=1000)
    with closing(inner.limiter):
        mount(session, server, inner=inner)
        assert session.get(f"{server.api_url}x").ok
        (bucket,) = inner.limiter.bucket_factory.buckets.values()
        assert bucket.count() == 2


def test_a_limiter_that_is_mixed_in_counts_what_the_caller_asks_for(
    server: TokenServer, session: requests.Session
) -> None:
    class Limited(LimiterMixin, TokenAdapter):
        pass

    adapter = Limited(prefix=server.api_url, source=client(server), per_second=1000).mount(session)
    with closing(adapter.limiter):
        adapter.keeper.current()
        server.expire_now()
        assert session.get(f"{server.api_url}x").history
        (bucket,) = adapter.limiter.bucket_factory.buckets.values()
        assert bucket.count() == 1


def test_a_session_with_a_limiter_carries_ours(server: TokenServer) -> None:
    with LimiterSession(per_second=1000) as session, closing(session.limiter):
        mount(session, server)
        assert session.get(f"{server.api_url}x").history


@pytest.mark.parametrize("monitored", [False, True])
def test_an_encoder_of_requests_toolbelt_is_replayed_and_its_monitor_is_called(
    server: TokenServer, session: requests.Session, monitored: bool
) -> None:
    mount(session, server)
    seen: list[int] = []
    body: Any = MultipartEncoder({"file": ("name", b"x" * 50_000)})
    if monitored:
        body = MultipartEncoderMonitor(body, lambda monitor: seen.append(monitor.bytes_read))
    length = body.len
    headers = {"Content-Type": body.content_type}
    answer = session.post(f"{server.api_url}x", data=body, headers=headers)
    assert answer.history
    assert answer.json()["length"] == length
    # It is told of what is drawn from the encoder, which is drawn once.
    assert not monitored or seen == sorted(seen)
    assert not monitored or seen[-1] == length


def test_adapters_and_sessions_of_requests_toolbelt(server: TokenServer) -> None:
    with BaseUrlSession(server.api_url) as session:
        mount(session, server, inner=SourceAddressAdapter("127.0.0.2"))
        assert session.get("x").history
        assert server.requests[-1].peer.startswith("127.0.0.2:")


class TimeoutAdapter(HTTPAdapter):
    """As in many a program: it takes its arguments as sessions give them, by name."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.seen = kwargs["timeout"] = kwargs.get("timeout") or 9
        return super().send(request, **kwargs)


def test_an_adapter_that_takes_its_arguments_by_name_goes_inside_or_is_mixed_in(
    server: TokenServer, session: requests.Session
) -> None:
    class Mixed(TokenAdapter, TimeoutAdapter):
        pass

    inner = TimeoutAdapter()
    mount(session, server, inner=inner)
    assert session.get(f"{server.api_url}x").history
    assert inner.seen == 9
    mixed = Mixed(server.api_url, client(server)).mount(session)
    assert session.get(f"{server.api_url}x").ok
    assert mixed.seen == 9
