"""What plugs into an HTTP library other than as an adapter of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from tokenadapter import spelling
from tokenadapter.clients.rules import Rules
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.token import Token
from tokenadapter.values import parameters

if TYPE_CHECKING:
    import os

    from tokenadapter.errors import ReauthRequired
    from tokenadapter.events import Event
    from tokenadapter.protocols import Grant, TokenSource, TokenStore

__all__ = ["Face"]


class _Checked:
    """A class of its own: beside ``__init__``, the ``__new__`` would hide the signature from
    ``help()`` and ``inspect.signature()``."""

    def __new__(cls, *unnamed: Any, **named: Any) -> Self:
        """Check the names of arguments here, where the class that was called is known."""
        spelling.check_names(cls.__name__, named, parameters(cls) or named)
        return super().__new__(cls)


class Face(_Checked):
    """A client with the settings of a token adapter.

    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    _rules: Rules
    keeper: TokenKeeper

    def __init__(
        self,
        prefix: str,
        source: Grant | TokenSource | TokenKeeper,
        *,
        store: TokenStore | str | os.PathLike[str] | None = None,
        verdict: Callable[[Any], object] | None = None,
        max_replays: int = 1,
        replay_limit: int = 64 * 1024 * 1024,
        attach: Callable[[Any, Token], object] | None = None,
        header: str = "Authorization",
        scheme: str = "Bearer",
        override_auth: bool = True,
        on_refresh: Callable[[Token], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        renew_early: bool | None = None,
        lock_timeout: float = 30.0,
        inline: bool = False,
        advise: str | Callable[[ReauthRequired], str] | None = None,
        allow_http: bool = False,
    ) -> None:
        self._rules = self._made_from(
            prefix=prefix,
            source=source,
            store=store,
            verdict=verdict,
            max_replays=max_replays,
            replay_limit=replay_limit,
            attach=attach,
            header=header,
            scheme=scheme,
            override_auth=override_auth,
            on_refresh=on_refresh,
            on_event=on_event,
            renew_early=renew_early,
            lock_timeout=lock_timeout,
            inline=inline,
            advise=advise,
            allow_http=allow_http,
        )
        self.keeper = self._rules.keeper

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} of {self.keeper.store!r}>"

    @property
    def prefix(self) -> str:
        """The base URL under which requests are signed."""
        return self._rules.prefix.url

    def _made_from(self, **settings: Any) -> Rules:
        """The rules of this client."""
        raise NotImplementedError
