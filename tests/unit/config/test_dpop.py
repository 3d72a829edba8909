"""Profiles whose tokens are bound to a key, and what the command says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from profiles import write

from tokenadapter import Key, ProfileError
from tokenadapter.cli.findings import findings
from tokenadapter.cli.status import _remark
from tokenadapter.cli.token_state import token_state
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.testing import TokenServer

KEY = Key.generate()


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(dpop=True, dpop_nonces=True, clients={"app": None}) as server:
        yield server


@pytest.fixture(autouse=True)
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(KEY.private_jwk()))
    path.chmod(0o600)
    return path


def profile(directory: Path, server: TokenServer, dpop: str, place: str | None = None) -> Profile:
    """The profile ``one``.

    :param place: the line that says where its token comes from.
    """
    text = f"""
[one]
prefix = "{server.api_url}"
store = "file:state/token.json"

[one.source]
type = "client_credentials"
{place or f'token_url = "{server.token_url}"'}
client_id = "app"
dpop = {dpop}
"""
    return Profile(ConfigFile.read(str(write(directory, text))), "one")


def test_no_key_is_read_from_the_working_directory(
    tmp_path: Path, server: TokenServer, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THE_KEY", key_file.read_text())
    key_file.rename("looked-up-later").write_text(json.dumps(Key.generate("EdDSA").private_jwk()))
    server.metadata["dpop_signing_alg_values_supported"] = ["ES256"]
    issued = server.issue(client="app", thumbprint=KEY.thumbprint)
    text = f"""
[one]
prefix = "{server.api_url}"
store = "file:state/token.json"

[one.source]
type = "refresh_token"
issuer = "{server.issuer}"
client_id = "app"
refresh_token = "{issued["refresh_token"]}"
dpop = {{ env = "THE_KEY" }}
"""
    keeper = Profile(ConfigFile.read(str(write(tmp_path, text))), "one").keeper()
    assert keeper.current().is_dpop


def session_of(profile: Profile) -> requests.Session:
    session = requests.Session()
    for adapter in profile.adapters():
        adapter.mount(session)
    return session


def state(profile: Profile) -> dict[str, Any]:
    return token_state(profile)


def test_true_makes_a_key_that_stays_with_the_token(tmp_path: Path, server: TokenServer) -> None:
    one = profile(tmp_path, server, "true")
    assert state(one)["bound_to"] is None
    with session_of(one) as session:
        assert session.get(server.api_url).status_code == 200
    thumbprint = server.requests[-1].thumbprint
    assert state(one)["bound_to"] == f"the key {thumbprint}"
    assert _remark(state(one)) == f"Bound to the key {thumbprint} (DPoP)."


@pytest.mark.parametrize("place", ['"key.json"', '{ file = "key.json" }', '{ env = "THE_KEY" }'])
def test_a_key_may_be_named(
    tmp_path: Path,
    server: TokenServer,
    place: str,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THE_KEY", key_file.read_text())
    one = profile(tmp_path, server, place)
    with session_of(one) as session:
        assert session.get(server.api_url).status_code == 200
    assert server.requests[-1].thumbprint == KEY.thumbprint
    assert state(one)["bound_to"] == "the key that is configured"
    assert "dpop_key" not in (tmp_path / "state" / "token.json").read_text()
    # Another process finds the token, and needs nothing but the key.
    with session_of(profile(tmp_path, server, place)) as session:
        assert session.get(server.api_url).status_code == 200
    assert server.stats.renewals == 1


def test_check_compares_the_algorithm_with_the_metadata(
    tmp_path: Path, server: TokenServer
) -> None:
    server.metadata["dpop_signing_alg_values_supported"] = ["PS256", "EdDSA"]
    one = profile(tmp_path, server, '"key.json"', place=f'issuer = "{server.issuer}"')
    problems = [it.text for it in findings(one.config, ["one"], offline=False)]
    assert (
        "one.source.dpop: the key signs with ES256, and the server accepts PS256, EdDSA. Use "
        "another key, or set dpop = true."
    ) in problems


def test_false_binds_nothing(tmp_path: Path) -> None:
    with TokenServer(clients={"app": None}) as server:
        one = profile(tmp_path, server, "false")
        one.keeper().current()
        assert "dpop" not in server.requests[0].headers
        assert state(one)["bound_to"] is None


@pytest.mark.parametrize("dpop", ["1", "[]", '"-----BEGIN PRIVATE KEY-----"', '""'])
def test_anything_else_is_a_mistake(tmp_path: Path, server: TokenServer, dpop: str) -> None:
    with pytest.raises(ProfileError, match="Expected true, the path of a file with the key"):
        profile(tmp_path, server, dpop)


def test_check_tries_the_key(tmp_path: Path, server: TokenServer, key_file: Path) -> None:
    one = profile(tmp_path, server, '"key.json"')

    def said() -> str:
        return "\n".join(repr(found) for found in findings(one.config, ["one"], offline=True))

    assert f"thumbprint {KEY.thumbprint}" in said()
    key_file.chmod(0o644)
    assert "can be read or written by other users" in said()
