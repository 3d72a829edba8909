"""A login in a browser on this machine: the answer comes to a port, which others can reach too."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

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
from tokenadapter.testing import Browser, TokenServer
from unit.stores.servers import free_port


class Login:
    """A login in a thread, whose browser is this test."""

    def __init__(self, source: RefreshToken, store: FileStore, url: str, **options: object) -> None:
        self._urls: Queue[str] = Queue()
        self.result: Token | Exception | None = None
        self._options = {
            "authorization_url": url,
            "browser": self._urls.put,
            "show": lambda text: None,
            "timeout": 30,
            **options,
        }
        self._thread = threading.Thread(target=self._run, args=[source, store])
        self._thread.start()
        self.url = self._urls.get(timeout=10)
        self.asked = dict(parse_qsl(urlsplit(self.url).query))
        self.redirect_uri = self.asked["redirect_uri"]

    def _run(self, source: RefreshToken, store: FileStore) -> None:
        try:
            self.result = login(source, store, **self._options)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001
            self.result = error

    def answer(self, **fields: str) -> requests.Response:
        """What the port says to an answer with *fields*."""
        return requests.get(self.redirect_uri, fields, timeout=30)

    def approved(self) -> str:
        """Where the server sends the browser after the approval."""
        page = requests.get(f"{self.url}&decision=approve", allow_redirects=False, timeout=10)
        return page.headers["Location"]

    def end(self) -> Token | Exception | None:
        self._thread.join(30)
        return self.result


@pytest.fixture
def begin(source: RefreshToken, store: FileStore, server: TokenServer) -> Callable[..., Login]:
    return lambda **options: Login(source, store, server.authorization_url, **options)


def test_the_token_of_the_code_is_stored(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    browser = Browser()
    token = login(
        source,
        store,
        authorization_url=server.authorization_url,
        browser=browser,
        show=lambda text: None,
        iss=server.url,
    )
    browser.join()
    assert token.refresh_token is not None
    assert token.scope == "read"
    assert TokenKeeper(source, store).current() == token
    assert (server.stats.token_requests, server.stats.renewals) == (1, 1)
    assert browser.pages[0][0] == 200
    assert "You are logged in" in browser.pages[0][1]


def test_the_last_page_says_what_to_do_and_repeats_nothing_of_its_address(
    begin: Callable[..., Login],
) -> None:
    login = begin()
    address = login.approved()
    page = requests.get(address, timeout=30)
    assert isinstance(login.end(), Token)
    assert "Close this window" in page.text
    assert page.text.rstrip().endswith("</html>")
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    values = dict(parse_qsl(urlsplit(address).query)).values()
    assert not [value for value in values if value in page.text]
    # It also leaves the history of the browser.
    assert "history.replaceState" in page.text


def test_the_request_has_pkce_and_no_secret(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin()
    assert login.asked["code_challenge_method"] == "S256"
    assert login.asked["scope"] == "read"
    assert "secret" not in login.url
    requests.get(login.approved(), timeout=30)
    login.end()
    form = server.requests[-1].form
    assert form["grant_type"] == "authorization_code"
    assert len(form["code_verifier"]) >= 43
    assert form["redirect_uri"] == login.redirect_uri


def test_the_query_of_the_authorization_url_is_kept(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    login = Login(source, store, f"{server.authorization_url}?access_type=offline")
    assert login.asked["access_type"] == "offline"
    requests.get(login.approved(), timeout=30)
    assert isinstance(login.end(), Token)


def test_a_code_of_another_login_is_not_accepted(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin()
    injected = login.answer(code="stolen", state="another", iss=server.url)
    without_state = login.answer(code="stolen")
    assert (injected.status_code, without_state.status_code) == (400, 400)
    assert "does not belong to the login" in injected.text
    assert server.stats.token_requests == 0
    # The login itself goes on.
    assert requests.get(login.approved(), timeout=30).ok
    assert isinstance(login.end(), Token)


def test_a_code_that_was_issued_for_another_verifier_is_refused(
    begin: Callable[..., Login], source: RefreshToken, tmp_path: Path, server: TokenServer
) -> None:
    login = begin()
    other = Login(source, FileStore(tmp_path / "other.json"), server.authorization_url)
    stolen = dict(parse_qsl(urlsplit(other.approved()).query))["code"]
    page = login.answer(code=stolen, state=login.asked["state"])
    assert page.status_code == 400
    error = login.end()
    assert isinstance(error, ReauthRequired)
    assert "Start the login again" in str(error)
    other.answer(error="access_denied", state=other.asked["state"])
    other.end()


def test_the_second_answer_is_ignored(begin: Callable[..., Login], server: TokenServer) -> None:
    login = begin()
    address = login.approved()
    with server.hold() as hold:
        first = threading.Thread(target=requests.get, args=[address], kwargs={"timeout": 30})
        first.start()
        assert hold.arrived.wait(10)
        second = requests.get(address, timeout=10)
    first.join()
    assert second.status_code == 409
    assert isinstance(login.end(), Token)
    assert server.stats.token_requests == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("access_denied", ReauthRequired),
        ("invalid_scope", RefreshConfigError),
        ("temporarily_unavailable", RefreshTemporarilyFailed),
    ],
)
def test_an_error_answer_ends_the_login(
    begin: Callable[..., Login], server: TokenServer, code: str, kind: type[Exception]
) -> None:
    login = begin()
    page = login.answer(error=code, error_description="<b>no</b>", state=login.asked["state"])
    error = login.end()
    assert isinstance(error, kind)
    assert error.error == code  # type: ignore[attr-defined]
    assert page.status_code == 400
    assert "<b>no</b>" not in page.text
    assert server.stats.token_requests == 0


def test_a_user_who_denies_ends_the_login(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    browser = Browser(approve=False)
    with pytest.raises(ReauthRequired, match="not approved") as caught:
        login(
            source,
            store,
            authorization_url=server.authorization_url,
            browser=browser,
            show=lambda text: None,
        )
    browser.join()
    assert caught.value.reason == "login_failed"
    assert "The login failed" in browser.pages[0][1]


def test_an_answer_of_another_issuer_is_refused_before_its_code_is_sent(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin(iss=server.url)
    login.answer(code="x", state=login.asked["state"], iss=f"{server.url}/")
    error = login.end()
    assert isinstance(error, RefreshConfigError)
    assert "names the issuer" in str(error)
    assert server.stats.token_requests == 0


def test_an_answer_without_the_issuer_that_is_expected_is_refused(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin(iss=server.url)
    login.answer(code="x", state=login.asked["state"])
    assert isinstance(login.end(), RefreshConfigError)
    assert server.stats.token_requests == 0


def test_an_answer_without_a_code_sends_nothing(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin()
    login.answer(state=login.asked["state"])
    assert isinstance(login.end(), RefreshConfigError)
    assert server.stats.token_requests == 0


def test_a_repeated_parameter_makes_the_answer_void(begin: Callable[..., Login]) -> None:
    login = begin()
    address = login.approved()
    assert requests.get(f"{address}&code=another", timeout=10).status_code == 400
    assert requests.get(address, timeout=10).ok
    assert isinstance(login.end(), Token)


def test_foreign_requests_to_the_port_change_nothing(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin(redirect_uri="http://127.0.0.1/callback")
    address = login.approved()
    base = login.redirect_uri.removesuffix("/callback")
    assert requests.get(f"{base}/favicon.ico", timeout=10).status_code == 404
    assert requests.post(address, timeout=10).status_code == 501
    # A page that reaches the port by a name of its own (DNS rebinding).
    rebound = requests.get(address, headers={"Host": "evil.example"}, timeout=10)
    assert rebound.status_code == 404
    assert server.stats.token_requests == 0
    assert requests.get(address, timeout=10).ok
    assert isinstance(login.end(), Token)


def test_a_connection_that_sends_nothing_does_not_keep_the_answer_waiting(
    begin: Callable[..., Login],
) -> None:
    import socket

    login = begin()
    parts = urlsplit(login.redirect_uri)
    with socket.create_connection((parts.hostname, parts.port)):
        assert requests.get(login.approved(), timeout=4).ok
    assert isinstance(login.end(), Token)


def test_a_closed_tab_ends_the_login_after_the_timeout(
    begin: Callable[..., Login], server: TokenServer
) -> None:
    login = begin(timeout=0.3)
    error = login.end()
    assert isinstance(error, ReauthRequired)
    assert "No answer came from the browser" in str(error)
    with pytest.raises(requests.ConnectionError):
        requests.get(login.redirect_uri, timeout=10)


def test_the_port_of_the_redirect_uri_is_used(begin: Callable[..., Login]) -> None:
    port = free_port()
    for _ in range(2):  # the second one at once, whatever the kernel remembers of the first
        login = begin(redirect_uri=f"http://localhost:{port}/callback")
        assert login.redirect_uri == f"http://localhost:{port}/callback"
        assert requests.get(login.approved(), timeout=10).ok
        assert isinstance(login.end(), Token)


def test_a_port_that_is_in_use_is_an_error(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    port = urlsplit(server.url).port
    with pytest.raises(RefreshConfigError, match="cannot listen on"):
        login(
            source,
            store,
            flow="browser",
            authorization_url=server.authorization_url,
            redirect_uri=f"http://127.0.0.1:{port}/",
        )


def test_a_browser_that_cannot_be_opened_leaves_the_address_to_the_person(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    shown: list[str] = []

    def broken(url: str) -> None:
        raise OSError("no browser")

    def show(text: str) -> None:
        shown.append(text)
        Browser()(next(line for line in text.splitlines() if line.startswith("http")))

    url = server.authorization_url
    assert login(source, store, authorization_url=url, browser=broken, show=show).refresh_token
    assert "If it does not open, open this address" in shown[0]


def test_the_port_may_be_one_of_ipv6(begin: Callable[..., Login]) -> None:
    import socket

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    login = begin(redirect_uri="http://[::1]/callback")
    assert login.redirect_uri.startswith("http://[::1]:")
    assert requests.get(login.approved(), timeout=10).ok
    assert isinstance(login.end(), Token)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "calc.exe", "https://"]
)
def test_only_web_addresses_are_opened(source: RefreshToken, store: FileStore, url: str) -> None:
    opened: list[str] = []
    with pytest.raises(ValueError, match="authorization_url must begin with https://"):
        login(source, store, authorization_url=url, browser=opened.append)
    assert opened == []


def test_a_plain_http_authorization_endpoint_elsewhere_is_refused(
    source: RefreshToken, store: FileStore
) -> None:
    opened: list[str] = []
    with pytest.raises(UnsafeTarget):
        login(source, store, authorization_url="http://id.example.com/auth", browser=opened.append)
    assert opened == []


@pytest.mark.parametrize("uri", ["https://example.com/done", "http://192.0.2.1/", "urn:oob"])
def test_a_browser_returns_to_loopback_only(
    source: RefreshToken, store: FileStore, server: TokenServer, uri: str
) -> None:
    with pytest.raises(ValueError, match="redirect_uri must be"):
        login(
            source,
            store,
            flow="browser",
            authorization_url=server.authorization_url,
            redirect_uri=uri,
        )


PROGRAM = """
import sys
from tokenadapter import RefreshToken, login

source = RefreshToken(sys.argv[1], client_id="client", client_secret="secret")
login(source, sys.argv[3], flow="browser", authorization_url=sys.argv[2],
      browser=lambda url: print("open", flush=True))
"""


def test_a_program_that_ends_after_the_login_sends_the_browser_the_whole_page(
    server: TokenServer, tmp_path: Path
) -> None:
    program = PROGRAM.replace('print("open"', "print(url") + "import os\nos._exit(0)\n"
    arguments = [server.token_url, server.authorization_url, str(tmp_path / "token.json")]
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        status, text = Browser().visit(process.stdout.readline().strip())
        assert status == 200
        assert text.rstrip().endswith("</html>")
        process.communicate(timeout=10)
        assert process.returncode == 0


def test_ctrl_c_ends_the_login_at_once(server: TokenServer, tmp_path: Path) -> None:
    arguments = [server.token_url, server.authorization_url, str(tmp_path / "token.json")]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=10)
    assert process.returncode != 0
    assert output.rstrip().endswith("KeyboardInterrupt")
