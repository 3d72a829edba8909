"""Posting a form as a client, to any endpoint of its server."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tokenadapter import UnsafeTarget
from tokenadapter.sources.oauth2_client import OAuth2Client
from tokenadapter.sources.reply import NoReply, Reply
from tokenadapter.testing import TokenServer


@pytest.fixture
def client() -> OAuth2Client:
    return OAuth2Client("app", "cl1ent-secret", timeout=5)


def test_a_form_is_posted_with_the_authentication_of_the_client(
    server: TokenServer, client: OAuth2Client
) -> None:
    form: dict[str, str | list[str]] = {"scope": "read", "resource": ["urn:a", "urn:b"]}
    server.fail_next(200, body={"device_code": "d"})
    _, reply = client.post(client.endpoint("device_url", server.token_url), form, "device_code")
    assert isinstance(reply, Reply)
    assert reply.fields == {"device_code": "d"}
    (request,) = server.requests
    assert request.method == "POST"
    assert request.headers["accept"] == "application/json"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["authorization"].startswith("Basic ")
    assert parse_qsl(request.body.decode()) == [
        ("scope", "read"),
        ("resource", "urn:a"),
        ("resource", "urn:b"),
    ]


def test_the_callers_form_is_not_changed(server: TokenServer) -> None:
    client = OAuth2Client("app", "s", "client_secret_post")
    form: dict[str, Any] = {"scope": "read"}
    client.post(client.endpoint("url", server.token_url), form, "client")
    assert form == {"scope": "read"}


def test_a_message_about_a_post_masks_every_secret_that_it_sent(
    server: TokenServer, client: OAuth2Client
) -> None:
    endpoint = client.endpoint("url", f"{server.token_url}?key=k3y-of-the-url")
    form: dict[str, str | list[str]] = {
        "refresh_token": "r3fresh-token",
        "password": "p4ss-word",
        "token": "t0ken-to-revoke",
        "device_code": "d3vice-code",
        "scope": "the-scope-is-shown",
    }
    attempt, _ = client.post(endpoint, form, "client", secrets=["d3vice-code"])
    (request,) = server.requests
    basic = request.headers["authorization"].removeprefix("Basic ")
    for secret in (
        *("cl1ent-secret", basic, "k3y-of-the-url"),
        *("r3fresh-token", "p4ss-word", "t0ken-to-revoke", "d3vice-code"),
    ):
        assert attempt.masked(f"You sent {secret}.") == "(withheld: it repeats a secret)"
    assert attempt.masked("the-scope-is-shown") == "the-scope-is-shown"
    assert attempt.endpoint == server.token_url


def test_every_endpoint_of_a_client_has_its_connection_settings() -> None:
    client = OAuth2Client("app", timeout=3, cert="client.pem", proxies={"https": "http://proxy:1"})
    endpoint = client.endpoint("url", "https://id.example/device")
    assert (endpoint.timeout, endpoint.cert) == (3, "client.pem")
    assert endpoint.proxies == {"https": "http://proxy:1"}
    with pytest.raises(UnsafeTarget, match=r"http://id\.example/device in clear text"):
        client.endpoint("url", "http://id.example/device")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_is_the_same_client_and_a_repr_shows_no_secret(
    client: OAuth2Client, copied: Any
) -> None:
    assert copied(client).credential == client.credential
    assert repr(copied(client)) == "<OAuth2Client 'app'>"


class Slow:
    """A key that is elsewhere, and answers late."""

    credential = "slow"

    def authenticate(self, client_id: str, url: str, form: Any, headers: Any) -> tuple[()]:
        time.sleep(0.02)
        return ()


def test_nothing_is_sent_after_a_proof_that_took_too_long(server: TokenServer) -> None:
    """By then, another process may have presented the refresh token."""
    client = OAuth2Client("app", None, Slow(), timeout=0.01)
    _, reply = client.post(client.endpoint("url", server.token_url), {}, "refresh_token")
    assert isinstance(reply, NoReply)
    assert not reply.sent
    assert not reply.lasting
    assert reply.why == "authenticating the client took the total timeout of 0.01 s"
    assert server.requests == ()
