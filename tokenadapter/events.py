"""The events in the life of a token, for ``on_event`` and the log.

Every event is a frozen dataclass.  An event contains no secret: a token appears as its fingerprint
(the first eight hexadecimal digits of its SHA-256).  Each event names the store of its token, so
that a program with a slot for each user can tell the slots apart.  Each event is also logged under
``tokenadapter``, with the text of ``str(event)`` and at the level ``event.level``; at level DEBUG
if a caller gets an error with the same message.  Both happen in the thread in which the event
happens.

This module is imported when the first event happens, so a program whose token is fresh does not
pay for the import.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import ClassVar

__all__ = [
    "Adopted",
    "Event",
    "ExtrasDropped",
    "FirstTokenUnused",
    "Found",
    "HandedOn",
    "OutsidePrefix",
    "ReauthNeeded",
    "RefreshCallbackFailed",
    "RenewalFailed",
    "RenewalStarted",
    "Renewed",
    "ReplayStarted",
    "Replayed",
    "SaveFailed",
    "ScopeNarrowed",
    "StepUpNeeded",
    "StoreFailed",
    "Waited",
]


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events."""

    _level: ClassVar[int] = logging.INFO
    store: str = field(kw_only=True)
    """The ``repr`` of the store in which the keeper has the token."""

    @property
    def level(self) -> int:
        """The level of the event in the log, a number of :mod:`logging`."""
        return self._level

    def __str__(self) -> str:
        text = self._text()
        return text if self.store in text else f"{text} [{self.store}]"

    def _text(self) -> str:
        """What happened, in words."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RenewalStarted(Event):
    """This process is about to send a token request.

    :class:`Renewed`, :class:`RenewalFailed` or :class:`ReauthNeeded` follows, if the process lives.
    """

    _level: ClassVar[int] = logging.DEBUG
    presented: str
    """The kind of credential that is presented: ``refresh_token``, ``client``, ..."""

    def _text(self) -> str:
        return f"renewal started: by {self.presented}"


@dataclass(frozen=True, slots=True)
class Renewed(Event):
    """This process obtained a new token."""

    token: str
    """Its fingerprint."""
    presented: str
    """The kind of credential that was presented: ``refresh_token``, ``client``, ..."""
    seconds: float
    """How long the token request took."""

    def _text(self) -> str:
        return f"renewed: token {self.token} by {self.presented} in {self.seconds:.3f} s"


@dataclass(frozen=True, slots=True)
class Found(Event):
    """Another process obtained a token, and this process uses it too."""

    _level: ClassVar[int] = logging.DEBUG
    token: str
    """Its fingerprint."""

    def _text(self) -> str:
        return f"found: token {self.token} in the store"


@dataclass(frozen=True, slots=True)
class Adopted(Event):
    """A token that was obtained elsewhere was saved to the store."""

    token: str
    """Its fingerprint."""

    def _text(self) -> str:
        return f"adopted: token {self.token}"


@dataclass(frozen=True, slots=True)
class Waited(Event):
    """A caller had to wait for a renewal."""

    _level: ClassVar[int] = logging.DEBUG
    seconds: float
    """How long the caller waited."""

    def _text(self) -> str:
        return f"waited {self.seconds:.3f} s for a renewal"


@dataclass(frozen=True, slots=True)
class ReplayStarted(Event):
    """A request was refused for its token, and is sent again.

    :class:`Replayed` follows, unless the request fails.
    """

    _level: ClassVar[int] = logging.DEBUG
    method: str
    url: str
    """Without its query."""
    status: int
    """The HTTP status of the refusal."""
    token: str
    """The fingerprint of the token that the request is sent with."""

    def _text(self) -> str:
        return (
            f"replay started: {self.method} {self.url} after {self.status}, with token {self.token}"
        )


@dataclass(frozen=True, slots=True)
class Replayed(Event):
    """A request was refused for its token, sent again, and answered."""

    method: str
    url: str
    """Without its query."""
    status: int
    """The HTTP status of the refusal."""
    token: str
    """The fingerprint of the token that the request was sent again with."""
    answer: int
    """The HTTP status of the answer to the replay."""

    def _text(self) -> str:
        return (
            f"replayed: {self.method} {self.url} after {self.status}, with token {self.token}: "
            f"{self.answer}"
        )


@dataclass(frozen=True, slots=True)
class HandedOn(Event):
    """A refusal was handed on to the caller, for the given reason."""

    _level: ClassVar[int] = logging.WARNING
    method: str
    url: str
    """Without its query."""
    status: int
    reason: str

    def _text(self) -> str:
        return f"handed on: {self.status} for {self.method} {self.url}: {self.reason}"


@dataclass(frozen=True, slots=True)
class StepUpNeeded(Event):
    """The API requires more than a renewal can give: a wider scope, or a stronger or more recent
    login (RFC 9470).  The response was handed on."""

    _level: ClassVar[int] = logging.WARNING
    method: str
    url: str
    """Without its query."""
    status: int
    error: str
    """``insufficient_scope`` or ``insufficient_user_authentication``."""
    scope: str | None
    """The required scope, separated by spaces.  A scope of more than 200 characters is cut, and one
    that repeats the token is replaced by ``None``.  :func:`~tokenadapter.http.verdicts.step_up`
    returns the full scope."""
    acr_values: str | None
    """The accepted authentication contexts, separated by spaces, the preferred one first; cut or
    ``None`` like the scope."""
    max_age: int | None
    """The seconds within which the user must have authenticated."""

    def _text(self) -> str:
        wanted = {"scope": self.scope, "acr_values": self.acr_values, "max_age": self.max_age}
        details = [f", {name} {value!r}" for name, value in wanted.items() if value is not None]
        return (
            f"step-up needed: {self.status} for {self.method} {self.url}: "
            f"{self.error}{''.join(details)}"
        )


@dataclass(frozen=True, slots=True)
class OutsidePrefix(Event):
    """An adapter sent a request without a token, because the URL is outside its prefix."""

    _level: ClassVar[int] = logging.WARNING
    prefix: str
    url: str
    """Without its query."""
    host: str | None = None
    """The host in the request's ``Host`` header, if only the header is outside the prefix."""

    def _text(self) -> str:
        if self.host is not None:
            return (
                f"the Host header {self.host} of {self.url} names another host than the prefix "
                f"{self.prefix}; sent without a token (logged once)"
            )
        return f"{self.url} is outside the prefix {self.prefix}; sent without a token (logged once)"


@dataclass(frozen=True, slots=True)
class RenewalFailed(Event):
    """A renewal failed; a later attempt may succeed."""

    _level: ClassVar[int] = logging.WARNING
    error: str
    """The message of the error that callers get once the token has expired."""
    retry_at: float | None
    """When the next attempt may be made (POSIX timestamp in seconds)."""

    def _text(self) -> str:
        return f"renewal failed: {self.error}"


@dataclass(frozen=True, slots=True)
class ReauthNeeded(Event):
    """No usable credential is left: a person has to log in again."""

    _level: ClassVar[int] = logging.ERROR
    reason: str
    """The ``reason`` of :class:`~tokenadapter.ReauthRequired`."""
    error: str
    """The message of the error that callers get."""

    @property
    def level(self) -> int:
        """ERROR, but INFO if there never was a credential: a new user has not logged in yet."""
        return logging.INFO if self.reason == "no_credential" else self._level

    def _text(self) -> str:
        return f"login needed ({self.reason}): {self.error}"


@dataclass(frozen=True, slots=True)
class SaveFailed(Event):
    """A new token that cost a refresh token could not be saved.

    This process uses the token and retries the save.
    """

    _level: ClassVar[int] = logging.CRITICAL
    token: str
    """Its fingerprint."""
    error: str
    lost: bool = False
    """Whether the process is ending, so that the token is lost."""

    def _text(self) -> str:
        outcome = (
            "this process is ending, and the token is lost"
            if self.lost
            else "this process uses the token and retries the save"
        )
        return f"token {self.token} could not be saved: {self.error}; {outcome}"


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
    """The store cannot be used, so this process keeps its tokens in memory only.

    Emitted once, and only for tokens that cost no refresh token.
    """

    _level: ClassVar[int] = logging.WARNING
    error: str

    def _text(self) -> str:
        return f"the token is kept in memory only: {self.error} (logged once)"


@dataclass(frozen=True, slots=True)
class ScopeNarrowed(Event):
    """The server granted less than the requested scope (RFC 6749 section 3.3).  Emitted once."""

    _level: ClassVar[int] = logging.WARNING
    missing: str
    """What was requested but not granted, separated by spaces."""

    def _text(self) -> str:
        return (
            "the server granted less than was requested: the token lacks the scope "
            f"{self.missing!r} (logged once)"
        )


@dataclass(frozen=True, slots=True)
class ExtrasDropped(Event):
    """A token is saved without the extra fields of its response: they do not fit into a record."""

    _level: ClassVar[int] = logging.WARNING
    token: str
    """Its fingerprint."""

    def _text(self) -> str:
        return (
            f"token {self.token} is saved without the extra fields of its response: they are too "
            "large, too deeply nested, or not JSON"
        )


@dataclass(frozen=True, slots=True)
class FirstTokenUnused(Event):
    """A renewal presents the stored refresh token, which did not begin with the configured one.

    ``account=`` says that both are of the same user.  Without it, the stored token is refused.
    """

    _level: ClassVar[int] = logging.WARNING

    def _text(self) -> str:
        return (
            f"{self.store} holds a token that does not descend from the configured refresh token. "
            "The stored token is used. To use the configured refresh token, pass it to "
            "TokenKeeper.adopt() or `tokenadapter adopt NAME` (logged once)"
        )


@dataclass(frozen=True, slots=True)
class RefreshCallbackFailed(Event):
    """``on_refresh`` raised an exception.  Requests use the new token all the same."""

    _level: ClassVar[int] = logging.ERROR
    error: str
    """The class of the exception; its traceback is in the log at level DEBUG."""

    def _text(self) -> str:
        return f"on_refresh raised {self.error} (traceback at DEBUG); the new token is used"
