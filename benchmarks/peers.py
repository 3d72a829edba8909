"""32 threads share an expired token: how many token requests, how many requests that succeed?

The server rotates refresh tokens and revokes the grant when a spent one is shown again.  Each
library is used as its documentation says.  A library that is not installed is left out::

    pip install Authlib google-auth requests-oauthlib requests_oauth2client
"""

from __future__ import annotations

import datetime
import os
import threading
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import requests

from tokenadapter import RefreshToken, TokenAdapter
from tokenadapter.testing import TokenServer

THREADS = 32
CLIENT = {"client_id": "client", "client_secret": "secret"}
Get = Callable[[str], requests.Response]


def tokenadapter(server: TokenServer, token: dict[str, Any]) -> Get:
    session = requests.Session()
    adapter = TokenAdapter(server.api_url, RefreshToken(server.token_url, **CLIENT))
    adapter.mount(session).keeper.adopt(token)
    return session.get


def authlib(server: TokenServer, token: dict[str, Any]) -> Get:
    from authlib.integrations.requests_client import OAuth2Session

    return OAuth2Session(*CLIENT.values(), token=token, token_endpoint=server.token_url).get


def google_auth(server: TokenServer, token: dict[str, Any]) -> Get:
    from google.auth.transport.requests import AuthorizedSession
    from google.oauth2.credentials import Credentials

    credentials = Credentials(
        token["access_token"],
        refresh_token=token["refresh_token"],
        token_uri=server.token_url,
        # It wants the time in UTC, without saying so.
        expiry=datetime.datetime.fromtimestamp(token["expires_at"], datetime.UTC).replace(
            tzinfo=None
        ),
        **CLIENT,
    )
    return AuthorizedSession(credentials).get


def requests_oauthlib(server: TokenServer, token: dict[str, Any]) -> Get:
    from requests_oauthlib import OAuth2Session

    return OAuth2Session(
        CLIENT["client_id"],
        token=token,
        auto_refresh_url=server.token_url,
        auto_refresh_kwargs=CLIENT,
        token_updater=lambda new: None,
    ).get


def requests_oauth2client(server: TokenServer, token: dict[str, Any]) -> Get:
    from requests_oauth2client import BearerToken, OAuth2AccessTokenAuth, OAuth2Client

    client = OAuth2Client(server.token_url, tuple(CLIENT.values()), testing=True)
    session = requests.Session()
    session.auth = OAuth2AccessTokenAuth(
        client=client,
        token=BearerToken(
            access_token=token["access_token"], refresh_token=token["refresh_token"], expires_in=-60
        ),
    )
    return session.get


def herd(contender: Callable[[TokenServer, dict[str, Any]], Get]) -> str:
    with TokenServer() as server:
        server.latency = 0.05
        token = server.issue() | {"expires_at": time.time() - 60, "expires_in": -60}
        server.expire_now()
        get = contender(server, token)
        start = threading.Barrier(THREADS)
        successes = []

        def work() -> None:
            start.wait()
            try:
                successes.append(get(server.api_url).ok)
            except Exception:  # noqa: BLE001 - each has errors of its own
                successes.append(False)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = server.stats
        user = "logged out" if stats.families_revoked else "stays logged in"
        return f"{stats.token_requests:14}  {sum(successes):9}  {user}"


def main() -> None:
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    warnings.simplefilter("ignore")
    print(f"{'':30}  token requests  successes  user")
    for contender, package in [
        (tokenadapter, "tokenadapter"),
        (authlib, "Authlib"),
        (google_auth, "google-auth"),
        (requests_oauthlib, "requests-oauthlib"),
        (requests_oauth2client, "requests_oauth2client"),
    ]:
        try:
            print(f"{package + ' ' + version(package):30}  {herd(contender)}")
        except ImportError:
            print(f"{package:30}  is not installed")


if __name__ == "__main__":
    main()
