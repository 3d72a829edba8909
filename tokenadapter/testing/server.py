"""TokenServer: the authority and its API on the network, under the control of a script."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .assertions import Assertions, Proof
from .authority import Authority
from .dpop import Proofs
from .endpoints import Endpoints
from .faults import Faults
from .listener import HOST, Listener
from .logins import Logins
from .report import Request, Stats
from .service import Service

if TYPE_CHECKING:
    from .certificate import Certificate


def _wall() -> float:
    # Looked up each time: clock helpers put something else in its place.
    return time.time()


class TokenServer(Faults):
    """An OAuth token endpoint and a protected API on loopback, for tests.

    The context manager starts and stops the server, as :meth:`start` and :meth:`stop` do.  Any
    thread may use the object.  Pass other processes its URLs; a process that is forked while the
    server runs must not use the object.

    The token endpoint supports the grants ``client_credentials``, ``password``,
    ``refresh_token``, ``authorization_code`` (with PKCE), ``device_code``, ``jwt-bearer`` (with an
    assertion of a client) and ``token-exchange`` (for a token of this server), and the client
    authentications ``client_secret_basic``, ``client_secret_post``, ``client_secret_jwt``,
    ``private_key_jwt``, ``tls_client_auth``, ``self_signed_tls_client_auth`` and ``none``.
    :class:`~tokenadapter.testing.Browser` is the user who approves.  The answer to a login has an
    ID token (OpenID Connect) if the scope contains ``openid``.

    :attr:`issuer` has metadata (RFC 8414 and OpenID Connect Discovery), and so has every URL below
    it.  The API names its own metadata in each 401 (RFC 9728), which leads to the issuer, and
    clients may register themselves there (RFC 7591).

    There is also a login that is not OAuth, which takes ``username`` and ``password`` as JSON, as a
    form or by HTTP Basic.

    The API answers every method and every path under :attr:`api_url` with a JSON echo of the
    request: ``method``, ``path``, ``query`` (its text), ``headers`` (names in lower case; in place
    of credentials the first 8 hex digits of their SHA-256), ``length`` and ``sha256`` of the body,
    and ``count``, the number of API requests so far.  The path ``redirect?to=URL&status=302``
    answers with a redirect.  Without a valid token the API answers 401, with
    ``error="invalid_token"`` if the request had a token (RFC 6750 section 3.1).

    :param lifetime: how long an access token lives, in seconds; ``None``: until it is revoked,
        and responses have no ``expires_in``.
    :param refresh_lifetime: how long a refresh token lives, in seconds; ``None``: until it is
        revoked.  With *rotate*, each renewal returns a refresh token with a new lifetime, so a
        login ends if it is not used for that time.  Without *rotate*, a login ends that time after
        it began.
    :param rotate: whether each refresh returns a new refresh token; otherwise the first one stays
        valid, and responses to a refresh contain none.
    :param grace: how long after a rotation the previous refresh token is still accepted, in
        seconds.  It returns one more new refresh token, and those issued before stay valid, as in
        Auth0's rotation overlap period.  Spending any of them ends the grace of the old one.
    :param reuse_detection: whether a spent refresh token that is presented again revokes its whole
        family, including access tokens; otherwise it is only refused.
    :param clients: the clients' secrets by identifier, ``None`` for a client without a secret.  For
        a client with a key or a certificate, a mapping with the members of the public JWK, or with
        ``x5t#S256``, the thumbprint of the certificate, or with both.
    :param users: the users' passwords by name.
    :param header: the header in which the API expects the access token.
    :param scheme: the scheme before the access token; may be empty.
    :param https: use HTTPS, with a generated certificate that clients verify with
        :attr:`ca_file`.  Requires ``pip install 'tokenadapter[testing]'``.
    :param tls: use HTTPS with this server-side context.
    :param client_ca: accept client certificates that verify against this file of certificates,
        which may be the self-signed certificate of a client itself.  Tokens for such a client are
        bound to its certificate (RFC 8705 section 3).
    :param device_interval: how long a client has to wait between two polls for a device code, in
        seconds.
    :param device_lifetime: how long a device code is valid, in seconds.
    :param dpop: bind tokens to keys (RFC 9449): every token request and every API request needs a
        proof.  Refresh tokens of a client without a secret or key are bound, too.  Requires
        ``pip install 'tokenadapter[crypto]'``.
    :param dpop_nonces: whether proofs must have a nonce of the server.  With a number, there is
        another nonce after so many seconds.
    :param port: the port to listen on; 0 takes a free one.
    :param clock: returns the time in seconds, for expiry and the log; by default that of
        :func:`time.time`, which :class:`~tokenadapter.testing.FrozenClock` and the package
        ``time-machine`` move.
    :raises ImportError: if ``https`` is true and the package ``trustme`` is not installed, or
        ``dpop`` and ``cryptography``.
    :raises ValueError: if ``https`` and ``tls`` are both given.
    """

    def __init__(
        self,
        *,
        lifetime: float | None = 3600,
        refresh_lifetime: float | None = None,
        rotate: bool = True,
        grace: float = 0.0,
        reuse_detection: bool = True,
        clients: Mapping[str, Proof] | None = None,
        users: Mapping[str, str] | None = None,
        header: str = "Authorization",
        scheme: str = "Bearer",
        https: bool = False,
        tls: ssl.SSLContext | None = None,
        client_ca: str | None = None,
        dpop: bool = False,
        dpop_nonces: bool | float = False,
        port: int = 0,
        device_interval: float = 5.0,
        device_lifetime: float = 600.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        clock = clock or _wall
        if https and tls is not None:
            raise ValueError("pass either tls or https: https generates a certificate of its own")
        self._certificate: Certificate | None = None
        if https:
            from .certificate import Certificate

            self._certificate = Certificate()
            tls = self._certificate.context
        if client_ca is not None:
            if tls is None:
                raise ValueError(
                    "client_ca needs https or tls: without TLS no client has a certificate"
                )
            tls.load_verify_locations(client_ca)
            tls.verify_mode = ssl.CERT_OPTIONAL
        self._tls = tls
        self._clients = dict(clients or {"client": "secret"})
        self._users = users or {"user": "password"}
        self._logins = Logins(self._clients, clock, device_interval, device_lifetime)
        self._authority = Authority(
            clients=self._clients,
            users=self._users,
            lifetime=lifetime,
            refresh_lifetime=refresh_lifetime,
            rotate=rotate,
            grace=grace,
            reuse_detection=reuse_detection,
            clock=clock,
            logins=self._logins,
            issuer=lambda: self.url,
            assertions=Assertions(self._clients, clock, lambda: self._endpoints.audiences),
        )
        self._proofs = Proofs(clock, dpop_nonces) if dpop else None
        self._endpoints = Endpoints(self._authority, header, scheme, lambda: self.url, self._proofs)
        self._service = Service(self._endpoints, self._script, clock)
        self._state = self._service.state
        self._port = port  # a free one is chosen at the first start, and kept
        self._listener: Listener | None = None

    # Start, stop, and where it is

    def start(self) -> Self:
        """Listen.  After a :meth:`stop`, on the same port and with the same state.

        :raises RuntimeError: if the server is running.
        :raises OSError: if another program uses the port.
        """
        if self._listener is not None:
            raise RuntimeError("the server is running")
        self._service.stopping.clear()
        self._listener = Listener(self._port, self._service.serve, self._tls)
        self._port = self._listener.port
        return self

    def stop(self) -> None:
        """Close every connection and stop listening.  No thread and no socket is left."""
        if self._listener is not None:
            self._service.stopping.set()
            self._script.release_all()
            self._listener.close()
            self._listener = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL of the server itself, without a closing slash; no endpoint is there."""
        if not self._port:
            raise RuntimeError("the server has not been started")
        return f"{'https' if self._tls else 'http'}://{HOST}:{self._port}"

    @property
    def issuer(self) -> str:
        """The issuer: the server has metadata, by RFC 8414 and by OpenID Connect Discovery."""
        return self.url

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/token"

    @property
    def authorization_url(self) -> str:
        """The authorization endpoint (RFC 6749 section 3.1).  It requires PKCE with S256, and its
        answer has ``iss``, which is :attr:`url` (RFC 9207)."""
        return f"{self.url}/authorize"

    @property
    def device_authorization_url(self) -> str:
        """The device authorization endpoint (RFC 8628)."""
        return f"{self.url}/device_authorization"

    @property
    def login_url(self) -> str:
        """The endpoint of the login that is not OAuth, for :class:`tokenadapter.Login`."""
        return f"{self.url}/login"

    @property
    def revocation_url(self) -> str:
        """The revocation endpoint (RFC 7009)."""
        return f"{self.url}/revoke"

    @property
    def api_url(self) -> str:
        """The prefix of the protected API, with a closing slash."""
        return f"{self.url}/api/"

    @property
    def public_url(self) -> str:
        """The prefix of an API with the same answers that requires no token."""
        return f"{self.url}/public/"

    @property
    def ca_file(self) -> str:
        """The file with the certificate that clients must trust, for ``verify=``.

        :raises RuntimeError: if the server was not created with ``https=True``.
        """
        if self._certificate is None:
            raise RuntimeError(
                "the server has no certificate of its own: create it with https=True"
            )
        return self._certificate.ca_file

    # What a test changes

    @property
    def metadata(self) -> dict[str, Any]:
        """Members of the metadata that differ from the usual ones; ``None`` removes one.  May be
        changed."""
        return self._endpoints.metadata

    @property
    def resource_metadata(self) -> dict[str, Any]:
        """Members of the metadata of the API that differ from the usual ones; ``None`` removes one.
        May be changed."""
        return self._endpoints.resource_metadata

    @property
    def claims(self) -> dict[str, Any]:
        """Claims of ID tokens that differ from the usual ones; ``None`` removes one.  May be
        changed."""
        return self._authority.claims

    @property
    def latency(self) -> float:
        """How long token endpoint and login wait before they answer, after processing the request,
        in seconds.  May be set."""
        return self._service.latency.get("token", 0.0)

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._service.latency |= {"token": seconds, "login": seconds}

    @property
    def api_latency(self) -> float:
        """How long the API waits before it answers, in seconds.  May be set."""
        return self._service.latency.get("api", 0.0)

    @api_latency.setter
    def api_latency(self, seconds: float) -> None:
        self._service.latency |= {"api": seconds}

    def issue(
        self,
        scope: str | None = None,
        user: str | None = None,
        client: str | None = None,
        thumbprint: str | None = None,
    ) -> dict[str, Any]:
        """A token response as after a first login, as the start of a test.

        :param scope: the scope that the user grants; by default the response has no scope.
        :param user: the user who logs in; by default the first of the users.
        :param client: the client that gets the token; by default the first of the clients.
        :param thumbprint: that of the key that the token is bound to (RFC 7638).
        """
        with self._state, self._authority.binding_to(thumbprint):
            return self._authority.issue(
                client or next(iter(self._clients)), user or next(iter(self._users)), scope
            )

    def change_nonce(self) -> None:
        """Accept none of the DPoP nonces that clients know.

        :raises RuntimeError: if the server was not created with ``dpop=True``.
        """
        if self._proofs is None:
            raise RuntimeError("the server has no nonces: create it with dpop=True")
        with self._state:
            self._proofs.change_nonce()

    def approve_device(self, user_code: str | None = None, user: str | None = None) -> None:
        """Approve a login with a device code.

        :param user_code: the code that the client shows; by default the latest one.
        :param user: the user who logs in; by default the first of the users.
        :raises LookupError: if there is no such login.
        """
        with self._state:
            self._logins.decide(user_code, approved=True, user=user)

    def deny_device(self, user_code: str | None = None) -> None:
        """Deny a login with a device code.

        :param user_code: the code that the client shows; by default the latest one.
        :raises LookupError: if there is no such login.
        """
        with self._state:
            self._logins.decide(user_code, approved=False)

    def expire_now(self) -> None:
        """Expire every access token; refresh tokens stay valid."""
        with self._state:
            self._authority.expire_all()

    def revoke(self, token: str) -> None:
        """Revoke an access token, or a refresh token with its whole family.

        :raises LookupError: if the server does not know the token.
        """
        with self._state:
            if not self._authority.revoke(token):
                raise LookupError("not a token of this server")
            self._state.notify_all()

    def revoke_all(self) -> None:
        """Revoke every token."""
        with self._state:
            self._authority.revoke_all()
            self._state.notify_all()

    # What a test reads

    @property
    def stats(self) -> Stats:
        """The current counters."""
        with self._state:
            return Stats(
                token_requests=self._endpoints.token_requests,
                renewals=self._authority.renewals,
                refreshes=self._authority.refreshes,
                refusals=self._endpoints.refusals,
                failures=self._service.failures,
                reuse_detections=self._authority.reuse_detections,
                families_revoked=self._authority.families_revoked,
                api_requests=self._endpoints.api_requests,
                api_refused=self._endpoints.api_refused,
                proofs_refused=0 if self._proofs is None else self._proofs.refused,
            )

    @property
    def requests(self) -> tuple[Request, ...]:
        """The log of all requests, oldest first (the last 20 000)."""
        with self._state:
            return tuple(self._service.log)

    def wait_for(self, reached: Callable[[Stats], bool], timeout: float = 10.0) -> Stats:
        """Wait until the counters satisfy a condition, and return them.

        ::

            server.wait_for(lambda stats: stats.token_requests >= 3)

        :param timeout: how long to wait at most, in seconds.
        :raises TimeoutError: if the condition is not satisfied in time.
        """
        with self._state:
            if not self._state.wait_for(lambda: reached(self.stats), timeout):
                raise TimeoutError(f"not reached within {timeout} s: {self.stats}")
            return self.stats
