"""What helper threads do for the callers of one keeper.

A renewal is for all callers who request one: they join the one that is under way.  What changes the
record besides is done by a helper too, since no interrupt stops that between a lock and its
release.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from tokenadapter.core import record
from tokenadapter.core.held_token import Outcome, RenewalRequest, TokenHolder
from tokenadapter.core.journal import Journal
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.single_flight import Run, SingleFlight
from tokenadapter.core.slot import View
from tokenadapter.late_imports import importing, late, load
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.core import messages, renewal, shutdown
    from tokenadapter.core.renewal import Renewal
    from tokenadapter.protocols import Grant, TokenStore
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")
    renewal = late("tokenadapter.core.renewal")
    shutdown = late("tokenadapter.core.shutdown")

__all__ = ["RenewalWorker"]

T = TypeVar("T")
_Reserving: TypeAlias = Callable[[], AbstractContextManager[object] | None]

# Seconds that a change beside the renewals may take when it has the lock.
_CHANGE_WITHIN: Final = 30.0


class RenewalWorker:
    """Renews, and changes the record, on behalf of callers who wait for it, or do not.

    :param renewal: gives what does them, always the same; called by the thread that does one, since
        it takes its time to load.
    :param on_refresh: called with each token that was minted here, before those who wait go on.
    :param lock_timeout: for how many seconds to wait for another's renewal.
    :param inline: whether the callers do it themselves.
    """

    def __init__(
        self,
        store: TokenStore,
        grant: Grant,
        runtime: Runtime,
        journal: Journal,
        holder: TokenHolder,
        *,
        renewal: Callable[[], Renewal],
        on_refresh: Callable[[Token], object] | None,
        lock_timeout: float,
        inline: bool,
    ) -> None:
        self._store = store
        self._grant = grant
        self._runtime = runtime
        self._journal = journal
        self._holder = holder
        self._renewal = renewal
        self._on_refresh = on_refresh
        self._lock_timeout = lock_timeout
        self.flight: SingleFlight[Outcome | None] = SingleFlight(runtime, inline=inline)
        self._has_loaded = False
        self._emitted: tuple[type[BaseException], bool] | None = None

    def load(self) -> None:
        """Import what renewals need, before the first one.

        That is what all need, and what the lock of the store and the grant import in a ``load()``.
        """
        if self._has_loaded:
            return
        # What fails here fails again where it is needed, and is told there.
        with importing(), suppress(Exception):
            load(messages, renewal, shutdown)
            record.load()
            for one in (self._store.lock(), self._grant):
                own = getattr(one, "load", None)
                if own is not None:
                    own()
        self._has_loaded = True

    def begin(self, request: RenewalRequest, seen: View | None, reservation: _Reserving) -> None:
        """Begin a renewal that nobody waits for, unless one is under way.

        :param seen: what was in the slot just now, if somebody has looked.
        :param claim: claims it; ``None`` if another has done so, who sees to it.
        """
        self.flight.join(partial(self._work, request, seen, reserve=reservation))

    def join(self, request: RenewalRequest, seen: View | None, end: float, slack: float) -> Outcome:
        """Wait for a renewal that meets *request*: the one under way, or one that begins now.

        :param seen: what was in the slot just now, if somebody has looked.
        :param end: when the time to wait is over, by the monotonic clock.
        :param slack: seconds for which a helper may be late to say so.
        :raises TokenError: if there is no token that meets it.
        """
        began = self._runtime.monotonic() if request.since is None else request.since
        while True:
            run = self.flight.join(partial(self._work, request, seen))
            seen = None  # by the next one it may be out of date
            self._wait(run, end + slack, began)
            is_saving = self.flight.under_way() is run
            try:
                outcome = run.result()
            except Exception as error:
                if self._has_time_left(error, end):
                    continue
                raise
            if outcome is None:
                continue
            is_rejected = outcome.token.is_same(request.rejected)
            if is_saving and (is_rejected or self._holder.left() <= 0):
                raise messages.not_saved(self._store)
            if outcome.distrusted or not is_rejected:
                return outcome

    def aside(self, work: Callable[[Renewal], T]) -> T:
        """Do *work* beside the renewals, and wait for it.

        :raises LockTimeout: if others hold the lock for too long.
        """
        under_way = self.flight.under_way()
        if under_way is not None and under_way.is_mine():
            raise messages.reentrant_call()
        began = self._runtime.monotonic()
        results: list[T] = []

        def do(run: Run[Any]) -> None:
            self.load()
            results.append(work(self._renewal()))

        run = self.flight.aside(do)
        # It has waited for the lock for so long at most, and is done soon after.
        self._wait(run, began + self._lock_timeout + _CHANGE_WITHIN, began)
        run.result()
        return results[0]

    def forget_failure(self) -> None:
        """The next failure is told, whatever was told before."""
        self._emitted = None

    def _wait(self, run: Run[Any], end: float, began: float) -> None:
        if not run.is_settled() and run.is_mine():
            raise messages.reentrant_call()
        if not run.wait(end - self._runtime.monotonic()):
            raise messages.renewal_timed_out(self._store, end - began)

    def _has_time_left(self, error: Exception, end: float) -> bool:
        """Whether *error* says only that an earlier caller's time to wait was over."""
        is_over = self._runtime.monotonic() >= end or self._runtime.exiting()
        return isinstance(error, errors.LockTimeout) and not is_over

    def _work(
        self,
        request: RenewalRequest,
        seen: View | None,
        run: Run[Outcome | None],
        reserve: _Reserving = nullcontext,
    ) -> Outcome | None:
        """What the helper thread does."""
        reserved = reserve()
        if reserved is None:
            return None
        try:
            with reserved:
                self.load()
                outcome = self._renewal().perform(request, run.settle, seen)
        except Exception as error:
            self._emit_failure(error, is_raised=request.waits and not self._can_do_without(request))
            if request.waits:
                raise
            return None
        self._emitted = None
        if outcome is not None and outcome.minted and self._on_refresh is not None:
            try:
                self._on_refresh(outcome.token)
            except Exception as error:  # noqa: BLE001 - it is the program's, and told
                self._journal.emit("RefreshCallbackFailed", error=type(error).__name__)
                self._journal.trace("on_refresh raised", error)
        return outcome

    def _can_do_without(self, request: RenewalRequest) -> bool:
        """Whether the token in hand does for whoever has *request*: no error is raised then."""
        held = self._holder.held
        is_good = held is not None and not held.token.is_same(request.rejected)
        return is_good and self._holder.left() > 0

    def _emit_failure(self, error: Exception, *, is_raised: bool) -> None:
        told = type(error), is_raised
        if told == self._emitted:
            return  # once is enough: during an outage every request comes here
        self._emitted = told
        reason = getattr(error, "reason", None)
        if reason is not None:
            self._journal.emit("ReauthNeeded", is_raised=is_raised, reason=reason, error=str(error))
        else:
            self._journal.emit(
                "RenewalFailed",
                is_raised=is_raised,
                error=str(error),
                retry_at=getattr(error, "retry_at", None),
            )
