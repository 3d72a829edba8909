"""Third-party packages, with an API whose tokens live for 2 seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import elastic_transport
import fitbit
import github
import gitlab
import jira
import pytest
from elastic_transport import NodeConfig
from fitbit.api import FitbitOauth2Client
from requests_oauthlib import OAuth2Session

from tokenadapter import (
    ClientCredentials,
    RefreshToken,
    Token,
    TokenAdapter,
    installed,
    retrofit,
)
from tokenadapter.testing import TokenServer

EXPIRIES = 2


@pytest.fixture
def brief() -> Iterator[TokenServer]:
    with TokenServer(lifetime=2) as server:
        yield server


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


def until_tokens_have_expired(server: TokenServer) -> Iterator[None]:
    """Go on until so many tokens have come to their end, and then once more."""
    while server.stats.renewals <= EXPIRIES:
        yield
        time.sleep(0.1)
    yield


# --- built on requests -------------------------------------------------------------------------


def test_three_sdks_at_once(brief: TokenServer) -> None:
    url = brief.api_url.removesuffix("/")
    hub = github.Github(base_url=url, seconds_between_requests=0, seconds_between_writes=0)
    lab = gitlab.Gitlab(url)
    board = jira.JIRA(url, get_server_info=False)
    with installed(TokenAdapter(brief.api_url, client(brief))):
        for _ in until_tokens_have_expired(brief):
            # PyGithub sends through an adapter of its own; jira's session retries by itself.
            assert hub.get_repo("ada/engine").raw_data["path"] == "/api/repos/ada/engine"
            assert hub.get_user("ada").raw_data["method"] == "GET"
            assert lab.projects.get(1).path == "/api/api/v4/projects/1"
            assert lab.projects.create({"name": "engine"}).length == 18
            assert board.myself()["path"] == "/api/rest/api/2/myself"
            assert board.add_comment("A-1", "text").raw["length"] == 16
    assert brief.stats.renewals == EXPIRIES + 1
    with pytest.raises(gitlab.GitlabAuthenticationError):
        lab.projects.get(1)
    for owner in (hub, lab.session, board):
        owner.close()


def test_requests_oauthlib_with_a_stale_token_of_its_own(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``expires_at`` it does not renew; what it signs with is replaced."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    token = {"access_token": "stale", "token_type": "Bearer"}
    with OAuth2Session("client", token=token) as session:
        for fit in (
            lambda: installed(TokenAdapter(server.api_url, client(server))),
            lambda: retrofit(session, server.api_url, client(server)),
        ):
            with fit():
                assert session.get(f"{server.api_url}x").ok
                server.expire_now()
                assert session.post(f"{server.api_url}x", json={}).ok
            assert session.get(f"{server.api_url}x").status_code == 401


# --- built on urllib3 --------------------------------------------------------------------------


def test_elastic_transport_and_its_bare_pools(brief: TokenServer) -> None:
    node = NodeConfig("http", "127.0.0.1", urlsplit(brief.url).port or 0, path_prefix="/api")
    with closing(elastic_transport.Transport([node])) as transport:
        for each in transport.node_pool.all():
            retrofit(each.pool, brief.api_url, client(brief))
        json_headers = {"content-type": "application/json"}
        for _ in until_tokens_have_expired(brief):
            found = transport.perform_request("GET", "/_search")
            assert found.body["path"] == "/api/_search"
            found = transport.perform_request("POST", "/_doc", body={"a": 1}, headers=json_headers)
            assert found.body["length"] == 7


def test_kubernetes_and_its_pool_manager(brief: TokenServer) -> None:
    """It is large, and needs a new urllib3: "tox -e sdks" has it."""
    kubernetes = pytest.importorskip("kubernetes", reason="it is installed by tox -e sdks")
    configuration = kubernetes.client.Configuration(host=brief.api_url.removesuffix("/"))
    pods = {"items": [{"metadata": {"name": "engine"}}]}
    added = b'{"type": "ADDED", "object": {"metadata": {"name": "engine"}}}\n'
    with kubernetes.client.ApiClient(configuration) as api:
        core = kubernetes.client.CoreV1Api(api)
        retrofit(api.rest_client.pool_manager, brief.api_url, client(brief))
        for _ in until_tokens_have_expired(brief):
            answer = core.create_namespace({"metadata": {}}, _preload_content=False)
            assert answer.json()["method"] == "POST"
            brief.fail_next(200, endpoint="api", body=pods)
            assert core.list_namespaced_pod("ada").items[0].metadata.name == "engine"
        # A watch streams: its answer is not preloaded.
        brief.expire_now()
        brief.fail_next(401, endpoint="api")
        brief.fail_next(200, endpoint="api", body=added)
        watch = kubernetes.watch.Watch()
        for event in watch.stream(core.list_namespaced_pod, "ada", timeout_seconds=1):
            assert event["object"].metadata.name == "engine"
            watch.stop()


# --- python-fitbit -----------------------------------------------------------------------------


@pytest.fixture
def fitbit_server(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> TokenServer:
    """Where python-fitbit finds its API, with the token endpoint on the same host."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setattr(fitbit.Fitbit, "API_ENDPOINT", f"{server.url}/api")
    monkeypatch.setattr(FitbitOauth2Client, "refresh_token_url", server.token_url)
    return server


def grant(server: TokenServer) -> RefreshToken:
    return RefreshToken(
        server.token_url,
        server.issue()["refresh_token"],
        client_id="client",
        client_secret="secret",
    )


def test_fitbit_with_our_renewal_under_it(fitbit_server: TokenServer) -> None:
    saved: list[dict[str, Any]] = []

    def refresh_cb(token: dict[str, Any]) -> None:
        saved.append(token)

    def on_refresh(token: Token) -> None:
        refresh_cb(token.to_dict())

    user = fitbit.Fitbit("client", "secret")
    adapter = TokenAdapter(fitbit_server.url, grant(fitbit_server), on_refresh=on_refresh)
    with installed(adapter):
        assert user.user_profile_get()["path"] == "/api/1/user/-/profile.json"
        fitbit_server.expire_now()
        assert user.body(data={"weight": 70})["method"] == "POST"
    assert fitbit_server.stats.refreshes == 2
    # What its own refresh_cb is given, and once for each renewal.
    assert [token["access_token"] for token in saved][-1] == adapter.keeper.current().access_token
    assert {"access_token", "refresh_token", "token_type", "expires_in", "expires_at"} <= {
        *saved[0]
    }
    assert len(saved) == 2


def test_fitbit_with_tokens_of_its_own_uses_ours_for_the_api(fitbit_server: TokenServer) -> None:
    """Its token request, with Basic and under the host of the API, is left as it is."""
    own, saved = fitbit_server.issue(), []
    user = fitbit.Fitbit(
        "client",
        "secret",
        access_token="stale",
        refresh_token=own["refresh_token"],
        refresh_cb=saved.append,
    )
    with installed(TokenAdapter(fitbit_server.url, grant(fitbit_server))):
        assert user.user_profile_get()
        assert not saved
        assert user.client.refresh_token()["access_token"]
        assert len(saved) == 1
        assert user.sleep()
    assert fitbit_server.stats.refreshes == 2
    assert fitbit_server.stats.refusals == fitbit_server.stats.reuse_detections == 0


FITBIT = """
import json, sys
import fitbit
from tokenadapter import FileStore, RefreshToken, TokenAdapter, installed
url, store, first = sys.argv[1:]
fitbit.Fitbit.API_ENDPOINT = url + "/api"
saved = []
source = RefreshToken(url + "/token", first, client_id="client", client_secret="secret")
adapter = TokenAdapter(
    url, source, store=FileStore(store), on_refresh=lambda token: saved.append(token.to_dict())
)
user = fitbit.Fitbit("client", "secret")
with installed(adapter):
    for _ in sys.stdin:
        print(json.dumps([user.user_profile_get()["path"], len(saved)]), flush=True)
"""


def test_fitbit_shared_by_processes(fitbit_server: TokenServer, tmp_path: Path) -> None:
    first = fitbit_server.issue()["refresh_token"]
    arguments = [fitbit_server.url, str(tmp_path / "token.json"), first]
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", FITBIT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for expiries in (1, 2):
            for program in programs:
                program.stdin.write("\n")
                program.stdin.flush()
            results = [json.loads(program.stdout.readline()) for program in programs]
            assert [path for path, _ in results] == ["/api/1/user/-/profile.json"] * 3
            # Only the process that renewed has called its callback.
            assert sum(saved for _, saved in results) == expiries
            fitbit_server.expire_now()
    finally:
        for program in programs:
            program.communicate(timeout=30)
    assert [program.returncode for program in programs] == [0] * 3
    assert (fitbit_server.stats.refreshes, fitbit_server.stats.reuse_detections) == (2, 0)
