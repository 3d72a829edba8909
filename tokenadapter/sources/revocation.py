"""Revocation of a token (RFC 7009): what is posted, and what the answer means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.late_imports import late
from tokenadapter.sources.reply import NoReply, Reply
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.protocols import ClientAuth
    from tokenadapter.sources.endpoint import Endpoint
    from tokenadapter.sources.oauth2_client import OAuth2Client
    from tokenadapter.sources.outcome import Attempt
else:
    errors = late("tokenadapter.errors")

__all__ = ["revoke"]

# The server cannot revoke access tokens, which expire by themselves (RFC 7009 section 2.2.1).
_NOT_OF_THIS_TYPE = "unsupported_token_type"


def revoke(
    client: OAuth2Client,
    endpoint: Endpoint,
    token: Token,
    auth: str | ClientAuth | None = None,
) -> TokenError | None:
    """Revoke *token*: first the refresh token, then the access token.

    In this order no process can renew in between, and a server should revoke both with the first
    (RFC 7009 section 2.1).

    :param auth: how the client authenticates, if the server's metadata says so.
    :returns: the error of the first answer that is none of success.  It is returned, not raised,
        for the same reason as those of :mod:`tokenadapter.sources.outcome`.
    """
    for kind in ("refresh_token", "access_token"):
        secret = getattr(token, kind)
        if secret is not None:
            form = {"token": secret, "token_type_hint": kind}
            error = _not_revoked(*client.post(endpoint, form, kind, auth=auth))
            if error is not None:
                return error
    return None


def _not_revoked(attempt: Attempt, reply: Reply | NoReply) -> TokenError | None:
    """The error of an answer which says that the token was not revoked."""
    code, advice = None, "Try again later."
    if isinstance(reply, NoReply):
        why, is_lasting, advice = attempt.masked(reply.why), reply.lasting, reply.advice
    else:
        # An unknown token counts as revoked (RFC 7009 section 2.2).
        if 200 <= reply.status < 300:
            return None
        code, why = attempt.read(reply)
        if attempt.kind == "access_token" and code == _NOT_OF_THIS_TYPE:
            return None
        if 300 <= reply.status < 400:
            why += ", a redirect, which is not followed because it would send the secrets on"
        is_lasting = not reply.may_pass
    message = f"{attempt.endpoint} did not revoke the token ({why}). The stored token is kept. "
    if is_lasting:
        return errors.RefreshConfigError(
            message + "Check revocation_url, and how the client authenticates.", error=code
        )
    return errors.RefreshTemporarilyFailed(message + advice, error=code)
