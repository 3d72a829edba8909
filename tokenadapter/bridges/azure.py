"""Credentials for clients of the Azure SDK: ``BlobServiceClient(url, KeeperCredential(keeper))``.

The SDK calls the credential before each request, so that the keeper alone decides when a token is
renewed.  A claims challenge (Continuous Access Evaluation) says that the API refused the token.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tokenadapter.bridges import Bridge

try:
    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
    from azure.core.exceptions import ClientAuthenticationError
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "KeeperCredential needs azure-core: pip install 'tokenadapter[azure]'"
    ) from _error

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tokenadapter.token import Token

__all__ = ["AsyncKeeperCredential", "KeeperCredential"]

# What the SDK is told of a token of unknown lifetime: so few seconds that it asks each time.
_UNKNOWN_LIFETIME = 200
# A POSIX timestamp that has long passed.
_PAST = 1


class _Failed(ClientAuthenticationError):
    """What the SDK raises if there is no token, and never retries."""

    # What callers read, and what each error has that the SDK made.
    status_code = reason = error = model = continuation_token = None

    @property
    def message(self) -> str:  # type: ignore[override]
        return str(self)


class KeeperCredential(Bridge):
    """A ``TokenCredential`` whose tokens come from a keeper.

    The scopes and the tenant that a client asks for are ignored: the source of the keeper decides
    what its tokens are for.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`.
    :raises TypeError: if *keeper* is not a keeper.
    """

    _raises = _Failed

    def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> AccessToken:
        """The token for a request.

        :param claims: the claims of a challenge.  The token that was refused with this challenge is
            renewed.
        :raises azure.core.exceptions.ClientAuthenticationError: if there is no token; the error is
            a :class:`~tokenadapter.TokenError` as well.
        """
        return _access_token(self._given.token(claims))

    def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """As :meth:`get_token`, with more about the token."""
        return _token_info(self._given.token((options or {}).get("claims")))

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        pass


class AsyncKeeperCredential(Bridge):
    """An ``AsyncTokenCredential``; otherwise like :class:`KeeperCredential`."""

    _raises = _Failed

    async def get_token(
        self, *scopes: str, claims: str | None = None, **options: Any
    ) -> AccessToken:
        """As :meth:`KeeperCredential.get_token`."""
        return _access_token(await self._given.atoken(claims))

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """As :meth:`KeeperCredential.get_token_info`."""
        return _token_info(await self._given.atoken((options or {}).get("claims")))

    async def close(self) -> None:
        """Do nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        pass


def _access_token(token: Token) -> AccessToken:
    return AccessToken(token.access_token, _expires_on(token))


def _token_info(token: Token) -> AccessTokenInfo:
    # The SDK keeps a token until its time to refresh.  That time has come: otherwise the SDK would
    # go on with a token that another process has renewed.
    return AccessTokenInfo(token.access_token, _expires_on(token), refresh_on=_PAST)


def _expires_on(token: Token) -> int:
    if token.expires_at is None:
        return int(time.time()) + _UNKNOWN_LIFETIME
    return int(token.expires_at)
