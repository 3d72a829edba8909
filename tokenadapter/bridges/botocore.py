"""Bearer tokens for clients of botocore and boto3.

::

    session.register_component("token_provider", KeeperTokenProvider(keeper))

Some of botocore's services, such as Bedrock, take a bearer token in place of signed requests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from tokenadapter.bridges import Bridge

try:
    from botocore.exceptions import TokenRetrievalError
    from botocore.tokens import FrozenAuthToken
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "KeeperTokenProvider needs botocore: pip install 'tokenadapter[botocore]'"
    ) from _error

__all__ = ["KeeperTokenProvider"]


class KeeperTokenProvider(Bridge):
    """A token provider of botocore, and the token that it provides: each request calls the keeper.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`.
    :raises TypeError: if *keeper* is not a keeper.
    """

    METHOD = "tokenadapter"
    _raises = TokenRetrievalError

    def load_token(self, **names: Any) -> Self:
        """The token of a client, for whatever service."""
        return self

    def get_frozen_token(self) -> FrozenAuthToken:
        """The token of one request.

        :raises botocore.exceptions.TokenRetrievalError: if there is no token; the error is a
            :class:`~tokenadapter.TokenError` as well.
        """
        token = self._given.token()
        at = token.expires_at
        return FrozenAuthToken(
            token.access_token, None if at is None else datetime.fromtimestamp(at, UTC)
        )
