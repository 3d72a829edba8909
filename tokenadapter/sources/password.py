"""The resource owner password credentials grant (RFC 6749 section 4.3), for old servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from tokenadapter.sources import checked_text
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.sources.oauth2 import OAuth2Options

__all__ = ["Password"]


class Password(OAuth2Source):
    """Tokens for a user whose password the program knows (RFC 6749 section 4.3).

    RFC 9700 section 2.4 forbids this grant: use it only where the server has no other.  The refresh
    token is presented first, and the password if there is none or the server refused it.

    :param token_url: the token endpoint; or pass *issuer* or *provider*.
    :param username: the user's name.
    :param password: the user's password.
    :param grace: for how many seconds the server accepts a refresh token once more after it was
        replaced.
    :param options: as for :class:`~tokenadapter.ClientCredentials`.
    """

    grant_type = "password"

    def __init__(
        self,
        token_url: str | None = None,
        username: str = "",
        password: str = "",
        *,
        grace: float = 0.0,
        **options: Unpack[OAuth2Options],
    ) -> None:
        self.grace = grace
        super().__init__(token_url, **options)
        self._username = checked_text("username", username)
        self._password = checked_text("password", password)
        self.owner: Mapping[str, str] = {**self.owner, "user": username}

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        password = f"{self._username}\0{self._password}"
        login = Credential("password", password, refusal_is_final=True)
        if previous is None or previous.refresh_token is None:
            return [login]
        stored = previous.refresh_token
        refresh = Credential("refresh_token", stored, single_use=True, refusal_is_final=True)
        return [refresh, login]

    def _grant(self, credential: Credential) -> dict[str, str]:
        if credential.kind == "refresh_token":
            return {"grant_type": "refresh_token", "refresh_token": credential.secret}
        return {
            "grant_type": "password",
            "username": self._username,
            "password": self._password,
        }
