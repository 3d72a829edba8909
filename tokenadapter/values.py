"""The values that the keeper exchanges with its sources and stores.

They are apart from the protocols, which only people and type checkers read, so that a program does
not import those when it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Self, TypeAlias, TypeVar, dataclass_transform

__all__ = [
    "Account",
    "Credential",
    "Document",
    "Snapshot",
    "Value",
    "checked_store",
    "is_loopback",
    "longest_timeout",
    "never",
    "one_line",
    "parameters",
    "printable",
]

T = TypeVar("T")
# The flag of a function that takes keyword arguments of any name (inspect.CO_VARKEYWORDS).
_ANY_NAME = 0x08

Document: TypeAlias = dict[str, Any]
"""A JSON object."""


@dataclass_transform(frozen_default=True)
class Value:
    """The base of a class whose annotated names are its fields, in their order.

    A value that is assigned to a name is its default.  The methods have the names of those of a
    NamedTuple::

        class Point(Value):
            x: float
            y: float = 0.0
    """

    def __init__(self, *values: object, **named: object) -> None:
        names = type(self).__annotations__
        given = dict(zip(names, values, strict=False), **named)
        if len(given) < len(values) + len(named) or not given.keys() <= names.keys():
            raise TypeError(f"{type(self).__name__} takes no such arguments")
        missing = [name for name in names if name not in given and not hasattr(self, name)]
        if missing:
            raise TypeError(f"{type(self).__name__} needs {', '.join(missing)}")
        vars(self).update(given)

    def _replace(self, **changes: object) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**vars(self), **changes})

    def _asdict(self) -> dict[str, Any]:
        """The fields and their values."""
        return {name: getattr(self, name) for name in type(self).__annotations__}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use _replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._asdict() == other._asdict()

    def __hash__(self) -> int:
        return hash(tuple(self._asdict().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({fields})"


def never() -> bool:
    """Return ``False``."""
    return False


def longest_timeout(grace: float) -> float:
    """The longest time in seconds that a token request may take if the server accepts a rotated
    refresh token for *grace* seconds.

    A request whose answer got lost must end, and so must its repetition, before the grace does.
    """
    return (grace - min(1.0, grace / 5)) / 2 if grace else inf


def is_loopback(host: str) -> bool:
    """Whether *host*, as it stands in a URL, is this machine (RFC 8252 section 8.3)."""
    first, *others = host.split(".")
    return host in ("localhost", "::1", "[::1]") or (
        first == "127"
        and len(others) == 3
        and all(part.isascii() and part.isdigit() and len(part) <= 3 for part in others)
    )


def parameters(kind: type) -> set[str] | None:
    """The parameter names of the constructor of *kind*; ``None`` if they are unknown.

    A constructor that takes ``**kwargs`` is assumed to pass them to the one of its base class.
    """
    names: set[str] = set()
    for base in kind.__mro__:
        init = vars(base).get("__init__")
        code = getattr(init, "__code__", None)
        if code is not None:
            names.update(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
            if not code.co_flags & _ANY_NAME:
                return names
        elif init is not None:
            break
    return None


class Credential(Value):
    """Something that a grant can present to obtain a token."""

    kind: str
    """What it is, for messages.  Only ``refresh_token`` affects behaviour: the presented refresh
    token stays in use if the response contains no new one (RFC 6749 section 6)."""
    secret: str
    """The secret to present.  It is compared only by its hash."""
    single_use: bool = False
    """Whether presenting it may spend it, as a rotated refresh token is (RFC 9700 section
    4.14.2).  It is presented again only if an answer may have been lost."""
    first: bool = False
    """Whether it starts a grant, because it comes from the configuration and not from the
    record."""
    refusal_is_final: bool = False
    """Whether it is never presented again after a refusal: a refresh token, or a password, since
    retries may lock the account.  Other credentials are retried after a backoff."""
    opaque: bool = False
    """Whether the credential is unknown, as that of a plain function.  If it brings a refresh
    token, it counts as spent, and is not presented again without that refresh token."""
    keep_waiting: Callable[[], bool] = staticmethod(never)
    """Called if the request was sent and the deadline is over, and then every second: whether to go
    on waiting for the answer, which may hold the only successor of a spent refresh token."""
    adopted: bool = False
    """Whether it was passed to ``adopt()``, so that its token replaces the stored one."""
    key: str | None = None
    """The private key that the record has for it, as a JWK in JSON (RFC 9449).  The core sets it
    when the credential is presented."""
    replaceable: bool = False
    """Whether another keeper keeps it, so that the grant may have another one in its place after a
    refusal.  A backoff after a refusal is limited to it."""

    def __repr__(self) -> str:
        return f"<Credential {self.kind}>"


class Account(Value):
    """The user who logged in, as the ID token of the login says (OpenID Connect Core section 2)."""

    issuer: str
    subject: str
    """The issuer's identifier for the user: no other user of the issuer ever has it."""
    name: str | None = None
    """A name for people, which may change."""

    def is_same(self, other: Account) -> bool:
        """Whether *other* is the same user, by whatever name."""
        return (self.issuer, self.subject) == (other.issuer, other.subject)

    def __str__(self) -> str:
        return one_line(str(self.name or self.subject), 200)


class Snapshot(Value):
    """The content of a store at one moment."""

    document: Document | None
    """``None`` if the slot is empty."""
    tag: str | None
    """Identifies the write; ``None`` if the slot is empty."""
    now: float
    """The time by the store's clock (POSIX timestamp in seconds)."""

    def __repr__(self) -> str:
        return f"<Snapshot tag={self.tag!r}>"


def printable(text: str) -> str:
    """*text* with escapes for what does not print, so that it commands no terminal."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def one_line(text: str, limit: int) -> str:
    """A foreign text for messages and logs: on one line, with escapes for characters that do not
    print, and cut to *limit* characters."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def checked_store(name: str, store: T) -> T:
    """*store* itself.

    :param name: the name of the argument.
    :raises TypeError: if it is not a store, or lacks a method that another of its methods requires.
    """
    methods = ("load", "save", "lock")
    if isinstance(store, type):
        raise TypeError(
            f"{name} must be a store such as FileStore('~/token.json'), not the class "
            f"{store.__name__}: call the class"
        )
    if not all(callable(getattr(store, method, None)) for method in methods):
        # Without its value: bytes may be a URL with a password.
        raise TypeError(
            f"{name} must be a store such as FileStore('~/token.json'), not {type(store).__name__}"
        )
    if hasattr(store, "reserve") and not hasattr(store, "glimpse"):
        raise TypeError(
            f"{type(store).__name__} has reserve() but no glimpse(): processes that wait for a "
            "reservation would load the whole record at each look. Add a method glimpse() that "
            "cheaply detects whether the slot was written, or remove reserve()."
        )
    return store
