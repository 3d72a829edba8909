"""JSON Web Signature (RFC 7515): the compact serialization, and nothing else of it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ALGORITHMS", "b64", "claims_of", "compact", "unb64"]

ALGORITHMS: Mapping[str, str] = {
    "RS256": "RSA",
    "PS256": "RSA",
    "ES256": "P-256",
    "ES384": "P-384",
    "EdDSA": "Ed25519",
    # The name of RFC 9864, which deprecates the one before.
    "Ed25519": "Ed25519",
}
"""The kind of key that each algorithm takes.  The first algorithm of a kind is its default."""


def compact(header: Mapping[str, Any], payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    """*payload*, signed, with *header* (RFC 7515 section 7.1).

    :param sign: signs the bytes that it is called with.
    """
    protected = json.dumps(header, separators=(",", ":")).encode()
    signed = f"{b64(protected)}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def b64(data: bytes) -> str:
    """*data* in URL-safe Base64 without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The reverse of :func:`b64`.

    :raises ValueError: if *text* is nothing of the kind.
    """
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims_of(jwt: str) -> dict[str, Any] | None:
    """The claims of a JWT (RFC 7519 section 3), whose signature is not verified; ``None`` if it is
    none."""
    parts = jwt.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(unb64(parts[1]))
    except (RecursionError, ValueError):
        return None
    return claims if isinstance(claims, dict) else None
