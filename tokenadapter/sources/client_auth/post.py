"""``client_secret_post``: the secret in the form (RFC 6749 section 2.3.1)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

__all__ = ["ClientSecretPost"]


class ClientSecretPost:
    """The client's identifier and secret as parameters of the form.

    :param client_secret: the secret, which may be empty.
    """

    def __init__(self, client_secret: str) -> None:
        self.credential: str = client_secret

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        form["client_id"], form["client_secret"] = client_id, self.credential
        return (self.credential,)
