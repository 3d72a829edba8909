"""Pure decisions about time: how fresh a token is, and how long to back off after a failure.

Three states, for a token of lifetime L:

=========  ==============================================  =====================================
state      begins                                          what callers do
=========  ==============================================  =====================================
fresh      when the token is issued                        use it: no lock, no I/O
stale      *soft* seconds before its end                   one renews, the others use it
expired    *hard* seconds before its end                   all wait for the renewal
=========  ==============================================  =====================================

``hard = min(60 s, L/10)`` allows for the duration of a request and for a clock that is slightly
wrong.  ``soft = min(15 min, max(L/5, 2 hard)) x U`` leaves time to renew before a caller has to
wait.  U is drawn once per token and process, so that processes that share a token do not all renew
it at the same time.  U is from [0.5, 1] if L is over 10 minutes, where hard is small compared with
soft, else from [0.75, 1].
"""

from __future__ import annotations

from typing import Final

__all__ = ["RETRY_AFTER_LIMIT", "backoff_duration", "windows"]

# Seconds: the longest Retry-After that is honoured.
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
    """How long to back off after the consecutive failure number *step* (from 1), in seconds.

    5 s, doubled at each step, with a jitter of 50 %, and at most 60 s.

    :param u: a random number from [0, 1].
    """
    return min(_LONGEST_STEP, _FIRST_STEP * 2.0 ** min(step - 1, 10) * (0.5 + u))
