"""The test server and clients with keys: what it accepts, once, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter import Key
from tokenadapter.testing import TokenServer
from tokenadapter.testing.assertions import TYPE, Assertions
from tokenadapter.testing.refusals import Refused

KEY = Key.generate()
SECRET = "a secret of more than 256 bits, as HS256 wants it"


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(clients={"app": KEY.public_jwk, "old": SECRET}) as server:
        yield server


def assertion(server: TokenServer, **changes: Any) -> str:
    claims = {
        "iss": "app",
        "sub": "app",
        "aud": server.issuer,
        "exp": int(time.time()) + 60,
        "jti": str(time.monotonic_ns()),
        **changes,
    }
    return KEY.jwt({name: value for name, value in claims.items() if value is not None})


def post(server: TokenServer, signed: str, **more: Any) -> requests.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": TYPE,
        "client_assertion": signed,
        **more,
    }
    return requests.post(server.token_url, form, timeout=10)


def test_an_assertion_is_accepted_once(server: TokenServer) -> None:
    signed = assertion(server)
    assert post(server, signed).status_code == 200
    again = post(server, signed)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    assert "was used before" in again.json()["error_description"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aud": "https://other.example"}, "is for https://other.example"),
        ({"aud": ["https://other.example"]}, "is for"),
        ({"exp": 1}, "has expired, or lives too long"),
        ({"exp": 2**40}, "has expired, or lives too long"),
        ({"iss": "eve"}, "is not signed by its issuer"),
        ({"iss": "old"}, "is not signed by its issuer"),
        ({"sub": "eve"}, "is not of this client"),
        ({"jti": None}, "is not of this client"),
        ({"exp": None}, "exp is missing"),
        ({"exp": "soon"}, "cannot be read"),
        ({"aud": 5}, "cannot be read"),
        ({"iss": []}, "cannot be read"),
    ],
)
def test_an_assertion_that_is_not_for_it_is_refused(
    server: TokenServer, changes: dict[str, Any], problem: str
) -> None:
    refusal = post(server, assertion(server, **changes))
    assert (refusal.status_code, refusal.json()["error"]) == (401, "invalid_client")
    assert problem in refusal.json()["error_description"]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"client_secret": SECRET}, "invalid_request"),
        ({"client_assertion_type": "saml"}, "invalid_client"),
        ({"client_id": "old"}, "invalid_client"),
    ],
)
def test_one_client_authenticates_in_one_way(
    server: TokenServer, more: dict[str, Any], error: str
) -> None:
    assert post(server, assertion(server), **more).json()["error"] == error


def test_a_client_with_a_key_has_no_secret(server: TokenServer) -> None:
    for secret in ("", str(KEY.public_jwk)):
        form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": secret}
        assert requests.post(server.token_url, form, timeout=10).status_code == 401


@given(text=st.text() | st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]*", fullmatch=True))
def test_whatever_cannot_be_read_is_refused(text: str) -> None:
    assertions = Assertions({"app": KEY.public_jwk}, time.time, tuple)
    with pytest.raises(Refused):
        assertions.verified(text, "invalid_client")


def test_only_with_tls_a_client_has_a_certificate() -> None:
    with pytest.raises(ValueError, match="client_ca needs https or tls"):
        TokenServer(client_ca="ca.pem")


def test_only_a_token_of_the_server_is_exchanged(server: TokenServer) -> None:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "client_id": "old",
        "client_secret": SECRET,
        "subject_token": server.issue()["access_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    assert requests.post(server.token_url, form, timeout=10).status_code == 200
    for change in ({"subject_token": "eve"}, {"actor_token": "eve", "actor_token_type": "t"}):
        refusal = requests.post(server.token_url, form | change, timeout=10)
        assert refusal.json()["error"] == "invalid_request"
