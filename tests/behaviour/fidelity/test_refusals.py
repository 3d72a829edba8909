"""The 401s and 403s that mean something other than expiry, from the wire to the caller."""

from __future__ import annotations

import logging
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tokenadapter import TokenAdapter, expired_on
from tokenadapter.events import Event, StepUpNeeded
from tokenadapter.http.verdicts import step_up
from tokenadapter.testing import TokenServer

from .conftest import Way
from .gate import Challenging, Demanding


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


INVALID = 'error="invalid_token"'
SCOPE = 'error="insufficient_scope", scope="a b"'
LOGIN = 'error="insufficient_user_authentication", acr_values="x, y", max_age=5'

# What stands in WWW-Authenticate, field by field, and whether the token is renewed for it.
TABLE: dict[str, tuple[list[str], bool]] = {
    "nothing": ([], True),
    "empty": ([""], True),
    "bare": (["Bearer"], True),
    "expired": ([f"Bearer {INVALID}"], True),
    "odd case": ([f"bEARER {INVALID.upper().replace('INVALID_TOKEN', 'invalid_token')}"], True),
    "unquoted": (["Bearer error=invalid_token, realm=api"], True),
    "Basic first": ([f'Basic realm="a, Bearer error=\\"b\\"", Bearer {INVALID}'], True),
    "Basic last": ([f'Bearer {INVALID}, Basic realm="a"'], True),
    "several fields": (['Basic realm="a"', "Negotiate", f"Bearer {INVALID}"], True),
    "token68 beside": ([f"Negotiate YII=, Bearer {INVALID}"], True),
    "an own scheme": (['OAuth realm="Service"'], True),
    "an unknown error": (['Bearer error="expired_token"'], True),
    "quoted commas": ([f'Bearer realm="a, {SCOPE.replace(chr(34), "")}", {INVALID}'], True),
    "Basic only": (['Basic realm="a"'], False),
    "a quoted Bearer": (['Basic realm="Bearer error=invalid_token"'], False),
    "tickets only": (["Negotiate", "NTLM"], False),
    "token68 only": (["Negotiate YII="], False),
    "Digest": (['Digest realm="a", nonce="b", qop="auth,auth-int"'], False),
    "scope": ([f"Bearer {SCOPE}"], False),
    "scope in a later field": (['Basic realm="a"', f"Bearer {SCOPE}"], False),
    "login": ([f"Bearer {LOGIN}"], False),
    "DPoP nonce": (['DPoP error="use_dpop_nonce"'], False),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_401_is_renewed_for_if_a_new_token_may_help(case: str, session: requests.Session) -> None:
    fields, renewed = TABLE[case]
    with Challenging(401, fields) as api:
        adapter = TokenAdapter(api.url, api.source).mount(session)
        adapter.keeper.current()
        answer = session.put(api.url, data=iter([b"body"]))
        assert answer.status_code == (200 if renewed else 401)
        assert adapter.keeper.stats.get("Replayed", 0) == renewed
        assert api.minted == 1 + renewed
        assert answer.json() == {"body": "body" if renewed else "refused"}


@pytest.mark.parametrize("case", TABLE)
def test_a_403_is_handed_on_whatever_it_says(case: str, session: requests.Session) -> None:
    with Challenging(403, TABLE[case][0]) as api:
        adapter = TokenAdapter(api.url, api.source).mount(session)
        assert session.get(api.url).status_code == 403
        assert api.minted == 1
        assert "Replayed" not in adapter.keeper.stats


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("challenge", "wanted"),
    [
        (SCOPE, ("insufficient_scope", "a b", None, None)),
        (LOGIN, ("insufficient_user_authentication", None, "x, y", 5)),
        (
            'error="insufficient_user_authentication", acr_values="myACR", scope="c", max_age="0"',
            ("insufficient_user_authentication", "c", "myACR", 0),
        ),
        ('error="insufficient_scope"', ("insufficient_scope", None, None, None)),
    ],
)
def test_a_refusal_that_a_login_could_solve_is_logged_and_readable_in_the_answer(
    server: TokenServer,
    session: requests.Session,
    status: int,
    challenge: str,
    wanted: tuple[Any, ...],
) -> None:
    heard: list[Event] = []
    source = Way(server).source()
    adapter = TokenAdapter(server.api_url, source, on_event=heard.append).mount(session)
    adapter.keeper.adopt(server.issue())
    heard.clear()
    headers = {"WWW-Authenticate": f"Bearer {challenge}"}
    server.fail_next(status, endpoint="api", headers=headers)
    answer = session.post(f"{server.api_url}x?secret=1", data=iter([b"body"]))
    assert answer.status_code == status
    request = "POST", f"{server.api_url}x", status
    assert heard == [StepUpNeeded(*request, *wanted, store=repr(adapter.keeper.store))]
    requested = step_up(answer)
    assert requested is not None
    assert (requested.error, requested.scope, requested.acr_values, requested.max_age) == wanted
    assert server.stats.token_requests == 0


@pytest.mark.parametrize("encode", [str, quote, lambda token: b64encode(f"a{token}".encode())])
@pytest.mark.parametrize("is_replayed", [False, True])
def test_a_token_that_an_api_echoes_is_neither_in_the_event_nor_in_the_log(
    session: requests.Session,
    caplog: pytest.LogCaptureFixture,
    encode: Callable[[str], Any],
    is_replayed: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["first/secret-token", "second/secret-token"]
    heard: list[Event] = []
    echo = encode(secrets[is_replayed])
    echo = echo.decode() if isinstance(echo, bytes) else echo
    wanted = f'error="insufficient_scope", scope="a Bearer {echo}", acr_values="{echo}"'
    with Demanding([401, 403] if is_replayed else [403], wanted) as api:
        adapter = TokenAdapter(
            api.url,
            lambda previous: secrets[previous is not None],
            on_event=heard.append,
        ).mount(session)
        adapter.keeper.current()
        assert session.get(api.url).status_code == 403
    needed = next(event for event in heard if isinstance(event, StepUpNeeded))
    assert (needed.error, needed.scope, needed.acr_values) == ("insufficient_scope", None, None)
    assert ("Replayed" in adapter.keeper.stats) == is_replayed
    assert echo not in caplog.text


def test_the_requirements_of_an_api_are_logged_on_one_line_and_truncated(
    server: TokenServer, session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    adapter = TokenAdapter(server.api_url, Way(server).source(), on_event=heard.append)
    adapter.mount(session).keeper.adopt(server.issue())
    said = f'Bearer error="insufficient_scope", scope="a\tb{" c" * 5000}"'
    server.fail_next(403, endpoint="api", headers={"WWW-Authenticate": said})
    assert session.get(server.api_url).status_code == 403
    needed = heard[-1]
    assert isinstance(needed, StepUpNeeded)
    assert needed.scope is not None
    assert (needed.scope[:5], len(needed.scope)) == ("a b c", 200)
    assert len(str(needed)) < 400


def test_a_login_that_is_needed_after_a_replay_is_logged_as_well(
    server: TokenServer, session: requests.Session
) -> None:
    adapter = TokenAdapter(server.api_url, Way(server).source()).mount(session)
    adapter.keeper.adopt(server.issue())
    server.fail_next(401, endpoint="api")
    server.fail_next(403, endpoint="api", error="insufficient_scope")
    assert session.get(f"{server.api_url}x").status_code == 403
    assert adapter.keeper.stats["StepUpNeeded"] == 1
    assert adapter.keeper.stats["Replayed"] == 1


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404])
def test_nothing_is_logged_if_no_other_login_is_required(
    server: TokenServer, session: requests.Session, status: int
) -> None:
    adapter = TokenAdapter(server.api_url, Way(server).source(), max_replays=0).mount(session)
    adapter.keeper.adopt(server.issue())
    headers = {} if status in (401, 403) else {"WWW-Authenticate": f"Bearer {SCOPE}"}
    error = "invalid_token" if status in (401, 403) else None
    server.fail_next(status, endpoint="api", headers=headers, error=error)
    assert session.get(f"{server.api_url}x").status_code == status
    assert "StepUpNeeded" not in adapter.keeper.stats


def test_a_verdict_of_ones_own_goes_before(server: TokenServer, session: requests.Session) -> None:
    """For a server that calls an expired token insufficient."""
    adapter = TokenAdapter(
        server.api_url, Way(server).source(), verdict=expired_on(status=403)
    ).mount(session)
    adapter.keeper.adopt(server.issue())
    server.fail_next(403, endpoint="api", error="insufficient_scope")
    assert session.get(f"{server.api_url}x").ok
    assert "StepUpNeeded" not in adapter.keeper.stats


def test_threads_that_are_refused_for_something_else_renew_nothing(
    server: TokenServer, session: requests.Session
) -> None:
    adapter = TokenAdapter(server.api_url, Way(server).source()).mount(session)
    adapter.keeper.adopt(server.issue())
    headers = {"WWW-Authenticate": f"Bearer {LOGIN}"}
    server.fail_next(401, endpoint="api", headers=headers, count=None)
    threads = [threading.Thread(target=lambda: session.get(f"{server.api_url}x")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.stats.token_requests == 0
    assert adapter.keeper.stats["StepUpNeeded"] == 8
