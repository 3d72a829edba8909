"""What it means that there is no token: which error, what was kept, and what to do next.

The keeper needs to know one thing first: may the credential that was presented be spent?

===========================================  ==================================================
what came back                               the error
===========================================  ==================================================
nothing, and nothing was sent;               ``RefreshTemporarilyFailed(processed=False)``
408, 425, 429; ``temporarily_unavailable``;
``use_dpop_nonce`` for the second time;
503 with an OAuth error or ``Retry-After``
nothing, although it was sent; another 5xx;  ``RefreshTemporarilyFailed(processed=None)``
``server_error``; a 2xx without a token
``invalid_grant`` and the like; for token    ``ReauthRequired``
exchange, ``invalid_request`` too
another OAuth error, 3xx or 4xx;             ``RefreshConfigError``: it was not spent
a request that cannot be sent as configured
===========================================  ==================================================

The errors are returned, not raised: a traceback keeps the variables of its frames, and here they
contain secrets.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from tokenadapter.extras import ExtraMissing
from tokenadapter.http.masking import masked
from tokenadapter.late_imports import late
from tokenadapter.sources.reply import NOT_NOW, NoReply, Reply, retry_after

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import (
        ReauthRequired,
        RefreshConfigError,
        RefreshTemporarilyFailed,
        TokenError,
    )
    from tokenadapter.keys import key as keys
    from tokenadapter.sources import given_token
else:
    errors = late("tokenadapter.errors")
    given_token = late("tokenadapter.sources.given_token")
    keys = late("tokenadapter.keys.key")

__all__ = [
    "CLOCK_TOLERANCE",
    "Attempt",
    "misplaced",
    "no_answer",
    "no_token",
    "not_given",
    "not_sent",
    "unproven",
    "unreadable",
    "without_lifetime",
]

CLOCK_TOLERANCE = 10.0
"""Seconds by which clocks may differ: a Date header has whole seconds, and an answer takes time."""

# Besides the code of RFC 6749 section 5.2: that of Microsoft where the user has to come in person,
# of GitHub, and of Slack.
_REFUSALS = frozenset(
    {"invalid_grant", "interaction_required", "bad_refresh_token", "invalid_refresh_token"}
)
# A token that was to be exchanged (RFC 8693 section 2.2.2); the second, as Keycloak has it.
_REFUSALS_OF_SUBJECT = _REFUSALS | {"invalid_request", "invalid_token"}
# What Python raises for a mistake in a program.
_MISTAKES = (AttributeError, ImportError, NameError, NotImplementedError, TypeError)

_ADVICE = {
    "invalid_client": "Check client_id, client_secret and client_auth.",
    "unauthorized_client": "Have this grant allowed for the client, or use another grant.",
    "unsupported_grant_type": "Use another kind of source: the server does not support this grant.",
    "invalid_scope": "Check scope.",
    "invalid_target": "Check resource and audience.",
    # An error of RFC 6750, which is about APIs.
    "invalid_token": "Check the URL: an API answered, and not a token endpoint.",
    "invalid_dpop_proof": "Pass dpop=True if dpop is not set. Otherwise check the key and the "
    "clock of this machine.",
}


class Attempt(NamedTuple):
    """What was presented, and where, for the message."""

    endpoint: str
    """The URL without its query."""
    kind: str
    """That of the :class:`~tokenadapter.protocols.Credential`."""
    secrets: set[str]
    """What was sent and must not be shown."""
    has_proof: bool = True
    """Whether something that authenticates the client was sent."""
    is_timed: bool = False
    """Whether an assertion was sent, which is valid for a short time."""

    def masked(self, text: str, limit: int = 200) -> str:
        """*text*, which a server or a library wrote, without secrets."""
        return masked(text, self.secrets, limit)

    def read(self, reply: Reply) -> tuple[str | None, str]:
        """The error code of *reply*, if it has one, and what the server said in full."""
        code = reply.error and self.masked(reply.error, 80)
        return code, f"{reply.status}, {code or self.masked(reply.shape)}{self.quoted(reply)}"

    def quoted(self, reply: Reply) -> str:
        """The server's explanation, and where it says more."""
        quoted = ""
        if reply.explanation is not None:
            quoted += f': "{self.masked(reply.explanation)}"'
        if reply.error_uri is not None:
            quoted += f", see {self.masked(reply.error_uri)}"
        return quoted

    def clock(self, reply: Reply) -> str:
        """What to do about this machine's clock, if it may be why an assertion was refused."""
        apart = 0.0 if reply.date is None else reply.date - time.time()
        if not self.is_timed or abs(apart) < CLOCK_TOLERANCE:
            return ""
        where = "behind" if apart > 0 else "ahead of"
        return (
            f" This machine's clock is {abs(apart):.0f} s {where} the server's, and an assertion "
            "is valid for a short time: synchronize it with NTP."
        )

    def __repr__(self) -> str:
        return f"<Attempt {self.kind}>"


def unproven(error: Exception, argument: str) -> NoReply:
    """No answer, because nothing was sent: what was passed as *argument* raised *error*."""
    advice = f"Correct {argument}."
    if isinstance(error, (keys.UnusableKey, given_token.Unavailable, ExtraMissing)):
        return NoReply(str(error), sent=False, lasting=True, local=True, advice=advice)
    # The first frame of its traceback has the form that was to be sent.
    trace = error.__traceback__ and error.__traceback__.tb_next
    cause = error.with_traceback(trace)
    if isinstance(error, errors.TokenError):
        # Another keeper failed.  It has its own backoff, so this source needs none.
        is_lasting = not isinstance(error, _passing())
        advice = advice if is_lasting else "Try again later."
        return NoReply(
            str(error), False, lasting=is_lasting, local=True, advice=advice, cause=cause
        )
    is_mistake = isinstance(error, _MISTAKES)
    # The text of the error may contain secrets, so only its class is named.
    return NoReply(
        f"{argument} raised {type(error).__name__}",
        sent=False,
        lasting=is_mistake,
        local=is_mistake,
        advice=advice if is_mistake else "Try again later.",
        cause=cause,
    )


def not_given(
    endpoint: str, argument: str, error: Exception, refusal: ReauthRequired | None = None
) -> TokenError:
    """The error if there is no token to present, because what was passed as *argument* raised
    *error*.

    The error of another keeper is passed on: a person has to log in for that keeper, or the keeper
    may have a token later.

    :param endpoint: where the token was meant for, for the message.
    :param refusal: the refusal of the token that there was before.
    """
    text = f"There is no {argument} to present to {endpoint}: {error}"
    if refusal is not None:
        text += f" The last one was refused: {refusal}"
    passed: TokenError
    if isinstance(error, errors.ReauthRequired):
        passed = errors.ReauthRequired(text, reason=error.reason, error=error.error)
    elif isinstance(error, _passing()):
        passed = errors.RefreshTemporarilyFailed(
            text,
            error=getattr(error, "error", None),
            processed=False,
            retry_at=getattr(error, "retry_at", None),
        )
    else:
        return not_sent(endpoint, argument, error, argument)
    passed.__cause__ = error
    return passed


def not_sent(
    endpoint: str, kind: str, error: Exception, argument: str
) -> RefreshTemporarilyFailed | RefreshConfigError:
    """The error where there is nothing to send: what was passed as *argument* raised *error*.

    :param endpoint: where it was meant for, for the message.
    :param kind: that of the credential.
    """
    return no_answer(Attempt(endpoint, kind, set()), unproven(error, argument))


def _passing() -> tuple[type[TokenError], ...]:
    """The errors of another keeper that may pass by themselves."""
    return errors.RefreshTemporarilyFailed, errors.LockTimeout, errors.StoreError


def no_answer(attempt: Attempt, lost: NoReply) -> RefreshTemporarilyFailed | RefreshConfigError:
    """The error where no answer came."""
    why = attempt.masked(lost.why, 600 if lost.local else 200)
    error: RefreshTemporarilyFailed | RefreshConfigError
    if lost.lasting:
        error = _unusable(attempt, why, lost.advice, is_local=lost.local)
    else:
        processed = None if lost.sent else False
        error = _temporary(attempt, why, processed=processed, advice=lost.advice)
    error.__cause__ = lost.cause
    return error


def no_token(
    attempt: Attempt, reply: Reply, refused_with: Collection[int] = ()
) -> ReauthRequired | RefreshTemporarilyFailed | RefreshConfigError:
    """The error where the server answered something other than a token.

    :param refused_with: the statuses which mean that the credential was refused, apart from OAuth
        errors.
    """
    status = reply.status
    code, why = attempt.read(reply)
    wait = retry_after(reply.headers.get("Retry-After"), time.time())
    if (
        status in NOT_NOW
        or code in ("temporarily_unavailable", "use_dpop_nonce")
        or (status == 503 and (code or wait is not None))
    ):
        return _temporary(attempt, why, code, processed=False, wait=wait)
    if status >= 500 or code == "server_error":
        return _temporary(attempt, why, code, processed=None, wait=wait)
    refusals = _REFUSALS_OF_SUBJECT if attempt.kind == "subject_token" else _REFUSALS
    if code in refusals or status in refused_with:
        return _refused(attempt, why, code, attempt.clock(reply))
    if 300 <= status < 400:
        target = attempt.masked(_target(attempt.endpoint, reply))
        return _unusable(
            attempt,
            f"{why}: a redirect to {target}",
            "The redirect was not followed because it would send the secrets on. Check the URL.",
        )
    advice = "Check the URL." if code is None else _ADVICE.get(code, "Check the configuration.")
    if code is None and status == 401:
        advice = _ADVICE["invalid_client"]
    elif code not in _ADVICE and reply.is_not_here:
        advice = "Check the URL: there is no token endpoint at it."
    if not attempt.has_proof and (
        status == 401 or code in ("invalid_client", "unauthorized_client")
    ):
        advice = (
            "No client_secret was sent: it is missing or empty. If the client has one, check where "
            f"it is read from, such as an environment variable. {advice}"
        )
    return _unusable(attempt, why, advice + attempt.clock(reply), code)


def unreadable(attempt: Attempt, reply: Reply, problem: str) -> RefreshTemporarilyFailed:
    """The error where an answer that means success has no token."""
    problem = problem if reply.fields else f"{reply.shape} instead of a token"
    return _temporary(
        attempt,
        f"{reply.status}: {attempt.masked(problem)}",
        processed=None,
        advice="Check the URL: a token endpoint answers with a JSON object that has the token.",
    )


def misplaced(
    attempt: Attempt, reply: Reply, path: str
) -> RefreshTemporarilyFailed | RefreshConfigError:
    """The error where an answer that means success has no token at *path*."""
    if reply.content is None and ":" not in path:
        return unreadable(attempt, reply, "")
    why = f"{reply.status}, no text at {path!r}{attempt.quoted(reply)}{_names(attempt, reply)}"
    return _unusable(attempt, why, "Check the path in token, and what is sent to log in.")


def without_lifetime(
    attempt: Attempt, reply: Reply, argument: str, path: str
) -> RefreshConfigError:
    """The error where an answer with a token has no lifetime at *path*, given as *argument*."""
    return _unusable(
        attempt,
        f"{reply.status}, no lifetime at {path!r}{_names(attempt, reply)}",
        f"Check the path in {argument}. With {argument}=None, a token is used until the API "
        "refuses it.",
    )


def _unusable(
    attempt: Attempt,
    why: str,
    advice: str,
    code: str | None = None,
    *,
    is_local: bool = False,
) -> errors.RefreshConfigError:
    """The error where the same request cannot succeed."""
    return errors.RefreshConfigError(
        f"The token request to {attempt.endpoint} cannot succeed as configured ({why}). Nothing "
        f"was spent, and the stored token is kept. {advice}",
        error=code,
        is_local=is_local,
    )


def _refused(attempt: Attempt, why: str, code: str | None, clock: str) -> errors.ReauthRequired:
    what, advice = {
        "refresh_token": ("the refresh token", errors.LOG_IN),
        "password": ("the user's name or password", "Correct them."),
        "authorization_code": ("the code of the login", "Start the login again."),
        "device_code": ("the code of the login", "Start the login again."),
        "assertion": ("the assertion", "Check client_id, key, subject, audience, and the clock."),
        "subject_token": (
            "the token that was to be exchanged",
            "Check subject_token, and the other arguments.",
        ),
        "app": ("the app", "Check app_id, key and installation."),
        "client": ("the client", _ADVICE["invalid_client"]),
    }.get(attempt.kind, ("the login", "Correct what is sent to log in."))
    return errors.ReauthRequired(
        f"{attempt.endpoint} refused {what} ({why}). Nothing stored was lost. {advice}{clock}",
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
        fate = "The refresh token may be spent; it is kept all the same."
    else:
        fate = "Nothing was spent, and the stored token is kept."
    return errors.RefreshTemporarilyFailed(
        f"{attempt.endpoint} gave no token ({why}). {fate} {advice}",
        error=code,
        processed=processed,
        retry_after=wait,
    )


def _names(attempt: Attempt, reply: Reply) -> str:
    """The names that the answer has, without their values."""
    if not reply.fields:
        return ""
    return f"; the answer has: {attempt.masked(', '.join(sorted(reply.fields)))}"


def _target(endpoint: str, reply: Reply) -> str:
    """Where a redirect leads: scheme, host and path."""
    try:
        parts = urlsplit(urljoin(endpoint, reply.headers.get("Location", "")))
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
