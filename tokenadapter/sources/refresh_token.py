"""The refresh token grant (RFC 6749 section 6): a user who has logged in before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from tokenadapter.sources import checked_text
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.sources.oauth2 import OAuth2Options
    from tokenadapter.sources.providers import Provider

__all__ = ["RefreshToken"]


class RefreshToken(OAuth2Source):
    """Tokens for a user who has logged in (RFC 6749 section 6).

    The refresh token in the store is presented first, then *refresh_token*, which is presented only
    once if the server replaces it.  Without either, call :func:`tokenadapter.login`, or pass a
    token to :meth:`TokenKeeper.adopt() <tokenadapter.TokenKeeper.adopt>`.

    :param token_url: the token endpoint; or pass *issuer* or *provider*.
    :param refresh_token: the first refresh token, from a login somewhere else.
    :param account: a name for the user: a record of another user is refused.  Without it, a record
        is refused that began with another refresh token, unless its grant is dead.
    :param grace: for how many seconds the server accepts a refresh token once more after it was
        replaced, if the server documents that: then a lost answer does no harm.  The timeout must
        be less than half of it, and is by default.
    :param login_lifetime: after how many seconds the server ends a login, however often the token
        is renewed.  ``tokenadapter check`` and ``status`` then warn in time.
    :param options: as for :class:`~tokenadapter.ClientCredentials`.
    """

    grant_type = "refresh_token"

    def __init__(
        self,
        token_url: str | None = None,
        refresh_token: str | None = None,
        *,
        account: str | None = None,
        grace: float | None = None,
        login_lifetime: float | None = None,
        **options: Unpack[OAuth2Options],
    ) -> None:
        if grace is not None:
            self.grace: float = grace
        super().__init__(token_url, **options)
        self._refresh_token = refresh_token
        self.begins_with_login: bool = refresh_token is None
        if refresh_token is not None:
            checked_text("refresh_token", refresh_token)
        if login_lifetime is not None:
            if not login_lifetime > 0:
                raise ValueError(
                    f"login_lifetime must be a number of seconds above 0, not {login_lifetime!r}"
                )
            self.login_lifetime = login_lifetime
        if account is not None:
            self.owner: Mapping[str, str] = {**self.owner, "user": account}

    def seeds(self) -> Iterator[str]:
        """The configured first refresh token."""
        if self._refresh_token is not None:
            yield self._refresh_token

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        stored = previous.refresh_token if previous is not None else None
        return [
            Credential(
                "refresh_token",
                secret,
                single_use=True,
                first=secret == self._refresh_token,
                refusal_is_final=True,
            )
            for secret in dict.fromkeys((stored, self._refresh_token))
            if secret is not None
        ]

    def _take(self, known: Provider) -> None:
        super()._take(known)
        if "grace" not in vars(self):
            self.grace = known.get("grace", self.grace)
        self.login_lifetime: float | None = known.get("login_lifetime")
        self.login_settings: Mapping[str, str] = known.login_settings

    def _grant(self, credential: Credential) -> dict[str, str]:
        return {"grant_type": "refresh_token", "refresh_token": credential.secret}
