"""What each answer means: which error, and whether the refresh token may have been spent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tokenadapter import (
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    TokenError,
)
from tokenadapter.testing import TokenServer

HTML = "<!doctype html><title>Oh no</title>"


def failure(server: TokenServer, status: int, **answer: Any) -> TokenError:
    """What becomes of a refresh that is answered so."""
    server.fail_next(status, **answer)
    source = RefreshToken(server.token_url, "r3fresh", client_id="client", client_secret="s3cret")
    with pytest.raises(TokenError) as caught:
        source()
    return caught.value


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (408, {"body": ""}, None),
        (425, {"body": ""}, None),
        (429, {"body": HTML}, None),
        (429, {"error": "invalid_grant"}, "invalid_grant"),
        (400, {"error": "temporarily_unavailable"}, "temporarily_unavailable"),
        (500, {"error": "temporarily_unavailable"}, "temporarily_unavailable"),
        (503, {"error": "whatever"}, "whatever"),
        (503, {"error": "invalid_grant"}, "invalid_grant"),
        (503, {"body": HTML, "retry_after": 5}, None),
    ],
)
def test_an_answer_that_says_try_later_spends_nothing(
    server: TokenServer, status: int, answer: dict[str, Any], error: str | None
) -> None:
    raised = failure(server, status, **answer)
    assert isinstance(raised, RefreshTemporarilyFailed)
    assert raised.processed is False
    assert raised.error == error
    assert "Nothing was spent" in str(raised)


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (500, {"body": HTML}, "500, HTML"),
        (500, {"error": "server_error"}, "500, server_error"),
        (500, {"error": "invalid_grant"}, "500, invalid_grant"),
        (502, {"body": ""}, "502, an empty answer"),
        (503, {"body": HTML}, "503, HTML"),
        (504, {"body": "late", "content_type": "text/plain"}, "504, text/plain, not JSON"),
        (400, {"error": "server_error"}, "400, server_error"),
        (200, {"body": HTML}, "200: HTML instead of a token"),
        (200, {"body": HTML, "content_type": "application/json"}, "200: HTML instead of a token"),
        (200, {"body": ""}, "200: an empty answer instead of a token"),
        (204, {"body": ""}, "204: an empty answer instead of a token"),
        (200, {"body": '{"access_token": "ab', "content_type": "x/y"}, "200: x/y, not JSON"),
        (200, {"body": "[" * 100_000, "content_type": "x/y"}, "x/y, not JSON"),
        (200, {"body": ["abc"]}, "200: JSON instead of a token"),
        (200, {"body": {"token": "abc", "ttl": 1}}, "it holds: token, ttl)"),
        (200, {"body": {"access_token": 1}}, "it holds: access_token)"),
        (200, {"body": {"access_token": ""}}, "(200: access_token"),
        (200, {"body": {"access_token": "a\nb"}}, "(200: access_token"),
    ],
)
def test_any_other_answer_without_a_token_may_have_spent_the_refresh_token(
    server: TokenServer, status: int, answer: dict[str, Any], words: str
) -> None:
    raised = failure(server, status, **answer)
    assert isinstance(raised, RefreshTemporarilyFailed)
    assert raised.processed is None
    assert words in str(raised)
    # A server that answers 200 without a token will do so on a retry.
    assert str(raised).endswith("Try again later.") == (status >= 400)
    assert "The refresh token may be spent; it is kept all the same." in str(raised)


@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize(
    "code", ["invalid_grant", "interaction_required", "bad_refresh_token", "invalid_refresh_token"]
)
def test_a_refused_refresh_token_requires_a_new_login(
    server: TokenServer, status: int, code: str
) -> None:
    raised = failure(server, status, error=code)
    assert isinstance(raised, ReauthRequired)
    assert raised.reason == "invalid_grant"
    assert raised.error == code
    assert f"refused the refresh token ({status}, {code})" in str(raised)
    assert "adopt" in str(raised)


@pytest.mark.parametrize(
    ("status", "answer", "error", "advice"),
    [
        (401, {"error": "invalid_client"}, "invalid_client", "Check client_id, client_secret"),
        (400, {"error": "unauthorized_client"}, "unauthorized_client", "allowed for the client"),
        (400, {"error": "unsupported_grant_type"}, "unsupported_grant_type", "another kind"),
        (400, {"error": "invalid_scope"}, "invalid_scope", "Check scope."),
        (400, {"error": "invalid_target"}, "invalid_target", "Check resource and audience."),
        (400, {"error": "invalid_request"}, "invalid_request", "Check the configuration."),
        (200, {"error": "incorrect_client"}, "incorrect_client", "Check the configuration."),
        (401, {"body": HTML}, None, "Check client_id, client_secret"),
        (
            404,
            {"error": "not_found"},
            "not_found",
            "Check the URL: there is no token endpoint at it.",
        ),
        (410, {"body": HTML}, None, "Check the URL: there is no token endpoint at it."),
        (401, {"error": "invalid_token"}, "invalid_token", "an API answered, and not a token"),
        (404, {"error": "invalid_client"}, "invalid_client", "Check client_id, client_secret"),
        (404, {"body": HTML}, None, "(404, HTML)"),
        (404, {"body": {"detail": "Not Found"}}, None, '(404, JSON: "Not Found")'),
        (405, {"body": ""}, None, "(405, an empty answer)"),
        (
            307,
            {"redirect": "https://evil.example/token?code=1", "body": ""},
            None,
            "Check the URL.",
        ),
    ],
)
def test_a_refused_request_spends_nothing(
    server: TokenServer, status: int, answer: dict[str, Any], error: str | None, advice: str
) -> None:
    raised = failure(server, status, **answer)
    assert isinstance(raised, RefreshConfigError)
    assert raised.error == error
    assert advice in str(raised)
    assert "Nothing was spent, and the stored token is kept." in str(raised)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_may_be_a_number_of_seconds(server: TokenServer, status: int) -> None:
    raised = failure(server, status, retry_after=7)
    assert isinstance(raised, RefreshTemporarilyFailed)
    assert raised.retry_after == 7


def test_retry_after_may_be_a_date(server: TokenServer) -> None:
    until = datetime.now(UTC) + timedelta(minutes=5)
    raised = failure(server, 503, retry_after=format_datetime(until, usegmt=True))
    assert isinstance(raised, RefreshTemporarilyFailed)
    assert raised.retry_after is not None
    assert 200 < raised.retry_after <= 300


def test_the_message_quotes_the_servers_explanation(server: TokenServer) -> None:
    body = {
        "error": "invalid_scope",
        "error_description": "No such\n\tscope \x1b[31m\u202e",
        "error_uri": "https://id.example/help",
    }
    raised = failure(server, 400, body=body)
    said = '400, invalid_scope: "No such scope [31m", see https://id.example/help'
    assert f"The token request to {server.token_url} cannot succeed as configured ({said})." in str(
        raised
    )


def test_a_long_explanation_is_cut(server: TokenServer) -> None:
    raised = failure(server, 400, body={"error": "e" * 9999, "error_description": "d" * 9999})
    assert "d" * 199 + "…" in str(raised)
    assert "d" * 200 not in str(raised)
    assert len(str(raised)) < 600


def test_an_error_code_beside_a_token_is_ignored(server: TokenServer) -> None:
    server.fail_next(200, body={"access_token": "abc", "error": "none"})
    assert RefreshToken(server.token_url, "r", client_id="client")().access_token == "abc"


def test_a_client_secret_that_is_a_common_word_leaves_the_refusal_readable(
    server: TokenServer,
) -> None:
    body = {"error": "invalid_client", "error_description": "wrong client credentials"}
    server.fail_next(401, body=body)
    with pytest.raises(RefreshConfigError) as caught:
        RefreshToken(server.token_url, "r3fresh", client_id="client", client_secret="wrong")()
    assert '(401, invalid_client: "wrong client credentials")' in str(caught.value)
