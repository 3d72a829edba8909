"""A login by text that a person copies from a browser elsewhere."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from tokenadapter import FileStore, ReauthRequired, RefreshToken, Token, login
from tokenadapter.testing import TokenServer


def shown_url(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("http"))


def approved(url: str) -> str:
    page = requests.get(f"{url}&decision=approve", allow_redirects=False, timeout=10)
    return page.headers["Location"]


@pytest.fixture
def log_in(
    source: RefreshToken, store: FileStore, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Token]:
    """Log in, and paste the text that *pasted* returns for the address."""

    def call(pasted: Callable[[str], str], **settings: str) -> Token:
        def show(text: str) -> None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(pasted(approved(shown_url(text)))))

        url = server.authorization_url
        return login(source, store, flow="paste", authorization_url=url, show=show, **settings)

    return call


def code_of(address: str) -> str:
    return dict(parse_qsl(urlsplit(address).query))["code"]


@pytest.mark.parametrize(
    "pasted",
    [
        pytest.param(lambda address: f"  {address}\n", id="address"),
        pytest.param(lambda address: urlsplit(address).query, id="query"),
        pytest.param(code_of, id="code"),
    ],
)
def test_the_address_or_the_code_is_accepted(
    log_in: Callable[..., Token], pasted: Callable[[str], str]
) -> None:
    assert log_in(pasted).refresh_token


def test_the_answer_may_go_to_a_page_of_yours(log_in: Callable[..., Token]) -> None:
    uri = "https://example.com/code"
    assert log_in(lambda address: address, redirect_uri=uri).refresh_token


def test_a_code_alone_is_refused_where_the_issuer_matters(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    with pytest.raises(ReauthRequired, match="names no issuer"):
        log_in(code_of, iss=server.url)
    assert server.stats.token_requests == 0
    assert log_in(lambda address: address, iss=server.url).refresh_token


def test_the_code_is_offered_only_where_it_is_accepted(
    source: RefreshToken, store: FileStore, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(text: str) -> None:
        shown.append(text)
        monkeypatch.setattr(sys, "stdin", io.StringIO(approved(shown_url(text))))

    url = server.authorization_url
    for settings, is_offered in (({}, True), ({"iss": server.url}, False)):
        shown: list[str] = []
        login(source, store, flow="paste", authorization_url=url, show=show, **settings)
        assert (
            "Copy the whole address, or the code that the page shows." in shown[0]
        ) is is_offered
        assert ("Copy the whole address." in shown[0]) is not is_offered


@pytest.mark.parametrize(
    "pasted", ["", "two words", "https://example.com/", "http://[", "<html>code</html> x"]
)
def test_a_wrong_paste_sends_nothing(
    log_in: Callable[..., Token], server: TokenServer, pasted: str
) -> None:
    with pytest.raises(ReauthRequired, match="neither the address"):
        log_in(lambda address: pasted)
    assert server.stats.token_requests == 0


def test_the_address_of_another_login_is_refused(
    log_in: Callable[..., Token], server: TokenServer
) -> None:
    with pytest.raises(ReauthRequired, match="its state differs"):
        log_in(lambda address: f"http://127.0.0.1/?code={code_of(address)}&state=another")
    assert server.stats.token_requests == 0


PROGRAM = """
import sys
from tokenadapter import RefreshToken, login

source = RefreshToken(sys.argv[1], client_id="client", client_secret="secret")
token = login(source, sys.argv[3], flow="paste", authorization_url=sys.argv[2])
print("logged in", token.fingerprint)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
def test_a_terminal_does_not_show_the_pasted_text(server: TokenServer, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", PROGRAM, server.token_url, server.authorization_url),
            str(tmp_path / "token.json"),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while b"(not shown): " not in seen:
        seen += os.read(ours, 4096)
    address = approved(shown_url(seen.decode().replace("\r", "")))
    os.write(ours, f"{address}\n".encode())
    said = b""
    while b"logged in" not in said:
        said += os.read(ours, 4096)
    assert process.wait(10) == 0
    os.close(ours)
    assert code_of(address).encode() not in said
