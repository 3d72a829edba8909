"""The rules by which a client signs requests: its settings, and what they say about a request, a
token and an answer.

Every client has rules: it sends by one HTTP library, and decides nothing that is decided here or in
:mod:`tokenadapter.http.exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from tokenadapter.clients.prefix import OwnUrls, Prefix, names_its_host
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.late_imports import late
from tokenadapter.token import Token, header_value

if TYPE_CHECKING:
    import os

    from tokenadapter import spelling
    from tokenadapter.clients import notices
    from tokenadapter.core import messages
    from tokenadapter.errors import ReauthRequired
    from tokenadapter.events import Event
    from tokenadapter.http import dpop, exchange, responses, verdicts
    from tokenadapter.http.dpop import Proof
    from tokenadapter.http.exchange import Step, Verdict
    from tokenadapter.protocols import Grant, TokenSource, TokenStore
else:
    spelling = late("tokenadapter.spelling")
    notices = late("tokenadapter.clients.notices")
    messages = late("tokenadapter.core.messages")
    dpop = late("tokenadapter.http.dpop")
    exchange = late("tokenadapter.http.exchange")
    responses = late("tokenadapter.http.responses")
    verdicts = late("tokenadapter.http.verdicts")

__all__ = ["Rules"]

# What the name of a header may contain, other than letters and digits (RFC 9110 section 5.6.2).
_IN_NAMES = str.maketrans("", "", "!#$%&'*+-.^_`|~")


class Rules:
    """The settings of a client, which are those of a :class:`~tokenadapter.TokenAdapter`.

    :raises UnsafeTarget: if a token must not go to *prefix*.
    :raises TypeError: if settings contradict each other or have the wrong type.
    :raises ValueError: if *header* or *scheme* cannot be part of a request.
    :cvar awaits_verdict: whether the verdict may be a coroutine function.
    :ivar prefix: decides which URLs may get a token.
    :ivar keeper: keeps the token.
    :ivar own_urls: the URLs under the prefix that are the token source's own.
    :ivar cert: the client certificate to which tokens may be bound (RFC 8705 section 3).
    :ivar last_value: the last token that went out, and its value for the header, which is made once
        for each token.
    """

    awaits_verdict: bool = False
    # What a user does so that a request presents a client certificate, for messages.
    cert_remedy: str = "set cert"
    last_value: tuple[Token | None, str] = (None, "")
    # The last ``Host`` header that was found to name the host of the prefix.
    _known_host: object = None

    def __init__(
        self,
        prefix: str,
        source: Grant | TokenSource | TokenKeeper,
        *,
        store: TokenStore | str | os.PathLike[str] | None,
        verdict: Callable[[Any], object] | None,
        max_replays: int,
        replay_limit: int,
        attach: Callable[[Any, Token], object] | None,
        header: str,
        scheme: str,
        override_auth: bool,
        on_refresh: Callable[[Token], object] | None,
        on_event: Callable[[Event], object] | None,
        renew_early: bool | None,
        lock_timeout: float,
        inline: bool,
        advise: str | Callable[[ReauthRequired], str] | None,
        allow_http: bool,
    ) -> None:
        if attach is not None and (header != "Authorization" or scheme != "Bearer"):
            raise TypeError("header and scheme have no effect with attach: leave them out")
        if verdict is not None:
            spelling.check_function("verdict", verdict, is_awaited=self.awaits_verdict)
        if attach is not None:
            spelling.check_function("attach", attach)
        _check(header, scheme, max_replays, replay_limit)
        self.prefix: Prefix = Prefix(prefix, allow_http=allow_http)
        if isinstance(source, TokenKeeper):
            its_own = (store, on_refresh, on_event, renew_early, advise, lock_timeout, inline)
            if its_own != (None, None, None, None, None, 30.0, False):
                raise TypeError(
                    "store, on_refresh, on_event, renew_early, lock_timeout, inline and advise "
                    "belong to the TokenKeeper that is the source: pass them to it"
                )
            self.keeper: TokenKeeper = source
        else:
            self.keeper = TokenKeeper(
                source,
                store,
                on_refresh=on_refresh,
                on_event=on_event,
                renew_early=renew_early,
                lock_timeout=lock_timeout,
                inline=inline,
                advise=advise,
                owner={"api": self.prefix.url},
            )
        grant = self.keeper.grant
        if verdict is None:
            of_api: Mapping[str, Any] | None = getattr(grant, "verdict", None)
            verdict = None if of_api is None else verdicts.expired_on(**of_api)
        self.verdict = verdict
        self.max_replays = max_replays
        self.replay_limit = replay_limit
        self.attach = attach
        self.header = header
        self.scheme = scheme
        self.override_auth = override_auth
        self.own_urls: OwnUrls = OwnUrls(grant, self.prefix.covers_when_parsed)
        self.cert: Any = getattr(grant, "cert", None)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        state.pop("last_value", None)  # a pickle must not bring a token along
        return state

    # --- which requests get a token ------------------------------------------------------

    def covers(self, url: str) -> bool:
        """Whether *url* is under the prefix, and none of the token source's own URLs."""
        return self.prefix.covers(url) and url not in self.own_urls

    def leads_under_the_prefix(self, url: str, named: object) -> bool:
        """Whether a request goes to a URL under the prefix.  Log once if it does not.

        :param named: its ``Host`` header; ``None`` if it has none.
        """
        if self.prefix.matches(url) is None and not self.prefix.covers_when_parsed(url):
            notices.log_outside(self, url)
            return False
        if named is not None and named != self._known_host:
            if not names_its_host(url, named):
                notices.log_outside(self, url, named)
                return False
            self._known_host = named  # all URLs under the prefix have one host
        return True

    def may_be_own(self, method: str | None, content: object) -> bool:
        """Whether :meth:`is_own` has to decide whether a request gets a token.

        :param content: the body of the request.
        """
        return self.own_urls.may_match and self.own_urls.may_include(method, content)

    def is_own(self, url: str) -> bool:
        """Whether *url* is one of the token source, which may have to find that out."""
        return self.own_urls.include(url)

    # --- how a token goes out ------------------------------------------------------------

    def headers_with(self, request: Any, token: Token) -> tuple[dict[str, str], Proof | None]:
        """The headers that carry *token*, and the proof that is one of them, if the token needs it.

        The proof learns from the answer.

        :raises RefreshConfigError: if the token must not be sent like that, or no proof can be
            made.
        """
        headers = {self.header: self._value(request, token)}
        proof = self._proof(request, token)
        if proof is not None:
            headers["DPoP"] = proof.text
        return headers, proof

    def _value(self, request: Any, token: Token) -> str:
        """What *token* is in the header, unless its type is unknown (RFC 6749 section 7.1)."""
        last, value = self.last_value
        if last is token:
            return value
        if self._is_proven(token):
            return header_value(token.access_token, "DPoP")
        if self.scheme.lower() == "bearer" and not token.is_bearer:
            error = messages.not_bearer(self.keeper.store, token)
            error.request = request
            raise error
        value = header_value(token.access_token, self.scheme)
        self.last_value = token, value
        return value

    def _is_proven(self, token: Token) -> bool:
        """Whether a proof goes with *token*: unless the settings say how to send it."""
        return token.is_dpop and self.attach is None and self.scheme.lower() == "bearer"

    def _proof(self, request: Any, token: Token) -> Proof | None:
        """The proof for *request* that goes with *token*; ``None`` if the token needs none.

        :raises RefreshConfigError: if no proof can be made.
        """
        if not self._is_proven(token):
            return None
        cause: Exception | None = None
        # The text of the key is in no variable of this frame, which may raise.
        if token.key is None:
            key = getattr(self.keeper.grant, "dpop_key", None)
        else:
            key = dpop.key_in(token.key)
        if key is None:
            problem = "the key that it is bound to is not kept with it"
        else:
            try:
                return dpop.Proof(key, request.method, str(request.url), token.access_token)
            except (ImportError, ValueError) as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - a key that is elsewhere may raise anything
                problem, cause = f"dpop raised {type(error).__name__}", error
        failure = messages.not_provable(self.keeper.store, problem)
        failure.request = request
        raise failure from cause

    # --- what an answer means ------------------------------------------------------------

    def needs_new_proof(self, answer: Any, token: Token) -> bool:
        """Whether *answer* refuses the proof that went with *token*, and not the token."""
        return (
            answer.status_code == 401
            and self._is_proven(token)
            and dpop.needs_new_proof(answer.headers)
        )

    def looks_into(self, answer: Any) -> bool:
        """Whether the verdict on *answer* depends on its body."""
        return (
            isinstance(self.verdict, verdicts.Expired)
            and self.verdict.looks_into(answer)
            and responses.says_json(answer.headers.get("Content-Type", ""))
        )

    def judging(self, answer: Any, token: Token) -> Callable[[Any], Any] | None:
        """The program's function by which :meth:`judge` decides about *answer*, if one does: a
        client that :attr:`awaits_verdict` calls it itself."""
        if isinstance(self.verdict, verdicts.Expired) or self.needs_new_proof(answer, token):
            return None
        return self.verdict

    def judge(
        self,
        answer: Any,
        token: Token | None = None,
        peek: Callable[[Any], Any] | None = None,
    ) -> Verdict:
        """What *answer* means for *token*, with which its request was sent.

        :param peek: returns the JSON value in the body of the answer, for a client that has read
            it because it :meth:`looks_into` the answer.
        """
        if token is not None and self.needs_new_proof(answer, token):
            return exchange.Verdict.SEND_AGAIN
        own = self.verdict
        if own is None:
            elsewhere = self.attach is not None or self.header.lower() != "authorization"
            scheme = None if elsewhere else self.scheme
            return exchange.Verdict.of(verdicts.default_verdict(answer, scheme=scheme))
        if peek is not None and isinstance(own, verdicts.Expired):
            return exchange.Verdict.of(own(answer, peek))
        return exchange.Verdict.of(own(answer))

    def after_refusal(
        self, token: Token, verdict: Verdict, *, is_new: bool
    ) -> Generator[Step, Any, None]:
        """The flow of a request after the first answer, to *token*.

        The parameters are those of :func:`tokenadapter.http.exchange.after_refusal`.
        """
        return exchange.after_refusal(
            token,
            verdict,
            is_new=is_new,
            max_replays=self.max_replays,
            is_own=self.verdict is not None,
        )


def _check(header: str, scheme: str, max_replays: int, replay_limit: int) -> None:
    """Check settings that would otherwise fail only when a token ends."""
    for name, text in (("header", header), ("scheme", scheme)):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a str, not {text!r}")
    if not header or not (header.isascii() and (header.translate(_IN_NAMES) or "x").isalnum()):
        raise ValueError(f"header is not a valid header name: {header!r}")
    if not (scheme.isascii() and scheme.isprintable() and scheme == scheme.strip()):
        raise ValueError(f"scheme is not a valid authentication scheme: {scheme!r}")
    for name, number in (("max_replays", max_replays), ("replay_limit", replay_limit)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} must be an int, not {number!r}")
        if number < 0:
            raise ValueError(f"{name} must be 0 or more, not {number}")
