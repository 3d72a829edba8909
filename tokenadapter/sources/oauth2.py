"""What the OAuth 2 grants have in common: the form that is posted, and how its answer is read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode, urlsplit

from tokenadapter.late_imports import late
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.source import Source, checked_text
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError
    from tokenadapter.sources import client_auth, outcome, reply, revocation, wording
else:
    client_auth = late("tokenadapter.sources.client_auth")
    outcome = late("tokenadapter.sources.outcome")
    reply = late("tokenadapter.sources.reply")
    revocation = late("tokenadapter.sources.revocation")
    wording = late("tokenadapter.sources.wording")

__all__ = ["OAuth2Source", "checked_method"]

# Parameters that have an argument of their own, or must not be chosen at all.
_RESERVED = frozenset(
    {
        "audience",
        "client_id",
        "client_secret",
        "grant_type",
        "password",
        "refresh_token",
        "resource",
        "scope",
        "username",
    }
)
# How a client can prove who it is (RFC 6749 section 2.3).
_METHODS = ("client_secret_basic", "client_secret_post", "none")
_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/x-www-form-urlencoded",
}


class OAuth2Source(Source):
    """A grant at a token endpoint (RFC 6749 section 3.2).

    The parameters are explained where people meet them first, at
    :class:`~tokenadapter.ClientCredentials`.
    """

    grant_type: ClassVar[str]
    """The grant that it begins with (RFC 6749 section 4), as the form calls it."""

    def __init__(
        self,
        token_url: str,
        *,
        client_id: str,
        client_secret: str | None = None,
        client_auth: str = "client_secret_basic",
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] | None = None,
        audience: str | None = None,
        extra: Mapping[str, str] | None = None,
        revocation_url: str | None = None,
        timeout: float = 10.0,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool = False,
    ) -> None:
        reached = partial(
            Endpoint,
            timeout=timeout,
            verify=verify,
            cert=cert,
            proxies=proxies,
            allow_http=allow_http,
        )
        super().__init__(reached("token_url", token_url))
        self._revocation: Endpoint | None = None
        if revocation_url is not None:
            self._revocation = reached("revocation_url", revocation_url)
            self.urls: Sequence[str] = (*self.urls, self._revocation.url)
        self._client_id = checked_text("client_id", client_id)
        self._client_secret = client_secret
        if client_secret is not None:
            checked_text("client_secret", client_secret, may_be_empty=True)
        self._client_auth = checked_method(client_auth, client_secret)
        self._scope = " ".join(_several("scope", scope))
        self._resource = [_checked_resource(uri) for uri in _several("resource", resource)]
        self._audience = audience and checked_text("audience", audience)
        self._extra = _checked_extra(extra or {})
        self.client_credential: str = "\0".join((self._client_auth, client_id, client_secret or ""))
        self.owner: Mapping[str, str] = {
            "grant": self.grant_type,
            "endpoint": self._endpoint.identity,
            "client": client_id,
        }
        if self._revocation is not None and not _is_one_host(token_url, self._revocation.url):
            # It gets both tokens: if the configuration names another one, not those of before.
            self.owner = {**self.owner, "revocation": self._revocation.identity}
        requested = {
            "scope": " ".join(sorted(set(self._scope.split()))),
            "resource": " ".join(sorted(set(self._resource))),
            "audience": audience,
        }
        self.requested: Mapping[str, str] = {
            name: value for name, value in requested.items() if value
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint.name} client_id={self._client_id!r}>"

    @property
    def revokes(self) -> bool:
        """Whether it knows where tokens are revoked."""
        return self._revocation is not None

    def revoke(self, token: Token) -> None:
        """Have the server revoke *token* (RFC 7009): the refresh token, then the access token.

        In this order nobody can renew in between, and a server should revoke with the first what
        it gave for it (section 2.1).

        :raises ValueError: if there is no ``revocation_url``.
        :raises RefreshConfigError: if the server cannot be asked like this.
        :raises RefreshTemporarilyFailed: if there was no answer, or none that says more.
        """
        if self._revocation is None:
            raise ValueError("revocation_url is not given: nobody knows where to revoke a token")
        secrets = {"refresh_token": token.refresh_token, "access_token": token.access_token}
        for kind, secret in secrets.items():
            error = None if secret is None else self._revoke(self._revocation, kind, secret)
            if error is not None:
                raise error

    def _revoke(self, endpoint: Endpoint, kind: str, secret: str) -> TokenError | None:
        form = {"token": secret, "token_type_hint": kind}
        headers = dict(_HEADERS)
        client_auth.authenticate(
            self._client_auth, self._client_id, self._client_secret, form, headers
        )
        attempt = outcome.Attempt(endpoint.name, kind, {secret, *self._secrets(form, headers)})
        return revocation.not_revoked(
            attempt, endpoint.exchange("POST", headers, urlencode(form).encode())
        )

    def _grant(self, credential: Credential) -> dict[str, str]:
        """The parameters that present *credential*."""
        raise NotImplementedError

    def _present(self, credential: Credential) -> Token | TokenError:
        form = {**self._extra, **self._grant(credential)}
        if self._scope:
            form["scope"] = self._scope
        if self._audience:
            form["audience"] = self._audience
        headers = dict(_HEADERS)
        client_auth.authenticate(
            self._client_auth, self._client_id, self._client_secret, form, headers
        )
        body = urlencode([*form.items(), *(("resource", uri) for uri in self._resource)])
        attempt = outcome.Attempt(
            self._endpoint.name, credential.kind, self._secrets(form, headers)
        )
        requested_at = time.time()
        answer = self._endpoint.exchange("POST", headers, body.encode(), credential.may_be_sent)
        if isinstance(answer, reply.NoReply):
            return outcome.no_answer(attempt, answer)
        # Some servers answer 200 with an error.
        if not 200 <= answer.status < 300 or (answer.error and "access_token" not in answer.fields):
            return outcome.no_token(attempt, answer)
        try:
            return Token.from_response(answer.fields, requested_at=requested_at)
        except ValueError as error:
            return outcome.unreadable(attempt, answer, str(error))

    def _secrets(self, form: Mapping[str, str], headers: Mapping[str, str]) -> set[str]:
        """What was sent and must not be told."""
        names = {"client_secret", "password", "refresh_token", *self._extra}
        return {
            *(value for name, value in form.items() if name in names),
            self._client_secret or "",
            headers.get("Authorization", "").removeprefix("Basic "),
            *wording.query_secrets(urlsplit(self._endpoint.url).query),
        }


def _is_one_host(url: str, other: str) -> bool:
    return urlsplit(url).hostname == urlsplit(other).hostname


def checked_method(method: str, client_secret: str | None) -> str:
    """The method to use: ``none`` for a client without a secret, unless it asks for another.

    :raises ValueError: if there is no such method, or it does not go with what is given.
    """
    if method not in _METHODS:
        raise ValueError(f"client_auth must be one of {', '.join(_METHODS)}, not {method!r}")
    if client_secret is None:
        if method == "client_secret_post":
            raise ValueError(f"client_auth={method!r} needs a client_secret")
        return "none"
    if method == "none":
        raise ValueError("client_auth='none' sends no client_secret: leave one of them out")
    return method


def _several(name: str, value: str | Iterable[str] | None) -> list[str]:
    """One or several texts as a list."""
    values = [value] if value and isinstance(value, str) else value or ()
    return [checked_text(name, item) for item in values]


def _checked_resource(uri: str) -> str:
    if not urlsplit(uri).scheme or "#" in uri:
        raise ValueError(
            f"resource must be an absolute URI without a fragment (RFC 8707 section 2), not {uri!r}"
        )
    return uri


def _checked_extra(extra: Mapping[str, str]) -> dict[str, str]:
    reserved = sorted(_RESERVED & extra.keys())
    if reserved:
        raise ValueError(
            f"extra must not hold {', '.join(reserved)}: use the arguments of these names; the "
            "grant chooses the rest"
        )
    for name, value in extra.items():
        if not isinstance(value, str):
            raise TypeError(f"extra[{name!r}] must be a str, not {type(value).__name__}")
    return dict(extra)
