"""A login on another device: the program shows a code, and polls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tokenadapter import (
    FileStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenKeeper,
    UnsafeTarget,
    login,
)
from tokenadapter.logins import device
from tokenadapter.testing import Browser, TokenServer


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(device_interval=0.05, device_lifetime=20) as server:
        yield server


@pytest.fixture
def log_in(source: RefreshToken, store: FileStore, server: TokenServer) -> Callable[..., Token]:
    def call(show: Callable[[str], object] = lambda text: None, timeout: float = 30) -> Token:
        return login(
            source,
            store,
            flow="device",
            device_authorization_url=server.device_authorization_url,
            show=show,
            timeout=timeout,
        )

    return call


def test_the_person_is_shown_the_code_the_address_and_the_time(
    log_in: Callable[..., Token], server: TokenServer, source: RefreshToken, store: FileStore
) -> None:
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        link = next(line for line in text.splitlines() if "user_code=" in line)
        Browser().visit(link.strip())

    token = log_in(show)
    (text,) = shown
    assert f"    {server.url}/device\n" in text
    assert "The code is valid for 20 seconds" in text
    assert token.scope == "read"
    assert TokenKeeper(source, store).current() == token


def test_the_program_polls_until_the_approval(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    def approve() -> None:
        server.wait_for(lambda stats: stats.token_requests >= 3)
        server.approve_device()

    person = threading.Thread(target=approve)
    person.start()
    assert log_in().refresh_token
    person.join()
    assert server.stats.refusals >= 2


def test_the_program_polls_more_slowly_after_slow_down(
    log_in: Callable[..., Token], server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_SLOWER", 0.4)
    server.fail_next(400, error="slow_down")
    server.fail_next(400, error="authorization_pending")
    log_in(lambda text: server.approve_device())
    first, second, third = (r.time for r in server.requests if r.path == "/token")
    assert second - first >= 0.4
    assert third - second >= 0.4


def test_slow_down_adds_the_five_seconds_of_the_rfc() -> None:
    assert device._SLOWER == 5.0


@pytest.mark.parametrize("status", [200, 400])
def test_a_pending_answer_is_recognised_in_a_200_too(
    log_in: Callable[..., Token], server: TokenServer, status: int
) -> None:
    server.fail_next(status, body={"error": "authorization_pending"}, count=2)
    assert log_in(lambda text: server.approve_device()).refresh_token


def test_an_outage_does_not_end_the_login(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    server.fail_next(503)
    assert log_in(lambda text: server.approve_device()).refresh_token
    assert server.stats.token_requests == 2


def test_an_outage_that_lasts_is_named_at_the_end(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    with server.outage(), pytest.raises(RefreshTemporarilyFailed, match="503"):
        log_in(timeout=0.3)


def test_a_person_who_denies_ends_the_login(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    with pytest.raises(ReauthRequired, match="not approved") as caught:
        log_in(lambda text: server.deny_device())
    assert caught.value.reason == "login_failed"
    assert caught.value.error == "access_denied"


@pytest.mark.parametrize("status", [200, 400])
def test_an_expired_code_ends_the_login(
    log_in: Callable[..., Token], server: TokenServer, status: int
) -> None:
    server.fail_next(status, body={"error": "expired_token"})
    with pytest.raises(ReauthRequired, match="expired_token"):
        log_in()
    assert server.stats.token_requests == 1


def test_another_error_ends_the_login_at_once(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    server.fail_next(401, error="invalid_client")
    with pytest.raises(RefreshConfigError, match="invalid_client"):
        log_in()
    assert server.stats.token_requests == 1


def test_the_person_is_reminded_before_the_code_expires(
    log_in: Callable[..., Token], server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_REMINDER", 0.2)
    shown: list[str] = []
    with pytest.raises(ReauthRequired):
        log_in(shown.append, timeout=0.6)
    assert shown[1:] == ["The code is valid for one more minute."]


def test_polling_ends_with_the_time(log_in: Callable[..., Token], server: TokenServer) -> None:
    with pytest.raises(ReauthRequired, match="no approval within"):
        log_in(timeout=0.3)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"device_code": "d", "user_code": "u"},
        {"device_code": "d", "user_code": "u", "verification_uri": "javascript:alert(1)"},
        {"device_code": "d", "user_code": "u", "verification_uri": "file:///etc/passwd"},
        {"device_code": "d", "user_code": "u", "verification_uri": "https://["},
    ],
)
def test_an_answer_without_code_or_address_is_a_configuration_error(
    log_in: Callable[..., Token], server: TokenServer, body: dict[str, str]
) -> None:
    server.fail_next(200, body=body, endpoint="device_authorization")
    with pytest.raises(RefreshConfigError, match="did not answer with a device code"):
        log_in()


def test_texts_of_the_server_cannot_control_the_terminal(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    shown: list[str] = []
    body = {
        "device_code": "d",
        "user_code": "\x1b[2J",
        "verification_uri": "https://x/\x1b[2J",
        "interval": 0.05,
    }
    server.fail_next(200, body=body, endpoint="device_authorization")
    server.fail_next(400, error="access_denied")
    with pytest.raises(ReauthRequired):
        log_in(shown.append, timeout=10)
    assert "\x1b" not in shown[0]


def test_errors_of_the_device_endpoint_are_explained(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    server.fail_next(400, error="unauthorized_client", endpoint="device_authorization")
    with pytest.raises(RefreshConfigError, match="unauthorized_client"):
        log_in()
    server.fail_next(reset=True, endpoint="device_authorization")
    with pytest.raises(RefreshTemporarilyFailed):
        log_in()


def test_a_plain_http_device_endpoint_elsewhere_is_refused(
    source: RefreshToken, store: FileStore
) -> None:
    with pytest.raises(UnsafeTarget):
        login(source, store, device_authorization_url="http://id.example.com/device")
