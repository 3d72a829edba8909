"""The examples of docs/howto/odd-apis.md, with a server of each kind."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import ReauthRequired, RefreshToken, Token, TokenAdapter, default_verdict
from tokenadapter.testing import TokenServer

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "odd-apis.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the examples give to their verdicts and adapters."""
    names: dict[str, Any] = {"__name__": "odd_apis"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, PAGE, "exec"), names)
    return names


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def new_adapter(server: TokenServer, **settings: Any) -> TokenAdapter:
    def source(previous: Token | None) -> dict[str, Any]:
        # Not a refresh token: what is tried here is what the API says.
        return {"access_token": server.issue()["access_token"], "expires_in": 3600}

    return TokenAdapter(server.api_url, source, **settings)


REFUSALS = [
    ("laravel", {"status": 419, "body": {"message": "CSRF token mismatch."}}),
    ("gateway", {"status": 403, "body": {"error": {"code": "TokenExpired"}}}),
    ("login_page", {"status": 302, "body": "", "redirect": "/login?next=/invoices"}),
    ("slack", {"status": 200, "body": {"ok": False, "error": "token_expired"}}),
    (
        "facebook",
        {
            "status": 400,
            "body": {
                "error": {
                    "message": "Error validating access token: Session has expired",
                    "type": "OAuthException",
                    "code": 190,
                    "error_subcode": 463,
                }
            },
        },
    ),
    ("salesforce", {"status": 400, "body": {"exceptionCode": "InvalidSessionId"}}),
]
OTHERS = [
    ("laravel", {"status": 403, "body": {}}),
    ("gateway", {"status": 403, "body": {"error": {"code": "NotYours"}}}),
    ("login_page", {"status": 302, "body": "", "redirect": "/invoices/1"}),
    ("slack", {"status": 200, "body": {"ok": False, "error": "channel_not_found"}}),
    ("facebook", {"status": 400, "body": {"error": {"code": 100, "type": "OAuthException"}}}),
    ("salesforce", {"status": 400, "body": {"exceptionCode": "InvalidBatch"}}),
]


@pytest.mark.parametrize(("kind", "refusal"), REFUSALS, ids=[kind for kind, _ in REFUSALS])
def test_a_refusal_of_each_kind_causes_a_renewal(server, session, page, kind, refusal):
    new_adapter(server, verdict=page[kind]).mount(session)
    server.fail_next(endpoint="api", **refusal)
    answer = session.get(server.api_url + "invoices", allow_redirects=False)
    assert answer.status_code == 200
    assert answer.json()["path"] == "/api/invoices"
    assert [refused.status_code for refused in answer.history] == [refusal["status"]]


@pytest.mark.parametrize(("kind", "answered"), OTHERS, ids=[kind for kind, _ in OTHERS])
def test_other_answers_of_that_api_cause_no_renewal(server, session, page, kind, answered):
    adapter = new_adapter(server, verdict=page[kind]).mount(session)
    server.fail_next(endpoint="api", **answered)
    answer = session.get(server.api_url + "invoices", allow_redirects=False)
    assert answer.status_code == answered["status"]
    assert "Replayed" not in adapter.keeper.stats


def test_salesforce_says_401_with_a_scheme_of_its_own_and_no_lifetime(server, session):
    def source(previous: Token | None) -> dict[str, Any]:
        issued = server.issue()
        return {"access_token": issued["access_token"], "instance_url": server.api_url}

    adapter = TokenAdapter(server.api_url, source, verdict=default_verdict).mount(session)
    assert session.get(server.api_url).ok
    assert adapter.keeper.current().expires_at is None
    assert adapter.keeper.current().extras["instance_url"] == server.api_url
    server.fail_next(
        401,
        endpoint="api",
        body=[{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}],
        headers={"WWW-Authenticate": "Token"},
    )
    assert session.get(server.api_url).ok
    assert adapter.keeper.stats["Renewed"] == 2


@pytest.mark.parametrize(
    "refusal",
    [
        {"ok": False, "error": "invalid_refresh_token"},  # Slack
        {"error": "bad_refresh_token", "error_description": "It is incorrect."},  # GitHub
    ],
    ids=["slack", "github"],
)
def test_a_refusal_of_the_refresh_token_with_200_is_understood(server, session, refusal):
    source = RefreshToken(
        server.token_url,
        server.issue()["refresh_token"],
        client_id="client",
        client_secret="secret",
    )
    TokenAdapter(server.api_url, source).mount(session)
    server.fail_next(200, body=refusal)
    with pytest.raises(ReauthRequired) as caught:
        session.get(server.api_url)
    assert caught.value.reason == "invalid_grant"
    assert server.stats.token_requests == 1


@pytest.mark.parametrize("early", [True, False], ids=["by default", "as the page says"])
def test_a_token_is_not_renewed_beforehand_where_that_would_kill_it(server, session, page, early):
    renewed = threading.Event()

    def source(previous: Token | None) -> str:
        renewed.set()
        return server.issue()["access_token"]

    assert page["github"].keeper.renew_early is False
    keeper = TokenAdapter(server.api_url, source, renew_early=early).mount(session).keeper
    # Six minutes are left of two hours: it is stale, and far from its end.
    now, access_token = time.time(), server.issue()["access_token"]
    keeper.adopt(Token(access_token, issued_at=now - 6840, expires_at=now + 360))
    for _ in range(3):
        assert session.get(server.api_url).ok
    assert renewed.wait(10) if early else not renewed.is_set()
    assert keeper.stats.get("Replayed") is None


def test_a_key_that_was_rotated_is_fetched_again(page):
    adapter = page["vault"]
    with TokenServer(header="X-Api-Key", scheme="", lifetime=None) as server:
        keys = [server.issue()["access_token"]]

        def vault(previous: Token | None) -> str:
            return keys[-1]

        with requests.Session() as session:
            mine = TokenAdapter(
                server.api_url, vault, header=adapter.rules.header, scheme=adapter.rules.scheme
            ).mount(session)
            assert session.get(server.api_url).ok
            server.revoke(keys[-1])
            keys.append(server.issue()["access_token"])
            assert session.get(server.api_url).ok
            # The vault does not know yet that the key is dead.
            server.revoke(keys[-1])
            assert session.get(server.api_url).status_code == 401
            assert session.get(server.api_url).status_code == 401
            assert mine.keeper.stats["Renewed"] == 3


def test_a_new_token_may_be_refused_until_it_is_known_everywhere(server, session, page):
    slow = page["slow"]
    adapter = new_adapter(server, verdict=slow.rules.verdict, max_replays=slow.rules.max_replays)
    adapter.mount(session)
    assert session.get(server.api_url).ok
    server.fail_next(401, count=3, endpoint="api")
    assert session.get(server.api_url).ok
    assert adapter.keeper.stats["Renewed"] == 2
