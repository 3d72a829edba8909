"""A request whose host is another spelling of a prefix's is logged once, with both URLs."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tokenadapter import TokenAdapter, TokenPoolManager, installed, retrofit
from tokenadapter.testing import TokenServer


class Own(HTTPAdapter):
    """The session's own adapter: records requests, and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.requested: list[str] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        assert "made-up" not in str(request.headers)
        self.requested.append(str(request.url))
        answer = requests.Response()
        answer.status_code, answer.url = 200, str(request.url)
        return answer


def adapter_for(prefix: str, **settings: Any) -> TokenAdapter:
    return TokenAdapter(prefix, lambda previous: "made-up", allow_http=True, **settings)


@pytest.fixture
def own() -> Own:
    return Own()


@pytest.fixture
def session(own: Own) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("https://", own)
        session.mount("http://", own)
        yield session


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


NEAR = [
    ("http://localhost:5000/", "http://127.0.0.1:5000/x"),
    ("http://127.0.0.1:5000/", "http://localhost:5000/x"),
    ("http://127.0.0.1:5000/", "http://[::1]:5000/x"),
    ("http://127.0.0.1:5000/api", "http://127.0.0.1:5001/api/x"),
    ("http://127.0.0.1:5000/", "http://127.0.0.1/x"),
    ("https://api.example.com/", "https://www.api.example.com/x"),
    ("https://www.example.com/", "https://example.com/x"),
    ("https://api.example.com/v1", "http://api.example.com/v1/x"),
    ("http://api.example.com/v1", "https://api.example.com/v1/x"),
    ("https://api.example.com/v1", "https://api.example.com:8443/v1/x"),
    ("https://api.example.com:8443/v1", "https://api.example.com/v1/x"),
]


@pytest.mark.parametrize(("prefix", "url"), NEAR)
def test_a_near_miss_is_logged_once_with_both_urls(
    prefix: str, url: str, session: requests.Session, own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    adapter_for(prefix).mount(session)
    for _ in range(3):
        session.get(f"{url}?key=s3cret")
    (logged,) = warnings(caplog)
    why = f"is outside the prefix {prefix.rstrip('/')}; sent without a token (logged once)"
    assert logged == f"{url} {why} [MemoryStore()]"
    assert len(own.requested) == 3


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("https://api.example.com/", "https://id.example.com/x"),
        ("https://api.example.com/", "https://api.example.com.evil.com/x"),
        ("https://api.example.com/", "https://api.example.com:pw@evil.com/x"),
        ("https://api.example.com/v1", "https://api.example.com/v2"),
        ("https://api.example.com:8443/v1", "https://api.example.com:8443/v2"),
        ("http://localhost:5000/", "http://192.0.2.1:5000/x"),
    ],
)
def test_another_host_or_path_is_no_near_miss(
    prefix: str, url: str, session: requests.Session, own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    adapter_for(prefix).mount(session)
    session.get(url)
    assert warnings(caplog) == []
    assert len(own.requested) == 1


def test_a_spelling_with_its_own_adapter_is_no_near_miss(
    session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    for port in (5000, 5001):
        adapter_for(f"http://127.0.0.1:{port}/api").mount(session)
    session.get("http://127.0.0.1:5001/public")
    assert warnings(caplog) == []


def test_a_url_of_the_source_is_no_near_miss(
    session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    from tokenadapter import ClientCredentials

    grant = ClientCredentials("http://127.0.0.1:5001/token", client_id="a", client_secret="b")
    TokenAdapter("http://127.0.0.1:5000/", grant).mount(session)
    session.post("http://127.0.0.1:5001/token")
    assert warnings(caplog) == []


def test_an_adapter_mounted_later_sends_the_request(session: requests.Session, own: Own) -> None:
    adapter_for("https://api.example.com/").mount(session)
    later, narrow = Own(), Own()
    session.mount("https://", later)
    session.mount("https://www.api.example.com/v2/", narrow)
    session.get("https://www.api.example.com/v1/")
    session.get("https://www.api.example.com/v2/")
    assert (len(own.requested), len(later.requested), len(narrow.requested)) == (0, 1, 1)


def test_the_adapter_for_signed_requests_comes_first(session: requests.Session) -> None:
    """So it is not delayed by other spellings."""
    adapter = adapter_for("https://api.example.com/v1").mount(session)
    assert next(iter(session.adapters.values())) is adapter


def test_an_undone_retrofit_leaves_no_lookout(session: requests.Session) -> None:
    before = list(session.adapters.items())
    with (
        retrofit(session, "https://api.example.com/", lambda previous: "x"),
        retrofit(session, "https://other.example.com/", lambda previous: "x"),
    ):
        assert len(session.adapters) > len(before) + 4
    assert list(session.adapters.items()) == before


def source(previous: object) -> str:
    return "made-up"


def test_a_session_can_still_be_pickled(caplog: pytest.LogCaptureFixture) -> None:
    with TokenServer() as server, requests.Session() as session:
        TokenAdapter(server.url.replace("127.0.0.1", "localhost"), source).mount(session)
        with pickle.loads(pickle.dumps(session)) as twin:
            assert twin.get(f"{server.public_url}x").ok
    assert len(warnings(caplog)) == 1


def test_an_adapter_for_another_spelling_shows_the_settings_of_the_sessions_own(
    session: requests.Session, own: Own
) -> None:
    own.max_retries = own.max_retries.new(total=7)
    adapter_for("https://api.example.com/").mount(session)
    found: Any = session.get_adapter("https://www.api.example.com/")
    assert found.max_retries.total == 7
    assert copy.copy(found) == found
    assert (
        repr(found)
        == "<Lookout at https://www.api.example.com/ of Prefix('https://api.example.com')>"
    )


@pytest.mark.parametrize(("prefix", "url"), NEAR)
def test_a_near_miss_of_an_installed_adapter_is_logged(
    prefix: str, url: str, session: requests.Session, own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    with installed(adapter_for(prefix)):
        for _ in range(3):
            session.get(url)
    (logged,) = warnings(caplog)
    assert logged.startswith(f"{url} is outside the prefix {prefix.rstrip('/')};")
    assert len(own.requested) == 3


def test_a_request_of_a_token_function_is_no_near_miss(
    session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    def log_in(previous: object) -> str:
        return str(session.get("https://www.example.com/login").status_code)

    adapter = TokenAdapter("https://example.com/", log_in)
    with installed(adapter):
        assert adapter.keeper.current().access_token == "200"
    assert warnings(caplog) == []


def test_an_installed_adapter_signs_beside_an_adapter_for_another_spelling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with TokenServer() as server, requests.Session() as session:
        TokenAdapter(server.url.replace("127.0.0.1", "localhost"), source).mount(session)
        with installed(TokenAdapter(server.api_url, source)):
            session.get(f"{server.api_url}x")
        assert server.requests[-1].headers["authorization"] == "Bearer made-up"
    assert not any("outside" in logged for logged in warnings(caplog))


def test_a_near_miss_through_a_pool_manager_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with TokenServer() as server:
        prefix = server.api_url.replace("127.0.0.1", "localhost")
        with TokenPoolManager(prefix, source) as http:
            for _ in range(3):
                http.request("GET", f"{server.api_url}x")
        with urllib3.PoolManager() as plain, retrofit(plain, prefix, source):
            plain.request("GET", f"{server.api_url}x")
    logged = warnings(caplog)
    assert len(logged) == 2
    assert all(server.api_url[:-1] in one and prefix[:-1] in one for one in logged)


def test_tokenadapter_run_logs_a_near_miss(tmp_path: Any) -> None:
    import subprocess

    from profiles import billing, write

    with TokenServer() as server:
        text = billing(server, tmp_path).replace(
            server.api_url, f"http://localhost:{port(server)}/"
        )
        config = write(tmp_path, text)
        program = tmp_path / "report.py"
        program.write_text(f"import requests\nrequests.get('{server.api_url}x')\n")
        done = subprocess.run(
            [sys.executable, "-m", "tokenadapter", "run", "--config", str(config), "--", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (
        f"{server.api_url}x is outside the prefix http://localhost:{port(server)};" in done.stderr
    )


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("other/x", {}, 1),
    ("other/x", {"headers": {"Authorization": "Bearer mine"}}, 0),
    ("other/x", {"headers": {"X-Key": "mine"}}, 1),
]


@pytest.mark.parametrize("way", ["mounted", "installed", "urllib3"])
@pytest.mark.parametrize(("path", "how", "count"), REFUSED)
def test_a_refused_request_beside_the_path_of_the_prefix_is_logged_once(
    way: str, path: str, how: dict[str, Any], count: int, caplog: pytest.LogCaptureFixture
) -> None:
    with TokenServer() as server, requests.Session() as session:
        server.fail_next(401, endpoint="public", count=None)
        adapter, url = TokenAdapter(f"{server.api_url}v1", source), f"{server.public_url}{path}"
        for _ in range(3):
            if way == "mounted":
                adapter.mount(session)
                session.get(url, **how)
            elif way == "installed":
                with installed(adapter):
                    session.get(url, **how)
            else:
                with urllib3.PoolManager() as pools:
                    retrofit(pools, adapter.prefix, adapter.keeper)
                    pools.request("GET", url, **how)
        logged = warnings(caplog)
        assert len(logged) == count
        assert all(f"{url} is outside the prefix {adapter.prefix}" in one for one in logged)


@pytest.mark.parametrize("way", ["mounted", "installed"])
def test_a_request_beside_the_path_is_not_logged_if_it_is_meant_to_get_no_token(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TokenServer() as server, requests.Session() as session:
        adapter = TokenAdapter(f"{server.api_url}v1", source, header="X-Key", scheme="")
        if way == "mounted":
            adapter.mount(session)
        with installed(*([adapter] if way == "installed" else [])):
            assert session.get(f"{server.public_url}x").ok
            server.fail_next(401, endpoint="public", count=2)
            for headers in ({"Authorization": "Bearer mine"}, {"X-Key": "mine"}):
                assert session.get(f"{server.public_url}x", headers=headers).status_code == 401
            challenge = {"WWW-Authenticate": 'Digest realm="x", nonce="y"'}
            server.fail_next(401, endpoint="public", headers=challenge)
            assert session.get(f"{server.public_url}x").status_code == 401
    assert warnings(caplog) == []


def port(server: TokenServer) -> str:
    return server.url.rpartition(":")[2]
