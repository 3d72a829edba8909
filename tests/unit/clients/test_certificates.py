"""Tokens that are bound to the certificate of their token request (RFC 8705 section 3)."""

from __future__ import annotations

import asyncio
import logging
import pickle
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import trustme
import urllib3
from profiles import write

from tokenadapter import (
    ApiUser,
    ClientCredentials,
    MemoryStore,
    RequestsAuth,
    Token,
    TokenAdapter,
    TokenAuth,
    TokenMiddleware,
    TokenPoolManager,
    installed,
    retrofit,
    session,
)
from tokenadapter.http import bindings
from tokenadapter.keys import certificates
from tokenadapter.sources import discovery
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
        self.thumbprint = proof["x5t#S256"]
        self.server = TokenServer(clients={"app": proof}, https=True, client_ca=self.ca)
        # It asks for certificates too.
        self.another_server = TokenServer(https=True, client_ca=self.ca)
        self.ca_file = str(directory / "servers.pem")

    def __enter__(self) -> Pki:
        servers = self.server.start(), self.another_server.start()
        Path(self.ca_file).write_text("".join(Path(one.ca_file).read_text() for one in servers))
        return self

    def __exit__(self, *error: object) -> None:
        self.another_server.stop()
        self.server.stop()

    def replace_certificate(self) -> None:
        """Put the other certificate in the place of the client's, which the server learns."""
        Path(self.cert).write_bytes(Path(self.other).read_bytes())
        self.server._clients["app"]["x5t#S256"] = certificates.thumbprint(self.other)  # type: ignore[index]

    def context(self, cert: str | None) -> ssl.SSLContext:
        """The TLS context of a client that presents *cert*."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if cert is not None:
            context.load_cert_chain(cert)
        return context

    def seen(self, server: TokenServer | None = None) -> str | None:
        """The thumbprint of the certificate that came with the last request."""
        return (server or self.server).requests[-1].certificate


@pytest.fixture
def pki(tmp_path: Path) -> Iterator[Pki]:
    with Pki(tmp_path) as pki:
        yield pki


def source(pki: Pki, cert: Any = None) -> ClientCredentials:
    return ClientCredentials(
        pki.server.token_url,
        client_id="app",
        client_auth="tls_client_auth",
        cert=cert or pki.cert,
        verify=pki.server.ca_file,
    )


def adapter(pki: Pki, **options: Any) -> TokenAdapter:
    return TokenAdapter(pki.server.api_url, source(pki), **options)


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


def test_a_server_that_an_api_names_is_shown_no_certificate(pki: Pki) -> None:
    api, elsewhere = pki.server, pki.another_server
    for server in (api, elsewhere):
        named = f"{server.url}/.well-known/oauth-protected-resource/api/"
        challenge = {"WWW-Authenticate": f'Bearer resource_metadata="{named}"'}
        api.fail_next(401, endpoint="api", headers=challenge)
        server.resource_metadata["resource"] = api.api_url
        server.resource_metadata["authorization_servers"] = [api.issuer]
        discovery._known.clear()
        user = ApiUser(api.api_url, cert=pki.cert, verify=pki.ca_file)
        assert user.discover().issuer == api.issuer
    assert [each.certificate for each in elsewhere.requests] == [None]
    assert {each.certificate for each in api.requests} == {pki.thumbprint}


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


def test_a_missing_certificate_is_explained_to_the_users_of_an_auth(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    with requests.Session() as session:
        session.verify = pki.server.ca_file
        session.auth = RequestsAuth(pki.server.api_url, source(pki))
        assert session.get(pki.server.api_url).status_code == 401
        session.cert = pki.cert
        assert session.get(pki.server.api_url).status_code == 200
    (message,) = refusals(caplog)
    assert "bound to a client certificate, and the request presented none: set cert" in message


@pytest.mark.parametrize("how", ["mounted", "retrofitted", "installed", "auth"])
def test_a_certificate_that_was_replaced_is_presented_with_its_token(pki: Pki, how: str) -> None:
    with ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        session.verify = pki.server.ca_file
        if how == "mounted":
            adapter(pki).mount(session)
        elif how == "retrofitted":
            retrofit(session, pki.server.api_url, source(pki))
        elif how == "installed":
            stack.enter_context(installed(adapter(pki)))
        else:
            session.auth = RequestsAuth(pki.server.api_url, source(pki))
            session.cert = pki.cert
        assert session.get(pki.server.api_url).status_code == 200
        pki.replace_certificate()
        pki.server.expire_now()
        assert session.get(pki.server.api_url).status_code == 200
    assert pki.seen() == certificates.thumbprint(pki.other)


# --- urllib3 -----------------------------------------------------------------------------------


def pool_manager(pki: Pki, **settings: Any) -> TokenPoolManager:
    return TokenPoolManager(pki.server.api_url, source(pki), ca_certs=pki.ca_file, **settings)


def test_a_pool_manager_presents_the_certificate_to_the_api_only(pki: Pki) -> None:
    with pool_manager(pki) as http:
        assert http.request("GET", pki.server.api_url).status == 200
        assert pki.seen() == pki.thumbprint
        assert http.request("GET", f"{pki.another_server.public_url}x").status == 200
        assert pki.seen(pki.another_server) is None


def test_a_redirect_to_another_server_does_not_take_the_certificate_along(pki: Pki) -> None:
    target = f"{pki.another_server.public_url}x"
    with pool_manager(pki) as http:
        response = http.request("GET", f"{pki.server.api_url}redirect?to={target}")
        assert response.status == 200
    assert pki.seen(pki.another_server) is None


def test_the_certificate_and_the_key_may_be_in_two_files(pki: Pki, tmp_path: Path) -> None:
    text = Path(pki.cert).read_text()
    at = text.index("-----BEGIN CERTIFICATE-----")
    pair = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    Path(pair[0]).write_text(text[at:])
    Path(pair[1]).write_text(text[:at])
    with TokenPoolManager(pki.server.api_url, source(pki, cert=pair), ca_certs=pki.ca_file) as http:
        assert http.request("GET", pki.server.api_url).status == 200


def test_the_callers_certificate_stands_and_a_mismatch_is_explained(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    with pool_manager(pki, cert_file=pki.other) as http:
        assert http.request("GET", pki.server.api_url).status == 401
    assert pki.seen() == certificates.thumbprint(pki.other)
    (message,) = refusals(caplog)
    assert f"bound to another client certificate than {pki.other}" in message


def test_the_callers_tls_context_stands_and_a_refusal_is_explained(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    with pool_manager(pki, ssl_context=pki.context(pki.cert)) as http:
        assert http.request("GET", pki.server.api_url).status == 200
    assert not refusals(caplog)
    with pool_manager(pki, ssl_context=pki.context(None)) as http:
        assert http.request("GET", pki.server.api_url).status == 401
    assert pki.seen() is None
    (message,) = refusals(caplog)
    assert "although it is new" in message
    assert "bound to a client certificate. If the client does not present it, pass" in message


def test_an_empty_name_presents_no_certificate(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    with pool_manager(pki, cert_file="") as http:
        assert http.request("GET", pki.server.api_url).status == 401
    (message,) = refusals(caplog)
    assert "and the request presented none: pass cert_file and key_file to the pool" in message


def test_a_retrofitted_pool_manager_presents_what_it_was_given(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    with urllib3.PoolManager(ca_certs=pki.ca_file) as manager:
        retrofit(manager, pki.server.api_url, source(pki))
        assert manager.request("GET", pki.server.api_url).status == 401
    (message,) = refusals(caplog)
    assert "and the request presented none: pass cert_file and key_file to the pool" in message
    with urllib3.PoolManager(ca_certs=pki.ca_file, cert_file=pki.cert) as manager:
        retrofit(manager, pki.server.api_url, source(pki))
        assert manager.request("GET", pki.server.api_url).status == 200


# --- httpx and aiohttp: the TLS context belongs to the client -----------------------------------

Get = Callable[[str], int]


def by_httpx(pki: Pki, context: ssl.SSLContext) -> Iterator[Get]:
    with httpx.Client(auth=TokenAuth(pki.server.api_url, source(pki)), verify=context) as client:
        yield lambda url: client.get(url).status_code


def by_httpx2(pki: Pki, context: ssl.SSLContext) -> Iterator[Get]:
    with httpx2.Client(auth=TokenAuth(pki.server.api_url, source(pki)), verify=context) as client:
        yield lambda url: client.get(url).status_code


def by_asyncio(pki: Pki, context: ssl.SSLContext) -> Iterator[Get]:
    auth = TokenAuth(pki.server.api_url, source(pki))

    async def get(url: str) -> int:
        async with httpx.AsyncClient(auth=auth, verify=context) as client:
            return (await client.get(url)).status_code

    yield lambda url: asyncio.run(get(url))


def by_aiohttp(pki: Pki, context: ssl.SSLContext) -> Iterator[Get]:
    tokens = TokenMiddleware(pki.server.api_url, source(pki))

    async def get(url: str) -> int:
        connector = aiohttp.TCPConnector(ssl=context)
        async with (
            aiohttp.ClientSession(connector=connector, middlewares=[tokens]) as session,
            session.get(url) as response,
        ):
            return response.status

    yield lambda url: asyncio.run(get(url))


CLIENTS = {
    by_httpx: "SSLContext that the client gets as verify",
    by_httpx2: "SSLContext that the client gets as verify",
    by_asyncio: "SSLContext that the client gets as verify",
    by_aiohttp: "SSLContext that the connector gets as ssl",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_presents_the_certificate_of_its_context(pki: Pki, client: Any) -> None:
    for get in client(pki, pki.context(pki.cert)):
        assert get(pki.server.api_url) == 200
    assert pki.seen() == pki.thumbprint


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("has_another", [False, True])
def test_a_refusal_says_how_the_client_gets_the_certificate(
    pki: Pki, client: Any, has_another: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for get in client(pki, pki.context(pki.other if has_another else None)):
        assert get(pki.server.api_url) == 401
    assert (pki.seen() is not None) == has_another
    (message,) = refusals(caplog)
    assert "bound to a client certificate. If the client does not present it, load it" in message
    assert CLIENTS[client] in message


def test_a_transport_for_the_api_presents_the_certificate_to_no_other_server(pki: Pki) -> None:
    api = pki.server.url.rstrip("/")
    for library in (httpx, httpx2):
        with library.Client(
            auth=TokenAuth(pki.server.api_url, source(pki)),
            verify=pki.context(None),
            mounts={api: library.HTTPTransport(verify=pki.context(pki.cert))},
        ) as client:
            assert client.get(pki.server.api_url).status_code == 200
            assert client.get(f"{pki.another_server.public_url}x").status_code == 200
        assert pki.seen() == pki.thumbprint
        assert pki.seen(pki.another_server) is None


def test_a_request_of_aiohttp_may_have_a_context_of_its_own(pki: Pki) -> None:
    async def get() -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=pki.context(None)),
            middlewares=[TokenMiddleware(pki.server.api_url, source(pki))],
        ) as session:
            async with session.get(pki.server.api_url, ssl=pki.context(pki.cert)) as response:
                assert response.status == 200
            async with session.get(f"{pki.another_server.public_url}x") as response:
                assert response.status == 200

    asyncio.run(get())
    assert pki.seen() == pki.thumbprint
    assert pki.seen(pki.another_server) is None


# --- what is known of a token -------------------------------------------------------------------


def test_a_refusal_of_a_token_that_does_not_tell_keeps_its_reason() -> None:
    for cert in (None, "client.pem", True):
        assert bindings.explained("why", Token("opaque"), cert, "set cert") == "why"


def test_only_a_token_that_tells_its_certificate_is_compared(pki: Pki, tmp_path: Path) -> None:
    bound = Token(
        ClientCredentials(
            pki.server.token_url, client_id="app", cert=pki.cert, verify=pki.server.ca_file
        )().access_token
    )
    assert bindings.mismatch(bound, pki.cert) is None
    assert bindings.mismatch(bound, (pki.cert, pki.cert)) is None
    assert bindings.explained("why", bound, Path(pki.cert), "set cert") == "why"
    assert "cannot be read" in str(bindings.mismatch(bound, str(tmp_path / "none")))
    for text in (
        "opaque",
        "a.b.c",
        "a.e30.c",
        "a.eyJjbmYiOjF9.c",
        "a.eyJjbmYiOnsieDV0I1MyNTYiOjF9fQ.c",
    ):
        assert bindings.mismatch(Token(text), None) is None
