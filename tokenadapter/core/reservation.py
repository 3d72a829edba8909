"""Claims: of many processes that need a renewal at once, all but the first leave it to that one.

Each of them would load what renewals need, start a helper thread and try the lock, all before the
first one has even asked for a token.  So whoever needs a renewal *claims* it beforehand, where the
store has such a thing, at next to no cost.  Of each of the other processes the first thread that
needs the token waits where it is until the token is there.

A claim excludes nobody: that is what the lock is for.  It is believed for a while only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from math import inf
from typing import Final, TypeAlias

from tokenadapter.core.held_token import Outcome
from tokenadapter.core.runtime import Machine
from tokenadapter.core.slot import Slot, View

__all__ = ["Claims"]

# Seconds for which the claims of others are believed, if half of the time that there is is not
# less: the other half is for a renewal.
_BELIEVED: Final = 5.0
# Seconds between two glimpses at first; then a tenth of what was waited: each takes time from
# whoever renews.
_PAUSE: Final = 0.005

_Settle: TypeAlias = Callable[[View, View], Outcome | None]
_Claim: TypeAlias = AbstractContextManager[object]


class _Quietly:
    """A claim whose own errors are of no account."""

    def __init__(self, claim: _Claim) -> None:
        self._claim = claim

    def __enter__(self) -> None:
        with suppress(Exception):
            self._claim.__enter__()

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):
            self._claim.__exit__(None, None, None)


class Claims:
    """The claims of this process on the renewals of one slot.

    :param look: looks into the slot, and takes the token there if it can be used; ``None`` if
        that fails.
    :param is_renewing: whether a renewal of this process is under way: it is joined.
    """

    def __init__(
        self,
        slot: Slot,
        machine: Machine,
        look: Callable[[], View | None],
        is_renewing: Callable[[], bool],
    ) -> None:
        self._slot = slot
        self._machine = machine
        self._look = look
        self._is_renewing = is_renewing
        self._claim: Callable[[], _Claim | None] | None = getattr(slot.store, "claim", None)
        # Whose turn it is to wait: at most one, and all others join or begin a renewal.  A dict,
        # because its setdefault is atomic without a lock, for signal handlers.
        self._turn: dict[str, object] = {}

    @contextmanager
    def before_renewing(
        self, seen: View | None, end: float, settle: _Settle
    ) -> Iterator[tuple[View | None, Outcome | None]]:
        """Have a renewal claimed for the time of a block, or wait for whoever has.

        :param seen: what was in the slot just now, if somebody has looked.
        :param end: when the time of the caller is over, by the monotonic clock.
        :param settle: of what was seen last and what was seen first: the outcome, if no renewal is
            needed any more.
        :returns: for the block: what was seen last, and that outcome.
        """
        me = object()
        try:
            if not self.exist or self._turn.setdefault("mine", me) is not me:
                yield seen, None
                return
            view, outcome, claim = self._wait(seen, end, settle)
            with claim or nullcontext():
                yield view, outcome
        finally:
            if self._turn.get("mine") is me:
                del self._turn["mine"]

    @property
    def exist(self) -> bool:
        """Whether the store has such."""
        return self._claim is not None

    def are_taken(self) -> bool:
        """Whether another is about to renew, as far as is known: then no helper need look."""
        claim = self.take()
        if claim is None:
            return True
        with claim:
            return False

    def take(self) -> _Claim | None:
        """The claim; ``None`` if another has it.  Of what cannot be claimed all have it."""
        if self._claim is None:
            return nullcontext()
        try:
            claim = self._claim()
        except Exception:  # noqa: BLE001 - it is of no more account than that
            return nullcontext()
        return None if claim is None else _Quietly(claim)

    def take_anyhow(self) -> _Claim:
        """The claim if it is to be had: whoever comes by it is not kept from anything."""
        return self.take() or nullcontext()

    def reset(self) -> None:
        """This is a forked child, where no other thread is."""
        self._turn.clear()

    def _wait(
        self, seen: View | None, end: float, settle: _Settle
    ) -> tuple[View | None, Outcome | None, _Claim | None]:
        """Wait for a claim, or for a token: what was seen last, the outcome, and the claim."""
        machine, view, first = self._machine, seen, seen
        began = machine.monotonic()
        end = began + min(_BELIEVED, (end - began) / 2)
        while True:
            claim = self.take()
            # What whoever had it has written is to be seen by now.
            if view is None or self._slot.has_changed(view):
                view = self._look()
            if view is None:
                return None, None, claim
            first = first or view
            outcome = settle(view, first)
            now = machine.monotonic()
            is_over = outcome is not None or claim is not None or now >= end
            if is_over or self._is_renewing() or self._is_idle(view, first):
                return view, outcome, claim
            pause = min(max(_PAUSE, (now - began) / 10), self._slot.store.poll[1])
            machine.sleep(min(pause, end - now))

    def _is_idle(self, view: View, first: View) -> bool:
        """Whether nobody renews: they have given up, or the record says that it would not help."""
        record, now = view.record, self._slot.now(view)
        if view is not first and record.intent is None:
            return True
        since = -inf if record.token is None else record.token.issued_at
        return any(
            hold is not None and hold.remaining(now) > 0 for hold in (record.hold, record.distrust)
        ) or any(stone.at > since for stone in record.tombstones)
