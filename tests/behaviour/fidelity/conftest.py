"""Servers with and without TLS, a proxy, and the routes to them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import trustme

from tokenadapter import RefreshToken
from tokenadapter.testing import TokenServer

from .bodies import Place
from .proxy import Proxy


class Way(NamedTuple):
    """How to reach a server."""

    server: TokenServer
    verify: str | bool = True
    proxy: Proxy | None = None

    def session(self) -> requests.Session:
        session = requests.Session()
        session.verify = self.verify
        if self.proxy is not None:
            session.proxies.update({"http": self.proxy.url, "https": self.proxy.url})
        return session

    def source(self, **settings: Any) -> RefreshToken:
        settings = {"client_secret": "secret", "verify": self.verify, **settings}
        return RefreshToken(self.server.token_url, client_id="client", **settings)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return str(path)


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ways(tls: ssl.SSLContext, ca_file: str) -> Iterator[dict[str, Way]]:
    """Each way that a request can take."""
    with TokenServer() as plain, TokenServer(tls=tls) as secure, Proxy() as proxy:
        yield {
            "http": Way(plain),
            "https": Way(secure, ca_file),
            "proxy": Way(plain, proxy=proxy),
            "tunnel": Way(secure, ca_file, proxy),
        }


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bodies")


@pytest.fixture
def place(_folder: Path) -> Iterator[Place]:
    place = Place(_folder)
    with place.stack:
        yield place
