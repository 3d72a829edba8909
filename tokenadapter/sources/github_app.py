"""A GitHub App: its key signs a JWT, which is exchanged for the token of an installation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenadapter.keys.key import Key
from tokenadapter.late_imports import late
from tokenadapter.sources import checked_text
from tokenadapter.sources.login import Login
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError
    from tokenadapter.keys.key import KeyLike
    from tokenadapter.sources import outcome
else:
    outcome = late("tokenadapter.sources.outcome")

__all__ = ["GitHubApp"]

# In seconds.  GitHub allows 600, and asks for a start in the past, since clocks differ.
_LIFETIME = 540
_BEFORE = 60
# How GitHub refuses an app.
_REFUSED = frozenset({401, 403, 404, 422})


class GitHubApp(Login):
    """Tokens of an installation of a GitHub App, which last an hour.

    ::

        GitHubApp("Iv23li…", "app.private-key.pem", 12345678)

    :param app_id: the app's client ID, or its number.
    :param key: the app's private key: as for :class:`~tokenadapter.PrivateKeyJWT`.
    :param installation: the number of the installation.
    :param repositories: the names of the repositories that the token is for; by default all that
        the installation can reach.
    :param permissions: the permissions of the token, such as ``{"contents": "read"}``; by default
        all of the installation.
    :param api_url: the API: of GitHub Enterprise, ``https://HOST/api/v3``.
    :param connection: ``timeout``, ``verify``, ``cert``, ``proxies`` and ``allow_http``, as for
        :class:`~tokenadapter.Login`.
    """

    def __init__(
        self,
        app_id: str | int,
        key: KeyLike,
        installation: str | int,
        *,
        repositories: Sequence[str] | None = None,
        permissions: Mapping[str, str] | None = None,
        api_url: str = "https://api.github.com",
        **connection: Any,
    ) -> None:
        app = checked_text("app_id", str(app_id))
        place = checked_text("installation", str(installation))
        if not place.isalnum():
            raise ValueError(f"installation must be a number, not {place!r:.100}")
        asked: dict[str, Any] = {}
        if repositories is not None:
            asked["repositories"] = list(repositories)
        if permissions is not None:
            asked["permissions"] = dict(permissions)
        super().__init__(
            f"{api_url.rstrip('/')}/app/installations/{place}/access_tokens",
            json=asked,
            headers={"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
            token="token",
            expires_in=None,
            expires_at="expires_at",
            **connection,
        )
        self._key = Key.of(key)
        self._app = app
        self.owner: Mapping[str, str] = {
            "grant": "github_app",
            "endpoint": self._endpoint.identity,
            "client": app,
            "user": place,
        }
        self.requested: Mapping[str, str] = {
            name: repr(sorted(value.items() if isinstance(value, dict) else value))
            for name, value in asked.items()
        }

    @property
    def client_credential(self) -> str:
        """The app, and a text that changes with its key."""
        return f"{self._app}\0{self._key.identity}"

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        return [Credential("app", self.client_credential)]

    def _present(self, credential: Credential) -> Token | TokenError:
        now = int(time.time())
        try:
            proof = self._key.jwt({"iat": now - _BEFORE, "exp": now + _LIFETIME, "iss": self._app})
        except Exception as error:  # noqa: BLE001 - a key that is elsewhere may raise anything
            return outcome.not_sent(self._endpoint.name, credential.kind, error, "key")
        headers = {**self._headers, "Authorization": f"Bearer {proof}"}
        return self._log_in(credential.kind, headers, {proof}, _REFUSED, is_timed=True)
