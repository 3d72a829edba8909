"""The client for httpx and httpx2, sync and async: an ``Auth`` that signs, renews and replays.

The way of a request is that of :mod:`tokenadapter.clients.requests`, and
:mod:`tokenadapter.http.exchange` decides what follows a refusal.  One generator tells the steps;
``sync_auth_flow`` and ``async_auth_flow`` carry them out.

httpx asks an ``Auth`` once for each request, and follows redirects below it.  So the token must not
be among the headers that httpx copies for the next hop (:mod:`tokenadapter.clients.httpx_parts`),
and a hop that leads to a URL under the prefix is sent again from here, with the token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenadapter.clients import notices
from tokenadapter.clients.face import Face
from tokenadapter.clients.httpx_parts import Outgoing, Parts, copy_of, is_bounded, parts_of
from tokenadapter.clients.rules import Rules
from tokenadapter.extras import ExtraMissing
from tokenadapter.http import bodies, exchange, responses
from tokenadapter.http.bodies import Body
from tokenadapter.http.exchange import Verdict
from tokenadapter.late_imports import imported, late
from tokenadapter.token import Token

if TYPE_CHECKING:
    import httpx
    import httpx2

    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.http.dpop import Proof

    class _Auth(Face, httpx.Auth, httpx2.Auth):  # type: ignore[misc]
        """What both libraries take for an ``Auth``."""

    Request = httpx.Request | httpx2.Request
    Response = httpx.Response | httpx2.Response

else:
    errors = late("tokenadapter.errors")


def _libraries() -> list[ModuleType]:
    """httpx and httpx2, as far as they are installed.

    :raises ExtraMissing: if neither is.
    """
    found = []
    for name in ("httpx", "httpx2"):
        try:
            found.append(imported(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise  # it is installed, and something that it needs is not
    if not found:
        raise ExtraMissing(
            "TokenAuth needs httpx or httpx2, and neither is installed: "
            "pip install 'tokenadapter[httpx]'"
        )
    return list(dict.fromkeys(found))  # httpx2 can stand in for httpx


_LIBRARIES = _libraries()
if not TYPE_CHECKING:
    _Auth = type("_Auth", (Face, *(library.Auth for library in _LIBRARIES)), {})

__all__ = ["TokenAuth"]

# Methods that may be sent twice (RFC 9110 section 9.2.1), and statuses that say that a request was
# not processed where it went, or not for want of a token.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_UNPROCESSED = frozenset({307, 308, 401, 403, 404})


class TokenAuth(_Auth):
    """Signs requests under one URL prefix, renews the token, and replays refused requests.

    ::

        client = httpx.AsyncClient(auth=TokenAuth("https://api.example.com/", source, store=store))

    It is an ``Auth`` for clients of httpx and of httpx2, for ``Client`` and ``AsyncClient``, and
    for several of them at once.  Its settings are those of :class:`~tokenadapter.TokenAdapter`.
    Requests outside the prefix are sent as they are.

    A renewal never blocks the event loop: the tasks that need one wait for one helper thread.  A
    task that is cancelled leaves the renewal as it is.

    :param prefix: as for :class:`~tokenadapter.TokenAdapter`, and so are *source* and all others
        but these:
    :param verdict: gets the response of httpx, whose body has not been read.  To look into the
        body, use :func:`~tokenadapter.expired_on`.  For an ``AsyncClient``, it may be a coroutine
        function.
    :param attach: gets a copy of the request of httpx, and the token.
    :raises UnsafeTarget: if a token must not go to *prefix*.
    :raises TypeError: if settings contradict each other or have the wrong type.
    :raises ValueError: if *header* or *scheme* cannot be part of a request.
    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    _rules: _Rules

    def _made_from(self, **settings: Any) -> Rules:
        return _Rules(**settings)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """The flow of a request, as ``httpx.Client`` asks for it."""
        steps = _Flow(self._rules, request, is_async=False).steps()
        try:
            step = next(steps)
            while True:
                if type(step) is not _Work:
                    step = steps.send((yield step))
                    continue
                try:
                    result = step.now()
                except Exception as error:  # noqa: BLE001 - the flow has the last word
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """The flow of a request, as ``httpx.AsyncClient`` asks for it."""
        steps = _Flow(self._rules, request, is_async=True).steps()
        try:
            step = next(steps)
            while True:
                if type(step) is not _Work:
                    step = steps.send((yield step))
                    continue
                try:
                    result = await step.soon()
                except Exception as error:  # noqa: BLE001 - the flow has the last word
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()


class _Work(NamedTuple):
    """A step that may take its time, in two ways to do it."""

    now: Callable[[], Any]
    soon: Callable[[], Awaitable[Any]]


class _Rules(Rules):
    """What the settings say about requests of httpx."""

    awaits_verdict = True
    cert_remedy = "load it into the ssl.SSLContext that the client gets as verify"

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # The name of the header, as httpx keeps it.
        self._raw = self.header.encode()
        self._lower = self._raw.lower()

    def signs(self, request: Any) -> bool:
        """Whether *request* gets a token."""
        url = str(request.url)
        hosts = [value for _, name, value in request.headers._list if name == b"host"]
        named = b", ".join(hosts).decode("latin-1") if hosts else None
        if not self.leads_under_the_prefix(url, named):
            return False
        if "target" in request.extensions:
            return False  # the path that is sent is another one
        if url in self.own_urls:
            return False
        return self.override_auth or self.header not in request.headers

    def headers_of(self, request: Any, token: Token, parts: Parts) -> tuple[Any, Any, Proof | None]:
        """*request*, or a copy that was changed, its headers with the token, and the proof that
        goes with it."""
        full = parts.library.Headers(request.headers)
        proof = None
        if self.attach is None:
            last, value = self.last_value
            if last is not token:
                headers, proof = self.headers_with(request, token)
                value = headers.pop(self.header)
                full.update(headers)
            if self._lower in [name for _, name, _ in full._list]:
                full[self.header] = value
            else:  # the same, at a fraction of the cost
                full._list.append((self._raw, self._lower, value.encode()))
            return request, full, proof
        twin = copy_of(request, full)
        self.attach(twin, token)
        full = twin.headers
        twin.headers = request.headers
        return twin, full, proof


class _Flow:
    """The flow of one request: what it has met so far.

    :ivar past: the answers so far, in their order, but for those to the last sending.
    """

    def __init__(self, rules: _Rules, request: Any, *, is_async: bool) -> None:
        self._rules = rules
        self._keeper = rules.keeper
        self._request = request
        self._is_async = is_async
        self._parts = _parts_for(request)
        self._past: list[Any] = []
        self._refusals = 0
        self._bodies: list[Body] = []
        self._timeouts: dict[str, Any] | None = None

    def steps(self) -> Generator[Any, Any, None]:
        """The requests to send, and the work to do in between."""
        try:
            hops = yield from self._first()
            depends = True  # whether redirects may lead elsewhere with a token
            while len(hops) > 1:
                at = self._next_under_the_prefix(hops, depends)
                if at is None:
                    break
                unsigned = hops[at]
                yield from self._dispose(hops)
                hops = yield from self._exchange(unsigned.request)
                depends = depends and _target(hops[0]) != _target(unsigned)
            if self._past:
                hops[-1].history = [*self._past, *hops[:-1]]
        finally:
            for body in self._bodies:
                body.close()

    def _first(self) -> Generator[Any, Any, list[Any]]:
        """The answers to the caller's request."""
        request = self._request
        rules = self._rules
        is_signed = rules.signs(request)
        if is_signed and rules.may_be_own(request.method, getattr(request, "_content", None)):
            ask = partial(rules.is_own, str(request.url))
            is_signed = not (yield _Work(ask, partial(self._keeper.arun, ask)))
        if is_signed:
            return (yield from self._exchange(request))
        return self._hops((yield self._as_without_us(request)))

    def _as_without_us(self, request: Any) -> Any:
        """*request* as httpx sends it where a client has no ``Auth``."""
        url = request.url
        if url.userinfo:
            basic = self._parts.library.BasicAuth(url.username, url.password)
            return next(basic.auth_flow(request))
        return request

    def _hops(self, response: Any) -> list[Any]:
        """The answers to the last sending: those of its redirects, too."""
        # httpx tells of the redirects after the answers that it was given back by this flow.
        history = response.history
        return [*history[self._refusals :], response] if history else [response]

    def _next_under_the_prefix(self, hops: list[Any], depends: bool) -> int | None:
        """Which hop of a redirect has to be sent again, with the token that it had not.

        :param depends: whether to try a hop that leads to another one under the prefix.
        """
        signed = [self._rules.signs(answer.request) for answer in hops]
        for at, answer in enumerate(hops[1:], 1):
            request = answer.request
            if signed[at] and (depends or not any(signed[at + 1 : at + 2])):
                may_repeat = request.method in _SAFE or answer.status_code in _UNPROCESSED
                return at if may_repeat else None
        return None

    def _exchange(self, request: Any) -> Generator[Any, Any, list[Any]]:
        """The answers to *request*, which is sent with a token, and again if that is refused."""
        rules, keeper = self._rules, self._keeper
        stream, body = self._parts.body(request, rules.replay_limit, is_async=self._is_async)
        if body is not None:
            self._bodies.append(body)  # the next hop of a redirect may need it, too
        token, is_new = keeper.fresh(), False
        if token is None:
            one_shot = body is not None and body.one_shot
            token, is_new = yield from self._obtain(request, None, patient=one_shot)
        hops = yield from self._send(request, token, stream)
        answer = hops[0]
        if answer.status_code < 400 and rules.verdict is None:
            return hops
        sent = [token]
        verdict = yield from self._judge(answer, token)
        if verdict:
            hops = yield from self._replay(
                request, hops, verdict, sent, is_new=is_new, stream=stream, body=body
            )
        if hops[0].status_code in (401, 403):
            notices.log_step_up(rules, request, hops[0], sent)
        return hops

    def _replay(
        self,
        request: Any,
        hops: list[Any],
        verdict: Verdict,
        sent: list[Token],
        *,
        is_new: bool,
        stream: Any,
        body: Body | None,
    ) -> Generator[Any, Any, list[Any]]:
        """The answers to *request* after *verdict* on the last ones."""
        rules, keeper = self._rules, self._keeper
        flow = rules.after_refusal(sent[-1], verdict, is_new=is_new)
        outgoing = request
        step = next(flow)
        while True:
            match step:
                case exchange.Obtain(rejected):
                    step = flow.send((yield from self._obtain(request, rejected, answer=hops[0])))
                case exchange.Distrust(token):
                    newer = yield _Work(
                        partial(keeper.distrust, token), partial(keeper.adistrust, token)
                    )
                    step = flow.send(newer)
                case exchange.Rewind():
                    step = flow.send(bodies.rewound(body))
                case exchange.Send(token):
                    sent.append(token)
                    refusal = hops[0]
                    yield from self._dispose(hops)
                    outgoing = self._parts.add_cookies(outgoing, refusal)
                    replay = notices.replay_of(request, refusal.status_code, token)
                    keeper.journal.count("ReplayStarted", **replay)
                    hops = yield from self._send(outgoing, token, stream, of=request)
                    keeper.journal.count("Replayed", **replay, answer=hops[0].status_code)
                    step = flow.send((yield from self._judge(hops[0], token)))
                case exchange.HandOn(reason):
                    if reason is not None:
                        notices.log_handed_on(rules, request, hops[0], reason, sent[-1])
                    return hops

    def _obtain(
        self,
        request: Any,
        rejected: Token | None,
        *,
        patient: bool = False,
        answer: Any = None,
    ) -> Generator[Any, Any, tuple[Token, bool]]:
        """A token from the keeper, and whether it was minted since it was asked."""
        timeout = request.extensions.get("timeout", {}).get("read")
        how = {"timeout": timeout, "patient": patient}
        keeper = self._keeper
        try:
            outcome = yield _Work(
                partial(keeper.obtain, rejected, **how), partial(keeper.aobtain, rejected, **how)
            )
        except errors.TokenError as error:
            raise self._for_httpx(error, request, answer) from error.__cause__
        return outcome.token, outcome.is_new

    def _for_httpx(self, error: TokenError, request: Any, answer: Any) -> TokenError:
        """*error* again, as an error of the library too, which refers to the caller's request."""
        twin: Any = errors.also(error, self._parts.library.RequestError)
        twin._request = request
        twin.response = answer
        return twin  # type: ignore[no-any-return]

    def _send(
        self, request: Any, token: Token, stream: Any, of: Any = None
    ) -> Generator[Any, Any, list[Any]]:
        """The answers to a signed copy of *request*; they refer to the request that it is made
        of."""
        of = request if of is None else of
        try:
            changed, full, proof = self._rules.headers_of(request, token, self._parts)
        except errors.TokenError as error:
            raise self._for_httpx(error, of, None) from error.__cause__
        outgoing: Outgoing = self._parts.outgoing(changed, full, stream)
        try:
            response = yield outgoing
        except BaseException:
            outgoing.drop_token(of)  # the error on its way to the caller refers to it
            raise
        self._timeouts = outgoing.__dict__["extensions"].get("timeout")
        hops = self._hops(response)
        if proof is not None:
            proof.learn(hops[0].headers)
        for answer in hops:
            if answer.request is outgoing:
                answer.request = of
        return hops

    def _judge(self, answer: Any, token: Token) -> Generator[Any, Any, Verdict]:
        """What *answer* means for *token*, with which its request was sent."""
        rules = self._rules
        if rules.verdict is None and answer.status_code != 401:
            return Verdict.HAND_ON
        own = rules.judging(answer, token)
        if own is not None:
            said = own(answer)
            if hasattr(said, "__await__"):
                # A client that blocks cannot await it, and gets the error.
                said = yield _Work(lambda: said, lambda: said)
            return Verdict.of(said)
        value = None
        # That of a redirect has been consumed: httpx has followed it.
        if rules.looks_into(answer) and not answer.is_stream_consumed:
            held = yield from self._read_ahead(answer, responses.PEEKED_FOR)
            value = responses.json_of(held.content, answer.headers)
        return rules.judge(answer, token, lambda _: value)

    def _read_ahead(self, answer: Any, seconds: float) -> Generator[Any, Any, Any]:
        """The beginning of the body of *answer*, or all of it."""
        held = self._parts.held(answer, is_async=self._is_async)
        if not held.is_begun:
            read = partial(held.read, responses.LIMIT, seconds, self._parts.errors)
            yield _Work(read, read)
        return held

    def _dispose(self, hops: list[Any]) -> Generator[Any, Any, None]:
        """Finish the answers *hops*, which no caller will read: they become part of the past.

        A body that is too long, too slow, or broken is not worth it: its connection is closed.
        """
        answer = hops[-1]
        self._past += hops
        self._refusals += 1
        if answer.is_stream_consumed or answer.is_closed:
            return  # an event hook has read it
        # A read timeout ends all requests of a connection, and over HTTP/2 there may be others.
        is_shared = answer.extensions.get("http_version") == b"HTTP/2"
        if self._timeouts is not None and not is_shared:
            read = self._timeouts.get("read")
            self._timeouts["read"] = (
                responses.DRAINED_FOR if read is None else min(read, responses.DRAINED_FOR)
            )
        held = yield from self._read_ahead(answer, responses.DRAINED_FOR)
        content = held.content
        if content is None or not is_bounded(answer, content):
            close = held.aclose if self._is_async else held.close
            yield _Work(close, close)
            held.empty()


def _target(answer: Any) -> tuple[int, str | None]:
    """Where *answer* leads."""
    return answer.status_code, answer.headers.get("Location")


def _parts_for(request: Any) -> Parts:
    for library in _LIBRARIES:
        if isinstance(request, library.Request):
            return parts_of(library)
    raise TypeError(f"TokenAuth signs requests of httpx and httpx2, not {type(request).__name__}")
