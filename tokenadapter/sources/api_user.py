"""A user of an API that says itself where its users log in (RFC 9728), as MCP servers do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenadapter.late_imports import late
from tokenadapter.sources import Source, checked_text, in_order, or_raise, several, usual_timeout
from tokenadapter.sources.discovery import Issuer
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.oauth2_client import OAuth2Client
from tokenadapter.sources.protected_resource import ProtectedResource, without_slash
from tokenadapter.sources.refresh_token import RefreshToken
from tokenadapter.sources.registration import WAYS, Registration, register
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.keys import key as keys
    from tokenadapter.keys.key import Key, KeyLike
    from tokenadapter.protocols import ClientAuth
    from tokenadapter.sources.discovery import ServerMetadata
    from tokenadapter.sources.protected_resource import ResourceMetadata
else:
    errors = late("tokenadapter.errors")
    keys = late("tokenadapter.keys.key")
    socket = late("socket")

__all__ = ["ApiUser"]

_HOST = "127.0.0.1"
_FORGOTTEN = (
    "If the server has forgotten the client that this program registered, remove the token with "
    "`tokenadapter logout NAME --local` or logout(local=True), and log in again."
)


class ApiUser(Source):
    """Tokens for a user of an API of which only the URL is known.

    The API names the authorization server of its users (RFC 9728).  There, the user logs in with
    :func:`tokenadapter.login`, and the program registers itself as a client (RFC 7591) unless
    *client_id* is given.  The store keeps the client with the token: the next process registers
    none, and the refresh token is never presented to another authorization server.

    :param url: the URL of the API: ``https``, or ``http`` on this machine.
    :param client_id: the client's identifier, if it was registered before.
    :param client_secret: its secret; ``None`` if it has none.
    :param issuer: the authorization server where the client was registered, by its issuer
        identifier: it must be one that the API names.  A *client_secret* or *client_auth* needs it,
        and so does a token that comes from no login: otherwise the API could have them sent to any
        server.
    :param client_auth: as for :class:`~tokenadapter.ClientCredentials`.
    :param client_name: how the server names the program to the user, if the program registers
        itself.
    :param scope: the scope to request.  By default, a login requests what the API asks for, and
        ``offline_access`` if the server knows that.
    :param account: a name for the user: a record of another user is refused.
    :param grace: as for :class:`~tokenadapter.RefreshToken`.
    :param dpop: bind the tokens to a key (RFC 9449), as for
        :class:`~tokenadapter.ClientCredentials`.  If the API requires that, they are bound
        without this argument.
    :param timeout: seconds for each exchange with the API or its authorization server; by default
        10, or fewer if *grace* is short.
    :param verify: whether to verify the servers' certificates, or a path to CA certificates.
    :param cert: a client certificate: a path, or those of certificate and key.
    :param proxies: proxy URLs by scheme, which take precedence over those in the environment.
    :param allow_http: accept plain ``http`` to another machine, although everyone on the way can
        then read the secrets.
    :raises UnsafeTarget: if the secrets would be sent in clear.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument makes no sense; the message says why.
    """

    begins_with_login = True

    discovers = True

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        issuer: str | None = None,
        client_auth: str | ClientAuth | None = None,
        client_name: str = "tokenadapter",
        scope: str | Iterable[str] | None = None,
        account: str | None = None,
        grace: float = 0.0,
        dpop: bool | KeyLike = False,
        timeout: float | None = None,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool = False,
    ) -> None:
        # To find the authorization server takes up to half of the timeout more.
        timeout = usual_timeout(timeout, grace, 1.5)
        self._connection: dict[str, Any] = {
            "timeout": timeout,
            "verify": verify,
            "cert": cert,
            "proxies": proxies,
            "allow_http": allow_http,
        }
        self._api = ProtectedResource(url, **self._connection)
        super().__init__(self._api.endpoint)
        self.deadline: float = timeout * 1.5
        self.urls: Sequence[str] = self._api.locations
        self.grace = grace
        self._client: dict[str, Any] = {}
        self._client_name = checked_text("client_name", client_name)
        self.owner: Mapping[str, str] = {"grant": "refresh_token", "api": self._endpoint.identity}
        self._chosen: OAuth2Client | None = None
        if client_id is not None:
            self._chosen = OAuth2Client(client_id, client_secret, client_auth, **self._connection)
            self._client = {
                "client_id": client_id,
                "client_secret": client_secret,
                "client_auth": client_auth,
            }
            self.owner = {**self.owner, "client": client_id}
        elif client_secret is not None or client_auth is not None or issuer is not None:
            raise ValueError("client_id is missing: client_secret, client_auth and issuer need it")
        if issuer is not None:
            self.owner = {**self.owner, "issuer": Issuer(issuer, **self._connection).endpoint.name}
        elif client_secret is not None or client_auth not in (None, "none"):
            raise ValueError(
                "issuer is missing: the API could have the client's secret sent to any server"
            )
        self._issuer = issuer
        #: The key that is configured, if tokens are bound to one (RFC 9449).
        self.dpop_key: Key | None = None if isinstance(dpop, bool) else keys.Key.of(dpop)
        self._makes_keys = dpop is True
        if account is not None:
            self.owner = {**self.owner, "user": account}
        self._scope = None if scope is None else " ".join(several("scope", scope))
        if self._scope:
            self.requested: Mapping[str, str] = {"scope": in_order(self._scope.split())}
        self._server: ServerMetadata | None = None

    @property
    def client_credential(self) -> str:
        """What authenticates the client, if the program chose one."""
        return f"api {self._endpoint.url}" if self._chosen is None else self._chosen.credential

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        secret = None if previous is None else previous.refresh_token
        if secret is None:
            return []
        return [Credential("refresh_token", secret, single_use=True, refusal_is_final=True)]

    def fetch(self, credential: Credential, previous: Token | None) -> Token:
        return or_raise(self._login_of(previous)).fetch(credential, previous)

    def new_key(self, previous: Token | None) -> str | None:
        """A new key to bind tokens to, as a JWK in JSON; ``None`` if the key is configured, or
        tokens are not bound.

        :raises RefreshConfigError: if no key can be made.

        :meta private:
        """
        found = self._login_of(previous)
        if not isinstance(found, RefreshToken):
            return None  # an error is that of the token request, too
        try:
            return found.new_key()
        except errors.RefreshConfigError:
            self._api.doubt()
            raise

    def discover(self) -> ServerMetadata:
        """The metadata of the authorization server, which the API names.

        Both are read unless this process has read them today.  Afterwards ``urls`` has the
        endpoints.

        :raises RefreshConfigError: if there is none, or if it must not be used.
        :raises RefreshTemporarilyFailed: if it could not be read.
        """
        return self._discovered()[1]

    @property
    def revokes(self) -> bool:
        """Whether the authorization server has a revocation endpoint: call :meth:`discover`
        before."""
        return self._server is not None and self._server.revocation_endpoint is not None

    def revoke(self, token: Token) -> None:
        """Have the server revoke *token* (RFC 7009): the refresh token, then the access token.

        :raises RefreshConfigError: if the server refused the request, or has no revocation
            endpoint.
        :raises RefreshTemporarilyFailed: if there was no answer, or the answer does not say.
        """
        found = or_raise(self._login_of(token))
        server = found.discover()
        if server is not None and server.revocation_endpoint is None:
            # That of discover() may be another one, if the API names several.
            raise errors.RefreshConfigError(
                f"{server.issuer} has no revocation endpoint (RFC 7009). Nothing was sent, and the "
                "stored token is kept. End the access in the settings of the user's account."
            )
        found.revoke(token)

    def for_login(
        self, previous: Token | None, grant_type: str, redirect_uri: str | None
    ) -> _LoggedIn:
        """The source for a login: with the client of *previous*, or else with a new one.

        :param grant_type: that of the login's token request.
        :param redirect_uri: where the answer goes; by default a port on loopback, which stays the
            same for later logins, since some servers compare it.
        :raises TokenError: if the server cannot be found, or registers no client.

        :meta private:
        """
        resource, server = self._discovered()
        scope = self._scope or resource.scope or " ".join(resource.scopes_supported) or None
        if self._scope is None and "offline_access" in server.scopes_supported:
            scope = " ".join(dict.fromkeys([*(scope or "").split(), "offline_access"]))
        # A client that is bound gets no other tokens, so a change of this needs another client.
        is_bound = bool(self._binding(resource))
        client = Registration.of(previous)
        if self._client:
            client = Registration(server.issuer, self._client["client_id"], redirect_uri)
        elif (
            client is None
            or client.has_expired
            or (client.issuer, client.grant_type) != (server.issuer, grant_type)
            or (client.scope, client.is_bound) != (scope, is_bound)
            or redirect_uri not in (None, client.redirect_uri)
            or not _can_listen(client.redirect_uri)
        ):
            # Without a key, no client is registered.
            self._source_of(Registration(server.issuer, "none"), resource, scope).new_key()
            client = self._registered(server, grant_type, scope, redirect_uri, is_bound=is_bound)
        return self._source_of(client, resource, scope)

    def _login_of(self, token: Token | None) -> RefreshToken | TokenError:
        """The source that *token* came from."""
        known = Registration.of(token)
        cached = self._api.known
        if cached is not None and known is not None and not _accepts(cached, known.issuer):
            self._api.forget()  # perhaps the user has logged in at another server since
        resource = self._api.metadata()
        if isinstance(resource, errors.TokenError):
            return resource
        if known is None and self._issuer is not None:
            known = Registration(self._issuer, self._client["client_id"])
        if known is None:
            return errors.RefreshConfigError(
                f"The stored token does not come from a login for the API {self._endpoint.name}: "
                "its client is unknown. Nothing was sent, and the stored token is kept. "
                f"{errors.LOG_IN}"
            )
        if not _accepts(resource, known.issuer):
            # A program that can change what the API says must not get the refresh token.
            return errors.RefreshConfigError(
                f"The API {self._endpoint.name} does not name {known.issuer}, where the user "
                "logged in, as its authorization server. Nothing was sent, and the stored token "
                f"is kept. {errors.LOG_IN}"
            )
        return self._source_of(known, resource, self._scope)

    def _binding(self, resource: ResourceMetadata) -> bool | Key:
        """The ``dpop`` of the source of a login."""
        return self.dpop_key or self._makes_keys or resource.dpop_bound_access_tokens_required

    def _source_of(
        self, client: Registration, resource: ResourceMetadata, scope: str | None
    ) -> _LoggedIn:
        dpop = self._binding(resource)
        return _LoggedIn(client, resource, scope, self._client, dpop=dpop, **self._connection)

    def _discovered(self) -> tuple[ResourceMetadata, ServerMetadata]:
        """What the API says, and its authorization server: the one of the client, or else the first
        one that the API names."""
        resource = or_raise(self._api.metadata())
        if self._issuer is not None and not _accepts(resource, self._issuer):
            raise errors.RefreshConfigError(
                f"The API {self._endpoint.name} does not name {self._issuer}, where the client is "
                "registered, as its authorization server. Nothing was sent, and the stored token "
                "is kept. Check client_id and issuer."
            )
        failures: list[TokenError] = []
        for url in _spellings(self._issuer or resource.authorization_servers[0]):
            issuer = Issuer(url, **self._connection)
            server = issuer.metadata()
            if not isinstance(server, errors.TokenError):
                break
            failures.append(server)
        else:
            raise failures[0]
        self._server = server
        self.urls = (*self._api.locations, *issuer.locations, *server.endpoints)
        return resource, server

    def _registered(
        self,
        server: ServerMetadata,
        grant_type: str,
        scope: str | None,
        redirect_uri: str | None,
        *,
        is_bound: bool,
    ) -> Registration:
        if server.registration_endpoint is None:
            raise errors.RefreshConfigError(
                f"{server.issuer} registers no clients (RFC 7591). Nothing was sent, and the "
                "stored token is kept. Register a client at the server, and pass its client_id."
            )
        if "S256" not in server.code_challenge_methods_supported:
            raise errors.RefreshConfigError(
                f"{server.issuer} does not say that it supports PKCE with S256 (RFC 7636). Without "
                "that, a login as a client that registers itself is not safe. Nothing was sent, "
                "and the stored token is kept. Register a client at the server, and pass its "
                "client_id."
            )
        supported = server.token_endpoint_auth_methods_supported
        described: dict[str, Any] = {
            "client_name": self._client_name,
            "application_type": "native",
            "redirect_uris": [redirect_uri or _free_redirect_uri()],
            "grant_types": [grant_type, "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": next((way for way in WAYS if way in supported), WAYS[0]),
        }
        if scope is not None:
            described["scope"] = scope
        if is_bound:
            described["dpop_bound_access_tokens"] = True  # RFC 9449 section 5.2
        endpoint = Endpoint(
            "registration_endpoint", server.registration_endpoint, **self._connection
        )
        return or_raise(register(endpoint, server.issuer, described))


class _LoggedIn(RefreshToken):
    """The tokens of one login: each of them contains the client that it was issued to.

    :param given: the client that the program is configured with, if it is.
    """

    def __init__(
        self,
        client: Registration,
        resource: ResourceMetadata,
        scope: str | None,
        given: Mapping[str, Any],
        **options: Any,
    ) -> None:
        way = given or {
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "client_auth": client.client_auth,
        }
        super().__init__(
            issuer=client.issuer, scope=scope, resource=resource.resource, **way, **options
        )
        self._issued_to = client
        # As keys: a server may list very many.
        self._accepted = dict.fromkeys(resource.dpop_signing_alg_values_supported)
        self._is_registered = not given
        self.login_settings: Mapping[str, str] = {}
        if client.redirect_uri is not None:
            self.login_settings = {"redirect_uri": client.redirect_uri}

    @property
    def _algorithms(self) -> Sequence[str]:
        by_server = super()._algorithms
        by_both = [alg for alg in by_server or self._accepted if alg in self._accepted]
        return by_both or by_server

    def redeem(
        self, kind: str, form: Mapping[str, str | list[str]], **sending: Any
    ) -> Token | TokenError:
        """Post a token request that presents a credential of *kind*.

        :meta private:
        """
        outcome = super().redeem(kind, form, **sending)
        if isinstance(outcome, Token):
            return self._issued_to.kept_in(outcome)
        if self._is_registered and getattr(outcome, "error", None) == "invalid_client":
            outcome.args = (f"{outcome.args[0]} {_FORGOTTEN}",)
        return outcome


def _accepts(resource: ResourceMetadata, issuer: str) -> bool:
    """Whether *issuer* is one of the authorization servers of *resource*."""
    return without_slash(issuer) in map(without_slash, resource.authorization_servers)


def _spellings(issuer: str) -> Iterator[str]:
    """*issuer* as the API spells it, and as the server itself may do: some APIs add a slash to a
    host, or drop one, and the metadata of the server must name its issuer exactly."""
    yield issuer
    if urlsplit(issuer).path in ("", "/"):
        yield issuer[:-1] if issuer.endswith("/") else f"{issuer}/"


def _free_redirect_uri() -> str:
    """A port on loopback that is free now."""
    with socket.create_server((_HOST, 0)) as server:
        return f"http://{_HOST}:{server.getsockname()[1]}/callback"


def _can_listen(redirect_uri: str | None) -> bool:
    """Whether the port of an earlier login is free again."""
    parts = urlsplit(redirect_uri or "")
    if parts.hostname != _HOST:
        return True  # it was given
    try:
        socket.create_server((_HOST, parts.port or 0)).close()
    except OSError:
        return False
    return True
