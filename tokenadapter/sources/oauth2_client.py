"""An OAuth client: it posts forms to the endpoints of its server, and authenticates each time.

The grants and revocation use it, and so can whatever else posts a form as a client: device
authorization (RFC 8628), pushed authorization requests (RFC 9126).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tokenadapter.late_imports import late
from tokenadapter.sources import checked_text
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.token import Token
from tokenadapter.values import never

if TYPE_CHECKING:
    from tokenadapter import spelling
    from tokenadapter.errors import TokenError
    from tokenadapter.http import dpop
    from tokenadapter.keys.key import Key
    from tokenadapter.protocols import ClientAuth
    from tokenadapter.sources import client_auth, outcome, reply
else:
    client_auth = late("tokenadapter.sources.client_auth")
    dpop = late("tokenadapter.http.dpop")
    outcome = late("tokenadapter.sources.outcome")
    reply = late("tokenadapter.sources.reply")
    spelling = late("tokenadapter.spelling")

__all__ = ["OAuth2Client"]

# The names in client_auth.BY_NAME.  Making a source does not import the objects behind them.
_WITH_SECRET = ("client_secret_basic", "client_secret_post", "client_secret_jwt")
_BY_CERTIFICATE = ("tls_client_auth", "self_signed_tls_client_auth")
_NAMES = (*_WITH_SECRET, "none", *_BY_CERTIFICATE)
# Parameters of a form whose values are masked in messages.
_SECRET = frozenset(
    {
        "actor_token",
        "assertion",
        "code",
        "code_verifier",
        "device_code",
        "password",
        "refresh_token",
        "subject_token",
        "token",
    }
)


class OAuth2Client:
    """A client (RFC 6749 section 2), and how it reaches its authorization server.

    :param client_id: the client's identifier.
    :param client_secret: its secret; ``None`` if it has none.
    :param auth: how the client authenticates: one of the names in :data:`~tokenadapter.sources.\
client_auth.BY_NAME`, or an object (:class:`~tokenadapter.protocols.ClientAuth`).  By default
        ``client_secret_basic`` with a secret, unless the server's metadata says otherwise.
    :param connection: as for :class:`~tokenadapter.sources.endpoint.Endpoint`.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument makes no sense.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str | None = None,
        auth: str | ClientAuth | None = None,
        **connection: Any,
    ) -> None:
        self.client_id: str = checked_text("client_id", client_id)
        if client_secret is not None:
            checked_text("client_secret", client_secret, may_be_empty=True)
        self._secret = client_secret
        self._is_chosen = auth is not None
        self._auth = _checked_auth("client_secret_basic" if auth is None else auth, client_secret)
        if self._auth in _BY_CERTIFICATE and not connection.get("cert"):
            raise ValueError(f"client_auth={self._auth!r} needs cert, the client certificate")
        self._connection = connection

    def __repr__(self) -> str:
        return f"<OAuth2Client {self.client_id!r}>"

    @property
    def credential(self) -> str:
        """What authenticates the client: it changes with the identifier, the way, and the secret,
        key or certificate.

        A key in a file is read here, and not before.
        """
        if not isinstance(self._auth, str):
            way, proof = type(self._auth).__qualname__, self._auth.credential
        elif self._auth in _BY_CERTIFICATE:
            way, proof = self._auth, repr(self._connection["cert"])
        else:
            way, proof = self._auth, self._secret or ""
        return "\0".join((way, self.client_id, proof))

    def endpoint(self, argument: str, url: str) -> Endpoint:
        """An endpoint of the client's server.

        :param argument: the argument that the URL was passed as, for messages.
        :raises UnsafeTarget: if the secrets would be sent in clear.
        :raises ValueError: if it is no URL of an endpoint.
        """
        return Endpoint(argument, url, **self._connection)

    def secrets_in(self, form: Mapping[str, str | list[str]]) -> list[str]:
        """What must not be shown: the secrets in *form*, and the client's."""
        named = [str(value) for name, value in form.items() if name in _SECRET]
        return [*named, self._secret] if self._secret else named

    def auth_for(self, supported: Collection[str]) -> str | ClientAuth | None:
        """How to authenticate at a server that supports the ways named in *supported*.

        :returns: ``None`` if the client has a secret that none of these ways sends, and was not
            told another way.
        """
        if self._is_chosen or self._secret is None:
            return self._auth
        return next((way for way in _WITH_SECRET if way in supported), None)

    def request_token(
        self, endpoint: Endpoint, form: Mapping[str, str | list[str]], presents: str, **sending: Any
    ) -> Token | TokenError:
        """Post a token request (RFC 6749 section 3.2), and read its answer.

        The parameters are those of :meth:`post`.

        :returns: the token, or the error where there is none, as in
            :mod:`tokenadapter.sources.outcome`.
        """
        requested_at = time.time()
        attempt, answer = self.post(endpoint, form, presents, **sending)
        if isinstance(answer, reply.NoReply):
            return outcome.no_answer(attempt, answer)
        # Some servers answer 200 with an error.
        if not 200 <= answer.status < 300 or (answer.error and "access_token" not in answer.fields):
            return outcome.no_token(attempt, answer)
        try:
            return Token.from_response(answer.fields, requested_at=requested_at)
        except ValueError as error:
            return outcome.unreadable(attempt, answer, str(error))

    def post(
        self,
        endpoint: Endpoint,
        form: Mapping[str, str | list[str]],
        presents: str,
        *,
        key: Key | None = None,
        seconds: float | None = None,
        **sending: Any,
    ) -> tuple[outcome.Attempt, reply.Reply | reply.NoReply]:
        """Post *form* as this client.

        If the server refuses the proof, it has done nothing else with the request, and the request
        is sent once more with a new one.

        :param form: the parameters; one with a list is sent several times.
        :param presents: the kind of credential that the form presents, for messages.
        :param secrets: values to mask in messages, beyond those that are secret by their name.
        :param keep_waiting: called if the request was sent and the time is over, and then every
            second: whether to go on waiting for the answer.
        :param auth: how to authenticate, as :meth:`auth_for` says.
        :param key: what a proof is made with (RFC 9449).
        :param seconds: what is left of the timeout.
        """
        end = time.monotonic() + (endpoint.timeout if seconds is None else seconds)
        posted = self._post(endpoint, form, presents, key, end, **sending)
        answer = posted[1]
        if (
            key is None
            or isinstance(answer, reply.NoReply)
            # After any other answer, the credential may be spent.
            or not 400 <= answer.status < 500
            or not dpop.needs_new_proof(answer.headers, answer.error)
        ):
            return posted
        return self._post(endpoint, form, presents, key, end, **sending)

    def _post(
        self,
        endpoint: Endpoint,
        form: Mapping[str, str | list[str]],
        presents: str,
        key: Key | None,
        end: float,
        *,
        secrets: Collection[str] = (),
        keep_waiting: Callable[[], bool] = never,
        auth: str | ClientAuth | None = None,
    ) -> tuple[outcome.Attempt, reply.Reply | reply.NoReply]:
        """Post *form* in one request, until *end* by the monotonic clock."""
        filled = dict(form)
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        way = self._auth if auth is None else auth
        prover = client_auth.BY_NAME[way](self._secret) if isinstance(way, str) else way
        attempt = outcome.Attempt(
            endpoint.name,
            presents,
            {*endpoint.secrets, *secrets, *self.secrets_in(form)},
            has_proof=bool(self._secret) or way not in (*_WITH_SECRET, "none"),
        )
        try:
            proofs = prover.authenticate(self.client_id, endpoint.url, filled, headers)
        except Exception as error:  # noqa: BLE001 - a signer or a function may raise anything
            return attempt, outcome.unproven(error, "client_auth")
        is_timed = not filled.keys().isdisjoint(("assertion", "client_assertion"))
        attempt = attempt._replace(is_timed=is_timed)
        attempt.secrets.update([proofs] if isinstance(proofs, str) else proofs)
        body = urlencode(filled, doseq=True).encode()
        proof: dpop.Proof | None = None
        if key is not None:
            try:
                proof = dpop.Proof(key, "POST", endpoint.url)
            except Exception as error:  # noqa: BLE001 - a key that is elsewhere may raise anything
                return attempt, outcome.unproven(error, "dpop")
            headers["DPoP"] = proof.text
        left = end - time.monotonic()
        if left <= 0:
            # Other processes no longer wait for this one, and may have presented the credential.
            return attempt, reply.NoReply(
                f"authenticating the client took the total timeout of {endpoint.timeout:g} s",
                sent=False,
            )
        answer = endpoint.exchange("POST", headers, body, keep_waiting, left)
        if proof is not None and isinstance(answer, reply.Reply):
            proof.learn(answer.headers, answer.error)
        return attempt, answer


def _checked_auth(auth: str | ClientAuth, client_secret: str | None) -> str | ClientAuth:
    """How to authenticate: ``none`` for a client without a secret, unless *auth* differs.

    :raises TypeError: if *auth* cannot authenticate.
    :raises ValueError: if there is no such way, or the secret and the way contradict each other.
    """
    if not isinstance(auth, str):
        is_usable = callable(getattr(auth, "authenticate", None)) and not isinstance(auth, type)
        # A property is not asked here: it may read a file.
        has_credential = isinstance(getattr(type(auth), "credential", None), property) or (
            isinstance(getattr(auth, "credential", None), str)
        )
        if not is_usable or not has_credential:
            raise TypeError(
                f"client_auth must be one of {', '.join(_NAMES)}, or an object with a text "
                f"credential and a method authenticate(), not {spelling.kind_of(auth)}"
            )
        if client_secret is not None:
            raise ValueError("client_auth is an object: give it the client_secret, if it needs one")
        return auth
    if auth == "private_key_jwt":
        raise ValueError("client_auth='private_key_jwt' needs a key: pass PrivateKeyJWT(key)")
    if auth not in _NAMES:
        raise ValueError(f"client_auth must be one of {', '.join(_NAMES)}, not {auth!r}")
    if client_secret is None:
        if auth in ("client_secret_post", "client_secret_jwt"):
            raise ValueError(f"client_auth={auth!r} needs a client_secret")
        return "none" if auth == "client_secret_basic" else auth
    if auth not in _WITH_SECRET:
        raise ValueError(f"client_auth={auth!r} sends no client_secret: remove one of the two")
    return auth
