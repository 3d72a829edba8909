"""Tokens that are bound to a client certificate (RFC 8705 section 3): whether it was presented."""

from __future__ import annotations

import os
from typing import Any

from tokenadapter.keys import certificates
from tokenadapter.keys.jws import claims_of
from tokenadapter.token import Token

__all__ = ["explained", "mismatch"]


def explained(reason: str, token: Token, cert: object, remedy: str) -> str:
    """*reason*, why a refusal of *token* goes to the caller, or a better one if the token is bound
    to a client certificate.

    :param cert: the certificate that the request presented: a path, or those of certificate and
        key; nothing; or another object, such as a TLS context, if that cannot be known.
    :param remedy: what the user does so that a request presents a certificate.
    """
    if not cert or isinstance(cert, (str, os.PathLike, tuple)):
        return mismatch(token, cert, remedy) or reason
    if _thumbprint_in(token.access_token) is None:
        return reason
    return (
        f"{reason}. The token is bound to a client certificate. If the client does not present it, "
        f"{remedy}"
    )


def mismatch(token: Token, cert: Any, remedy: str = "set cert") -> str | None:
    """Why an API must refuse *token* on a connection that presents *cert*; ``None`` if nothing is
    known to be wrong.

    Only a token that is a JWT tells to which certificate it is bound.
    """
    bound = _thumbprint_in(token.access_token)
    if bound is None:
        return None
    if not cert:
        return (
            f"the token is bound to a client certificate, and the request presented none: {remedy}"
        )
    path = cert[0] if isinstance(cert, tuple) else cert
    try:
        if certificates.thumbprint(path) == bound:
            return None
    except ValueError as error:
        return f"the token is bound to a client certificate, and {error}"
    return (
        f"the token is bound to another client certificate than {path}, which the request "
        "presented: use one certificate for the source and for the API"
    )


def _thumbprint_in(access_token: str) -> str | None:
    """What a JWT says of its certificate; it is not verified, since it only explains a refusal."""
    confirmed = (claims_of(access_token) or {}).get("cnf")
    found = confirmed.get("x5t#S256") if isinstance(confirmed, dict) else None
    return found if isinstance(found, str) else None
