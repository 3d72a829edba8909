"""A clock that stands still until the test moves it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tokenadapter.core.held_token import TokenHolder

_Clock = Callable[[], float]


class FrozenClock:
    """A clock that stands still until it is moved.  The context manager installs it::

        with FrozenClock() as clock:
            session.get(url)
            clock.move(3600)          # the token is an hour old now
            session.get(url)

    In the whole process, :func:`time.time` then returns the time of this clock, and so do the
    clocks of adapters, keepers, stores and token servers, even if they were created before the
    block.  Waits last real seconds; a move looks to them as if the machine had slept.  Other clocks
    are not affected: those of other processes, of database servers, and of
    :class:`datetime.datetime`, for which there is the package ``time-machine``.

    A call of the clock returns its time, also outside of the block.

    :param now: the initial time as a POSIX timestamp in seconds; by default the time of creation.
    """

    def __init__(self, now: float | None = None) -> None:
        self._now = time.time() if now is None else now
        self._moved = 0.0
        self._lock = threading.Lock()
        self._undo = ExitStack()

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"<FrozenClock {self._now:.3f}>"

    def move(self, seconds: float) -> None:
        """Move the clock forward.

        :raises ValueError: if *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError("the clock moves only forward")
        with self._lock:
            self._now += seconds
            self._moved += seconds

    def __enter__(self) -> Self:
        from tokenadapter.core.held_token import TokenHolder
        from tokenadapter.core.runtime import Runtime

        if isinstance(time.time, FrozenClock):
            raise RuntimeError("another FrozenClock is in place")
        wall, monotonic = Runtime.wall, Runtime.monotonic

        def on_monotonic() -> float:
            return monotonic() + self._moved

        with ExitStack() as undo:
            _put(undo, time, "time", self)
            _put(undo, Runtime, "wall", staticmethod(self))
            _put(undo, Runtime, "monotonic", staticmethod(on_monotonic))
            # They remember their clocks, to look at them fast.
            _put(undo, TokenHolder, "_wall", _Swap("_wall", wall, self))
            _put(undo, TokenHolder, "_monotonic", _Swap("_monotonic", monotonic, on_monotonic))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()


class _Swap:
    """A data descriptor: reading the real clock returns the frozen one, which is never stored."""

    def __init__(self, name: str, real: _Clock, frozen: _Clock) -> None:
        self._name = name
        self._real = real
        self._frozen = frozen

    def __get__(self, holder: TokenHolder, owner: type[TokenHolder]) -> _Clock:
        clock: _Clock = vars(holder)[self._name]
        return self._frozen if clock is self._real else clock

    def __set__(self, holder: TokenHolder, clock: _Clock) -> None:
        vars(holder)[self._name] = self._real if clock is self._frozen else clock


def _put(undo: ExitStack, owner: Any, name: str, stand_in: object) -> None:
    """Set an attribute until *undo* is closed."""
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, stand_in)
