"""Any answer of a token endpoint yields a usable token, or an error that callers catch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenadapter import ClientCredentials, RefreshToken, Token, TokenAdapter, TokenError
from tokenadapter.testing import TokenServer

SECRET = "the-secret-of-this-client"

# JSON as Python reads it: with NaN, Infinity, and integers that no clock knows.
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["Bearer", "", " ", "\r\nX: y", "ä", "\ud800", "a.e30.b", "e30.e30.e30"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
OUR_MEMBERS = (
    "access_token token_type expires_in refresh_token scope id_token issued_at expires_at "
    "error error_description error_uri message detail"
)
members = st.sampled_from(OUR_MEMBERS.split())
documents = st.dictionaries(members | st.text(max_size=5), values, max_size=8)
good = st.fixed_dictionaries({"access_token": st.just("abc")}).flatmap(
    lambda fixed: documents.map(lambda others: {**others, **fixed})
)
bodies = (
    (documents | good | values).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.sampled_from([b"[" * 20_000, b'{"access_token": "abc", "expires_in": 1e999}', b"\xff\xfe"])
    | st.sampled_from(
        [b"access_token=abc&expires_in=x", b"1" * 5000, b'{"expires_in":' + b"9" * 5000]
    )
)
content_types = st.sampled_from(
    ["application/json", "text/html", "application/x-www-form-urlencoded", "text/plain; charset=x"]
)
statuses = st.sampled_from([200, 200, 200, 201, 204, 304, 400, 401, 403, 404, 429, 500, 503])
waits = st.sampled_from([None, "0", "5", "-1", "1e9", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenServer]:
    with TokenServer(clients={"client": SECRET}) as endpoint:
        yield endpoint


def answer(endpoint: TokenServer, body: bytes, kind: str, status: int, wait: str | None) -> None:
    endpoint.fail_next(status, body=body, content_type=kind, retry_after=wait)


def check(error: TokenError) -> None:
    assert SECRET not in str(error)
    assert len(str(error)) < 2000


@fuzz
@given(bodies, content_types, statuses, waits)
def test_a_source_gives_a_token_or_one_of_our_errors(
    endpoint: TokenServer, body: bytes, kind: str, status: int, wait: str | None
) -> None:
    answer(endpoint, body, kind, status, wait)
    source = ClientCredentials(endpoint.token_url, client_id="client", client_secret=SECRET)
    try:
        token = source()
    except TokenError as error:
        check(error)
    else:
        assert 200 <= status < 300
        assert isinstance(token, Token)
        assert token.access_token.isprintable()
        assert token.access_token.strip() == token.access_token != ""
        assert Token.from_dict(json.loads(json.dumps(token.to_dict()))) == token


@settings(fuzz, max_examples=75)  # the test above has tried the parser with more
@given(bodies, content_types, statuses, waits)
def test_a_request_is_answered_or_fails_with_what_callers_of_requests_catch(
    endpoint: TokenServer, body: bytes, kind: str, status: int, wait: str | None
) -> None:
    """The whole way: store, keeper and adapter see whatever the endpoint says."""
    answer(endpoint, body, kind, status, wait)
    source = RefreshToken(endpoint.token_url, "first", client_id="client", client_secret=SECRET)
    heard: list[Any] = []
    with requests.Session() as session:
        adapter = TokenAdapter(endpoint.public_url, source, on_event=heard.append).mount(session)
        for _ in range(2):
            try:
                echo = session.get(f"{endpoint.public_url}x").json()
            except TokenError as error:
                check(error)
            else:
                assert echo["headers"]["authorization"].startswith("Bearer ")
        assert all(SECRET not in str(event) for event in heard)
        adapter.close()
    endpoint.recover()
