"""The face for requests: an ``HTTPAdapter`` under which tokens work.

The way of a request: guard the prefix, take the current token, attach it to a copy, send, judge
the answer; if it says that the token is dead: get another, rewind the body, send again.
"""

from __future__ import annotations

import netrc  # noqa: F401 - or requests would do it in the first request, where a fork may interrupt it
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import RequestException
from requests.models import PreparedRequest
from urllib3.util import Retry

from tokenadapter.arguments import check, read_timeout, twin, without_401
from tokenadapter.keeper import TokenKeeper
from tokenadapter.late import late
from tokenadapter.prefix import Prefix, longest_first, own_urls, resource, without_query
from tokenadapter.signing import add_cookies, signed, whole_copy
from tokenadapter.token import Token

if TYPE_CHECKING:
    import os

    from requests import Response, Session

    from tokenadapter import peek, replay, verdicts
    from tokenadapter.events import Event
    from tokenadapter.protocols import Grant, TokenSource, TokenStore
    from tokenadapter.replay import Body
else:
    peek = late("tokenadapter.peek")
    replay = late("tokenadapter.replay")
    verdicts = late("tokenadapter.verdicts")

__all__ = ["TokenAdapter"]

# How often a request may be sent again with tokens that others renewed meanwhile, before it has
# one renewed itself.
_MOST_ADOPTIONS = 2


class TokenAdapter(HTTPAdapter):
    """Signs requests under one URL prefix, renews the token, and replays what was refused for it.

    :param prefix: the API's base URL; no token ever leaves it.  ``https``, unless it is this
        machine or *allow_http* is set.
    :param source: how a token is obtained: a grant such as
        :class:`~tokenadapter.ClientCredentials`, a function of the previous token, or a
        :class:`~tokenadapter.TokenKeeper` that several adapters share.
    :param store: where the token lives, such as a :class:`~tokenadapter.FileStore`, the path of
        a file, or a URL such as ``redis://host/0#billing``; without one, in the memory of this
        adapter.
    :param verdict: tells of a response whether the token that was sent with it is dead, in place
        of :func:`~tokenadapter.default_verdict`; see :func:`~tokenadapter.expired_on`.
    :param max_replays: how often a request is sent again after a renewal.  0: renew, but hand the
        refusal on.  Above 1 it is sent again while a verdict of your own still calls the token
        dead; but never renewed for twice.
    :param replay_limit: how many bytes of a body that cannot be rewound are recorded for a replay.
        0: none; then a refusal of such a request is handed on.
    :param attach: puts the token on the copy of the request that is sent, in place of *header* and
        *scheme*: called with the copy and the token.
    :param header: the header that carries the token.
    :param scheme: what stands before the token in it; ``""``: nothing.
    :param override_auth: whether the token takes the place of an ``Authorization`` that the
        request has already.  ``False``: such a request is sent as it is.
    :param on_refresh: as for :class:`~tokenadapter.TokenKeeper`, and so are *on_event*,
        *renew_early*, *lock_timeout* and *inline*.
    :param allow_http: accept a prefix of plain ``http``, although everyone on the way can then
        read the token.
    :param inner: an adapter that does the sending, in place of this one's own.
    :param http_adapter_kwargs: those of :class:`requests.adapters.HTTPAdapter`.
    :raises UnsafeTarget: if a token must not go to *prefix*.
    :raises TypeError: if settings contradict each other, or are not what they should be.
    :raises ValueError: if *header* or *scheme* cannot stand in a request.
    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    __attrs__: list[str] = [  # noqa: RUF012  # what requests pickles, by its name for it
        *HTTPAdapter.__attrs__,
        "_guard",
        "keeper",
        "inner",
        "max_replays",
        "replay_limit",
        "override_auth",
        "_verdict",
        "_scheme",
        "_attach",
        "_header",
        "_lead",
        "_own_urls",
    ]
    _told_outside = False

    def __init__(
        self,
        prefix: str,
        source: Grant | TokenSource | TokenKeeper,
        *,
        store: TokenStore | str | os.PathLike[str] | None = None,
        verdict: Callable[[Response], object] | None = None,
        max_replays: int = 1,
        replay_limit: int = 64 * 1024 * 1024,
        attach: Callable[[PreparedRequest, Token], object] | None = None,
        header: str = "Authorization",
        scheme: str = "Bearer",
        override_auth: bool = True,
        on_refresh: Callable[[Token], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        renew_early: bool = True,
        lock_timeout: float = 30.0,
        inline: bool = False,
        allow_http: bool = False,
        inner: BaseAdapter | None = None,
        **http_adapter_kwargs: Any,
    ) -> None:
        if inner is not None and http_adapter_kwargs:
            raise TypeError(
                f"{', '.join(http_adapter_kwargs)}: the inner adapter does the sending, give it "
                "these settings"
            )
        if attach is not None and (header != "Authorization" or scheme != "Bearer"):
            raise TypeError("header and scheme are without use beside attach: leave them out")
        check(verdict, attach, inner, header, scheme, max_replays, replay_limit)
        self._guard = Prefix(prefix, allow_http=allow_http)
        if isinstance(source, TokenKeeper):
            its_own = (store, on_refresh, on_event, renew_early, lock_timeout, inline)
            if its_own != (None, None, None, True, 30.0, False):
                raise TypeError(
                    "store, on_refresh, on_event, renew_early, lock_timeout and inline belong to "
                    "the TokenKeeper that was given as the source: give them to it"
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
                whose={"api": self._guard.url},
            )
        self.inner = inner
        self.max_replays = max_replays
        self.replay_limit = replay_limit
        self.override_auth = override_auth
        elsewhere = attach is not None or header.lower() != "authorization"
        self._verdict = verdict
        self._scheme = None if elsewhere else scheme
        self._attach = attach
        self._header = header
        self._lead = f"{scheme} " if scheme else ""
        self._own_urls = own_urls(self.keeper.grant.urls, self._guard.covers_when_parsed)
        super().__init__(**http_adapter_kwargs)
        self.max_retries: Retry = without_401(self.max_retries)
        if isinstance(inner, HTTPAdapter):
            inner.max_retries = without_401(inner.max_retries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._guard.url} of {self.keeper.store!r}>"

    @property
    def prefix(self) -> str:
        """The base URL under which requests are signed, as requests spells URLs."""
        return self._guard.url

    @property
    def stays_here(self) -> bool:
        """Whether its requests never leave this machine: they are plain ``http`` to loopback."""
        return self._guard.stays_here

    def mount(self, session: Session) -> Self:
        """Mount this adapter on its own prefix in *session*, and return it.

        The session may be in use by other threads: its adapters are replaced all at once.
        """
        mine = self._guard.mounts()
        adapters: dict[str, BaseAdapter] = {**session.adapters, **dict.fromkeys(mine, self)}
        session.adapters = longest_first(mine, adapters)
        return self

    def around(self, inner: BaseAdapter) -> Self:
        """This adapter with another one that does the sending: all else is shared with it.

        *inner* is left as it is for whoever else uses it: a 401 that its retries would repeat is
        taken out for the requests that come from here only.
        """
        retries = getattr(inner, "max_retries", None)
        if isinstance(retries, Retry) and without_401(retries) is not retries:
            inner = twin(inner, max_retries=without_401(retries))
        return twin(self, inner=inner)

    def covers(self, url: str) -> bool:
        """Whether *url* is under the prefix, and none of the token source's own URLs."""
        return self._guard.covers(url) and resource(url) not in self._own_urls

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """Send *request*, signed if its URL is under the prefix.

        The parameters are those of :meth:`requests.adapters.HTTPAdapter.send`.  A renewal that the
        request has to wait for takes no longer than its read time-out; the request and its replay
        each have their full time-outs.

        :raises TokenError: if there is no usable token and none can be obtained.
        :raises RequestException: as plain requests does.
        """
        how = (stream, timeout, verify, cert, proxies)
        if not self._signs(request):
            return self._transmit(request, how)
        body = None if request.body is None else self._prepared(request)
        try:
            token, is_new = self.keeper.fresh(), False
            if token is None:
                one_shot = body is not None and body.one_shot
                token, is_new = self._obtain(request, timeout, patient=one_shot)
            response = self._carry(request, request, token, body, how)
            if response.status_code < 400 and self._verdict is None:
                return response  # as most do
            if self._refuses(response):
                response = self._replay(request, response, token, is_new, body, how)
            if response.status_code in (401, 403):
                self._tell_step_up(response)
            return response
        finally:
            if body is not None:
                body.close()

    def close(self) -> None:
        """Close the pools, those of the inner adapter too.  The adapter can be used again."""
        super().close()
        if self.inner is not None:
            self.inner.close()

    # --- the steps -----------------------------------------------------------------------

    def _signs(self, request: PreparedRequest) -> bool:
        """Whether *request* gets a token."""
        url = request.url or ""
        if self._guard.matches(url) is None and not self._guard.covers_when_parsed(url):
            if not self._told_outside:
                self._told_outside = True
                self.keeper.journal.tell("OutsidePrefix", prefix=self._guard.url)
            return False
        if self._own_urls and resource(url) in self._own_urls:
            return False
        return self.override_auth or self._header not in request.headers

    def _prepared(self, request: PreparedRequest) -> Body | None:
        """The body, made ready to be sent again; ``None`` if it is as it is."""
        if type(request.body) in (bytes, str):
            return None
        return replay.prepare(request.body, limit=self.replay_limit)

    def _obtain(
        self,
        request: PreparedRequest,
        timeout: Any,
        *,
        rejected: Token | None = None,
        patient: bool = False,
    ) -> tuple[Token, bool]:
        """A token from the keeper, and whether it was minted since it was asked."""
        try:
            outcome = self.keeper.obtain(rejected, timeout=read_timeout(timeout), patient=patient)
        except RequestException as error:
            error.request = request
            raise
        return outcome.token, outcome.is_new

    def _carry(
        self,
        request: PreparedRequest,
        outgoing: PreparedRequest,
        token: Token,
        body: Body | None,
        how: tuple[Any, ...],
    ) -> Response:
        """Send a signed copy of *outgoing*; all that comes back speaks of *request*."""
        if self._attach is None:
            copy = signed(outgoing, self._header, self._lead + token.access_token)
        else:
            copy = whole_copy(outgoing)
            self._attach(copy, token)
        if body is not None:
            copy.body = body.payload
        if self._guard.stays_here:
            how = (*how[:4], None)
        try:
            response = self._transmit(copy, how)
        except RequestException as error:
            error.request = request
            raise
        response.request = request
        if self.inner is not None:
            response.connection = self  # through it, auth handlers send their second request
        if self._attach is not None:
            response.url = request.url or ""
        return response

    def _transmit(self, request: PreparedRequest, how: tuple[Any, ...]) -> Response:
        stream, timeout, verify, cert, proxies = how
        send = super().send if self.inner is None else self.inner.send
        # As a session passes them: there are adapters that take them by name only.
        return send(
            request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
        )

    def _refuses(self, response: Response) -> bool:
        """Whether *response* says that the token it was asked with is dead."""
        if self._verdict is not None:
            return bool(self._verdict(response))
        if response.status_code != 401:
            return False
        # Most programs never meet a refusal: they do not pay for the import.
        return verdicts.default_verdict(response, scheme=self._scheme)

    def _replay(
        self,
        request: PreparedRequest,
        response: Response,
        token: Token,
        is_new: bool,
        body: Body | None,
        how: tuple[Any, ...],
    ) -> Response:
        """The answer to *request* after *response* refused *token*.

        A token that others obtained meanwhile costs no renewal, and if it is refused too, there is
        still one renewal.  What refuses a token that was minted for this very request would refuse
        the next one too: that refusal is handed on.
        """
        most = self.max_replays if self._verdict else min(self.max_replays, 1)
        replays = most if is_new and not self._verdict else 0
        adoptions, outgoing = 0, request
        while True:
            if is_new:
                if replays >= most:
                    newer = self.keeper.distrust(token)
                    adoptions += 1
                    if newer is None or most <= 0 or adoptions > _MOST_ADOPTIONS:
                        return self._handed_on(response, "the token was refused although it is new")
                    token = newer
            else:
                refused = token
                if getattr(self.inner or self, "_pool_block", False):
                    # The renewal may need the connection: on_refresh can use this very session.
                    peek.set_aside(response)
                try:
                    token, is_new = self._obtain(request, how[1], rejected=refused)
                except RequestException as error:
                    peek.drain(response)
                    error.response = response
                    raise
                if token.is_same(refused):
                    return self._handed_on(response, "the token was refused when it was new")
                if most <= 0:
                    return self._handed_on(response, "max_replays is 0")
                adoptions += not is_new
                if adoptions > _MOST_ADOPTIONS:
                    return self._handed_on(response, "every token of others was refused too")
            replays += is_new
            try:
                if body is not None:
                    body.rewind()
            except replay.NotReplayable as error:
                return self._handed_on(response, f"the request cannot be sent again: {error}")
            peek.drain(response)
            outgoing = add_cookies(outgoing, response)
            self.keeper.journal.note(
                "Replayed",
                method=request.method,
                url=without_query(request),
                status=response.status_code,
                token=token.fingerprint,
            )
            refusal, response = response, self._carry(request, outgoing, token, body, how)
            response.history = [*refusal.history, refusal, *response.history]
            if not self._refuses(response):
                return response

    def _tell_step_up(self, response: Response) -> None:
        wanted = verdicts.step_up(response)
        if wanted is not None:
            self.keeper.journal.tell(
                "StepUpNeeded",
                method=response.request.method,
                url=without_query(response.request),
                status=response.status_code,
                error=wanted.error,
                scope=wanted.scope,
                acr_values=wanted.acr_values,
                max_age=wanted.max_age,
            )

    def _handed_on(self, response: Response, reason: str) -> Response:
        self.keeper.journal.tell(
            "HandedOn",
            method=response.request.method,
            url=without_query(response.request),
            status=response.status_code,
            reason=reason,
        )
        return response
