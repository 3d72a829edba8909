"""What all sources here have in common: they are grants, and plain functions too."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from tokenadapter.late_imports import importing, late, load
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.token import Token
from tokenadapter.values import Credential, parameters

if TYPE_CHECKING:
    import requests

    from tokenadapter import errors, spelling
    from tokenadapter.errors import TokenError
    from tokenadapter.sources import client_auth, deadline, outcome, reply
else:
    client_auth = late("tokenadapter.sources.client_auth")
    deadline = late("tokenadapter.sources.deadline")
    errors = late("tokenadapter.errors")
    outcome = late("tokenadapter.sources.outcome")
    reply = late("tokenadapter.sources.reply")
    requests = late("requests")
    spelling = late("tokenadapter.spelling")

__all__ = ["Source", "checked_text"]


class Source:
    """A grant (:class:`~tokenadapter.protocols.Grant`) that asks one endpoint.

    Called as a function of the previous token, it presents the most welcome credential it has.
    """

    owner: Mapping[str, str]
    requested: Mapping[str, str]
    client_credential: str
    urls: Sequence[str]
    grace: float = 0.0
    spends: bool = True

    def __new__(cls, *_: Any, **named: Any) -> Self:
        """Check the names of the arguments here, where it is known which class was called."""
        known = parameters(cls) if named else None
        if known is not None and not named.keys() <= known:
            spelling.check_names(cls.__name__, named, known)
        return super().__new__(cls)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.deadline: float = endpoint.timeout
        self.urls = (endpoint.url,)

    @staticmethod
    def load() -> None:
        """Import what :meth:`fetch` needs."""
        load(requests, client_auth, deadline, outcome, reply)
        with importing():
            codecs.lookup("utf-8-sig")

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        """What could be presented now, the most welcome first."""
        raise NotImplementedError

    def fetch(self, credential: Credential, previous: Token | None) -> Token:
        """Present *credential*, in one request.

        :raises ReauthRequired: if the server refused the credential.
        :raises RefreshConfigError: if the request was refused for another reason than that.
        :raises RefreshTemporarilyFailed: if there was no answer, or none that says either.
        """
        outcome = self._present(credential)
        if isinstance(outcome, Token):
            return outcome
        raise outcome

    def __call__(self, previous: Token | None = None) -> Token:
        for credential in self.credentials(previous):
            return self.fetch(credential, previous)
        raise errors.ReauthRequired(
            f"There is nothing to obtain a token from {self._endpoint.name} with. "
            f"{errors.NEW_LOGIN}",
            reason="no_credential",
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint.name}>"

    def _present(self, credential: Credential) -> Token | TokenError:
        raise NotImplementedError


def checked_text(name: str, value: str, *, may_be_empty: bool = False) -> str:
    """*value*, if it is a text.

    :raises TypeError: if it is not.
    :raises ValueError: if it is empty and must not be.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value and not may_be_empty:
        raise ValueError(f"{name} is empty")
    if value != value.strip("\r\n"):
        raise ValueError(f"{name} begins or ends with a line end, as read from a file: strip it")
    return value
