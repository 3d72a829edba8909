"""Authorization codes and device codes: which requests the server accepts, and the browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
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
    "change", [{"client_id": "other"}, {"redirect_uri": "http://evil.example/"}]
)
def test_a_user_is_not_sent_to_an_unknown_client(
    server: TokenServer, change: dict[str, str]
) -> None:
    assert authorize(server, **change).status_code == 400


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
        question = {**REQUEST, "redirect_uri": redirect}
        del question["decision"]
        browser = Browser(ca_file=server.ca_file)
        browser(f"{server.authorization_url}?{urlencode(question)}")
        browser.join()
    ((status, text),) = browser.pages
    assert status == 200
    assert '"path": "/public/landed"' in text
