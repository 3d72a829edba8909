"""``auth=`` for requests, where an adapter cannot be mounted.

requests asks an ``Auth`` to change a request before it is sent, and calls its hook with the answer.
The hook takes the token off the request again: requests copies the headers of a request for the
next hop of a redirect, wherever that hop leads, and removes no header but ``Authorization``.  A
refused request is sent again through the connection of the refusal, by a
:class:`~tokenadapter.TokenAdapter` around it.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from requests import PreparedRequest, Response
from requests.auth import AuthBase

from tokenadapter.clients import notices
from tokenadapter.clients.face import Face
from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.http import bodies, responses
from tokenadapter.http.bodies import Body
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter.clients.rules import Rules
    from tokenadapter.http.dpop import Proof

__all__ = ["RequestsAuth"]

# Seconds after its signing within which a request is sent with a new token.
_SOON: Final = 10.0


class RequestsAuth(Face, AuthBase):
    """Signs requests under one URL prefix, renews the token, and replays refused requests.

    ::

        auth = RequestsAuth("https://api.example.com/", source, store=store)
        requests.get("https://api.example.com/invoices", auth=auth)

    Use it for SDKs that take an ``auth``, for the ``auth`` of a session, and for single calls.
    Requests outside the prefix are sent as they are.  If you have the session, mount a
    :class:`~tokenadapter.TokenAdapter` instead.

    :param prefix: as for :class:`~tokenadapter.TokenAdapter`, and so are all others.  A request
        waits for a renewal for up to *lock_timeout*, whatever its own timeout.
    :raises UnsafeTarget: if a token must not go to *prefix*.
    :raises TypeError: if settings contradict each other or have the wrong type.
    :raises ValueError: if *header* or *scheme* cannot be part of a request.
    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    def _made_from(self, **settings: Any) -> Rules:
        self._adapter = _Adapter(**settings)
        return self._adapter.rules

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Sign *r*, if its URL is under the prefix.

        :raises TokenError: if there is no usable token and none can be obtained.
        """
        self._adapter.sign(r)
        return r


class _Adapter(TokenAdapter):
    """A token adapter for requests that something else sends."""

    def sign(self, request: PreparedRequest) -> None:
        """Put a token on *request*, and a hook that takes it off again."""
        hook = _Hook(self, request)
        if self._signs(request):
            hook.sign(request)
        # Without a token, too: a redirect may lead under the prefix.
        request.register_hook("response", hook)

    def put(self, request: PreparedRequest, token: Token) -> Proof | None:
        """Put *token* on *request*, and the proof that goes with it."""
        if self.rules.attach is not None:
            self.rules.attach(request, token)
            return None
        headers, proof = self.rules.headers_with(request, token)
        request.headers.update(headers)
        return proof

    def answer(
        self,
        request: PreparedRequest,
        response: Response,
        token: Token,
        is_new: bool,
        body: Body | None,
        how: tuple[Any, ...],
    ) -> Response:
        """What follows *response* to *request*, which was sent with *token*."""
        sent = [token]
        is_unclear = self.rules.verdict is not None or response.status_code == 401
        if is_unclear and self._signs(request):  # its URL may have been changed by hand
            verdict = self.rules.judge(response, token)
            if verdict:
                response = self._replay(request, response, verdict, sent, is_new, body, how)
        if response.status_code in (401, 403):
            notices.log_step_up(self.rules, request, response, sent)
        return response

    def answer_to_unsigned(
        self, request: PreparedRequest, response: Response, body: Body | None, how: tuple[Any, ...]
    ) -> Response:
        """What follows *response* to *request*, which was sent without a token.

        It is the next hop of a redirect, or was sent before.
        """
        if response.status_code < 400 or not (self._signs(request) and self.rules.judge(response)):
            return response
        trouble = bodies.rewound(body) if request.body is not None else None
        if trouble is not None:
            reason = f"the request cannot be sent again: {trouble}"
            notices.log_handed_on(self.rules, request, response, reason)
            return response
        responses.drain(response)
        stream, timeout, verify, cert, proxies = how
        answer = self.send(request, stream, timeout, verify, cert, proxies)
        answer.history = [*response.history, response, *answer.history]
        return answer


class _Hook:
    """What happens to the answer to one request, to copies of it, and to those of its redirects."""

    def __init__(self, adapter: _Adapter, request: PreparedRequest) -> None:
        self._adapter = adapter
        self._body = None if request.body is None else adapter._prepared(request)
        self._token: Token | None = None
        self._proof: Proof | None = None
        self._is_new, self._signed_at = False, 0.0
        # What was put on the request, and what was there before.
        self._headers: dict[str, tuple[Any, Any]] = {}
        self._fields: dict[str, tuple[Any, Any]] = {}

    def sign(self, request: PreparedRequest) -> None:
        """Put a token on *request*, until its answer is here."""
        adapter, body = self._adapter, self._body
        token = adapter.keeper.fresh()
        if token is None:
            one_shot = body is not None and body.one_shot
            token, self._is_new = adapter._obtain(request, None, patient=one_shot)
        if body is not None:
            request.body = body.payload
        before, url, content = request.headers.copy(), request.url, request.body
        self._proof = adapter.put(request, token)
        if body is not None:
            request.body = content
        self._token, self._signed_at = token, monotonic()
        self._headers = {
            name: (value, before.get(name))
            for name, value in request.headers.items()
            if before.get(name) != value
        }
        self._fields = {"url": (request.url, url), "body": (request.body, content)}

    def __call__(self, response: Response, **how: Any) -> Response:
        request, connection = response.request, getattr(response, "connection", None)
        token = self._token if self._take_off(request) else None
        if token is not None:
            response.url = request.url or ""
            if self._proof is not None:
                self._proof.learn(response.headers)
        if connection is None:
            return response
        adapter = self._adapter.around(connection)
        names = ("stream", "timeout", "verify", "cert", "proxies")
        sent = tuple(how.get(name) for name in names)
        if token is None:
            answer = adapter.answer_to_unsigned(request, response, self._body, sent)
        else:
            waited = monotonic() - response.elapsed.total_seconds() - self._signed_at
            is_new = self._is_new and waited < _SOON
            answer = adapter.answer(request, response, token, is_new, self._body, sent)
        if self._body is not None and answer.status_code not in (307, 308):
            self._body.close()
        return answer

    def _take_off(self, request: PreparedRequest) -> bool:
        """Take the token off *request*, and return whether it was there.

        The request may be a copy of the one that was signed.
        """
        was_there = False
        for name, (put, before) in self._headers.items():
            if request.headers.get(name) == put:
                was_there = True
                if before is None:
                    del request.headers[name]
                else:
                    request.headers[name] = before
        for name, (put, before) in self._fields.items():
            if put is not before and getattr(request, name) == put:
                was_there = True
                setattr(request, name, before)
        return was_there

    def __deepcopy__(self, memo: object) -> _Hook:
        return self  # for the copy of its request

    def __reduce__(self) -> Any:
        # A pickled response has its request with it, which must not bring a secret along.
        return partial, (_as_it_is,)


def _as_it_is(response: Response, **_: object) -> Response:
    return response
