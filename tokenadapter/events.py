"""What happens to a token, told to ``on_event`` and to the log.

Every event is a frozen dataclass.  It holds no secret: tokens appear by their fingerprint (the
first eight hexadecimal digits of the SHA-256).  The same events go to :mod:`logging` under
``tokenadapter``, each as the sentence that ``str(event)`` gives, at the level that
``event.level`` names.  It is told in the thread in which it happens.

This module is imported when the first event happens, not before: a program whose token is good
never pays for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
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

    level: ClassVar[int] = logging.INFO


@dataclass(frozen=True, slots=True)
class RenewalStarted(Event):
    """This process is about to send a token request.

    :class:`Renewed`, :class:`RenewalFailed` or :class:`ReauthNeeded` follows, if the process lives.
    """

    level: ClassVar[int] = logging.DEBUG
    presented: str
    """The kind of credential that is presented: ``refresh_token``, ``client``, ..."""

    def __str__(self) -> str:
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

    def __str__(self) -> str:
        return f"renewed: token {self.token} by {self.presented} in {self.seconds:.3f} s"


@dataclass(frozen=True, slots=True)
class Found(Event):
    """Another process had obtained a token: this one uses it too."""

    level: ClassVar[int] = logging.DEBUG
    token: str
    """Its fingerprint."""

    def __str__(self) -> str:
        return f"found: token {self.token} in the store"


@dataclass(frozen=True, slots=True)
class Adopted(Event):
    """A token that came from elsewhere was put into the store."""

    token: str
    """Its fingerprint."""

    def __str__(self) -> str:
        return f"adopted: token {self.token}"


@dataclass(frozen=True, slots=True)
class Waited(Event):
    """A caller had to wait for a renewal."""

    level: ClassVar[int] = logging.DEBUG
    seconds: float

    def __str__(self) -> str:
        return f"waited {self.seconds:.3f} s for a renewal"


@dataclass(frozen=True, slots=True)
class ReplayStarted(Event):
    """A request was refused for its token, and is sent again.

    :class:`Replayed` follows, unless the request fails.
    """

    level: ClassVar[int] = logging.DEBUG
    method: str
    url: str
    """Without its query."""
    status: int
    """The HTTP status of the refusal."""
    token: str
    """The fingerprint of the token that the request is sent with."""

    def __str__(self) -> str:
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

    def __str__(self) -> str:
        return (
            f"replayed: {self.method} {self.url} after {self.status}, with token {self.token}: "
            f"{self.answer}"
        )


@dataclass(frozen=True, slots=True)
class HandedOn(Event):
    """A refusal was handed on to the caller, for the reason given."""

    level: ClassVar[int] = logging.WARNING
    method: str
    url: str
    """Without its query."""
    status: int
    reason: str

    def __str__(self) -> str:
        return f"handed on: {self.status} for {self.method} {self.url}: {self.reason}"


@dataclass(frozen=True, slots=True)
class StepUpNeeded(Event):
    """The API wants more than the token gives, and a renewal would give no more: a greater scope,
    or a stronger or more recent login (RFC 9470).  The answer was handed on."""

    level: ClassVar[int] = logging.WARNING
    method: str
    url: str
    """Without its query."""
    status: int
    error: str
    """``insufficient_scope`` or ``insufficient_user_authentication``."""
    scope: str | None
    """The scope that is needed, separated by spaces; cut if it is longer than 200 characters, and
    ``None`` if it repeats the token.  :func:`~tokenadapter.http.verdicts.step_up` reads the whole
    scope."""
    acr_values: str | None
    """The authentication contexts that would do, separated by spaces, the preferred first; cut and
    left out likewise."""
    max_age: int | None
    """The seconds within which the user must have authenticated."""

    def __str__(self) -> str:
        wanted = {"scope": self.scope, "acr_values": self.acr_values, "max_age": self.max_age}
        told = "".join(f", {name} {value!r}" for name, value in wanted.items() if value is not None)
        return (
            f"more than a token needed: {self.status} for {self.method} {self.url}: "
            f"{self.error}{told}"
        )


@dataclass(frozen=True, slots=True)
class OutsidePrefix(Event):
    """An adapter was given a request outside its prefix, and sent it without a token."""

    level: ClassVar[int] = logging.WARNING
    prefix: str
    url: str
    """Without its query."""
    host: str | None = None
    """What the request's ``Host`` header names, if that is what leads out of the prefix."""

    def __str__(self) -> str:
        if self.host is not None:
            return (
                f"the Host header {self.host} of {self.url} names another host than the prefix "
                f"{self.prefix}; sent without a token (logged once)"
            )
        return f"{self.url} is outside the prefix {self.prefix}; sent without a token (logged once)"


@dataclass(frozen=True, slots=True)
class RenewalFailed(Event):
    """The token could not be renewed; later it may be."""

    level: ClassVar[int] = logging.WARNING
    error: str
    """The message of the error that callers get once the token has died."""
    retry_at: float | None
    """When the next attempt may be made (POSIX timestamp in seconds)."""

    def __str__(self) -> str:
        return f"renewal failed: {self.error}"


@dataclass(frozen=True, slots=True)
class ReauthNeeded(Event):
    """No credential is left: somebody has to log in again."""

    level: ClassVar[int] = logging.ERROR
    reason: str
    error: str

    def __str__(self) -> str:
        return f"login needed ({self.reason}): {self.error}"


@dataclass(frozen=True, slots=True)
class SaveFailed(Event):
    """A new token for which a refresh token was spent cannot be saved.

    This process uses it, and goes on trying.
    """

    level: ClassVar[int] = logging.CRITICAL
    token: str
    """Its fingerprint."""
    error: str
    lost: bool = False
    """Whether the process ends now, and the token with it."""

    def __str__(self) -> str:
        now = (
            "the process ends, and it is lost"
            if self.lost
            else "this process uses it and goes on trying"
        )
        return f"token {self.token} is not saved: {self.error}; {now}"


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
    """The store cannot be used, and this process does without it: its tokens are in memory only.

    That is told once, of a token for which nothing was spent.
    """

    level: ClassVar[int] = logging.WARNING
    error: str

    def __str__(self) -> str:
        return f"the token is kept in memory only: {self.error} (said once)"


@dataclass(frozen=True, slots=True)
class ScopeNarrowed(Event):
    """The server granted less than the scope that was asked for (RFC 6749 section 3.3).

    That is told once.
    """

    level: ClassVar[int] = logging.WARNING
    missing: str
    """What was asked for and not granted, separated by spaces."""

    def __str__(self) -> str:
        return (
            f"the server granted less than was asked for: the token is without the scope "
            f"{self.missing!r} (logged once)"
        )


@dataclass(frozen=True, slots=True)
class ExtrasDropped(Event):
    """A token is saved without the other fields of its response: no record could hold them."""

    level: ClassVar[int] = logging.WARNING
    token: str
    """Its fingerprint."""

    def __str__(self) -> str:
        return (
            f"token {self.token} is saved without the other fields of its response: they are too "
            "large, too deeply nested, or no JSON"
        )


@dataclass(frozen=True, slots=True)
class FirstTokenUnused(Event):
    """A renewal presents the stored refresh token, which did not begin with the configured one.

    ``account=`` says that both are of the same user.  Without it, the stored token is refused.
    """

    level: ClassVar[int] = logging.WARNING
    store: str

    def __str__(self) -> str:
        return (
            f"{self.store} holds a token that did not begin with the configured refresh token: "
            "the stored one is used. To use the configured one, hand it to TokenKeeper.adopt() or "
            "`tokenadapter adopt NAME` (logged once)"
        )


@dataclass(frozen=True, slots=True)
class RefreshCallbackFailed(Event):
    """``on_refresh`` raised.  Requests go on with the new token all the same."""

    level: ClassVar[int] = logging.ERROR
    error: str
    """The class of what it raised; the log has the traceback at level DEBUG."""

    def __str__(self) -> str:
        return f"on_refresh raised {self.error} (traceback at DEBUG); the new token is used"
