"""A token that something else issues and keeps fresh: a platform, a program, another keeper."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from tokenadapter.token import Token

__all__ = ["GivenToken", "Keeping", "Place", "Unavailable"]

# In bytes.  No token is longer.
_LONGEST = 1 << 16


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
    """

    def __init__(self, argument: str, place: Place) -> None:
        self.argument: str = argument
        self._place: Any = place
        if isinstance(place, (str, os.PathLike)):
            self._place = os.path.abspath(os.path.expanduser(os.fspath(place)))
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
            raise Unavailable(f"{self.argument}: {self.identity} is empty")
        return found

    def _content(self, path: str) -> str:
        try:
            with open(path, "rb") as file:
                return file.read(_LONGEST).decode("ascii")
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not a token"
        raise Unavailable(f"{self.argument}: {path} {problem}")
