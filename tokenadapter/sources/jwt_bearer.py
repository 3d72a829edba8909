"""The JWT bearer grant (RFC 7523 section 2.1): a signed assertion in place of a login."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from tokenadapter.keys.key import Key
from tokenadapter.late_imports import late
from tokenadapter.sources import checked_text, in_order, several
from tokenadapter.sources.assertions import LIFETIME, checked_lifetime, claims
from tokenadapter.sources.client_auth.none import Unnamed
from tokenadapter.sources.given_token import GivenToken
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter import spelling
    from tokenadapter.keys import private_file
    from tokenadapter.keys.key import KeyLike
    from tokenadapter.sources.given_token import Place
    from tokenadapter.sources.oauth2 import CommonOptions
else:
    private_file = late("tokenadapter.keys.private_file")
    spelling = late("tokenadapter.spelling")

__all__ = ["JWTBearer", "ServiceAccount"]

_GOOGLE = "https://oauth2.googleapis.com/token"


class JWTBearer(OAuth2Source):
    """Tokens for an assertion that this program signs, or that another one issues (RFC 7523).

    ::

        JWTBearer("https://login.salesforce.com/services/oauth2/token", "key.pem",
                  client_id="3MVG9…", subject="ada@example.com",
                  audience="https://login.salesforce.com")

    A token without ``expires_in``, such as one of Salesforce, is used until the API refuses it.

    :param token_url: the token endpoint; or pass *issuer*.
    :param key: signs the assertions: as for :class:`~tokenadapter.PrivateKeyJWT`.
    :param client_id: the client: the ``iss`` of the assertion.
    :param subject: the user or account that the token is for: the ``sub`` of the assertion; by
        default the client.
    :param audience: the ``aud`` of the assertion; by default the issuer, or else the token
        endpoint.
    :param alg: the algorithm, as for :class:`~tokenadapter.Key`.
    :param kid: the identifier of the key at the server.
    :param lifetime: seconds for which an assertion is valid.
    :param claims: more claims, or others in place of the usual ones; ``None`` removes one.
    :param assertion: in place of *key*, an assertion that another party issues: the path of a
        file, a function, or a keeper.
    :param options: as for :class:`~tokenadapter.ClientCredentials`.  Without *client_secret* and
        *client_auth*, the assertion alone says which client it is.
    """

    grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    spends = False

    def __init__(
        self,
        token_url: str | None = None,
        key: KeyLike | None = None,
        *,
        client_id: str,
        subject: str | None = None,
        audience: str | None = None,
        alg: str | None = None,
        kid: str | None = None,
        lifetime: float = LIFETIME,
        claims: Mapping[str, Any] | None = None,
        assertion: Place | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        if options.get("client_secret") is None and options.get("client_auth") is None:
            options["client_auth"] = Unnamed()
        super().__init__(token_url, client_id=client_id, **options)
        if (key is None) == (assertion is None):
            both = "are both missing" if key is None else "are both given"
            raise TypeError(f"key and assertion {both}: pass one of them")
        self._key = None if key is None else Key.of(key, alg, kid)
        if assertion is not None:
            self._given = [GivenToken("assertion", assertion)]
        self._subject = client_id if subject is None else checked_text("subject", subject)
        self._to = audience or options.get("issuer") or self._endpoint.url
        self._lifetime = checked_lifetime(lifetime)
        self._claims = dict(claims or {})
        if subject is not None:
            self.owner: Mapping[str, str] = {**self.owner, "user": subject}

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        # A refused assertion of another party is presented no more; one of ours is always new.
        if self._given:
            return [self._presented("assertion")]
        identity = self._key.identity if self._key is not None else ""
        return [Credential("assertion", f"{identity}\0{self._subject}")]

    def _grant(self, credential: Credential) -> dict[str, str]:
        assertion = credential.secret if self._key is None else self._signed(self._key)
        return {"grant_type": self.grant_type, "assertion": assertion}

    def _signed(self, key: Key) -> str:
        usual = claims(self._client.client_id, self._subject, self._to, self._lifetime)
        said = {**usual, **self._claims}
        return key.jwt({name: value for name, value in said.items() if value is not None})


class ServiceAccount(JWTBearer):
    """A service account of Google, from the JSON file of its key.

    ::

        ServiceAccount.from_file("service-account.json",
                                 scope="https://www.googleapis.com/auth/devstorage.read_only")

    Other arguments than those of :meth:`from_file` are those of :class:`JWTBearer`.
    """

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        scope: str | Sequence[str],
        subject: str | None = None,
        **options: Any,
    ) -> Self:
        """The service account whose key is in the file *path*.

        :param scope: the scope to request: a text separated by spaces, or several.
        :param subject: the user to act for, if the account has domain-wide delegation.
        :param options: as for :class:`JWTBearer`.
        :raises ValueError: if the file cannot be read, others can read it, or it is no such file.
        """
        text = os.fspath(path)
        path = os.path.abspath(os.path.expanduser(text))
        email, token_url = _account(path, spelling.shown_path(text))
        scope = " ".join(several("scope", scope))
        # Google wants the scope in the assertion, and a subject only for another user.
        said = {"scope": scope, "sub": subject}
        made = cls(token_url, path, client_id=email, subject=subject, claims=said, **options)
        made.requested = {"scope": in_order(scope.split())}
        return made


def _account(path: str, shown: str) -> tuple[str, str]:
    """The name and the token endpoint of the service account whose key is in a file.

    :param shown: the path for messages.
    :raises ValueError: if it is not.
    """
    try:
        found = _members(path)
    except OSError as error:
        raise ValueError(f"path: {shown} cannot be read: {error.strerror}") from None
    if found is None:
        raise ValueError(f"path: {shown} is not the JSON file of a service account's key")
    return found


def _members(path: str) -> tuple[str, str] | None:
    # Its frame, which has the key, ends before anything is raised.
    try:
        said = json.loads(private_file.read_private(path))
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    if not isinstance(said, dict) or said.get("type") != "service_account":
        return None
    email, url = said.get("client_email"), said.get("token_uri", _GOOGLE)
    return (email, url) if isinstance(email, str) and isinstance(url, str) else None
