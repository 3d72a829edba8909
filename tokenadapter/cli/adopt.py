"""``tokenadapter adopt``: takes a token in.

  tokenadapter adopt billing < answer.json

It reads from standard input, so that no secret is in a command line: either a token response (a
JSON object with access_token, and perhaps refresh_token and expires_in), or a bare refresh token.
A bare refresh token is presented to the server first, and replaces what is stored only if the
server answers with a token. This is the first login, and the way back after "login needed"; every
process that shares the store goes on by itself.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.cli.output import span
from tokenadapter.config.problems import ProfileError
from tokenadapter.token import Token

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.profile import Profile

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_name(parser)


def perform(options: Namespace) -> int:
    """Put what is on standard input into the store."""
    profile = named_profile(options)
    given = _given()
    if "access_token" not in given:
        _check_use(profile)
    try:
        token = profile.keeper().adopt(given)
    except (TypeError, ValueError) as error:
        raise _wrong(f"it is no token response: {error}") from None
    end = token.expires_at
    lives = "" if end is None else f", for {span(max(end - time.time(), 0))}"
    keeps = "" if token.refresh_token else ", without a refresh token"
    sys.stderr.write(f"tokenadapter: {profile.name}: adopted{lives}{keeps}\n")
    return 0


def _given() -> dict[str, Any]:
    """A token response, perhaps of a refresh token alone."""
    if sys.stdin.isatty():
        from getpass import getpass

        text = getpass("Token response or refresh token (not shown): ")
    else:
        text = sys.stdin.read()
    text = text.strip()
    if not text:
        raise _wrong("it is empty")
    if not text.startswith(("{", "[")):
        mistaken = _mistaken(text)
        if mistaken:
            raise _wrong(f"{mistaken}. {_WANTED}")
        return {"refresh_token": text}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The error has the text, and that the secrets.
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "the end"
        raise _wrong(f"it is no JSON object, as far as {where}") from None
    if not isinstance(found, dict):
        raise _wrong(f"it is a JSON array. {_WANTED}")
    if not found.keys() & {"access_token", "refresh_token"}:
        told = "it is the answer to a failed request" if "error" in found else "it has neither"
        raise _wrong(f"{told}: a token response has access_token or refresh_token. {_WANTED}")
    return found


_WANTED = (
    "Paste the whole answer of the token endpoint, a JSON object, or of that answer the value of "
    "refresh_token alone, without quotes"
)
# A form, or a line of one, such as "refresh_token=..."; "=" at the end pads base64.
_FORM = r"[A-Za-z_]+=[^=]"
_QUOTES = "\"'`\u00ab\u00bb\u2018\u2019\u201c\u201d\u201e"


def _mistaken(text: str) -> str | None:
    """What *text* is, if it cannot be a refresh token (RFC 6749 appendix A.17)."""
    if text.startswith("<"):
        return "it is HTML or XML"
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        return "it is in quotes"
    if "://" in text:
        return "it is a URL, or has one in it; the code in the URL after a login is no token"
    if re.match(_FORM, text):
        return "it is a form, with a name before its value"
    if len(text.split()) > 1:
        return "it is neither a JSON object nor one word, a refresh token"
    return None


def _check_use(profile: Profile) -> None:
    """A refresh token alone is of use only to a source that presents some."""
    probe = Token("none", refresh_token="none")
    kinds = [credential.kind for credential in profile.grant.credentials(probe)]
    if "refresh_token" not in kinds:
        raise profile.config.error(
            [profile.name, "source"],
            "Such a source presents no refresh token: give adopt a token response, a JSON object.",
        )


def _wrong(why: str) -> ProfileError:
    return ProfileError(f"What is on standard input cannot be adopted: {why}.")
