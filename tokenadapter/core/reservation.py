"""Reservations: when many processes wait for a renewal at once, one renews and the others wait.

Without reservations, each process would load the code for renewals, start a helper thread and try
the lock, all before the first process has sent a token request.  So a process first *reserves* the
renewal, if the store supports that, which costs very little.  In each of the other processes, the
first thread that needs the token waits in place until the token is there.

A reservation excludes no one; the lock does that.  Other processes respect it for a limited time.
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

# Seconds for which reservations of other processes are respected, but at most half of the caller's
# time: the other half is for a renewal of its own.
_BELIEVED: Final = 5.0
# Seconds between the first glimpses; later a tenth of the time waited so far.  Each glimpse takes
# time from the process that renews.
_FIRST_PAUSE: Final = 0.005

_Settle: TypeAlias = Callable[[View, View], Outcome | None]
_Reservation: TypeAlias = AbstractContextManager[object]
_Reserve: TypeAlias = Callable[[], _Reservation | None]


class _Suppressing:
    """A reservation whose errors are suppressed."""

    def __init__(self, reservation: _Reservation) -> None:
        self._reserve = reservation

    def __enter__(self) -> None:
        with suppress(Exception):
            self._reserve.__enter__()

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):
            self._reserve.__exit__(None, None, None)


class Reservations:
    """The reservations of this process for renewals of one slot.

    :param look: reads the slot, and takes its token if it can be used; ``None`` if that fails.
    :param is_renewing: whether this process is renewing, so that the caller can join the renewal.
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
        self._reserve: _Reserve | None = getattr(slot.store, "reserve", None)
        # The one thread that may wait here; others join or begin a renewal.  A dict, because its
        # setdefault is atomic without a lock, which signal handlers require.
        self._turn: dict[str, object] = {}

    @contextmanager
    def before_renewing(
        self, seen: View | None, end: float, settle: _Settle
    ) -> Iterator[tuple[View | None, Outcome | None]]:
        """Reserve a renewal for the duration of a block, or wait for the process that has.

        :param seen: a recent view of the slot, if there is one.
        :param end: when the time of the caller is over, by the monotonic clock.
        :param settle: computes from the last and the first view the outcome, if no renewal is
            needed any more.
        :returns: yields the last view, and that outcome.
        """
        me = object()
        try:
            if self._reserve is None or self._turn.setdefault("mine", me) is not me:
                yield seen, None
                return
            view, outcome, reservation = self._wait(self._reserve, seen, end, settle)
            with reservation or nullcontext():
                yield view, outcome
        finally:
            if self._turn.get("mine") is me:
                del self._turn["mine"]

    def reset(self) -> None:
        """Forget the waiting thread: a forked child has no other threads."""
        self._turn.clear()

    def _wait(
        self, reserve: _Reserve, seen: View | None, end: float, settle: _Settle
    ) -> tuple[View | None, Outcome | None, _Reservation | None]:
        """Wait for a reservation or a token: the last view, the outcome, and the reservation."""
        runtime, view, first = self._runtime, seen, seen
        began = runtime.monotonic()
        end = began + min(_BELIEVED, (end - began) / 2)
        while True:
            reservation = _taken(reserve)
            # The previous owner of the reservation may have written a token.
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
            pause = min(max(_FIRST_PAUSE, (now - began) / 10), self._slot.store.poll[1])
            runtime.sleep(min(pause, end - now))

    def _is_idle(self, view: View, first: View) -> bool:
        """Whether no process is renewing: the owner has given up, or the record forbids it."""
        record, now = view.record, self._slot.now(view)
        if view is not first and record.intent is None:
            return True
        since = -inf if record.token is None else record.token.issued_at
        return any(
            backoff is not None and backoff.remaining(now) > 0
            for backoff in (record.backoff, record.distrust)
        ) or any(stone.at > since for stone in record.tombstones)


def _taken(reserve: _Reserve) -> _Reservation | None:
    """A reservation; ``None`` if another process has it."""
    try:
        reservation = reserve()
    except Exception:  # noqa: BLE001 - reservations are optional
        return nullcontext()
    return None if reservation is None else _Suppressing(reservation)
