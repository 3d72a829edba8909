"""The helper threads of one keeper, and the work that they do for its callers.

All callers that need a renewal join the one in progress.  Other changes of the record are made by a
helper as well, so that no interrupt stops them between taking the lock and releasing it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

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

# Seconds that a change other than a renewal may take once it holds the lock.
_CHANGE_WITHIN: Final = 30.0


class RenewalWorker:
    """Renews, and changes the record, for callers that wait and callers that do not.

    :param tell: has an error say whose login it is about.
    :param renewal: returns the one :class:`Renewal`; called in the thread that uses it, since
        loading it takes time.
    :param on_refresh: called with each token that this process obtains, before waiting callers
        continue.
    :param lock_timeout: how many seconds to wait for the renewal of another process.
    :param is_inline: whether callers do the work in their own thread.
    """

    def __init__(
        self,
        store: TokenStore,
        grant: Grant,
        runtime: Runtime,
        journal: Journal,
        holder: TokenHolder,
        *,
        tell: Callable[[Exception], object],
        renewal: Callable[[], Renewal],
        on_refresh: Callable[[Token], object] | None,
        lock_timeout: float,
        is_inline: Callable[[], bool],
    ) -> None:
        self._store = store
        self._grant = grant
        self._runtime = runtime
        self._journal = journal
        self._holder = holder
        self._tell = tell
        self._renewal = renewal
        self._on_refresh = on_refresh
        self._lock_timeout = lock_timeout
        self.flight: SingleFlight[Outcome | None] = SingleFlight(runtime, is_inline=is_inline)
        self._has_loaded = False
        self._emitted: tuple[type[BaseException], bool] | None = None

    def load(self) -> None:
        """Import what renewals need, before the first one.

        These are our modules, and whatever the store's lock and the grant import in ``load()``.
        """
        if self._has_loaded:
            return
        # An import that fails here fails again where it is needed, and is reported there.
        with importing(), suppress(Exception):
            load(messages, renewal, shutdown)
            record.load()
            for one in (self._store.lock(), self._grant):
                own = getattr(one, "load", None)
                if own is not None:
                    own()
        self._has_loaded = True

    def begin(self, request: RenewalRequest, seen: View | None) -> None:
        """Begin a renewal in the background, unless one is in progress.

        :param seen: a recent view of the slot, if there is one.
        """
        self.flight.join(partial(self._work, request, seen))

    def join(self, request: RenewalRequest, seen: View | None, end: float, slack: float) -> Outcome:
        """Wait for a renewal that meets *request*: the one in progress, or a new one.

        :param seen: a recent view of the slot, if there is one.
        :param end: when to stop waiting, by the monotonic clock.
        :param slack: seconds that the helper may take beyond *end* to report a timeout.
        :raises TokenError: if there is no token that meets *request*.
        """
        began = self._runtime.monotonic() if request.since is None else request.since
        if request.context is None:
            request = request._replace(context=contextvars.copy_context())
        while True:
            run = self.flight.join(partial(self._work, request, seen))
            seen = None  # out of date for the next run
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
        """Do *work* in a helper of its own, apart from the renewals, and wait for it.

        :raises LockTimeout: if another thread or process holds the lock for too long.
        """
        under_way = self.flight.under_way()
        if under_way is not None and under_way.is_mine():
            raise messages.reentrant_call()
        began = self._runtime.monotonic()
        results: list[T] = []

        def do(run: Run[Any]) -> None:
            self.load()
            try:
                results.append(work(self._renewal()))
            except Exception as error:
                self._tell(error)
                raise

        run = self.flight.aside(do)
        # The helper waits for the lock for at most that long, and ends soon after.
        self._wait(run, began + self._lock_timeout + _CHANGE_WITHIN, began)
        run.result()
        return results[0]

    def forget_failure(self) -> None:
        """Emit an event for the next failure, even if the last failure was of the same kind."""
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
        self, request: RenewalRequest, seen: View | None, run: Run[Outcome | None]
    ) -> Outcome | None:
        """What the helper thread does."""
        try:
            with self._journal.on_behalf_of(request.context):
                outcome = self._performed(request, seen, run)
        except Exception:
            if request.waits:
                raise
            return None
        self._emitted = None
        if outcome is not None and outcome.minted and self._on_refresh is not None:
            try:
                self._on_refresh(outcome.token)
            except Exception as error:  # noqa: BLE001 - a callback may raise anything
                self._journal.emit("RefreshCallbackFailed", error=type(error).__name__)
                self._journal.trace("on_refresh raised", error)
        return outcome

    def _performed(
        self, request: RenewalRequest, seen: View | None, run: Run[Outcome | None]
    ) -> Outcome | None:
        try:
            self.load()
            return self._renewal().perform(request, run, seen)
        except Exception as error:
            self._tell(error)
            is_raised = request.waits and self._holder.alive(request.rejected) is None
            self._emit_failure(error, is_raised=is_raised)
            raise

    def _emit_failure(self, error: Exception, *, is_raised: bool) -> None:
        kind = type(error), is_raised
        if kind == self._emitted:
            return  # during an outage, every request comes here
        self._emitted = kind
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
