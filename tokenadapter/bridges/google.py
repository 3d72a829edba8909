"""Credentials for Google's clients: ``storage.Client(credentials=KeeperCredentials(keeper))``.

A client asks before each request, so that the keeper alone decides when a token is renewed.  After
a 401, the transports of google-auth call ``refresh()``, and send the request again.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

from tokenadapter.bridges import Bridge
from tokenadapter.core.policy import windows

try:
    from google.auth.credentials import Credentials
    from google.auth.exceptions import RefreshError
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "KeeperCredentials needs google-auth: pip install 'tokenadapter[google]'"
    ) from _error

if TYPE_CHECKING:
    from tokenadapter.token import Token

__all__ = ["KeeperCredentials"]


class _Failed(RefreshError):
    """What google-auth raises if there is no token."""

    _retryable = False


class KeeperCredentials(Bridge, Credentials):
    """Credentials of google-auth whose tokens come from a keeper.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`.
    :raises TypeError: if *keeper* is not a keeper.
    :ivar token: the last access token that these credentials returned; ``None`` before the first.
    :ivar expiry: when that token expires, in UTC and without a time zone, as google-auth expects;
        ``None`` if that is unknown.
    """

    _raises = _Failed
    _ends = inf  # a POSIX timestamp
    token: str | None
    expiry: datetime | None

    @property
    def expired(self) -> bool:
        """Whether the last token is too old for another request.

        google-auth itself calls a token expired 225 seconds before its end.  A token that lives for
        three minutes would always be expired, and programs that refresh expired credentials would
        renew it each time.
        """
        return time.time() >= self._ends

    def before_request(
        self, request: Any, method: str, url: str, headers: MutableMapping[str, str]
    ) -> None:
        """Put a token into *headers*.

        :raises google.auth.exceptions.RefreshError: if there is no token; the error is a
            :class:`~tokenadapter.TokenError` as well.
        """
        # As its own text: another thread may be given another token meanwhile.
        self.apply(headers, token=self._shown(self._given.token()))

    def refresh(self, request: Any) -> None:
        """Replace the last token, which the API refused or which is about to expire.

        If there is no last token, it obtains the first one.

        :param request: not used, because the source of the keeper sends its own requests.
        :raises google.auth.exceptions.RefreshError: as :meth:`before_request` does.
        """
        self._shown(self._given.replacement())

    def _shown(self, token: Token) -> str:
        at, lifetime = token.expires_at, token.lifetime
        self._ends = inf if at is None or lifetime is None else at - windows(lifetime, 0)[1]
        self.expiry = None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
        self.token = token.access_token
        return token.access_token
