"""``tokenadapter adopt``: takes a token in.

  tokenadapter adopt billing < answer.json

It reads from standard input, so that no secret is in a command line: either a token response (a
JSON object with access_token, and perhaps refresh_token and expires_in), or a bare refresh token,
which is tried at once. This is the first login, and the way back after "login needed"; every
process that shares the store goes on by itself.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.cli.table import span
from tokenadapter.config.trouble import ProfileError
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
    keeper = profile.keeper()
    if isinstance(given, str):
        _check_use(profile, given)
        # It stands beside an access token that is dead, which the renewal then replaces.
        now = time.time()
        keeper.adopt(
            _made(access_token="none", refresh_token=given, issued_at=now - 2, expires_at=now - 1)
        )
        token = keeper.current()
    else:
        try:
            token = keeper.adopt(given)
        except (TypeError, ValueError) as error:
            raise _wrong(f"it is no token response: {error}") from None
    end = token.expires_at
    lives = "" if end is None else f", for {span(max(end - time.time(), 0))}"
    keeps = "" if token.refresh_token else ", without a refresh token"
    sys.stderr.write(f"tokenadapter: {profile.name}: adopted{lives}{keeps}\n")
    return 0


def _given() -> dict[str, Any] | str:
    """A token response, or the text of a refresh token."""
    if sys.stdin.isatty():
        from getpass import getpass

        text = getpass("Token response or refresh token (not shown): ")
    else:
        text = sys.stdin.read()
    text = text.strip()
    if not text:
        raise _wrong("it is empty")
    if not text.startswith("{"):
        if len(text.split()) > 1:
            raise _wrong("it is neither a JSON object nor one word, a refresh token")
        return text
    try:
        found: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The error has the text, and that the secrets.
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "the end"
        raise _wrong(f"it is no JSON object, as far as {where}") from None
    return found


def _check_use(profile: Profile, refresh_token: str) -> None:
    """A refresh token alone is of use only to a source that presents some."""
    probe = _made(access_token="none", refresh_token=refresh_token)
    kinds = [credential.kind for credential in profile.grant.credentials(probe)]
    if "refresh_token" not in kinds:
        raise profile.config.error(
            [profile.name, "source"],
            "Such a source presents no refresh token: give adopt a token response, a JSON object.",
        )


def _made(**fields: Any) -> Token:
    try:
        return Token(**fields)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _wrong(why: str) -> ProfileError:
    return ProfileError(f"What is on standard input cannot be adopted: {why}.")
