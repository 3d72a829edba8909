"""Where an answer that is not OAuth holds a token and its lifetime."""

from __future__ import annotations

import time
from math import isfinite
from typing import NamedTuple

from tokenadapter.sources.moment import moment
from tokenadapter.sources.pick import checked_path, cookie, pick
from tokenadapter.sources.reply import Reply

__all__ = ["USUAL_LIFETIME", "Places"]

USUAL_LIFETIME = "expires_in"
"""Where a lifetime stands if it is there at all (RFC 6749 section 5.1)."""


class Places(NamedTuple):
    """Paths, as :mod:`tokenadapter.sources.pick` reads them."""

    token: str
    expires_in: str | float | None
    """Where the lifetime stands, in seconds; or the lifetime itself."""
    expires_at: str | None
    """Where the time of its end stands."""

    def checked(self) -> Places:
        """These very places.

        :raises TypeError: if one is of the wrong type.
        :raises ValueError: if one cannot be.
        """
        checked_path("token", self.token)
        if self.expires_at is not None:
            checked_path("expires_at", self.expires_at)
        if isinstance(self.expires_in, (int, float)):
            if not (isfinite(self.expires_in) and self.expires_in > 0):
                raise ValueError(f"expires_in must be above 0, not {self.expires_in!r}")
        elif self.expires_in is not None:
            checked_path("expires_in", self.expires_in)
        return self

    def named_lifetime(self) -> tuple[str, str] | None:
        """The argument and the path by which somebody says where the lifetime stands."""
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
        # Some APIs show the header as it is to be sent.
        return token.removeprefix("Bearer ") if self.token.startswith("header:") else token

    def lifetime_in(self, reply: Reply, requested_at: float) -> object:
        """The lifetime in seconds, whatever the server wrote; ``None`` if it is not there.

        :param requested_at: when the request was about to be sent (POSIX timestamp in seconds).
        """
        if isinstance(self.expires_in, (int, float)):
            return self.expires_in
        lifetime = None if self.expires_in is None else pick(reply, self.expires_in)
        end = None if self.expires_at is None else moment(pick(reply, self.expires_at))
        if lifetime is None and end is not None:
            # By the server's clock, as long as it tells the time.
            return end - (moment(reply.headers.get("Date")) or requested_at)
        token = cookie(reply, self.token)
        if lifetime is None and token is not None and token.expires is not None:
            # By our clock: a Max-Age was added to it when the answer was read.
            return token.expires - time.time()
        return lifetime
