"""Signatures by the package cryptography: the algorithms of RFC 7518 section 3 and RFC 8037.

What is wrong with a key is returned, not raised: a traceback keeps the variables of its frames, and
here they contain private keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from tokenadapter.extras import ExtraMissing
from tokenadapter.keys.jws import ALGORITHMS, b64, unb64
from tokenadapter.late_imports import late, load

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
else:
    ec = late("cryptography.hazmat.primitives.asymmetric.ec")
    ed25519 = late("cryptography.hazmat.primitives.asymmetric.ed25519")
    exceptions = late("cryptography.exceptions")
    hashes = late("cryptography.hazmat.primitives.hashes")
    padding = late("cryptography.hazmat.primitives.asymmetric.padding")
    rsa = late("cryptography.hazmat.primitives.asymmetric.rsa")
    serialization = late("cryptography.hazmat.primitives.serialization")
    utils = late("cryptography.hazmat.primitives.asymmetric.utils")

__all__ = [
    "check_installed",
    "checked",
    "generate",
    "jose_signature",
    "kind_of",
    "private_jwk",
    "public_jwk",
    "read",
    "required_members",
    "sign",
    "thumbprint",
    "verifies",
]

# The bytes of a coordinate.
_WIDTH: Final = {"P-256": 32, "P-384": 48}
# What a thumbprint is made from (RFC 7638 section 3.2, RFC 8037 section 2).
_REQUIRED: Final = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}
# In bits (RFC 7518 section 3.3).
_SHORTEST_RSA: Final = 2048
# In characters of Base64: 16384 bits.  A longer number in a JWK takes minutes.
_LONGEST_NUMBER: Final = 2732
# In bits, where the primes have to be found.
_LONGEST_WITHOUT_PRIMES: Final = 4096
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


def check_installed() -> None:
    """:raises ExtraMissing: if the package cryptography is not installed."""
    try:
        load(ec, ed25519, exceptions, hashes, padding, rsa, serialization, utils)
    except ImportError as error:
        raise ExtraMissing(
            "A private key needs the package cryptography: run "
            "`pip install 'tokenadapter[crypto]'`."
        ) from error


# --- keys --------------------------------------------------------------------------------


def read(content: bytes, passphrase: bytes | None) -> tuple[Any, Mapping[str, Any]] | str:
    """The private key of cryptography in *content*, which is PEM or a JWK, with the members of the
    JWK that say how to use the key.

    :returns: a text that says what is wrong with it, if that is no such key.
    """
    is_jwk = content.lstrip().startswith(b"{")
    try:
        found = _of_jwk(content) if is_jwk else (_of_pem(content, passphrase), {})
    except (KeyError, RecursionError, TypeError, ValueError, exceptions.UnsupportedAlgorithm):
        # The texts of these errors say little, and might quote.
        return "is damaged, or of an unknown kind"
    return found if isinstance(found, str) else checked(*found)


def checked(key: Any, jwk: Mapping[str, Any] | None = None) -> tuple[Any, Mapping[str, Any]] | str:
    """*key* and *jwk*, or what is wrong with the key."""
    if isinstance(key, str):
        return key
    kind = kind_of(key)
    if kind not in ALGORITHMS.values() or not hasattr(key, "sign"):
        return f"is of the kind {kind}, not {_or(ALGORITHMS.values())}"
    if kind == "RSA" and key.key_size < _SHORTEST_RSA:
        return (
            f"has {key.key_size} bits, and RSA needs {_SHORTEST_RSA} or more (RFC 7518 section 3.3)"
        )
    return key, jwk or {}


def _of_pem(content: bytes, passphrase: bytes | None) -> Any:
    found = _LABEL.search(content)
    label = found[1].decode() if found else ""
    if not found:
        return "is neither PEM nor a JWK"
    if not label.endswith("PRIVATE KEY"):
        return f"is a {label.lower()}, not a private key"
    if label == "OPENSSH PRIVATE KEY":
        return "has the format of OpenSSH: convert it with `ssh-keygen -p -m PKCS8`"
    is_encrypted = label.startswith("ENCRYPTED") or b"\nProc-Type: 4,ENCRYPTED" in content
    if is_encrypted and passphrase is None:
        return "is encrypted: pass its passphrase"
    try:
        return serialization.load_pem_private_key(
            content[found.start() :], passphrase if is_encrypted else None
        )
    except ValueError:
        return "cannot be decrypted: is this its passphrase?" if is_encrypted else "is damaged"


def _of_jwk(content: bytes) -> Any:
    jwk = json.loads(content)
    if isinstance(jwk.get("private_key"), str):
        # Google's file of a service account: a JSON object around PEM.
        return _of_pem(jwk["private_key"].encode(), None), {"kid": jwk.get("private_key_id")}
    if "keys" in jwk:
        return "is a JWK set: pass one of its keys"
    kind = jwk.get("crv") if jwk.get("kty") in ("EC", "OKP") else jwk.get("kty")
    if kind not in ALGORITHMS.values():
        return f"is a JWK of the kind {kind!r:.40}, not {_or(ALGORITHMS.values())}"
    if "d" not in jwk:
        return "is a public JWK: the private key has a member d"
    private: Any
    if kind == "Ed25519":
        private = ed25519.Ed25519PrivateKey.from_private_bytes(unb64(jwk["d"]))
    elif kind == "RSA":
        private = _rsa(jwk)
    else:
        private = ec.derive_private_key(_number(jwk["d"]), _curve(kind))
    public = public_jwk(private)
    if any(_number(jwk[name]) != _number(public[name]) for name in public.keys() - {"kty", "crv"}):
        return "is a JWK whose private and public parts are not of one key"
    return private, {name: jwk[name] for name in ("alg", "kid") if isinstance(jwk.get(name), str)}


def _rsa(jwk: Mapping[str, Any]) -> Any:
    n, e, d = (_number(jwk[name]) for name in ("n", "e", "d"))
    if "p" in jwk:
        p, q = _number(jwk["p"]), _number(jwk["q"])
    else:
        # Numbers that are no key have no primes, and the search for them would be long.
        if n.bit_length() > _LONGEST_WITHOUT_PRIMES or pow(2, e * d, n) != 2:
            raise ValueError
        p, q = rsa.rsa_recover_prime_factors(n, e, d)
    return rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(e, n),
    ).private_key()


def generate(kind: str) -> Any:
    """A new private key of a kind in :data:`~tokenadapter.keys.jws.ALGORITHMS`.

    :raises ExtraMissing: if the package cryptography is not installed.
    """
    check_installed()
    if kind == "RSA":
        return rsa.generate_private_key(65537, _SHORTEST_RSA)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_curve(kind))


def kind_of(key: Any) -> str:
    """The kind of a key of cryptography, as in :data:`~tokenadapter.keys.jws.ALGORITHMS` if it is
    there."""
    match key:
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            return "RSA"
        case ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            names = {"secp256r1": "P-256", "secp384r1": "P-384"}
            return names.get(key.curve.name, key.curve.name)
    return type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")


def public_jwk(key: Any) -> dict[str, str]:
    """The JWK of the public key (RFC 7517) of a key of cryptography."""
    public = key.public_key() if hasattr(key, "public_key") else key
    kind = kind_of(public)
    if kind == "RSA":
        numbers = public.public_numbers()
        return {"kty": "RSA", "n": _text(numbers.n), "e": _text(numbers.e)}
    if kind == "Ed25519":
        return {"kty": "OKP", "crv": kind, "x": b64(public.public_bytes_raw())}
    numbers, width = public.public_numbers(), _WIDTH[kind]
    return {
        "kty": "EC",
        "crv": kind,
        "x": _text(numbers.x, width),
        "y": _text(numbers.y, width),
    }


def private_jwk(key: Any) -> dict[str, str]:
    """The JWK of a private key.  It contains the secret."""
    kind = kind_of(key)
    if kind == "Ed25519":
        return {**public_jwk(key), "d": b64(key.private_bytes_raw())}
    numbers = key.private_numbers()
    if kind != "RSA":
        return {**public_jwk(key), "d": _text(numbers.private_value, _WIDTH[kind])}
    members = {"d": "d", "p": "p", "q": "q", "dp": "dmp1", "dq": "dmq1", "qi": "iqmp"}
    private = {name: _text(getattr(numbers, it)) for name, it in members.items()}
    return {**public_jwk(key), **private}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """The SHA-256 thumbprint of a JWK (RFC 7638)."""
    text = json.dumps(required_members(jwk), separators=(",", ":"))
    return b64(sha256(text.encode()).digest())


def required_members(jwk: Mapping[str, str]) -> dict[str, str]:
    """The members that describe the public key, in the order of RFC 7638 section 3."""
    return {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}


def _public_key(jwk: Mapping[str, str]) -> Any:
    match jwk["kty"]:
        case "RSA":
            return rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
        case "OKP":
            return ed25519.Ed25519PublicKey.from_public_bytes(unb64(jwk["x"]))
    x, y = _number(jwk["x"]), _number(jwk["y"])
    return ec.EllipticCurvePublicNumbers(x, y, _curve(jwk["crv"])).public_key()


def _curve(kind: str) -> Any:
    return {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}[kind]()


def _number(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError
    return int.from_bytes(unb64(text))


def _text(number: int, width: int | None = None) -> str:
    return b64(number.to_bytes(width or (number.bit_length() + 7) // 8))


def _or(names: Any) -> str:
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} or {last}"


# --- signatures --------------------------------------------------------------------------


def sign(key: Any, alg: str, data: bytes) -> bytes:
    """The signature of *data* by a private key of cryptography."""
    signature: bytes = key.sign(data, *_scheme(alg))
    return jose_signature(alg, signature)


def jose_signature(alg: str, signature: bytes) -> bytes:
    """*signature* as a JWS has it: for ECDSA, two numbers of a fixed width, one after the other
    (RFC 7518 section 3.4).  Most libraries and services return them in DER.

    :raises ValueError: if it is neither.
    """
    if not isinstance(signature, (bytes, bytearray)):
        raise ValueError("not bytes")
    width = _WIDTH.get(ALGORITHMS[alg])
    if width is None or len(signature) == 2 * width:
        return signature
    return b"".join(part.to_bytes(width) for part in utils.decode_dss_signature(signature))


def verifies(jwk: Mapping[str, str], alg: str, data: bytes, signature: bytes) -> bool:
    """Whether *signature*, as a JWS has it, is that of *data* by the key whose public JWK is
    *jwk*."""
    kind = jwk.get("crv", jwk["kty"])
    if ALGORITHMS.get(alg) != kind:
        return False
    try:
        if kind in _WIDTH:
            width = _WIDTH[kind]
            if len(signature) != 2 * width:
                return False
            halves = signature[:width], signature[width:]
            signature = utils.encode_dss_signature(*map(int.from_bytes, halves))
        _public_key(jwk).verify(signature, data, *_scheme(alg))
    except (exceptions.InvalidSignature, ValueError):
        return False
    return True


def _scheme(alg: str) -> tuple[Any, ...]:
    """What the methods of cryptography take to sign and verify, beside the data."""
    match alg:
        case "RS256":
            return padding.PKCS1v15(), hashes.SHA256()
        case "PS256":
            return padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
        case "ES256":
            return (ec.ECDSA(hashes.SHA256()),)
        case "ES384":
            return (ec.ECDSA(hashes.SHA384()),)
    return ()
