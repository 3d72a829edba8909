"""The server's records of its requests."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, Clock, answer_to, ask, call, refresh


def test_the_log_has_each_request(server: TokenServer) -> None:
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


def test_wait_for_returns_when_the_condition_is_true(server: TokenServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.wait_for, lambda stats: stats.families_revoked == 1)
        server.revoke(server.issue()["refresh_token"])
        assert waiting.result(TIMEOUT).families_revoked == 1
    assert server.wait_for(lambda _: True) == server.stats


def test_wait_for_raises_with_the_counters_on_timeout(
    server: TokenServer,
) -> None:
    with pytest.raises(TimeoutError, match="renewals=0"):
        server.wait_for(lambda stats: stats.renewals == 1, timeout=0)
