"""The JWT bearer grant: assertions of one's own, of others, and Google's service accounts."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tokenadapter import (
    JWTBearer,
    Key,
    ReauthRequired,
    RefreshConfigError,
    ServiceAccount,
    TokenKeeper,
)
from tokenadapter.keys.jws import unb64
from tokenadapter.testing import TokenServer

KEY = Key.generate("RS256")
EMAIL = "robot@project.iam.gserviceaccount.com"


@pytest.fixture
def server() -> Iterator[TokenServer]:
    clients: dict[str, Any] = {"app": KEY.public_jwk, EMAIL: KEY.public_jwk, "old": "secret"}
    with TokenServer(clients=clients) as server:
        yield server


@pytest.fixture
def account(server: TokenServer, tmp_path: Path) -> Path:
    """Google's file of a service account."""
    private: Any = KEY._signer
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "account.json"
    said = {
        "type": "service_account",
        "private_key_id": "0123abcd",
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "token_uri": server.token_url,
    }
    path.write_text(json.dumps(said))
    path.chmod(0o600)
    return path


def claims(server: TokenServer) -> tuple[dict[str, Any], dict[str, Any]]:
    header, said = server.requests[-1].form["assertion"].split(".")[:2]
    return json.loads(unb64(header)), json.loads(unb64(said))


def test_a_signed_assertion_brings_a_token(server: TokenServer) -> None:
    source = JWTBearer(server.token_url, KEY, client_id="app", subject="ada", scope="read")
    assert TokenKeeper(source).current().scope == "read"
    assert set(server.requests[-1].form) == {"grant_type", "assertion", "scope"}
    header, said = claims(server)
    assert header == {"alg": "RS256", "typ": "JWT"}
    assert (said["iss"], said["sub"], said["aud"]) == ("app", "ada", server.token_url)
    assert said["exp"] - said["iat"] == 60
    assert source.owner["user"] == "ada"


def test_claims_can_be_added_replaced_and_removed(server: TokenServer) -> None:
    changes = {"tenant": "t-1", "iat": None}
    source = JWTBearer(
        server.token_url, KEY, client_id="app", audience=server.issuer, claims=changes, lifetime=9
    )
    source()
    _, said = claims(server)
    assert (said["tenant"], said["aud"], said["sub"]) == ("t-1", server.issuer, "app")
    assert "iat" not in said


def test_the_issuer_is_the_audience_if_it_is_given(server: TokenServer) -> None:
    JWTBearer(key=KEY, issuer=server.issuer, client_id="app")()
    assert claims(server)[1]["aud"] == server.issuer


def test_a_client_may_authenticate_as_well(server: TokenServer) -> None:
    assertion = {"iss": "app", "sub": "ada", "aud": server.issuer, "exp": time.time() + 60}
    source = JWTBearer(
        server.token_url,
        assertion=lambda: KEY.jwt(assertion),
        client_id="old",
        client_secret="secret",
    )
    assert source().access_token
    assert "authorization" in server.requests[-1].headers


def test_an_answer_without_a_lifetime_is_used_until_it_is_refused(server: TokenServer) -> None:
    """As Salesforce answers."""
    server.fail_next(200, body={"access_token": "00D", "instance_url": "https://my.example"})
    token = JWTBearer(server.token_url, KEY, client_id="app")()
    assert token.expires_at is None
    assert token.extras["instance_url"] == "https://my.example"


def test_a_refused_assertion_is_explained(server: TokenServer) -> None:
    source = JWTBearer(server.token_url, Key.generate(), client_id="app")
    with pytest.raises(ReauthRequired, match=r"refused the assertion .*Check client_id, key, subj"):
        source()


def test_a_key_that_cannot_be_used_is_explained(server: TokenServer) -> None:
    source = JWTBearer(server.token_url, "/no/key.pem", client_id="app")
    with pytest.raises(RefreshConfigError, match=r"/no/key\.pem cannot be read.*Correct key") as it:
        TokenKeeper(source).current()
    assert it.value.is_local
    assert not server.requests


@pytest.mark.parametrize("given", [{}, {"key": KEY, "assertion": str}])
def test_either_a_key_or_an_assertion_is_needed(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="key and assertion are both"):
        JWTBearer("https://id.example/token", client_id="app", **given)


def test_a_missing_assertion_is_explained(server: TokenServer, tmp_path: Path) -> None:
    source = JWTBearer(server.token_url, assertion=tmp_path / "none", client_id="app")
    with pytest.raises(RefreshConfigError, match=r"assertion: .*none cannot be read"):
        TokenKeeper(source).current()


# Google


def test_a_service_account_obtains_a_token(server: TokenServer, account: Path) -> None:
    source = ServiceAccount.from_file(account, scope=["a", "b"], audience=server.issuer)
    server.fail_next(200, body={"access_token": "ya29.", "expires_in": 3599})
    assert source().access_token == "ya29."
    assert set(server.requests[-1].form) == {"grant_type", "assertion"}
    header, said = claims(server)
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "0123abcd"}
    assert (said["iss"], said["scope"]) == (EMAIL, "a b")
    assert "sub" not in said
    assert source.requested == {"scope": "a b"}


def test_a_service_account_may_act_for_a_user(server: TokenServer, account: Path) -> None:
    source = ServiceAccount.from_file(account, scope="a", subject="ada@example.com")
    assert source().scope == "a"
    assert claims(server)[1]["sub"] == "ada@example.com"
    assert source.owner["user"] == "ada@example.com"


def test_the_key_of_a_service_account_is_not_pickled(server: TokenServer, account: Path) -> None:
    source = ServiceAccount.from_file(account, scope="a")
    pickled = pickle.dumps(source)
    assert b"PRIVATE" not in pickled
    server.fail_next(200, body={"access_token": "ya29."})
    assert pickle.loads(pickled)().access_token == "ya29."


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"type": "authorized_user"}', "é", '{"type": "service_account"}']
)
def test_another_file_is_no_service_account(tmp_path: Path, said: str) -> None:
    path = tmp_path / "account.json"
    path.write_text(said)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="is not the JSON file of a service account"):
        ServiceAccount.from_file(path, scope="a")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="can be read or written by other users"):
        ServiceAccount.from_file(path, scope="a")
    with pytest.raises(ValueError, match=r"path: .*none cannot be read"):
        ServiceAccount.from_file(tmp_path / "none", scope="a")
