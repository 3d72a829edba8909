"""The test server requires proofs of possession, and refuses those of RFC 9449 section 4.3."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tokenadapter import Key
from tokenadapter.http.dpop import Proof
from tokenadapter.keys.jws import b64
from tokenadapter.testing import TokenServer

from .helpers import TIMEOUT, Clock

KEY, OTHER = Key.generate(), Key.generate("EdDSA")


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(dpop=True, clients={"app": None, "client": "secret"}) as server:
        yield server


def ask(
    server: TokenServer, proof: str | None = None, key: Key = KEY, **form: str
) -> requests.Response:
    form = {"grant_type": "client_credentials", "client_id": "app", **form}
    proof = Proof(key, "POST", server.token_url).text if proof is None else proof
    return requests.post(server.token_url, form, headers={"DPoP": proof}, timeout=TIMEOUT)


def call(server: TokenServer, token: str, proof: str | None = None) -> requests.Response:
    url = f"{server.api_url}x?y=1"
    proof = Proof(KEY, "GET", url, token).text if proof is None else proof
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
    return requests.get(url, headers=headers, timeout=TIMEOUT)


def access_token(server: TokenServer) -> str:
    token: str = ask(server).json()["access_token"]
    return token


def made(server: TokenServer, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A proof that differs from a right one."""
    right = {"jti": "one", "htm": "POST", "htu": server.token_url, "iat": int(time.time())}
    return KEY.jwt(
        {**right, **claims}, **{"typ": "dpop+jwt", "jwk": KEY.public_jwk, **(header or {})}
    )


def test_the_metadata_of_server_and_api_says_which_proofs_are_accepted(
    server: TokenServer,
) -> None:
    refused = requests.get(server.api_url, timeout=TIMEOUT).headers["WWW-Authenticate"]
    found = re.search(r'^DPoP algs="([^"]+)".* resource_metadata="([^"]+)"$', refused)
    assert found is not None
    api = requests.get(found[2], timeout=TIMEOUT).json()
    issuer = f"{server.url}/.well-known/oauth-authorization-server"
    for said in (api, requests.get(issuer, timeout=TIMEOUT).json()):
        assert said["dpop_signing_alg_values_supported"] == found[1].split()
    assert api["dpop_bound_access_tokens_required"] is True


def test_a_token_is_bound_to_the_key_of_its_proof(server: TokenServer) -> None:
    token = ask(server).json()
    assert token["token_type"] == "DPoP"
    assert call(server, token["access_token"]).status_code == 200
    assert server.requests[-1].thumbprint == KEY.thumbprint
    theirs = Proof(OTHER, "GET", f"{server.api_url}x", token["access_token"]).text
    refusal = call(server, token["access_token"], theirs)
    assert refusal.status_code == 401
    assert refusal.headers["WWW-Authenticate"].startswith("DPoP ")
    assert 'error="invalid_token"' in refusal.headers["WWW-Authenticate"]
    assert (server.stats.api_refused, server.stats.proofs_refused) == (1, 0)


def test_a_token_of_any_key_may_be_exchanged(server: TokenServer) -> None:
    kind = "urn:ietf:params:oauth:token-type:access_token"
    exchange = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": ask(server, key=OTHER).json()["access_token"],
        "subject_token_type": kind,
        "actor_token": access_token(server),
        "actor_token_type": kind,
    }
    assert call(server, ask(server, **exchange).json()["access_token"]).status_code == 200
    refusal = ask(server, **{**exchange, "actor_token": "another"})
    assert refusal.json()["error"] == "invalid_request"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token"])
def test_a_bound_token_is_no_bearer_token(server: TokenServer, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {access_token(server)}"}
    assert requests.get(server.api_url, headers=headers, timeout=TIMEOUT).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"htm": "GET"},
        {"htu": "https://elsewhere.example/token"},
        {"iat": int(time.time()) - 86400},
        {"iat": int(time.time()) + 86400},
        {"ath": "x"},
        {"header": {"typ": "JWT"}},
        {"header": {"jwk": OTHER.public_jwk}},
        {"header": {"jwk": KEY.private_jwk()}},
        {"header": {"alg": "none"}},
        {"jti": ["a list"]},
    ],
)
def test_a_wrong_proof_is_refused(server: TokenServer, wrong: dict[str, Any]) -> None:
    answer = ask(server, made(server, **wrong))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    assert server.stats.renewals == 0


@pytest.mark.parametrize("proof", ["", "x", "a.b.c", f"{b64(b'[]')}.{b64(b'{}')}.x"])
def test_an_unreadable_proof_is_refused(server: TokenServer, proof: str) -> None:
    assert ask(server, proof).json()["error"] == "invalid_dpop_proof"


def test_a_proof_is_accepted_once(server: TokenServer) -> None:
    proof = made(server)
    assert ask(server, proof).status_code == 200
    assert "used before" in ask(server, proof).json()["error_description"]


def test_a_proof_for_one_access_token_is_none_for_another(server: TokenServer) -> None:
    one, other = access_token(server), access_token(server)
    proof = Proof(KEY, "GET", f"{server.api_url}x", one).text
    challenge = call(server, other, proof).headers["WWW-Authenticate"]
    assert 'error="invalid_dpop_proof"' in challenge


def test_the_refresh_tokens_of_a_public_client_are_bound(server: TokenServer) -> None:
    first = server.issue(client="app", thumbprint=KEY.thumbprint)["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": first}
    refusal = ask(server, key=OTHER, **form)
    assert (refusal.status_code, refusal.json()["error"]) == (400, "invalid_grant")
    assert "refresh_token" in ask(server, **form).json()


def test_the_refresh_tokens_of_a_client_with_a_secret_are_not(server: TokenServer) -> None:
    first = server.issue(client="client", thumbprint=KEY.thumbprint)["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": first}
    client = {"client_id": "client", "client_secret": "secret"}
    assert ask(server, key=OTHER, **form, **client).status_code == 200


def test_nonces_change_and_are_accepted_for_two_periods_more() -> None:
    clock = Clock()
    with TokenServer(dpop=True, dpop_nonces=10.0, clients={"app": None}, clock=clock) as server:

        def answer(nonce: str | None) -> requests.Response:
            more = {} if nonce is None else {"nonce": nonce}
            return ask(server, made(server, jti=str(clock.now), iat=int(clock.now), **more))

        refusal = answer(None)
        assert (refusal.status_code, refusal.json()["error"]) == (400, "use_dpop_nonce")
        first = refusal.headers["DPoP-Nonce"]
        assert answer(first).status_code == 200
        clock.now += 20
        success = answer(first)
        assert success.status_code == 200
        second = success.headers["DPoP-Nonce"]
        assert second != first
        clock.now += 10
        assert answer(first).json()["error"] == "use_dpop_nonce"
        assert answer(second).status_code == 200
        clock.now += 1
        server.change_nonce()
        assert answer(second).headers["DPoP-Nonce"] not in (first, second)
        assert server.stats.proofs_refused == 3


def test_token_endpoint_and_api_have_nonces_of_their_own() -> None:
    with TokenServer(dpop=True, dpop_nonces=True, clients={"app": None}) as server:
        nonce = ask(server, "").headers["DPoP-Nonce"]
        answer = requests.get(server.api_url, timeout=TIMEOUT)
        assert answer.headers["DPoP-Nonce"] != nonce


def test_a_server_without_proofs_has_no_nonces() -> None:
    with TokenServer() as server, pytest.raises(RuntimeError, match="dpop=True"):
        server.change_nonce()
