"""Keys wherever they are: read, named in errors, and never shown."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import ALGORITHMS
from tokenadapter.keys.key import Key, UnusableKey

from . import vectors

PKCS8 = serialization.PrivateFormat.PKCS8
OLDER = serialization.PrivateFormat.TraditionalOpenSSL
# Different parts of one private key, as text.
SECRET = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"


def pem(
    key: Any, form: serialization.PrivateFormat = PKCS8, passphrase: bytes | None = None
) -> str:
    protection: Any = serialization.NoEncryption()
    if passphrase is not None:
        protection = serialization.BestAvailableEncryption(passphrase)
    encoded: bytes = key.private_bytes(serialization.Encoding.PEM, form, protection)
    return encoded.decode()


def of(jwk: dict[str, str]) -> Any:
    """The key of cryptography."""
    found = algorithms.read(json.dumps(jwk).encode(), None)
    assert not isinstance(found, str)
    return found[0]


def private(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


class Elsewhere:
    """A key that this process does not have, such as that of a key management service."""

    def __init__(self, key: Key, *, der: bool = False) -> None:
        self._key = of(key.private_jwk())
        self._alg, self._der = key.alg, der
        self.signed: list[bytes] = []

    def sign(self, data: bytes) -> bytes:
        self.signed.append(data)
        if self._der:
            return self._key.sign(data, ec.ECDSA(algorithms.hashes.SHA256()))
        return algorithms.sign(self._key, self._alg, data)


# Where a key is


@pytest.mark.parametrize("jwk", [vectors.RSA, vectors.EC, vectors.ED25519])
def test_a_key_is_the_same_wherever_it_is(jwk: dict[str, str], tmp_path: Path) -> None:
    text = pem(of(jwk))
    places: list[Any] = [
        jwk,
        json.dumps(jwk),
        text,
        text.encode(),
        # As a file from elsewhere has it.
        f"Bag Attributes\n    friendlyName: key\n{text}",
        private(tmp_path / "key.pem", text),
        str(private(tmp_path / "key.json", json.dumps(jwk))),
        of(jwk),
    ]
    if "x" not in jwk or "y" in jwk:
        places.append(pem(of(jwk), OLDER))
    assert {Key(place).thumbprint for place in places} == {Key(jwk).thumbprint}


def test_a_jwk_without_primes_is_enough() -> None:
    lean = {name: vectors.RSA[name] for name in ("kty", "n", "e", "d")}
    assert Key(lean).sign(b"data") == Key(vectors.RSA).sign(b"data")


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    for form in (PKCS8, OLDER):
        path = private(tmp_path / "key.pem", pem(of(vectors.EC), form, b"open sesame"))
        assert Key(path, passphrase="open sesame").thumbprint == Key(vectors.EC).thumbprint
        with pytest.raises(UnusableKey, match=r"key\.pem is encrypted: pass its passphrase"):
            Key(path).check()
        with pytest.raises(UnusableKey, match=r"cannot be decrypted: is this its passphrase\?"):
            Key(path, passphrase="wrong").check()


def test_a_private_jwk_gives_the_key_back() -> None:
    for alg in ALGORITHMS:
        key = Key.generate(alg)
        again = Key(key.private_jwk())
        assert (again.thumbprint, again.alg) == (key.thumbprint, alg)


def test_each_key_has_an_identity_of_its_own() -> None:
    keys = [Key.generate(), Key.generate(), Key(vectors.EC), Key(vectors.RSA)]
    signer = Elsewhere(keys[0])
    keys += [
        Key(signer, alg="ES256", kid="1"),
        Key(signer, alg="ES256", kid="2"),
        Key(signer, alg="ES256", public=keys[0].public_jwk),
        Key(signer, alg="ES256", public=keys[1].public_jwk),
    ]
    assert len({key.identity for key in keys}) == len(keys)
    assert keys[0].identity == keys[0].identity


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = private(tmp_path / "key.pem", pem(of(vectors.EC)))
    key = Key(path)
    before = key.thumbprint, key.identity
    private(path, pem(of(vectors.ED25519)))
    assert key.alg == "EdDSA"
    assert (key.thumbprint, key.identity) != before


def test_a_key_elsewhere_signs_the_data_itself() -> None:
    for alg in ALGORITHMS:
        local = Key.generate(alg)
        signer = Elsewhere(local)
        key = Key(signer, alg=alg, kid="k-1", public=local.public_jwk)
        key.check()
        assert signer.signed == [b"tokenadapter"]
        assert key.thumbprint == local.thumbprint
        assert key.jwt({}).count(".") == 2


def test_an_ecdsa_signature_in_der_becomes_one_of_a_jws() -> None:
    local = Key(vectors.EC)
    Key(Elsewhere(local, der=True), alg="ES256", public=local.public_jwk).check()


def test_a_key_elsewhere_with_another_public_key_is_an_error() -> None:
    signer = Elsewhere(Key(vectors.EC))
    key = Key(signer, alg="ES256", public=Key.generate().public_jwk)
    with pytest.raises(
        UnusableKey, match="of Elsewhere makes ES256 signatures that its public key"
    ):
        key.check()


@pytest.mark.parametrize("answer", [b"", b"0", bytes(63), "text", None])
def test_an_answer_that_is_not_a_signature_is_an_error(answer: Any) -> None:
    class Broken:
        def sign(self, data: bytes) -> Any:
            return answer

    with pytest.raises(UnusableKey, match=r"of .*Broken returned something other than a signature"):
        Key(Broken(), alg="ES256").check()


def test_a_key_elsewhere_need_not_tell_its_public_key() -> None:
    key = Key(Elsewhere(Key(vectors.EC)), alg="ES256")
    key.check()
    with pytest.raises(UnusableKey, match="does not tell its public key: pass public=, a JWK"):
        _ = key.thumbprint
    with pytest.raises(UnusableKey, match="signs elsewhere"):
        key.private_jwk()


# The algorithm and the identifier


@pytest.mark.parametrize(
    ("jwk", "given", "alg"),
    [
        (vectors.RSA, None, "RS256"),
        (vectors.RSA, "PS256", "PS256"),
        ({**vectors.RSA, "alg": "PS256"}, None, "PS256"),
        (vectors.EC, None, "ES256"),
        (vectors.ED25519, None, "EdDSA"),
        (vectors.ED25519, "Ed25519", "Ed25519"),
    ],
)
def test_the_algorithm_follows_from_the_key(
    jwk: dict[str, str], given: str | None, alg: str
) -> None:
    assert Key(jwk, alg=given).alg == alg


def test_the_identifier_is_that_of_the_jwk_unless_another_is_given() -> None:
    jwk = {**vectors.EC, "kid": "2026-01"}
    assert (Key(jwk).kid, Key(jwk, kid="mine").kid, Key(vectors.EC).kid) == (
        "2026-01",
        "mine",
        None,
    )


# What is wrong with a key


def short_rsa() -> Any:
    return rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: "-----BEGIN ", "is neither PEM nor a JWK"),
        (lambda: b"", "is neither PEM nor a JWK"),
        (lambda: pem(of(vectors.EC)).replace("M", "N"), "is damaged"),
        (
            lambda: pem(of(vectors.EC)).replace("PRIVATE", "PUBLIC"),
            "is a public key, not a private",
        ),
        (lambda: "-----BEGIN CERTIFICATE-----", "is a certificate, not a private key"),
        (lambda: "-----BEGIN OPENSSH PRIVATE KEY-----", "convert it with `ssh-keygen -p -m PKCS8`"),
        (lambda: pem(short_rsa()), "has 1024 bits, and RSA needs 2048 or more"),
        (short_rsa, "has 1024 bits"),
        (
            lambda: pem(ec.generate_private_key(ec.SECP521R1())),
            "of the kind secp521r1, not RSA, P-",
        ),
        (lambda: pem(x25519.X25519PrivateKey.generate()), "of the kind X25519, not RSA"),
        (lambda: "{", "is damaged, or of an unknown kind"),
        (lambda: '{"d":' + "[" * 100_000, "is damaged, or of an unknown kind"),
        (lambda: {"keys": [vectors.EC]}, "is a JWK set: pass one of its keys"),
        (lambda: {"kty": "oct", "k": "c2VjcmV0"}, "is a JWK of the kind 'oct', not RSA"),
        (lambda: Key(vectors.EC).public_jwk, "is a public JWK"),
        (lambda: {**vectors.EC, "d": 1}, "is damaged"),
        (lambda: {**vectors.EC, "d": vectors.ED25519["d"]}, "are not of one key"),
        (lambda: {**vectors.ED25519, "x": SECRET}, "are not of one key"),
        (lambda: {**vectors.RSA, "p": "Aw"}, "is damaged"),
        (lambda: {"kty": "RSA", "e": "AQAB", "n": "_" * 60_000, "d": "_" * 60_000}, "is damaged"),
        (lambda: {"kty": "RSA", "e": "AQAB", "n": "_" * 683, "d": "_" * 683}, "is damaged"),
        (lambda: {**vectors.RSA, "q": "_" * 1_000_000}, "is damaged"),
        (
            lambda: {**vectors.EC, "alg": "RS256"},
            "P-256, which the algorithm 'RS256' does not take",
        ),
    ],
)
def test_the_error_for_an_unusable_key_names_the_problem(make: Any, problem: str) -> None:
    with pytest.raises(UnusableKey, match=r"^the key (in memory|of) ") as caught:
        Key(make(), alg="RS256" if hasattr(make(), "key_size") else None).check()
    assert problem in str(caught.value)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200)
    | st.dictionaries(
        st.sampled_from(
            ["kty", "crv", "d", "x", "y", "n", "e", "p", "q", "alg", "kid", "private_key"]
        ),
        st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", *vectors.RSA.values()])
        | st.integers()
        | st.none()
        | st.text(),
    )
)
def test_whatever_a_key_contains_it_signs_or_is_unusable(content: Any) -> None:
    text = content if isinstance(content, (bytes, dict)) else f"{{{content}"
    with contextlib.suppress(UnusableKey):
        Key(text).check()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            ([],),
            TypeError,
            "key must be the path of a file, PEM, a JWK, or an object with a method",
        ),
        ((Elsewhere,), TypeError, "key must be"),
        ((Key(vectors.EC),), TypeError, "key must be"),
        ((Elsewhere(Key(vectors.EC)),), TypeError, "alg is missing"),
        (("key.pem", "HS256"), ValueError, "alg must be one of RS256, PS256, .* not 'HS256'"),
    ],
)
def test_a_mistaken_argument_is_an_error_at_once(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    key, *alg = arguments
    with pytest.raises(kind, match=message):
        Key(key, alg=alg[0] if alg else None)


def test_no_key_is_made_for_an_unknown_algorithm() -> None:
    with pytest.raises(ValueError, match=r"alg must be one of RS256, .* not 'none'"):
        Key.generate("none")


def test_a_key_keeps_its_own_algorithm_and_identifier() -> None:
    key = Key(vectors.EC)
    assert Key.of(key) is key
    assert Key.of(vectors.EC, "ES256", "k").kid == "k"
    with pytest.raises(TypeError, match=r"pass them to Key\(\)"):
        Key.of(key, alg="ES256")


def test_a_missing_file_is_an_error_when_the_key_is_used(tmp_path: Path) -> None:
    key = Key(tmp_path / "none.pem")
    assert key.identity == str(tmp_path / "none.pem")
    with pytest.raises(UnusableKey, match=r"none\.pem cannot be read: No such file"):
        key.sign(b"")


# What is not shown


def test_no_key_is_shown_or_pickled(tmp_path: Path) -> None:
    text = pem(of(vectors.EC), passphrase=None)
    path = private(tmp_path / "key.pem", text)
    for place in (vectors.EC, text, of(vectors.EC)):
        key = Key(place)
        key.sign(b"")
        assert repr(key).startswith("<Key in memory") or repr(key).startswith("<Key of ")
        with pytest.raises(TypeError, match="is not pickled: pass the path of a file"):
            pickle.dumps(key)
    with pytest.raises(TypeError, match="with a passphrase is not pickled"):
        pickle.dumps(Key(path, passphrase="open sesame"))
    key = Key(path, alg="ES256", kid="k")
    assert repr(key) == f"<Key {path} ES256 k>"
    key.sign(b"")
    pickled = pickle.dumps(key)
    assert b"PRIVATE" not in pickled
    again = pickle.loads(pickled)
    assert (again.thumbprint, again.kid, again.alg) == (key.thumbprint, "k", "ES256")
    assert copy.copy(key).thumbprint == key.thumbprint


def test_no_frame_of_an_error_has_the_key(tmp_path: Path) -> None:
    broken = json.dumps({**vectors.EC, "x": "AA"})
    for place in (private(tmp_path / "key.json", broken), broken):
        key = Key(place)
        with pytest.raises(UnusableKey) as caught:
            key.sign(b"")
        assert caught.value.__context__ is None
        ours = caught.tb.tb_next  # below this function
        frames = traceback.StackSummary.extract(traceback.walk_tb(ours), capture_locals=True)
        assert SECRET not in "".join(frames.format())


def test_the_package_cryptography_is_imported_only_to_sign(tmp_path: Path) -> None:
    path = private(tmp_path / "key.pem", pem(of(vectors.EC)))
    program = (
        "import sys; from tokenadapter import Key; Key(sys.argv[1], alg='ES256').identity; "
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == 0


def test_without_the_package_cryptography_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['cryptography.hazmat.primitives.asymmetric.ec'] = None\n"
        "from tokenadapter import Key\n"
        "try: Key('{}').sign(b'')\n"
        "except ImportError as error: sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=os.environ)
    assert b"run `pip install 'tokenadapter[crypto]'`" in done.stderr


def test_a_text_that_is_neither_a_key_nor_a_path_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    without_armour = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
    with pytest.raises(ValueError, match="neither the path of a file, nor PEM") as caught:
        Key(without_armour)
    assert without_armour not in str(caught.value)
    short = Key("s3cret")
    with pytest.raises(UnusableKey, match="cannot be read") as unreadable:
        short.sign(b"")
    assert "s3cret" not in f"{unreadable.value} {short!r}"
