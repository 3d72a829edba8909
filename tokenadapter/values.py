"""What the keeper and its sources and stores hand each other.

Apart from the protocols, which only people and type checkers read: a start does without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeAlias, TypeVar, dataclass_transform

__all__ = [
    "Credential",
    "Document",
    "Snapshot",
    "Value",
    "always",
    "checked_store",
    "one_line",
    "parameters",
]

T = TypeVar("T")
# The flag of a function that takes keyword arguments of any name (inspect.CO_VARKEYWORDS).
_ANY_NAME = 0x08

Document: TypeAlias = dict[str, Any]
"""A JSON object."""


@dataclass_transform(frozen_default=True)
class Value:
    """The base of a class whose annotated names are its fields, in their order.

    What is assigned to a name is its default.  The methods are called as those of a NamedTuple::

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
        """The fields and what they hold."""
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


def always() -> bool:
    """Nothing stands in the way."""
    return True


def parameters(kind: type) -> set[str] | None:
    """The names that the constructor of *kind* takes; ``None`` if they cannot be told.

    A constructor that takes any name is expected to pass them on to the one of its base class.
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
    """What it is, for people; only ``refresh_token`` has a meaning besides: such a one goes on
    being the refresh token if the answer brings no new one (RFC 6749 section 6)."""
    secret: str
    """What is presented.  It is only ever compared by its hash."""
    single_use: bool = False
    """Whether presenting it may spend it, as a rotated refresh token is (RFC 9700 section
    4.14.2): it is never presented again but after an answer that was lost."""
    first: bool = False
    """Whether it comes from the configuration and starts a grant, rather than from the record."""
    refusal_is_final: bool = False
    """Whether it is not presented again once it was refused: a refresh token that is dead, or a
    password, since retries lock accounts.  Other refusals are tried again after a while."""
    opaque: bool = False
    """Whether nobody can tell what is presented, as by a plain function: if it brings a refresh
    token, it counts as having spent one, and is not presented again without that."""
    may_be_sent: Callable[[], bool] = staticmethod(always)
    """Asked in the last moment before its request is sent: if that gives ``False``, it must not be
    sent any more, since another process may have presented it."""

    adopted: bool = False
    """Whether somebody hands it in: what it brings replaces whatever is stored."""

    def __repr__(self) -> str:
        return f"<Credential {self.kind}>"


class Snapshot(Value):
    """What a store held at one moment."""

    document: Document | None
    """``None`` if the slot is empty."""
    tag: str | None
    """Which write this is; ``None`` if the slot is empty."""
    now: float
    """The time by the store's clock (POSIX timestamp in seconds)."""

    def __repr__(self) -> str:
        return f"<Snapshot tag={self.tag!r}>"


def one_line(text: str, limit: int) -> str:
    """A text that somebody else may have written, as messages and logs show it: on one line, with
    escapes for what does not print, and cut to *limit* characters."""
    shown = text[: limit + 1]
    if not shown.isprintable():
        shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in shown)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def checked_store(name: str, store: T) -> T:
    """*store* itself.

    :param name: of the argument.
    :raises TypeError: if *store* is not a store, or has ``reserve()`` without ``glimpse()``.
    """
    methods = ("load", "save", "lock")
    if isinstance(store, type):
        raise TypeError(
            f"{name} is a store such as FileStore('~/token.json'), not the class "
            f"{store.__name__}: call the class"
        )
    if not all(callable(getattr(store, method, None)) for method in methods):
        # Do not show the value: bytes may be a URL with a password.
        raise TypeError(
            f"{name} is a store such as FileStore('~/token.json'), not {type(store).__name__}"
        )
    if hasattr(store, "reserve") and not hasattr(store, "glimpse"):
        raise TypeError(
            f"{type(store).__name__} has reserve() but no glimpse(): processes that wait for a "
            "reservation would load the whole record again and again. Add a method glimpse() that "
            "tells at little cost whether the slot was written, or remove reserve()."
        )
    return store
