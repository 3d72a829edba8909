"""What it means that there is no token: which error, what was kept, and what to do next.

Whoever presented something wants to know one thing first: may it have been spent?

===========================================  ==================================================
what came back                               the error
===========================================  ==================================================
nothing, and nothing was sent;               ``RefreshTemporarilyFailed(processed=False)``
408, 425, 429; ``temporarily_unavailable``;
503 with an OAuth error or ``Retry-After``
nothing, although it was sent; another 5xx;  ``RefreshTemporarilyFailed(processed=None)``
``server_error``; a 2xx without a token
``invalid_grant`` and the like               ``ReauthRequired``
another OAuth error, 3xx or 4xx;             ``RefreshConfigError``: it was not spent
a server that cannot be asked as configured
===========================================  ==================================================

The errors are returned, not raised: a traceback keeps the variables of its frames, and here they
hold secrets.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from tokenadapter.late_imports import late
from tokenadapter.sources.moment import retry_after
from tokenadapter.sources.reply import NoReply, Reply
from tokenadapter.sources.wording import plain

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import ReauthRequired, RefreshConfigError, RefreshTemporarilyFailed
else:
    errors = late("tokenadapter.errors")

__all__ = ["Attempt", "misplaced", "no_answer", "no_token", "unreadable", "without_lifetime"]

# Besides the code of RFC 6749 section 5.2: that of Microsoft where the user has to come in person,
# of GitHub, and of Slack.
_REFUSALS = frozenset(
    {"invalid_grant", "interaction_required", "bad_refresh_token", "invalid_refresh_token"}
)
# Not Found, Method Not Allowed, Gone.
_NOT_HERE = frozenset({404, 405, 410})
# Request Timeout, Too Early, Too Many Requests: the server did not get to it.
_NOT_NOW = frozenset({408, 425, 429})

_ADVICE = {
    "invalid_client": "Check client_id, client_secret and client_auth.",
    "unauthorized_client": "Ask for this grant to be allowed to the client, or use another.",
    "unsupported_grant_type": "Use another kind of source: this server does not know that grant.",
    "invalid_scope": "Check scope.",
    "invalid_target": "Check resource and audience.",
}


class Attempt(NamedTuple):
    """What was presented, and where, for the message."""

    endpoint: str
    """The URL without its query."""
    kind: str
    """That of the :class:`~tokenadapter.protocols.Credential`."""
    secrets: Collection[str]
    """What was sent and must not be told."""

    def plain(self, text: str, limit: int = 200) -> str:
        """*text*, which comes from elsewhere, without secrets."""
        return plain(text, self.secrets, limit)

    def __repr__(self) -> str:
        return f"<Attempt {self.kind}>"


def no_answer(attempt: Attempt, lost: NoReply) -> RefreshTemporarilyFailed | RefreshConfigError:
    """The error where no answer came."""
    why = attempt.plain(lost.why)
    if lost.lasting:
        return _unusable(
            attempt,
            why,
            "Check the URL, verify, cert and proxies, and those of the environment.",
            is_local=lost.local,
        )
    return _temporary(attempt, why, processed=None if lost.sent else False, advice=lost.advice)


def no_token(
    attempt: Attempt, reply: Reply, refused_with: Collection[int] = ()
) -> ReauthRequired | RefreshTemporarilyFailed | RefreshConfigError:
    """The error where the server answered something else than a token.

    :param refused_with: what other statuses than an OAuth error mean that the credential was
        refused.
    """
    status = reply.status
    code = reply.error and attempt.plain(reply.error, 80)
    why = f"{status}, {code or attempt.plain(reply.shape)}{_said(attempt, reply)}"
    wait = retry_after(reply.headers.get("Retry-After"), time.time())
    if (
        status in _NOT_NOW
        or code == "temporarily_unavailable"
        or (status == 503 and (code or wait is not None))
    ):
        return _temporary(attempt, why, code, processed=False, wait=wait)
    if status >= 500 or code == "server_error":
        return _temporary(attempt, why, code, processed=None, wait=wait)
    if code in _REFUSALS or status in refused_with:
        return _refused(attempt, why, code)
    if 300 <= status < 400:
        target = attempt.plain(_target(attempt.endpoint, reply))
        why = f"{why}: a redirect to {target}"
        return _unusable(
            attempt,
            why,
            "It was not followed, since that would send the secrets on: check the URL.",
        )
    advice = "Check the URL." if code is None else _ADVICE.get(code, "Check the configuration.")
    if code is None and status == 401:
        advice = _ADVICE["invalid_client"]
    elif code not in _ADVICE and status in _NOT_HERE:
        advice = "Check the URL: nothing there gives tokens."
    return _unusable(attempt, why, advice, code)


def unreadable(attempt: Attempt, reply: Reply, problem: str) -> RefreshTemporarilyFailed:
    """The error where an answer that means success holds no token."""
    problem = problem if reply.fields else f"{reply.shape} instead of a token"
    return _temporary(
        attempt,
        f"{reply.status}: {attempt.plain(problem)}",
        processed=None,
        advice="Check the URL: a token endpoint answers with a JSON object that holds the token.",
    )


def misplaced(
    attempt: Attempt, reply: Reply, path: str
) -> RefreshTemporarilyFailed | RefreshConfigError:
    """The error where an answer that means success has no token at *path*."""
    if reply.content is None and ":" not in path:
        return unreadable(attempt, reply, "")
    why = f"{reply.status}, no text at {path!r}{_said(attempt, reply)}{_held(attempt, reply)}"
    return _unusable(attempt, why, "Check token, and what is sent to log in.")


def without_lifetime(
    attempt: Attempt, reply: Reply, argument: str, path: str
) -> RefreshConfigError:
    """The error where an answer with a token has no lifetime at *path*, given as *argument*."""
    why = f"{reply.status}, no lifetime at {path!r}{_held(attempt, reply)}"
    return _unusable(
        attempt, why, f"Check {argument}; {argument}=None trusts a token until the API refuses it."
    )


def _unusable(
    attempt: Attempt,
    why: str,
    advice: str,
    code: str | None = None,
    *,
    is_local: bool = False,
) -> errors.RefreshConfigError:
    """The error where the server has to be asked in another way."""
    return errors.RefreshConfigError(
        f"{attempt.endpoint} cannot give a token as it was asked ({why}). Nothing was spent, and "
        f"what the store holds is kept. {advice}",
        error=code,
        is_local=is_local,
    )


def _refused(attempt: Attempt, why: str, code: str | None) -> errors.ReauthRequired:
    what, advice = {
        "refresh_token": ("the refresh token", errors.NEW_LOGIN),
        "password": ("the user's name or password", "Correct them."),
        "client": ("the client", _ADVICE["invalid_client"]),
    }.get(attempt.kind, ("the login", "Correct what is sent to log in."))
    return errors.ReauthRequired(
        f"{attempt.endpoint} refused {what} ({why}). What the store holds is kept. {advice}",
        error=code,
    )


def _temporary(
    attempt: Attempt,
    why: str,
    code: str | None = None,
    *,
    processed: bool | None,
    wait: float | None = None,
    advice: str = "Try again later.",
) -> errors.RefreshTemporarilyFailed:
    if processed is None and attempt.kind == "refresh_token":
        fate = "It may have spent the refresh token, which is kept all the same."
    else:
        fate = "Nothing was spent, and what the store holds is kept."
    return errors.RefreshTemporarilyFailed(
        f"{attempt.endpoint} gave no token ({why}). {fate} {advice}",
        error=code,
        processed=processed,
        retry_after=wait,
    )


def _said(attempt: Attempt, reply: Reply) -> str:
    """What the server wants people to know."""
    said = ""
    if reply.explanation is not None:
        said += f': "{attempt.plain(reply.explanation)}"'
    if reply.error_uri is not None:
        said += f", see {attempt.plain(reply.error_uri)}"
    return said


def _held(attempt: Attempt, reply: Reply) -> str:
    """What the answer holds, by name."""
    if not reply.fields:
        return ""
    return f"; it holds: {attempt.plain(', '.join(sorted(reply.fields)))}"


def _target(endpoint: str, reply: Reply) -> str:
    """Where a redirect leads: scheme, host and path."""
    try:
        parts = urlsplit(urljoin(endpoint, reply.headers.get("Location", "")))
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
