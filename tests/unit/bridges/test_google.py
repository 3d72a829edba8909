"""Clients of google-auth whose credentials ask a keeper."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.auth.transport.urllib3 import AuthorizedHttp

from tokenadapter import ClientCredentials, FileStore, ReauthRequired, TokenKeeper
from tokenadapter.bridges.google import KeeperCredentials
from tokenadapter.testing import FrozenClock, TokenServer


@pytest.fixture
def session(keeper: TokenKeeper) -> Iterator[AuthorizedSession]:
    with AuthorizedSession(KeeperCredentials(keeper)) as session:
        yield session


def test_a_refused_token_is_renewed_and_the_request_sent_again(
    server: TokenServer, session: AuthorizedSession
) -> None:
    assert session.get(server.api_url).ok
    server.revoke_all()
    assert session.post(server.api_url, json={}).json()["length"] == 2
    assert (server.stats.renewals, server.stats.api_refused) == (2, 1)


def test_threads_that_are_refused_together_cause_one_renewal(
    server: TokenServer, keeper: TokenKeeper
) -> None:
    credentials = KeeperCredentials(keeper)
    barrier = threading.Barrier(6)

    def request() -> int:
        with AuthorizedSession(credentials) as session:
            assert session.get(server.api_url).ok
            barrier.wait(10)
            if barrier.n_waiting == 0:
                server.revoke_all()
            barrier.wait(10)
            return session.get(server.api_url).status_code

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(request) for _ in range(6)]
        assert [future.result() for future in futures] == [200] * 6
    assert server.stats.renewals == 2


def test_an_api_that_refuses_every_token_costs_one_renewal(
    server: TokenServer, session: AuthorizedSession
) -> None:
    assert session.get(server.api_url).ok
    with server.outage(401, endpoint="api"):
        for _ in range(3):
            assert session.get(server.api_url).status_code == 401
    assert server.stats.renewals == 2
    assert session.get(server.api_url).ok


def test_a_token_that_another_process_renewed_is_used_without_a_refusal(
    server: TokenServer, keeper: TokenKeeper, session: AuthorizedSession
) -> None:
    assert session.get(server.api_url).ok
    keeper.renew(keeper.current())
    assert session.get(server.api_url).ok
    assert (server.stats.renewals, server.stats.api_refused) == (2, 0)


def test_transports_of_urllib3_do_the_same(server: TokenServer, keeper: TokenKeeper) -> None:
    http = AuthorizedHttp(KeeperCredentials(keeper))
    assert http.request("GET", server.api_url).status == 200
    server.revoke_all()
    assert http.request("GET", server.api_url).status == 200
    http.http.clear()


def test_the_attributes_describe_the_token(server: TokenServer, keeper: TokenKeeper) -> None:
    credentials = KeeperCredentials(keeper)
    assert (credentials.token, credentials.valid) == (None, False)
    credentials.refresh(Request())  # programs call it first
    assert credentials.token == keeper.current().access_token
    assert credentials.valid
    assert not credentials.expired
    assert server.stats.renewals == 1
    first = credentials.token
    credentials.refresh(Request())
    assert credentials.token != first
    assert server.stats.renewals == 2


def test_a_short_token_is_valid_until_shortly_before_its_end(frozen_clock: FrozenClock) -> None:
    credentials = KeeperCredentials(
        TokenKeeper(lambda: {"access_token": "text", "expires_in": 100}, renew_early=False)
    )
    credentials.refresh(Request())
    frozen_clock.move(85)
    assert credentials.valid
    frozen_clock.move(10)
    assert not credentials.valid


def test_a_token_of_unknown_lifetime_is_valid() -> None:
    credentials = KeeperCredentials(TokenKeeper(lambda: "text"))
    credentials.refresh(Request())
    assert credentials.valid
    assert credentials.expiry is None


def test_a_failure_is_one_of_google_auth(server: TokenServer, session: AuthorizedSession) -> None:
    server.fail_next(400, error="invalid_grant")
    with pytest.raises(RefreshError) as caught:
        session.get(server.api_url)
    assert isinstance(caught.value, ReauthRequired)
    assert not caught.value.retryable
    assert "invalid_grant" in str(caught.value)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_copy_asks_the_same_store_and_has_no_token(
    server: TokenServer, tmp_path: Path, copied
) -> None:
    source = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    credentials = KeeperCredentials(TokenKeeper(source, FileStore(tmp_path / "token.json")))
    credentials.refresh(Request())
    twin = copied(credentials)
    assert twin.token is None
    twin.refresh(Request())
    assert twin.token == credentials.token
    assert server.stats.renewals == 1


def test_a_pickle_has_no_token(server: TokenServer, tmp_path: Path) -> None:
    source = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    credentials = KeeperCredentials(TokenKeeper(source, FileStore(tmp_path / "token.json")))
    credentials.refresh(Request())
    assert credentials.token.encode() not in pickle.dumps(credentials)
    assert credentials.token not in repr(credentials)


PROGRAM = """
import sys
from google.auth.transport.requests import AuthorizedSession
from tokenadapter import ClientCredentials, FileStore, TokenKeeper
from tokenadapter.bridges.google import KeeperCredentials
url, store = sys.argv[1:]
source = ClientCredentials(url + "/token", client_id="client", client_secret="secret")
with AuthorizedSession(KeeperCredentials(TokenKeeper(source, FileStore(store)))) as session:
    for _ in sys.stdin:
        print(session.get(url + "/api/x").status_code, flush=True)
"""


def test_processes_share_one_renewal(server: TokenServer, tmp_path: Path) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.url, str(tmp_path / "token.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for renewals in (1, 2):
            for program in programs:
                program.stdin.write("\n")
                program.stdin.flush()
            assert [program.stdout.readline() for program in programs] == ["200\n"] * 3
            assert server.stats.renewals == renewals
            server.expire_now()
    finally:
        for program in programs:
            program.communicate(timeout=30)
