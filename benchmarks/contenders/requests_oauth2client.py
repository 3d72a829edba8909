"""requests_oauth2client: an ``auth=`` that renews before a request; saving is left to one."""

from typing import Any

import requests
from requests_oauth2client import BearerToken, OAuth2AccessTokenAuth, OAuth2Client

from contenders import CLIENT, Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    case.save(token)


class SavedAuth(OAuth2AccessTokenAuth):
    case: Case

    def renew_token(self) -> None:
        super().renew_token()
        self.case.save(
            {
                "access_token": self.token.access_token,
                "refresh_token": self.token.refresh_token,
                "expires_at": self.token.expires_at and self.token.expires_at.timestamp(),
            }
        )


def sender(case: Case) -> Send:
    from datetime import UTC, datetime

    token = case.load()
    expires_at = token.get("expires_at")
    session = requests.Session()
    # By default it renews 20 seconds before the end: tokens of one second would never do.
    session.auth = auth = SavedAuth(
        OAuth2Client(case.token_url, tuple(CLIENT.values()), testing=True),
        BearerToken(
            access_token=token["access_token"],
            refresh_token=token["refresh_token"],
            expires_at=expires_at and datetime.fromtimestamp(expires_at, UTC),
        ),
        leeway=0,
    )
    auth.case = case
    return session.request
