"""Token sources: how a token is obtained, one grant a file.  This is what the grants share."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tokenadapter.late_imports import importing, late, load
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.token import Token
from tokenadapter.values import Credential, longest_timeout, parameters

if TYPE_CHECKING:
    from tokenadapter import errors, spelling
    from tokenadapter.errors import TokenError
else:
    errors = late("tokenadapter.errors")
    spelling = late("tokenadapter.spelling")

__all__ = ["Source", "checked_text", "in_order", "or_raise", "several", "usual_timeout"]

T = TypeVar("T")

_NEEDED_BY_FETCH = (
    "requests",
    "tokenadapter.sources.client_auth",
    "tokenadapter.sources.deadline",
    "tokenadapter.sources.outcome",
)


class Source:
    """A grant (:class:`~tokenadapter.protocols.Grant`) that sends its requests to one endpoint.

    A source is also a function of the previous token: it presents the first of its credentials.
    """

    owner: Mapping[str, str]
    requested: Mapping[str, str] = {}
    urls: Sequence[str]
    grace: float = 0.0
    spends: bool = True
    discovers: bool = False
    renew_early: bool = True
    verdict: Mapping[str, Any] | None = None
    login_settings: Mapping[str, str] = {}
    login_lifetime: float | None = None
    begins_with_login: bool = False

    def __new__(cls, *unnamed: Any, **named: Any) -> Self:
        """Check the arguments here: only here is the class known that was called."""
        if len(unnamed) > 1:
            spelling.check_unnamed(cls, len(unnamed))
        known = parameters(cls) if named else None
        if known is not None and not named.keys() <= known:
            spelling.check_names(cls.__name__, named, known)
        return super().__new__(cls)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.deadline: float = endpoint.timeout
        self.urls = (endpoint.url,)

    @property
    def client_credential(self) -> str:
        """What authenticates the client."""
        raise NotImplementedError

    @staticmethod
    def load() -> None:
        """Import what :meth:`fetch` needs."""
        load(*map(late, _NEEDED_BY_FETCH))
        with importing():
            codecs.lookup("utf-8-sig")

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        """What can be presented now, in order of preference."""
        raise NotImplementedError

    def fetch(self, credential: Credential, previous: Token | None) -> Token:
        """Present *credential*, in one request.

        :raises ReauthRequired: if the server refused the credential.
        :raises RefreshConfigError: if the server refused the request for another reason.
        :raises RefreshTemporarilyFailed: if there was no answer, or the answer does not say.
        """
        if credential.key is None and previous is not None:
            credential = credential._replace(key=previous.key)
        return or_raise(self._present(credential))

    def __call__(self, previous: Token | None = None) -> Token:
        for credential in self.credentials(previous):
            return self.fetch(credential, previous)
        raise errors.ReauthRequired(
            f"There is no credential to obtain a token from {self._endpoint.name} with. "
            f"{errors.LOG_IN}",
            reason="no_credential",
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint.name}>"

    def _present(self, credential: Credential) -> Token | TokenError:
        """Send the request.  Errors are returned, as :mod:`tokenadapter.sources.outcome` says."""
        raise NotImplementedError


def checked_text(name: str, value: str, *, may_be_empty: bool = False) -> str:
    """*value* itself.

    :raises TypeError: if it is not a text.
    :raises ValueError: if it is empty and must not be, or begins or ends with a line end.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value and not may_be_empty:
        raise ValueError(f"{name} is empty")
    if value != value.strip("\r\n"):
        raise ValueError(f"{name} begins or ends with a line end, as read from a file: strip it")
    return value


def usual_timeout(timeout: float | None, grace: float, longer: float = 1.0) -> float:
    """*timeout*; by default 10 seconds, or fewer if the server's *grace* allows only that.

    :param longer: by what a renewal may take longer than the timeout.
    """
    if isinstance(grace, (bool, str)) or not grace >= 0:
        raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
    return min(10.0, longest_timeout(grace / longer)) if timeout is None else timeout


def several(name: str, value: str | Iterable[str] | None) -> list[str]:
    """One or several texts as a list."""
    values = [value] if value and isinstance(value, str) else value or ()
    return [checked_text(name, item) for item in values]


def or_raise(result: T | TokenError) -> T:
    """*result*, unless it is an error: that is raised.

    Errors are returned as far as the frames contain secrets: see
    :mod:`tokenadapter.sources.outcome`.
    """
    if isinstance(result, Exception):
        raise result
    return result


def in_order(words: Iterable[str]) -> str:
    """*words* as one text, which is the same in whatever order they were given."""
    return " ".join(sorted(set(words)))
