"""google-auth: its session renews before a request and on a 401; saving is left to one."""

from datetime import UTC, datetime
from typing import Any

from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials

from contenders import CLIENT, Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    case.save(token)


class SavedCredentials(Credentials):
    case: Case

    def refresh(self, request: Any) -> None:
        super().refresh(request)
        # It has the time in UTC, and does not say so.
        expires_at = self.expiry.replace(tzinfo=UTC).timestamp() if self.expiry else None
        self.case.save(
            {
                "access_token": self.token,
                "refresh_token": self.refresh_token,
                "expires_at": expires_at,
            }
        )


def sender(case: Case) -> Send:
    token = case.load()
    expires_at = token.get("expires_at")
    credentials = SavedCredentials(
        token["access_token"],
        refresh_token=token["refresh_token"],
        token_uri=case.token_url,
        expiry=expires_at and datetime.fromtimestamp(expires_at, UTC).replace(tzinfo=None),
        **CLIENT,
    )
    credentials.case = case
    return AuthorizedSession(credentials).request
