"""The function ``logout()``: it ends a login at the server and in the store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from tokenadapter.late_imports import late
from tokenadapter.logins.login import keeper_of
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.core.keeper import TokenKeeper
    from tokenadapter.protocols import Discovering, Grant, Revoking, TokenSource, TokenStore
else:
    errors = late("tokenadapter.errors")

__all__ = ["logout"]

_LOCALLY = (
    "To remove the token from the store without the server, use `tokenadapter logout NAME --local` "
    "or logout(local=True)."
)


def logout(
    source: Grant | TokenSource | TokenKeeper,
    store: TokenStore | str | os.PathLike[str] | None = None,
    *,
    local: bool = False,
) -> Token | None:
    """Revoke the token at the server (RFC 7009), then remove it from the store.

    Meanwhile no process that shares the store can renew the token.  If the server does not revoke
    it, the store keeps the token, and another attempt can follow.  If the server has no revocation
    endpoint (the source's ``revokes`` is ``False``), the token is only removed.

    :param source: what the token is for, as for :func:`login`.
    :param store: where the token is stored, as for :func:`login`.
    :param local: remove the token without contacting the server, which goes on accepting it.
    :returns: the token that was there; ``None`` if there was none.
    :raises TypeError: if *store* is given twice.
    :raises RefreshConfigError: if the server refused to revoke the token, or if the store holds the
        token of another owner.
    :raises RefreshTemporarilyFailed: if the server did not answer.
    :raises StoreError: if the store cannot be used.
    :raises LockTimeout: if a renewal is under way for too long.
    """
    keeper = keeper_of(source, store)
    return keeper.forget(None if local else _revocation(keeper))


def _revocation(keeper: TokenKeeper) -> Callable[[Token], None] | None:
    """What revokes a token of *keeper*; ``None`` if nothing does."""
    grant = keeper.grant
    try:
        if getattr(grant, "discovers", False):
            cast("Discovering", grant).discover()
    except errors.TokenError as error:
        raise keeper.tell(_advised(error)) from None
    if not getattr(grant, "revokes", False):
        return None

    def revoke(token: Token) -> None:
        try:
            cast("Revoking", grant).revoke(token)
        except errors.TokenError as error:
            raise _advised(error) from None

    return revoke


def _advised(error: errors.TokenError) -> errors.TokenError:
    """*error*, which also says how to log out without the server."""
    error.args = (f"{error.args[0]} {_LOCALLY}",)
    return error
