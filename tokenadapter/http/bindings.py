"""Tokens that are bound to a client certificate (RFC 8705 section 3): whether it was presented."""

from __future__ import annotations

from tokenadapter.keys import certificates
from tokenadapter.keys.jws import claims_of
from tokenadapter.token import Token

__all__ = ["mismatch"]


def mismatch(token: Token, cert: str | tuple[str, str] | None) -> str | None:
    """Why an API must refuse *token* on a connection that presents *cert*; ``None`` if nothing is
    known to be wrong.

    Only a token that is a JWT tells to which certificate it is bound.

    :param cert: a path, or those of certificate and key.
    """
    bound = _thumbprint_in(token.access_token)
    if bound is None:
        return None
    if not cert:
        return (
            "the token is bound to a client certificate, and the request presented none: set cert"
        )
    path = cert if isinstance(cert, str) else cert[0]
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
