"""The refresh token grant (RFC 6749 section 6): a user who has logged in some time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.sources.source import checked_text
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.sources.options import OAuth2Options

__all__ = ["RefreshToken"]


class RefreshToken(OAuth2Source):
    """Tokens that continue a grant which a user once gave (RFC 6749 section 6).

    The refresh token in the store goes first, then the given one, which is presented only once if
    the server replaces it.  Without either, hand a token to ``TokenKeeper.adopt()``.

    :param token_url: the token endpoint.
    :param refresh_token: the first refresh token, from a login somewhere else.
    :param account: a name for the user whose grant it is, so that the record of another user's is
        refused.  Without it, a record is refused that began with another refresh token than the
        given one, unless its grant is dead.
    :param grace: for how many seconds the server takes a refresh token once more after it was
        replaced, if it declares that: then an answer that was lost is no loss.
    :param options: as for :class:`~tokenadapter.ClientCredentials`.
    """

    grant_type = "refresh_token"

    def __init__(
        self,
        token_url: str,
        refresh_token: str | None = None,
        *,
        account: str | None = None,
        grace: float = 0.0,
        **options: Unpack[OAuth2Options],
    ) -> None:
        super().__init__(token_url, **options)
        self._refresh_token = refresh_token
        if refresh_token is not None:
            checked_text("refresh_token", refresh_token)
        self.grace = grace
        if account is not None:
            self.owner: Mapping[str, str] = {**self.owner, "user": account}

    def seeds(self) -> Iterator[str]:
        """What identifies the first refresh token: itself."""
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

    def _grant(self, credential: Credential) -> dict[str, str]:
        return {"grant_type": "refresh_token", "refresh_token": credential.secret}
