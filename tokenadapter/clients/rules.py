"""What clients share that are no adapters: the settings of one, and what these say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tokenadapter import spelling
from tokenadapter.clients.prefix import names_its_host
from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.http import responses, verdicts
from tokenadapter.http.exchange import Verdict
from tokenadapter.token import Token
from tokenadapter.values import parameters

if TYPE_CHECKING:
    import os

    from tokenadapter.events import Event
    from tokenadapter.protocols import Grant, TokenSource, TokenStore

__all__ = ["Answer", "Face", "Rules"]


class Answer(NamedTuple):
    """What a verdict reads of an answer whose class has other names for it."""

    status_code: int
    headers: Mapping[str, str]
    """Names in any case; several fields of one name are joined by commas."""


class Rules(TokenAdapter):
    """The settings of a token adapter, for a client that sends by another library.

    The adapter itself sends nothing.
    """

    # The ``Host`` headers that were last found to name the host of the prefix.
    _known_hosts: list[Any] | None = None

    @property
    def has_own_verdict(self) -> bool:
        return self._verdict is not None

    def leads_under_the_prefix(self, url: str, hosts: list[Any]) -> bool:
        """Whether a request goes to a URL under the prefix.  Say so once if it does not.

        :param hosts: its ``Host`` headers, as texts or bytes.
        """
        if self._guard.matches(url) is None and not self._guard.covers_when_parsed(url):
            self.log_outside(url)
            return False
        if hosts != self._known_hosts:
            named = ", ".join(
                host.decode("latin-1") if isinstance(host, bytes) else host for host in hosts
            )
            if hosts and not names_its_host(url, named):
                self.log_outside(url, named)
                return False
            self._known_hosts = hosts  # all URLs under the prefix have one host
        return True

    def may_be_own(self, method: str, content: object) -> bool:
        """Whether :meth:`is_own` has to decide whether a request gets a token."""
        return self._own_urls.may_match and self._own_urls.may_include(method, content)

    def is_own(self, url: str) -> bool:
        """Whether *url* is one of the token source, which may have to find that out."""
        return self._own_urls.include(url)

    def looks_into(self, answer: Any) -> bool:
        """Whether the verdict on *answer* depends on its body."""
        own = self._verdict
        return (
            isinstance(own, verdicts.Expired)
            and own.looks_into(answer)
            and responses.says_json(answer.headers.get("Content-Type", ""))
        )

    def judge(self, answer: Any, value: Any, token: Token) -> Verdict:
        """What *answer* means for *token*, with which its request was sent.

        :param value: the JSON value in its body, if :meth:`looks_into` asked for it.
        """
        own = self._verdict
        if isinstance(own, verdicts.Expired) and not self.needs_new_proof(answer, token):
            return Verdict.of(own(answer, lambda _: value))
        return self._judge(answer, token)


class Face:
    """What plugs into an HTTP library, with the settings of a token adapter.

    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    _rules: Rules
    keeper: TokenKeeper

    def __new__(cls, *unnamed: Any, **named: Any) -> Self:
        """Check the names of arguments here: only here is the class known that was called."""
        spelling.check_names(cls.__name__, named, parameters(cls) or named)
        return super().__new__(cls)

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
            allow_http=allow_http,
        )
        self.keeper = self._rules.keeper

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} of {self.keeper.store!r}>"

    @property
    def prefix(self) -> str:
        """The base URL under which requests are signed."""
        return self._rules.prefix

    @staticmethod
    def _made_from(**settings: Any) -> Rules:
        """The rules of this face."""
        raise NotImplementedError
