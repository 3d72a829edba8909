"""Credential objects for SDKs, whose tokens come from a keeper.  One SDK a file.

A bridge decides nothing: its keeper renews, and the SDK decides where the token goes.  This is what
the bridges share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenadapter.bridges.given_tokens import GivenTokens

if TYPE_CHECKING:
    from tokenadapter.core.keeper import TokenKeeper

__all__ = ["Bridge"]


class Bridge:
    """A credential object for an SDK, whose tokens come from a keeper.

    A bridge can be copied and pickled if the keeper's source and store can be.  The copy contains
    no token.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`; a :class:`~tokenadapter.TokenAdapter` and a
        :class:`~tokenadapter.TokenAuth` have one as ``keeper``.
    :raises TypeError: if *keeper* is not a keeper.
    """

    _raises: type[Exception] | None = None

    def __init__(self, keeper: TokenKeeper) -> None:
        super().__init__()
        self._given = GivenTokens(keeper, raises=self._raises)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._given.keeper.store!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._given.keeper,)
