"""Token exchange (RFC 8693): a token of one party for a token of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from tokenadapter.sources.client_auth.none import Unnamed
from tokenadapter.sources.given_token import GivenToken
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.sources.given_token import Place
    from tokenadapter.sources.oauth2 import CommonOptions

__all__ = ["TokenExchange"]

_TYPE = "urn:ietf:params:oauth:token-type:"
# In the place of a client that has no identifier.
_NO_CLIENT = "no client"


class TokenExchange(OAuth2Source):
    """Tokens in exchange for a token that something else keeps fresh (RFC 8693).

    ::

        TokenExchange("https://id.example.com/token", subject_token=keeper, client_id="gateway",
                      client_secret=secret, audience="orders")

    With *subject_token* alone, the new token is the subject's: impersonation.  With *actor_token*
    as well, the new token says that the actor acts for the subject: delegation (section 1.1).

    :param token_url: the token endpoint; or pass *issuer*.
    :param subject_token: the token of the party to act for: the path of a file, a function that
        returns the token, or a keeper.  If the server refuses the token of a keeper, the keeper
        renews it, and the exchange is repeated once.
    :param subject_token_type: its type, in full or by its last part: ``access_token``, ``jwt``,
        ``id_token``, ``refresh_token``, ``saml2`` (section 3).
    :param actor_token: the token of the party that acts, if the new token has to name it.
    :param actor_token_type: its type.
    :param requested_token_type: the type of the token to obtain; by default the server chooses.
    :param client_id: the client's identifier, if the server requires one.
    :param audience: the name of the service that the token is for.
    :param account: a name for the subject: a record of another one is refused.
    :param options: as for :class:`~tokenadapter.ClientCredentials`.
    :raises ValueError: if a token is passed in place of the path of its file.
    """

    grant_type = "urn:ietf:params:oauth:grant-type:token-exchange"
    spends = False

    def __init__(
        self,
        token_url: str | None = None,
        *,
        subject_token: Place,
        subject_token_type: str = "access_token",
        actor_token: Place | None = None,
        actor_token_type: str = "access_token",
        requested_token_type: str | None = None,
        client_id: str | None = None,
        audience: str | None = None,
        account: str | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        if client_id is None and options.get("client_secret") is not None:
            raise TypeError("client_id is missing: the client_secret belongs to a client")
        if client_id is None and options.get("client_auth") is None:
            options["client_auth"] = Unnamed()
        super().__init__(token_url, client_id=client_id or _NO_CLIENT, audience=audience, **options)
        if account is not None:
            self.owner: Mapping[str, str] = {**self.owner, "user": account}
        self._given = [GivenToken("subject_token", subject_token)]
        self._types = {"subject_token_type": _in_full(subject_token_type)}
        if actor_token is not None:
            self._given.append(GivenToken("actor_token", actor_token))
            self._types["actor_token_type"] = _in_full(actor_token_type)
        if requested_token_type is not None:
            self._types["requested_token_type"] = _in_full(requested_token_type)

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        return [self._presented("subject_token")]

    def _grant(self, credential: Credential) -> dict[str, str]:
        subject, _, actor = credential.secret.partition("\0")
        form = {"grant_type": self.grant_type, "subject_token": subject, **self._types}
        return {**form, "actor_token": actor} if actor else form


def _in_full(kind: str) -> str:
    """The identifier of a token type."""
    return kind if ":" in kind else f"{_TYPE}{kind}"
