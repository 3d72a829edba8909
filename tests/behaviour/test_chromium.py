"""Logins in Chromium, if the machine has the browser and its driver."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from profiles import billing, write
from unit.cli.conftest import start
from unit.logins.test_provider import Provider, provider  # noqa: F401 - a fixture

from tokenadapter import FileStore
from tokenadapter.testing import TokenServer

webdriver = pytest.importorskip("selenium.webdriver", reason="tox -e browser installs it")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="this machine has no Chromium, or no driver for it"
)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,500",
    # The style of a consent page may be elsewhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Any]:
    """A new browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.accept_insecure_certs = True
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(argument)
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def profile(server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile ``billing`` of a user at *server* who has not logged in."""
    text = billing(server, tmp_path, "refresh_token")
    path = write(tmp_path, f'{text}authorization_url = "{server.authorization_url}"\n')
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(path))


class Login:
    """The command ``tokenadapter login``, which has shown its address."""

    def __init__(self, process: Popen[str]) -> None:
        assert process.stderr is not None
        self.process = process
        self.url = ""
        while not self.url.startswith("http"):
            line = process.stderr.readline()
            assert line, "the command has ended"
            self.url = line.strip()
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}
        self.redirect_uri: str = asked["redirect_uri"]
        self.secrets = [asked["state"], asked["code_challenge"]]

    def end(self) -> tuple[int, str]:
        """The exit code, and what the command said last."""
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def begun(*options: str) -> Iterator[Login]:
    # The program that it opens as a browser does nothing: the tests open the address.
    process = start("login", "billing", *options, env={"BROWSER": "true"})
    try:
        yield Login(process)
    finally:
        process.kill()
        process.communicate()


def until(tab: Any, reached: Callable[[Any], object]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(tab, 20, poll_frequency=0.05).until(reached)


def click(tab: Any, words: str) -> None:
    tab.find_element(
        "xpath", f"//*[self::a or self::input][.='{words}' or @value='{words}']"
    ).click()


def check_last_page(tab: Any, login: Login, title: str, tmp_path: Path) -> None:
    """The page says what to do, and neither it nor the browser keeps a secret of the login."""
    until(tab, lambda tab: tab.title == title)
    tab.save_screenshot(str(tmp_path / "last-page.png"))
    text = tab.find_element("tag name", "body").text
    assert title in text
    assert "Close this window and go back to the program." in text
    assert tab.current_url == login.redirect_uri
    history = tab.execute_cdp_cmd("Page.getNavigationHistory", {})["entries"]
    ends = {one["url"] for one in history if one["url"].startswith(login.redirect_uri)}
    assert ends == {login.redirect_uri}
    for secret in (*login.secrets, "code=", "state="):
        assert secret not in tab.page_source


def test_a_user_approves(tab: Any, profile: None, server: TokenServer, tmp_path: Path) -> None:
    with begun() as login:
        tab.get(login.url)
        click(tab, "approve")
        check_last_page(tab, login, "You are logged in", tmp_path)
        code, said = login.end()
    assert (code, said.strip()) == (0, "tokenadapter: billing: logged in, valid for 59 min")
    assert start("token", "billing").communicate(timeout=60)[0].startswith("access-")
    assert server.stats.token_requests == 1


def test_a_user_denies(tab: Any, profile: None, server: TokenServer, tmp_path: Path) -> None:
    with begun() as login:
        tab.get(login.url)
        click(tab, "deny")
        check_last_page(tab, login, "The login failed", tmp_path)
        code, said = login.end()
    assert code == 4
    assert "The login was not approved (access_denied" in said
    assert server.stats.token_requests == 0


def test_a_login_times_out_after_the_user_closes_the_tab(
    tab: Any, profile: None, server: TokenServer
) -> None:
    with begun("--timeout", "3") as login:
        tab.get(login.url)
        tab.find_element("link text", "approve")
        tab.switch_to.new_window("tab")
        tab.switch_to.window(tab.window_handles[0])
        tab.close()
        code, said = login.end()
    assert code == 4
    assert "No answer came from the browser within 3 s." in said
    assert server.stats.token_requests == 0


# --- the page of another site -----------------------------------------------------------------

HOSTILE = """<!doctype html><title>hostile</title>
<form method="post" action="{target}"><input name="code" value="stolen"></form>
<script>
const target = "{target}";
const tries = [
    fetch(target + "?code=stolen&state=guessed", {{mode: "no-cors"}}),
    fetch(target + "?code=stolen", {{method: "POST", mode: "no-cors", body: "code=stolen"}}),
    fetch(target, {{method: "PUT", mode: "cors", body: "code=stolen"}}),
    fetch(target + "?code=stolen", {{mode: "cors"}}),
];
Promise.allSettled(tries).then(results => {{
    document.title = results.map(one => one.value ? one.value.type : "refused").join(" ");
}});
</script>
"""


@contextmanager
def hostile_page(target: str) -> Iterator[str]:
    """The address of a page that attacks *target*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(HOSTILE.format(target=target).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as attacker:
        thread = threading.Thread(target=attacker.serve_forever, args=[0.05])
        thread.start()
        try:
            yield f"http://127.0.0.1:{attacker.server_port}/"
        finally:
            attacker.shutdown()
            thread.join()


def test_a_page_that_posts_to_the_port_is_refused_and_the_login_goes_on(
    tab: Any, profile: None, server: TokenServer, tmp_path: Path
) -> None:
    with begun() as login, hostile_page(login.redirect_uri) as attack:
        tab.get(attack)
        # Two arrived and were not understood; what needs a permission was not sent, or not shown.
        until(tab, lambda tab: tab.title == "opaque opaque refused refused")
        tab.execute_script("document.forms[0].submit()")
        until(tab, lambda tab: "Unsupported method" in tab.page_source)
        assert server.stats.token_requests == 0
        assert login.process.poll() is None
        tab.get(login.url)
        click(tab, "approve")
        check_last_page(tab, login, "You are logged in", tmp_path)
        assert login.end()[0] == 0
    assert server.stats.token_requests == 1


# --- a server that others wrote ---------------------------------------------------------------


@pytest.fixture
def theirs(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provider:  # noqa: F811
    """django-oauth-toolkit over HTTPS, and the profile ``billing`` of a user there."""
    path = write(
        tmp_path,
        f"""
[billing]
prefix = "{provider.url}/api/"
store = "file:{tmp_path}/token.json"

[billing.source]
type = "refresh_token"
token_url = "{provider.url}/o/token/"
authorization_url = "{provider.url}/o/authorize/"
iss = "{provider.url}/o"
client_id = "app"
scope = "read"
verify = "{provider.ca}"
""",
    )
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(path))
    return provider


def as_user(tab: Any, name: str) -> None:
    tab.execute_cdp_cmd("Network.enable", {})
    tab.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"X-User": name}})


def test_a_user_approves_at_a_server_of_others(tab: Any, theirs: Provider, tmp_path: Path) -> None:
    as_user(tab, "ada")
    with begun() as login:
        tab.get(login.url)
        click(tab, "Authorize")
        check_last_page(tab, login, "You are logged in", tmp_path)
        assert login.end()[0] == 0
    store = FileStore(tmp_path / "token.json")
    assert theirs.greeting(theirs.source("app"), store) == "Hello, ada"


def test_a_user_denies_at_a_server_of_others(tab: Any, theirs: Provider, tmp_path: Path) -> None:
    as_user(tab, "ada")
    with begun() as login:
        tab.get(login.url)
        click(tab, "Cancel")
        check_last_page(tab, login, "The login failed", tmp_path)
        code, said = login.end()
    assert code == 4
    assert re.search(r"not approved \(access_denied", said)
