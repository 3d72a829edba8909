"""What clients log about requests: those that get no token, and refusals that reach the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenadapter.clients.prefix import OwnUrls
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from requests import PreparedRequest

    from tokenadapter.clients.rules import Rules
    from tokenadapter.http import bindings, masking, verdicts
    from tokenadapter.token import Token
else:
    bindings = late("tokenadapter.http.bindings")
    masking = late("tokenadapter.http.masking")
    verdicts = late("tokenadapter.http.verdicts")

__all__ = [
    "log_handed_on",
    "log_near_miss",
    "log_outside",
    "log_step_up",
    "log_unsigned",
    "replay_of",
]

# Characters of a URL that are shown in a message.
_LONGEST_SHOWN = 200


def log_near_miss(rules: Rules, url: str) -> None:
    """Log once that a request gets no token, if it misses the prefix by its host's spelling."""
    if rules.prefix.is_near_miss(url) and url not in OwnUrls(rules.keeper.grant):
        log_outside(rules, url)


def log_unsigned(rules: Rules, request: PreparedRequest, response: Any) -> None:
    """Log once that a request got no token, if its path alone may be why it was refused.

    A request that carries a credential, or that is refused for want of another kind of
    credential, may be meant to get no token.
    """
    url, headers = request.url or "", request.headers
    challenge = response.headers.get("WWW-Authenticate", "").lower()
    if (
        "Authorization" not in headers
        and rules.header not in headers
        and not challenge.startswith(("basic", "digest", "negotiate", "ntlm"))
        and rules.prefix.has_same_origin(url)
        and url not in OwnUrls(rules.keeper.grant)
    ):
        log_outside(rules, url)


def log_outside(rules: Rules, url: str, host: object = None) -> None:
    """Log once that a request gets no token.

    :param host: what its ``Host`` header names, if that is another host.
    """
    rules.keeper.journal.emit_once(
        "OutsidePrefix",
        rules.prefix.url,
        prefix=rules.prefix.url,
        url=_shown(url),
        host=None if host is None else _shown(f"{host!s}"),
    )


def log_step_up(rules: Rules, request: Any, answer: Any, sent: list[Token]) -> None:
    """Log what *answer* to *request* asks for beyond a valid token, if it does.

    :param sent: the tokens that the request was sent with.
    """
    wanted = verdicts.step_up(answer)
    if wanted is None:
        return
    # There are APIs that echo the Authorization of the request.
    secrets = {token.access_token for token in sent}

    def fit(said: str | None) -> str | None:
        if said is None or masking.reveals(said, secrets):
            return None
        return masking.masked(said, ())

    rules.keeper.journal.emit(
        "StepUpNeeded",
        method=request.method,
        url=_without_query(request.url),
        status=answer.status_code,
        error=wanted.error,
        scope=fit(wanted.scope),
        acr_values=fit(wanted.acr_values),
        max_age=wanted.max_age,
    )


def log_handed_on(
    rules: Rules,
    request: Any,
    answer: Any,
    reason: str,
    token: Token | None = None,
    cert: Any = True,
    remedy: str | None = None,
) -> None:
    """Log why *answer*, a refusal of *request*, goes to the caller.

    :param token: the one that was refused.
    :param cert: the client certificate that was presented with it: a path, or the paths of
        certificate and key; nothing; or another object if the certificate is unknown.
    :param remedy: how a request is made to present a certificate, if not as the rules say.
    """
    if token is not None:
        reason = bindings.explained(reason, token, cert, remedy or rules.cert_remedy)
    rules.keeper.journal.emit(
        "HandedOn",
        method=request.method,
        url=_without_query(request.url),
        status=answer.status_code,
        reason=reason,
    )


def replay_of(request: Any, status: int, token: Token) -> dict[str, Any]:
    """What the events of a replay of *request* say.

    :param status: that of the refusal.
    :param token: the one that the replay is sent with.
    """
    return {
        "method": request.method,
        "url": _without_query(request.url),
        "status": status,
        "token": token.fingerprint,
    }


def _shown(url: str) -> str:
    """A URL for messages: on one line, without query and user, and cut."""
    scheme, mark, rest = url.partition("#")[0].partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    text = f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _without_query(url: object) -> str:
    """The URL of a request, a text or an object of its library, for messages."""
    return f"{url or ''}".partition("?")[0]
