"""The errors that tokenadapter raises, and the evidence that each carries.

They descend from :class:`requests.exceptions.RequestException`, because that is what the
callers of a :class:`requests.Session` already catch.  Each message says what happened, what was
kept, and what to do next; none holds a secret.

An error is raised again in every thread that waited for the same renewal, and travels through
pickle to other processes, so everything it knows is in its attributes.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any, Self

from requests.exceptions import RequestException

__all__ = [
    "LockTimeout",
    "ReauthRequired",
    "RefreshConfigError",
    "RefreshTemporarilyFailed",
    "StoreError",
    "TokenError",
    "TokenNotPersisted",
    "UnsafeTarget",
]

LOG_IN = (
    "Log in with `tokenadapter login NAME` or tokenadapter.login(). Pass a token from elsewhere to "
    "`tokenadapter adopt NAME` or TokenKeeper.adopt()."
)
"""What to do when no credential is left, as records and sources say it: see :func:`fitted`."""
_IN_PROGRAM = (
    "Log in with tokenadapter.login(), or in a web application with tokenadapter.begin_login(). "
    "Pass a token from elsewhere to TokenKeeper.adopt()."
)
# A command, and what a program calls instead.
_EITHER = re.compile(r"(`tokenadapter [^`]*`) or ([\w.]+\([^)]*\))")


def fitted(text: str, profile: str | None = None, advice: str | None = None) -> str:
    """*text* with advice that fits the place where it is read.

    :param profile: how a command line names the profile.  Without one, the command is not in use,
        and of a command and a function only the function stays.
    :param advice: replaces the advice to log in.
    """
    if profile is None:
        return _EITHER.sub(r"\2", text.replace(LOG_IN, advice or _IN_PROGRAM))
    text = _EITHER.sub(r"\1", text.replace(LOG_IN, advice) if advice else text)
    return text.replace(" NAME`", f" {profile}`").replace(" NAME --", f" {profile} --")


class TokenError(RequestException):
    """The base of every error that tokenadapter raises.

    :ivar slot: the name of the slot in its store; for a file, its path.
    :ivar store: the ``repr`` of the store, which shows no secret.
    :ivar account: whose login it is, if that is known: as the login or ``account=`` names the user.
    :ivar since: since when the failure is known (POSIX timestamp in seconds, by the store's clock).
    """

    slot: str | None = None
    store: str | None = None
    account: str | None = None
    since: float | None = None
    # How a command line names the profile, if there is one.
    profile: str | None = None
    # The exit code of the command after this error.
    exit_code: int = 1
    advice: str | None = None

    def __init__(self, message: str, **evidence: Any) -> None:
        super().__init__(message)
        self.__dict__.update(evidence)

    def __str__(self) -> str:
        text = fitted(super().__str__(), self.profile, self.advice)
        return text if self.store is None or self.store in text else f"{text} [{self.store}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def again(self) -> Self:
        """A copy to raise in another thread, since each raise adds to the traceback."""
        twin = copy.copy(self)
        twin.__cause__ = self.__cause__
        return twin


class ReauthRequired(TokenError):
    """No usable credential is left: a person has to log in again.

    The record is kept.  Until a new token is adopted, every process that shares the store raises
    this error at once, without using the network.

    :ivar reason: ``"invalid_grant"`` (the server refused the credential), ``"uncertain_rotation"``
        (the answer to an earlier renewal was lost, and the server refused the old refresh token),
        ``"store_lost"`` (the record is gone and the configured first refresh token was already
        spent), ``"no_credential"`` (there never was one), ``"private_copy"`` (the refresh token
        may also belong to another process, and no lock keeps the two apart) or ``"login_failed"``
        (a login was denied, not finished in time, or made by another user).
    :ivar error: the server's ``error`` code (RFC 6749 section 5.2), if it sent one.
    :ivar advice: how to log in here, as ``advise=`` or the profile says it; ``None`` if neither
        does.  The message contains it, if it advises to log in.
    """

    exit_code = 4
    reason: str = "invalid_grant"
    error: str | None = None

    def __init__(self, message: str, *, reason: str = "invalid_grant", **evidence: Any) -> None:
        super().__init__(message, reason=reason, **evidence)


class RefreshTemporarilyFailed(TokenError):
    """The token endpoint could not be reached or could not answer; a later attempt may succeed.

    Until ``retry_at`` every process that shares the store raises this error at once, without using
    the network.  Then one of the processes tries again.

    :ivar retry_at: when the next attempt may be made (POSIX timestamp in seconds, by this
        machine's clock), or ``None`` when the next call may try.
    :ivar error: the server's ``error`` code (RFC 6749 section 5.2), if it sent one.
    :ivar retry_after: how many seconds the server asked to wait, if it did.
    :ivar processed: ``False`` if the server certainly did not spend the credential that was
        presented, ``None`` if that is unknown.
    :ivar is_local: whether this program, and not a server, ended the attempt.  Then there is no
        backoff, and the next call tries again.
    """

    exit_code = 5
    retry_at: float | None = None
    error: str | None = None
    retry_after: float | None = None
    processed: bool | None = None
    is_local: bool = False


class RefreshConfigError(TokenError):
    """The token request cannot succeed as configured: a client, scope, URL or store is wrong.

    Nothing was overwritten and no refresh token was lost.

    :ivar error: the server's ``error`` code (RFC 6749 section 5.2), if it sent one.
    :ivar is_local: whether the program or its configuration failed, and not a server: then there is
        no backoff, and the next call tries again.
    """

    exit_code = 3
    error: str | None = None
    is_local: bool = False


class StoreError(TokenError):
    """The token store cannot be read, written or trusted.  Its content was left unchanged."""

    exit_code = 6


class TokenNotPersisted(StoreError):
    """A valid token could not be saved; only this process can use it."""


class LockTimeout(TokenError):
    """Another thread or process was still renewing the token when the time to wait ran out."""

    exit_code = 5


class UnsafeTarget(TokenError, ValueError):
    """A prefix or URL to which a token must not be sent, such as plain http to another host."""

    exit_code = 3


def _rebuild(kind: type[TokenError], args: tuple[Any, ...], state: dict[str, Any]) -> TokenError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def also(error: TokenError, base: Any) -> TokenError:
    """*error* again, as a *base* too: the error that callers of another HTTP library catch."""
    rebuild, (kind, *state) = TokenError.__reduce__(error)
    both: Any = _of_both(kind, base)
    twin: TokenError = rebuild(both, *state)
    return twin.with_traceback(error.__traceback__)


@cache
def _of_both(kind: Any, base: Any) -> Any:
    if issubclass(kind, base):
        return kind

    def __reduce__(self: TokenError) -> tuple[Any, ...]:  # noqa: N807
        rebuild, (_, *state) = TokenError.__reduce__(self)
        return also, (rebuild(kind, *state), base)

    # To people it has the same name, and pickle finds it by the way that it was made.
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": __reduce__}
    return type(kind.__name__, (kind, base), names)
