"""Verdicts: which refusals a new token cures, and which responses require a step-up."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from tokenadapter.http.verdicts import StepUp, default_verdict, expired_on, step_up
from tokenadapter.testing import TokenServer


def answer(
    status: int,
    challenge: str | None = None,
    *,
    content: object = ...,
    content_type: str = "application/json",
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    if challenge is not None:
        response.headers["www-authenticate"] = challenge
    if content is not ...:
        response.headers["Content-Type"] = content_type
        body = io.BytesIO(json.dumps(content).encode())
        response.raw = HTTPResponse(body, preload_content=False)
    return response


# --- the default verdict -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "challenge",
    [
        None,
        "",
        " , ",
        "Bearer",
        "bEaReR",
        'Bearer realm="api"',
        'Bearer error="invalid_token"',
        'Bearer, error="invalid_token"',
        'Bearer realm="a, Basic", error="invalid_token", error_description="It \\"expired\\""',
        'Bearer error="invalid_token" error_description="insufficient_scope"',
        "Bearer error=",
    ],
)
def test_a_401_that_may_mean_expiry_causes_a_renewal(challenge: str | None) -> None:
    assert default_verdict(answer(401, challenge)) is True


@pytest.mark.parametrize("error", ["invalid_request", "expired_token", "insufficient_claims", "?"])
def test_an_unknown_error_counts_as_expiry(error: str) -> None:
    assert default_verdict(answer(401, f'Bearer error="{error}"'))


@pytest.mark.parametrize(
    "error",
    [
        "insufficient_scope",
        "insufficient_user_authentication",
        "invalid_dpop_proof",
        "use_dpop_nonce",
    ],
)
def test_an_error_that_a_new_token_would_repeat_causes_no_renewal(error: str) -> None:
    assert default_verdict(answer(401, f'Bearer error="{error}"')) is False
    assert not default_verdict(answer(401, f'BEARER ERROR = {error}, realm="a"'))
    assert not default_verdict(answer(401, f'Basic realm="a", Bearer error="{error}"'))
    assert not default_verdict(answer(401, f'Bearer realm="a", DPoP error="{error}"'))
    assert not default_verdict(answer(401, f'Bearer error="{error}"'), scheme=None)


@pytest.mark.parametrize(
    "status", [200, 204, 302, 400, 402, 403, 404, 407, 408, 419, 429, 498, 500, 503]
)
def test_only_a_401_causes_a_renewal(status: int) -> None:
    assert not default_verdict(answer(status))
    assert not default_verdict(answer(status, 'Bearer error="invalid_token"'))
    assert not default_verdict(answer(status), scheme=None)


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="api"',
        "BASIC",
        "Negotiate",
        "Negotiate YII=",
        "Negotiate, NTLM",
        "NTLM,Basic",
        'Digest realm="Bearer", qop="auth, Bearer", nonce="b"',
    ],
)
def test_a_401_with_only_foreign_schemes_causes_no_renewal(challenge: str) -> None:
    assert not default_verdict(answer(401, challenge))
    assert default_verdict(answer(401, f"{challenge}, Bearer"))
    assert default_verdict(answer(401, f"Bearer, {challenge}"))


@pytest.mark.parametrize("scheme", ["OAuth", "OAuth2", "Token", "JWT", "ApiKey", "DPoP", "X-Own"])
def test_a_token_scheme_by_another_name_is_not_foreign(scheme: str) -> None:
    assert default_verdict(answer(401, f'{scheme} realm="api"'))
    assert default_verdict(answer(401, scheme), scheme="token")
    assert default_verdict(answer(401, f'Basic realm="api", {scheme}'))


@pytest.mark.parametrize("challenge", [None, "Basic", "Negotiate, NTLM", 'Bearer realm="api"'])
def test_for_a_token_in_its_own_header_any_scheme_may_mean_expiry(challenge: str | None) -> None:
    assert default_verdict(answer(401, challenge), scheme=None)


def test_the_scheme_that_the_token_was_sent_with_is_not_foreign() -> None:
    assert default_verdict(answer(401, 'BASIC realm="a"'), scheme="Basic")
    assert not default_verdict(answer(401, "Digest"), scheme="Basic")


@given(st.text())
def test_no_header_makes_a_verdict_raise(challenge: str) -> None:
    response = answer(401, challenge)
    assert default_verdict(response) in (True, False)
    assert step_up(response) is None or "insufficient_" in challenge


# --- expired_on --------------------------------------------------------------------------------


def test_a_status_alone_means_expiry() -> None:
    verdict = expired_on(status=419, default=False)
    assert verdict(answer(419)) is True
    assert verdict(answer(401)) is False


@pytest.mark.parametrize("several", [[401, 403], (401, 403), {401, 403}, range(401, 404, 2)])
def test_each_of_several_statuses_means_expiry(several: Any) -> None:
    verdict = expired_on(status=several, default=False)
    assert [s for s in (200, 401, 402, 403, 407) if verdict(answer(s))] == [401, 403]


def test_a_given_status_takes_precedence_over_the_challenge() -> None:
    assert expired_on(status=401)(answer(401, "Basic"))
    assert expired_on(status=403)(answer(403, 'Bearer error="insufficient_scope"'))


@pytest.mark.parametrize(
    ("wanted", "content", "fits"),
    [
        ({"error": "token_expired"}, {"error": "token_expired", "more": [1]}, True),
        ({"error": "token_expired"}, {"error": "Token_Expired"}, False),
        ({"error": "token_expired"}, {"error": ["token_expired"]}, False),
        ({"error": "token_expired"}, {"error": {"token_expired": 1}}, False),
        ({"error": "token_expired"}, {}, False),
        ({"error": "token_expired"}, ["error"], False),
        ({"error": "token_expired"}, "token_expired", False),
        ({"code": [124, 300]}, {"code": 300}, True),
        ({"code": [124, 300]}, {"code": 301}, False),
        ({"code": [124, 300]}, {"code": [124, 300]}, False),
        ({"code": {124, "124"}}, {"code": {}}, False),
        ({"ok": False}, {"ok": False}, True),
        ({"ok": False}, {"ok": True}, False),
        ({"ok": False}, {}, False),
        ({"user": None}, {"user": None}, True),
        ({"user": None}, {"user": {}}, False),
        ({"user": None}, {}, False),
        ({"user": None}, None, False),
        ({"error.code": "E"}, {"error": {"code": "E"}}, True),
        ({"error.code": "E"}, {"error": {"code": {"code": "E"}}}, False),
        ({"error.code": "E"}, {"error": "E"}, False),
        ({"error.code": "E"}, {"error": None}, False),
        ({"error.code": "E"}, {"error.code": "E"}, True),
        ({"a.error.code": "E"}, {"a": {"error.code": "E"}}, True),
        ({"errors.0.code": 89}, {"errors": [{"code": 89}, {"code": 1}]}, True),
        ({"errors.1.code": 89}, {"errors": [{"code": 89}]}, False),
        ({"errors.code": 89}, {"errors": [{"code": 89}]}, False),
        ({"errors.0": 89}, {"errors": {"0": 89}}, True),
        ({"0.errorCode": "GONE"}, [{"errorCode": "GONE"}], True),
        ({"ok": False, "error": "E"}, {"ok": False, "error": "E"}, True),
        ({"ok": False, "error": "E"}, {"ok": False, "error": "F"}, False),
        ({"ok": False, "error": "E"}, {"ok": True, "error": "E"}, False),
    ],
)
def test_json_means_expiry_if_every_path_has_one_of_its_values(
    wanted: Any, content: object, fits: bool
) -> None:
    response = answer(200, content=content)
    assert expired_on(json=wanted)(response) is fits
    assert response.json() == content


def test_status_and_json_must_both_match() -> None:
    verdict = expired_on(status=[200, 403], json={"error": "token_expired"})
    assert verdict(answer(200, content={"error": "token_expired"}))
    assert verdict(answer(403, content={"error": "token_expired"}))
    assert not verdict(answer(403, content={"error": "forbidden"}))
    assert not verdict(answer(400, content={"error": "token_expired"}))


def test_the_default_verdict_applies_if_nothing_matches_unless_turned_off() -> None:
    gone = answer(401, content={"error": "other"})
    assert expired_on(status=419)(gone)
    assert expired_on(json={"error": "token_expired"})(gone)
    assert expired_on(status=401, json={"error": "token_expired"})(gone)
    assert not expired_on(status=419, default=False)(gone)
    assert not expired_on(json={"error": "token_expired"}, default=False)(gone)
    assert not expired_on(status=419)(answer(401, "Basic"))


@pytest.mark.parametrize("wanted", [{"error": "token_expired"}, {"user": None}])
def test_a_body_that_is_not_json_never_matches(wanted: Any) -> None:
    text = answer(200, content={"error": "token_expired", "user": None}, content_type="text/html")
    assert not expired_on(json=wanted)(text)
    assert not expired_on(json=wanted)(answer(200))


def test_the_body_is_read_only_if_the_status_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[requests.Response] = []
    monkeypatch.setattr("tokenadapter.http.responses.peek_json", looked_at.append)
    verdict = expired_on(status=403, json={"error": "token_expired"})
    for status in (200, 401, 404):
        verdict(answer(status, content={"error": "token_expired"}))
    expired_on(status=200)(answer(200, content={}))
    assert looked_at == []
    response = answer(403, content={"error": "token_expired"})
    verdict(response)
    assert looked_at == [response]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "a status, JSON, or both"),
        ({"default": False}, TypeError, "a status, JSON, or both"),
        (
            {"status": "403"},
            TypeError,
            "must be an HTTP status, or a collection .* not '403'",
        ),
        ({"status": ["403"]}, TypeError, "status must be an HTTP status"),
        ({"status": b"xyz"}, TypeError, "status must be an HTTP status"),
        ({"status": 403.0}, TypeError, "status must be an HTTP status"),
        ({"status": {403: "no"}}, TypeError, "status must be an HTTP status"),
        ({"status": []}, ValueError, "status is empty"),
        ({"status": 0}, ValueError, "0 is not an HTTP status"),
        ({"status": True}, ValueError, "True is not an HTTP status"),
        ({"status": [403, 1000]}, ValueError, "1000 is not an HTTP status"),
        ({"json": {}}, ValueError, "json is empty"),
        ({"json": "token_expired"}, TypeError, "json must be a mapping of paths to values"),
        ({"json": [("error", "e")]}, TypeError, "json must be a mapping of paths to values"),
        ({"json": {1: "e"}}, TypeError, "not a path: 1"),
        ({"json": {"error": []}}, ValueError, r"json\['error'\] is empty"),
        ({"json": {"error": b"e"}}, TypeError, r"json\['error'\] must be a text or number"),
        ({"json": {"error": {"code": 1}}}, TypeError, r"json\['error'\] must be a text or number"),
        ({"json": {"error": [["e"]]}}, TypeError, r"json\['error'\] must be a text or number"),
        ({"json": {"error": object}}, TypeError, r"json\['error'\] must be a text or number"),
    ],
)
def test_a_condition_that_can_never_match_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        expired_on(**arguments)


def test_later_changes_to_the_arguments_have_no_effect() -> None:
    status, codes = [403], ["a"]
    wanted = {"code": codes}
    verdict = expired_on(status=status, json=wanted)
    status[0], codes[0] = 500, "b"
    wanted["more"] = ["c"]
    assert verdict(answer(403, content={"code": "a"}))


def test_a_verdict_shows_how_it_was_made() -> None:
    verdict = expired_on(status=403, json={"error.code": ["a", "b"], "ok": False})
    assert repr(verdict) == (
        "expired_on(status=(403,), json={'error.code': ('a', 'b'), 'ok': (False,)}, default=True)"
    )
    assert repr(eval(repr(verdict))) == repr(verdict)
    assert repr(expired_on(status=419, default=False)) == (
        "expired_on(status=(419,), json=None, default=False)"
    )


def test_a_verdict_can_be_pickled_and_copied() -> None:
    verdict = expired_on(status=403, json={"error": "token_expired"}, default=False)
    for twin in (pickle.loads(pickle.dumps(verdict)), copy.deepcopy(verdict)):
        assert repr(twin) == repr(verdict)
        assert twin(answer(403, content={"error": "token_expired"}))
    assert pickle.loads(pickle.dumps(default_verdict)) is default_verdict


# --- step_up -----------------------------------------------------------------------------------


def test_step_up_returns_the_required_scope() -> None:
    challenge = 'Bearer realm="a", error="insufficient_scope", scope="read write"'
    for status in (401, 403):
        assert step_up(answer(status, challenge)) == StepUp(
            "insufficient_scope", None, "read write", None, None
        )


def test_step_up_returns_the_required_authentication() -> None:
    # The examples of RFC 9470 section 3, in one.
    challenge = (
        'Bearer error="insufficient_user_authentication", error_description="More recent '
        'authentication is required", max_age="5", acr_values="urn:high urn:low"'
    )
    wanted = step_up(answer(401, challenge))
    assert wanted == StepUp(
        error="insufficient_user_authentication",
        error_description="More recent authentication is required",
        scope=None,
        acr_values="urn:high urn:low",
        max_age=5,
    )


def test_the_step_up_challenge_is_found_among_others() -> None:
    challenge = 'Basic scope="x", Bearer realm="a", DPoP error=insufficient_scope, scope=s'
    wanted = step_up(answer(403, challenge))
    assert wanted is not None
    assert wanted.scope == "s"


@pytest.mark.parametrize("age", ["", "-5", "5.0", "soon", "1_0", "٣", "²", "9" * 5000])
def test_an_invalid_max_age_is_none(age: str) -> None:
    wanted = step_up(
        answer(401, f'Bearer error="insufficient_user_authentication", max_age="{age}"')
    )
    assert wanted is not None
    assert wanted.max_age is None


@pytest.mark.parametrize(
    ("status", "challenge"),
    [
        (401, None),
        (403, None),
        (401, 'Bearer error="invalid_token", scope="read"'),
        (403, 'Bearer scope="read"'),
        (403, 'Bearer error_description="insufficient_scope"'),
        (200, 'Bearer error="insufficient_scope"'),
        (404, 'Bearer error="insufficient_scope"'),
        (407, 'Bearer error="insufficient_scope"'),
    ],
)
def test_other_responses_require_no_step_up(status: int, challenge: str | None) -> None:
    assert step_up(answer(status, challenge)) is None


# --- as they come from a server ----------------------------------------------------------------


def get(server: TokenServer) -> requests.Response:
    return requests.get(
        f"{server.api_url}invoices",
        headers={"Authorization": f"Bearer {server.issue()}"},
        stream=True,
        timeout=10,
    )


def test_a_streamed_answer_stays_unread_for_the_caller(server: TokenServer) -> None:
    content = {"error": {"code": "token_expired"}, "padding": "x" * 10_000}
    server.fail_next(200, endpoint="api", body=content)
    with get(server) as response:
        assert expired_on(status=200, json={"error.code": "token_expired"})(response)
        assert not expired_on(status=200, json={"error.code": "other"})(response)
        assert response.raw.tell() == 0
        chunks = list(response.iter_content(1000))
    assert len(chunks) > 10
    assert json.loads(b"".join(chunks)) == content


@pytest.fixture
def several_fields() -> Iterator[str]:
    """A server whose 401 has three ``WWW-Authenticate`` fields, in three cases."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Negotiate YII=")
            self.send_header("www-authenticate", 'Basic realm="a, b"')
            self.send_header("WWW-AUTHENTICATE", f"Bearer error={self.path[1:]},scope=s")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_challenges_in_several_fields_are_read_together(several_fields: str) -> None:
    sent = {"Authorization": "Bearer t0ken"}
    assert default_verdict(requests.get(f"{several_fields}invalid_token", headers=sent, timeout=10))
    refused = requests.get(f"{several_fields}insufficient_scope", headers=sent, timeout=10)
    assert not default_verdict(refused)
    assert step_up(refused) == ("insufficient_scope", None, "s", None, None)


# --- the cost ----------------------------------------------------------------------------------


def test_challenges_are_imported_only_for_a_refusal() -> None:
    program = """
import sys
from types import SimpleNamespace
old = {*sys.modules}
from tokenadapter.http.verdicts import default_verdict, expired_on, step_up
good = SimpleNamespace(status_code=200)
assert not default_verdict(good) and step_up(good) is None
assert not expired_on(status=403, json={"error": "token_expired"})(good)
print(*sorted(name for name in sys.modules if name.startswith("tokenadapter")))
loaded = {*sys.modules} - old
print(*loaded & {"requests", "urllib3", "json", "dataclasses", "inspect"})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    own = "tokenadapter tokenadapter.http tokenadapter.http.verdicts tokenadapter.late_imports"
    assert done.stdout == f"{own}\n\n", done.stderr
