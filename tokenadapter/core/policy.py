"""Pure decisions about time: how fresh a token is, and how long to hold off after a failure.

Three states, for a token of lifetime L:

=========  ==============================================  =====================================
state      from                                            what callers do
=========  ==============================================  =====================================
fresh      its issue                                       use it: no lock, no I/O
stale      *soft* seconds before its end                   one renews, everyone else goes on
expired    *hard* seconds before its end                   everyone waits for the renewal
=========  ==============================================  =====================================

``hard = min(60 s, L/10)`` covers the flight of a request and a clock that is a little off.
``soft = min(15 min, max(L/5, 2 hard)) x U`` leaves time to renew before anyone has to wait; U is
drawn once per token and process, so that processes that got a token together do not all come for
the next one together.  U is from [0.5, 1] where hard is small beside soft (L over 10 minutes),
else from [0.75, 1].
"""

from __future__ import annotations

from typing import Final

__all__ = ["RETRY_AFTER_LIMIT", "backoff_duration", "windows"]

# Seconds: the longest wait that a server's Retry-After can ask of us.
RETRY_AFTER_LIMIT: Final = 3600.0

_FIRST_STEP: Final = 5.0
_LONGEST_STEP: Final = 60.0


def windows(lifetime: float, u: float) -> tuple[float, float]:
    """How many seconds before its end a token turns stale, and expired.

    :param lifetime: the token's whole lifetime, in seconds.
    :param u: a number from [0, 1], drawn once per token and process.
    :returns: ``(soft, hard)`` in seconds.
    """
    hard = min(60.0, lifetime / 10)
    least = 0.5 if lifetime > 600 else 0.75
    soft = min(900.0, max(lifetime / 5, 2 * hard)) * (least + (1 - least) * u)
    return soft, hard


def backoff_duration(step: int, u: float) -> float:
    """How long to hold off after failure number *step* (from 1) in a row, in seconds.

    5 s, doubled each time, at most 60 s, and spread by half either way.

    :param u: a number from [0, 1], drawn anew each time.
    """
    return min(_LONGEST_STEP, _FIRST_STEP * 2.0 ** min(step - 1, 10) * (0.5 + u))
