"""How a token endpoint is reached: proxies, certificates, and what never happens on the way."""

from __future__ import annotations

import gzip
import pickle
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import (
    ClientCredentials,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    TokenKeeper,
)
from tokenadapter.testing import TokenServer

from .raw import answering, wait_for_end


def source(url: str, **options: Any) -> ClientCredentials:
    return ClientCredentials(url, client_id="client", client_secret="secret", **options)


# What a request never does


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: TokenServer, status: int) -> None:
    with TokenServer() as other:
        server.fail_next(status, redirect=f"{other.token_url}?from=here")
        with pytest.raises(RefreshConfigError, match="not followed") as caught:
            source(server.token_url)()
        assert not other.requests
        assert f"a redirect to {other.token_url}:" not in str(caught.value)
        assert f"a redirect to {other.token_url})" in str(caught.value)
    assert len(server.requests) == 1


def test_a_redirect_to_an_invalid_address_is_reported(server: TokenServer) -> None:
    server.fail_next(redirect="http://[")
    with pytest.raises(RefreshConfigError, match="an address that cannot be read"):
        source(server.token_url)()


def test_netrc_is_not_read(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    source(server.token_url, client_auth="client_secret_post")()
    assert "authorization" not in server.requests[0].headers


def test_a_failed_request_is_not_retried(server: TokenServer) -> None:
    server.fail_next(reset=True)
    with pytest.raises(RefreshTemporarilyFailed):
        source(server.token_url)()
    assert server.stats.token_requests == 1


def test_each_request_has_a_connection_of_its_own(server: TokenServer) -> None:
    grant = source(server.token_url)
    grant()
    grant()
    first, second = server.requests
    assert first.peer != second.peer


# Answers


def test_a_compressed_answer_is_decoded(server: TokenServer) -> None:
    body = gzip.compress(b'{"access_token": "abc"}')
    server.fail_next(200, body=body, headers={"Content-Encoding": "gzip"})
    assert source(server.token_url)().access_token == "abc"


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_an_answer_longer_than_1_mib_is_not_read_to_its_end(
    server: TokenServer, encoding: str | None
) -> None:
    body = b'{"access_token": "abc", "x": "' + b"x" * (1 << 20) + b'"}'
    server.fail_next(
        200,
        body=gzip.compress(body) if encoding else body,
        headers={"Content-Encoding": encoding} if encoding else None,
    )
    with pytest.raises(RefreshTemporarilyFailed, match="longer than 1 MiB") as caught:
        source(server.token_url)()
    assert caught.value.processed is None


def test_bytes_that_are_not_http_are_no_answer() -> None:
    def banner(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
        wait_for_end(connection)

    with answering(banner) as address, pytest.raises(RefreshTemporarilyFailed) as caught:
        source(f"http://{address}/token")()
    assert caught.value.processed is None


def test_an_answer_that_is_cut_off_is_no_answer() -> None:
    def cut_off(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"access_token": "abc"}')

    with answering(cut_off) as address, pytest.raises(RefreshTemporarilyFailed) as caught:
        source(f"http://{address}/token")()
    assert caught.value.processed is None


# Servers that cannot be reached


def test_a_refused_connection_spends_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RefreshTemporarilyFailed, match="refused") as caught:
        source(f"http://127.0.0.1:{port}/token")()
    assert caught.value.processed is False
    assert f"http://127.0.0.1:{port}/token gave no token" in str(caught.value)


def test_a_host_without_an_address_spends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(RefreshTemporarilyFailed, match="Name or service not known") as caught:
        source("https://id.example/token")()
    assert caught.value.processed is False
    assert "Check the host in the URL, and whether this machine can resolve" in str(caught.value)
    assert "ry again" not in str(caught.value)


def test_a_port_that_does_not_speak_tls_is_named_as_the_reason(server: TokenServer) -> None:
    with pytest.raises(RefreshTemporarilyFailed, match="The port does not speak TLS") as caught:
        source(server.token_url.replace("http://", "https://"))()
    assert "check the scheme and the port of the URL" in str(caught.value)
    assert "ry again" not in str(caught.value)
    assert caught.value.processed is False


def test_the_reason_does_not_come_from_an_error_that_the_caller_is_handling() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/token"
    try:
        {}["what the caller handles"]
    except KeyError:
        with pytest.raises(RefreshTemporarilyFailed, match="refused"):
            source(url)()


# TLS


def test_a_certificate_of_an_unknown_authority_is_not_trusted(https_server: TokenServer) -> None:
    with pytest.raises(RefreshConfigError, match=r"CERTIFICATE_VERIFY_FAILED.*verify"):
        source(https_server.token_url)()
    assert not https_server.requests


def test_ca_certificates_can_be_passed(https_server: TokenServer, ca_file: str) -> None:
    assert source(https_server.token_url, verify=ca_file)()


def test_ca_certificates_come_from_the_environment(
    https_server: TokenServer, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    assert source(https_server.token_url)()


def test_a_client_certificate_is_sent(tls: ssl.SSLContext, ca_file: str, client_cert: str) -> None:
    tls.load_verify_locations(ca_file)
    tls.verify_mode = ssl.CERT_REQUIRED
    with TokenServer(tls=tls) as server:
        assert source(server.token_url, verify=ca_file, cert=client_cert)()


@pytest.mark.parametrize("option", ["verify", "cert"])
def test_a_missing_file_of_certificates_is_a_configuration_error(option: str) -> None:
    with pytest.raises(RefreshConfigError, match=r"/nowhere.*Check the URL, verify, cert"):
        source("https://127.0.0.1:1/token", **{option: "/nowhere/a.pem"})()


def test_after_a_missing_file_was_added_the_next_call_succeeds_at_once(
    https_server: TokenServer, ca_file: str, tmp_path: Path
) -> None:
    store, later = f"file:{tmp_path}/token.json", tmp_path / "ca.pem"
    with pytest.raises(RefreshConfigError, match="Check the URL, verify, cert"):
        TokenKeeper(source(https_server.token_url, verify=str(later)), store).current()
    later.write_bytes(Path(ca_file).read_bytes())
    keeper = TokenKeeper(source(https_server.token_url, verify=str(later)), store)
    assert keeper.current().access_token


def test_a_socks_proxy_without_its_package_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_the_package(*_: object, **__: object) -> None:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    # requests defines such a function where the package is not installed.
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", without_the_package)
    with pytest.raises(RefreshConfigError, match=r"Run `pip install 'tokenadapter\[socks\]'`"):
        source("https://127.0.0.1:1/token", proxies={"https": "socks5://127.0.0.1:1"})()


# Proxies


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch, server: TokenServer) -> TokenServer:
    """A server that gets every request of clients that use proxies from the environment."""
    monkeypatch.setenv("http_proxy", server.url)
    return server


def test_the_proxy_of_the_environment_is_used(proxied: TokenServer) -> None:
    # The server does not know http://id.example.  What counts is that the request reached it.
    with pytest.raises(RefreshConfigError, match="404"):
        source("http://id.example/token", allow_http=True)()
    (request,) = proxied.requests
    assert request.path == "http://id.example/token"
    assert request.headers["host"] == "id.example"


def test_no_proxy_in_the_environment_is_respected(
    proxied: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with TokenServer() as other:
        assert source(other.token_url, allow_http=True)()
    assert not proxied.requests


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_plain_http_to_this_machine_does_not_go_through_a_proxy(
    proxied: TokenServer, scheme: str
) -> None:
    # A proxy elsewhere would read the secrets.
    with TokenServer() as other:
        url = other.token_url.replace("http", scheme, 1)
        assert source(url, proxies={"http": proxied.url, "all": proxied.url})()
        assert source(url)()
    assert not proxied.requests


def test_with_allow_http_requests_to_this_machine_may_go_through_a_proxy(
    proxied: TokenServer,
) -> None:
    with TokenServer() as other, pytest.raises(RefreshConfigError, match="404"):
        source(other.token_url, allow_http=True)()
    assert len(proxied.requests) == 1


def test_https_to_this_machine_may_go_through_a_proxy(server: TokenServer) -> None:
    with pytest.raises(RefreshTemporarilyFailed, match="its proxy failed"):
        source("https://127.0.0.1:1/token", proxies={"https": server.url})()
    assert [request.method for request in server.requests] == ["CONNECT"]


def test_a_proxy_that_is_passed_takes_precedence_over_the_environment(proxied: TokenServer) -> None:
    with TokenServer() as other, pytest.raises(RefreshConfigError):
        source("http://id.example/token", allow_http=True, proxies={"http": other.url})()
    assert not proxied.requests


def test_a_proxy_that_refuses_the_tunnel_spends_nothing(server: TokenServer) -> None:
    with pytest.raises(RefreshTemporarilyFailed, match="its proxy failed: Tunnel") as caught:
        source("https://id.example/token", proxies={"https": server.url})()
    assert caught.value.processed is False
    (request,) = server.requests
    assert request.method == "CONNECT"


def test_no_message_contains_the_password_of_a_proxy() -> None:
    with pytest.raises((RefreshConfigError, RefreshTemporarilyFailed)) as caught:
        source("https://id.example/token", proxies={"https": "http://me:h1dden@[::1/"})()
    assert "h1dden" not in str(caught.value)


def test_no_message_contains_the_query_of_the_endpoint(server: TokenServer) -> None:
    grant = RefreshToken(f"{server.token_url}?key=h1dden", "r", client_id="client")
    server.fail_next(400, body={"error": "invalid_request", "error_description": "key h1dden"})
    with pytest.raises(RefreshConfigError) as caught:
        grant()
    assert server.requests[0].query == "key=h1dden"
    assert "h1dden" not in str(caught.value)


def test_settings_survive_a_pickle(https_server: TokenServer, ca_file: str) -> None:
    assert pickle.loads(pickle.dumps(source(https_server.token_url, verify=ca_file)))()


@pytest.mark.parametrize("argument", ["cert", "verify"])
def test_the_content_of_a_file_in_place_of_its_path_is_not_shown(argument: str) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n"
    for value in (pem, ("client.pem", pem)):
        with pytest.raises(ValueError, match=f"^{argument} is not the path of a file$"):
            ClientCredentials("https://id.example.com/token", client_id="c", **{argument: value})
