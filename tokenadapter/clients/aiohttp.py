"""The client for aiohttp: a middleware that signs, renews and replays.

The way of a request is that of :mod:`tokenadapter.clients.requests`, and
:mod:`tokenadapter.http.exchange` decides what follows a refusal.

aiohttp calls a middleware for each hop of a redirect, with a request that it makes of what the
caller gave.  So the prefix is compared at each hop, and no hop inherits a token.  A request has the
token only while it is sent: aiohttp shows the headers of a request in ``response.request_info``,
and in the ``repr`` of its errors.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple

from requests.structures import CaseInsensitiveDict

from tokenadapter.clients import notices
from tokenadapter.clients.face import Face
from tokenadapter.clients.rules import Rules
from tokenadapter.extras import ExtraMissing
from tokenadapter.http import bodies, exchange, responses
from tokenadapter.http.bodies import Body
from tokenadapter.http.exchange import Verdict
from tokenadapter.late_imports import imported, late
from tokenadapter.token import Token

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, StreamReader

    from tokenadapter import errors
    from tokenadapter.clients import aiohttp_bodies
    from tokenadapter.http.dpop import Proof
else:
    errors = late("tokenadapter.errors")
    try:
        aiohttp = imported("aiohttp")
        aiohttp.ClientRequest._body  # noqa: B018 - the internal on which replays depend
    except (ModuleNotFoundError, AttributeError) as error:
        if getattr(error, "name", None) not in ("aiohttp", "ClientRequest", "_body"):
            raise  # it is installed, and something that it needs is not
        raise ExtraMissing(
            "TokenMiddleware needs aiohttp 3.14.1 or later: pip install 'tokenadapter[aiohttp]'"
        ) from error
    aiohttp_bodies = late("tokenadapter.clients.aiohttp_bodies")

__all__ = ["TokenMiddleware"]


class TokenMiddleware(Face):
    """Signs requests under one URL prefix, renews the token, and replays refused requests.

    ::

        tokens = TokenMiddleware("https://api.example.com/", source, store=store)
        session = aiohttp.ClientSession(middlewares=[tokens])

    It is a middleware for sessions of aiohttp, and for single requests
    (``session.get(url, middlewares=[tokens])``).  Its settings are those of
    :class:`~tokenadapter.TokenAdapter`.  Requests outside the prefix are sent as they are.

    A renewal never blocks the event loop: the tasks that need one wait for one helper thread.  A
    task that is cancelled leaves the renewal as it is.

    :param prefix: as for :class:`~tokenadapter.TokenAdapter`, and so are *source* and all others
        but these:
    :param verdict: gets the response of aiohttp, whose body has not been read.  It may be a
        coroutine function.
    :param attach: gets the request of aiohttp, and the token.  Its changes to the headers and to
        ``url`` are undone when the request has been sent.
    :raises UnsafeTarget: if a token must not go to *prefix*.
    :raises TypeError: if settings contradict each other or have the wrong type.
    :raises ValueError: if *header* or *scheme* cannot be part of a request.
    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    _rules: _Rules

    def _made_from(self, **settings: Any) -> Rules:
        return _Rules(**settings)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send *request* by *handler*, signed if its URL is under the prefix.

        :raises TokenError: if there is no usable token and none can be obtained.  It is an
            ``aiohttp.ClientError`` too.
        """
        if not await self._signs(request):
            return await handler(request)
        body = aiohttp_bodies.prepared(request, self._rules.replay_limit)
        try:
            return await self._exchange(request, handler, body)
        finally:
            if body is not None:
                body.close()

    # --- the steps -----------------------------------------------------------------------

    async def _signs(self, request: ClientRequest) -> bool:
        """Whether *request* gets a token."""
        rules = self._rules
        if not rules.signs(request):
            return False
        content = getattr(request._body, "_value", None)
        if not rules.may_be_own(request.method, content):
            return True
        return not await self.keeper.arun(partial(rules.is_own, str(request.url)))

    async def _exchange(
        self, request: ClientRequest, handler: ClientHandlerType, body: Body | None
    ) -> ClientResponse:
        """The answer to *request*, which is sent with a token, and again if that is refused."""
        rules = self._rules
        token, is_new = self.keeper.fresh(), False
        if token is None:
            token, is_new = await self._obtain(patient=body is not None and body.one_shot)
        response = await self._carry(request, handler, token)
        if response.status < 400 and rules.verdict is None:
            return response
        sent = [token]
        try:
            verdict = await rules.verdict_on(response, token)
        except BaseException:
            response.close()
            raise
        if verdict:
            response = await self._replay(request, handler, response, verdict, sent, is_new, body)
        if response.status in (401, 403):
            notices.log_step_up(rules, request, _answer(response), sent)
        return response

    async def _replay(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
        verdict: Verdict,
        sent: list[Token],
        is_new: bool,
        body: Body | None,
    ) -> ClientResponse:
        """The answer to *request* after *verdict* on *response*, to the last token of *sent*."""
        rules, keeper = self._rules, self.keeper
        flow = rules.after_refusal(sent[-1], verdict, is_new=is_new)
        step = next(flow)
        try:
            while True:
                match step:
                    case exchange.Obtain(rejected):
                        step = flow.send(await self._obtain(rejected, refusal=response))
                    case exchange.Distrust(token):
                        step = flow.send(await keeper.adistrust(token))
                    case exchange.Rewind():
                        if await _read(response.content, responses.DRAINED_FOR) is not None:
                            await request.close()  # an early refusal ends the sending
                        step = flow.send(bodies.rewound(body))
                    case exchange.Send(token):
                        sent.append(token)
                        await _dispose(request, response)
                        _add_cookies(request, response)
                        replay = notices.replay_of(request, response.status, token)
                        keeper.journal.count("ReplayStarted", **replay)
                        response = await self._carry(request, handler, token)
                        keeper.journal.count("Replayed", **replay, answer=response.status)
                        step = flow.send(await rules.verdict_on(response, token))
                    case exchange.HandOn(reason):
                        if reason is not None:
                            answer, last = _answer(response), sent[-1]
                            notices.log_handed_on(rules, request, answer, reason, last)
                        return response
        except BaseException:
            response.close()
            raise

    async def _obtain(
        self,
        rejected: Token | None = None,
        *,
        patient: bool = False,
        refusal: ClientResponse | None = None,
    ) -> tuple[Token, bool]:
        """A token from the keeper, and whether it was minted since it was asked."""
        try:
            outcome = await self.keeper.aobtain(rejected, patient=patient)
        except errors.TokenError as error:
            twin: Any = errors.also(error, aiohttp.ClientError)
            twin.response = refusal
            raise twin from error.__cause__
        return outcome.token, outcome.is_new

    async def _carry(
        self, request: ClientRequest, handler: ClientHandlerType, token: Token
    ) -> ClientResponse:
        """The answer to *request*, which has the token only while it is sent."""
        try:
            with self._rules.signed(request, token) as proof:
                response = await handler(request)
        except errors.TokenError as error:
            raise errors.also(error, aiohttp.ClientError) from error.__cause__
        if proof is not None:
            proof.learn(_answer(response).headers)
        if self._rules.attach is not None:
            response._request_info = request.request_info
        return response


class _Answer(NamedTuple):
    """An answer, as the rules read it."""

    status_code: int
    headers: Mapping[str, str]
    """Names in any case; several fields of one name are joined by commas."""


class _Rules(Rules):
    """What the settings say about requests of aiohttp."""

    awaits_verdict = True
    cert_remedy = "load it into the ssl.SSLContext that the connector gets as ssl"

    def signs(self, request: ClientRequest) -> bool:
        """Whether *request* gets a token, unless it is the source's own."""
        url = str(request.url)
        # A URL that was built with "encoded=True" may have a host that its text does not.
        if (request.host or "").lower() != type(request.url)(url).raw_host:
            notices.log_outside(self, url)
            return False
        if url.startswith("ws"):
            url = f"http{url[2:]}"  # a WebSocket begins as a request of HTTP (RFC 6455 section 3)
        hosts = request.headers.getall("Host", [])
        return (
            self.leads_under_the_prefix(url, ", ".join(hosts) if hosts else None)
            and url not in self.own_urls
            and (self.override_auth or self.header not in request.headers)
        )

    @contextmanager
    def signed(self, request: ClientRequest, token: Token) -> Iterator[Proof | None]:
        """Put *token* on *request*, and the proof that goes with it; and take them away again."""
        headers, url = request.headers, request.url
        if self.prefix.stays_here and request.proxy is not None:
            request.update_proxy(None, None, None)
        if self.attach is None:
            ours, proof = self.headers_with(request, token)
            own = [(name, value) for name in ours for value in headers.popall(name, [])]
            headers.update(ours)
            try:
                yield proof
            finally:
                for name in ours:
                    headers.popall(name, None)
                headers.extend(own)
            return
        bare, sent = headers.copy(), url
        try:
            try:
                self.attach(request, token)
                yield None
            finally:
                sent = request.url
                headers.clear()
                headers.extend(bare)
                request.headers, request.url = headers, url
        except aiohttp.ClientError as error:
            _show(error, request, sent)
            raise

    async def verdict_on(self, response: ClientResponse, token: Token) -> Verdict:
        """What *response* means for *token*, with which its request was sent."""
        answer = _answer(response)
        own = self.judging(answer, token)
        if own is None:
            return await self._usual_verdict(response, answer, token)
        said = own(response)
        return Verdict.of(await said if isawaitable(said) else said)

    async def _usual_verdict(
        self, response: ClientResponse, answer: _Answer, token: Token
    ) -> Verdict:
        if self.verdict is None and response.status != 401:
            return Verdict.HAND_ON
        value = None
        if self.looks_into(answer):
            body = await _read(response.content, responses.PEEKED_FOR)
            value = responses.json_of(body, {})  # aiohttp has decoded it
        return self.judge(answer, token, lambda _: value)


def _show(error: aiohttp.ClientError, request: ClientRequest, sent: object) -> None:
    """Have *error* show *request*, in place of the one with the token that was sent to *sent*."""
    if isinstance(error, aiohttp.ClientResponseError):
        error.request_info = request.request_info
        error.args = (error.request_info, error.history)
    else:
        error.args = tuple(
            part.replace(f"{sent}", f"{request.url}") if isinstance(part, str) else part
            for part in error.args
        )


def _answer(response: ClientResponse) -> _Answer:
    headers = response.headers
    joined = {name: ", ".join(headers.getall(name)) for name in headers}
    return _Answer(response.status, CaseInsensitiveDict(joined))


async def _read(content: StreamReader, seconds: float) -> bytes | None:
    """The body of an answer, which stays to be read; ``None`` if it is too long, too slow, or
    broken."""
    read = bytearray()
    is_whole = False
    try:
        async with asyncio.timeout(seconds):
            while len(read) <= responses.LIMIT and not is_whole:
                read += await content.readany()
                is_whole = content.at_eof()
    except (aiohttp.ClientError, OSError):  # among them TimeoutError
        is_whole = False
    if read:
        with warnings.catch_warnings():
            # It has been deprecated since 2018, and nothing has taken its place.
            warnings.simplefilter("ignore", DeprecationWarning)
            content.unread_data(bytes(read))
    return bytes(read) if is_whole and len(read) <= responses.LIMIT else None


async def _dispose(request: ClientRequest, refusal: ClientResponse) -> None:
    """Finish an answer that no caller will read, so that *request* can be sent again."""
    # A body that is too long, too slow, or broken is not worth it: its connection is closed.
    if refusal.content.is_eof():
        refusal.release()
    else:
        refusal.close()
    await request.close()
    request.update_expect_continue()  # for another "100 Continue"


def _add_cookies(request: ClientRequest, refusal: ClientResponse) -> None:
    """Keep the cookies that *refusal* set, and send them with the replay."""
    if refusal.cookies:
        jar = request.session.cookie_jar
        jar.update_cookies(refusal.cookies, refusal.url)
        kept = jar.filter_cookies(request.url)
        request.update_cookies({name: kept[name] for name in kept if name in refusal.cookies})
