"""Logins at an authorization server that others wrote: django-oauth-toolkit, over HTTPS."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from tokenadapter import (
    ApiUser,
    FileStore,
    ReauthRequired,
    RefreshToken,
    Token,
    TokenAdapter,
    TokenKeeper,
    login,
    logout,
)
from unit.stores.servers import free_port

HERE = Path(__file__).parent


class Provider(NamedTuple):
    url: str
    ca: str

    def source(self, client: str) -> RefreshToken:
        return RefreshToken(
            f"{self.url}/o/token/",
            client_id=client,
            scope="read",
            revocation_url=f"{self.url}/o/revoke_token/",
            verify=self.ca,
        )

    def greeting(self, source: RefreshToken | ApiUser, store: FileStore) -> str:
        """What the API says to a program that starts now."""
        with requests.Session() as session:
            session.verify = self.ca
            TokenAdapter(f"{self.url}/api/", source, store=store).mount(session)
            return session.get(f"{self.url}/api/", timeout=10).text

    def post(self, user: str, path: str, **form: str) -> requests.Response:
        return requests.post(
            f"{self.url}/{path}",
            data=form,
            headers={"X-User": user},
            verify=self.ca,
            timeout=10,
            allow_redirects=False,
        )


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder, port = tmp_path_factory.mktemp("provider"), free_port()
    process = subprocess.Popen(
        [sys.executable, HERE / "provider.py", folder, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield Provider(f"https://127.0.0.1:{port}", str(folder / "ca.pem"))
    process.communicate(timeout=30)


def user(
    provider: Provider, name: str, *, allow: bool = True
) -> tuple[Callable[[str], None], list[threading.Thread]]:
    """The browser of a user, which submits the form of the consent page."""
    threads: list[threading.Thread] = []

    def consent(url: str) -> None:
        form = dict(parse_qsl(urlsplit(url).query))
        answer = provider.post(
            name, f"o/authorize/?{urlsplit(url).query}", **form, **({"allow": "1"} if allow else {})
        )
        requests.get(answer.headers["Location"], timeout=30)

    def open_url(url: str) -> None:
        threads.append(threading.Thread(target=consent, args=[url]))
        threads[-1].start()

    return open_url, threads


def log_in(
    provider: Provider,
    store: FileStore,
    name: str,
    *,
    allow: bool = True,
    source: RefreshToken | ApiUser | None = None,
    **options: Any,
) -> None:
    if source is None:
        source = provider.source("app")
        options["authorization_url"] = f"{provider.url}/o/authorize/"
        options["iss"] = f"{provider.url}/o"
    open_url, threads = user(provider, name, allow=allow)
    try:
        login(source, store, browser=open_url, show=lambda text: None, timeout=60, **options)
    finally:
        for thread in threads:
            thread.join()


def test_a_login_lasts_over_restarts_renewals_and_until_the_revocation(
    provider: Provider, tmp_path: Path
) -> None:
    store, source = FileStore(tmp_path / "token.json"), provider.source("app")
    log_in(provider, store, "ada")
    assert provider.greeting(source, store) == "Hello, ada"
    before = TokenKeeper(source, store).current()
    after = TokenKeeper(source, store).refresh()
    assert after.refresh_token not in (None, before.refresh_token)
    assert provider.greeting(source, store) == "Hello, ada"
    TokenKeeper(source, store).forget(source.revoke)
    with pytest.raises(ReauthRequired, match=r"tokenadapter\.login\(\)"):
        provider.greeting(source, store)


def test_the_next_login_may_be_another_user(provider: Provider, tmp_path: Path) -> None:
    store, source = FileStore(tmp_path / "token.json"), provider.source("app")
    log_in(provider, store, "ada")
    log_in(provider, store, "bob")
    assert provider.greeting(source, store) == "Hello, bob"
    assert TokenKeeper(source, store).refresh()


def test_a_user_who_denies_is_an_error(provider: Provider, tmp_path: Path) -> None:
    with pytest.raises(ReauthRequired, match="access_denied"):
        log_in(provider, FileStore(tmp_path / "token.json"), "ada", allow=False)


def test_a_device_code_logs_in(provider: Provider, tmp_path: Path) -> None:
    store, source = FileStore(tmp_path / "token.json"), provider.source("device")

    def enter(text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        code = lines[lines.index("and enter this code:") + 2]
        confirm = provider.post("ada", "o/device/", user_code=code).headers["Location"]
        assert provider.post("ada", confirm.lstrip("/"), action="accept").status_code == 302

    login(
        source,
        store,
        device_authorization_url=f"{provider.url}/o/device-authorization/",
        flow="device",
        show=enter,
        timeout=60,
    )
    assert provider.greeting(source, store) == "Hello, ada"
    assert TokenKeeper(source, store).refresh()


# --- metadata, registration and ID tokens ----------------------------------------------------


def test_the_url_of_an_api_is_enough(provider: Provider, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")

    def source() -> ApiUser:
        return ApiUser(f"{provider.url}/api/", scope="read", verify=provider.ca)

    log_in(provider, store, "ada", source=source())
    assert provider.greeting(source(), store) == "Hello, ada"
    before = TokenKeeper(source(), store).current()
    after = TokenKeeper(source(), store).refresh()
    assert after.refresh_token not in (None, before.refresh_token)
    assert provider.greeting(source(), store) == "Hello, ada"
    # The same client logs in again.
    log_in(provider, store, "bob", source=source())
    assert provider.greeting(source(), store) == "Hello, bob"
    assert client_of(before) == client_of(TokenKeeper(source(), store).current())
    revoked = logout(source(), store)
    assert revoked is not None
    with pytest.raises(ReauthRequired, match=r"tokenadapter\.login\(\)"):
        provider.greeting(source(), store)
    headers = {"Authorization": f"Bearer {revoked.access_token}"}
    url = f"{provider.url}/api/"
    assert requests.get(url, headers=headers, verify=provider.ca, timeout=10).status_code == 401


def client_of(token: Token) -> object:
    return token.extras["tokenadapter_client"]["client_id"]


def test_an_id_token_tells_users_apart(provider: Provider, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    source = RefreshToken(
        issuer=f"{provider.url}/o", client_id="app", scope="openid read", verify=provider.ca
    )
    log_in(provider, store, "ada", source=source)
    with pytest.raises(ReauthRequired, match="The login was made as"):
        log_in(provider, store, "bob", source=source)
    assert provider.greeting(source, store) == "Hello, ada"
    log_in(provider, store, "bob", source=source, switch=True)
    assert provider.greeting(source, store) == "Hello, bob"
    log_in(provider, store, "bob", source=source)
