"""``none``: a public client, which has no secret (RFC 6749 section 2.1)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

__all__ = ["PublicClient", "Unnamed"]


class PublicClient:
    """The client's identifier alone, as a parameter of the form (RFC 6749 section 3.2.1)."""

    credential: str = ""

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        form["client_id"] = client_id
        return ()


class Unnamed:
    """Nothing at all, where the grant itself says who asks (RFC 7521 section 4.1)."""

    credential: str = ""

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        return ()
