"""The server speaks HTTPS, with a certificate of the test's or of its own."""

from __future__ import annotations

import gc
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tokenadapter.testing import TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, call, connect


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[TokenServer, str]]:
    """A server with a certificate, and the file with its issuer's."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with TokenServer(tls=context) as server:
        yield server, str(bundle)


def test_with_a_tls_context_it_speaks_https(secure: tuple[TokenServer, str]) -> None:
    server, bundle = secure
    assert server.token_url.startswith("https://127.0.0.1:")
    form = {"grant_type": "client_credentials"}
    response = requests.post(
        server.token_url, data=form, auth=CLIENT, verify=bundle, timeout=TIMEOUT
    )
    assert call(server, response.json(), verify=bundle).ok
    server.fail_next(drop=True)
    with pytest.raises(requests.ConnectionError):
        requests.post(server.token_url, data=form, auth=CLIENT, verify=bundle, timeout=TIMEOUT)


def test_a_client_without_a_tls_handshake_does_not_block_others(
    secure: tuple[TokenServer, str],
) -> None:
    server, bundle = secure
    with connect(server):
        assert requests.get(server.public_url, verify=bundle, timeout=TIMEOUT).ok
        server.stop()


def test_a_server_can_generate_its_certificate() -> None:
    with TokenServer(https=True) as server:
        form = {"grant_type": "client_credentials"}
        response = requests.post(
            server.token_url, data=form, auth=CLIENT, verify=server.ca_file, timeout=TIMEOUT
        )
        assert call(server, response.json(), verify=server.ca_file).ok
        as_localhost = server.public_url.replace("127.0.0.1", "localhost")
        assert requests.get(as_localhost, verify=server.ca_file, timeout=TIMEOUT).ok
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(server.public_url, timeout=TIMEOUT)


def test_two_servers_do_not_trust_each_other() -> None:
    other = TokenServer(https=True)
    with TokenServer(https=True) as server, pytest.raises(requests.exceptions.SSLError):
        requests.get(server.public_url, verify=other.ca_file, timeout=TIMEOUT)


def test_the_certificate_stays_while_the_server_is_stopped_and_goes_with_it() -> None:
    server = TokenServer(https=True).start()
    path = Path(server.ca_file)
    server.stop()
    with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
        requests.get(server.public_url, verify=server.ca_file, timeout=TIMEOUT)
    with server:
        assert requests.get(server.public_url, verify=str(path), timeout=TIMEOUT).ok
    del server
    gc.collect()
    assert not path.parent.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_certificate_to_its_parent() -> None:
    server = TokenServer(https=True)
    child = os.fork()
    if not child:
        del server
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert Path(server.ca_file).exists()


def test_without_trustme_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ImportError, match=r"pip install 'tokenadapter\[testing\]'"):
        TokenServer(https=True)


def test_a_generated_and_a_given_certificate_exclude_each_other(
    secure: tuple[TokenServer, str],
) -> None:
    server, _ = secure
    for without in (server, TokenServer()):
        with pytest.raises(RuntimeError, match="https=True"):
            _ = without.ca_file
    with pytest.raises(ValueError, match="a certificate of its own"):
        TokenServer(https=True, tls=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
