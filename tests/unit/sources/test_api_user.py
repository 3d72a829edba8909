"""The user of an API of which only the URL is known: login, registration, renewal, logout."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tokenadapter import (
    ApiUser,
    EncryptedStore,
    FileStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    Token,
    TokenAdapter,
    TokenKeeper,
    UnsafeTarget,
    login,
    logout,
)
from tokenadapter.sources import discovery
from tokenadapter.sources.client_auth import ClientSecretPost
from tokenadapter.sources.registration import Registration
from tokenadapter.testing import Browser, TokenServer
from unit.stores.servers import free_port


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(rotate=True, device_interval=0.05) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "token.json")


def log_in(source: ApiUser, store: Any, **options: Any) -> Token:
    browser = Browser()
    settings = {"flow": "browser", "browser": browser, "show": lambda text: None, **options}
    try:
        return login(source, store, **settings)
    finally:
        browser.join()


def given_client(server: TokenServer) -> ApiUser:
    """The source of a client that was registered before."""
    return ApiUser(server.api_url, client_id="client", client_secret="secret", issuer=server.issuer)


def paths(server: TokenServer) -> list[str]:
    return [request.path for request in server.requests]


def registered(server: TokenServer) -> list[dict[str, Any]]:
    """What clients said of themselves when they registered."""
    return [json.loads(each.body) for each in server.requests if each.path == "/register"]


def restarted() -> None:
    """Forget what a new process would not know."""
    discovery._known.clear()


# --- from the URL to a token -----------------------------------------------------------------


def test_the_url_of_an_api_is_enough(server: TokenServer, store: FileStore) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    session = requests.Session()
    TokenAdapter(server.api_url, source, store=store).mount(session)
    assert session.get(f"{server.api_url}notes").ok
    server.expire_now()
    assert session.get(f"{server.api_url}notes").ok
    assert server.stats.refreshes == 1


def test_every_request_of_a_login_names_the_api(server: TokenServer, store: FileStore) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    TokenKeeper(source, store).refresh()
    login_request, *_ = [each for each in server.requests if each.path == "/authorize"]
    assert f"resource={requests.utils.quote(server.api_url, safe='')}" in login_request.query
    for request in server.requests:
        if request.path == "/token":
            assert request.form["resource"] == server.api_url


def test_a_client_registers_itself_without_a_secret(server: TokenServer, store: FileStore) -> None:
    log_in(ApiUser(server.api_url, client_name="Notes"), store)
    (described,) = registered(server)
    (redirect_uri,) = described.pop("redirect_uris")
    assert redirect_uri.startswith("http://127.0.0.1:")
    assert described == {
        "client_name": "Notes",
        "application_type": "native",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }


PROGRAM = """
import sys
from tokenadapter import ApiUser, TokenKeeper
print(TokenKeeper(ApiUser(sys.argv[1]), sys.argv[2]).refresh().fingerprint)
"""


def test_the_next_process_needs_no_second_registration(
    server: TokenServer, store: FileStore
) -> None:
    log_in(ApiUser(server.api_url), store)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.api_url, store.path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    stored = TokenKeeper(ApiUser(server.api_url), store).current()
    assert stored.fingerprint == done.stdout.strip()
    # Nor does the next login, which uses the same port.
    restarted()
    log_in(ApiUser(server.api_url), store)
    assert len(registered(server)) == 1


def test_a_device_login_registers_too(server: TokenServer, store: FileStore) -> None:
    approved: list[str] = []

    def show(text: str) -> None:
        if not approved:
            server.approve_device()
        approved.append(text)

    source = ApiUser(server.api_url)
    login(source, store, flow="device", show=show)
    assert TokenKeeper(source, store).refresh().refresh_token
    # Some servers allow a client one grant only, so a login by browser is another client.
    log_in(source, store)
    assert [described["grant_types"][0] for described in registered(server)] == [
        "urn:ietf:params:oauth:grant-type:device_code",
        "authorization_code",
    ]


def test_a_given_client_is_not_registered(server: TokenServer, store: FileStore) -> None:
    source = given_client(server)
    log_in(source, store)
    TokenKeeper(source, store).refresh()
    assert registered(server) == []
    # Its secret stays where it was configured.
    assert "secret" not in Path(store.path).read_text()


def test_a_token_from_elsewhere_needs_a_client_of_a_known_issuer(
    server: TokenServer, store: FileStore, tmp_path: Path
) -> None:
    given = TokenKeeper(given_client(server), store)
    given.adopt(server.issue())
    assert given.refresh().refresh_token
    for number, client_id in enumerate((None, "client")):
        source = ApiUser(server.api_url, client_id=client_id)
        unknown = TokenKeeper(source, tmp_path / f"{number}.json")
        unknown.adopt(server.issue())
        with pytest.raises(RefreshConfigError, match="its client is unknown"):
            unknown.refresh()


def test_a_secret_that_the_server_insists_on_is_kept_and_encrypted(
    server: TokenServer, tmp_path: Path
) -> None:
    path, key = tmp_path / "token.json", b"k" * 32
    store = EncryptedStore(str(path), key, slot="notes")
    server.fail_next(
        201,
        body={
            "client_id": "client",
            "client_secret": "secret",
            "token_endpoint_auth_method": "client_secret_post",
        },
        endpoint="register",
    )
    token = log_in(ApiUser(server.api_url), store)
    client = Registration.of(token)
    assert client is not None
    assert client.client_secret == "secret"
    assert "secret" not in repr(client)
    assert "secret" not in repr(token)
    assert "tokenadapter_client" not in path.read_text()
    restarted()
    TokenKeeper(ApiUser(server.api_url), store).refresh()
    assert server.requests[-1].form["client_secret"] == "secret"


def test_a_secret_that_has_expired_is_replaced_by_the_next_login(
    server: TokenServer, store: FileStore
) -> None:
    body = {"client_id": "client", "client_secret": "secret", "client_secret_expires_at": 1}
    server.fail_next(201, body=body, endpoint="register")
    log_in(ApiUser(server.api_url), store)
    log_in(ApiUser(server.api_url), store)
    assert len(registered(server)) == 2


@pytest.mark.parametrize(
    ("supported", "way"),
    [
        (["client_secret_basic", "client_secret_post"], "client_secret_post"),
        (["client_secret_basic"], "client_secret_basic"),
        (["private_key_jwt"], "none"),
        (["client_secret_basic", "none"], "none"),
    ],
)
def test_a_client_registers_for_a_way_to_authenticate_that_the_server_supports(
    server: TokenServer, store: FileStore, supported: list[str], way: str
) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = supported
    source = ApiUser(server.api_url)
    log_in(source, store)
    assert registered(server)[0]["token_endpoint_auth_method"] == way
    TokenKeeper(source, store).refresh()
    logout(source, store)


def test_another_scope_is_registered_for_another_client(
    server: TokenServer, store: FileStore
) -> None:
    log_in(ApiUser(server.api_url), store)
    server.resource_metadata["scopes_supported"] = ["read", "write"]
    restarted()
    for _ in range(2):
        log_in(ApiUser(server.api_url), store)
    assert [described.get("scope") for described in registered(server)] == [None, "read write"]


def test_a_client_is_registered_for_the_address_that_is_given(
    server: TokenServer, store: FileStore
) -> None:
    log_in(ApiUser(server.api_url), store)
    uri = f"http://localhost:{free_port()}/done"
    for _ in range(2):
        log_in(ApiUser(server.api_url), store, redirect_uri=uri)
    assert [described["redirect_uris"] for described in registered(server)][1:] == [[uri]]


def test_a_port_that_another_program_uses_by_now_is_replaced(
    server: TokenServer, store: FileStore
) -> None:
    log_in(ApiUser(server.api_url), store)
    (first,) = registered(server)[0]["redirect_uris"]
    with socket.create_server(("127.0.0.1", urlsplit(first).port or 0)):
        log_in(ApiUser(server.api_url), store)
    assert registered(server)[1]["redirect_uris"] != [first]


def test_a_client_that_the_server_has_forgotten_is_replaced_after_a_local_logout(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    server.fail_next(401, error="invalid_client")
    with pytest.raises(RefreshConfigError, match=r"with logout\(local=True\)"):
        TokenKeeper(source, store).refresh()
    logout(source, store, local=True)
    log_in(source, store)
    assert len(registered(server)) == 2


def test_after_a_logout_the_client_is_forgotten(server: TokenServer, store: FileStore) -> None:
    source = ApiUser(server.api_url)
    token = log_in(source, store)
    assert logout(source, store) == token
    revoked = [each.form for each in server.requests if each.path == "/revoke"]
    assert [form["token"] for form in revoked] == [token.refresh_token, token.access_token]
    assert source.revokes
    log_in(source, store)
    assert len(registered(server)) == 2


# --- the scope -------------------------------------------------------------------------------


def asked_scope(server: TokenServer) -> str | None:
    request = next(each for each in server.requests if each.path == "/authorize")
    return parse_qs(request.query).get("scope", [None])[0]


@pytest.mark.parametrize(
    ("given", "api", "supported", "asked"),
    [
        (None, None, None, None),
        (None, ["read", "write"], None, "read write"),
        (None, ["read"], ["read", "offline_access"], "read offline_access"),
        (None, ["offline_access"], ["offline_access"], "offline_access"),
        ("mine", ["read"], ["offline_access"], "mine"),
    ],
)
def test_a_login_asks_for_the_scope_of_the_api(
    server: TokenServer,
    store: FileStore,
    given: str | None,
    api: list[str] | None,
    supported: list[str] | None,
    asked: str | None,
) -> None:
    server.resource_metadata["scopes_supported"] = api
    server.metadata["scopes_supported"] = supported
    source = ApiUser(server.api_url, scope=given)
    log_in(source, store)
    assert asked_scope(server) == asked
    TokenKeeper(source, store).refresh()


def test_the_challenge_says_which_scope_is_needed(server: TokenServer, store: FileStore) -> None:
    server.resource_metadata["scopes_supported"] = ["read", "admin"]
    named = f"{server.url}/.well-known/oauth-protected-resource/api/"
    challenge = f'Bearer resource_metadata="{named}", scope="read"'
    server.fail_next(401, endpoint="api", headers={"WWW-Authenticate": challenge})
    log_in(ApiUser(server.api_url), store)
    assert asked_scope(server) == "read"


# --- the login belongs to one authorization server -------------------------------------------


def test_a_refresh_token_is_never_presented_to_another_authorization_server(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    restarted()
    with TokenServer() as other:
        server.resource_metadata["authorization_servers"] = [other.issuer]
        keeper = TokenKeeper(source, store)
        with pytest.raises(RefreshConfigError, match=r"does not name .* as its authorization"):
            keeper.refresh()
        with pytest.raises(RefreshConfigError, match="does not name"):
            logout(source, store)
        assert not {"/token", "/revoke"} & set(paths(other))
        # What the API says is read again, without a restart.
        server.resource_metadata.clear()
        assert keeper.refresh().refresh_token


def test_a_given_client_is_never_used_at_another_authorization_server(
    server: TokenServer, store: FileStore
) -> None:
    with TokenServer() as other:
        server.resource_metadata["authorization_servers"] = [other.issuer]
        keeper = TokenKeeper(given_client(server), store)
        with pytest.raises(RefreshConfigError, match="Check client_id and issuer"):
            log_in(keeper.grant, store)
        keeper.adopt(server.issue())
        with pytest.raises(RefreshConfigError, match="does not name"):
            keeper.refresh()
        assert other.requests == ()
        # It may be one of several.
        restarted()
        server.resource_metadata["authorization_servers"] = [other.issuer, server.issuer]
        log_in(keeper.grant, store)
        assert other.requests == ()


def test_the_server_of_the_login_may_be_one_of_several(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    restarted()
    others = ["https://id.example", server.issuer]
    server.resource_metadata["authorization_servers"] = others
    assert TokenKeeper(source, store).refresh().refresh_token


@pytest.mark.parametrize(("of_api", "of_server"), [("/", ""), ("", "/")])
def test_an_api_may_add_or_drop_the_slash_after_the_host_of_its_server(
    server: TokenServer, store: FileStore, of_api: str, of_server: str
) -> None:
    server.resource_metadata["authorization_servers"] = [server.issuer + of_api]
    server.metadata["issuer"] = server.issuer + of_server
    source = ApiUser(server.api_url)
    # The other logins compare the issuer that the test server names in its answer.
    log_in(source, store, flow="device", show=lambda text: server.approve_device())
    restarted()
    assert TokenKeeper(source, store).refresh().refresh_token
    assert source.discover().issuer == server.issuer + of_server


def test_a_new_authorization_server_gets_a_new_client(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    restarted()
    with TokenServer() as other:
        server.resource_metadata["authorization_servers"] = [other.issuer]
        log_in(source, store)
        assert len(registered(other)) == 1


def test_a_store_cannot_name_another_server_for_the_refresh_token(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    with TokenServer() as other:
        path = Path(store.path)
        path.write_text(path.read_text().replace(f'"{server.issuer}"', f'"{other.issuer}"'))
        with pytest.raises(RefreshConfigError, match="does not name"):
            TokenKeeper(source, FileStore(path)).refresh()
        assert other.requests == ()


@pytest.mark.parametrize(
    "kept", [None, 7, [], {}, {"issuer": "x"}, {"issuer": 1, "client_id": "c"}, {"expires_at": "x"}]
)
def test_invalid_content_of_a_store_is_no_client(kept: object) -> None:
    assert Registration.of(Token("t", extras={"tokenadapter_client": kept})) is None


def test_a_server_cannot_replace_the_client_by_its_answer(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    token = log_in(source, store)
    body = {"access_token": "a", "tokenadapter_client": {"issuer": "https://evil.example"}}
    server.fail_next(200, body=body)
    renewed = TokenKeeper(source, store).refresh()
    assert Registration.of(renewed) == Registration.of(token)


# --- whose token -----------------------------------------------------------------------------


def test_the_token_of_another_api_is_refused(server: TokenServer, store: FileStore) -> None:
    log_in(ApiUser(server.api_url), store)
    for other in (
        ApiUser(f"{server.api_url}other"),
        ApiUser(server.api_url, client_id="client"),
        ApiUser(server.api_url, account="ada"),
    ):
        with pytest.raises(RefreshConfigError, match="holds the token of"):
            TokenKeeper(other, store).current()


def test_a_fresh_token_contacts_no_server(server: TokenServer, store: FileStore) -> None:
    token = log_in(ApiUser(server.api_url), store)
    restarted()
    before = len(server.requests)
    assert TokenKeeper(ApiUser(server.api_url), store).current() == token
    assert len(server.requests) == before


def test_without_a_login_nothing_is_sent(server: TokenServer, store: FileStore) -> None:
    with pytest.raises(ReauthRequired, match=r"tokenadapter\.login\(\)"):
        TokenKeeper(ApiUser(server.api_url), store).current()
    assert server.requests == ()


def test_an_outage_of_the_api_is_temporary(server: TokenServer, store: FileStore) -> None:
    source = ApiUser(server.api_url, timeout=2)
    log_in(source, store)
    restarted()
    server.fail_next(503, endpoint="resource_metadata", count=None)
    with pytest.raises(RefreshTemporarilyFailed, match=r"The metadata of .* could not be read"):
        TokenKeeper(source, store).refresh()
    assert server.stats.refreshes == 0


def test_the_source_is_copied_with_its_settings(server: TokenServer) -> None:
    source = pickle.loads(pickle.dumps(ApiUser(server.api_url, scope="read", account="ada")))
    assert source.owner == {"grant": "refresh_token", "api": server.api_url, "user": "ada"}
    assert source.requested == {"scope": "read"}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"url": "http://api.example/"}, UnsafeTarget, "allow_http"),
        ({"url": "file:///etc/passwd"}, ValueError, "url must begin with https://"),
        ({"url": "https://x/", "client_secret": "s"}, ValueError, "client_id is missing"),
        ({"url": "https://x/", "issuer": "https://y/"}, ValueError, "client_id is missing"),
        (
            {"url": "https://x/", "client_id": "c", "client_secret": "s"},
            ValueError,
            "issuer is missing",
        ),
        (
            {"url": "https://x/", "client_id": "c", "client_auth": ClientSecretPost("s")},
            ValueError,
            "issuer is missing",
        ),
        ({"url": "https://x/", "client_id": ""}, ValueError, "client_id is empty"),
        ({"url": "https://x/", "client_name": ""}, ValueError, "client_name is empty"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ApiUser(**arguments)


def test_a_server_without_a_revocation_endpoint_is_named_at_a_logout(
    server: TokenServer, store: FileStore
) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    restarted()
    with TokenServer() as other:
        server.metadata["revocation_endpoint"] = None
        server.resource_metadata["authorization_servers"] = [other.issuer, server.issuer]
        with pytest.raises(RefreshConfigError, match=f"{server.issuer} has no revocation endpoint"):
            logout(source, store)
        assert "/revoke" not in paths(other)
        assert logout(source, store, local=True)


def test_an_answer_that_is_too_large_loses_no_client(server: TokenServer, store: FileStore) -> None:
    source = ApiUser(server.api_url)
    log_in(source, store)
    keeper = TokenKeeper(source, store)
    server.fail_next(200, body={"access_token": "t0ken", "more": "x" * 300_000})
    keeper.refresh()
    assert keeper.refresh().access_token != "t0ken"


# --- attacks on the way to a login -----------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "http://id.example/"]
)
def test_nothing_but_a_web_page_is_opened(server: TokenServer, store: FileStore, url: str) -> None:
    server.metadata["authorization_endpoint"] = url
    opened: list[str] = []
    with pytest.raises(RefreshConfigError, match="authorization_endpoint"):
        log_in(ApiUser(server.api_url), store, browser=opened.append)
    assert opened == []
    assert registered(server) == []


@pytest.mark.parametrize("is_promised", [True, False])
def test_an_answer_of_another_issuer_is_refused_before_its_code_is_sent(
    server: TokenServer, store: FileStore, is_promised: bool
) -> None:
    # A server that others control promises none, and sends the user to the server of its victim.
    server.metadata["authorization_response_iss_parameter_supported"] = is_promised

    def mix_up(url: str) -> None:
        asked = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}
        answer = {"code": "x", "state": asked["state"], "iss": "https://evil.example"}
        requests.get(asked["redirect_uri"], answer, timeout=30)

    with pytest.raises(RefreshConfigError, match=r"names the issuer 'https://evil\.example'"):
        log_in(ApiUser(server.api_url), store, browser=mix_up)
    assert server.stats.token_requests == 0


LOGIN = """
import sys
from tokenadapter import ApiUser, login
token = login(ApiUser(sys.argv[1]), sys.argv[2], flow="browser",
              browser=lambda url: print(url, flush=True),
              show=lambda text: print("waits" if "Another process" in text else "asks", flush=True))
print(token.fingerprint)
"""


def test_processes_that_log_in_at_once_register_one_client(
    server: TokenServer, store: FileStore
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOGIN, server.api_url, store.path],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [process.stdout for process in processes if process.stdout is not None]
    try:
        said = [output.readline().strip() for output in outputs]
        assert sorted(said) == ["asks", "waits", "waits"]
        Browser().visit(outputs[said.index("asks")].readline().strip())
        assert len({output.readline() for output in outputs}) == 1
        assert [process.wait(10) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert len(registered(server)) == 1


def test_an_api_that_changes_its_mind_during_a_login_mixes_no_servers(
    server: TokenServer, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    with TokenServer() as other:

        def changing(source: ApiUser) -> Any:
            found = discover(source)
            restarted()
            server.resource_metadata["authorization_servers"] = [other.issuer]
            return found

        discover = ApiUser.discover
        monkeypatch.setattr(ApiUser, "discover", changing)
        with pytest.raises(ReauthRequired, match="No answer came"):
            log_in(ApiUser(server.api_url), store, browser=opened.append, timeout=0.1)
        assert len(registered(other)) == 1
        assert opened[0].startswith(other.authorization_url)
