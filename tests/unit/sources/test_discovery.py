"""Discovery: where an issuer's endpoints are, and which metadata is refused."""

from __future__ import annotations

import gzip
import json
import pickle
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import (
    ClientCredentials,
    FileStore,
    Password,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenAdapter,
    TokenError,
    TokenKeeper,
    TokenPoolManager,
    UnsafeTarget,
    installed,
)
from tokenadapter.sources import discovery
from tokenadapter.testing import TokenServer

RFC_8414 = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


def source(server: TokenServer, **options: Any) -> ClientCredentials:
    settings = {"issuer": server.issuer, "client_id": "client", "client_secret": "secret"}
    return ClientCredentials(**{**settings, **options})


def paths(server: TokenServer) -> list[str]:
    return [request.path for request in server.requests]


# --- where the metadata is ---------------------------------------------------------------


def test_every_oauth_source_takes_an_issuer(server: TokenServer) -> None:
    client: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}
    refresh_token = server.issue()["refresh_token"]
    for grant in (
        ClientCredentials(issuer=server.issuer, **client),
        RefreshToken(issuer=server.issuer, refresh_token=refresh_token, **client),
        Password(issuer=server.issuer, username="user", password="password", **client),
    ):
        assert grant().access_token
    assert paths(server) == [RFC_8414, "/token", "/token", "/token"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_path_of_an_issuer_follows_the_name_of_rfc_8414(
    server: TokenServer, slash: str
) -> None:
    # RFC 8414 section 3.1: a closing slash is removed first.
    server.metadata["issuer"] = f"{server.issuer}/tenant{slash}"
    source(server, issuer=f"{server.issuer}/tenant{slash}")()
    assert paths(server) == [f"{RFC_8414}/tenant", "/token"]


def test_without_rfc_8414_openid_connect_discovery_is_read(server: TokenServer) -> None:
    server.fail_next(404, endpoint="metadata")
    source(server, issuer=f"{server.issuer}/tenant")()
    assert paths(server) == [f"{RFC_8414}/tenant", f"/tenant{OPENID}", "/token"]


@pytest.mark.parametrize(
    "first",
    [
        {"status": 302, "redirect": "https://elsewhere.example/"},
        {"status": 200, "body": "<h1>Not found</h1>"},
        {"status": 200, "body": {"issuer": "https://elsewhere.example"}},
        {"status": 500},
    ],
    ids=["redirect", "page", "another issuer", "error"],
)
def test_invalid_metadata_at_the_first_url_does_not_hide_the_second(
    server: TokenServer, first: dict[str, Any]
) -> None:
    server.fail_next(endpoint="metadata", **first)
    assert source(server)().access_token
    assert paths(server) == [RFC_8414, OPENID, "/token"]


def test_a_server_without_metadata_is_a_configuration_error(server: TokenServer) -> None:
    server.fail_next(404, endpoint="metadata", count=None)
    with pytest.raises(RefreshConfigError, match=f"{RFC_8414}: 404.*{OPENID}: 404.*token_url"):
        source(server)()


# --- what is refused ---------------------------------------------------------------------


def refused(server: TokenServer, **options: Any) -> str:
    """The error of a source whose metadata is refused, and which sent no secret."""
    with pytest.raises(TokenError) as caught:
        source(server, **options)()
    assert "/token" not in paths(server)
    assert all("authorization" not in request.headers for request in server.requests)
    assert isinstance(caught.value, (RefreshConfigError, RefreshTemporarilyFailed))
    return str(caught.value)


@pytest.mark.parametrize("change", ["slash", "host", "case", "absent", "list"])
def test_the_issuer_is_compared_exactly(server: TokenServer, change: str) -> None:
    issuer = server.issuer
    server.metadata["issuer"] = {
        "slash": f"{issuer}/",
        "host": "https://elsewhere.example",
        "case": issuer.upper(),
        "absent": None,
        "list": [issuer],
    }[change]
    assert "the metadata of another issuer" in refused(server)


@pytest.mark.parametrize(
    "name",
    ["token_endpoint", "authorization_endpoint", "revocation_endpoint", "registration_endpoint"],
)
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x",
        "HTTP://127.0.0.1:9/x",
        "http://id.example/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//id.example/x",
        "https://user@id.example/x",
        "https://id.example/x#fragment",
        "https://id.example/\nx",
        "https://[",
        7,
    ],
)
def test_an_endpoint_is_refused_unless_it_is_https(
    https_server: TokenServer, ca_file: str, name: str, url: object
) -> None:
    https_server.metadata[name] = url
    assert name in refused(https_server, verify=ca_file)


def test_a_loopback_issuer_may_not_name_plain_http_on_another_machine(server: TokenServer) -> None:
    server.metadata["token_endpoint"] = "http://id.example/token"
    assert "token_endpoint is plain http" in refused(server)


def test_endpoints_may_be_on_another_https_host(https_server: TokenServer, ca_file: str) -> None:
    https_server.metadata["authorization_endpoint"] = "https://accounts.example/auth"
    server = source(https_server, verify=ca_file).discover()
    assert server is not None
    assert server.authorization_endpoint == "https://accounts.example/auth"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_metadata_is_not_followed(server: TokenServer, status: int) -> None:
    with TokenServer() as other:
        other.metadata["issuer"] = server.issuer
        for path in (RFC_8414, OPENID):
            server.fail_next(status, redirect=f"{other.url}{path}", endpoint="metadata")
        assert "a redirect to" in refused(server)
        assert not other.requests


def test_metadata_of_10_mib_is_refused(server: TokenServer) -> None:
    server.metadata["padding"] = "x" * (10 << 20)
    assert "longer than 1 MiB" in refused(server)


def test_50_mib_of_metadata_behind_gzip_are_never_in_memory(server: TokenServer) -> None:
    usual = requests.get(server.issuer + RFC_8414, timeout=10).json()
    body = gzip.compress(json.dumps({**usual, "padding": "x" * (50 << 20)}).encode())
    server.fail_next(
        200, body=body, headers={"Content-Encoding": "gzip"}, endpoint="metadata", count=None
    )
    tracemalloc.start()
    try:
        assert "longer than 1 MiB" in refused(server)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fault", [{"drip": 0.05}, {"hang": True}])
def test_metadata_takes_half_of_the_time_at_most(
    server: TokenServer, fault: dict[str, Any]
) -> None:
    server.fail_next(endpoint="metadata", count=None, **fault)
    began = time.monotonic()
    assert "could not be read" in refused(server, timeout=1)
    assert time.monotonic() - began < 0.9


def test_a_token_request_gets_only_the_time_that_the_metadata_has_left(
    server: TokenServer,
) -> None:
    server._service.latency["metadata"] = 0.4
    server.fail_next(hang=True)
    began = time.monotonic()
    with pytest.raises(RefreshTemporarilyFailed, match=r"/token .*total timeout of 1 s"):
        source(server, timeout=1)()
    assert time.monotonic() - began < 1.3


def test_netrc_is_not_read_for_metadata(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    source(server)()
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("where", ["issuer", "redirect", "token_endpoint"])
def test_an_error_shows_no_secret_that_the_metadata_has(server: TokenServer, where: str) -> None:
    if where == "redirect":
        server.fail_next(redirect="https://x/s3cret-of-ours", endpoint="metadata", count=None)
    else:
        server.metadata[where] = "https://x:s3cret-of-ours/\n"
    assert "s3cret-of-ours" not in refused(server, client_secret="s3cret-of-ours")


@pytest.mark.parametrize(
    ("issuer", "message"),
    [
        ("https://id.example?tenant=1", "issuer must not have a query"),
        ("https://id.example/?", "issuer must not have a query"),
        ("https://id.example#x", "issuer must not have a fragment"),
        ("id.example", "issuer must begin with https://"),
        ("https://user@id.example", "issuer must not contain a user"),
    ],
)
def test_an_invalid_issuer_is_refused_at_once(issuer: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ClientCredentials(issuer=issuer, client_id="app")


def test_an_issuer_on_plain_http_is_refused_at_once() -> None:
    with pytest.raises(UnsafeTarget, match="allow_http"):
        ClientCredentials(issuer="http://id.example", client_id="app")


@pytest.mark.parametrize("given", [{}, {"token_url": "https://x/", "issuer": "https://x"}])
def test_one_of_token_url_and_issuer_is_required(given: dict[str, str]) -> None:
    with pytest.raises(TypeError, match=r"^token_url and issuer are both .*: pass one of them"):
        ClientCredentials(client_id="app", **given)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("token_endpoint", None),
        ("code_challenge_methods_supported", "S256"),
        ("token_endpoint_auth_methods_supported", [1]),
    ],
)
def test_malformed_metadata_is_refused(server: TokenServer, member: str, value: object) -> None:
    server.metadata[member] = value
    assert member in refused(server)


# --- what it says ------------------------------------------------------------------------


def test_a_login_uses_the_endpoints_of_the_metadata(server: TokenServer) -> None:
    said = {
        "authorization_endpoint": "https://id.example/authorize",
        "device_authorization_endpoint": "https://id.example/device",
        "registration_endpoint": "https://id.example/register",
        "code_challenge_methods_supported": ["plain", "S256"],
        "authorization_response_iss_parameter_supported": True,
    }
    methods = ["client_secret_basic", "client_secret_post", "none"]
    server.metadata.update(said, token_endpoint_auth_methods_supported=methods)
    found = source(server).discover()
    assert found == discovery.ServerMetadata(
        issuer=server.issuer,
        token_endpoint=server.token_url,
        authorization_endpoint="https://id.example/authorize",
        device_authorization_endpoint="https://id.example/device",
        revocation_endpoint=server.revocation_url,
        registration_endpoint="https://id.example/register",
        token_endpoint_auth_methods_supported=("client_secret_basic", "client_secret_post", "none"),
        code_challenge_methods_supported=("plain", "S256"),
        authorization_response_iss_parameter_supported=True,
    )


@pytest.mark.parametrize("said", ["true", 1, None])
def test_only_true_promises_the_issuer_in_responses(server: TokenServer, said: object) -> None:
    server.metadata["authorization_response_iss_parameter_supported"] = said
    found = source(server).discover()
    assert found is not None
    assert found.authorization_response_iss_parameter_supported is False


@pytest.mark.parametrize(
    ("supported", "chosen", "sent"),
    [
        (["client_secret_post", "client_secret_basic"], None, "basic"),
        (["private_key_jwt", "client_secret_post"], None, "post"),
        (None, None, "basic"),  # RFC 8414 section 2
        (["client_secret_basic"], "client_secret_post", "post"),
    ],
)
def test_the_client_authenticates_as_the_server_supports(
    server: TokenServer, supported: list[str] | None, chosen: str | None, sent: str
) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = supported
    grant = source(server, client_auth=chosen)
    token = grant()
    grant.revoke(token)
    for request in server.requests[1:]:
        assert ("authorization" in request.headers) == (sent == "basic")
        assert ("client_secret" in request.form) == (sent == "post")


def test_a_public_client_sends_only_its_identifier() -> None:
    with TokenServer(clients={"public": None}) as server:
        server.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
        assert source(server, client_id="public", client_secret=None)().access_token


def test_a_server_that_takes_no_client_secret_is_a_configuration_error(
    server: TokenServer,
) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    assert "only private_key_jwt" in refused(server)
    with pytest.raises(RefreshConfigError, match="only private_key_jwt"):
        source(server).revoke(Token("some-token"))
    assert "/revoke" not in paths(server)


def test_tokens_are_revoked_where_the_metadata_says(server: TokenServer) -> None:
    grant = source(server)
    assert not grant.revokes
    grant.revoke(Token("some-token"))
    assert grant.revokes
    assert paths(server) == [RFC_8414, "/revoke"]


def test_without_a_revocation_endpoint_revoking_raises(server: TokenServer) -> None:
    server.metadata["revocation_endpoint"] = None
    with pytest.raises(ValueError, match="revocation_url is not given"):
        source(server).revoke(Token("some-token"))


# --- when it is read ---------------------------------------------------------------------


def test_a_fresh_token_needs_no_metadata(server: TokenServer, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    TokenKeeper(source(server), store).current()
    discovery._known.clear()  # as in another process
    before = len(server.requests)
    keeper = TokenKeeper(source(server), store)
    session = requests.Session()
    TokenAdapter(server.api_url, keeper).mount(session)
    session.get(server.api_url)
    session.post(server.api_url, data={"name": "value"})
    assert paths(server)[before:] == ["/api/", "/api/"]


def test_metadata_is_read_once_a_day_in_a_process(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        source(server)()
    assert paths(server).count(RFC_8414) == 1
    now = time.monotonic()
    monkeypatch.setattr(discovery.time, "monotonic", lambda: now + 86_401)
    source(server)()
    assert paths(server).count(RFC_8414) == 2


def test_metadata_read_without_verification_is_not_used_with_it(
    https_server: TokenServer, ca_file: str
) -> None:
    with pytest.warns(match="Unverified"):
        source(https_server, verify=False).discover()
    source(https_server, verify=ca_file).discover()
    assert paths(https_server).count(RFC_8414) == 2


def test_old_metadata_is_used_while_the_server_gives_none(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = source(server)
    grant()
    now = time.monotonic()
    monkeypatch.setattr(discovery.time, "monotonic", lambda: now + 86_401)
    server.fail_next(503, endpoint="metadata", count=None)
    for _ in range(2):
        assert grant().access_token
    assert paths(server)[2:] == [RFC_8414, OPENID, "/token", "/token"]


def test_a_token_endpoint_that_has_moved_is_found(server: TokenServer) -> None:
    server.metadata["token_endpoint"] = f"{server.url}/moved"
    grant = source(server)
    with pytest.raises(RefreshConfigError, match="404"):
        grant()
    server.metadata.clear()
    assert grant().access_token


def test_client_authentication_that_is_supported_again_is_used(server: TokenServer) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    grant = source(server)
    with pytest.raises(RefreshConfigError, match="accepts no client secret in a supported way"):
        grant()
    server.metadata.clear()
    assert grant().access_token


def test_an_outage_of_the_metadata_spends_no_refresh_token(
    server: TokenServer, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "token.json")
    client: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}
    grant = RefreshToken(issuer=server.issuer, **client)
    keeper = TokenKeeper(grant, store)
    keeper.adopt(server.issue())
    server.fail_next(503, retry_after=7, endpoint="metadata", count=2)
    with pytest.raises(RefreshTemporarilyFailed, match="Nothing was spent") as caught:
        keeper.refresh()
    assert caught.value.processed is False
    document = store.load().document
    assert document is not None
    assert "intent" not in document
    assert document["backoff"]


# --- whose tokens they are ---------------------------------------------------------------


def test_a_changed_token_endpoint_keeps_the_login(server: TokenServer, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    client: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}
    keeper = TokenKeeper(RefreshToken(issuer=server.issuer, **client), store)
    keeper.adopt(server.issue())
    discovery._known.clear()
    server.metadata["token_endpoint"] = f"{server.token_url}?version=2"
    later = TokenKeeper(RefreshToken(issuer=server.issuer, **client), store)
    assert later.refresh().refresh_token
    assert server.stats.refreshes == 1


def test_the_token_of_another_issuer_is_refused(server: TokenServer, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    TokenKeeper(source(server), store).current()
    with pytest.raises(RefreshConfigError, match="issuer"):
        TokenKeeper(source(server, issuer=f"{server.issuer}/tenant"), store).current()


def test_a_pickled_source_reads_the_metadata_itself(server: TokenServer) -> None:
    grant = pickle.loads(pickle.dumps(source(server)))
    assert grant().access_token


# --- its own URLs get no token -----------------------------------------------------------


def test_a_token_request_of_the_program_is_not_signed(server: TokenServer, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    TokenKeeper(source(server), store).current()
    discovery._known.clear()  # as in another process, which has read no metadata
    session = requests.Session()
    TokenAdapter(server.url + "/", source(server), store=store).mount(session)
    form = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "secret"}
    assert session.post(server.token_url, data=form).status_code == 200
    session.post(server.revocation_url, data={"token": "x", **form})
    session.get(server.issuer + OPENID)
    ours = [request for request in server.requests if request.path in ("/token", "/revoke", OPENID)]
    assert len(ours) == 4
    assert not [request for request in ours[1:] if "authorization" in request.headers]
    session.get(server.api_url)
    assert "authorization" in server.requests[-1].headers


def test_a_form_that_may_be_a_token_request_is_not_signed_while_metadata_is_out_of_reach(
    server: TokenServer, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "token.json")
    TokenKeeper(source(server), store).current()
    discovery._known.clear()
    server.fail_next(503, endpoint="metadata", count=None)
    session = requests.Session()
    TokenAdapter(server.url + "/", source(server), store=store).mount(session)
    session.post(server.token_url, data="grant_type=password&username=x")
    assert "authorization" not in server.requests[-1].headers


def test_an_api_may_have_forms_with_such_names(server: TokenServer, tmp_path: Path) -> None:
    session = requests.Session()
    TokenAdapter(server.api_url, source(server)).mount(session)
    assert session.post(server.api_url, data={"token": "x"}).status_code == 200


def test_every_client_leaves_a_token_request_unsigned(server: TokenServer, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    TokenKeeper(source(server), store).current()
    prefix, form = f"{server.url}/", {"grant_type": "password", "username": "x"}
    discovery._known.clear()
    with installed(TokenAdapter(prefix, source(server), store=store)):
        requests.post(server.token_url, data=form, timeout=10)
    discovery._known.clear()
    with TokenPoolManager(prefix, source(server), store=store) as pool:
        pool.request("POST", server.token_url, fields=form, encode_multipart=False)
    sent = [request for request in server.requests if request.form.get("grant_type") == "password"]
    assert len(sent) == 2
    assert not any("authorization" in request.headers for request in sent)
