"""msal: gives the text of a token, which it renews before; the request is the program's own."""

import json
from pathlib import Path
from typing import Any

import requests
from msal import ConfidentialClientApplication, SerializableTokenCache

from contenders import CLIENT, Case, Send

AUTHORITY = "https://id.example.com/tenant"
SCOPES = ["read"]
# {"uid": "user", "utid": "tenant"}: Microsoft's servers say in each answer who the user is.
WHOSE = {"client_info": "eyJ1aWQiOiAidXNlciIsICJ1dGlkIjogInRlbmFudCJ9"}


def store(case: Case, token: dict[str, Any]) -> None:
    cache = SerializableTokenCache()
    cache.add(
        {
            "client_id": CLIENT["client_id"],
            "scope": SCOPES,
            "token_endpoint": f"{AUTHORITY}/token",
            "grant_type": "authorization_code",
            "response": {"expires_in": 10**9, **token, **WHOSE},
        }
    )
    save(case, cache)


def sender(case: Case) -> Send:
    cache = SerializableTokenCache()
    cache.deserialize(Path(case.path).read_text(encoding="utf-8"))
    app = ConfidentialClientApplication(
        CLIENT["client_id"],
        CLIENT["client_secret"],
        oidc_authority=AUTHORITY,
        token_cache=cache,
        http_client=Provider(case.token_url),
    )
    [account] = app.get_accounts()
    session = requests.Session()

    def send(method: str, url: str, **kwargs: Any) -> requests.Response:
        token = app.acquire_token_silent(SCOPES, account)
        save(case, cache)
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        return session.request(method, url, headers=headers, **kwargs)

    return send


def save(case: Case, cache: SerializableTokenCache) -> None:
    if cache.has_state_changed:
        Path(case.path).write_text(cache.serialize(), encoding="utf-8")


class Provider:
    """The server as msal knows it: https, discovery, scopes, and the user in each answer."""

    def __init__(self, token_url: str) -> None:
        self._token_url = token_url
        self._session = requests.Session()

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        names = ("authorization_endpoint", "token_endpoint")
        return answer({"issuer": AUTHORITY} | dict.fromkeys(names, f"{AUTHORITY}/token"))

    def post(self, url: str, *, data: dict[str, str], **kwargs: Any) -> requests.Response:
        del data["scope"]
        response = self._session.post(self._token_url, data=data, **kwargs)
        return answer(response.json() | WHOSE) if response.ok else response

    def close(self) -> None:
        self._session.close()


def answer(content: dict[str, str]) -> requests.Response:
    response = requests.Response()
    response.status_code = 200
    response._content = json.dumps(content).encode()
    return response
