"""The Retry of urllib3, with every setting, works the same with a token adapter and a plain one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tokenadapter import TokenAdapter
from tokenadapter.testing import TokenServer

from .conftest import Way


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def mount(session: requests.Session, server: TokenServer, **settings: Any) -> TokenAdapter:
    adapter = TokenAdapter(server.api_url, Way(server).source(), **settings).mount(session)
    adapter.keeper.adopt(server.issue())
    return adapter


def retry(**knobs: Any) -> Retry:
    return Retry(**{"total": 3, "backoff_factor": 0, **knobs})


KNOBS: dict[str, Retry] = {
    "none": Retry(0, read=False),
    "total": retry(),
    "total 0": retry(total=0),
    "total False": retry(total=False, status_forcelist=[503]),
    "status": retry(status=1, status_forcelist=[503]),
    "read": retry(read=1),
    "other": retry(other=0),
    "status_forcelist": retry(status_forcelist=[500, 503]),
    "methods": retry(allowed_methods=["PUT"], status_forcelist=[503]),
    "all methods": retry(allowed_methods=None, status_forcelist=[503]),
    "raise_on_status False": retry(total=1, status_forcelist=[503], raise_on_status=False),
    "Retry-After ignored": retry(respect_retry_after_header=False),
}
EVENTS: dict[str, list[dict[str, Any]]] = {
    "503": [{"status": 503}],
    "503 twice": [{"status": 503, "count": 2}],
    "503 four times": [{"status": 503, "count": 4}],
    "503 with Retry-After": [{"status": 503, "retry_after": 0}],
    "429 with Retry-After": [{"status": 429, "retry_after": 0}],
    "429": [{"status": 429}],
    "lost": [{"drop": True}],
    "reset twice": [{"reset": True, "count": 2}],
    "reset, then 500": [{"reset": True}, {"status": 500}],
}


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("knobs", KNOBS)
def test_without_a_refusal_retries_work_as_with_a_plain_adapter(
    server: TokenServer, session: requests.Session, knobs: str, events: str, method: str
) -> None:
    session.mount(server.public_url, HTTPAdapter(max_retries=KNOBS[knobs]))
    mount(session, server, max_retries=KNOBS[knobs])

    def outcome(endpoint: Any, url: str) -> Any:
        for event in EVENTS[events]:
            server.fail_next(endpoint=endpoint, **event)
        seen = len(server.requests)
        result: list[Any]
        try:
            answer = session.request(method, f"{url}x", data=b"body")
            result = [answer.status_code, [past.status for past in answer.raw.retries.history]]
        except requests.RequestException as error:
            result = [type(error), [type(arg) for arg in error.args]]
        server.recover(endpoint)
        return [*result, [(r.status, r.length) for r in server.requests[seen:]]]

    plain = outcome("public", server.public_url)
    assert outcome("api", server.api_url) == plain
    assert server.stats.token_requests == 0


@pytest.mark.parametrize("how", ["own", "inner"])
@pytest.mark.parametrize("status_forcelist", [[401], [401, 503], (401, 503), {401, 503}])
def test_urllib3_does_not_retry_a_401(
    server: TokenServer, session: requests.Session, how: str, status_forcelist: Any
) -> None:
    knobs = retry(status_forcelist=status_forcelist, allowed_methods=None)
    if how == "own":
        mount(session, server, max_retries=knobs)
    else:
        mount(session, server, inner=HTTPAdapter(max_retries=knobs))
    server.expire_now()
    if 503 in status_forcelist:
        server.fail_next(503, endpoint="api")
    answer = session.post(f"{server.api_url}x", data=b"body")
    assert answer.ok
    assert [past.status_code for past in answer.history] == [401]
    assert server.stats.api_refused == 1
    assert knobs.status_forcelist == status_forcelist


def test_a_401_that_ends_retries_is_renewed_and_replayed_with_fresh_ones(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server, max_retries=retry(total=1, status_forcelist=[503]))
    server.fail_next(503, endpoint="api")
    server.fail_next(401, endpoint="api")
    server.fail_next(503, endpoint="api")
    answer = session.put(f"{server.api_url}x", data=iter([b"bo", b"dy"]))
    assert answer.ok
    assert [past.status_code for past in answer.history] == [401]
    sent = [r for r in server.requests if r.path.startswith("/api/")]
    assert [r.status for r in sent] == [503, 401, 503, 200]
    assert {r.sha256 for r in sent} == {answer.json()["sha256"]}
    tokens = [r.headers["authorization"] for r in sent]
    # Repetitions have the token that they began with.
    assert tokens == [tokens[0]] * 2 + [tokens[2]] * 2
    assert tokens[0] != tokens[2]


def test_retries_that_end_in_the_replay_raise_their_own_error(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server, max_retries=retry(total=1, status_forcelist=[503]))
    server.fail_next(401, endpoint="api")
    server.fail_next(503, endpoint="api", count=2)
    with pytest.raises(requests.exceptions.RetryError) as caught:
        session.put(f"{server.api_url}x", data=b"body")
    assert "Authorization" not in caught.value.request.headers


def test_retries_do_not_reach_the_token_endpoint(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server, max_retries=retry(status_forcelist=[503], allowed_methods=None))
    server.expire_now()
    server.fail_next(503)
    with pytest.raises(requests.RequestException):
        session.get(f"{server.api_url}x")
    assert server.stats.token_requests == 1
