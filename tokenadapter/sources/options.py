"""The keyword arguments that the OAuth 2 grants have in common, for type checkers.

Nothing imports this when a program runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Required, TypedDict

__all__ = ["OAuth2Options"]


class OAuth2Options(TypedDict, total=False):
    """The keyword arguments of :class:`~tokenadapter.sources.oauth2.OAuth2Source`."""

    client_id: Required[str]
    client_secret: str | None
    client_auth: str
    scope: str | Iterable[str] | None
    resource: str | Iterable[str] | None
    audience: str | None
    extra: Mapping[str, str] | None
    revocation_url: str | None
    timeout: float
    verify: bool | str | None
    cert: str | tuple[str, str] | None
    proxies: Mapping[str, str] | None
    allow_http: bool
