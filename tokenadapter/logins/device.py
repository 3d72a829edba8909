"""A login on another device (RFC 8628): the person enters a code there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tokenadapter import errors
from tokenadapter.logins.authorization import check_wanted, failed
from tokenadapter.sources import outcome
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.sources.reply import NoReply
from tokenadapter.token import Token
from tokenadapter.values import one_line

__all__ = ["GRANT_TYPE", "log_in"]

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
# In seconds.  The interval where the server names none, and what "slow_down" adds to it (RFC 8628
# section 3.5).
_INTERVAL = 5.0
_SLOWER = 5.0
_LONGEST_INTERVAL = 60.0
_LIFETIME = 600.0
# Before the end, the person is reminded so many seconds.
_REMINDER = 60.0


def log_in(
    source: OAuth2Source,
    url: str,
    show: Callable[[str], object],
    timeout: float,
    adopt: Callable[[Token, str | None], Token],
    given_up: threading.Event,
) -> Token:
    """Show the code, wait until the person has entered it, and adopt the token.

    :param given_up: ends the wait.
    :raises TokenError: if the login did not succeed.
    :raises ValueError: if the URL makes no sense.
    """
    began = time.monotonic()
    poll = _polling(source)
    fields = _begun(source, url)
    lifetime = _seconds(fields.get("expires_in"), _LIFETIME)
    interval = _seconds(fields.get("interval"), _INTERVAL)
    end = began + min(lifetime, timeout)
    show(_invitation(fields, end - began))
    reminds = end - began > 2 * _REMINDER
    outage: errors.TokenError | None = None
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise outage or failed("expired_token", f"no approval within {end - began:.0f} s")
        if reminds and left <= _REMINDER:
            show("The code is valid for one more minute.")
            reminds = False
        given_up.wait(min(interval, left))
        check_wanted(given_up)
        answer = poll(fields["device_code"])
        if isinstance(answer, Token):
            return adopt(answer, None)
        code, outage = getattr(answer, "error", None), None
        if code == "slow_down":
            interval += _SLOWER
        elif code in ("access_denied", "expired_token"):
            raise failed(code, None)
        elif isinstance(answer, errors.RefreshTemporarilyFailed):
            interval, outage = min(max(interval, 1.0) * 2, _LONGEST_INTERVAL), answer
        elif code != "authorization_pending":
            raise answer


def _polling(source: OAuth2Source) -> Callable[[str], Token | errors.TokenError]:
    """What asks for the token of a device code; its frames, which have the key, end before anything
    is raised."""
    key = source.new_key()
    form = {"grant_type": GRANT_TYPE, "client_id": source.oauth2_client.client_id}
    return lambda code: source.redeem("device_code", {**form, "device_code": code}, key=key)


def _begun(source: OAuth2Source, url: str) -> dict[str, Any]:
    """The device authorization response (RFC 8628 section 3.2)."""
    endpoint = source.oauth2_client.endpoint("device_authorization_url", url)
    # Some servers want the identifier in the form, even of a client that authenticates.
    form = {**source.asked, "client_id": source.oauth2_client.client_id}
    attempt, reply = source.oauth2_client.post(
        endpoint, form, "device_code", auth=source.client_auth()
    )
    if isinstance(reply, NoReply):
        raise outcome.no_answer(attempt, reply)
    if not 200 <= reply.status < 300 or reply.error:
        raise outcome.no_token(attempt, reply)
    fields = dict(reply.fields)
    # Google's name for it.
    fields.setdefault("verification_uri", fields.get("verification_url"))
    texts = [fields.get(name) for name in ("device_code", "user_code", "verification_uri")]
    if not all(isinstance(text, str) and text for text in texts) or not _is_web(texts[2]):
        raise errors.RefreshConfigError(
            f"{endpoint.name} did not answer with a device code, a user code and an address to "
            "open (RFC 8628 section 3.2). The stored token is kept. Check "
            "device_authorization_url."
        )
    return fields


def _is_web(url: Any) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False


def _invitation(fields: dict[str, Any], seconds: float) -> str:
    minutes = round(seconds / 60)
    validity = f"{minutes} minutes" if minutes > 1 else f"{seconds:.0f} seconds"
    lines = [
        "On any device, open this address:",
        "",
        f"    {one_line(fields['verification_uri'], 500)}",
        "",
        "and enter this code:",
        "",
        f"    {one_line(fields['user_code'], 100)}",
        "",
    ]
    complete = fields.get("verification_uri_complete")
    if isinstance(complete, str) and _is_web(complete):
        lines += [
            "Or open the address that contains the code:",
            "",
            f"    {one_line(complete, 500)}",
            "",
        ]
    return "\n".join([*lines, f"The code is valid for {validity}. Waiting for the approval ..."])


def _seconds(value: Any, default: float) -> float:
    try:
        seconds = float(value)
    except (OverflowError, TypeError, ValueError):
        return default
    return seconds if 0 < seconds < 1e6 else default
