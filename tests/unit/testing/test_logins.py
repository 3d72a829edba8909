"""Authorization codes and device codes: which requests the server accepts, and the browser."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests

from tokenadapter.testing import Browser, TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, Clock, ask, call, refresh

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()
REDIRECT = "http://127.0.0.1:9/done"
REQUEST = {
    "response_type": "code",
    "client_id": "client",
    "redirect_uri": REDIRECT,
    "state": "xyz",
    "scope": "a",
    "code_challenge": CHALLENGE.rstrip("="),
    "code_challenge_method": "S256",
    "decision": "approve",
}
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def authorize(server: TokenServer, **changes: str) -> requests.Response:
    return requests.get(
        server.authorization_url, {**REQUEST, **changes}, timeout=TIMEOUT, allow_redirects=False
    )


def answer(response: requests.Response) -> dict[str, str]:
    assert response.status_code == 302
    return dict(parse_qsl(urlsplit(response.headers["Location"]).query))


def redeem(server: TokenServer, code: str, **changes: str) -> requests.Response:
    form = {"redirect_uri": REDIRECT, "code_verifier": VERIFIER, "code": code, **changes}
    return ask(server, grant_type="authorization_code", **form)


def test_a_code_gives_tokens_that_rotate(server: TokenServer) -> None:
    said = answer(authorize(server))
    assert (said["state"], said["iss"]) == ("xyz", server.url)
    token = redeem(server, said["code"]).json()
    assert token["scope"] == "a"
    assert call(server, token).ok
    assert refresh(server, token).ok
    assert refresh(server, token).status_code == 400


def test_a_code_is_accepted_once(server: TokenServer) -> None:
    code = answer(authorize(server))["code"]
    assert redeem(server, code).ok
    assert redeem(server, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "change", [{"code_verifier": "w" * 43}, {"redirect_uri": "http://127.0.0.1:9/other"}]
)
def test_a_code_belongs_to_its_verifier_and_redirect(
    server: TokenServer, change: dict[str, str]
) -> None:
    code = answer(authorize(server))["code"]
    assert redeem(server, code, **change).json()["error"] == "invalid_grant"


def test_a_code_expires() -> None:
    clock = Clock()
    with TokenServer(clock=clock) as server:
        code = answer(authorize(server))["code"]
        clock.now += 60
        assert redeem(server, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"decision": "deny"}, "access_denied"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_errors_go_back_to_the_client(
    server: TokenServer, change: dict[str, str], error: str
) -> None:
    said = answer(authorize(server, **change))
    assert (said["error"], said["state"]) == (error, "xyz")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"client_id": "other"},
            "The client_id 'other' is unknown: the clients of this server are 'client'.",
        ),
        (
            {"redirect_uri": "http://host/<>"},
            "The redirect_uri 'http://host/<>' is not allowed: use https, or http with a loopback",
        ),
    ],
)
def test_a_user_is_not_sent_to_an_unknown_client_or_in_clear(
    server: TokenServer, change: dict[str, str], problem: str
) -> None:
    response = authorize(server, **change)
    assert response.status_code == 400
    assert escape(problem) in response.text


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def device(clock: Clock) -> Iterator[TokenServer]:
    with TokenServer(clock=clock) as server:
        yield server


def begin(server: TokenServer) -> dict[str, str]:
    response = requests.post(
        server.device_authorization_url, {"scope": "a"}, auth=CLIENT, timeout=TIMEOUT
    )
    fields: dict[str, str] = response.json()
    return fields


def poll(server: TokenServer, fields: dict[str, str]) -> str | None:
    reply = ask(server, grant_type=DEVICE, device_code=fields["device_code"]).json()
    error: str | None = reply.get("error")
    return error


def test_a_device_code_gives_a_token_after_the_approval(device: TokenServer, clock: Clock) -> None:
    fields = begin(device)
    assert poll(device, fields) == "authorization_pending"
    assert poll(device, fields) == "slow_down"
    device.approve_device(fields["user_code"])
    clock.now += 5
    assert poll(device, fields) is None
    assert poll(device, fields) == "invalid_grant"


def test_a_device_login_can_be_denied_or_expire(device: TokenServer, clock: Clock) -> None:
    fields = begin(device)
    device.deny_device()
    assert poll(device, fields) == "access_denied"
    fields = begin(device)
    clock.now += 600
    assert poll(device, fields) == "expired_token"
    with pytest.raises(LookupError, match="no such device login"):
        device.approve_device("unknown")


def test_a_device_login_needs_a_client(device: TokenServer) -> None:
    url = device.device_authorization_url
    assert requests.post(url, auth=("client", "wrong"), timeout=TIMEOUT).status_code == 401
    assert requests.get(url, timeout=TIMEOUT).status_code == 405


@pytest.mark.parametrize(("approve", "error"), [(True, None), (False, "access_denied")])
def test_the_browser_decides_on_the_page_of_a_device_login(
    device: TokenServer, approve: bool, error: str | None
) -> None:
    fields = begin(device)
    assert Browser(approve=approve).visit(fields["verification_uri_complete"])[0] == 200
    assert poll(device, fields) == error
    assert Browser().visit(fields["verification_uri"])[0] == 404


def test_the_browser_follows_the_redirect_over_https() -> None:
    with TokenServer(https=True) as server:
        redirect = f"{server.url}/public/landed"
        browser = Browser(ca_file=server.ca_file)
        browser(question(server, redirect_uri=redirect))
        browser.join()
    ((status, text),) = browser.pages
    assert status == 200
    assert '"path": "/public/landed"' in text


# Nothing listens at a test client's address.  One that connects would get "connection refused".
NOBODY = "https://127.0.0.1:9/done"


def question(server: TokenServer, **changes: str) -> str:
    """The address of the page on which the user decides."""
    asked = {**REQUEST, "redirect_uri": NOBODY, **changes}
    del asked["decision"]
    return f"{server.authorization_url}?{urlencode(asked)}"


@pytest.mark.parametrize(
    ("approve", "changes", "expected"),
    [
        (True, {}, None),
        (False, {}, "access_denied"),
        # Without a page: nothing is left to decide.
        (True, {"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_the_browser_returns_the_address_of_the_redirect_without_requesting_it(
    server: TokenServer, approve: bool, changes: dict[str, str], expected: str | None
) -> None:
    browser = Browser(approve=approve, user="ada")
    address = browser.decide(question(server, **changes))
    assert address.startswith(f"{NOBODY}?")
    said = dict(parse_qsl(urlsplit(address).query))
    assert (said["state"], said.get("error")) == ("xyz", expected)
    if expected is None:
        assert redeem(server, said["code"], redirect_uri=NOBODY).ok
    assert browser.pages == []


def test_the_browser_says_why_there_is_no_redirect(server: TokenServer) -> None:
    with pytest.raises(ValueError, match=r"400, .* 'http://testserver/' is not allowed: use https"):
        Browser().decide(question(server, redirect_uri="http://testserver/"))


# --- ID tokens ---------------------------------------------------------------------------------


def claims(server: TokenServer, **changes: str) -> dict[str, Any]:
    """The claims of the ID token of a login."""
    code = answer(authorize(server, scope="openid a", **changes))["code"]
    payload = redeem(server, code).json()["id_token"].split(".")[1]
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return said


def test_an_id_token_names_the_user_the_client_and_the_request(server: TokenServer) -> None:
    said = claims(server, user="ada", nonce="n")
    assert said["exp"] > said["iat"]
    assert {name: said[name] for name in ("iss", "sub", "aud", "nonce", "preferred_username")} == {
        "iss": server.url,
        "sub": "ada",
        "aud": "client",
        "nonce": "n",
        "preferred_username": "ada",
    }
    assert claims(server)["sub"] == "user"
    assert "nonce" not in claims(server)


def test_a_test_may_change_the_claims(server: TokenServer) -> None:
    server.claims.update({"email": "ada@example.com", "aud": None})
    said = claims(server)
    assert said["email"] == "ada@example.com"
    assert "aud" not in said


def test_without_openid_there_is_no_id_token(server: TokenServer) -> None:
    assert "id_token" not in redeem(server, answer(authorize(server))["code"]).json()


# --- an API leads to a client that registered itself -------------------------------------------


def test_the_api_leads_to_the_server(server: TokenServer) -> None:
    challenge = requests.get(server.api_url, timeout=TIMEOUT).headers["WWW-Authenticate"]
    named = challenge.partition('resource_metadata="')[2].rstrip('"')
    said = requests.get(named, timeout=TIMEOUT).json()
    assert said == {"resource": server.api_url, "authorization_servers": [server.issuer]}
    server.resource_metadata["scopes_supported"] = ["a"]
    assert requests.get(named, timeout=TIMEOUT).json()["scopes_supported"] == ["a"]


def register(server: TokenServer, **described: Any) -> requests.Response:
    metadata = f"{server.issuer}/.well-known/oauth-authorization-server"
    endpoint = requests.get(metadata, timeout=TIMEOUT).json()["registration_endpoint"]
    return requests.post(endpoint, json=described, timeout=TIMEOUT)


def test_a_client_that_registered_itself_may_log_in_at_its_own_address(
    server: TokenServer,
) -> None:
    response = register(
        server, redirect_uris=[REDIRECT], token_endpoint_auth_method="none", client_name="mine"
    )
    assert response.status_code == 201
    client = response.json()
    assert (client["client_name"], "client_secret" in client) == ("mine", False)
    code = answer(authorize(server, client_id=client["client_id"]))["code"]
    form = {"code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    form |= {"grant_type": "authorization_code", "client_id": client["client_id"]}
    assert requests.post(server.token_url, form, timeout=TIMEOUT).ok
    elsewhere = {"client_id": client["client_id"], "redirect_uri": f"{REDIRECT}/else"}
    response = authorize(server, **elsewhere)
    assert response.status_code == 400
    assert "is not one that the client registered" in response.text


def test_a_client_gets_a_secret_unless_it_wants_none(server: TokenServer) -> None:
    client = register(server, redirect_uris=[REDIRECT]).json()
    form = {"grant_type": "client_credentials"}
    secret = client["client_id"], client["client_secret"]
    assert requests.post(server.token_url, form, auth=secret, timeout=TIMEOUT).ok


@pytest.mark.parametrize("body", ["", "[", "[]", "{}", '{"redirect_uris": []}'])
def test_an_invalid_description_of_a_client_is_refused(server: TokenServer, body: str) -> None:
    response = requests.post(f"{server.url}/register", body, timeout=TIMEOUT)
    assert response.status_code == 400
    assert response.json()["error"] in ("invalid_client_metadata", "invalid_redirect_uri")
