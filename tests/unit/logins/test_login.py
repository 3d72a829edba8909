"""The choice of a flow, early refusals, and one login for all processes that share a store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tokenadapter
from tokenadapter import (
    ClientCredentials,
    FileStore,
    LockTimeout,
    MemoryStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshToken,
    Token,
    TokenKeeper,
    login,
)
from tokenadapter.logins.login import _chosen
from tokenadapter.stores.lockfile import LockFile
from tokenadapter.testing import Browser, TokenServer

BOTH = {"authorization_url": "https://x/a", "device_authorization_url": "https://x/d"}


@pytest.mark.parametrize(
    ("environment", "urls", "flow"),
    [
        ({"DISPLAY": ":0"}, BOTH, "browser"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, BOTH, "browser"),
        ({"BROWSER": "lynx"}, BOTH, "browser"),
        ({}, BOTH, "device"),
        ({}, {"authorization_url": "https://x/a"}, "paste"),
        ({"DISPLAY": ":0"}, {"device_authorization_url": "https://x/d"}, "device"),
    ],
)
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="they always have a display")
def test_the_flow_suits_the_machine_and_the_server(
    environment: dict[str, str], urls: dict[str, str], flow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _chosen(None, urls, has_browser=False) == flow


def test_a_login_needs_an_address(source: RefreshToken) -> None:
    with pytest.raises(
        ValueError, match=r"needs one of them\. Pass issuer if the server publishes"
    ):
        login(source)
    with pytest.raises(ValueError, match="device_authorization_url is missing"):
        login(source, flow="device", authorization_url="https://id.example.com/")
    with pytest.raises(ValueError, match="flow must be one of"):
        login(source, flow="fax")
    with pytest.raises(ValueError, match="timeout must be"):
        login(source, authorization_url="https://id.example.com/", timeout=0)


def test_a_source_that_cannot_renew_the_token_is_refused(server: TokenServer) -> None:
    source = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    for wrong in (source, lambda previous: None):
        with pytest.raises(TypeError, match=r"no user logs in for .*: to log in, use RefreshToken"):
            login(wrong, authorization_url=server.authorization_url)  # type: ignore[arg-type]


def test_a_keeper_logs_in_for_its_own_store(source: RefreshToken, server: TokenServer) -> None:
    keeper, browser = TokenKeeper(source, MemoryStore()), Browser()
    with pytest.raises(TypeError, match="store is given twice"):
        login(keeper, MemoryStore())
    login(
        keeper,
        authorization_url=server.authorization_url,
        browser=browser,
        show=lambda text: None,
    )
    browser.join()
    assert keeper.current().refresh_token


def test_a_login_revives_a_grant_that_was_refused(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    def log_in() -> None:
        browser = Browser()
        login(
            source,
            store,
            authorization_url=server.authorization_url,
            browser=browser,
            show=lambda text: None,
        )
        browser.join()

    keeper = TokenKeeper(source, store)
    with pytest.raises(ReauthRequired, match=r"Log in with tokenadapter\.login\(\)"):
        keeper.current()
    log_in()
    keeper.current()
    server.revoke_all()
    with pytest.raises(ReauthRequired, match=r"tokenadapter\.login\(\)"):
        keeper.refresh()
    log_in()
    assert keeper.refresh().refresh_token


def test_a_store_that_cannot_take_the_token_is_an_error_before_the_login(
    store: FileStore, server: TokenServer
) -> None:
    url, opened = server.authorization_url, Browser()
    ada, bob = (
        RefreshToken(server.token_url, client_id="client", client_secret="secret", account=name)
        for name in ("ada", "bob")
    )
    login(ada, store, authorization_url=url, browser=opened, show=lambda text: None)
    opened.join()
    asked: list[str] = []
    with pytest.raises(RefreshConfigError, match="holds the token of"):
        login(bob, store, authorization_url=url, browser=asked.append, show=asked.append)
    assert asked == []


def test_the_lock_of_the_slot_is_free_while_a_person_types(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    taken: list[bool] = []

    def open_url(url: str) -> None:
        lock = store.lock()
        taken.append(lock.acquire(10.0))
        lock.release()
        Browser()(url)

    login(
        source,
        store,
        authorization_url=server.authorization_url,
        browser=open_url,
        show=lambda text: None,
    )
    assert taken == [True]


def test_a_login_waits_for_another_one_no_longer_than_its_timeout(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    other = LockFile(f"{store.path}.login", store)
    assert other.acquire(0)
    shown: list[str] = []
    try:
        with pytest.raises(LockTimeout, match="has been under way"):
            login(
                source,
                store,
                authorization_url=server.authorization_url,
                show=shown.append,
                timeout=0.2,
            )
    finally:
        other.release()
    assert shown[0].startswith("Another process is logging in for FileStore(")


def test_a_login_that_comes_to_nothing_ends_those_that_wait_for_it(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    other, opened = LockFile(f"{store.path}.login", store), []
    assert other.acquire(0)
    with pytest.raises(ReauthRequired, match="ended without a token") as caught:
        login(
            source,
            store,
            authorization_url=server.authorization_url,
            browser=opened.append,
            show=lambda text: other.release(),
        )
    assert caught.value.reason == "login_failed"
    assert opened == []


@pytest.mark.parametrize(("age", "is_taken"), [(2.0, True), (60.0, False)])
def test_a_token_from_the_moment_before_the_wait_counts_as_that_of_the_other_login(
    source: RefreshToken, store: FileStore, server: TokenServer, age: float, is_taken: bool
) -> None:
    answer = {**server.issue(), "issued_at": time.time() - age, "expires_at": time.time() + 600}
    stored = TokenKeeper(source, store).adopt(answer)
    other = LockFile(f"{store.path}.login", store)
    assert other.acquire(0)

    def wait() -> Token:
        return login(
            source,
            store,
            authorization_url=server.authorization_url,
            show=lambda text: other.release(),
        )

    if is_taken:
        assert wait() == stored
    else:
        with pytest.raises(ReauthRequired, match="ended without a token"):
            wait()


PROGRAM = """
import json, sys, time
from tokenadapter import RefreshToken, login

token_url, authorization_url, path = sys.argv[1:]
source = RefreshToken(token_url, client_id="client", client_secret="secret")
def say(**what):
    print(json.dumps(what), flush=True)
token = login(source, path, authorization_url=authorization_url,
              browser=lambda url: say(url=url),
              show=lambda text: say(waits="Another process" in text))
say(token=token.fingerprint, at=time.monotonic())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="time.monotonic() is each process's own")
def test_eight_processes_that_log_in_at_once_get_the_token_of_one_login(
    server: TokenServer, tmp_path: Path
) -> None:
    arguments = [server.token_url, server.authorization_url, str(tmp_path / "token.json")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]

    def line(process: subprocess.Popen[str]) -> dict[str, object]:
        assert process.stdout is not None
        read: dict[str, object] = json.loads(process.stdout.readline())
        return read

    try:
        waits = [line(process)["waits"] for process in processes]
        assert sorted(waits) == [False] + 7 * [True]  # type: ignore[type-var]
        url = line(processes[waits.index(False)])["url"]
        Browser().visit(str(url))
        answered = time.monotonic()
        ends = [line(process) for process in processes]
        assert [process.wait(10) for process in processes] == 8 * [0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert len({end["token"] for end in ends}) == 1
    assert server.stats.token_requests == 1
    assert max(float(str(end["at"])) for end in ends) - answered < 1.0


def test_the_function_is_public_and_loaded_late() -> None:
    assert tokenadapter.login is login
    program = "import sys, tokenadapter; print('tokenadapter.logins' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"


# --- endpoints from metadata -----------------------------------------------------------------


def test_an_issuer_tells_where_to_log_in(server: TokenServer) -> None:
    source = RefreshToken(issuer=server.issuer, client_id="client", client_secret="secret")
    store = MemoryStore("issuer-browser")
    token = login(source, store, flow="browser", browser=Browser(), show=lambda text: None)
    assert token.refresh_token is not None
    assert TokenKeeper(source, store).current() == token


def test_an_issuer_tells_where_a_device_logs_in(server: TokenServer) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    source = RefreshToken(issuer=server.issuer, client_id="client", client_secret="secret")
    store = MemoryStore("issuer-device")
    approved = []

    def show(text: str) -> None:
        if not approved:
            approved.append(text)
            server.approve_device()

    assert login(source, store, flow="device", show=show).refresh_token is not None
    assert not any("authorization" in request.headers for request in server.requests)


def test_an_issuer_that_supports_no_way_of_the_client_is_an_error(server: TokenServer) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    source = RefreshToken(issuer=server.issuer, client_id="client", client_secret="secret")
    with pytest.raises(RefreshConfigError, match="accepts no client secret in a supported way"):
        login(source, flow="device")
    assert server.stats.token_requests == 0
