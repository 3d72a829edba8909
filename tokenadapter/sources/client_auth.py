"""How a client proves who it is at the token endpoint (RFC 6749 section 2.3)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import MutableMapping
from urllib.parse import quote_plus

__all__ = ["authenticate"]


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
