"""The examples of RFC 7515 appendix A, RFC 7638 and RFC 8037, and another library's verdict."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from joserfc import jws as theirs
from joserfc.jwk import import_key

from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import ALGORITHMS, compact, unb64
from tokenadapter.keys.key import Key

from . import vectors


def test_hmac_as_in_rfc_7515() -> None:
    """Appendix A.1, with another key: the header there has spaces that we do not write."""
    token = compact(
        {"alg": "HS256"}, vectors.CLAIMS, lambda data: hmac.digest(b"k", data, "sha256")
    )
    signed, _, signature = token.rpartition(".")
    assert signed.endswith(vectors.RS256_JWS.split(".")[1])
    assert unb64(signature) == hmac.digest(b"k", signed.encode(), "sha256")


@pytest.mark.parametrize(
    ("jwk", "payload", "expected"),
    [
        (vectors.RSA, vectors.CLAIMS, vectors.RS256_JWS),
        (vectors.ED25519, vectors.EDDSA_PAYLOAD, vectors.EDDSA_JWS),
    ],
)
def test_a_deterministic_signature_is_that_of_the_rfc(
    jwk: dict[str, str], payload: bytes, expected: str
) -> None:
    key = Key(jwk)
    assert compact({"alg": key.alg}, payload, key.sign) == expected


@pytest.mark.parametrize(
    ("jwk", "token"),
    [
        (vectors.RSA, vectors.RS256_JWS),
        (vectors.EC, vectors.ES256_JWS),
        (vectors.ED25519, vectors.EDDSA_JWS),
    ],
)
def test_the_signatures_of_the_rfcs_are_verified(jwk: dict[str, str], token: str) -> None:
    key = Key(jwk)
    signed, _, signature = token.rpartition(".")
    genuine, forged = unb64(signature), bytes(len(unb64(signature)))
    assert algorithms.verifies(key.public_jwk, key.alg, signed.encode(), genuine)
    assert not algorithms.verifies(key.public_jwk, key.alg, signed.encode(), forged)
    assert not algorithms.verifies(key.public_jwk, key.alg, b"another text", genuine)
    assert not algorithms.verifies(key.public_jwk, key.alg, signed.encode(), genuine[:-1])


@pytest.mark.parametrize(("jwk", "thumbprint"), vectors.THUMBPRINTS)
def test_thumbprints_are_those_of_the_rfcs(jwk: dict[str, str], thumbprint: str) -> None:
    assert algorithms.thumbprint(jwk) == thumbprint


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_another_library_verifies_what_a_key_signs(alg: str) -> None:
    key = Key.generate(alg)
    token = key.jwt({"sub": "ada"}, jku="https://id.example/")
    public: Any = import_key(key.public_jwk)
    verified = theirs.deserialize_compact(token, public, algorithms=[alg])
    assert json.loads(verified.payload) == {"sub": "ada"}
    assert verified.protected == {"alg": alg, "typ": "JWT", "jku": "https://id.example/"}
    assert public.thumbprint() == key.thumbprint


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_no_algorithm_verifies_the_signature_of_another_kind_of_key(alg: str) -> None:
    key = Key.generate(alg)
    signature = key.sign(b"data")
    for other, kind in ALGORITHMS.items():
        verifies = algorithms.verifies(key.public_jwk, other, b"data", signature)
        assert verifies is (other == alg or (kind == "Ed25519" == ALGORITHMS[alg]))
    assert not algorithms.verifies(key.public_jwk, "none", b"data", b"")
