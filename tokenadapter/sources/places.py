"""Where an answer that is not OAuth has a token and its lifetime: by path, and as a time.

===========================  ======================================================================
path                         what it names
===========================  ======================================================================
``access_token``             a member of the JSON object
``data.sessions.0.token``    a value further inside, as :mod:`tokenadapter.http.json_path` finds it
``header:X-Auth-Token``      a response header
``cookie:session``           a cookie that the answer sets
``.``                        the whole answer: a JSON string, or bare text
===========================  ======================================================================
"""

from __future__ import annotations

import re
import time
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenadapter.http.json_path import value_at
from tokenadapter.sources.reply import Reply, moment

if TYPE_CHECKING:
    from http.cookiejar import Cookie

__all__ = ["USUAL_LIFETIME", "Places", "pick"]

USUAL_LIFETIME = "expires_in"
"""Where a lifetime stands if it is there at all (RFC 6749 section 5.1)."""

# In characters.  A longer text, or one that begins like a JWT, is a token, which errors would show.
_LONGEST_PATH = 200


class Places(NamedTuple):
    """The paths in the answers of one API."""

    token: str
    expires_in: str | float | None
    """Where the lifetime stands, in seconds; or the lifetime itself."""
    expires_at: str | None
    """Where the time stands at which the token expires."""

    def checked(self) -> Places:
        """These places themselves.

        :raises TypeError: if one is of the wrong type.
        :raises ValueError: if one names nothing, or the lifetime is not above 0.
        """
        _check_path("token", self.token)
        if self.expires_at is not None:
            _check_path("expires_at", self.expires_at)
        if isinstance(self.expires_in, (int, float)):
            if not (isfinite(self.expires_in) and self.expires_in > 0):
                raise ValueError(f"expires_in must be above 0, not {self.expires_in!r}")
        elif self.expires_in is not None:
            _check_path("expires_in", self.expires_in)
        return self

    def required_lifetime(self) -> tuple[str, str] | None:
        """The argument and the path at which every answer must have a lifetime: a path that the
        program chose."""
        for argument in ("expires_in", "expires_at"):
            path = getattr(self, argument)
            if isinstance(path, str) and path != USUAL_LIFETIME:
                return argument, path
        return None

    def token_in(self, reply: Reply) -> str | None:
        """The access token, if it is there."""
        token = pick(reply, self.token)
        if not isinstance(token, str) or not token:
            return None
        # Some APIs answer with the header as it is to be sent.
        return token.removeprefix("Bearer ") if self.token.startswith("header:") else token

    def lifetime_in(self, reply: Reply, requested_at: float) -> object:
        """The lifetime in seconds, in whatever form the server wrote it; ``None`` if it has none.

        :param requested_at: when the request was about to be sent (POSIX timestamp in seconds).
        """
        if isinstance(self.expires_in, (int, float)):
            return self.expires_in
        lifetime = None if self.expires_in is None else pick(reply, self.expires_in)
        end = None if self.expires_at is None else moment(pick(reply, self.expires_at))
        if lifetime is None and end is not None:
            # By the server's clock, if the answer has a date.
            return end - (reply.date or requested_at)
        token = _cookie(reply, self.token)
        if lifetime is None and token is not None and token.expires is not None:
            # By our clock: reading the answer added a Max-Age to it.
            return token.expires - time.time()
        return lifetime


def pick(reply: Reply, path: str) -> Any:
    """What stands at *path*; ``None`` if nothing does."""
    if path.startswith("header:"):
        return reply.headers.get(path.removeprefix("header:"))
    if path.startswith("cookie:"):
        found = _cookie(reply, path)
        return None if found is None else found.value
    if path == ".":
        if isinstance(reply.content, str):
            return reply.content
        # A text for people is not a token.
        text = re.fullmatch(r"(?![<{\[])[!-~]+", reply.body.decode("utf-8-sig", "replace").strip())
        return text and text[0]
    return value_at(reply.content, path)


def _cookie(reply: Reply, path: str) -> Cookie | None:
    """The cookie that *path* names, if it names one and the answer sets it."""
    name = path.removeprefix("cookie:")
    if name == path:
        return None
    return next((cookie for cookie in reply.cookies if cookie.name == name), None)


def _check_path(argument: str, path: str) -> None:
    if not isinstance(path, str):
        raise TypeError(f"{argument} must be a path in the answer, not {type(path).__name__}")
    if len(path) > _LONGEST_PATH or path.startswith("eyJ"):
        raise ValueError(f"{argument} is not a path in the answer, such as 'data.token'")
    if not path or path in ("header:", "cookie:"):
        raise ValueError(
            f"{argument}={path!r} names nothing: give a path such as 'data.token', "
            "'header:X-Auth-Token' or 'cookie:session'"
        )
