"""How a client proves who it is at the token endpoint (RFC 6749 section 2.3)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import MutableMapping
from urllib.parse import quote_plus

__all__ = ["METHODS", "authenticate", "checked_method"]

METHODS = ("client_secret_basic", "client_secret_post", "none")


def checked_method(method: str, client_secret: str | None) -> str:
    """The method to use: ``none`` for a client without a secret, unless it asks for another.

    :raises ValueError: if there is no such method, or it does not go with what is given.
    """
    if method not in METHODS:
        raise ValueError(f"client_auth must be one of {', '.join(METHODS)}, not {method!r}")
    if client_secret is None:
        if method == "client_secret_post":
            raise ValueError(f"client_auth={method!r} needs a client_secret")
        return "none"
    if method == "none":
        raise ValueError("client_auth='none' sends no client_secret: leave one of them out")
    return method


def authenticate(
    method: str,
    client_id: str,
    client_secret: str | None,
    form: MutableMapping[str, str],
    headers: MutableMapping[str, str],
) -> None:
    """Add to *form* or *headers* what *method* asks for."""
    secret = client_secret or ""
    if method == "client_secret_basic":
        # Encoded before they are joined: a colon may be in either (RFC 6749 section 2.3.1).
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return
    form["client_id"] = client_id
    if method == "client_secret_post":
        form["client_secret"] = secret
