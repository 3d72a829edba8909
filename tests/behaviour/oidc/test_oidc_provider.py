"""Clients with keys, secrets that sign, and certificates at oidc-provider."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tokenadapter import (
    ClientCredentials,
    Key,
    MemoryStore,
    PrivateKeyJWT,
    RefreshConfigError,
    TokenKeeper,
)
from tokenadapter.http import bindings
from tokenadapter.keys import certificates
from tokenadapter.keys.jws import ALGORITHMS, unb64

MODULES = os.environ.get("OIDC_MODULES", "")
NODE = shutil.which("node")
RESOURCE = "https://api.example.com/"
SECRET = "a secret of more than 256 bits, as HS256 wants it"
KEYS = {alg: Key.generate(alg) for alg in ALGORITHMS}
HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    NODE is None or not (Path(MODULES) / "node_modules" / "oidc-provider").is_dir(),
    reason='needs Node.js and oidc-provider: "tox -e oidc"',
)


class Provider:
    """oidc-provider, with a client for each way to authenticate."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca, self.cert = str(directory / "ca.pem"), str(directory / "client.pem")
        authority.cert_pem.write_to_path(self.ca)
        client = authority.issue_cert("app.example")
        Path(self.cert).write_bytes(client.private_key_and_cert_chain_pem.bytes())
        ours = authority.issue_cert("127.0.0.1")
        self._settings = {
            "modules": MODULES,
            "resource": RESOURCE,
            "algorithms": list(ALGORITHMS),
            "proofs": ["ES256", "EdDSA"],
            "strict": False,
            "clients": [*self._by_key(), *self._by_certificate(client)],
            "key": ours.private_key_pem.bytes().decode(),
            "cert": ours.cert_chain_pems[0].bytes().decode(),
            "ca": Path(self.ca).read_text(),
        }
        self.issuer = ""

    def __enter__(self) -> Provider:
        assert NODE is not None
        self._process = subprocess.Popen(
            [NODE, HERE / "provider.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._settings) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("https://"):
                self.issuer = line.strip()
                break
        assert self.issuer, "oidc-provider did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def source(self, client: str, **options: Any) -> ClientCredentials:
        options = {"issuer": self.issuer, "verify": self.ca, "scope": "read", **options}
        return ClientCredentials(client_id=client, **options)

    def _by_key(self) -> Iterator[dict[str, Any]]:
        for alg, key in KEYS.items():
            yield self._client(
                f"key-{alg}", "private_key_jwt", jwks={"keys": [{**key.public_jwk, "kid": alg}]}
            )
        yield self._client("secret", "client_secret_jwt", client_secret=SECRET)

    def _by_certificate(self, client: trustme.LeafCert) -> Iterator[dict[str, Any]]:
        bound = {"tls_client_certificate_bound_access_tokens": True}
        name = {"tls_client_auth_san_dns": "app.example"}
        yield self._client("pki", "tls_client_auth", **name, **bound)
        der = ssl.PEM_cert_to_DER_cert(client.cert_chain_pems[0].bytes().decode())
        # oidc-provider compares x5c; the key beside it only has to be one.
        jwk = {**KEYS["ES256"].public_jwk, "x5c": [base64.b64encode(der).decode()]}
        yield self._client("itself", "self_signed_tls_client_auth", jwks={"keys": [jwk]}, **bound)
        keys = {"keys": [KEYS["ES256"].public_jwk]}
        yield self._client("key-and-cert", "private_key_jwt", jwks=keys, **bound)

    @staticmethod
    def _client(name: str, way: str, **members: Any) -> dict[str, Any]:
        return {
            "client_id": name,
            "token_endpoint_auth_method": way,
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
            "scope": "read",
            **members,
        }


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("oidc")) as provider:
        yield provider


def claims(access_token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(unb64(access_token.split(".")[1]))
    return found


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_private_key_jwt(provider: Provider, alg: str) -> None:
    source = provider.source(f"key-{alg}", client_auth=PrivateKeyJWT(KEYS[alg]))
    token = TokenKeeper(source, MemoryStore()).current()
    assert claims(token.access_token)["client_id"] == f"key-{alg}"
    # Each assertion is accepted once: the next request needs another one.
    assert source().access_token != token.access_token


@pytest.mark.parametrize("audience", ["issuer", "token endpoint"])
def test_the_audience_may_be_chosen(provider: Provider, audience: str) -> None:
    named = provider.issuer if audience == "issuer" else f"{provider.issuer}/token"
    auth = PrivateKeyJWT(KEYS["ES256"], audience=named)
    assert provider.source("key-ES256", client_auth=auth)().access_token


def test_a_token_is_revoked_with_a_key(provider: Provider) -> None:
    source = provider.source("key-ES256", client_auth=PrivateKeyJWT(KEYS["ES256"]))
    source.revoke(source())


def test_the_wrong_key_is_refused(provider: Provider) -> None:
    source = provider.source("key-ES256", client_auth=PrivateKeyJWT(Key.generate()))
    with pytest.raises(RefreshConfigError) as caught:
        source()
    assert caught.value.error == "invalid_client"


def test_client_secret_jwt(provider: Provider) -> None:
    source = provider.source("secret", client_secret=SECRET, client_auth="client_secret_jwt")
    assert claims(source().access_token)["client_id"] == "secret"


@pytest.mark.parametrize(
    ("client", "way"), [("pki", "tls_client_auth"), ("itself", "self_signed_tls_client_auth")]
)
def test_a_certificate_authenticates_and_binds_the_token(
    provider: Provider, client: str, way: str
) -> None:
    token = provider.source(client, client_auth=way, cert=provider.cert)()
    bound = claims(token.access_token)["cnf"]["x5t#S256"]
    assert bound == certificates.thumbprint(provider.cert)
    assert bindings.mismatch(token, provider.cert) is None
    assert bindings.mismatch(token, None) is not None


def test_a_key_authenticates_and_a_certificate_binds_the_token(provider: Provider) -> None:
    auth = PrivateKeyJWT(KEYS["ES256"], audience=provider.issuer)
    token = provider.source("key-and-cert", client_auth=auth, cert=provider.cert)()
    assert claims(token.access_token)["cnf"]["x5t#S256"] == certificates.thumbprint(provider.cert)
