"""A token that something else issues and keeps fresh: a platform, a program, another keeper."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter import spelling
else:
    spelling = late("tokenadapter.spelling")

__all__ = ["GivenToken", "Keeping", "Place", "Unavailable"]

# In bytes.  No token is longer.
_LONGEST = 1 << 16
# What to do if a token was passed in place of the path of its file.
_ADVICE = "To pass a token itself, pass a function that returns it."


class Keeping(Protocol):
    """What keeps a token, as a :class:`~tokenadapter.TokenKeeper` does."""

    def current(self) -> Token:
        """The token."""


Place: TypeAlias = "str | os.PathLike[str] | Callable[[], str | Token] | Keeping"
"""The path of a file with the token alone, a function that returns the token, or a keeper."""


class Unavailable(ValueError):
    """There is no token at its place."""


class GivenToken:
    """A token by its place, to be read each time that it is sent.

    :param argument: the argument that the place was passed as, for messages.
    :raises TypeError: if *place* is none.
    :raises ValueError: if *place* is a token, and not the path of one.
    """

    def __init__(self, argument: str, place: Place) -> None:
        self.argument: str = argument
        self._place: Any = place
        if isinstance(place, (str, os.PathLike)):
            path = os.fspath(place)
            if not spelling.may_be_path(path):
                raise ValueError(f"{argument} is not the path of a file. {_ADVICE}")
            self._place = os.path.abspath(os.path.expanduser(path))
            # For messages: the text may be a token.
            self._shown = spelling.shown_path(path)
        elif isinstance(place, type) or not (callable(place) or hasattr(place, "current")):
            raise TypeError(
                f"{argument} must be the path of a file, a function or a keeper, not "
                f"{type(place).__name__}"
            )

    @property
    def identity(self) -> str:
        """Which place it is."""
        if isinstance(self._place, str):
            return self._place
        name = getattr(self._place, "__qualname__", None)
        return f"{self._place.__module__}.{name}" if name else type(self._place).__qualname__

    def read(self) -> str:
        """The token as it is now.

        :raises Unavailable: if there is none.
        :raises TokenError: if the keeper has none.
        """
        if isinstance(self._place, str):
            found = self._content(self._place)
        else:
            found = getattr(self._place, "current", self._place)()
            found = found.access_token if isinstance(found, Token) else found
        if not isinstance(found, str):
            raise Unavailable(f"{self.argument}: {self.identity} returned no text")
        found = found.strip()
        if not found:
            raise Unavailable(f"{self.argument}: {self._name} is empty")
        return found

    @property
    def _name(self) -> str:
        return self._shown if isinstance(self._place, str) else self.identity

    @property
    def is_kept(self) -> bool:
        """Whether a keeper keeps it, so that it can be renewed."""
        return hasattr(self._place, "current") and hasattr(self._place, "renew")

    def read_another(self, refused: Credential) -> str:
        """A token other than the one in *refused*, if a keeper provides it; otherwise the current
        token.

        :raises Unavailable: if there is none.
        :raises TokenError: if the keeper has none.
        """
        if not self.is_kept:
            return self.read()
        found: Token = self._place.current()
        if found.access_token in refused.secret.split("\0"):
            found = self._place.renew(found)
        return found.access_token

    def _content(self, path: str) -> str:
        try:
            with open(path, "rb") as file:
                return file.read(_LONGEST).decode("ascii")
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                problem += f". {_ADVICE}"
        except UnicodeDecodeError:
            problem = "is not a token"
        raise Unavailable(f"{self.argument}: {self._name} {problem}")
