"""Slow requests, and requests that are stopped midway."""

from __future__ import annotations

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, ask, call, ended, in_background, refresh


def test_latency_delays_the_response_and_not_the_rotation(server: TokenServer) -> None:
    server.latency = 3600
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            server.token_url,
            data={"grant_type": "client_credentials"},
            auth=CLIENT,
            timeout=0.05,
        )
    server.wait_for(lambda stats: stats.renewals == 1)
    server.latency = 0
    assert ask(server, grant_type="client_credentials").ok


def test_a_server_has_no_latency_by_default() -> None:
    server = TokenServer()
    assert (server.latency, server.api_latency) == (0.0, 0.0)
    server.latency, server.api_latency = 1.5, 2.5
    assert (server.latency, server.api_latency) == (1.5, 2.5)


def test_the_login_has_the_latency_of_the_token_endpoint(server: TokenServer) -> None:
    server.latency = 3600
    with pytest.raises(requests.ReadTimeout):
        requests.post(server.login_url, auth=("user", "password"), timeout=0.05)
    server.wait_for(lambda stats: stats.renewals == 1)


def test_the_api_has_a_latency_of_its_own(server: TokenServer) -> None:
    server.api_latency = 3600
    token = ask(server, grant_type="client_credentials").json()
    header = {"Authorization": f"Bearer {token['access_token']}"}
    with pytest.raises(requests.ReadTimeout):
        requests.get(server.api_url, headers=header, timeout=0.05)
    assert requests.get(server.public_url, timeout=TIMEOUT).ok


@pytest.mark.parametrize("processed", [False, True])
def test_a_hold_stops_a_renewal_before_or_after_processing(
    server: TokenServer, processed: bool
) -> None:
    token = server.issue()
    with server.hold(processed=processed) as hold:
        assert not hold.arrived.is_set()
        client = in_background(lambda: refresh(server, token))
        assert hold.arrived.wait(TIMEOUT)
        assert server.stats.refreshes == processed
        assert server.requests[-1].form["refresh_token"] == token["refresh_token"]
        assert server.requests[-1].status is None
        assert call(server, token).ok  # the API goes on
    assert ended(client)
    assert server.stats.refreshes == 1


def test_a_hold_released_early_stops_no_later_request(server: TokenServer) -> None:
    token = server.issue()
    with server.hold(endpoint="api") as hold:
        client = in_background(lambda: call(server, token))
        assert hold.arrived.wait(TIMEOUT)
        hold.release()
        assert ended(client)
        assert call(server, token).ok
