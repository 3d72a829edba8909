"""The client for requests: an ``HTTPAdapter`` that signs, renews and replays.

The way of a request: guard the prefix, take the current token, attach it to a copy, send, judge the
answer.  After a refusal, :mod:`tokenadapter.http.exchange` decides what follows: obtain another
token, rewind the body, send again.

The caller's own request is never touched: it turns up in ``response.request``, in redirects, in
exceptions and in logs, and none of them may show the token.
"""

from __future__ import annotations

import netrc  # noqa: F401 - or requests would do it in the first request, where a fork may interrupt it
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from requests.adapters import BaseAdapter, HTTPAdapter
from requests.cookies import extract_cookies_to_jar, get_cookie_header
from requests.exceptions import RequestException
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict
from urllib3.util import Retry, Timeout

from tokenadapter.clients.mounts import longest_first, plain, watched
from tokenadapter.clients.rules import Rules
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import parameters

if TYPE_CHECKING:
    import os

    from requests import Response, Session

    from tokenadapter import spelling
    from tokenadapter.clients import notices
    from tokenadapter.errors import ReauthRequired
    from tokenadapter.events import Event
    from tokenadapter.http import bodies, exchange, responses
    from tokenadapter.http.bodies import Body
    from tokenadapter.http.dpop import Proof
    from tokenadapter.http.exchange import Verdict
    from tokenadapter.protocols import Grant, TokenSource, TokenStore
else:
    notices = late("tokenadapter.clients.notices")
    responses = late("tokenadapter.http.responses")
    bodies = late("tokenadapter.http.bodies")
    exchange = late("tokenadapter.http.exchange")
    spelling = late("tokenadapter.spelling")

__all__ = ["TokenAdapter", "signed", "twin", "without_401"]

T = TypeVar("T")

# The one place that depends on internals of requests: what a request consists of, and where its
# headers keep their items.  This detects a release of requests that changes either.
_AS_KNOWN = vars(CaseInsensitiveDict()) == {"_store": {}} and vars(PreparedRequest()).keys() == {
    "method",
    "url",
    "headers",
    "_cookies",
    "body",
    "hooks",
    "_body_position",
}
_new = object.__new__


class TokenAdapter(HTTPAdapter):
    """Signs requests under one URL prefix, renews the token, and replays refused requests.

    :param prefix: the API's base URL; no token ever leaves it.  ``https``, unless it is this
        machine or *allow_http* is set.
    :param source: how a token is obtained: a grant such as
        :class:`~tokenadapter.ClientCredentials`, a function of the previous token, or a
        :class:`~tokenadapter.TokenKeeper` that several adapters share.  If it has a client
        certificate (``cert``), requests that present none present this one (RFC 8705 section 3).
    :param store: where the token lives, such as a :class:`~tokenadapter.FileStore`, the path of
        a file, or a URL such as ``redis://host/0#billing``; without one, in the memory of this
        adapter.
    :param verdict: a function of a response that says whether the token that was sent with it is
        dead, in place of :func:`~tokenadapter.default_verdict`; see
        :func:`~tokenadapter.expired_on`.  A source that knows its provider may bring one.
    :param max_replays: how often a request is sent again after a renewal.  0: renew, but hand the
        refusal to the caller.  Above 1, the request is sent again while a verdict of your own still
        calls the token dead; it never causes a second renewal.
    :param replay_limit: how many bytes of a body that cannot be rewound are recorded for a replay.
        0: none; the caller then gets the refusal of such a request.
    :param attach: a function that puts the token on the copy of the request that is sent, in place
        of *header* and *scheme*.  It is called with the copy and the token.
    :param header: the header that carries the token.
    :param scheme: the word before the token in that header; ``""``: none.
    :param override_auth: whether the token replaces an ``Authorization`` that the request already
        has.  ``False``: such a request is sent as it is.
    :param on_refresh: as for :class:`~tokenadapter.TokenKeeper`, and so are *on_event*,
        *renew_early*, *lock_timeout*, *inline* and *advise*.
    :param allow_http: accept a prefix of plain ``http``, although everyone on the way can then
        read the token.
    :param inner: an adapter that sends the requests, in place of this one.
    :param http_adapter_kwargs: those of :class:`requests.adapters.HTTPAdapter`.
    :raises UnsafeTarget: if a token must not go to *prefix*.
    :raises TypeError: if settings contradict each other or have the wrong type.
    :raises ValueError: if *header* or *scheme* cannot be part of a request.
    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    # What requests pickles, by its name for it.
    __attrs__: list[str] = [*HTTPAdapter.__attrs__, "rules", "keeper", "inner"]  # noqa: RUF012
    # What a user does so that a request presents a client certificate, if not what the rules say.
    cert_remedy: str | None = None

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
        renew_early: bool | None = None,
        lock_timeout: float = 30.0,
        inline: bool = False,
        advise: str | Callable[[ReauthRequired], str] | None = None,
        allow_http: bool = False,
        inner: BaseAdapter | None = None,
        **http_adapter_kwargs: Any,
    ) -> None:
        known = parameters(TokenAdapter) if http_adapter_kwargs else None
        if known is not None and not http_adapter_kwargs.keys() <= known:
            spelling.check_names(type(self).__name__, http_adapter_kwargs, known)
        if inner is not None:
            if isinstance(inner, type) or not callable(getattr(inner, "send", None)):
                raise TypeError(f"inner must be an adapter, not {spelling.kind_of(inner)}")
            if http_adapter_kwargs:
                raise TypeError(
                    f"{', '.join(http_adapter_kwargs)}: the inner adapter sends the requests; pass "
                    "these settings to it"
                )
        #: :meta private:
        self.rules: Rules = Rules(
            prefix,
            source,
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
        self.keeper: TokenKeeper = self.rules.keeper
        self.inner = inner
        super().__init__(**http_adapter_kwargs)
        self.max_retries: Retry = without_401(self.max_retries)
        if isinstance(inner, HTTPAdapter):
            inner.max_retries = without_401(inner.max_retries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} of {self.keeper.store!r}>"

    @property
    def prefix(self) -> str:
        """The base URL under which requests are signed, as requests spells URLs."""
        return self.rules.prefix.url

    def covers(self, url: str) -> bool:
        """Whether *url* is under the prefix, and none of the token source's own URLs."""
        return self.rules.covers(url)

    def mount(self, session: Session) -> Self:
        """Mount this adapter on its own prefix in *session*, and return it.

        The session may be in use by other threads: its adapters are replaced all at once.  Their
        requests are then signed, too: if each user has a token, pass a
        :class:`~tokenadapter.RequestsAuth` with each request instead.

        :raises TypeError: if it is no session.
        """
        if not isinstance(getattr(session, "adapters", None), MutableMapping):
            raise TypeError(
                f"mount() takes a requests.Session, not {spelling.kind_of(session)}. For "
                "requests.get() and the sessions of libraries, see tokenadapter.install()"
            )
        mine = self.rules.prefix.mounts()
        adapters: dict[str, BaseAdapter] = {**plain(session.adapters), **dict.fromkeys(mine, self)}
        session.adapters = watched(longest_first(mine, adapters))
        return self

    def around(self, inner: BaseAdapter, **changes: Any) -> Self:
        """This adapter with *inner* to send its requests; all but the *changes* is shared.

        *inner* itself stays as it is: only for requests from here, its retries do not repeat a 401.
        """
        retries = getattr(inner, "max_retries", None)
        if isinstance(retries, Retry) and without_401(retries) is not retries:
            inner = twin(inner, max_retries=without_401(retries))
        return twin(self, inner=inner, **changes)

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

        The parameters are those of :meth:`requests.adapters.HTTPAdapter.send`.  The request waits
        for a renewal no longer than its read timeout; the request and its replay each have their
        full timeouts.

        :raises TokenError: if there is no usable token and none can be obtained.
        :raises RequestException: as plain requests does.
        """
        rules = self.rules
        if not self._signs(request):
            return self._transmit(request, (stream, timeout, verify, cert, proxies))
        if cert is None:
            cert = rules.cert
        how = (stream, timeout, verify, cert, proxies)
        body = None if request.body is None else self._prepared(request)
        try:
            token, is_new = self.keeper.fresh(), False
            if token is None:
                one_shot = body is not None and body.one_shot
                token, is_new = self._obtain(request, timeout, patient=one_shot)
            response = self._carry(request, request, token, body, how)
            if response.status_code < 400 and rules.verdict is None:
                return response
            sent = [token]
            if rules.verdict is not None or response.status_code == 401:
                verdict = rules.judge(response, token)
                if verdict:
                    response = self._replay(request, response, verdict, sent, is_new, body, how)
            if response.status_code in (401, 403):
                notices.log_step_up(rules, request, response, sent)
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
        rules, url = self.rules, request.url or ""
        if not rules.leads_under_the_prefix(url, _named_host(request)):
            return False
        if rules.own_urls.may_match and (
            url in rules.own_urls
            or (rules.may_be_own(request.method, request.body) and rules.is_own(url))
        ):
            return False
        return rules.override_auth or rules.header not in request.headers

    def _prepared(self, request: PreparedRequest) -> Body | None:
        """The body, made ready to be sent again; ``None`` if it is as it is."""
        if type(request.body) in (bytes, str):
            return None
        return bodies.prepare(request.body, limit=self.rules.replay_limit)

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
            outcome = self.keeper.obtain(rejected, timeout=_read_timeout(timeout), patient=patient)
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
        """Send a signed copy of *outgoing*; the response and any error refer to *request*."""
        rules = self.rules
        last, value = rules.last_value
        if last is token:
            copy, proof = signed(outgoing, rules.header, value), None
        else:
            copy, proof = self._with_token(request, outgoing, token)
        if body is not None:
            copy.body = body.payload
        if rules.prefix.stays_here:
            how = (*how[:4], None)
        try:
            response = self._transmit(copy, how)
        except RequestException as error:
            error.request = request
            raise
        response.request = request
        if proof is not None:
            proof.learn(response.headers)
        if self.inner is not None:
            response.connection = self  # through it, auth handlers send their second request
        if rules.attach is not None:
            response.url = request.url or ""
        return response

    def _with_token(
        self, request: PreparedRequest, outgoing: PreparedRequest, token: Token
    ) -> tuple[PreparedRequest, Proof | None]:
        """A copy of *outgoing* with a token that is new, or not merely in a header; and the proof
        that goes with it."""
        rules = self.rules
        if rules.attach is not None:
            copy = _whole_copy(outgoing)
            rules.attach(copy, token)
            return copy, None
        headers, proof = rules.headers_with(request, token)
        copy = signed(outgoing, rules.header, headers.pop(rules.header))
        copy.headers.update(headers)
        return copy, proof

    def _transmit(self, request: PreparedRequest, how: tuple[Any, ...]) -> Response:
        stream, timeout, verify, cert, proxies = how
        send = super().send if self.inner is None else self.inner.send
        # By name, as a session passes them: some adapters take them in no other way.
        return send(
            request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
        )

    def _replay(
        self,
        request: PreparedRequest,
        response: Response,
        verdict: Verdict,
        sent: list[Token],
        is_new: bool,
        body: Body | None,
        how: tuple[Any, ...],
    ) -> Response:
        """The answer to *request* after *verdict* on *response*, to the last token of *sent*.

        Each token that the request is sent with is added to *sent*.
        """
        rules = self.rules
        flow = rules.after_refusal(sent[-1], verdict, is_new=is_new)
        outgoing = request
        step = next(flow)
        while True:
            match step:
                case exchange.Obtain(rejected):
                    step = flow.send(self._renewed(request, response, rejected, how[1]))
                case exchange.Distrust(token):
                    step = flow.send(self.keeper.distrust(token))
                case exchange.Rewind():
                    step = flow.send(bodies.rewound(body))
                case exchange.Send(token):
                    sent.append(token)
                    responses.drain(response)
                    if how[3]:
                        self._reconnect()
                    outgoing = _add_cookies(outgoing, response)
                    response = self._repeat(request, outgoing, response, token, body, how)
                    step = flow.send(rules.judge(response, token))
                case exchange.HandOn(reason):
                    if reason is not None:
                        notices.log_handed_on(
                            rules,
                            request,
                            response,
                            reason,
                            token=sent[-1],
                            cert=how[3],
                            remedy=self.cert_remedy,
                        )
                    return response

    def _renewed(
        self, request: PreparedRequest, refusal: Response, rejected: Token, timeout: Any
    ) -> tuple[Token, bool]:
        """Another token than *rejected*, and whether it was minted since the keeper was asked."""
        if getattr(self.inner or self, "_pool_block", False):
            # The renewal may need the connection: on_refresh can use this very session.
            responses.set_aside(refusal)
        try:
            return self._obtain(request, timeout, rejected=rejected)
        except RequestException as error:
            responses.drain(refusal)
            error.response = refusal
            raise

    def _reconnect(self) -> None:
        """Send the next requests on new connections.

        An open connection presents the client certificate that it was opened with.  If the files
        have been replaced since, the token request presented the new certificate, and the API
        refuses the new token on the old connection.
        """
        sender = self if self.inner is None else self.inner
        if isinstance(sender, HTTPAdapter):
            # Not by close(), where a subclass may end more; requests in progress are not affected.
            for manager in (sender.poolmanager, *sender.proxy_manager.values()):
                manager.clear()

    def _repeat(
        self,
        request: PreparedRequest,
        outgoing: PreparedRequest,
        refusal: Response,
        token: Token,
        body: Body | None,
        how: tuple[Any, ...],
    ) -> Response:
        """The answer to *outgoing*, sent after *refusal*, which is part of its history."""
        replay = notices.replay_of(request, refusal.status_code, token)
        self.keeper.journal.count("ReplayStarted", **replay)
        response = self._carry(request, outgoing, token, body, how)
        response.history = [*refusal.history, refusal, *response.history]
        self.keeper.journal.count("Replayed", **replay, answer=response.status_code)
        return response


def _read_timeout(timeout: Any) -> float | None:
    """The read timeout, in seconds, of what requests takes for a timeout."""
    if isinstance(timeout, tuple):
        timeout = timeout[-1]
    elif isinstance(timeout, Timeout):
        timeout = timeout.total if timeout.total is not None else timeout.read_timeout
    return timeout if isinstance(timeout, (int, float)) else None


def without_401(retry: Retry) -> Retry:
    """*retry* without 401: urllib3 would send the same dead token again."""
    statuses = retry.status_forcelist
    if not statuses or 401 not in statuses:
        return retry
    return retry.new(status_forcelist=[status for status in statuses if status != 401])


def twin(adapter: T, **changes: Any) -> T:
    """*adapter* with some attributes changed; all others are shared, connection pools too.

    ``copy.copy`` would make new pools: that is how adapters of requests come out of a pickle.
    """
    other = object.__new__(type(adapter))
    vars(other).update(vars(adapter), **changes)
    return other


class _Headers(CaseInsensitiveDict[str | bytes]):
    """Headers on their way out: urllib3 copies them, and reads them all, once.

    What it then saves is as much as the signature costs.
    """

    def copy(self) -> _Headers:
        """A copy in one go, instead of item by item."""
        copy = _new(_Headers)
        copy._store = self._store.copy()
        return copy

    def items(self) -> Any:
        """The pairs as they are kept, instead of a look-up for each."""
        return self._store.values()


def _named_host(request: PreparedRequest) -> object:
    """What the ``Host`` header of *request* says; ``None`` if there is none, as is usual."""
    headers = request.headers
    if type(headers) is not CaseInsensitiveDict or not _AS_KNOWN:
        return headers.get("Host")
    # A look-up that fails costs a tenth of that of a CaseInsensitiveDict.
    found = headers._store.get("host")
    return None if found is None else found[1]


def signed(request: PreparedRequest, header: str, value: str) -> PreparedRequest:
    """A copy of *request* with *header* set to *value*; all but the headers is shared.

    ``PreparedRequest.copy`` would copy the cookie jar too, which nobody changes from here on, and
    insert the headers one by one: it costs more than everything else that happens to a request on
    its way through the adapter.
    """
    if (
        type(request) is not PreparedRequest
        or type(request.headers) is not CaseInsensitiveDict
        or not _AS_KNOWN
    ):
        return _signed_in_general(request, header, value)
    # Field by field: to ask for the __dict__ of an object slows down whatever follows.
    copy = _new(PreparedRequest)
    copy.method = request.method
    copy.url = request.url
    copy.headers = _new(_Headers)
    copy.headers._store = store = request.headers._store.copy()
    store[header.lower()] = (header, value)
    copy._cookies = request._cookies
    copy.body = request.body
    copy.hooks = request.hooks
    copy._body_position = request._body_position
    return copy


def _whole_copy(request: PreparedRequest) -> PreparedRequest:
    """A copy with which anything may be done: only the body is shared."""
    copy = request.copy()
    copy.hooks = {event: list(hooks) for event, hooks in request.hooks.items()}
    return copy


def _add_cookies(request: PreparedRequest, refusal: Response) -> PreparedRequest:
    """*request* with the cookies that *refusal* set, for the replay.

    A ``Cookie`` header that the caller wrote by hand is left as it is.
    """
    copy = request.copy()
    jar = copy._cookies
    # Not its cookies: it may delete one.
    if "Set-Cookie" not in refusal.headers or jar is None:
        return request
    if copy.headers.pop("Cookie", None) != get_cookie_header(jar, copy):
        return request
    extract_cookies_to_jar(jar, refusal.request, refusal.raw)
    copy.prepare_cookies(jar)
    return copy


def _signed_in_general(request: PreparedRequest, header: str, value: str) -> PreparedRequest:
    copy = object.__new__(type(request))
    vars(copy).update(vars(request))
    copy.headers = CaseInsensitiveDict(request.headers)
    copy.headers[header] = value
    return copy
