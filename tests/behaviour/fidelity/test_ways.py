"""Certificates and proxies, separately for the API and the token endpoint."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InsecureRequestWarning

from tokenadapter import RefreshConfigError, RefreshToken, TokenAdapter
from tokenadapter.testing import TokenServer

from .conftest import Way
from .proxy import Proxy, SocksProxy


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def other_proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


def mount(
    session: requests.Session, api: TokenServer, token_url: str = "", **settings: Any
) -> TokenAdapter:
    """With a token that the API takes, and a source that gives another one."""
    source = RefreshToken(
        token_url or api.token_url,
        api.issue()["refresh_token"],
        client_id="client",
        client_secret="secret",
        # In clear, a proxy reads the token.
        allow_http=True,
        **settings,
    )
    return TokenAdapter(api.api_url, source, allow_http=True).mount(session)


# --- certificates ------------------------------------------------------------------------------


@pytest.fixture
def secure(tls: ssl.SSLContext) -> Iterator[TokenServer]:
    with TokenServer(tls=tls) as server:
        yield server


@pytest.fixture
def client_cert(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "client.pem"
    path.write_bytes(authority.issue_cert("client.example").private_key_and_cert_chain_pem.bytes())
    return str(path)


@pytest.fixture
def mutual(authority: trustme.CA, ca_file: str) -> Iterator[TokenServer]:
    """Asks each client for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    with TokenServer(tls=context) as server:
        yield server


def test_verify_of_a_call_is_for_the_api_and_that_of_the_source_for_the_token_endpoint(
    secure: TokenServer, session: requests.Session, ca_file: str
) -> None:
    mount(session, secure, verify=ca_file)
    assert session.get(f"{secure.api_url}x", verify=ca_file).ok
    secure.expire_now()
    assert session.put(f"{secure.api_url}x", data=iter([b"a"]), verify=ca_file).history
    with pytest.raises(requests.exceptions.SSLError) as caught:
        session.get(f"{secure.api_url}x")
    assert "Authorization" not in caught.value.request.headers
    assert secure.stats.token_requests == 2


def test_a_token_endpoint_that_cannot_be_trusted_gets_no_secret(
    secure: TokenServer, session: requests.Session, ca_file: str
) -> None:
    mount(session, secure)
    with pytest.raises(RefreshConfigError, match="CERTIFICATE_VERIFY_FAILED"):
        session.get(f"{secure.api_url}x", verify=ca_file)
    assert secure.requests == ()


def test_verify_can_be_turned_off_for_a_call(
    secure: TokenServer, session: requests.Session, ca_file: str
) -> None:
    mount(session, secure, verify=ca_file).keeper.current()
    secure.expire_now()
    with pytest.warns(InsecureRequestWarning):
        assert session.get(f"{secure.api_url}x", verify=False).history


def test_the_environment_names_the_certificates_for_both(
    secure: TokenServer,
    session: requests.Session,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    mount(session, secure)
    assert session.get(f"{secure.api_url}x").ok


@pytest.mark.parametrize("given", ["call", "session"])
def test_the_api_asks_for_a_client_certificate(
    mutual: TokenServer,
    server: TokenServer,
    session: requests.Session,
    ca_file: str,
    client_cert: str,
    given: str,
) -> None:
    """The token endpoint is elsewhere, and is shown none."""
    token = mutual.issue()
    source = RefreshToken(
        server.token_url,
        server.issue()["refresh_token"],
        client_id="client",
        client_secret="secret",
    )
    adapter = TokenAdapter(mutual.api_url, source).mount(session)
    adapter.keeper.adopt(token)
    how: dict[str, Any] = {"verify": ca_file}
    if given == "call":
        how["cert"] = client_cert
    else:
        session.cert = client_cert
    assert session.put(f"{mutual.api_url}x", data=b"body", **how).ok
    mutual.expire_now()
    assert session.put(f"{mutual.api_url}x", data=b"body", **how).status_code == 401
    assert server.stats.renewals == 1
    session.cert = None
    with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
        session.get(f"{mutual.api_url}y", verify=ca_file)


def test_the_token_endpoint_asks_for_a_client_certificate(
    mutual: TokenServer, session: requests.Session, ca_file: str, client_cert: str
) -> None:
    """RFC 8705: the client is known by its certificate."""
    mount(session, mutual, verify=ca_file, cert=client_cert)
    for _ in range(2):
        assert session.get(f"{mutual.api_url}x", verify=ca_file, cert=client_cert).ok
        mutual.expire_now()
    assert mutual.stats.renewals == 2


def test_an_inner_adapter_may_bring_its_own_tls(
    secure: TokenServer, session: requests.Session, ca_file: str
) -> None:
    class Own(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            kwargs["ssl_context"] = ssl.create_default_context(cafile=ca_file)
            super().init_poolmanager(*args, **kwargs)

    class Both(TokenAdapter, Own):
        pass

    source = Way(secure, ca_file).source()
    for adapter in (
        TokenAdapter(secure.api_url, source, inner=Own()),
        Both(secure.api_url, source),
    ):
        adapter.mount(session).keeper.adopt(secure.issue())
        secure.expire_now()
        assert session.get(f"{secure.api_url}x").history


# --- proxies -----------------------------------------------------------------------------------


def by_name(url: str) -> str:
    """The same place under another name, for which other proxies can be set."""
    return url.replace("127.0.0.1", "localhost")


def test_proxies_of_the_environment_are_looked_up_for_each_url(
    server: TokenServer,
    session: requests.Session,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "localhost")
    mount(session, server, by_name(server.token_url))
    assert session.get(f"{server.api_url}x").ok
    assert proxy.requested == [("GET", f"{server.api_url}x")]


def test_the_token_endpoint_may_have_a_proxy_where_the_api_has_none(
    server: TokenServer,
    session: requests.Session,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    mount(session, server, by_name(server.token_url))
    assert session.get(f"{server.api_url}x").ok
    assert proxy.requested == [("POST", by_name(server.token_url))]


def test_proxies_of_a_session_or_call_are_for_the_api_alone(
    server: TokenServer, session: requests.Session, proxy: Proxy, other_proxy: Proxy
) -> None:
    session.proxies["http"] = proxy.url
    mount(session, server)
    assert session.get(f"{server.api_url}x").ok
    assert session.get(f"{server.api_url}y", proxies={"http": other_proxy.url}).ok
    assert proxy.requested == [("GET", f"{server.api_url}x")]
    assert other_proxy.requested == [("GET", f"{server.api_url}y")]


def test_proxies_of_the_source_are_for_the_token_endpoint_alone(
    server: TokenServer, session: requests.Session, proxy: Proxy
) -> None:
    mount(session, server, proxies={"http": proxy.url})
    assert session.get(f"{server.api_url}x").ok
    assert proxy.requested == [("POST", server.token_url)]


def test_a_tunnel_is_opened_without_the_token(
    secure: TokenServer, session: requests.Session, ca_file: str, proxy: Proxy
) -> None:
    session.proxies["https"] = proxy.url.replace("http://", "http://me:password@")
    mount(session, secure, verify=ca_file).keeper.current()
    secure.expire_now()
    answer = session.put(f"{secure.api_url}x", data=iter([b"body"]), verify=ca_file)
    assert answer.history
    (head,) = proxy.heads
    assert head.startswith(b"CONNECT ")
    assert b"\r\nProxy-Authorization: Basic " in head
    assert b"\r\nAuthorization:" not in head
    assert b"Bearer" not in head
    assert "proxy-authorization" not in answer.json()["headers"]


def test_a_proxy_that_refuses_raises_its_own_error_and_causes_no_renewal(
    server: TokenServer, session: requests.Session
) -> None:
    mount(session, server).keeper.current()
    session.proxies["https"] = server.url
    TokenAdapter("https://127.0.0.1:1/", lambda previous: "token").mount(session)
    with pytest.raises(requests.exceptions.ProxyError):
        session.get("https://127.0.0.1:1/x")
    server.fail_next(407, endpoint="api")
    assert session.get(f"{server.api_url}x").status_code == 407
    assert server.stats.token_requests == 1


@pytest.mark.parametrize("way", ["http", "https"])
def test_a_socks_proxy_carries_both(
    ways: dict[str, Way], ca_file: str, session: requests.Session, way: str
) -> None:
    server = ways[way].server
    session.verify = ca_file
    with SocksProxy() as socks:
        proxies = {"http": socks.url, "https": socks.url}
        session.proxies.update(proxies)
        mount(session, server, verify=ca_file, proxies=proxies).keeper.current()
        server.expire_now()
        assert session.put(f"{server.api_url}x", data=iter([b"body"])).history
        # Two token requests, and one connection to the API.
        assert socks.opened == 3
        session.close()
