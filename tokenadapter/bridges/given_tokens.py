"""Which token an SDK was given: after a refusal, an SDK asks for another token and names none.

An SDK asks for a token, sends a request, and perhaps asks again because the API refused it, all in
one thread or one task.  So the refused token is the one that this thread or task was given last.
The keeper then decides by the identity of that token, and threads whose requests were refused
together cause one renewal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.late_imports import late
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter import errors, spelling
    from tokenadapter.core import messages
    from tokenadapter.core.held_token import Outcome
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")
    spelling = late("tokenadapter.spelling")

__all__ = ["GivenTokens"]


class _Given(NamedTuple):
    """A token that was given, and why."""

    token: Token
    is_replacement: bool = False
    """Whether it was minted because the API refused the token before it."""
    is_replay: bool = False
    """Whether it was then given once more, for the replay: if that is refused too, no renewal
    helps."""


class GivenTokens:
    """Gives an SDK the tokens of a keeper.

    :param raises: the exception that callers of the SDK catch: errors are of this type too.
    :raises TypeError: if *keeper* is not a keeper.
    """

    def __init__(self, keeper: TokenKeeper, *, raises: type[Exception] | None = None) -> None:
        if not isinstance(keeper, TokenKeeper):
            raise TypeError(f"keeper must be a TokenKeeper, not {spelling.kind_of(keeper)}")
        self.keeper: TokenKeeper = keeper
        self._raises = raises
        self._here: ContextVar[_Given | None] = ContextVar("given", default=None)
        self._last: _Given | None = None
        self._answered: tuple[str, Token] | None = None

    def token(self, claims: str | None = None) -> Token:
        """A token for a request.

        :param claims: those of a challenge with which the API refused the last token.
        """
        if claims:
            return self.replacement(claims)
        with self._errors():
            return self._give(self.keeper.current())

    async def atoken(self, claims: str | None = None) -> Token:
        """:meth:`token` for a task of asyncio or trio."""
        if claims:
            return await self.areplacement(claims)
        with self._errors():
            return self._give(await self.keeper.acurrent())

    def replacement(self, claims: str | None = None) -> Token:
        """Another token than the one that the API refused.

        If the refused token was itself a replacement, for the same request or the same *claims*,
        it is not renewed.

        :param claims: what the API requires, if the SDK says so.  Such an SDK sends the request
            with the token that is returned; any other asks for it once more.
        """
        refused = self._refused(claims)
        with self._errors():
            if refused is not None and not refused.is_replay:
                return self._replace(self.keeper.obtain(refused.token), claims)
            if refused is not None:
                self.keeper.distrust(refused.token)
            return self._give(self.keeper.current())

    async def areplacement(self, claims: str | None = None) -> Token:
        """:meth:`replacement` for a task of asyncio or trio."""
        refused = self._refused(claims)
        with self._errors():
            if refused is not None and not refused.is_replay:
                return self._replace(await self.keeper.aobtain(refused.token), claims)
            if refused is not None:
                await self.keeper.adistrust(refused.token)
            return self._give(await self.keeper.acurrent())

    def _refused(self, claims: str | None) -> _Given | None:
        """The token that was refused, unless none was given yet."""
        # Some programs ask in another thread than the one that sent the request.
        refused = self._here.get() or self._last
        if refused is not None and self._answered == (claims, refused.token):
            return refused._replace(is_replay=True)
        return refused

    def _give(self, token: Token) -> Token:
        last = self._here.get()
        is_replay = last is not None and last.is_replacement and last.token.is_same(token)
        return self._keep(_Given(token, is_replay=is_replay))

    def _replace(self, outcome: Outcome, claims: str | None) -> Token:
        if claims is None:
            return self._keep(_Given(outcome.token, is_replacement=outcome.is_new))
        self._answered = claims, outcome.token
        return self._keep(_Given(outcome.token))

    def _keep(self, given: _Given) -> Token:
        if not given.token.is_bearer:
            # SDKs send any token as a bearer token (RFC 6749 section 7.1 forbids it).
            raise messages.not_bearer(self.keeper.store, given.token)
        self._last = given
        self._here.set(given)
        return given.token

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except errors.TokenError as error:
            raises: Any = self._raises
            raise error if raises is None else errors.also(error, raises) from error.__cause__
