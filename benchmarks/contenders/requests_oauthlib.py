"""requests-oauthlib: its session renews before a request, and hands on the token to be saved."""

from typing import Any

from requests_oauthlib import OAuth2Session

from contenders import CLIENT, Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    case.save(token)


def sender(case: Case) -> Send:
    return OAuth2Session(
        CLIENT["client_id"],
        token=case.load(),
        auto_refresh_url=case.token_url,
        auto_refresh_kwargs=CLIENT,
        token_updater=case.save,
    ).request
