"""Metadata: an authorization server says where its endpoints are.

It is at a URL that follows from the issuer: first that of RFC 8414, then that of OpenID Connect
Discovery.  It decides where secrets are sent.  So it is used only if it names the same issuer
(RFC 8414 section 3.3), and if none of its endpoints is less safe to reach than the issuer.

It is read when a request needs it, and cached in the process.  The store does not keep it: a
program that can write to the store could then have the client's secret sent to another server.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from tokenadapter.late_imports import late
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.values import Value

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.http import masking
    from tokenadapter.sources import reply
    from tokenadapter.sources.reply import Reply
else:
    errors = late("tokenadapter.errors")
    masking = late("tokenadapter.http.masking")
    reply = late("tokenadapter.sources.reply")

__all__ = ["Issuer", "Published", "ServerMetadata", "texts"]

# Seconds for which metadata is used without reading it again.
_VALID = 86400.0
# Seconds after which it is read again if it could not be read.
_RETRY = 600.0
# The same if no request can be sent by it.
_DOUBTED = 10.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
# How many issuers are remembered.
_MOST = 100


class ServerMetadata(Value):
    """What an authorization server says of itself, under the names of RFC 8414 section 2."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    """Where a browser starts a login (RFC 6749 section 3.1)."""
    device_authorization_endpoint: str | None = None
    """Where a device starts a login (RFC 8628 section 4)."""
    revocation_endpoint: str | None = None
    registration_endpoint: str | None = None
    """Where clients register (RFC 7591)."""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    """How a client may authenticate to obtain a token."""
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = ()
    """How a client may authenticate to revoke a token.  Empty if the server does not say: then most
    servers accept what they accept for tokens."""
    scopes_supported: tuple[str, ...] = ()
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...] = ()
    """The algorithms of assertions that authenticate a client.  Empty if the server does not
    say."""
    dpop_signing_alg_values_supported: tuple[str, ...] = ()
    """The algorithms of proofs (RFC 9449 section 5.1).  Empty if the server does not say."""
    tls_client_certificate_bound_access_tokens: bool = False
    """Whether it binds tokens to the certificate of the client (RFC 8705 section 3.3)."""
    pushed_authorization_request_endpoint: str | None = None
    """Where a client sends the parameters of a login itself (RFC 9126 section 5)."""
    require_pushed_authorization_requests: bool = False
    """Whether a login must begin there."""
    require_signed_request_object: bool = False
    """Whether the client must sign the parameters of a login (RFC 9101 section 10.5)."""
    code_challenge_methods_supported: tuple[str, ...] = ()
    """The methods of PKCE (RFC 7636)."""
    authorization_response_iss_parameter_supported: bool = False
    """Whether an authorization response names the issuer (RFC 9207)."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs to which secrets are sent."""
        urls = (
            self.token_endpoint,
            self.revocation_endpoint,
            self.device_authorization_endpoint,
            self.pushed_authorization_request_endpoint,
            self.registration_endpoint,
        )
        return tuple(url for url in urls if url is not None)


T = TypeVar("T")


class Published(Generic[T]):
    """What publishes metadata of itself at a well-known URL.

    :param argument: the argument that *url* was passed as, for messages.
    :param url: its identifier: an ``https`` URL, or ``http`` on this machine.
    :param connection: as for :class:`~tokenadapter.sources.endpoint.Endpoint`.
    :raises UnsafeTarget: if the metadata would be read in clear.
    :raises ValueError: if it is no such URL.
    :ivar endpoint: the identifier as an endpoint.
    :ivar locations: the URLs at which the metadata may be.
    """

    kind: ClassVar[str]
    """What it is."""
    advice: ClassVar[str]
    """What to do if it has no metadata that can be used."""

    locations: tuple[str, ...]

    def __init__(self, argument: str, url: str, **connection: Any) -> None:
        self.endpoint: Endpoint = Endpoint(argument, url, **connection)
        self._connection = connection
        # Metadata that was read without verification is not for a source that verifies.
        way = {name: value for name, value in connection.items() if name != "timeout"}
        self._key = repr((self.kind, url, sorted(way.items())))

    @property
    def known(self) -> T | None:
        """The metadata, if this process has read it."""
        known = _known.get(self._key)
        return None if known is None else known[0]

    def forget(self) -> None:
        """Forget the metadata, so that the next request reads it."""
        _known.pop(self._key, None)

    def doubt(self) -> None:
        """Read the metadata again soon: by what it says, no request can be sent."""
        known = _known.get(self._key)
        if known is not None:
            _known[self._key] = known[0], min(known[1], time.monotonic() + _DOUBTED)

    def metadata(self, secrets: Collection[str] = ()) -> T | TokenError:
        """The metadata, read within half of the timeout if this process has not read it today.

        During an outage of the server, metadata of an earlier day stays in use.

        :param secrets: what the error must not show, even if the server says it.
        :returns: the error where there is none.  It is returned, not raised, for the same reason as
            those of :mod:`tokenadapter.sources.outcome`.
        """
        now = time.monotonic()
        known = _known.get(self._key)
        if known is not None and now < known[1]:
            return cast("T", known[0])
        found = self._read(secrets)
        valid = _VALID
        if known is not None and isinstance(found, errors.RefreshTemporarilyFailed):
            found, valid = cast("T", known[0]), _RETRY
        if not isinstance(found, errors.TokenError):
            if len(_known) >= _MOST:
                _known.clear()
            _known[self._key] = found, now + valid
        return found

    def _candidates(self, end: float) -> Iterable[str]:
        """The URLs to try.

        :param end: when the time is over, by the monotonic clock.
        """
        return self.locations

    def _checked(self, location: str, said: Mapping[str, Any]) -> T:
        """The metadata in *said*, which was read at *location*.

        :raises ValueError: if it must not be used.
        """
        raise NotImplementedError

    def _read(self, secrets: Collection[str]) -> T | TokenError:
        end = time.monotonic() + self.endpoint.timeout / 2
        failures: list[str] = []
        is_temporary, wait = False, None
        for url in self._candidates(end):
            connection = self._connection
            if _origin(url) != _origin(self.endpoint.url):
                # An API may name any server, which must not learn who the client is.
                connection = {**connection, "cert": None}
            location = Endpoint(self.kind, url, **connection)
            answer = location.exchange(
                "GET", {"Accept": "application/json"}, None, seconds=end - time.monotonic()
            )
            if isinstance(answer, reply.NoReply):
                # The other URLs are on the same server.
                failures.append(f"{url}: {masking.masked(answer.why, secrets)}")
                is_temporary = not answer.lasting
                break
            try:
                return self._checked(url, _document(url, answer))
            except ValueError as problem:
                failures.append(
                    f"{url}: {answer.status}, {masking.masked(str(problem), secrets, 300)}"
                )
            if answer.may_pass:
                is_temporary = True
                wait = reply.retry_after(answer.headers.get("Retry-After"), time.time())
        return self._error("; ".join(failures), wait, is_temporary=is_temporary)

    def _error(self, why: str, wait: float | None, *, is_temporary: bool) -> TokenError:
        if is_temporary:
            return errors.RefreshTemporarilyFailed(
                f"The metadata of {self.endpoint.name} could not be read ({why}). Nothing was "
                "spent, and the stored token is kept. Try again later.",
                processed=False,
                retry_after=wait,
            )
        return errors.RefreshConfigError(
            f"The metadata of {self.endpoint.name} cannot be used ({why}). Nothing was spent, and "
            f"the stored token is kept. {self.advice}"
        )

    def _check_endpoint(self, name: str, url: object) -> None:
        """:raises ValueError: unless *url* is as safe as the identifier."""
        if not isinstance(url, str):
            raise ValueError(f"{name} is not a text")
        try:
            endpoint = Endpoint(name, url, **self._connection)
        except errors.UnsafeTarget:
            raise ValueError(f"{name} is plain http to another machine") from None
        except ValueError as problem:
            raise ValueError(f"{name} cannot be used: {problem}") from None
        if endpoint.name.startswith("http:") and self.endpoint.name.startswith("https:"):
            raise ValueError(f"{name} is plain http")


class Issuer(Published[ServerMetadata]):
    """An authorization server, named by its issuer identifier (RFC 8414 section 2).

    :param url: the identifier, without a query.  No request is sent there.
    """

    kind = "issuer"
    advice = (
        "Check issuer: it must be spelled as in the metadata, to the last slash. For a server "
        "without metadata, pass token_url instead."
    )

    def __init__(self, url: str, **connection: Any) -> None:
        super().__init__("issuer", url, **connection)
        parts = urlsplit(url)
        if "?" in url:
            raise ValueError("issuer must not have a query: remove it from the '?' on")
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.removesuffix("/")
        self.locations: tuple[str, ...] = (
            f"{origin}/.well-known/oauth-authorization-server{path}",
            f"{origin}{path}/.well-known/openid-configuration",
        )

    def _checked(self, location: str, said: Mapping[str, Any]) -> ServerMetadata:
        if said.get("issuer") != self.endpoint.url:
            raise ValueError(f"it is the metadata of another issuer, {said.get('issuer')!r:.200}")
        found: dict[str, Any] = {}
        said = {**said, **self._aliases(said)}
        for name, kind in ServerMetadata.__annotations__.items():
            value = said.get(name)
            if value is None:
                continue
            if name.endswith("_endpoint"):
                self._check_endpoint(name, value)
            elif kind == "bool":
                value = value is True
            elif name.endswith("_supported"):
                value = texts(name, value)
            found[name] = value
        if "token_endpoint" not in found:
            raise ValueError("token_endpoint is missing")
        return ServerMetadata(**found)

    def _aliases(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """The endpoints for a client that presents a certificate (RFC 8705 section 5)."""
        given = said.get("mtls_endpoint_aliases")
        if not self._connection.get("cert") or not isinstance(given, dict):
            return {}
        # A browser goes to the authorization endpoint, without the certificate.
        direct = ServerMetadata.__annotations__.keys() - {"authorization_endpoint"}
        return {
            name: given[name] for name in direct if name.endswith("_endpoint") and name in given
        }


def _document(location: str, answer: Reply) -> Mapping[str, Any]:
    """The JSON object in *answer*.

    :raises ValueError: if there is none.
    """
    if 300 <= answer.status < 400:
        target = urljoin(location, answer.headers.get("Location", ""))
        raise ValueError(
            f"a redirect to {target.partition('?')[0]}, which is not followed because another "
            "server could then name the endpoints"
        )
    if not 200 <= answer.status < 300 or not answer.fields:
        raise ValueError(answer.shape)
    return answer.fields


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def texts(name: str, value: object) -> tuple[str, ...]:
    """*value*, a list of texts.

    :raises ValueError: if it is none.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is not a list of texts")
    return tuple(value)


# What this process has read, and until when by the monotonic clock it is not read again.
_known: dict[str, tuple[Any, float]] = {}
