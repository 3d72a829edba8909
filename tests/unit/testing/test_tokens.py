"""The lifetime of a token, and its revocation."""

from __future__ import annotations

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, Clock, ask, call, refresh


def test_an_access_token_lives_for_its_lifetime() -> None:
    clock = Clock()
    with TokenServer(lifetime=2, clock=clock) as server:
        token = server.issue()
        assert token["expires_in"] == 2
        clock.now += 1.9
        assert call(server, token).ok
        clock.now += 0.1
        assert call(server, token).status_code == 401
        assert call(server, refresh(server, token).json()).ok


def test_without_a_lifetime_tokens_have_no_expiry() -> None:
    clock = Clock()
    with TokenServer(lifetime=None, clock=clock) as server:
        token = server.issue()
        assert "expires_in" not in token
        clock.now += 1e9
        assert call(server, token).ok


def test_issue_defaults_to_the_first_user_and_client() -> None:
    clients, users = {"one": "1", "two": "2"}, {"ann": "x", "bob": "y"}
    with TokenServer(clients=clients, users=users) as server:
        token = server.issue(scope="a")
        assert set(token) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
        assert server.issue(user="bob", client="two")["access_token"] != token["access_token"]
        assert server.stats.renewals == 0


def test_expire_now_expires_access_tokens_but_no_refresh_token(server: TokenServer) -> None:
    token = server.issue()
    server.expire_now()
    assert call(server, token).status_code == 401
    assert call(server, refresh(server, token).json()).ok


def test_revoking_an_access_token_affects_no_other(server: TokenServer) -> None:
    token = server.issue()
    server.revoke(token["access_token"])
    assert call(server, token).status_code == 401
    assert refresh(server, token).ok
    with pytest.raises(LookupError):
        server.revoke(token["access_token"])


def test_revoking_a_refresh_token_revokes_its_family(server: TokenServer) -> None:
    token, other = server.issue(), server.issue()
    child = refresh(server, token).json()
    server.revoke(token["refresh_token"])
    assert call(server, token).status_code == call(server, child).status_code == 401
    assert refresh(server, child).json()["error"] == "invalid_grant"
    assert call(server, other).ok
    assert server.stats.families_revoked == 1
    assert server.stats.reuse_detections == 0


def test_revoke_all_revokes_everything(server: TokenServer) -> None:
    token = server.issue()
    tokens = [token, refresh(server, token).json(), server.issue()]  # of two families
    own = ask(server, grant_type="client_credentials").json()
    server.revoke_all()
    assert [call(server, token).status_code for token in (*tokens, own)] == [401] * 4
    assert [refresh(server, token).status_code for token in tokens] == [400] * 3
    assert server.stats.families_revoked == 2


def test_the_revocation_endpoint_revokes_for_a_client_it_knows(server: TokenServer) -> None:
    token = server.issue()
    form = {"token": token["refresh_token"]}
    refused = requests.post(
        server.revocation_url, data=form, auth=("client", "no"), timeout=TIMEOUT
    )
    assert refused.status_code == 401
    assert call(server, token).ok
    for _ in range(2):  # a token that is no more counts as revoked
        assert requests.post(server.revocation_url, data=form, auth=CLIENT, timeout=TIMEOUT).ok
    assert call(server, token).status_code == 401
