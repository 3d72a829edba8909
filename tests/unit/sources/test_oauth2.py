"""The common behaviour of the OAuth 2 grants."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tokenadapter import (
    ClientCredentials,
    Password,
    ReauthRequired,
    RefreshToken,
    Token,
    UnsafeTarget,
)
from tokenadapter.protocols import Grant
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.testing import TokenServer

URL = "https://id.example/token"


def source(**options: Any) -> ClientCredentials:
    return ClientCredentials(URL, **{"client_id": "app", "client_secret": "s3cret", **options})


def every_source() -> list[OAuth2Source]:
    return [
        source(),
        RefreshToken(URL, "r3fresh", client_id="app", client_secret="s3cret"),
        Password(URL, "ada", "p4ssword", client_id="app", client_secret="s3cret"),
    ]


@pytest.mark.parametrize("grant", every_source(), ids=lambda grant: type(grant).__name__)
def test_each_source_is_a_grant(grant: Grant) -> None:
    assert isinstance(grant, Grant)
    assert grant.owner["endpoint"] == URL
    assert grant.owner["client"] == "app"
    assert grant.urls == (URL,)
    assert grant.deadline == 10.0
    assert grant.grace == 0.0


@pytest.mark.parametrize("grant", every_source(), ids=lambda grant: type(grant).__name__)
def test_the_repr_shows_endpoint_and_client_and_no_secret(grant: OAuth2Source) -> None:
    assert repr(grant) == f"<{type(grant).__name__} {URL} client_id='app'>"


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
@pytest.mark.parametrize("grant", every_source(), ids=lambda grant: type(grant).__name__)
def test_copies_and_pickles_are_the_same_source(grant: OAuth2Source, copied: Any) -> None:
    twin = copied(grant)
    assert twin.credentials(None) == grant.credentials(None)
    assert (twin.owner, twin.requested, twin.urls) == (grant.owner, grant.requested, grant.urls)
    assert twin.client_credential == grant.client_credential


def test_scope_resource_audience_and_extra_are_sent_in_the_form(server: TokenServer) -> None:
    ClientCredentials(
        server.token_url,
        client_id="client",
        client_secret="secret",
        scope=["write", "read"],
        resource=["https://api.example/", "urn:example:two"],
        audience="billing",
        extra={"tenant": "acme"},
    )()
    (request,) = server.requests
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert sorted(parse_qsl(request.body.decode())) == [
        ("audience", "billing"),
        ("grant_type", "client_credentials"),
        ("resource", "https://api.example/"),
        ("resource", "urn:example:two"),
        ("scope", "write read"),
        ("tenant", "acme"),
    ]


def test_requested_does_not_depend_on_the_order_of_scopes_and_resources() -> None:
    requested = source(
        scope="write  read write", resource=["urn:b", "urn:a"], audience="x", extra={"k": "v"}
    ).requested
    assert requested == {"scope": "read write", "resource": "urn:a urn:b", "audience": "x"}


@pytest.mark.parametrize("nothing", [None, "", []])
def test_requested_omits_empty_values(nothing: Any) -> None:
    assert source(scope=nothing, resource=nothing or None).requested == {}


def test_urls_with_different_queries_are_different_owners_and_no_query_is_shown() -> None:
    one, two = (ClientCredentials(f"{URL}?p={p}", client_id="app") for p in ("one", "two"))
    assert one.owner != two.owner
    assert "p=one" not in f"{one.owner} {one!r}"


def test_each_kind_of_grant_is_another_owner() -> None:
    kinds = [grant.owner["grant"] for grant in every_source()]
    assert kinds == ["client_credentials", "refresh_token", "password"]


def test_any_change_of_the_client_makes_another_credential() -> None:
    clients = [
        source(),
        source(client_secret="other"),
        source(client_id="other"),
        source(client_auth="client_secret_post"),
        source(client_secret=None),
    ]
    assert len({client.client_credential for client in clients}) == len(clients)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resource": "/api"}, ValueError, "absolute URI"),
        ({"resource": "https://api.example/#part"}, ValueError, "fragment"),
        ({"resource": 1}, TypeError, "not iterable"),
        ({"scope": b"read"}, TypeError, "scope must be a str"),
        ({"extra": {"grant_type": "x", "scope": "y"}}, ValueError, "contain grant_type, scope"),
        ({"extra": {"tenant": 1}}, TypeError, r"extra\['tenant'\] must be a str"),
        ({"client_id": None}, TypeError, "client_id must be a str"),
        ({"client_id": ""}, ValueError, "client_id is empty"),
        ({"client_secret": b"x"}, TypeError, "client_secret must be a str"),
        ({"client_secret": "s3cret\n"}, ValueError, "client_secret begins or ends with a line"),
        ({"client_secret": "\ns3cret"}, ValueError, "client_secret begins or ends with a line"),
        ({"client_secret": "\r\n"}, ValueError, "client_secret begins or ends with a line"),
        ({"client_id": "app\r\n"}, ValueError, "client_id begins or ends with a line"),
        ({"scope": ["read", "write\n"]}, ValueError, "scope begins or ends with a line"),
        ({"audience": "a\n"}, ValueError, "audience begins or ends with a line"),
        ({"audience": ["a"]}, TypeError, "audience must be a str"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": float("inf")}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": "10"}, ValueError, "timeout must be a number of seconds above 0, not '10'"),
        ({"timeout": (3, 10)}, ValueError, "timeout must be a number of seconds above 0, not"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        source(**options)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("id.example/token", "^token_url must begin with https://"),
        ("ftp://id.example/token", "^token_url must begin with https://"),
        ("https:///token", "^token_url must begin with https://"),
        ("https://id.example:0/token", "^token_url must begin with https://"),
        ("https://id.example:port/token", "[Pp]ort"),
        ("https://user:h1dden@id.example/token", "^token_url must not contain a user or password"),
        ("https://id.example/token?k=h1dden#part", "^token_url must not have a fragment"),
        ("https://id.example/to ken?h1dden", "^token_url has a space"),
        ("https://id.example/to\nken", "^token_url .* control character"),
        (
            r"https://id.example\@evil.example/token",
            "^token_url must not contain a user or password",
        ),
        (r"https://id.example\.evil.example/token", "^token_url .* backslash"),
    ],
)
def test_urls_that_cannot_be_a_token_endpoint_are_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ClientCredentials(url, client_id="app")
    assert "h1dden" not in str(caught.value)


@pytest.mark.parametrize("url", [b"https://id.example/token", 1])
def test_a_token_endpoint_is_a_text(url: Any) -> None:
    with pytest.raises(TypeError, match=f"^token_url must be a str, not {type(url).__name__}$"):
        ClientCredentials(url, client_id="app")


@pytest.mark.parametrize(
    "host", ["id.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]"]
)
def test_plain_http_to_another_machine_needs_allow_http(host: str) -> None:
    with pytest.raises(UnsafeTarget, match=r"clear text.*allow_http"):
        ClientCredentials(f"http://{host}/token", client_id="app")
    assert ClientCredentials(f"http://{host}/token", client_id="app", allow_http=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3:81", "[::1]"])
def test_plain_http_to_this_machine_is_accepted(host: str) -> None:
    assert ClientCredentials(f"http://{host}/token", client_id="app")


def test_a_token_has_every_field_of_the_answer(server: TokenServer) -> None:
    body = {"access_token": "abc", "expires_in": 60, "scope": "read", "tenant": "acme"}
    server.fail_next(200, body=body)
    token = ClientCredentials(server.token_url, client_id="client", client_secret="secret")()
    assert isinstance(token, Token)
    assert (token.access_token, token.scope, token.lifetime) == ("abc", "read", 60)
    assert token.extras == {"tenant": "acme"}
    # The time before the request was sent.
    assert token.issued_at <= server.requests[0].time


@pytest.mark.parametrize("name", ["ClientCredentials", "RefreshToken", "Password", "Login"])
def test_making_a_source_stays_cheap(name: str) -> None:
    arguments = ["'https://id.example/token'"]
    arguments += ["'ada', 'pass'"] if name == "Password" else []
    arguments += ["client_id='app'"] if name != "Login" else ["json={'user': 'ada'}"]
    making = f"tokenadapter.{name}({', '.join(arguments)})"
    program = f"import sys; old = {{*sys.modules}}; import tokenadapter; {making}; "
    program += "print(*{*sys.modules} - old)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    dear = {"requests", "urllib3", "dataclasses", "inspect", "email", "tokenadapter.errors"}
    assert not dear.intersection(loaded)


def test_a_source_without_a_credential_raises(server: TokenServer) -> None:
    with pytest.raises(ReauthRequired, match="adopt") as caught:
        RefreshToken(server.token_url, client_id="client")(None)
    assert caught.value.reason == "no_credential"
    assert not server.requests
