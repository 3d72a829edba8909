"""Tokens from a credential object of an SDK: one of Azure's, or one of Google's.

Such an object renews for its own process.  As a source, it renews for all processes that share the
store, and for clients of any kind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from functools import partial
from json import dumps
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from tokenadapter.late_imports import late, load
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    import google.auth.transport.requests as google_requests
else:
    google_requests = late("google.auth.transport.requests")

__all__ = ["AzureCredential", "GoogleCredentials"]


# Seconds for one request of google-auth, which sends up to three.
_TIMEOUT = 15


class SdkCredential:
    """A grant (:class:`~tokenadapter.protocols.Grant`) that asks an object of an SDK.

    :ivar asked_by: the thread that asks the object now.  If all sessions of the program sign their
        requests, those of the object are left unsigned.
    """

    spends: bool = False
    client_credential: str = ""
    grace: float = 0.0
    # An SDK may retry for longer, but a renewal that takes longer has failed for its callers.
    deadline: float = 60.0
    urls: Sequence[str] = ()
    asked_by: int | None = None

    def __init__(self, kind: str, account: str | None, scopes: Sequence[str]) -> None:
        self.owner: Mapping[str, str] = {"grant": kind} | ({"user": account} if account else {})
        self.requested: Mapping[str, str] = {"scope": " ".join(scopes)} if scopes else {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        """The object, which is not spent."""
        return [Credential(self.owner["grant"], "")]

    def fetch(self, credential: Credential, previous: Token | None) -> Token:
        """Ask the object.

        :raises Exception: what the object raises.
        """
        self.asked_by = get_ident()
        try:
            return self._token(previous)
        finally:
            self.asked_by = None

    def _token(self, previous: Token | None) -> Token:
        raise NotImplementedError


class _AzureToken(Protocol):
    @property
    def token(self) -> str: ...
    @property
    def expires_on(self) -> int: ...


class _AzureTokenCredential(Protocol):
    """What this module uses of ``azure.core.credentials.TokenCredential``."""

    def get_token(self, *scopes: str, claims: str | None = None) -> _AzureToken: ...


class AzureCredential(SdkCredential):
    """Tokens from a ``TokenCredential`` of the Azure SDK, such as ``DefaultAzureCredential()``.

    :param credential: the credential; not one of ``azure.identity.aio``.
    :param scopes: what the tokens are for, such as ``https://graph.microsoft.com/.default``.
    :param account: a name for the identity: a record of another one is refused.
    :raises TypeError: if *credential* is not such an object.
    :raises ValueError: if there is no scope.
    """

    def __init__(
        self, credential: _AzureTokenCredential, *scopes: str, account: str | None = None
    ) -> None:
        if not callable(getattr(credential, "get_token", None)):
            raise TypeError(f"credential must have get_token(), not {type(credential).__name__}")
        if hasattr(credential, "__aenter__"):
            raise TypeError("credential must not be one of azure.identity.aio")
        if not scopes:
            raise ValueError("AzureCredential needs at least one scope")
        super().__init__("azure credential", account, scopes)
        self._credential = credential
        self._scopes = scopes

    def _token(self, previous: Token | None) -> Token:
        found = self._credential.get_token(*self._scopes)
        if previous is not None and found.token == previous.access_token:
            # It is from the cache of the credential, which claims circumvent.  These are the ones
            # of an API that accepts no earlier token (Continuous Access Evaluation).
            now = {"essential": True, "value": str(int(time.time()))}
            claims = dumps({"access_token": {"nbf": now}})
            # Some credentials take no claims, such as that of the Azure CLI.
            with suppress(Exception):
                found = self._credential.get_token(*self._scopes, claims=claims)
        return Token(found.token, expires_at=found.expires_on)


class GoogleCredentials(SdkCredential):
    """Tokens from credentials of google-auth, such as ``google.auth.default(scopes=[...])[0]``.

    :param credentials: the credentials, with their scopes.  Each renewal refreshes them.
    :param account: a name for the identity: a record of another one is refused.
    :raises TypeError: if *credentials* is not such an object.
    """

    def __init__(self, credentials: Any, *, account: str | None = None) -> None:
        if not callable(getattr(credentials, "refresh", None)):
            kind = type(credentials).__name__
            raise TypeError(f"credentials must have refresh(), not {kind}")
        scopes = getattr(credentials, "scopes", None) or ()
        super().__init__("google credentials", account, scopes)
        self._credentials = credentials

    def load(self) -> None:
        """Import what :meth:`fetch` needs."""
        load(google_requests)

    def _token(self, previous: Token | None) -> Token:
        theirs = self._credentials
        theirs.refresh(partial(google_requests.Request(), timeout=_TIMEOUT))
        at = theirs.expiry
        return Token(
            theirs.token, expires_at=None if at is None else at.replace(tzinfo=UTC).timestamp()
        )
