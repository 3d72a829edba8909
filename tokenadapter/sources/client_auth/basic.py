"""``client_secret_basic``: the secret in an ``Authorization`` header (RFC 6749 section 2.3.1)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from typing import Any
from urllib.parse import quote_plus

__all__ = ["ClientSecretBasic"]


class ClientSecretBasic:
    """HTTP Basic authentication with the client's identifier and secret.

    :param client_secret: the secret, which may be empty.
    """

    def __init__(self, client_secret: str) -> None:
        self.credential: str = client_secret

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        # Both are encoded before they are joined, since either may contain a colon.
        pair = f"{quote_plus(client_id)}:{quote_plus(self.credential)}"
        encoded = b64encode(pair.encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
        return self.credential, encoded
