"""A login that is not OAuth: one request whose answer has a token."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from json import dumps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tokenadapter.http.masking import secrets_in
from tokenadapter.late_imports import late
from tokenadapter.sources import Source, checked_text
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.places import USUAL_LIFETIME, Places
from tokenadapter.sources.reply import NoReply, moment
from tokenadapter.token import Token, fingerprint
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError
    from tokenadapter.sources import outcome
else:
    outcome = late("tokenadapter.sources.outcome")

__all__ = ["Login"]

# How APIs refuse a user and password.
_REFUSED = frozenset({400, 401, 403, 422})


class Login(Source):
    """Tokens from an API's own login.

    ::

        Login("https://api.example.com/login",
              json={"user": "ada", "password": secret},
              token="data.session.token", expires_in="data.session.ttl")

    Paths say where the token and its lifetime stand in the answer: ``data.sessions.0.token`` in
    the JSON, ``header:X-Auth-Token``, ``cookie:session``, or ``.`` for the whole answer.  The word
    ``Bearer`` before a token in a header is removed.

    :param url: the URL to log in at: ``https``, or ``http`` on this machine.
    :param json: a body to send as JSON.
    :param data: another body: a mapping is sent as a form, a text or bytes as they are.
    :param auth: user and password for HTTP Basic (RFC 7617).
    :param headers: more request headers.
    :param method: the HTTP method.
    :param token: where the token stands.
    :param expires_in: where its lifetime in seconds stands; or the lifetime itself, if the answer
        does not have it.  An answer that has nothing at a path that you pass is an error.
    :param expires_at: where the time of its expiry stands: a POSIX timestamp in seconds or
        milliseconds, ISO 8601 (UTC if it names no zone), or an HTTP date.  Of a token in a cookie,
        the expiry of the cookie is used if there is nothing else.
    :param account: a name for the user: a record of another user is refused.  By default the
        fingerprint of the user in *auth*.
    :param timeout: seconds for the whole exchange, as for :class:`~tokenadapter.ClientCredentials`.
    :param verify: whether to verify the server's certificate, or a path to CA certificates.
    :param cert: a client certificate: a path, or those of certificate and key.
    :param proxies: proxy URLs by scheme, which take precedence over those in the environment.
    :param allow_http: accept plain ``http`` to another machine, although everyone on the way can
        then read the secrets.
    :raises UnsafeTarget: if the secrets would be sent in clear.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument makes no sense; the message says why.
    """

    spends = False

    def __init__(
        self,
        url: str,
        *,
        json: Any = None,
        data: Mapping[str, str] | str | bytes | None = None,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        token: str = "access_token",
        expires_in: str | float | None = USUAL_LIFETIME,
        expires_at: str | None = None,
        account: str | None = None,
        timeout: float = 10.0,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(
            Endpoint(
                "url",
                url,
                timeout=timeout,
                verify=verify,
                cert=cert,
                proxies=proxies,
                allow_http=allow_http,
            )
        )
        self._places = Places(token, expires_in, expires_at).checked()
        self._method = method.upper()
        self._headers, self._body = _composed(json, data)
        self._headers |= headers or {}
        self._secrets = {*secrets_in([json, data, headers]), *self._endpoint.secrets}
        if auth is not None:
            user = checked_text("the user of auth", auth[0])
            password = checked_text("the password of auth", auth[1], may_be_empty=True)
            basic = b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {basic}"
            self._secrets |= {user, password, basic}
            # Instead of a user, some APIs take a key, which must not be stored.
            account = account or fingerprint(user)
        # All that is sent: after a refusal, a changed password is another credential.
        self._sent = repr(
            (self._method, url, sorted(self._headers.items()), self._body, self._places)
        )
        self.owner: Mapping[str, str] = {"grant": "login", "endpoint": self._endpoint.identity}
        if account is not None:
            self.owner["user"] = account

    @property
    def client_credential(self) -> str:
        """All that is sent."""
        return self._sent

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        return [Credential("login", self.client_credential, refusal_is_final=True)]

    def _present(self, credential: Credential) -> Token | TokenError:
        return self._log_in(credential.kind, self._headers, self._secrets, _REFUSED)

    def _log_in(
        self,
        kind: str,
        headers: Mapping[str, str],
        secrets: set[str],
        refused_with: Collection[int],
        *,
        is_timed: bool = False,
    ) -> Token | TokenError:
        attempt = outcome.Attempt(self._endpoint.name, kind, secrets, is_timed=is_timed)
        requested_at = time.time()
        reply = self._endpoint.exchange(self._method, headers, self._body)
        if isinstance(reply, NoReply):
            return outcome.no_answer(attempt, reply)
        # A login page answers with a cookie and a redirect to the next page.
        token = self._places.token_in(reply) if reply.status < 400 else None
        if token is None and reply.status >= 300:
            return outcome.no_token(attempt, reply, refused_with)
        if token is None:
            return outcome.misplaced(attempt, reply, self._places.token)
        lifetime = self._places.lifetime_in(reply, requested_at)
        required = self._places.required_lifetime()
        if required is not None and moment(lifetime) is None:
            return outcome.without_lifetime(attempt, reply, *required)
        try:
            return Token.from_response(
                {"access_token": token, "expires_in": lifetime}, requested_at=requested_at
            )
        except ValueError as error:
            return outcome.unreadable(attempt, reply, str(error))


def _composed(
    json: Any, data: Mapping[str, str] | str | bytes | None
) -> tuple[dict[str, str], bytes | None]:
    """The headers and the body of the request."""
    headers = {"Accept": "application/json"}
    if json is not None and data is not None:
        raise ValueError("json and data are two bodies: pass one of them")
    if json is not None:
        return headers | {"Content-Type": "application/json"}, dumps(json).encode()
    if isinstance(data, Mapping):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return headers | form, urlencode(data, doseq=True).encode()
    return headers, data.encode() if isinstance(data, str) else data
