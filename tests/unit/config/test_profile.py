"""Profiles in use: adapters, sessions, and secrets that are read only when needed."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import requests
from hypothesis import given as given_each
from hypothesis import settings
from hypothesis import strategies as st
from profiles import billing, write

import tokenadapter
from tokenadapter import (
    ClientCredentials,
    ProfileError,
    ReauthRequired,
    RefreshConfigError,
    TokenKeeper,
)
from tokenadapter.clients.prefix import Prefix
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.profile import (
    _PLAIN_BASE,
    Profile,
    _canonical,
    _is_plainly_under,
    shared_prefixes,
)
from tokenadapter.sources import discovery
from tokenadapter.testing import TokenServer


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(tmp_path / "tokenadapter.toml"))


def profile(text: str, directory: Path) -> Profile:
    return Profile(ConfigFile.read(str(write(directory, text))), "billing")


def test_a_session_is_signed_and_renews(server: TokenServer, tmp_path: Path) -> None:
    write(tmp_path, billing(server, tmp_path))
    with tokenadapter.session("billing") as session:
        assert session.get(f"{server.api_url}one").status_code == 200
        server.expire_now()
        assert session.get(f"{server.api_url}two").status_code == 200
    assert server.stats.renewals == 2
    assert (tmp_path / "state" / "token.json").exists()


def test_a_profile_may_name_the_issuer(server: TokenServer, tmp_path: Path) -> None:
    text = billing(server, tmp_path)
    text = text.replace(f'token_url = "{server.token_url}"', f'issuer = "{server.issuer}"')
    profile = Profile(ConfigFile.read(write(tmp_path, text)), "billing")
    urls = profile.grant.urls
    assert profile.keeper().current().access_token
    assert server.token_url in profile.grant.urls
    assert server.token_url not in urls


def test_a_token_request_to_the_issuer_of_a_profile_is_not_signed(
    server: TokenServer, tmp_path: Path
) -> None:
    text = billing(server, tmp_path).replace(server.api_url, f"{server.url}/")
    text = text.replace(f'token_url = "{server.token_url}"', f'issuer = "{server.issuer}"')
    # The secret is not needed to find the endpoints.
    text = text.replace('"secret"', '{ env = "SECRET_OF_BILLING" }')
    config = write(tmp_path, text)
    store = Profile(ConfigFile.read(config), "billing").store()
    keeper = TokenKeeper(
        ClientCredentials(issuer=server.issuer, client_id="client", client_secret="secret"), store
    )
    keeper.current()
    discovery._known.clear()  # as in another process
    with tokenadapter.session("billing", config=config) as session:
        session.post(server.token_url, data={"grant_type": "password"})
        assert "authorization" not in server.requests[-1].headers
        assert session.get(server.api_url).status_code == 200


def test_an_adapter_can_be_mounted_by_hand(server: TokenServer, tmp_path: Path) -> None:
    path = write(tmp_path, billing(server, tmp_path))
    path = path.rename(tmp_path / "other.toml")
    adapter = tokenadapter.from_profile("billing", config=str(path))
    with requests.Session() as session:
        adapter.mount(session)
        assert session.get(f"{server.api_url}one").status_code == 200


def test_several_prefixes_share_the_token(server: TokenServer, tmp_path: Path) -> None:
    prefixes = f'prefixes = ["{server.api_url}one", "{server.api_url}two"]'
    text = billing(server, tmp_path).replace(f'prefix = "{server.api_url}"', prefixes)
    write(tmp_path, text)
    with tokenadapter.session("billing") as session:
        for path in ("one/a", "two/b"):
            assert session.get(f"{server.api_url}{path}").status_code == 200
        assert session.get(f"{server.api_url}three").status_code == 401
    assert server.stats.token_requests == 1
    one = tokenadapter.from_profile("billing", f"{server.api_url}two")
    assert one.prefix == f"{server.api_url}two"
    with pytest.raises(ProfileError, match="has several prefixes: pass one"):
        tokenadapter.from_profile("billing")
    with pytest.raises(ProfileError, match="https://else/ is not one of its prefixes"):
        tokenadapter.from_profile("billing", "https://else/")


def test_settings_reach_the_adapter_and_the_keeper(server: TokenServer, tmp_path: Path) -> None:
    settings = (
        'header = "X-Token"\nscheme = ""\nrenew_early = false\nlock_timeout = 7\n'
        "override_auth = false\nmax_replays = 2\nreplay_limit = 9\n"
    )
    text = billing(server, tmp_path).replace("\n[billing.source]", f"{settings}\n[billing.source]")
    (adapter,) = profile(text, tmp_path).adapters()
    keeper, rules = adapter.keeper, adapter.rules
    assert (keeper.renew_early, keeper.lock_timeout) == (False, 7)
    assert (rules.override_auth, rules.max_replays, rules.replay_limit) == (False, 2, 9)
    with requests.Session() as session:
        adapter.mount(session)
        session.get(f"{server.api_url}x")
    assert server.requests[-1].headers["x-token"] == keeper.current().access_token


def test_a_verdict_may_be_a_table_or_a_function(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "verdicts_of_mine.py").write_text(
        "def expired(response):\n    return response.status_code == 419\n"
    )
    for verdict in (
        'verdict = "verdicts_of_mine:expired"',
        "verdict = { status = 419, default = false }",
    ):
        text = billing(server, tmp_path).replace(
            "\n[billing.source]", f"{verdict}\n[billing.source]"
        )
        (adapter,) = profile(text, tmp_path).adapters()
        with requests.Session() as session:
            adapter.mount(session)
            server.fail_next(419, endpoint="api")
            assert session.get(f"{server.api_url}x").status_code == 200


def test_a_dotted_key_in_the_json_of_a_verdict_is_a_path(
    server: TokenServer, tmp_path: Path
) -> None:
    tables = "\n[billing.verdict.json]\nerror.code = [1, 2]\nok = false\n"
    one = profile(billing(server, tmp_path) + tables, tmp_path)
    assert one._verdict is not None
    assert "{'error.code': (1, 2), 'ok': (False,)}" in repr(one._verdict())


def test_a_profile_of_an_api_that_names_its_server(server: TokenServer, tmp_path: Path) -> None:
    text = billing(server, tmp_path)
    text = text[: text.index("[billing.source]")] + (
        f'[billing.source]\ntype = "api_user"\nurl = "{server.api_url}"\nclient_name = "Billing"\n'
        'scope = ["a", "b"]\nredirect_uri = "http://localhost:8400/done"\naccount = "ada"\n'
    )
    grant = profile(text, tmp_path).grant
    assert isinstance(grant, ProfileGrant)
    assert grant.owner == {"grant": "refresh_token", "api": server.api_url, "user": "ada"}
    assert grant.requested == {"scope": "a b"}
    assert grant.login_settings == {"redirect_uri": "http://localhost:8400/done"}
    assert grant.can_log_in
    assert server.requests == ()


@pytest.mark.parametrize("can_log_in", [True, False])
def test_an_error_in_a_program_names_the_command_for_its_profile(
    server: TokenServer, tmp_path: Path, can_log_in: bool
) -> None:
    text = billing(server, tmp_path, "refresh_token")
    advice = "Log in elsewhere, and pass the token response to `tokenadapter adopt billing`."
    if can_log_in:
        text += f'authorization_url = "{server.authorization_url}"\n'
        advice = "Run `tokenadapter login billing`."
    keeper = profile(text, tmp_path).keeper()
    with pytest.raises(ReauthRequired) as caught:
        keeper.current()
    assert str(caught.value).partition(" [")[0].endswith(advice)
    keeper.adopt(server.issue())
    server.revoke_all()
    with pytest.raises(ReauthRequired) as caught:
        keeper.refresh()
    assert str(caught.value).partition(" [")[0].endswith(advice)


def test_without_a_store_the_token_is_in_the_state_directory(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = billing(server, tmp_path).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("store"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    path = "tokenadapter/billing.json"
    assert repr(profile(text, tmp_path).store()) == f"FileStore('{tmp_path}/.local/state/{path}')"
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/var")
    assert repr(profile(text, tmp_path).store()) == f"FileStore('{tmp_path}/var/{path}')"


def test_the_path_of_a_store_counts_from_the_configuration(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "50% #1"
    here.mkdir()
    monkeypatch.chdir("/")
    lines = billing(server, tmp_path).splitlines()
    for given, meant in (
        ("token.json", f"{here}/token.json"),
        ("state/token.json", f"{here}/state/token.json"),
        ("/var/token.json", "/var/token.json"),
        ("///var/token.json", "/var/token.json"),
        ("~/token.json", f"{Path.home()}/token.json"),
    ):
        for url in (f"file:{given}", given):
            text = "\n".join(
                f'store = "{url}"' if line.startswith("store") else line for line in lines
            )
            assert repr(profile(text, here).store()) == f"FileStore({meant!r})"


# --- secrets wait ------------------------------------------------------------------------


def test_a_fresh_token_needs_no_secret_and_a_renewal_does(
    server: TokenServer, tmp_path: Path
) -> None:
    requested = tmp_path / "asked"
    program = f"open({str(requested)!r}, 'a').write('.'); print('secret')"
    command = f'{{ command = ["{sys.executable}", "-c", """{program}"""] }}'
    text = billing(server, tmp_path).replace('"secret"', command)
    profile(text, tmp_path).keeper().current()
    assert requested.read_text() == "."
    profile(text, tmp_path).keeper().current()
    assert requested.read_text() == "."
    server.expire_now()
    keeper = profile(text, tmp_path).keeper()
    keeper.renew(keeper.current())
    assert requested.read_text() == ".."


def test_a_missing_secret_is_an_error_only_when_a_renewal_needs_it(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = billing(server, tmp_path).replace('"secret"', '{ env = "BILLING_SECRET" }')
    monkeypatch.delenv("BILLING_SECRET", raising=False)
    write(tmp_path, text)
    with tokenadapter.session("billing") as session:
        # Callers of requests catch this error.
        with pytest.raises(requests.RequestException) as caught:
            session.get(f"{server.api_url}x")
        assert isinstance(caught.value, RefreshConfigError)
        assert "billing.source.client_secret: The environment variable BILLING_SECRET" in str(
            caught.value
        )
        monkeypatch.setenv("BILLING_SECRET", "secret")
        assert session.get(f"{server.api_url}x").status_code == 200


def test_a_running_program_notices_a_changed_secret(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = billing(server, tmp_path).replace('"secret"', '{ file = "secret" }')
    (tmp_path / "secret").write_text("wrong")
    keeper = profile(text, tmp_path).keeper()
    with pytest.raises(RefreshConfigError, match="invalid_client"):
        keeper.current()
    (tmp_path / "secret").write_text("secret\n")
    monkeypatch.setattr(keeper.grant, "_until", 0.0)
    assert keeper.refresh().access_token


def test_a_first_refresh_token_that_is_not_used_is_reported_by_a_renewal(
    server: TokenServer, tmp_path: Path
) -> None:
    text = billing(server, tmp_path, "refresh_token")
    text += 'account = "ada"\nrefresh_token = { file = "first" }\n'
    (tmp_path / "first").write_text(server.issue()["refresh_token"])
    profile(text, tmp_path).keeper().current()
    (tmp_path / "first").write_text(server.issue()["refresh_token"])
    keeper = profile(text, tmp_path).keeper()
    token = keeper.current()
    assert "FirstTokenUnused" not in keeper.stats
    keeper.renew(token)
    assert keeper.stats["FirstTokenUnused"] == 1


def test_a_first_refresh_token_may_be_deleted_after_its_use(
    server: TokenServer, tmp_path: Path
) -> None:
    text = billing(server, tmp_path, "refresh_token") + 'refresh_token = { file = "first" }\n'
    (tmp_path / "first").write_text(f"{server.issue()['refresh_token']}\n")
    profile(text, tmp_path).keeper().current()
    (tmp_path / "first").unlink()
    keeper = profile(text, tmp_path).keeper()
    assert keeper.renew(keeper.current()).access_token
    (tmp_path / "state" / "token.json").unlink()
    with pytest.raises(RefreshConfigError, match=r"billing\.source\.refresh_token: The file"):
        profile(text, tmp_path).keeper().current()


def test_any_part_of_a_login_may_be_kept_elsewhere(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = billing(server, tmp_path)
    text = text[: text.index("[billing.source]")] + (
        f'[billing.source]\ntype = "login"\nurl = "{server.token_url}"\n'
        'auth = ["client", { env = "CLIENT_SECRET" }]\n'
        '[billing.source.data]\ngrant_type = "password"\nusername = "user"\n'
        'password = { env = "PASSWORD" }\n'
    )
    monkeypatch.setenv("PASSWORD", "password")
    monkeypatch.setenv("CLIENT_SECRET", "secret")
    made = profile(text, tmp_path)
    assert [reference.key for reference in made.grant.references()] == [  # type: ignore[union-attr]
        "billing.source.auth.1",
        "billing.source.data.password",
    ]
    assert made.keeper().current().access_token


def test_the_error_of_a_dead_grant_names_the_command_and_the_profile(
    server: TokenServer, tmp_path: Path
) -> None:
    text = billing(server, tmp_path, "refresh_token") + 'refresh_token = "unknown"\n'
    with pytest.raises(ReauthRequired, match="`tokenadapter adopt billing`"):
        profile(text, tmp_path).keeper().current()


def test_a_pickled_adapter_contains_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "hush-hush")
    with TokenServer(clients={"client": "hush-hush"}) as server, requests.Session() as session:
        text = billing(server, tmp_path).replace('"secret"', '{ env = "SECRET_OF_MINE" }')
        (adapter,) = profile(text, tmp_path).adapters()
        token = adapter.keeper.current()
        pickled = pickle.dumps(adapter)
        assert b"hush-hush" not in pickled
        assert token.access_token.encode() not in pickled
        pickle.loads(pickled).mount(session)
        assert session.get(f"{server.api_url}x").status_code == 200


def test_making_a_session_runs_no_program_and_reads_no_secret(
    server: TokenServer, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\necho secret\n")
    program.chmod(0o700)
    os.mkfifo(tmp_path / "scope")  # a reader waits for a writer
    text = billing(server, tmp_path).replace('"secret"', '{ command = ["./program"] }')
    write(tmp_path, text + '[billing.source.extra]\nstate = { file = "scope" }\n')
    tokenadapter.session("billing").close()
    repr(tokenadapter.from_profile("billing"))
    assert not (tmp_path / "was-run").exists()


# --- functions ---------------------------------------------------------------------------


def with_function(server: TokenServer, directory: Path, name: str) -> str:
    text = billing(server, directory)
    return text[: text.index("[billing.source]")] + f'[billing.source]\ncallable = "{name}"\n'


def test_a_function_is_a_source(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "sources_of_mine.py").write_text(
        "class Vault:\n    @staticmethod\n    def token(previous):\n"
        "        return {'access_token': 'from-a-function', 'expires_in': 60}\n"
    )
    made = profile(with_function(server, tmp_path, "sources_of_mine:Vault.token"), tmp_path)
    assert "sources_of_mine" not in sys.modules
    assert made.keeper().current().access_token == "from-a-function"
    assert made.grant.owner == {"function": "sources_of_mine:Vault.token"}
    assert pickle.loads(pickle.dumps(made.keeper())).current().access_token == "from-a-function"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module_here:f", "There is no module 'no_such_module_here' here. Install it"),
        ("json:dunps", "json has no 'dunps'. Did you mean 'dumps'?"),
        ("sys:path", "sys:path cannot be called: it is of type list"),
    ],
)
def test_the_error_for_a_missing_function_names_the_key(
    name: str, said: str, server: TokenServer, tmp_path: Path
) -> None:
    made = profile(with_function(server, tmp_path, name), tmp_path)
    with pytest.raises(RefreshConfigError) as caught:
        made.keeper().current()
    assert f"billing.source.callable: {said}" in str(caught.value)


def test_the_error_names_a_module_that_fails_to_import(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "failing_of_mine.py").write_text("s3cret +\n")
    made = profile(with_function(server, tmp_path, "failing_of_mine:f"), tmp_path)
    with pytest.raises(RefreshConfigError) as caught:
        made.keeper().current()
    said = "billing.source.callable: Importing failing_of_mine raised SyntaxError."
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "mistake",
    [None, "import no_such_module_here\n", "def token(previous):\n    return previous.nothing\n"],
    ids=["no module", "no module in it", "a mistake in the function"],
)
def test_a_corrected_function_is_called_at_once(
    mistake: str | None, server: TokenServer, tmp_path: Path
) -> None:
    name = f"corrected_{len(mistake or '')}"
    if mistake is not None:
        (tmp_path / f"{name}.py").write_text(mistake)
    text = with_function(server, tmp_path, f"{name}:token")
    with pytest.raises(RefreshConfigError) as caught:
        profile(text, tmp_path).keeper().current()
    assert caught.value.is_local
    (tmp_path / f"{name}.py").write_text("def token(previous):\n    return 'a-token'\n")
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert profile(text, tmp_path).keeper().current().access_token == "a-token"


def test_callbacks_are_called(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "callbacks_of_mine.py").write_text(
        "heard = []\n"
        "def refreshed(token):\n    heard.append('token')\n"
        "def event(event):\n    heard.append(type(event).__name__)\n"
    )
    callbacks = 'on_refresh = "callbacks_of_mine:refreshed"\non_event = "callbacks_of_mine:event"\n'
    text = billing(server, tmp_path).replace("\n[billing.source]", f"{callbacks}[billing.source]")
    profile(text, tmp_path).keeper().current()
    import callbacks_of_mine

    assert {"token", "Renewed"} <= set(callbacks_of_mine.heard)


def test_paths_of_a_source_count_from_the_configuration(
    server: TokenServer, tmp_path: Path
) -> None:
    text = billing(server, tmp_path)
    told = profile(f'{text}verify = "ca.pem"\ncert = ["client.pem", "/etc/key.pem"]\n', tmp_path)
    arguments = told.grant.arguments
    assert arguments["verify"] == str(tmp_path / "ca.pem")
    assert arguments["cert"] == (str(tmp_path / "client.pem"), "/etc/key.pem")
    told = profile(f"{text}verify = false\n", tmp_path)
    assert told.grant.arguments["verify"] is False


def test_a_session_needs_a_profile() -> None:
    with pytest.raises(TypeError, match="needs the name of at least one profile"):
        tokenadapter.session()


def test_a_repr_names_the_parts_and_contains_no_secret(server: TokenServer, tmp_path: Path) -> None:
    made = profile(with_function(server, tmp_path, "json:dumps"), tmp_path)
    assert repr(made) == f"<Profile billing of {tmp_path}/tokenadapter.toml>"
    assert "json:dumps" in repr(made.grant.function)
    assert "secret" not in repr(profile(billing(server, tmp_path), tmp_path).grant)


def test_a_provider_brings_the_endpoints_and_the_peculiarities(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
[chat]
prefix = "https://slack.com/api/"

[chat.source]
type = "refresh_token"
provider = "slack"
client_id = "app"
client_secret = { env = "NOT_READ_BEFORE_A_RENEWAL" }
scope = ["channels:read", "chat:write"]

[code]
prefix = "https://gitlab.example.com/api/v4/"
renew_early = true

[code.source]
type = "refresh_token"
provider = "gitlab"
domain = "gitlab.example.com"
client_id = "app"
redirect_uri = "http://127.0.0.1:9000/"
""",
    )
    config = ConfigFile.read(str(path))
    chat, code = Profile(config, "chat"), Profile(config, "code")
    assert chat.grant.requested == {"scope": "channels:read,chat:write"}
    (adapter,) = chat.adapters()
    assert "token_expired" in repr(adapter.rules.verdict)
    assert code.grant.owner["provider"] == "gitlab gitlab.example.com"
    assert "https://gitlab.example.com/oauth/token" in code.grant.urls
    assert code.grant.renew_early is False
    assert code.keeper().renew_early is True
    assert code.grant.can_log_in
    assert code.grant.login_settings["redirect_uri"] == "http://127.0.0.1:9000/"


def test_a_client_that_acts_for_itself_cannot_log_in_at_a_provider(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
[meetings]
prefix = "https://api.zoom.us/v2/"

[meetings.source]
type = "client_credentials"
provider = "zoom"
client_id = "app"
client_secret = "made-up"
extra = { account_id = "made-up" }

[company]
prefix = "https://api.example.com/"

[company.source]
type = "client_credentials"
provider = "keycloak"
domain = "id.example.com"
tenant = "main"
client_id = "app"
client_secret = "made-up"
""",
    )
    config = ConfigFile.read(str(path))
    meetings, company = Profile(config, "meetings").grant, Profile(config, "company").grant
    assert meetings.owner["grant"] == "account_credentials"
    assert (meetings.can_log_in, company.can_log_in) == (False, False)


# --- which URLs are covered --------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com/v1", True),
        ("https://api.example.com/v1/x?y=%2e%2e", True),
        ("https://API.example.com/v1/x", True),
        ("https://api.example.com:443/v1/x", True),
        ("https://two.example.com", True),
        ("https://two.example.com/", True),
        ("http://api.example.com/v1/x", False),
        ("https://api.example.com/v10", False),
        ("https://api.example.com/v1/../x", False),
        ("https://api.example.com/v1/%2e%2e/x", False),
        ("https://two.example.com.evil.example/", False),
        ("https://two.example.com@evil.example/", False),
        ("https://two.example.com:8443/", False),
        ("https://two.example.com\\@evil.example/", False),
        ("two.example.com", False),
        ("", False),
    ],
)
def test_a_url_is_covered_if_it_is_under_one_of_the_prefixes(
    url: str, expected: bool, tmp_path: Path
) -> None:
    text = """
[billing]
prefixes = ["https://api.example.com/v1/", "https://two.example.com"]
source = { type = "client_credentials", token_url = "https://id.example.com/t", client_id = "b" }
"""
    assert profile(text, tmp_path).covers(url) is expected


@settings(max_examples=500, deadline=None)
@given_each(
    st.text("/.:@;?#%2e\\ \n\tA8v1é*~", max_size=12),
    st.sampled_from(["https://api.example.com", "https://api.example.com:8443/v1"]),
)
def test_a_url_that_is_plainly_under_a_prefix_is_under_it(end: str, base: str) -> None:
    url = f"{base}{end}"
    if _is_plainly_under(url, base):
        assert Prefix(base).covers(url)


def alike(one: str, other: str, directory: Path) -> list[str]:
    """The prefixes that two profiles with these prefixes share."""
    source = '{ type = "client_credentials", token_url = "https://id.example.com/t" }'
    source = source.replace(" }", ', client_id = "b" }')
    text = f'[a]\nprefix = "{one}"\nsource = {source}\n[b]\nprefix = "{other}"\nsource = {source}\n'
    config = ConfigFile.read(str(write(directory, text)))
    return [*shared_prefixes([Profile(config, "a"), Profile(config, "b")])]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://api.example.com", "https://api.example.com/"),
        ("https://api.example.com/v1", "https://api.example.com:443/v1/"),
        ("https://API.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/%761", "https://api.example.com/v1"),
        ("https://b\u00fccher.example/", "https://xn--bcher-kva.example"),
        ("http://localhost:80/", "http://localhost"),
    ],
)
def test_equal_prefixes_are_found_however_they_are_spelt(
    one: str, other: str, tmp_path: Path
) -> None:
    assert alike(one, other, tmp_path) == [Prefix(one).url]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://api.example.com/V1", "https://api.example.com/v1"),
        ("https://api.example.com/v1", "https://api.example.com/v1/x"),
        ("https://api.example.com:4433", "https://api.example.com"),
        ("http://api.example.com/", "https://api.example.com/"),
        ("https://user@api.example.com/", "https://user@api.example.com/"),  # which is invalid
    ],
)
def test_other_prefixes_are_not_taken_for_equal(one: str, other: str, tmp_path: Path) -> None:
    assert alike(one, other, tmp_path) == []


@given_each(st.from_regex(_PLAIN_BASE, fullmatch=True, alphabet="htps:/abz09.-443V~_"))
def test_a_plain_prefix_is_spelt_as_requests_spells_it(base: str) -> None:
    assert _canonical(base) == Prefix(base).url
