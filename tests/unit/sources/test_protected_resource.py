"""From an API to its authorization server, and which metadata is refused."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest
import requests

from tokenadapter import ApiUser, RefreshConfigError, RefreshTemporarilyFailed, TokenError
from tokenadapter.sources.protected_resource import ProtectedResource, ResourceMetadata, well_known
from tokenadapter.testing import TokenServer

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def paths(server: TokenServer) -> list[str]:
    return [request.path for request in server.requests]


def read(url: str, **options: Any) -> ResourceMetadata:
    found = ProtectedResource(url, **options).metadata()
    if isinstance(found, ResourceMetadata):
        return found
    raise found


def refused(server: TokenServer, url: str | None = None, **options: Any) -> str:
    """The error of an API whose metadata is refused, after which nothing was sent."""
    with pytest.raises(TokenError) as caught:
        ApiUser(url or server.api_url, **options).discover()
    assert isinstance(caught.value, (RefreshConfigError, RefreshTemporarilyFailed))
    assert not {"/register", "/token"} & set(paths(server))
    return str(caught.value)


# --- where the metadata is -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://api.example", f"https://api.example{WELL_KNOWN}"),
        ("https://api.example/", f"https://api.example{WELL_KNOWN}"),
        ("https://api.example/mcp", f"https://api.example{WELL_KNOWN}/mcp"),
        ("https://api.example/mcp/", f"https://api.example{WELL_KNOWN}/mcp/"),
        ("https://api.example/?k=v", f"https://api.example{WELL_KNOWN}?k=v"),
        ("https://api.example/mcp?k=v", f"https://api.example{WELL_KNOWN}/mcp?k=v"),
        ("https://api.example:8443/a/b", f"https://api.example:8443{WELL_KNOWN}/a/b"),
    ],
)
def test_the_well_known_url_is_that_of_rfc_9728(resource: str, url: str) -> None:
    assert well_known(resource) == url


def test_the_api_names_its_metadata_in_a_401(server: TokenServer) -> None:
    found = read(server.api_url)
    assert found == ResourceMetadata(server.api_url, (server.issuer,))
    assert paths(server) == ["/api/", f"{WELL_KNOWN}/api/"]
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("path", "tried"),
    [
        ("/public/mcp", ["/public/mcp"]),
        ("/public/mcp/", ["/public/mcp/", "/public/mcp"]),
        ("/public/mcp", ["/public/mcp", ""]),
        ("", [""]),
    ],
)
def test_an_api_that_names_none_has_it_at_a_well_known_url(
    server: TokenServer, path: str, tried: list[str]
) -> None:
    for _ in tried[1:]:
        server.fail_next(404, endpoint="resource_metadata")
    found = read(f"{server.url}{path}")
    assert found.resource == f"{server.url}{tried[-1]}"
    assert paths(server)[1:] == [f"{WELL_KNOWN}{each}" for each in tried]


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"hang": True}, {"reset": True}, {"status": 405}]
)
def test_an_api_that_does_not_answer_a_get_may_have_metadata_all_the_same(
    server: TokenServer, fault: dict[str, Any]
) -> None:
    server.fail_next(endpoint="api", **fault)
    assert read(server.api_url, timeout=2).resource == server.api_url


def test_an_api_without_metadata_is_a_configuration_error(server: TokenServer) -> None:
    server.fail_next(404, endpoint="resource_metadata", count=None)
    message = refused(server)
    assert "The metadata of http" in message
    assert "use RefreshToken with the issuer" in message


def test_metadata_is_read_once_a_day_in_a_process(server: TokenServer) -> None:
    ApiUser(server.api_url).discover()
    before = len(server.requests)
    ApiUser(server.api_url).discover()
    assert len(server.requests) == before


# --- whose metadata it is --------------------------------------------------------------------


@pytest.mark.parametrize(
    "resource",
    [
        "https://bank.example/",
        "{api}v1",
        "{url}/ap",
        "{url}/api/?tenant=1",
        "{url}/api/#x",
        "{url}:80/api/",
        "{url}@evil.example/",
        "https://[",
        None,
        7,
        ["{api}"],
    ],
)
def test_the_metadata_of_another_api_is_refused(server: TokenServer, resource: Any) -> None:
    if isinstance(resource, str):
        resource = resource.format(api=server.api_url, url=server.url)
    server.resource_metadata["resource"] = resource
    assert "the metadata of another resource" in refused(server) or resource == "https://["
    assert "/.well-known/oauth-authorization-server" not in paths(server)


def challenge(server: TokenServer, named: str) -> None:
    """Have the API name its metadata at *named*."""
    value = f'Bearer resource_metadata="{named}"'
    server.fail_next(401, endpoint="api", headers={"WWW-Authenticate": value})


def test_an_api_cannot_have_users_log_in_for_another_host(server: TokenServer) -> None:
    # The metadata is genuine: it is that of the API which the token would be stolen from.
    with TokenServer() as bank:
        challenge(server, f"{bank.url}{WELL_KNOWN}")
        assert read(server.api_url).authorization_servers == (server.issuer,)
        assert [*paths(bank)] == [WELL_KNOWN]


def test_an_api_may_be_a_part_of_one_that_speaks_for_itself(server: TokenServer) -> None:
    found = read(f"{server.api_url}v1/notes")
    assert found.resource == server.api_url


def test_an_api_does_not_speak_for_the_whole_host(server: TokenServer) -> None:
    # Tenants share a host: one of them could have users log in for all.
    server.resource_metadata["resource"] = f"{server.url}/api"
    challenge(server, f"{server.url}{WELL_KNOWN}/api/v1")
    assert "the metadata of another resource" in refused(server, f"{server.url}/api/v1")


@pytest.mark.parametrize(
    "named",
    [
        "http://id.example/metadata",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//id.example/",
        "https://user@id.example/",
        "nonsense",
        "",
    ],
)
def test_a_url_that_must_not_be_opened_is_not(server: TokenServer, named: str) -> None:
    challenge(server, named)
    assert read(server.api_url).resource == server.api_url
    assert paths(server) == ["/api/", f"{WELL_KNOWN}/api/"]


def test_an_api_on_https_names_no_plain_http(
    https_server: TokenServer, ca_file: str, server: TokenServer
) -> None:
    challenge(https_server, f"{server.url}{WELL_KNOWN}/api/")
    assert read(https_server.api_url, verify=ca_file).resource == https_server.api_url
    assert server.requests == ()


# --- its authorization servers ---------------------------------------------------------------


@pytest.mark.parametrize(
    "servers",
    [
        None,
        [],
        "https://id.example",
        [7],
        ["file:///etc/passwd"],
        ["javascript:alert(1)"],
        ["http://id.example"],
        ["https://id.example?tenant=1"],
        ["https://id.example", "http://id.example"],
    ],
)
def test_an_authorization_server_that_is_none_is_refused(
    server: TokenServer, servers: object
) -> None:
    server.resource_metadata["authorization_servers"] = servers
    server.fail_next(404, endpoint="metadata", count=None)
    assert f"The metadata of {server.api_url}" in refused(server)
    assert "/.well-known/oauth-authorization-server" not in paths(server)


def test_an_api_on_https_has_no_authorization_server_on_plain_http(
    https_server: TokenServer, ca_file: str, server: TokenServer
) -> None:
    https_server.resource_metadata["authorization_servers"] = [server.issuer]
    message = refused(https_server, verify=ca_file)
    assert "authorization_servers is plain http" in message
    assert server.requests == ()


def test_an_authorization_server_must_be_the_one_that_the_api_names(server: TokenServer) -> None:
    server.resource_metadata["authorization_servers"] = [f"{server.issuer}/tenant/"]
    server.metadata["issuer"] = f"{server.issuer}/tenant"
    assert "the metadata of another issuer" in refused(server)


# --- strangers -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: TokenServer, status: int) -> None:
    with TokenServer() as other:
        other.resource_metadata["resource"] = server.api_url
        server.fail_next(
            status,
            redirect=f"{other.url}{WELL_KNOWN}/api/",
            endpoint="resource_metadata",
            count=None,
        )
        assert "a redirect to" in refused(server)
        server.fail_next(status, redirect=other.api_url, endpoint="api")
        refused(server)
        assert other.requests == ()


def test_metadata_of_10_mib_is_refused(server: TokenServer) -> None:
    server.resource_metadata["padding"] = "x" * (10 << 20)
    assert "longer than 1 MiB" in refused(server)


@pytest.mark.parametrize("endpoint", ["api", "resource_metadata"])
def test_50_mib_behind_gzip_are_never_in_memory(server: TokenServer, endpoint: Any) -> None:
    usual = requests.get(f"{server.url}{WELL_KNOWN}/api/", timeout=10).json()
    body = gzip.compress(json.dumps({**usual, "padding": "x" * (50 << 20)}).encode())
    headers = {"Content-Encoding": "gzip"}
    server.fail_next(200, body=body, headers=headers, endpoint=endpoint, count=None)
    tracemalloc.start()
    try:
        if endpoint == "api":
            assert read(server.api_url).resource == server.api_url
        else:
            assert "longer than 1 MiB" in refused(server)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fault", [{"drip": 0.05}, {"hang": True}])
def test_metadata_that_takes_too_long_is_not_used(
    server: TokenServer, fault: dict[str, Any]
) -> None:
    for endpoint in ("api", "resource_metadata"):
        server.fail_next(endpoint=endpoint, count=None, **fault)  # type: ignore[arg-type]
    assert "could not be read" in refused(server, timeout=0.5)


@pytest.mark.parametrize("challenge", ["", "Basic", 'Bearer resource_metadata="', "x" * 60_000])
def test_any_challenge_is_survived(server: TokenServer, challenge: str) -> None:
    server.fail_next(401, endpoint="api", headers={"WWW-Authenticate": challenge})
    assert read(server.api_url).resource == server.api_url
