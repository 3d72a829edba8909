"""What the OAuth 2 grants share: their arguments, and the form of a token request."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenadapter.late_imports import late
from tokenadapter.sources import Source, checked_text, in_order, or_raise, several, usual_timeout
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.oauth2_client import OAuth2Client
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from typing import Required, TypedDict

    from tokenadapter import errors
    from tokenadapter.errors import ReauthRequired, RefreshConfigError, TokenError
    from tokenadapter.http import dpop as proofs
    from tokenadapter.http import masking
    from tokenadapter.keys import key as keys
    from tokenadapter.keys.key import Key, KeyLike
    from tokenadapter.protocols import ClientAuth
    from tokenadapter.sources import discovery, outcome, providers, revocation
    from tokenadapter.sources.discovery import Issuer, ServerMetadata
    from tokenadapter.sources.given_token import GivenToken
    from tokenadapter.sources.providers import Provider

    class CommonOptions(TypedDict, total=False):
        """The keyword arguments of :class:`OAuth2Source` that mean the same in each grant."""

        issuer: str | None
        provider: str | None
        domain: str | None
        tenant: str | None
        client_secret: str | None
        client_auth: str | ClientAuth | None
        scope: str | Iterable[str] | None
        resource: str | Iterable[str] | None
        extra: Mapping[str, str] | None
        revocation_url: str | None
        dpop: bool | KeyLike
        timeout: float | None
        verify: bool | str | None
        cert: str | tuple[str, str] | None
        proxies: Mapping[str, str] | None
        allow_http: bool

    class OAuth2Options(CommonOptions, total=False):
        """The keyword arguments of :class:`OAuth2Source`."""

        client_id: Required[str]
        audience: str | None

else:
    discovery = late("tokenadapter.sources.discovery")
    errors = late("tokenadapter.errors")
    keys = late("tokenadapter.keys.key")
    proofs = late("tokenadapter.http.dpop")
    masking = late("tokenadapter.http.masking")
    outcome = late("tokenadapter.sources.outcome")
    providers = late("tokenadapter.sources.providers")
    revocation = late("tokenadapter.sources.revocation")

__all__ = ["OAuth2Source"]

# Parameters that have an argument of their own, or that the grant sets.
_RESERVED = frozenset(
    {
        "actor_token",
        "actor_token_type",
        "assertion",
        "audience",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "password",
        "refresh_token",
        "resource",
        "scope",
        "subject_token",
        "subject_token_type",
        "username",
    }
)


class OAuth2Source(Source):
    """A grant at a token endpoint (RFC 6749 section 3.2).

    The parameters are those of :class:`~tokenadapter.ClientCredentials`.
    """

    grant_type: str
    """The ``grant_type`` of the first token request (RFC 6749 section 4)."""
    _given: Sequence[GivenToken] = ()
    """What something else keeps, and the source presents."""

    def __init__(
        self,
        token_url: str | None = None,
        *,
        client_id: str,
        issuer: str | None = None,
        provider: str | None = None,
        domain: str | None = None,
        tenant: str | None = None,
        client_secret: str | None = None,
        client_auth: str | ClientAuth | None = None,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] | None = None,
        audience: str | None = None,
        extra: Mapping[str, str] | None = None,
        grant_type: str | None = None,
        revocation_url: str | None = None,
        dpop: bool | KeyLike = False,
        timeout: float | None = None,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool = False,
    ) -> None:
        scopes = several("scope", scope)
        revokes_at = revocation_url
        known: Provider | None = None
        if provider is not None:
            if token_url is not None or issuer is not None:
                raise TypeError("provider has its own token_url or issuer: pass one of them")
            known = providers.Provider(provider, domain=domain, tenant=tenant)
            token_url, issuer = known.get("token_url"), known.get("issuer")
            revokes_at = revocation_url or known.get("revocation_url")
            if client_auth is None and client_secret is not None:
                client_auth = known.get("client_auth")
            if self.spends:
                scopes = [known.scope(scopes)]
            self._take(known)
        elif domain is not None or tenant is not None:
            raise TypeError("domain and tenant belong to a provider: pass provider, too")
        if grant_type is not None:
            if self.spends:
                raise TypeError("grant_type is an argument of ClientCredentials only: remove it")
            self.grant_type = checked_text("grant_type", grant_type)
        connection: dict[str, Any] = {
            "timeout": usual_timeout(timeout, self.grace),
            "verify": verify,
            "cert": cert,
            "proxies": proxies,
            "allow_http": allow_http,
        }
        self._client = OAuth2Client(client_id, client_secret, client_auth, **connection)
        self._issuer: Issuer | None = None
        if issuer is not None and token_url is None:
            self._issuer = discovery.Issuer(issuer, **connection)
            super().__init__(self._issuer.endpoint)
            self.urls: Sequence[str] = self._issuer.locations
            self.discovers = True
        elif token_url is not None and issuer is None:
            super().__init__(self._client.endpoint("token_url", token_url))
        else:
            both = "are both given" if issuer is not None else "are both missing"
            raise TypeError(f"token_url and issuer {both}: pass one of them, or a provider")
        self._makes_keys = dpop is True
        #: The key that is configured, if tokens are bound to one (RFC 9449).
        self.dpop_key: Key | None = None if isinstance(dpop, bool) else keys.Key.of(dpop)
        self._revocation: Endpoint | None = None
        if revokes_at is not None:
            self._revocation = self._client.endpoint("revocation_url", revokes_at)
            self.urls = (*self.urls, self._revocation.url)
        self._configured_urls = self.urls
        if self._issuer is not None and self._issuer.known is not None:
            self._learn(self._issuer.known)
        self._scope = " ".join(scopes)
        self._resource = [_checked_resource(uri) for uri in several("resource", resource)]
        self._audience = audience and checked_text("audience", audience)
        self._extra = _checked_extra(extra or {})
        self.cert: str | tuple[str, str] | None = cert
        configured = None if revocation_url is None else self._revocation
        self.owner: Mapping[str, str] = self._owner(known, configured)
        requested = {
            "scope": in_order(self._scope.split()),
            "resource": in_order(self._resource),
            "audience": audience,
        }
        self.requested: Mapping[str, str] = {
            name: value for name, value in requested.items() if value
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint.name} client_id={self._client.client_id!r}>"

    @property
    def client_credential(self) -> str:
        """What authenticates the client."""
        return self._client.credential

    @property
    def revokes(self) -> bool:
        """Whether the source has a ``revocation_url``, or the issuer's metadata has one.

        Metadata that was not read counts as having none: call :meth:`discover` before.
        """
        server = self._issuer and self._issuer.known
        return self._revocation is not None or bool(server and server.revocation_endpoint)

    def discover(self) -> ServerMetadata | None:
        """The issuer's metadata, read unless this process has read it today; ``None`` if the source
        has no ``issuer``.

        Afterwards :attr:`urls` has the endpoints.

        :raises RefreshConfigError: if there is none, or if it must not be used.
        :raises RefreshTemporarilyFailed: if it could not be read.
        """
        if self._issuer is None:
            return None
        found = or_raise(self._issuer.metadata(self._client.secrets_in({})))
        self._learn(found)
        return found

    def client_auth(self) -> str | ClientAuth | None:
        """How the client authenticates beyond the token endpoint; ``None`` for its usual way.

        :raises RefreshConfigError: if the issuer supports none of its ways.

        :meta private:
        """
        server = self.discover()
        if server is None:
            return None
        auth = self._auth_by(server.token_endpoint_auth_methods_supported)
        if isinstance(auth, errors.RefreshConfigError):
            raise auth
        return auth

    def revoke(self, token: Token) -> None:
        """Have the server revoke *token* (RFC 7009): the refresh token, then the access token.

        :raises ValueError: if the source has no ``revocation_url``, and neither has the metadata of
            its issuer.
        :raises RefreshConfigError: if the server refused the request.
        :raises RefreshTemporarilyFailed: if there was no answer, or the answer does not say.
        """
        endpoint = self._revocation
        auth: str | ClientAuth | None = None
        server = self.discover()
        if server is not None:
            supported = (
                server.revocation_endpoint_auth_methods_supported
                or server.token_endpoint_auth_methods_supported
            )
            way = self._auth_by(supported)
            if isinstance(way, errors.RefreshConfigError):
                raise way
            auth = way
            if endpoint is None and server.revocation_endpoint is not None:
                endpoint = self._client.endpoint("revocation_endpoint", server.revocation_endpoint)
        if endpoint is None:
            raise ValueError("revocation_url is not given: pass the URL that revokes tokens")
        error = revocation.revoke(self._client, endpoint, token, auth)
        if error is not None:
            raise error

    def new_key(self, previous: Token | None = None) -> str | None:
        """A new key to bind tokens to, as a JWK in JSON; ``None`` if the key is configured, or
        tokens are not bound.

        :raises RefreshConfigError: if no key can be made, or the issuer does not accept proofs with
            the configured one.

        :meta private:
        """
        if not self._makes_keys and self.dpop_key is None:
            return None
        if self._issuer is not None:
            self._issuer.metadata()  # if it cannot be read, the token request says why
        key = self._made_key()
        if isinstance(key, errors.RefreshConfigError):
            self._recheck(key)
            raise key
        return key

    def prover(self, key: str | None) -> Key | None:
        """The key that proofs are made with: *key*, or the one that is configured.

        :meta private:
        """
        return self.dpop_key if key is None else proofs.key_in(key)

    def _grant(self, credential: Credential) -> dict[str, str]:
        """The parameters that present *credential*."""
        raise NotImplementedError

    def _take(self, known: Provider) -> None:
        """Take what is known of the provider, where no argument says otherwise."""
        self.renew_early: bool = known.get("renew_early", True)
        self.verdict: Mapping[str, Any] | None = known.get("verdict")

    def _owner(self, known: Provider | None, revocation: Endpoint | None) -> dict[str, str]:
        """Whose tokens the source obtains: those of a client, at a server."""
        if known is not None:
            server = {"provider": known.identity}
        else:
            kind = "endpoint" if self._issuer is None else "issuer"
            server = {kind: self._endpoint.identity}
        owner = {"grant": self.grant_type, **server, "client": self._client.client_id}
        host = urlsplit(self._endpoint.url).hostname
        if revocation is not None and urlsplit(revocation.url).hostname != host:
            # Both tokens are sent there.  A configuration that names another host must not send it
            # the tokens that were stored before.
            owner["revocation"] = revocation.identity
        return owner

    def _learn(self, server: ServerMetadata) -> None:
        urls = (*self._configured_urls, *server.endpoints)
        if urls != self.urls:
            self.urls = urls

    def _auth_by(self, supported: Sequence[str]) -> str | ClientAuth | RefreshConfigError:
        """How the client authenticates in one of the *supported* ways, or why it cannot."""
        auth = self._client.auth_for(supported)
        if auth is not None:
            return auth
        return errors.RefreshConfigError(
            f"The issuer {self._endpoint.name} accepts no client secret in a supported way (only "
            f"{masking.masked(', '.join(supported), self._client.secrets_in({}))}). Nothing was "
            "spent, and the stored token is kept. Pass client_auth, such as PrivateKeyJWT(key), an "
            "object that authenticates in one of these ways."
        )

    @property
    def _algorithms(self) -> Sequence[str]:
        """The algorithms of proofs that are accepted; empty if that is not known."""
        server = self._issuer and self._issuer.known
        return server.dpop_signing_alg_values_supported if server else ()

    def _made_key(self) -> str | RefreshConfigError | None:
        """The result of :meth:`new_key`, or why there is none."""
        if not self._makes_keys and (self.dpop_key is None or self._is_accepted(self.dpop_key)):
            return None
        accepted, missing = self._algorithms, ""
        if self._makes_keys:
            try:
                key = proofs.new_key(accepted)
            except ImportError as error:
                key, missing = None, str(error)
            if key is not None:
                return key
        named, name = masking.masked(", ".join(accepted), ()), self._endpoint.name
        if self.dpop_key is None:
            problem = missing or f"Only proofs with {named} are accepted."
            return errors.RefreshConfigError(
                f"No key can be made for the tokens of {name}. {problem} Nothing was sent, and "
                "the stored token is kept.",
                is_local=True,
            )
        return errors.RefreshConfigError(
            f"The key that is configured as dpop signs with {self.dpop_key.alg}. For tokens of "
            f"{name}, only proofs with {named} are accepted (RFC 9449). Nothing was sent, and the "
            "stored token is kept. Pass a key for one of these algorithms, or dpop=True.",
            is_local=True,
        )

    def _keeps(self, key: str) -> bool:
        """Whether tokens are bound to *key* again."""
        found = proofs.key_in(key)
        if self._makes_keys and self._issuer is not None and not self._is_accepted(found):
            # This process may have read the metadata before another one made the key.
            self._issuer.forget()
            self._issuer.metadata()
        return self._makes_keys and self._is_accepted(found)

    def _is_accepted(self, key: Key) -> bool:
        """Whether proofs by *key* are accepted, as far as that is known."""
        accepted = self._algorithms
        # If the key cannot be used, its first proof says why.
        with suppress(ImportError, ValueError):
            return not accepted or key.alg in accepted
        return True

    def _token_endpoint(
        self, presented: Mapping[str, str | list[str]]
    ) -> tuple[Endpoint, dict[str, Any]] | TokenError:
        """The token endpoint, and what the issuer's metadata means for a request to it."""
        if self._issuer is None:
            return self._endpoint, {}
        server = self._issuer.metadata(self._client.secrets_in(presented))
        if not isinstance(server, discovery.ServerMetadata):
            return server
        self._learn(server)
        auth = self._auth_by(server.token_endpoint_auth_methods_supported)
        if isinstance(auth, errors.RefreshConfigError):
            return auth
        endpoint = self._client.endpoint("token_endpoint", server.token_endpoint)
        return endpoint, {"auth": auth}

    def _present(self, credential: Credential) -> Token | TokenError:
        try:
            grant = self._grant(credential)
        except Exception as error:  # noqa: BLE001 - a key that is elsewhere may raise anything
            return outcome.not_sent(self._endpoint.name, credential.kind, error, "key")
        form = {**grant, **self.asked}
        return self.redeem(
            credential.kind, form, key=credential.key, keep_waiting=credential.keep_waiting
        )

    def _read(
        self,
        given: GivenToken,
        refused: Credential | None = None,
        refusal: ReauthRequired | None = None,
    ) -> str:
        """The token that something else keeps.

        :param refused: the tokens that the server refused.
        :param refusal: what the server said.
        :raises TokenError: if there is none.
        """
        try:
            return given.read() if refused is None else given.read_another(refused)
        except Exception as error:  # noqa: BLE001 - a function may raise anything
            missing = outcome.not_given(self._endpoint.name, given.argument, error, refusal)
        raise missing from missing.__cause__

    def _presented(self, kind: str) -> Credential:
        """The tokens that something else keeps, as a credential of *kind*."""
        tokens = "\0".join(map(self._read, self._given))
        return Credential(kind, tokens, replaceable=any(given.is_kept for given in self._given))

    def replacement(self, refused: Credential, refusal: ReauthRequired) -> Credential | None:
        """Renewed tokens in place of those that the server refused; ``None`` if they are the same.

        :raises TokenError: if the keeper has no other token.

        :meta private:
        """
        # The server does not say which of them it refused.
        renewed = "\0".join(self._read(given, refused, refusal) for given in self._given)
        other = refused._replace(secret=renewed)
        return None if other == refused else other

    @property
    def oauth2_client(self) -> OAuth2Client:
        """The client that makes its requests.

        :meta private:
        """
        return self._client

    @property
    def asked(self) -> dict[str, str | list[str]]:
        """The parameters that say what the token is for.

        :meta private:
        """
        asked = {"scope": self._scope, "audience": self._audience, "resource": self._resource}
        return {name: value for name, value in asked.items() if value}

    def redeem(
        self,
        kind: str,
        form: Mapping[str, str | list[str]],
        *,
        key: str | None = None,
        **sending: Any,
    ) -> Token | TokenError:
        """Post a token request that presents a credential of *kind*.

        :param key: the key that is kept with the token, or was made for it.

        :meta private:
        """
        outcome = self._redeemed(kind, form, key, sending)
        if isinstance(outcome, errors.RefreshConfigError):
            self._recheck(outcome)
        return outcome

    def _recheck(self, error: RefreshConfigError) -> None:
        """Read the metadata again after *error*: it may have changed."""
        if self._issuer is None:
            return
        if error.is_local:
            self._issuer.doubt()  # there is no backoff
        else:
            # The endpoint may have moved, or wants the client to authenticate in another way.
            self._issuer.forget()

    def _redeemed(
        self,
        kind: str,
        form: Mapping[str, str | list[str]],
        key: str | None,
        sending: Mapping[str, Any],
    ) -> Token | TokenError:
        """The outcome of :meth:`redeem`, whose parameters these are."""
        end = time.monotonic() + self.deadline
        reached = self._token_endpoint(form)
        if not isinstance(reached, tuple):
            return reached
        # A refresh token may be bound to its key, whatever is configured or accepted by now.
        if key is None or not (kind == "refresh_token" or self._keeps(key)):
            made = self._made_key()
            if isinstance(made, errors.RefreshConfigError):
                return made
            key = made
        endpoint, how = reached
        outcome = self._client.request_token(
            endpoint,
            {**self._extra, **form},
            kind,
            secrets=self._extra.values(),
            key=self.prover(key),
            # Other processes wait for the deadline, and no longer.
            seconds=end - time.monotonic(),
            **sending,
            **how,
        )
        if key is not None and isinstance(outcome, Token):
            return outcome.replace(key=key)
        return outcome


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
            f"extra must not contain {', '.join(reserved)}: pass them as arguments of "
            "these names; grant_type is one of ClientCredentials only"
        )
    for name, value in extra.items():
        if not isinstance(value, str):
            raise TypeError(f"extra[{name!r}] must be a str, not {type(value).__name__}")
    return dict(extra)
