"""Tokens that are bound to the certificate of their token request (RFC 8705 section 3)."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from profiles import write

from tokenadapter import ClientCredentials, MemoryStore, Token, TokenAdapter, session
from tokenadapter.http import bindings
from tokenadapter.keys import certificates
from tokenadapter.testing import TokenServer


class Pki:
    """A server that binds tokens, its client's certificate, and another one."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        self.cert, self.other = str(directory / "client.pem"), str(directory / "other.pem")
        for path in (self.cert, self.other):
            issued = authority.issue_cert("app.example")
            Path(path).write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        proof = {"x5t#S256": certificates.thumbprint(self.cert)}
        self.server = TokenServer(clients={"app": proof}, https=True, client_ca=self.ca)


@pytest.fixture
def pki(tmp_path: Path) -> Iterator[Pki]:
    pki = Pki(tmp_path)
    with pki.server:
        yield pki


def adapter(pki: Pki, **options: Any) -> TokenAdapter:
    source = ClientCredentials(
        pki.server.token_url,
        client_id="app",
        client_auth="tls_client_auth",
        cert=pki.cert,
        verify=pki.server.ca_file,
    )
    return TokenAdapter(pki.server.api_url, source, **options)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING]


def test_the_certificate_of_the_token_request_is_presented_to_the_api(pki: Pki) -> None:
    with requests.Session() as session:
        session.verify = pki.server.ca_file
        adapter(pki).mount(session)
        assert session.get(pki.server.api_url).status_code == 200
        assert pki.server.requests[-1].certificate == certificates.thumbprint(pki.cert)
        # No other request of the session presents it.
        assert session.get(pki.server.public_url).status_code == 200
        assert pki.server.requests[-1].certificate is None


def test_an_adapter_that_was_pickled_presents_it_too(pki: Pki) -> None:
    with requests.Session() as session:
        session.verify = pki.server.ca_file
        pickle.loads(pickle.dumps(adapter(pki, store=MemoryStore()))).mount(session)
        assert session.get(pki.server.api_url).status_code == 200


def test_a_profile_presents_it_too(pki: Pki, tmp_path: Path) -> None:
    text = f"""
[one]
prefix = "{pki.server.api_url}"
store = "file:state/token.json"

[one.source]
type = "client_credentials"
token_url = "{pki.server.token_url}"
client_id = "app"
client_auth = "tls_client_auth"
cert = "client.pem"
verify = "{pki.server.ca_file}"
"""
    with session("one", config=str(write(tmp_path, text))) as ours:
        ours.verify = pki.server.ca_file
        assert ours.get(pki.server.api_url).status_code == 200


def test_a_refusal_of_another_certificate_is_explained(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    with requests.Session() as session:
        session.verify = pki.server.ca_file
        session.cert = pki.other
        adapter(pki).mount(session)
        assert session.get(pki.server.api_url).status_code == 401
    (message,) = refusals(caplog)
    assert f"bound to another client certificate than {pki.other}" in message


def test_a_missing_certificate_is_explained(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    with requests.Session() as session:
        session.verify = pki.server.ca_file
        session.cert = ""
        adapter(pki).mount(session)
        assert session.get(pki.server.api_url).status_code == 401
    (message,) = refusals(caplog)
    assert "bound to a client certificate, and the request presented none: set cert" in message


def test_only_a_token_that_tells_its_certificate_is_compared(pki: Pki, tmp_path: Path) -> None:
    bound = Token(
        ClientCredentials(
            pki.server.token_url, client_id="app", cert=pki.cert, verify=pki.server.ca_file
        )().access_token
    )
    assert bindings.mismatch(bound, pki.cert) is None
    assert bindings.mismatch(bound, (pki.cert, pki.cert)) is None
    assert "cannot be read" in str(bindings.mismatch(bound, str(tmp_path / "none")))
    for text in (
        "opaque",
        "a.b.c",
        "a.e30.c",
        "a.eyJjbmYiOjF9.c",
        "a.eyJjbmYiOnsieDV0I1MyNTYiOjF9fQ.c",
    ):
        assert bindings.mismatch(Token(text), None) is None
