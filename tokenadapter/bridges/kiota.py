"""Tokens for clients that Kiota generated, such as Microsoft Graph's.

::

    provider = BaseBearerTokenAuthenticationProvider(KeeperAccessTokenProvider(keeper, [host]))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenadapter.bridges import Bridge
from tokenadapter.values import is_loopback

try:
    from kiota_abstractions.authentication import AccessTokenProvider, AllowedHostsValidator
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "KeeperAccessTokenProvider needs microsoft-kiota-abstractions: "
        "pip install 'tokenadapter[kiota]'"
    ) from _error

if TYPE_CHECKING:
    from tokenadapter.core.keeper import TokenKeeper

__all__ = ["KeeperAccessTokenProvider"]


class KeeperAccessTokenProvider(Bridge, AccessTokenProvider):
    """An ``AccessTokenProvider`` of Kiota whose tokens come from a keeper.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`.
    :param hosts: the only hosts that get a token.
    :raises TypeError: if *keeper* is not a keeper.
    :raises ValueError: if there is no host.
    """

    def __init__(self, keeper: TokenKeeper, hosts: Iterable[str]) -> None:
        super().__init__(keeper)
        self._hosts = [hosts] if isinstance(hosts, str) else [*hosts]
        if not self._hosts:
            raise ValueError("hosts is empty: no request would get a token")  # Kiota's "all"
        self._validator = AllowedHostsValidator(self._hosts)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._given.keeper, self._hosts)

    async def get_authorization_token(
        self, uri: str, additional_authentication_context: dict[str, Any] | None = None
    ) -> str:
        """The token for a request to *uri*.

        It is ``""`` for a request to another host, or over plain ``http`` to another machine.

        :param additional_authentication_context: if it has the ``claims`` of a challenge, the token
            that was refused with this challenge is renewed.
        :raises TokenError: if there is no token.
        """
        parts = urlsplit(uri)
        is_safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
        if not is_safe or not self._validator.is_url_host_valid(uri):
            return ""
        claims = (additional_authentication_context or {}).get("claims")
        return (await self._given.atoken(claims)).access_token

    def get_allowed_hosts_validator(self) -> AllowedHostsValidator:
        """The validator of the hosts that get a token."""
        return self._validator
