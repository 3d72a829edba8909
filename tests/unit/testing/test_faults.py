"""Faults of the server: each occurs when and as the test has ordered it."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, call, connect, refresh


def test_a_failure_happens_as_often_as_given_and_processes_nothing(server: TokenServer) -> None:
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


def test_failures_happen_in_the_given_order_at_their_endpoint(server: TokenServer) -> None:
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
    assert requests.post(server.revocation_url, timeout=TIMEOUT).status_code == 429


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


def test_a_failure_can_follow_the_processing_of_the_request(server: TokenServer) -> None:
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


def test_a_reset_happens_before_processing(server: TokenServer) -> None:
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


def test_a_failure_takes_only_one_ending(server: TokenServer) -> None:
    with pytest.raises(ValueError, match="exclude"):
        server.fail_next(hang=True, drop=True)


def test_an_outage_lasts_until_its_block_ends(server: TokenServer) -> None:
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
