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
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import Slot, View

__all__ = ["Reservations"]

# Seconds for which the claims of others are believed, if half of the time that there is is not
# less: the other half is for a renewal.
_BELIEVED: Final = 5.0
# Seconds between two glimpses at first; then a tenth of what was waited: each takes time from
# whoever renews.
_PAUSE: Final = 0.005

_Settle: TypeAlias = Callable[[View, View], Outcome | None]
_Reservation: TypeAlias = AbstractContextManager[object]


class _Quietly:
    """A claim whose own errors are of no account."""

    def __init__(self, reservation: _Reservation) -> None:
        self._reserve = reservation

    def __enter__(self) -> None:
        with suppress(Exception):
            self._reserve.__enter__()

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):
            self._reserve.__exit__(None, None, None)


class Reservations:
    """The claims of this process on the renewals of one slot.

    :param look: looks into the slot, and takes the token there if it can be used; ``None`` if
        that fails.
    :param is_renewing: whether a renewal of this process is under way: it is joined.
    """

    def __init__(
        self,
        slot: Slot,
        runtime: Runtime,
        look: Callable[[], View | None],
        is_renewing: Callable[[], bool],
    ) -> None:
        self._slot = slot
        self._runtime = runtime
        self._look = look
        self._is_renewing = is_renewing
        self._reserve: Callable[[], _Reservation | None] | None = getattr(
            slot.store, "reserve", None
        )
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
            view, outcome, reservation = self._wait(seen, end, settle)
            with reservation or nullcontext():
                yield view, outcome
        finally:
            if self._turn.get("mine") is me:
                del self._turn["mine"]

    @property
    def exist(self) -> bool:
        """Whether the store has such."""
        return self._reserve is not None

    def are_taken(self) -> bool:
        """Whether another is about to renew, as far as is known: then no helper need look."""
        reservation = self.take()
        if reservation is None:
            return True
        with reservation:
            return False

    def take(self) -> _Reservation | None:
        """The claim; ``None`` if another has it.  Of what cannot be claimed all have it."""
        if self._reserve is None:
            return nullcontext()
        try:
            reservation = self._reserve()
        except Exception:  # noqa: BLE001 - it is of no more account than that
            return nullcontext()
        return None if reservation is None else _Quietly(reservation)

    def take_anyhow(self) -> _Reservation:
        """The claim if it is to be had: whoever comes by it is not kept from anything."""
        return self.take() or nullcontext()

    def reset(self) -> None:
        """This is a forked child, where no other thread is."""
        self._turn.clear()

    def _wait(
        self, seen: View | None, end: float, settle: _Settle
    ) -> tuple[View | None, Outcome | None, _Reservation | None]:
        """Wait for a claim, or for a token: what was seen last, the outcome, and the claim."""
        runtime, view, first = self._runtime, seen, seen
        began = runtime.monotonic()
        end = began + min(_BELIEVED, (end - began) / 2)
        while True:
            reservation = self.take()
            # What whoever had it has written is to be seen by now.
            if view is None or self._slot.has_changed(view):
                view = self._look()
            if view is None:
                return None, None, reservation
            first = first or view
            outcome = settle(view, first)
            now = runtime.monotonic()
            is_over = outcome is not None or reservation is not None or now >= end
            if is_over or self._is_renewing() or self._is_idle(view, first):
                return view, outcome, reservation
            pause = min(max(_PAUSE, (now - began) / 10), self._slot.store.poll[1])
            runtime.sleep(min(pause, end - now))

    def _is_idle(self, view: View, first: View) -> bool:
        """Whether nobody renews: they have given up, or the record says that it would not help."""
        record, now = view.record, self._slot.now(view)
        if view is not first and record.intent is None:
            return True
        since = -inf if record.token is None else record.token.issued_at
        return any(
            backoff is not None and backoff.remaining(now) > 0
            for backoff in (record.backoff, record.distrust)
        ) or any(stone.at > since for stone in record.tombstones)
