"""The flow of a request whose token was refused: pure decisions, without I/O.

Most requests never come here: they are sent with a fresh token, and the answer goes to the caller.
After a refusal, what is known of the refused token decides what follows:

=======================================  ==========================================================
the refused token                        what follows
=======================================  ==========================================================
has a successor in the store             replay with that one, without a renewal, at most twice
may have expired                         renew, and replay
was renewed for this request, or is the  hand the refusal on: a renewal would bring another token
newest and was refused before            that is refused, and no request causes two renewals
was sent with a proof that was refused   send again with the same token and a new proof, once for
                                         each token
=======================================  ==========================================================

The body must be sent again in full, or the refusal is handed on.  ``max_replays`` counts the
replays after a renewal.  A number above 1 repeats the replay, with the same token, for a verdict of
the program's own only.

:func:`after_refusal` yields one step at a time.  A client carries out the step, and sends back what
came of it.  A client decides nothing: clients differ only in their requests, sockets and event
loops.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import IntEnum
from typing import Any, Final, NamedTuple, Self, TypeAlias

from tokenadapter.token import Token

__all__ = ["Distrust", "HandOn", "Obtain", "Rewind", "Send", "Step", "Verdict", "after_refusal"]

# How often a request may be sent again with tokens that other processes obtained meanwhile, before
# it has one renewed itself.
_MOST_ADOPTIONS: Final = 2
# What to look at if a token is refused although nothing can have ended it yet.
_IF_NEW: Final = (
    "see that it is one for this API (scope, resource, audience), and sent as the API wants it "
    "(header, scheme)"
)


class Verdict(IntEnum):
    """What an answer means for the token that the request was sent with."""

    HAND_ON = 0
    """Nothing: the answer is the caller's."""
    RENEW = 1
    """The token is dead: another one can help."""
    SEND_AGAIN = 2
    """The token is good, and the proof that went with it is not (RFC 9449 section 9)."""

    @classmethod
    def of(cls, said: object) -> Self:
        """What a verdict function *said*: a verdict, or whether the token is dead.

        :raises TypeError: if *said* is awaitable, which would always count as true.
        """
        if hasattr(said, "__await__"):
            raise TypeError(
                f"verdict returned an awaitable ({type(said).__name__}), which this client does "
                "not await: return True, False or a Verdict."
            )
        return said if isinstance(said, cls) else cls(bool(said))


class Obtain(NamedTuple):
    """Obtain another token from the keeper.  Send back the token, and whether it was minted since
    the keeper was asked."""

    rejected: Token


class Distrust(NamedTuple):
    """Record that the API refused a new token.  Send back its successor, or ``None``."""

    token: Token


class Rewind(NamedTuple):
    """Make the body ready to be sent again.  Send back why that is impossible, or ``None``."""


class Send(NamedTuple):
    """Finish the refusal, and send the request again.  Send back the verdict on the answer."""

    token: Token


class HandOn(NamedTuple):
    """Give the last answer to the caller.  This is the last step."""

    reason: str | None = None
    """Why a refusal is not acted on; ``None`` if the answer is no refusal."""


Step: TypeAlias = Obtain | Distrust | Rewind | Send | HandOn


def after_refusal(
    token: Token,
    verdict: Verdict = Verdict.RENEW,
    *,
    is_new: bool,
    max_replays: int,
    is_own: bool,
) -> Generator[Step, Any, None]:
    """The steps after *verdict* on an answer to a request that was sent with *token*.

    :param is_new: whether the token was minted for this very request.
    :param max_replays: how often the request is sent again after a renewal.
    :param is_own: whether the verdict is the program's own, which may be met again.
    """
    most = max_replays if is_own else min(max_replays, 1)
    replays = most if is_new and not is_own else 0
    adoptions = proofs = 0
    while True:
        if verdict is Verdict.SEND_AGAIN:
            proofs += 1
            if proofs > 1:
                yield HandOn("the proof that goes with the token was refused twice")
                return
        elif not is_new:
            refused = token
            token, is_new = yield Obtain(refused)
            proofs = 0
            if token.is_same(refused):
                yield HandOn(f"the token was refused when it was new: {_IF_NEW}")
                return
            if most <= 0:
                yield HandOn("max_replays is 0")
                return
            replays += is_new
            adoptions += not is_new
            if adoptions > _MOST_ADOPTIONS:
                yield HandOn("every token of others was refused too")
                return
        else:
            if replays >= most:
                newer = yield Distrust(token)
                adoptions += 1
                if newer is None or most <= 0 or adoptions > _MOST_ADOPTIONS:
                    yield HandOn(f"the token was refused although it is new: {_IF_NEW}")
                    return
                token, proofs = newer, 0
            replays += 1
        trouble = yield Rewind()
        if trouble is not None:
            yield HandOn(f"the request cannot be sent again: {trouble}")
            return
        verdict = yield Send(token)
        if verdict is Verdict.HAND_ON:
            yield HandOn()
            return
