"""``tokenadapter adopt``: stores the token from a login.

  tokenadapter adopt billing < answer.json

The command reads standard input, so that no command line contains a secret: either a token response
(a JSON object with access_token, and optionally refresh_token and expires_in), or a refresh token
alone. A refresh token alone is presented to the server first, and replaces the stored token only if
the server accepts it. A token response without a refresh token replaces a stored token that has one
only with --force. Use this command for the first login, and after "reauth_required"; every process
that shares the store picks up the new token by itself.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import add_name, check_keeps_login, named_profile, validity
from tokenadapter.config.problems import ProfileError
from tokenadapter.core.record import Record, digest
from tokenadapter.token import Token

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.profile import Profile

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace a token that has a refresh token by one without",
    )


def perform(options: Namespace) -> int:
    """Store the token on standard input."""
    profile = named_profile(options)
    check_keeps_login(profile)
    given = _given()
    if "access_token" not in given:
        _check_use(profile)
    elif not given.get("refresh_token") and not options.force and _has_refresh_token(profile):
        raise _wrong(
            "has no refresh token, and the stored token has one, which would be lost: a new login "
            "would be needed when the access token expires. Adopt the whole token response of a "
            "login, or pass --force to discard the stored refresh token"
        )
    try:
        token = profile.keeper().adopt(given)
    except (TypeError, ValueError) as error:
        raise _wrong(f"is not a token response: {error}") from None
    lack = "" if token.refresh_token else ", without a refresh token"
    sys.stderr.write(f"tokenadapter: {profile.name}: adopted{validity(token)}{lack}\n")
    return 0


def _given() -> dict[str, Any]:
    """The token response on standard input, which may be a refresh token alone."""
    if sys.stdin.isatty():
        from getpass import getpass

        text = getpass("Token response or refresh token (not shown): ")
    else:
        text = sys.stdin.read()
    text = text.strip()
    if not text:
        raise _wrong("is empty")
    if not text.startswith(("{", "[")):
        mistaken = _mistaken(text)
        if mistaken:
            raise _wrong(f"{mistaken}. {_WANTED}")
        return {"refresh_token": text}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Not the error itself: it contains the input, and so the secrets.
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "the end"
        raise _wrong(f"is not valid JSON (error at {where})") from None
    if not isinstance(found, dict):
        raise _wrong(f"is a JSON array. {_WANTED}")
    if not found.keys() & {"access_token", "refresh_token"}:
        what = "an error response" if "error" in found else "not a token response"
        raise _wrong(f"is {what}: it has no access_token or refresh_token. {_WANTED}")
    return found


_WANTED = (
    "Paste the whole response of the token endpoint, a JSON object, or only the value of its "
    "refresh_token, without quotes"
)
# A form, or a line of one, such as "refresh_token=..."; "=" at the end pads base64.
_FORM = r"[A-Za-z_]+=[^=]"
_QUOTES = "\"'`\u00ab\u00bb\u2018\u2019\u201c\u201d\u201e"


def _mistaken(text: str) -> str | None:
    """Why *text* cannot be a refresh token (RFC 6749 appendix A.17); ``None`` if it can be one."""
    if text.startswith("<"):
        return "is HTML or XML"
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        return "is in quotes"
    if "://" in text:
        return "contains a URL; the code in the URL after a login is not a token"
    if re.match(_FORM, text):
        return "is a form, with a name before the value"
    if len(text.split()) > 1:
        return "is neither a JSON object nor a refresh token, which is one word"
    return None


def _check_use(profile: Profile) -> None:
    """Refuse a refresh token alone for a source that cannot present one."""
    probe = Token("none", refresh_token="none")
    kinds = [credential.kind for credential in profile.grant.credentials(probe)]
    if "refresh_token" not in kinds:
        raise profile.config.error(
            [profile.name, "source"],
            "A source of this type cannot use a refresh token alone: give a whole token response.",
        )


def _has_refresh_token(profile: Profile) -> bool:
    """Whether the store has a refresh token of *profile* that the server has not refused.

    :raises TokenError: if the store cannot be read.
    """
    try:
        record = Record.from_document(profile.store().load().document or {})
    except ValueError:
        return False  # the record cannot be replaced either
    refresh_token = record.token and record.token.refresh_token
    if not refresh_token or dict(record.owner) != dict(profile.grant.owner):
        return False
    return record.tombstone(digest(record.salt, "refresh_token", refresh_token)) is None


def _wrong(why: str) -> ProfileError:
    return ProfileError(f"Nothing was adopted: the input {why}.")
