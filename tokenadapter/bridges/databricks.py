"""Tokens for the Databricks SDK.

::

    WorkspaceClient(host=..., credentials_strategy=KeeperCredentialsStrategy(keeper))
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tokenadapter.bridges import Bridge

try:
    from databricks.sdk.credentials_provider import CredentialsStrategy, OAuthCredentialsProvider
    from databricks.sdk.oauth import Token
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "KeeperCredentialsStrategy needs databricks-sdk: pip install 'tokenadapter[databricks]'"
    ) from _error

if TYPE_CHECKING:
    from databricks.sdk.core import Config

__all__ = ["KeeperCredentialsStrategy"]


class KeeperCredentialsStrategy(Bridge, CredentialsStrategy):
    """A credentials strategy of the Databricks SDK: each request calls the keeper.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`.
    :raises TypeError: if *keeper* is not a keeper.
    """

    def auth_type(self) -> str:
        """Its name in messages of the SDK."""
        return "tokenadapter"

    def __call__(self, config: Config | None = None) -> OAuthCredentialsProvider:
        """What the SDK asks for headers, and some of its clients for the token itself.

        :param config: it is not used, and the SQL connector passes none.
        """
        return OAuthCredentialsProvider(self._headers, self._oauth_token)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._given.token().access_token}"}

    def _oauth_token(self) -> Token:
        token = self._given.token()
        at = token.expires_at
        # The SDK compares it with the local time.
        expiry = None if at is None else datetime.fromtimestamp(at)  # noqa: DTZ006
        return Token(token.access_token, token_type="Bearer", expiry=expiry)
