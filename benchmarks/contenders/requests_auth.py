"""requests-auth: an ``auth=`` that renews before a request, and a cache of its own in a file."""

import time
from typing import Any

import requests
from requests_auth import JsonTokenFileCache, OAuth2, OAuth2ResourceOwnerPasswordCredentials

from contenders import CLIENT, Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    expires_at = token.get("expires_at", time.time() + 1e9)
    case.save({_auth(case).state: [token["access_token"], expires_at, token["refresh_token"]]})


def sender(case: Case) -> Send:
    OAuth2.token_cache = JsonTokenFileCache(case.path)
    session = requests.Session()
    session.auth = _auth(case)
    return session.request


def _auth(case: Case) -> OAuth2ResourceOwnerPasswordCredentials:
    # Of those grants with refresh tokens it is the one without a browser.  By default it renews 30
    # seconds before the end: tokens of one second would never do.
    return OAuth2ResourceOwnerPasswordCredentials(
        case.token_url,
        "user",
        "password",
        session_auth=tuple(CLIENT.values()),
        early_expiry=0.001,
    )
