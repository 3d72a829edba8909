"""Providers: the settings that a source takes from the facts about its provider."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import requests

from tokenadapter import (
    ClientCredentials,
    FileStore,
    Password,
    RefreshConfigError,
    RefreshToken,
    TokenAdapter,
    TokenAuth,
    TokenKeeper,
    TokenPoolManager,
    installed,
    login,
)
from tokenadapter.logins.authorization import Authorization
from tokenadapter.sources import providers
from tokenadapter.testing import Browser, TokenServer

ODD = """
[odd]
name = "Odd"
example = {{ prefix = "{api}" }}

[[odd.facts]]
source = "https://example.com/"
date = 2026-11-28
token_url = "{token_url}"
authorization_url = "{authorization_url}"
authorization_parameters = {{ access_type = "offline" }}
client_auth = "client_secret_post"
scope = "offline_access"
scope_separator = ","
redirect_uri = "http://127.0.0.1/"
grace = 60
renew_early = false
grant_type = "account_credentials"
login_lifetime = 1000
verdict = {{ status = 200, json = {{ method = "GET" }} }}

[odd_too]
name = "Odd, too"
"""


@pytest.fixture
def odd(server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenServer:
    """The server of the provider ``odd``, which is like no other."""
    path = tmp_path / "providers.toml"
    text = ODD.format(
        api=server.api_url,
        token_url=server.token_url,
        authorization_url=server.authorization_url,
    )
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(providers, "PATH", str(path))
    return server


@pytest.fixture
def realms() -> Iterator[TokenServer]:
    """An HTTPS server whose every path is an issuer, as the realms of Keycloak are."""
    with TokenServer(https=True) as server:
        yield server


def user(**options: Any) -> RefreshToken:
    return RefreshToken(client_id="client", client_secret="secret", **options)


def test_a_user_logs_in_at_a_provider_and_its_token_is_renewed(
    odd: TokenServer, tmp_path: Path
) -> None:
    source = user(provider="odd", scope="read")
    store = FileStore(tmp_path / "token.json")
    token = login(source, store, browser=Browser())
    asked = parse_qs(next(r.query for r in odd.requests if r.path == "/authorize"))
    assert (asked["access_type"], asked["scope"]) == (["offline"], ["read,offline_access"])
    assert TokenKeeper(source, store).renew(token).refresh_token
    assert odd.requests[-1].form["client_secret"] == "secret"


def test_a_provider_with_tenants_is_found_by_its_issuer(
    realms: TokenServer, tmp_path: Path
) -> None:
    source = user(
        provider="keycloak",
        domain=urlsplit(realms.url).netloc,
        tenant="main",
        verify=realms.ca_file,
    )
    browser = Browser(ca_file=realms.ca_file)
    # The test server names itself in answers, and not the realm.
    settings = {"browser": browser, "redirect_uri": "http://127.0.0.1/", "iss": realms.issuer}
    assert login(source, tmp_path / "token.json", **settings).refresh_token
    assert source.owner["provider"] == f"keycloak {urlsplit(realms.url).netloc} main"


def test_a_renewal_that_ends_the_old_token_comes_no_earlier_than_it_must(odd: TokenServer) -> None:
    source = user(provider="odd")
    assert TokenKeeper(source).renew_early is False
    assert TokenAdapter(odd.api_url, source).keeper.renew_early is False
    assert TokenKeeper(source, renew_early=True).renew_early is True
    assert TokenKeeper(user(token_url=odd.token_url)).renew_early is True


def test_the_verdict_of_a_provider_is_that_of_an_adapter_without_one(odd: TokenServer) -> None:
    def replays(source: RefreshToken, **settings: Any) -> int:
        session = requests.Session()
        adapter = TokenAdapter(odd.api_url, source, **settings).mount(session)
        adapter.keeper.adopt(odd.issue())
        return len(session.get(odd.api_url).history)

    source = user(provider="odd")
    assert replays(source) == 1
    assert replays(source, verdict=lambda response: False) == 0
    assert replays(user(token_url=odd.token_url)) == 0


def test_a_grant_of_another_name_is_sent_under_that_name(odd: TokenServer) -> None:
    options: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}
    by_hand = ClientCredentials(odd.token_url, grant_type="account_credentials", **options)
    for source in (by_hand, ClientCredentials(provider="odd", **options)):
        assert source.owner["grant"] == "account_credentials"
        with pytest.raises(RefreshConfigError, match="unsupported_grant_type"):
            source()
        assert odd.requests[-1].form["grant_type"] == "account_credentials"
    renamed = ClientCredentials(provider="odd", grant_type="client_credentials", **options)
    assert renamed().access_token


def test_a_client_that_acts_for_itself_asks_for_no_refresh_token(odd: TokenServer) -> None:
    source = ClientCredentials(
        provider="odd", scope="read", client_id="client", client_secret="secret"
    )
    assert source.requested == {"scope": "read"}
    assert source.grace == 0
    assert source.login_settings == {}


def test_a_password_may_be_presented_at_a_provider(odd: TokenServer) -> None:
    source = Password(
        None, "user", "password", provider="odd", client_id="client", client_secret="secret"
    )
    assert source().refresh_token


def test_a_setting_of_the_caller_takes_precedence(odd: TokenServer) -> None:
    source = user(provider="odd", client_auth="client_secret_basic", grace=0, login_lifetime=2.0)
    assert (source.grace, source.login_lifetime) == (0, 2.0)
    assert user(provider="odd").grace == 60
    assert TokenKeeper(source).adopt(odd.issue()).refresh_token
    assert source.client_credential.startswith("client_secret_basic")


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        (None, ""),
        ("read", "read,offline_access"),
        (["read", "write"], "read,write,offline_access"),
        ("offline_access read", "offline_access,read"),
    ],
)
def test_the_scope_for_refresh_tokens_is_added(
    odd: TokenServer, given: Any, requested: str
) -> None:
    assert user(provider="odd", scope=given).asked.get("scope", "") == requested


def test_a_corrected_fact_costs_no_login(odd: TokenServer, tmp_path: Path) -> None:
    path, before = Path(providers.PATH), user(provider="odd")
    text = path.read_text("utf-8").replace("/token", "/login")
    path.write_text(
        f"{text}\n[[odd_too.facts]]\n".replace(
            "client_auth", 'revocation_url = "https://elsewhere.example/"\nclient_auth'
        ),
        "utf-8",
    )
    after = user(provider="odd")
    assert after.urls != before.urls
    assert after.owner == before.owner
    mine = user(provider="odd", revocation_url="https://evil.example/")
    assert mine.owner != before.owner


def test_a_public_client_needs_no_secret(odd: TokenServer) -> None:
    assert RefreshToken(provider="odd", client_id="app").client_credential.startswith("none")


def test_a_source_with_a_provider_can_be_pickled(odd: TokenServer) -> None:
    again = pickle.loads(pickle.dumps(user(provider="odd")))
    assert again.login_settings == user(provider="odd").login_settings
    assert again.verdict == {"status": 200, "json": {"method": "GET"}}


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (
            {"provider": "gogle"},
            ValueError,
            r"'gogle' is not known\. Did you mean 'google'\? Known",
        ),
        ({"provider": "go.gle"}, ValueError, "is not known"),
        ({"provider": "gitlab.parameters.domain"}, ValueError, "is not known"),
        ({"provider": ""}, ValueError, "provider is empty"),
        ({"provider": 1}, TypeError, "provider must be a str"),
        ({"provider": "google", "domain": "a.example"}, ValueError, "domain has no meaning"),
        ({"provider": "auth0"}, ValueError, "domain is missing: the provider 'auth0' needs the"),
        ({"provider": "google", "issuer": "https://a.example"}, TypeError, "pass one of them"),
        ({"token_url": "https://a.example/", "domain": "a"}, TypeError, "belong to a provider"),
        ({"token_url": "https://a.example/", "grant_type": "a"}, TypeError, "remove it"),
        ({"token_url": "https://a.example/", "login_lifetime": 0}, ValueError, "above 0"),
    ],
)
def test_a_mistake_is_explained(wrong: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        user(**wrong)


@pytest.mark.parametrize(
    "domain",
    [
        "evil.example/?a=",
        "evil.example#",
        "evil.example\\@a.example",
        "a.example@evil.example",
        "a.example/../..",
        "a example",
        "a.example\n",
        "{tenant}",
    ],
)
def test_a_domain_is_a_host_and_no_other_part_of_a_url(domain: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        user(provider="keycloak", domain=domain, tenant="main")
    with pytest.raises(ValueError, match="tenant must be a name"):
        user(provider="keycloak", domain="a.example", tenant="a/b")


@pytest.mark.parametrize("name", providers.known_names())
def test_every_provider_can_be_named(name: str) -> None:
    values = {"domain": "id.example.com", "tenant": "main"}
    needed = {"auth0": ["domain"], "cognito": ["domain"], "okta": ["domain"]}
    given = {key: values[key] for key in needed.get(name, [])}
    if name == "keycloak":
        given = values
    source = user(provider=name, scope="read", **given)
    login_at = source.login_settings
    if "authorization_url" in login_at:
        request = Authorization(source, login_at, "http://localhost:8400/")
        assert request.url.startswith("https://")
    else:
        assert source.discovers
    assert "{" not in "".join([*source.urls, *login_at.values()])


def test_the_facts_are_read_only_where_a_provider_is_named() -> None:
    program = (
        "import sys; from tokenadapter import RefreshToken\n"
        "RefreshToken('https://id.example.com/token', client_id='app')\n"
        "assert 'tokenadapter.sources.providers' not in sys.modules\n"
        "assert 'tomllib' not in sys.modules\n"
        "RefreshToken(provider='google', client_id='app')\n"
        "assert 'requests' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("client", ["httpx", "urllib3", "installed"])
def test_every_client_takes_the_verdict_of_a_provider(odd: TokenServer, client: str) -> None:
    source = user(provider="odd")
    TokenKeeper(source).adopt(odd.issue())
    if client == "httpx":
        with httpx.Client(auth=TokenAuth(odd.api_url, source), trust_env=False) as http:
            assert len(http.get(odd.api_url).history) == 1
    elif client == "urllib3":
        with TokenPoolManager(odd.api_url, source) as pool:
            assert pool.request("GET", odd.api_url).status == 200
    else:
        with installed(TokenAdapter(odd.api_url, source)):
            assert requests.get(odd.api_url, timeout=10).ok
    assert odd.stats.api_requests == 2
