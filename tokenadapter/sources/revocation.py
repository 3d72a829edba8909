"""What it means that a token was or was not revoked (RFC 7009 section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.late_imports import late
from tokenadapter.sources.reply import NoReply, Reply

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.sources.outcome import Attempt
else:
    errors = late("tokenadapter.errors")

__all__ = ["not_revoked"]

# "I cannot revoke access tokens": they die by themselves (section 2.2.1).
_NOT_OF_THIS_TYPE = "unsupported_token_type"


def not_revoked(attempt: Attempt, reply: Reply | NoReply) -> TokenError | None:
    """The error of an answer that says that the token was not revoked, if it says so.

    It is returned, not raised, for the same reason as those of
    :mod:`tokenadapter.sources.outcome`.
    """
    code, advice = None, "Try again later."
    if isinstance(reply, NoReply):
        why, is_lasting, advice = attempt.plain(reply.why), reply.lasting, reply.advice
    else:
        # A token that is not known counts as revoked (section 2.2).
        if 200 <= reply.status < 300:
            return None
        code = reply.error and attempt.plain(reply.error, 80)
        if attempt.kind == "access_token" and code == _NOT_OF_THIS_TYPE:
            return None
        why = f"{reply.status}, {code or attempt.plain(reply.shape)}"
        if reply.explanation is not None:
            why += f': "{attempt.plain(reply.explanation)}"'
        if 300 <= reply.status < 400:
            why += ", a redirect, which would send the secrets on and is not followed"
        is_lasting = reply.status < 500 and reply.status not in (408, 425, 429)
    told = f"{attempt.endpoint} did not revoke the token ({why}). What the store holds is kept. "
    if is_lasting:
        return errors.RefreshConfigError(
            told + "Check revocation_url, and how the client authenticates.", error=code
        )
    return errors.RefreshTemporarilyFailed(told + advice, error=code)
