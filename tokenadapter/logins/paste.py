"""A login for a shell without a browser: the person copies an address out, and the answer in."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tokenadapter import errors
from tokenadapter.logins.authorization import (
    DEFAULT_REDIRECT,
    Authorization,
    Pending,
    single_values,
)
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token

__all__ = ["log_in"]


def log_in(
    source: OAuth2Source,
    settings: Mapping[str, str],
    show: Callable[[str], object],
    adopt: Callable[[Token, str | None], Token],
) -> Token:
    """Show the address, read what the person pastes, and adopt the token.

    The pasted text is read without echo where standard input is a terminal.

    :raises TokenError: if the login did not succeed.
    :raises ValueError: if a URL makes no sense.
    """
    redirect_uri = settings.get("redirect_uri", DEFAULT_REDIRECT)
    request = Authorization(source, settings, redirect_uri)
    or_code = "" if "iss" in settings else ", or the code that the page shows"
    show(
        f"Open this address in a browser on any machine, and log in:\n\n{request.url}\n\n"
        f"The browser then goes to an address that begins with {redirect_uri}, and may fail to "
        f"show a page. Copy the whole address{or_code}."
    )
    if sys.stdin.isatty():
        pasted = getpass.getpass("Paste it here (not shown): ")
    else:
        pasted = sys.stdin.readline()
    pending = request.pending
    return adopt(pending.token(source, _answer(pending, settings, pasted.strip())), pending.nonce)


def _answer(pending: Pending, settings: Mapping[str, str], pasted: str) -> Mapping[str, str]:
    """The answer in *pasted*: an address, its query, or the code alone."""
    try:
        query = urlsplit(pasted).query
    except ValueError:
        query = ""
    if not query and "=" in pasted and "state=" in pasted:
        query = pasted
    if not query:
        if not pasted or "://" in pasted or len(pasted.split()) != 1:
            raise errors.ReauthRequired(
                "The pasted text is neither the address at which the browser ended nor a code. "
                "Nothing was sent, and the stored token is kept. Start the login again.",
                reason="login_failed",
            )
        if "iss" in settings:
            raise errors.ReauthRequired(
                "The pasted code names no issuer, which this login requires because of issuer or "
                "iss (RFC 9207). Nothing was sent, and the stored token is kept. Start the login "
                "again, and paste the whole address.",
                reason="login_failed",
            )
        # Without a state.  A code of another login does not fit the code verifier of this one.
        return {"code": pasted}
    answer = single_values(query)
    if not pending.is_answered_by(answer):
        raise errors.ReauthRequired(
            "The pasted address belongs to another login: its state differs. Nothing was sent, "
            "and the stored token is kept. Start the login again, and paste the address at which "
            "that login ends.",
            reason="login_failed",
        )
    return answer
