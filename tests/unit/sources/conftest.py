"""TLS for the token server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tokenadapter.testing import TokenServer


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return str(path)


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def https_server(tls: ssl.SSLContext) -> Iterator[TokenServer]:
    with TokenServer(tls=tls) as server:
        yield server


@pytest.fixture
def client_cert(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "client.pem"
    path.write_bytes(authority.issue_cert("client.example").private_key_and_cert_chain_pem.bytes())
    return str(path)
