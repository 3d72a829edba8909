"""Thumbprints of X.509 certificates."""

from __future__ import annotations

import os
import re
import ssl
from hashlib import sha256

from tokenadapter.keys.jws import b64
from tokenadapter.spelling import shown_path

__all__ = ["thumbprint"]

_FIRST, _LAST = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# In characters.  A file may have a chain.
_LONGEST = 1 << 20


def thumbprint(path: str | os.PathLike[str]) -> str:
    """The SHA-256 thumbprint of the first certificate in the PEM file *path*, as in ``x5t#S256``
    (RFC 7515 section 4.1.8, RFC 8705 section 3.1).

    :raises ValueError: if the file cannot be read, or has no certificate.
    """
    try:
        certificate = _first(path)
    except OSError as error:
        shown = shown_path(os.fspath(path))
        raise ValueError(f"the certificate {shown} cannot be read: {error.strerror}") from None
    if certificate is None:
        raise ValueError(f"the file {path} has no certificate in PEM")
    return b64(sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest())


def _first(path: str | os.PathLike[str]) -> str | None:
    # Its frame ends before anything is raised: the file may have the private key as well.
    with open(os.path.expanduser(path), encoding="ascii", errors="replace") as file:
        text = file.read(_LONGEST)
    found = re.search(f"{_FIRST}.*?{_LAST}", text, re.DOTALL)
    return found and found[0]
