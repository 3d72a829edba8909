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
def test_not_processed_where_the_server_says_that_it_did_not_get_to_it(
    server: TokenServer, status: int, answer: dict[str, Any], error: str | None
) -> None:
    told = failure(server, status, **answer)
    assert isinstance(told, RefreshTemporarilyFailed)
    assert told.processed is False
    assert told.error == error
    assert "Nothing was spent" in str(told)


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
def test_nobody_knows_where_the_answer_does_not_say(
    server: TokenServer, status: int, answer: dict[str, Any], words: str
) -> None:
    told = failure(server, status, **answer)
    assert isinstance(told, RefreshTemporarilyFailed)
    assert told.processed is None
    assert words in str(told)
    # What answers in that way now does so later, too.
    assert str(told).endswith("Try again later.") == (status >= 400)
    assert "The refresh token may be spent; it is kept all the same." in str(told)


@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize(
    "code", ["invalid_grant", "interaction_required", "bad_refresh_token", "invalid_refresh_token"]
)
def test_a_refused_refresh_token_asks_for_a_login(
    server: TokenServer, status: int, code: str
) -> None:
    told = failure(server, status, error=code)
    assert isinstance(told, ReauthRequired)
    assert told.reason == "invalid_grant"
    assert told.error == code
    assert f"refused the refresh token ({status}, {code})" in str(told)
    assert "adopt" in str(told)


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
def test_what_was_asked_in_the_wrong_way_was_not_spent(
    server: TokenServer, status: int, answer: dict[str, Any], error: str | None, advice: str
) -> None:
    told = failure(server, status, **answer)
    assert isinstance(told, RefreshConfigError)
    assert told.error == error
    assert advice in str(told)
    assert "Nothing was spent, and the stored token is kept." in str(told)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_server_says_how_long_to_wait(server: TokenServer, status: int) -> None:
    told = failure(server, status, retry_after=7)
    assert isinstance(told, RefreshTemporarilyFailed)
    assert told.retry_after == 7


def test_the_server_says_until_when_to_wait(server: TokenServer) -> None:
    until = datetime.now(UTC) + timedelta(minutes=5)
    told = failure(server, 503, retry_after=format_datetime(until, usegmt=True))
    assert isinstance(told, RefreshTemporarilyFailed)
    assert told.retry_after is not None
    assert 200 < told.retry_after <= 300


def test_what_the_server_says_is_quoted(server: TokenServer) -> None:
    body = {
        "error": "invalid_scope",
        "error_description": "No such\n\tscope \x1b[31m\u202e",
        "error_uri": "https://id.example/help",
    }
    told = failure(server, 400, body=body)
    said = '400, invalid_scope: "No such scope [31m", see https://id.example/help'
    assert f"The token request to {server.token_url} cannot succeed as configured ({said})." in str(
        told
    )


def test_what_the_server_says_is_kept_short(server: TokenServer) -> None:
    told = failure(server, 400, body={"error": "e" * 9999, "error_description": "d" * 9999})
    assert "d" * 199 + "…" in str(told)
    assert "d" * 200 not in str(told)
    assert len(str(told)) < 600


def test_an_error_in_an_answer_with_a_token_is_none(server: TokenServer) -> None:
    server.fail_next(200, body={"access_token": "abc", "error": "none"})
    assert RefreshToken(server.token_url, "r", client_id="client")().access_token == "abc"


def test_a_client_secret_of_common_words_leaves_the_refusal_readable(server: TokenServer) -> None:
    body = {"error": "invalid_client", "error_description": "wrong client credentials"}
    server.fail_next(401, body=body)
    with pytest.raises(RefreshConfigError) as caught:
        RefreshToken(server.token_url, "r3fresh", client_id="client", client_secret="wrong")()
    assert '(401, invalid_client: "wrong client credentials")' in str(caught.value)
