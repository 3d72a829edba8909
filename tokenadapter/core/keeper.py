"""The heart: keeps the token of one slot usable, for every thread of this process.

Most calls find that the held token is fresh and leave at once.  All others go the same way: they
join the one renewal of this process (:mod:`tokenadapter.core.worker`), which joins the one renewal
of all processes (:mod:`tokenadapter.core.renewal`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast
from weakref import WeakSet

from tokenadapter.core.held_token import HeldToken, Outcome, RenewalRequest, TokenHolder
from tokenadapter.core.runtime import RUNTIME, Runtime
from tokenadapter.core.slot import Slot, View
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Account, checked_store, longest_timeout

if TYPE_CHECKING:
    import contextvars
    import copy
    from contextvars import Context

    from tokenadapter import errors, spelling
    from tokenadapter.core import (
        async_wait,
        function_grant,
        journal,
        messages,
        pickling,
        renewal,
        reservation,
    )
    from tokenadapter.core import login_state as login_states
    from tokenadapter.core import worker as workers
    from tokenadapter.core.async_wait import SharedCalls
    from tokenadapter.core.journal import Journal
    from tokenadapter.core.login_state import LoginState
    from tokenadapter.core.renewal import Renewal
    from tokenadapter.core.reservation import Reservations
    from tokenadapter.core.worker import RenewalWorker
    from tokenadapter.errors import ReauthRequired
    from tokenadapter.events import Event
    from tokenadapter.protocols import Grant, TokenSource, TokenStore
    from tokenadapter.stores import memory, urls
else:
    async_wait = late("tokenadapter.core.async_wait")
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")
    reservation = late("tokenadapter.core.reservation")
    contextvars = late("contextvars")
    copy = late("copy")
    login_states = late("tokenadapter.core.login_state")
    workers = late("tokenadapter.core.worker")
    function_grant = late("tokenadapter.core.function_grant")
    journal = late("tokenadapter.core.journal")
    memory = late("tokenadapter.stores.memory")
    pickling = late("tokenadapter.core.pickling")
    renewal = late("tokenadapter.core.renewal")
    spelling = late("tokenadapter.spelling")
    urls = late("tokenadapter.stores.urls")

__all__ = ["KEEPERS", "TokenKeeper"]

T = TypeVar("T")

# Seconds that a caller waits past the time for the lock: the helper may be late to say that it did
# not get the lock.
_LATENESS: Final = 1.0
# How often in the soft window a process looks again whether the token was renewed.
_LOOKS_PER_WINDOW: Final = 20


class TokenKeeper:
    """Keeps one slot's token usable: one renewal per expiry, for all who share the store.

    :param source: how a token is obtained: a grant such as
        :class:`~tokenadapter.ClientCredentials`, or a function of the previous token, which may be
        a coroutine function.
    :param store: where the token lives: a store, the path of a file, or the URL of a store
        (:func:`store_from_url <tokenadapter.store_from_url>`); without one, in the memory of this
        process, shared by all keepers of the very same grant.
    :param on_refresh: called with the new token once per renewal, by the process that did it,
        after the token is saved and before those who waited for it go on.  It runs in the helper
        thread; what it raises is logged, and costs no request.
    :param on_event: called with each event of :mod:`tokenadapter.events`, in the thread in which
        it happens; a request may wait for it.
    :param renew_early: whether to renew in the background before the token expires.  Turn it off
        for a server that kills the old token when it issues a new one.  By default on, unless the
        source knows better of its provider.
    :param lock_timeout: for how many seconds to wait for a renewal that another thread or process
        has under way.
    :param inline: whether the thread that needs a renewal performs it, because helper threads are
        not available; docs/concepts/freshness.md says what is lost.  A refresh token is presented
        so in any case if the process may leave or be frozen after a request, as a job of RQ or a
        function of AWS Lambda.
    :param advise: how a person logs in here, as a text such as ``"Open Settings > Connections."``,
        or a function of the :class:`~tokenadapter.ReauthRequired` that returns one.  The error has
        it as ``advice``, and in its message in place of the library's advice to log in.
    :param owner: whose tokens a plain function obtains, as names and texts; a record of another
        owner is refused.
    :param runtime: clocks and threads; tests pass their own.
    :raises TypeError: if an argument is not what it should be.
    :raises ValueError: if *lock_timeout* is not above 0, *store* is text that names no store, or
        the source's ``grace`` is too short for its timeout or for the lease of the store's lock.
    """

    def __init__(
        self,
        source: Grant | TokenSource,
        store: TokenStore | str | os.PathLike[str] | None = None,
        *,
        on_refresh: Callable[[Token], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        renew_early: bool | None = None,
        lock_timeout: float = 30.0,
        inline: bool = False,
        advise: str | Callable[[ReauthRequired], str] | None = None,
        owner: Mapping[str, str] | None = None,
        runtime: Runtime = RUNTIME,
    ) -> None:
        self.source = source
        # To ask isinstance() for the protocol would import inspect, from Python 3.12 on.
        if hasattr(source, "fetch") and not isinstance(source, type):
            self.grant: Grant = cast("Grant", source)
        else:
            self.grant = function_grant.function_grant(source, owner or {})
        if store is None:
            store = memory.own_store(self.grant)
        elif isinstance(store, (str, os.PathLike)):
            store = urls.store_from_url(store)
        self.store: TokenStore = checked_store("store", store)
        _check_grace(self.store, self.grant)
        callbacks = {"on_refresh": on_refresh, "on_event": on_event, "advise": advise}
        for name, callback in callbacks.items():
            if callback is not None and not (name == "advise" and isinstance(callback, str)):
                spelling.check_function(name, callback)
        if isinstance(lock_timeout, bool) or not isinstance(lock_timeout, (int, float)):
            raise TypeError(f"lock_timeout must be a number of seconds, not {lock_timeout!r}")
        if not lock_timeout > 0:
            raise ValueError(f"lock_timeout must be greater than 0 seconds, not {lock_timeout!r}")
        self.on_refresh = on_refresh
        self._on_event = on_event
        if renew_early is None:
            renew_early = getattr(self.grant, "renew_early", True)
        self.renew_early: bool = renew_early
        self.lock_timeout = lock_timeout
        self.inline = inline
        self._advise = advise
        self._owner = owner
        self._runtime = runtime
        self._spends: bool = getattr(self.grant, "spends", True)
        if self._spends:
            runtime.guard()  # in the main thread, perhaps for the only time
        self._holder = TokenHolder(runtime, self.grant.requested, early=renew_early)
        self._slot = Slot(self.store, self.grant, runtime)
        # What only renewals need is made by the first of them: many programs end before that.
        self._made: dict[str, Any] = {}
        self._has_glanced = False
        #: The held token if it is fresh: no lock, no I/O, two looks at the clock.
        self.fresh: Callable[[], Token | None] = self._holder.fresh
        self._look_again = 0.0
        KEEPERS.add(self)

    def __repr__(self) -> str:
        return f"<TokenKeeper of {self.store!r}>"

    # --- what clients and programs call --------------------------------------------------

    def current(self, *, timeout: float | None = None) -> Token:
        """A token that can be used now; renewed first if it has expired.

        While the token is stale, a renewal goes on in the background and nobody waits for it.

        :param timeout: seconds to wait at most; ``lock_timeout`` applies as well.
        :raises TokenError: if there is no usable token and none can be obtained.
        """
        return self.fresh() or self.obtain(timeout=timeout).token

    def renew(self, rejected: Token, *, timeout: float | None = None) -> Token:
        """Another token than *rejected*, which the API refused.

        If another thread or process renewed meanwhile, this is its token, and no second renewal
        follows.  If *rejected* itself is returned, a renewal would not help: the token was refused
        when it was new.

        :param timeout: as for :meth:`current`.
        :raises TokenError: if no other token can be obtained.
        """
        return self.obtain(rejected, timeout=timeout).token

    async def acurrent(self, *, timeout: float | None = None) -> Token:
        """:meth:`current` for a task of asyncio or trio, whose event loop goes on meanwhile.

        A token that is fresh is returned at once.  The tasks that need a renewal wait for one
        helper thread; a task that is cancelled leaves the renewal as it is.  A keeper that is
        *inline* has no helper threads: then the event loop waits too.

        :param timeout: as for :meth:`current`.
        :raises TokenError: as :meth:`current` does.
        """
        return self.fresh() or (await self.aobtain(timeout=timeout)).token

    async def arenew(self, rejected: Token, *, timeout: float | None = None) -> Token:
        """:meth:`renew` for a task of asyncio or trio, whose event loop goes on meanwhile.

        :param timeout: as for :meth:`current`.
        :raises TokenError: as :meth:`renew` does.
        """
        return (await self.aobtain(rejected, timeout=timeout)).token

    def obtain(
        self,
        rejected: Token | None = None,
        *,
        timeout: float | None = None,
        patient: bool = False,
        min_validity: float = 0.0,
        forced: bool = False,
        context: Context | None = None,
    ) -> Outcome:
        """What :meth:`current` and :meth:`renew` return, and how it was obtained.

        :param patient: wait for the renewal of a stale token, too.
        :param min_validity: renew a token that lives for fewer seconds than this.  If even a new
            token does, it is renewed when it is stale.
        :param forced: whether to renew *rejected* although the API did not refuse it.
        :param context: the context (``contextvars``) in which to call the source, in place of the
            caller's.
        """
        outcome, seen = self._held_outcome(rejected, patient, min_validity), None
        if outcome is None and not self._has_glanced:
            seen = self._glance()
            outcome = self._held_outcome(rejected, patient, min_validity)
        if outcome is not None:
            return outcome
        started = self._runtime.monotonic()
        patience = inf if timeout is None else timeout
        end = started + min(self.lock_timeout, patience)
        slack = min(_LATENESS, max(patience - self.lock_timeout, 0.0))
        if self._spends:
            self._runtime.guard()  # the program may have reset its signals
        until = end if self._is_inline() else None
        need = RenewalRequest(
            rejected, patient, min_validity, forced, since=started, until=until, context=context
        )
        try:
            with self._reservations.before_renewing(
                seen, end, partial(self._settle, need)
            ) as found:
                seen, outcome = found
                outcome = outcome or self._worker.join(need, seen, end, slack)
        except Exception as error:
            held = self._holder.alive(rejected)
            # An error of another kind is that of a signal handler, such as a job's time limit.
            if held is None or not isinstance(error, errors.TokenError):
                self.tell(error)
                raise
            # It is old, but it lives: this caller need not notice the failure.
            return Outcome(held.token, is_new=False)
        if outcome.is_new:
            with self.journal.on_behalf_of(context):
                self.journal.count("Waited", seconds=self._runtime.monotonic() - started)
        return outcome

    async def aobtain(
        self,
        rejected: Token | None = None,
        *,
        timeout: float | None = None,
        patient: bool = False,
    ) -> Outcome:
        """What :meth:`acurrent` and :meth:`arenew` return, and how it was obtained.

        :param patient: as for :meth:`obtain`.
        """
        outcome = self._outcome_at_hand(rejected, patient)
        if outcome is not None:
            return outcome
        if self.inline or self._is_renewed_here():
            return self.obtain(rejected, timeout=timeout, patient=patient)
        if self._spends:
            self._runtime.guard()  # here, and not in a helper: this may be the main thread
        refused = None if rejected is None else (rejected.access_token, rejected.issued_at)
        context = contextvars.copy_context()
        work = partial(self.obtain, rejected, patient=patient, context=context)
        if self._is_inline():
            # The process may end with the task, so the task waits for what the helper began.
            work = partial(work, timeout=timeout)
            return await self._calls.wait_for((refused, patient, timeout), work, None)
        key = refused, patient
        patience = inf if timeout is None else timeout
        began = self._runtime.monotonic()
        end = began + min(self.lock_timeout, patience)
        slack = min(2 * _LATENESS, max(patience - self.lock_timeout, 0.0))
        is_first = True
        while True:
            left = end + slack - self._runtime.monotonic()
            try:
                return await self._calls.wait_for(key, work, left)
            except TimeoutError:
                held = self._holder.alive(rejected)
                if held is None:
                    waited = self._runtime.monotonic() - began
                    late = messages.renewal_timed_out(self.store, waited)
                    raise self.tell(late) from None
                return Outcome(held.token, is_new=False)
            except errors.LockTimeout:
                # Perhaps only the time of a task that began to wait earlier was over.
                if not is_first or self._runtime.monotonic() >= end:
                    raise
                is_first = False

    async def adistrust(self, token: Token) -> Token | None:
        """:meth:`distrust` for a task of asyncio or trio.

        :meta private:
        """
        if self.inline:
            return self.distrust(token)
        key = "distrust", token.access_token, token.issued_at
        return await self._calls.wait_for(key, partial(self.distrust, token), inf)

    async def arun(self, work: Callable[[], T]) -> T:
        """Run *work* in a helper thread while a task of asyncio or trio waits.

        :meta private:
        """
        return work() if self.inline else await self._calls.wait_for(object(), work, inf)

    def refresh(self, *, timeout: float | None = None) -> Token:
        """Renew now, and forget earlier refusals and back-offs first.

        :param timeout: as for :meth:`current`.
        :raises TokenError: if that fails too.
        """
        stored = self._worker.aside(lambda renewal: renewal.clear_refusals())
        held = self._holder.held
        old = stored if held is None else held.token
        return self.obtain(old, timeout=timeout, forced=True).token

    def adopt(
        self,
        token: Token | Mapping[str, Any],
        *,
        account: Account | None = None,
        switch: bool = False,
    ) -> Token:
        """Put a token that was obtained elsewhere into the store.

        Call it after a new login, once :class:`~tokenadapter.ReauthRequired` was raised: every
        process that shares the store then uses the token.  Call it once to take over a token from
        another library's cache.

        A refresh token without an access token is presented to the server first, and replaces what
        is stored only if the server answers with a token: until then, and in case of any failure,
        the stored token stays as it is.

        :param token: a token, or a mapping with the keys of a token response, and perhaps
            ``expires_at`` (POSIX timestamp in seconds), and ``dpop_key``, the JWK of the key that
            it is bound to.  ``access_token`` may be missing if there is a ``refresh_token``.
        :param account: whose token it is, if a login has just shown that.
        :param switch: whether the token may replace one that is known to be of another account.
        :returns: the token as it is stored.
        :raises TypeError: if it is neither.
        :raises ValueError: if the mapping has neither a usable ``access_token`` nor a
            ``refresh_token`` that the source can present.
        :raises ReauthRequired: if the stored token is of another account than *account*: nothing is
            changed.
        :raises RefreshConfigError: if its refresh token was spent by a renewal since: nothing is
            changed.
        :raises TokenError: if the refresh token was presented, and the server did not answer with
            a token: what is stored is kept.
        :raises TokenNotPersisted: if it cannot be saved; then it is not used either.
        :raises LockTimeout: if a renewal is under way for too long.
        """
        if isinstance(token, Mapping):
            if "access_token" not in token and token.get("refresh_token"):
                return self._adopted(partial(_presented, token))
            token = Token.from_dict(token, now=self._runtime.wall())
        elif not isinstance(token, Token):
            raise TypeError(f"adopt() takes a Token or a mapping, not {type(token).__name__}")
        return self._adopted(lambda renewal: renewal.adopt(token, account, switch=switch))

    def _adopted(self, work: Callable[[Renewal], Outcome]) -> Token:
        adopted = self._worker.aside(work).token
        self._worker.forget_failure()
        self.journal.count("Adopted", token=adopted.fingerprint)
        return adopted

    def forget(self, revoke: Callable[[Token], object] | None = None) -> Token | None:
        """Empty the store's slot: no process that shares it can load a token any more.

        Spent refresh tokens stay remembered.  A process that holds the token goes on using
        it until it is stale, or until :meth:`look` is called.

        :param revoke: called with the token beforehand, while nobody can renew it; such as the
            ``revoke`` of an OAuth source with a ``revocation_url``.  If it raises, nothing is
            changed.
        :returns: the token that was there.
        :raises StoreError: if the slot cannot be written.
        :raises LockTimeout: if a renewal is under way for too long.
        """
        token = self._worker.aside(lambda renewal: renewal.forget(revoke))
        self._holder.drop()
        return token

    def distrust(self, token: Token) -> Token | None:
        """Record that the API refused *token* although it was new.

        For a while, no process that shares the store renews this token after a refusal: an API that
        refuses a new token refuses the next one too, and each costs a renewal.

        :returns: another token, if one was obtained since.
        """
        try:
            return self._worker.aside(lambda renewal: renewal.distrust(token))
        except Exception as error:  # noqa: BLE001 - the cost is one more renewal
            self.journal.trace("the refusal of a new token could not be recorded", error)
            return None

    def look(self) -> None:
        """Read the store once, and use the token that it contains now, or none after a logout.

        While its token is fresh, a keeper does not read the store.  The keeper uses that token even
        if another process has logged the user out, or has logged in another account.  Where this
        matters, as for a page of a web application, call this method first.  If the store cannot be
        read, nothing changes.
        """
        view, held = self._glance(), self._holder.held
        if view is None or held is None or not self._is_ours(view):
            return
        # A stored token that has expired is not taken, and that of another account may have.
        if not held.token.is_same(view.record.token) and self._holder.is_behind(view.record):
            self._holder.drop()

    def state(self) -> LoginState:
        """The state of the login, as the store shows it now, without a lock or a server.

        :raises StoreError: if the store cannot be read.
        :raises RefreshConfigError: if it contains the token of another owner.
        """
        try:
            view = self._slot.look()
        except Exception as error:
            self.tell(error)
            raise
        record, now = view.record, self._slot.now(view)
        if view.is_foreign:
            if not record.is_grant_over(now):
                raise self.tell(messages.other_first_token(self.store))
            # The configured refresh token is presented next.
            record = record.without_token(now)._replace(tombstones=())
        return login_states.login_state(record, now, self.grant)

    def tell(self, error: T) -> T:
        """Have *error* say whose login it is about, and how to log in here.

        :meta private:
        """
        if isinstance(error, errors.TokenError) and error.store is None:
            error.slot, error.store = _slot_name(self.store), self.journal.shown_store()
            error.account = self._slot.account
            error.profile = getattr(self.grant, "as_arguments", None)
            if isinstance(error, errors.ReauthRequired):
                error.advice = self._advice_on(error)
        return error

    def _advice_on(self, error: ReauthRequired) -> str | None:
        try:
            advice = self._advise(error) if callable(self._advise) else self._advise
        except Exception as failure:  # noqa: BLE001 - a callback may raise anything
            self.journal.trace("advise raised", failure)
            advice = None
        return str(advice) if advice else getattr(self.grant, "how_to_log_in", None)

    async def alook(self) -> None:
        """:meth:`look`, without blocking an event loop."""
        await self.arun(self.look)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no renewal of this process is under way, the save included.

        An interpreter that exits waits by itself; so do pools, servers, and signals that have no
        handler: docs/howto/processes.md lists them.  Call this method before ``os._exit()``,
        ``os.execv()`` or anything else that ends the process at once, and in a test before you
        look at the effects of a renewal in the background.  A signal handler that calls it may
        wait in vain for a renewal that needs a lock of the interrupted thread: call ``sys.exit()``
        there.

        :param timeout: seconds to wait at most.  ``None`` waits as long as it takes: for ever, if
            the token cannot be saved.
        :returns: ``False`` if a renewal is still under way, or if the renewal itself called this.
        """
        worker: RenewalWorker | None = self._made.get("worker")
        return worker is None or worker.flight.wait(inf if timeout is None else timeout)

    @property
    def stats(self) -> Mapping[str, int]:
        """How often each event of :mod:`tokenadapter.events` happened in this process."""
        return self.journal.counts

    @property
    def journal(self) -> Journal:
        """Emits events, and counts them.

        :meta private:
        """
        return self._once("journal", lambda: journal.Journal(self.store, self._on_event))

    @journal.setter
    def journal(self, journal: Journal) -> None:
        self._made["journal"] = journal

    # --- the way to a token --------------------------------------------------------------

    def _held_outcome(
        self, rejected: Token | None, patient: bool, min_validity: float = 0.0
    ) -> Outcome | None:
        held = self._holder.held
        if held is None or held.token.is_same(rejected):
            return None
        left = self._holder.left()
        if left <= held.hard:
            return None
        if min_validity > 0 and left <= held.least(fresh=patient, min_validity=min_validity):
            return None
        if rejected is None and left <= held.soft:
            if patient:
                return None
            held = self._renew_in_background(held, min_validity)
        return Outcome(held.token, is_new=False)

    def _outcome_at_hand(self, rejected: Token | None, patient: bool) -> Outcome | None:
        """The same without I/O: where there is something to do in the background, a helper thread
        looks at it first."""
        held = self._holder.held
        if held is None or held.token.is_same(rejected):
            return None
        left = self._holder.left()
        if left <= held.hard:
            return None
        if rejected is None and left <= held.soft:
            if patient or self.inline:
                return None
            if self._runtime.monotonic() >= self._look_again and not self._is_renewing():
                if self._is_inline():
                    return None
                self._calls.begin("look", self.obtain)
        return Outcome(held.token, is_new=False)

    def _glance(self) -> View | None:
        """Look into the store, and hold its token if no renewal has to decide about it.

        :returns: what was found; ``None`` if the store could not be read.
        """
        self._has_glanced = True
        try:
            view = self._slot.look()
        except Exception:  # noqa: BLE001 - a renewal meets it again, and knows what to do
            return None
        if self._usable(view) is not None and not self._holder.is_ahead_of(view.record):
            self._take(view, minted=False)
        return view

    def _usable(self, view: View) -> Token | None:
        """The token of a view, if it was obtained for the same owner and a request like ours."""
        return view.record.token if self._is_ours(view) else None

    def _is_ours(self, view: View) -> bool:
        """Whether a view shows the slot as it is, for the same owner and a request like ours."""
        is_same = view.record.satisfies(self.grant.requested)
        return is_same and not (view.is_foreign or view.was_reset)

    def _settle(self, need: RenewalRequest, view: View, first: View) -> Outcome | None:
        """The outcome, if *view* shows that no renewal is needed, although *first* did not."""
        outcome = self._held_outcome(need.rejected, need.fresh, need.min_validity)
        if outcome is not None:
            return outcome._replace(is_new=not outcome.token.is_same(first.record.token))
        token = self._usable(view)
        if token is None or token.is_same(need.rejected) or token.is_same(first.record.token):
            return None
        # Another process renewed meanwhile: its token counts, since clocks differ.
        return Outcome(token, is_new=True)

    def _renew_in_background(self, held: HeldToken, min_validity: float) -> HeldToken:
        """Renew the stale token that is held, unless another process did.

        :param min_validity: how many more seconds the caller needs.
        :returns: the token to go on with.
        """
        now = self._runtime.monotonic()
        if now < self._look_again or self._is_renewing():
            return held
        self._look_again = now + (held.soft - held.hard) / _LOOKS_PER_WINDOW
        is_inline = self._is_inline()
        if self._runtime.exiting() or not (is_inline or not self._spends or self._runtime.guard()):
            return held  # the process may end before the answer comes
        # If the store has glimpses, a look costs less than a helper thread.
        seen = self._glance() if hasattr(self.store, "glimpse") else None
        found = self._holder.held or held
        if found.token.is_same(held.token):
            self._worker.begin(RenewalRequest(fresh=True, waits=False), seen)
            if not is_inline:
                return held
            found = self._holder.held or held
        least = found.least(fresh=False, min_validity=min_validity)
        return found if self._holder.left_of(found) > least else held

    @property
    def _reservations(self) -> Reservations:
        return self._once(
            "reservations",
            lambda: reservation.Reservations(
                self._slot, self._runtime, self._glance, self._is_renewing
            ),
        )

    def _is_renewing(self) -> bool:
        worker: RenewalWorker | None = self._made.get("worker")
        return worker is not None and worker.flight.under_way() is not None

    def _is_renewed_here(self) -> bool:
        """Whether the calling thread does the renewal that is under way: it must not wait."""
        worker: RenewalWorker | None = self._made.get("worker")
        run = None if worker is None else worker.flight.under_way()
        return run is not None and run.is_mine()

    @property
    def _calls(self) -> SharedCalls:
        return self._once("calls", lambda: async_wait.SharedCalls(self._runtime.start))

    @property
    def _worker(self) -> RenewalWorker:
        return self._once(
            "worker",
            lambda: workers.RenewalWorker(
                self.store,
                self.grant,
                self._runtime,
                self.journal,
                self._holder,
                tell=self.tell,
                renewal=lambda: self._renewal,
                on_refresh=self.on_refresh,
                lock_timeout=self.lock_timeout,
                is_inline=self._is_inline,
            ),
        )

    def _is_inline(self) -> bool:
        """Whether callers renew in their own thread: nobody may wait for a helper at the end."""
        return self.inline or (self._spends and self._runtime.ends_abruptly())

    @property
    def _renewal(self) -> Renewal:
        return self._once(
            "renewal",
            lambda: renewal.Renewal(
                self._slot,
                self.grant,
                self._runtime,
                self.journal,
                weigh=self._holder.weigh,
                take=self._take,
                lock_timeout=self.lock_timeout,
            ),
        )

    def _once(self, name: str, make: Callable[[], T]) -> T:
        made: T | None = self._made.get(name)
        # Atomic: two threads that come first get the same object.
        return self._made.setdefault(name, make()) if made is None else made

    def _take(self, view: View, minted: bool, adopted: bool = False) -> None:
        if self._holder.take(view, adopted=adopted) is not None:
            self._look_again = 0.0
            if not minted and view.record.token is not None:
                self.journal.count("Found", token=view.record.token.fingerprint)

    # --- copies of this process ----------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        settings = self._settings()
        pickling.check(settings)
        return partial(type(self), **settings), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(**copy.deepcopy(self._settings(), memo))

    def _settings(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "store": self.store,
            "on_refresh": self.on_refresh,
            "on_event": self._on_event,
            "renew_early": self.renew_early,
            "lock_timeout": self.lock_timeout,
            "inline": self.inline,
            "advise": self._advise,
            "owner": self._owner,
        }

    def _after_fork(self) -> None:
        worker = self._made.get("worker")
        if worker is not None:
            worker.flight.reset()  # the helper thread is not here
        reservations = self._made.get("reservations")
        if reservations is not None:
            reservations.reset()
        self._slot.forget()
        journal = self._made.get("journal")
        if journal is not None:
            journal.reset()
        calls = self._made.get("calls")
        if calls is not None:
            calls.reset()
        self._holder.redraw()


def _presented(given: Mapping[str, Any], renewal: Renewal) -> Outcome:
    bound = Token.from_dict({"access_token": "none", "dpop_key": given.get("dpop_key")})
    return renewal.adopt_refresh_token(given["refresh_token"], bound)


def _slot_name(store: TokenStore) -> str | None:
    """The name of the slot in its store, if it has one."""
    names = (getattr(store, name, None) for name in ("slot", "key", "name", "path"))
    return next((name for name in names if isinstance(name, str)), None)


def _check_grace(store: TokenStore, grant: Grant) -> None:
    """A request, and its repetition by another process, have to end within the server's grace."""
    longest = longest_timeout(grant.grace)
    if grant.deadline > longest * 1.000001:  # it may be computed from the same number
        raise ValueError(
            f"grace is {grant.grace:g} s, and a token request may take {grant.deadline:g} s: if "
            "the answer got lost, the request could be repeated too late, and the server could "
            "revoke the login. Give the source a shorter timeout, so that a token request takes at "
            f"most {longest:g} s, or no grace."
        )
    lease = getattr(store, "lease", None)
    if lease is not None and 0 < grant.grace <= lease:
        raise ValueError(
            f"grace is {grant.grace:g} s, and the lease on the lock of {store!r} is {lease:g} s: "
            "if a process dies while it renews, its refresh token would be presented again when "
            "that is over. Give the store a lease that is shorter than the grace, or the source "
            "no grace: then such a death may cost a login."
        )


def _after_fork() -> None:
    for keeper in list(KEEPERS):
        keeper._after_fork()


KEEPERS: WeakSet[TokenKeeper] = WeakSet()
"""The keepers of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
