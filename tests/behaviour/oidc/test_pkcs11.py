"""A key that never leaves a PKCS#11 token: that of SoftHSM, in place of a smart card or HSM."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import ClientCredentials, Key, PrivateKeyJWT
from tokenadapter.keys import algorithms
from tokenadapter.testing import TokenServer

pkcs11 = pytest.importorskip("pkcs11", reason='needs python-pkcs11: "tox -e oidc"')

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
UTIL = shutil.which("softhsm2-util")
pytestmark = pytest.mark.skipif(
    UTIL is None or not LIBRARY.exists(), reason="needs SoftHSM: apt-get install softhsm2"
)


class OnToken:
    """A private key on the token: all that a program has to write."""

    def __init__(self, sign: Callable[[bytes], bytes]) -> None:
        self.sign = sign


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("softhsm")
    configuration = directory / "softhsm2.conf"
    (directory / "tokens").mkdir()
    configuration.write_text(f"directories.tokendir = {directory}/tokens\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(configuration))
        assert UTIL is not None
        subprocess.run(
            [UTIL, "--init-token", "--free", "--label=t", "--so-pin=1234", "--pin=1234"],
            check=True,
            capture_output=True,
        )
        token = pkcs11.lib(str(LIBRARY)).get_token(token_label="t")
        with token.open(rw=True, user_pin="1234") as session:
            yield session


def rsa(session: Any) -> Key:
    from pkcs11.util.rsa import encode_rsa_public_key

    public, private = session.generate_keypair(pkcs11.KeyType.RSA, 2048)
    mechanism = pkcs11.Mechanism.SHA256_RSA_PKCS
    signer = OnToken(lambda data: private.sign(data, mechanism=mechanism))
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    found = load_der_public_key(encode_rsa_public_key(public))
    return Key(signer, alg="RS256", public=algorithms.public_jwk(found))


def elliptic(session: Any) -> Key:
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

    parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
    public, private = domain.generate_keypair()

    def sign(data: bytes) -> bytes:
        # SoftHSM signs hashes only.
        mechanism = pkcs11.Mechanism.ECDSA
        signature: bytes = private.sign(hashlib.sha256(data).digest(), mechanism=mechanism)
        return signature

    found = load_der_public_key(encode_ec_public_key(public))
    return Key(OnToken(sign), alg="ES256", public=algorithms.public_jwk(found))


@pytest.mark.parametrize("make", [rsa, elliptic])
def test_a_key_on_a_token_authenticates_a_client(session: Any, make: Callable[[Any], Key]) -> None:
    key = make(session)
    key.check()
    with TokenServer(clients={"app": key.public_jwk}) as server:
        source = ClientCredentials(
            server.token_url, client_id="app", client_auth=PrivateKeyJWT(key)
        )
        assert source().access_token
