"""The client credentials grant (RFC 6749 section 4.4): a program that acts on its own behalf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.sources.providers import Provider

__all__ = ["ClientCredentials"]


class ClientCredentials(OAuth2Source):
    """Tokens for the client itself (RFC 6749 section 4.4).

    :param token_url: the token endpoint: ``https``, or ``http`` on this machine.
    :param client_id: the client's identifier.
    :param issuer: in place of *token_url*, the issuer of the authorization server: ``https``, or
        ``http`` on this machine.  Its metadata (RFC 8414, or OpenID Connect Discovery) names the
        endpoints.  It is read when a token is obtained, at most once a day in a process, and must
        name exactly this issuer, to the last slash.
    :param provider: in place of *token_url*, the name of a known provider, such as ``google``
        (:doc:`/providers/index`).  It brings the endpoints, the client authentication and other
        facts; an argument that you pass yourself takes precedence.
    :param domain: the host of the provider's server, for providers with several.
    :param tenant: the tenant or realm there.
    :param client_secret: its secret; ``None`` for a public client.
    :param client_auth: how the client authenticates: ``client_secret_basic`` (with the encoding of
        RFC 6749 section 2.3.1), ``client_secret_post``, ``client_secret_jwt``, ``none`` for a
        public client, ``tls_client_auth`` or ``self_signed_tls_client_auth`` with *cert*, or an
        object: :class:`~tokenadapter.PrivateKeyJWT`, :class:`~tokenadapter.ClientAssertion`, or
        one of your own (:class:`~tokenadapter.protocols.ClientAuth`).  By default the first of
        those that send *client_secret* or sign with it, and that the issuer supports;
        ``client_secret_basic`` without an issuer.
    :param scope: the scope to request (RFC 6749 section 3.3): a text separated by spaces, or
        several.
    :param resource: the API or APIs that the token is for (RFC 8707): absolute URIs without a
        fragment.
    :param audience: the audience of the token, for servers that take this instead of *resource*.
    :param extra: more parameters of the form.
    :param grant_type: what the server calls this grant, if not ``client_credentials``.
    :param revocation_url: where the server revokes tokens (RFC 7009), for ``revoke(token)``; by
        default what the metadata of the issuer names.
    :param dpop: bind the tokens to a key (RFC 9449).  ``True`` makes a key, which is stored with
        the token.  Or pass a key, as for :class:`~tokenadapter.Key`, which is not stored.
    :param timeout: seconds for the whole exchange, from connecting to the last byte; by default 10,
        or fewer if the *grace* of a refresh token is short.  Resolving the host's name may take
        longer; nothing is sent after that time.
    :param verify: whether to verify the server's certificate, or a path to CA certificates;
        by default what the environment says, as everywhere in requests.
    :param cert: a client certificate: a path, or those of certificate and key.
    :param proxies: proxy URLs by scheme, which take precedence over those in the environment.
    :param allow_http: accept plain ``http`` to another machine, although everyone on the way can
        then read the secrets.
    :raises UnsafeTarget: if the secrets would be sent in clear.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument makes no sense; the message says why.
    """

    grant_type: str = "client_credentials"
    spends = False

    def _take(self, known: Provider) -> None:
        super()._take(known)
        self.grant_type = known.get("grant_type", self.grant_type)

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        return [Credential("client", self.client_credential)]

    def _grant(self, credential: Credential) -> dict[str, str]:
        return {"grant_type": self.grant_type}
