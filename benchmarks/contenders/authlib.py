"""Authlib: its session renews before a request, and hands the token to ``update_token``."""

from typing import Any

from authlib.integrations.requests_client import OAuth2Session

from contenders import CLIENT, Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    case.save(token)


def sender(case: Case) -> Send:
    def update_token(token: Any, refresh_token: Any = None, access_token: Any = None) -> None:
        case.save(token)

    # By default it renews a minute before the end: tokens of one second would never do.
    return OAuth2Session(
        **CLIENT,
        token=case.load(),
        token_endpoint=case.token_url,
        update_token=update_token,
        leeway=0,
    ).request
