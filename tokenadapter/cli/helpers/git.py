"""git: gitcredentials(7), and the format of git-credential(1).

git calls ``get`` when a server asks for credentials, ``store`` when the server has accepted them,
and ``erase`` when it has refused them.  Then the token is renewed, for the next call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.config.problems import ProfileError
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from urllib import parse

    from tokenadapter.cli.helper import Call, Guard
else:
    parse = late("urllib.parse")

__all__ = ["WORDS", "answer"]

WORDS: int = 1
"""How many words the program appends to the command."""

_NOTHING = "", 0  # git asks its next helper, or the user
# Characters that end or decode a host in some reading of a URL.  git has decoded the host already.
_NOT_IN_HOST = "/\\?#@%"


def answer(call: Call, guard: Guard) -> tuple[str, int]:
    """Answer one call."""
    operation = call.words[0]
    if operation not in ("get", "erase"):
        return _NOTHING  # a token that git uses is stored already; git has further operations
    fields: dict[str, str] = {}
    challenges, capabilities = [], []
    for line in call.read().split("\n"):
        key, _, value = line.rstrip("\r").partition("=")
        if key == "wwwauth[]":
            challenges.append(value)
        elif key == "capability[]":
            capabilities.append(value)
        else:
            fields[key] = value
    url = _url(fields)
    if url is None:
        return _NOTHING
    if operation == "erase":
        rejected = fields.get("credential") or fields.get("password")
        if rejected:
            guard.renew(url, rejected)
        return _NOTHING
    issued = guard.token(url)
    if issued is None:
        if not fields.get("path") and any(prefix.startswith(url) for prefix in guard.prefixes):
            raise ProfileError(
                "git names only the host, and the prefix of the profile has a path. Nothing was "
                "sent. Run `git config --global credential.useHttpPath true`."
            )
        return _NOTHING
    scheme, _, credential = issued.value.partition(" ")
    can_choose = "authtype" in capabilities and guard.username is None
    if can_choose and credential and _accepts(challenges, scheme):
        # Not to be stored by other helpers.
        lines = ["capability[]=authtype", f"authtype={scheme}", f"credential={credential}"]
        lines.append("ephemeral=1")
    else:
        username = fields.get("username") or guard.username or guard.any_username
        lines = [f"username={username}", f"password={issued.access_token}"]
    if issued.until is not None:
        lines.append(f"password_expiry_utc={int(issued.until)}")
    return "\n".join(lines), 0


def _url(fields: dict[str, str]) -> str | None:
    """What git asks for; ``None`` if that is not an unambiguous URL."""
    protocol, host = fields.get("protocol"), fields.get("host", "")
    if protocol not in ("https", "http") or set(host) & set(_NOT_IN_HOST):
        return None
    # Without credential.useHttpPath, git sends no path.  It has decoded the path too.
    path = parse.quote(fields.get("path", ""), safe="/", errors="replace")
    return f"{protocol}://{host}/{path}"


def _accepts(challenges: list[str], scheme: str) -> bool:
    """Whether the server offered *scheme*.  It has not been asked if git sends none."""
    names = [challenge.partition(" ")[0].lower() for challenge in challenges]
    return not names or scheme.lower() in names
