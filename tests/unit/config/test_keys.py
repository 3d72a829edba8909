"""Profiles whose clients and sources sign with keys, or present tokens of others."""

from __future__ import annotations

import json
import pickle
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from profiles import write

from tokenadapter import Key, ProfileError, RefreshConfigError, Token, TokenError
from tokenadapter.cli.findings import findings
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.keys import private_file
from tokenadapter.testing import TokenServer

KEY = Key.generate("RS256")


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(clients={"app": KEY.public_jwk, "client": "secret"}) as server:
        yield server


@pytest.fixture(autouse=True)
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({k: v for k, v in KEY.private_jwk().items() if k != "alg"}))
    path.chmod(0o600)
    return path


def profile(directory: Path, source: str, config: str = "") -> Profile:
    text = f"""
[one]
prefix = "http://127.0.0.1/"
store = "file:state/token.json"
{config}
[one.source]
{source}
"""
    return Profile(ConfigFile.read(str(write(directory, text))), "one")


def client(server: TokenServer, auth: str, kind: str = "client_credentials") -> str:
    return f"""
type = "{kind}"
token_url = "{server.token_url}"
client_id = "app"
client_auth = {auth}
"""


def pem() -> str:
    private: Any = KEY._signer
    encoded: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()


# The key of a client


@pytest.mark.parametrize(
    "place",
    [
        '"key.json"',
        '{ file = "key.json" }',
        '{ env = "KEY_OF_ONE" }',
        f'{{ command = ["{sys.executable}", "-c", "print(open(\'key.pem\').read())"] }}',
    ],
)
def test_a_key_may_be_in_a_file_or_elsewhere(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("KEY_OF_ONE", pem())
    (tmp_path / "key.pem").write_text(pem())
    auth = f'{{ type = "private_key_jwt", key = {place}, kid = "k", alg = "PS256", lifetime = 9 }}'
    assert profile(tmp_path, client(server, auth)).keeper().current().access_token
    assert "client_assertion" in server.requests[-1].form


def test_a_key_file_is_not_read_before_it_signs(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = profile(tmp_path, client(server, '{ type = "private_key_jwt", key = "key.json" }'))
    (tmp_path / "subject").write_text("t0ken")
    source = 'type = "jwt_bearer"\ntoken_url = "https://id.example/"\nclient_id = "app"\n'
    profile(tmp_path, f'{source}key = "key.json"').keeper()
    profile(tmp_path, f'{source}assertion = "subject"').keeper()
    monkeypatch.setattr(private_file, "read_private", lambda path: 1 / 0)
    keeper = one.keeper()
    keeper.adopt(Token("t0ken", expires_at=time.time() + 3600))
    assert keeper.current().access_token == "t0ken"
    with pytest.raises(ZeroDivisionError):
        _ = one.grant.client_credential


def test_a_key_elsewhere_is_not_read_before_it_signs(server: TokenServer, tmp_path: Path) -> None:
    auth = '{ type = "private_key_jwt", key = { env = "NO_SUCH_VARIABLE" } }'
    keeper = profile(tmp_path, client(server, auth)).keeper()
    with pytest.raises(RefreshConfigError, match="NO_SUCH_VARIABLE is not set"):
        keeper.current()


def test_other_secrets_still_have_one_line(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_ONE", pem())
    source = client(server, '"client_secret_basic"') + 'client_secret = { env = "KEY_OF_ONE" }'
    with pytest.raises(RefreshConfigError, match="only the secret should be there, on one line"):
        profile(tmp_path, source).keeper().current()


def test_an_assertion_of_the_platform_may_be_a_file_or_a_function(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "platform_of_one.py").write_text(
        "import time\nfrom tokenadapter import Key\n"
        f"KEY = Key({str(tmp_path / 'key.json')!r})\n"
        "def assertion():\n"
        "    claims = {'iss': 'app', 'sub': 'app', 'exp': time.time() + 60}\n"
        f"    return KEY.jwt(claims | {{'aud': {server.issuer!r}, 'jti': str(time.time_ns())}})\n"
    )
    import platform_of_one

    (tmp_path / "token").write_text(platform_of_one.assertion())
    for place in ("token", "platform_of_one:assertion"):
        auth = f'{{ type = "assertion", assertion = "{place}" }}'
        assert profile(tmp_path, client(server, auth)).keeper().current().access_token


# Sources that sign or exchange


def test_a_jwt_bearer_source_signs(server: TokenServer, tmp_path: Path) -> None:
    source = f"""
type = "jwt_bearer"
token_url = "{server.token_url}"
client_id = "app"
subject = "ada"
key = "key.json"
"""
    one = profile(tmp_path, source)
    assert one.grant.owner["user"] == "ada"
    assert one.keeper().current().access_token


def test_a_service_account_is_read_from_its_file(server: TokenServer, tmp_path: Path) -> None:
    account = {"type": "service_account", "client_email": "app", "token_uri": server.token_url}
    path = tmp_path / "account.json"
    path.write_text(json.dumps({**account, "private_key": pem(), "private_key_id": "1"}))
    path.chmod(0o600)
    source = 'type = "service_account"\npath = "account.json"\nscope = ["a", "b"]\nsubject = "ada"'
    assert profile(tmp_path, source).keeper().current().scope == "a b"


def test_a_github_app_has_a_key(server: TokenServer, tmp_path: Path) -> None:
    source = f"""
type = "github_app"
app_id = 12
installation = 34
key = "key.json"
permissions = {{ contents = "read" }}
api_url = "{server.url}"
"""
    one = profile(tmp_path, source)
    assert one.grant.urls == (f"{server.url}/app/installations/34/access_tokens",)
    with pytest.raises(TokenError, match="refused the app"):
        one.keeper().current()


def test_tokens_are_exchanged(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "subject").write_text(server.issue(client="client")["access_token"])
    source = f"""
type = "token_exchange"
token_url = "{server.token_url}"
client_id = "client"
client_secret = "secret"
subject_token = "subject"
audience = "orders"
"""
    assert profile(tmp_path, source).keeper().current().access_token
    assert server.requests[-1].form["audience"] == "orders"


def test_the_token_of_another_profile_is_exchanged(server: TokenServer, tmp_path: Path) -> None:
    text = f"""
[users]
prefix = "http://127.0.0.1/"
store = "file:users/token.json"

[users.source]
type = "client_credentials"
token_url = "{server.token_url}"
client_id = "client"
client_secret = "secret"

[orders]
prefix = "http://127.0.0.1/"
store = "file:orders/token.json"

[orders.source]
type = "token_exchange"
token_url = "{server.token_url}"
client_id = "client"
client_secret = "secret"
subject_token = {{ profile = "users" }}
"""
    config = ConfigFile.read(str(write(tmp_path, text)))
    users, orders = Profile(config, "users"), Profile(config, "orders")
    grant = pickle.loads(pickle.dumps(orders.grant))
    assert orders.keeper().current().access_token
    assert server.requests[-1].form["subject_token"] == users.keeper().current().access_token
    assert grant.credentials(None)[0].secret == users.keeper().current().access_token
    refused = users.keeper().current()
    server.revoke(refused.access_token)
    orders.keeper().refresh()
    presented = [it.form["subject_token"] for it in server.requests if "subject_token" in it.form]
    assert presented[-2] == refused.access_token != presented[-1]
    for wrong, problem in (("usres", "Did you mean 'users'?"), ("orders", "its own token")):
        changed = text.replace('profile = "users"', f'profile = "{wrong}"')
        config = ConfigFile.read(str(write(tmp_path, changed)))
        with pytest.raises(ProfileError, match=re.escape(problem)):
            Profile(config, "orders")


def test_a_command_runs_in_the_directory_of_the_configuration(tmp_path: Path) -> None:
    program = tmp_path / "helper"
    program.write_text('#!/bin/sh\necho "$1-$(basename "$PWD")"\n')
    program.chmod(0o700)
    source = 'type = "command"\ncommand = ["./helper", "t0ken"]\nlifetime = 60'
    token = profile(tmp_path, source).keeper().current()
    assert token.access_token == f"t0ken-{tmp_path.name}"


# Mistakes


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            'client_auth = { key = "k" }',
            'client_auth.type: Expected one of "private_key_jwt", "ass',
        ),
        ('client_auth = { type = "private_key" }', "Did you mean 'private_key_jwt'?"),
        ('client_auth = { type = "private_key_jwt" }', "client_auth.key: This key is missing"),
        ('client_auth = { type = "private_key_jwt", key = "k", alg = "HS256" }', "alg must be one"),
        (
            'client_auth = { type = "private_key_jwt", kye = "k" }',
            "client_auth.kye: This key is unk",
        ),
        (
            'client_auth = { type = "private_key_jwt", key = "-----BEGIN" }',
            "Expected the path of a",
        ),
        ('client_auth = "private_key_jwt"', "needs a key: pass PrivateKeyJWT(key)"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, source: str, problem: str) -> None:
    lead = 'type = "client_credentials"\ntoken_url = "https://id.example/"\nclient_id = "app"\n'
    with pytest.raises(ProfileError) as caught:
        profile(tmp_path, lead + source)
    assert problem in str(caught.value)


def test_a_missing_function_of_a_token_is_named(tmp_path: Path) -> None:
    source = 'type = "token_exchange"\ntoken_url = "http://127.0.0.1:9/"\nsubject_token = "nil:it"'
    with pytest.raises(RefreshConfigError, match=r"one\.source\.subject_token: There is no module"):
        profile(tmp_path, source).keeper().current()


# check


def found(one: Profile) -> list[tuple[str, str]]:
    return [(each.level, each.text) for each in findings(one.config, ["one"], offline=True)]


def test_check_signs_and_verifies(server: TokenServer, tmp_path: Path) -> None:
    one = profile(tmp_path, client(server, '{ type = "private_key_jwt", key = "key.json" }'))
    path = tmp_path / "key.json"
    text = f"one.source.client_auth.key: {path} signs with RS256, thumbprint {KEY.thumbprint}"
    assert ("ok", text) in found(one)
    path.chmod(0o644)
    (problem,) = [text for level, text in found(one) if level == "problem"]
    assert problem.startswith("one.source.client_auth.key: the key ")
    assert f"chmod 600 {path}" in problem


def test_check_notes_a_key_of_a_certificate_that_others_can_read(tmp_path: Path) -> None:
    source = 'type = "client_credentials"\ntoken_url = "https://id.example/"\nclient_id = "app"\n'
    (tmp_path / "tls.key").touch(0o644)
    for cert in ('["tls.pem", "tls.key"]', '"tls.key"'):
        one = profile(tmp_path, f"{source}cert = {cert}")
        assert f"one.source.cert: Other users can read {tmp_path / 'tls.key'}" in str(found(one))


def test_check_compares_the_algorithm_with_the_metadata(
    server: TokenServer, tmp_path: Path
) -> None:
    server.metadata["token_endpoint_auth_signing_alg_values_supported"] = ["PS256", "ES256"]
    text = client(server, '{ type = "private_key_jwt", key = "key.json" }')
    text = text.replace(f'token_url = "{server.token_url}"', f'issuer = "{server.url}/algorithms"')
    one = profile(tmp_path, text)
    problems = [it.text for it in findings(one.config, ["one"], offline=False)]
    assert (
        "one.source.client_auth.key: the key signs with RS256, and the server accepts PS256, "
        "ES256. Set alg, or use another key."
    ) in problems
    one = profile(tmp_path, text.replace('"key.json"', '"key.json", alg = "PS256"'))
    assert "the key signs with" not in str(list(findings(one.config, ["one"], offline=False)))


def test_check_finds_the_keys_of_sources_and_the_functions_of_tokens(tmp_path: Path) -> None:
    source = 'type = "github_app"\napp_id = 1\ninstallation = 2\nkey = "none.pem"'
    assert "one.source.key: the key " in str(found(profile(tmp_path, source)))
    source = 'type = "token_exchange"\ntoken_url = "http://127.0.0.1:9/"\nsubject_token = "nil:it"'
    assert "There is no module 'nil' here" in str(found(profile(tmp_path, source)))


def test_check_looks_at_the_program_of_a_command_without_running_it(tmp_path: Path) -> None:
    source = 'type = "command"\ncommand = ["./helper"]'
    assert "helper is not an executable program" in str(found(profile(tmp_path, source)))
    program = tmp_path / "helper"
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o777)
    assert "could make you run any program" in str(found(profile(tmp_path, source)))
    assert not (tmp_path / "ran").exists()


def test_check_reads_no_key_that_is_elsewhere(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_ONE", "no key at all")
    auth = '{ type = "private_key_jwt", key = { env = "KEY_OF_ONE" } }'
    assert all(level != "problem" for level, _ in found(profile(tmp_path, client(server, auth))))
