"""Mutants: keepers and stores without one rule each.  The witness must detect every one.

Each mutant is listed with the world that reveals it soonest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import pytest

from simulation.plan import ADOPTS_REFRESH, LATE, STORES, Plan
from simulation.runtime import SimulatedRuntime
from simulation.store import SimulatedLock, SimulatedStore
from tokenadapter.core import held_token, policy, saving
from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.function_grant import FunctionGrant
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.presentation import Presenter
from tokenadapter.core.record import Record
from tokenadapter.core.renewal import Renewal
from tokenadapter.core.saving import Saver
from tokenadapter.core.single_flight import SingleFlight
from tokenadapter.core.slot import Conflict, Slot
from tokenadapter.values import never


class Mutant(NamedTuple):
    """A rule that is removed.

    :ivar patch: removes the rule.
    :ivar plan: the world in which its absence is detected.
    """

    patch: Callable[[pytest.MonkeyPatch], None]
    plan: Plan


def does_not_read_again_under_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The holder of the lock uses the view from before it had the lock."""
    locked = Renewal._locked

    def blind(self: Any, lock: Any, need: Any, first: Any, serve: Any) -> Any:
        def remember() -> Any:
            del self._slot.look
            return first

        self._slot.look = remember
        return locked(self, lock, need, first, serve)

    patch.setattr(Renewal, "_locked", blind)


def uses_a_token_before_saving_it(patch: pytest.MonkeyPatch) -> None:
    """A new token is used before it is saved."""
    save = Saver.save

    def late(self: Any, presented: Any, minted: Any, serve_unsaved: Any) -> Any:
        view = presented.view
        record = view.record.with_new_token(minted.token, self._grant.requested, view.read_at)
        serve_unsaved(view._replace(record=record))
        return save(self, presented, minted, serve_unsaved)

    patch.setattr(Saver, "save", late)


def writes_without_comparing(patch: pytest.MonkeyPatch) -> None:
    """The store overwrites any content."""
    save = SimulatedStore.save

    def swap(self: Any, document: Any, *, tag: Any, expected: Any, ttl: Any) -> bool:
        stored = None if self.disk.slot is None else self.disk.slot[1]
        return save(self, document, tag=tag, expected=stored, ttl=ttl)

    patch.setattr(SimulatedStore, "save", swap)


def ignores_its_own_nonce(patch: pytest.MonkeyPatch) -> None:
    """A write whose answer was lost counts as a conflict."""
    save = Slot._save

    def write(self: Any, *details: Any) -> bool:
        if not save(self, *details):
            raise Conflict(self.look())
        return True

    patch.setattr(Slot, "_save", write)


def writes_no_intent(patch: pytest.MonkeyPatch) -> None:
    """A refresh token is presented without an intent."""

    def announce(self: Any, lock: Any, view: Any, *details: Any) -> Any:
        return view if lock.confirm() else None

    patch.setattr(Presenter, "_write_intent", announce)


def writes_no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A refusal is not recorded."""

    def refused(self: Record, *details: Any, **names: Any) -> Record:
        return self._replace(intent=None, backoff=None)

    patch.setattr(Record, "with_refusal", refused)


def does_not_remember_spent_tokens(patch: pytest.MonkeyPatch) -> None:
    """Only the record shows that the first refresh token was spent."""
    patch.setattr(SimulatedStore, "remember_spent", lambda self, digest, *, for_good: None)


def ignores_backoffs(patch: pytest.MonkeyPatch) -> None:
    """Each process contacts the server during a backoff."""
    patch.setattr(Eligibility, "raise_if_backing_off", lambda self, record, now: None)


def serves_the_rejected_token(patch: pytest.MonkeyPatch) -> None:
    """The rejected token counts as valid because it has not expired."""
    settled = Renewal._settled

    def forgetful(self: Any, view: Any, need: Any, first: Any) -> Any:
        return settled(self, view, need._replace(rejected=None), first)

    patch.setattr(Renewal, "_settled", forgetful)


def renews_a_token_that_was_not_rejected(patch: pytest.MonkeyPatch) -> None:
    """After a rejection, the stored token is renewed even if it is another one."""
    settled = Renewal._settled

    def eager(self: Any, view: Any, need: Any, first: Any) -> Any:
        rejected = None if need.rejected is None else view.record.token
        return settled(self, view, need._replace(rejected=rejected), first)

    patch.setattr(Renewal, "_settled", eager)


def does_not_confirm_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The holder assumes that it still has the lock."""
    patch.setattr(SimulatedLock, "confirm", lambda self: True)


def compares_and_swaps_in_two_steps(patch: pytest.MonkeyPatch) -> None:
    """A compare-and-swap is two steps, between which the lock may lapse."""
    patch.setattr(SimulatedStore, "between", lambda self: self.world.point("compared"))


def overwrites_a_later_renewal(patch: pytest.MonkeyPatch) -> None:
    """A late answer is saved over a later renewal."""
    patch.setattr(Saver, "_is_unrenewed", lambda self, *details: True)


def drops_an_adoption_after_a_renewal(patch: pytest.MonkeyPatch) -> None:
    """The token of an adoption is dropped if another process has renewed."""

    def is_still_ours(self: Any, view: Any, presented: Any, minted: Any) -> bool:
        return bool(self._is_unrenewed(view, presented))

    patch.setattr(Saver, "_is_worth_saving", is_still_ours)


def accepts_a_reset_slot(patch: pytest.MonkeyPatch) -> None:
    """The content of the slot is used even if it was set back."""
    patch.setattr(Slot, "_is_behind", lambda self, record, last: False)


def waits_for_a_stale_token(patch: pytest.MonkeyPatch) -> None:
    """Callers wait for the renewal of a token that is only stale."""
    obtain = TokenKeeper.obtain

    def patient(self: Any, rejected: Any = None, **details: Any) -> Any:
        return obtain(self, rejected, **details, patient=True)

    patch.setattr(TokenKeeper, "obtain", patient)


def renews_a_fresh_token(patch: pytest.MonkeyPatch) -> None:
    """A token is stale long before it expires."""

    def early(lifetime: float, u: float) -> tuple[float, float]:
        soft, hard = policy.windows(lifetime, u)
        return 2 * soft, hard

    patch.setattr(held_token, "windows", early)


def counts_a_lifetime_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    """The lifetime of a token counts from the answer instead of the request."""
    ask = Presenter._fetch

    def late(self: Any, view: Any, *details: Any) -> Any:
        answer = ask(self, view, *details)
        token = getattr(answer, "token", None)
        if token is None or token.lifetime is None:
            return answer
        now = self._slot.now(view)
        later = token.replace(issued_at=now, expires_at=now + token.lifetime)
        return answer._replace(token=later)

    patch.setattr(Presenter, "_fetch", late)


def never_retries_the_lock(patch: pytest.MonkeyPatch) -> None:
    """A process that does not get the lock waits for the holder and never retries."""
    acquire = SimulatedLock.acquire

    def once(self: Any, hold_for: float) -> bool:
        refused: set[Any] = vars(self.disk).setdefault("refused", set())
        task = self.store.world.running
        if task not in refused and acquire(self, hold_for):
            return True
        refused.add(task)
        return False

    patch.setattr(SimulatedLock, "acquire", once)


def renews_in_the_callers_thread(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a renewal."""
    patch.setattr(SimulatedRuntime, "start", lambda self, work: False)


def ends_during_a_presentation(patch: pytest.MonkeyPatch) -> None:
    """A process ends without waiting for its presentations."""
    patch.setattr(SimulatedRuntime, "presenting", lambda self, seconds: nullcontext(True))


def treats_unknown_as_unprocessed(patch: pytest.MonkeyPatch) -> None:
    """A missing answer counts as not processed."""

    def unknown(self: Record, backoff: Any, *details: Any) -> Record:
        return self._replace(intent=None, backoff=backoff)

    patch.setattr(Record, "with_unknown_outcome", unknown)


def treats_unprocessed_as_unknown(patch: pytest.MonkeyPatch) -> None:
    """An unsent credential counts as possibly spent."""
    patch.setattr(
        Record,
        "with_intent_withdrawn",
        lambda self, before, backoff: self._replace(backoff=backoff),
    )


def ignores_retry_after(patch: pytest.MonkeyPatch) -> None:
    """Retry-After is ignored."""
    backoff = Saver._new_backoff

    def soon(self: Any, view: Any, failure: Any, refused: Any) -> Any:
        failure.retry_after = None
        return backoff(self, view, failure, refused)

    patch.setattr(Saver, "_new_backoff", soon)


def backs_off_all_clients_for_one(patch: pytest.MonkeyPatch) -> None:
    """A refused client makes all clients back off."""
    patch.setattr(Eligibility, "_applies", lambda self, backoff, record, credential: True)


def spends_without_the_store(patch: pytest.MonkeyPatch) -> None:
    """Without the store, any credential is presented."""

    def anything(self: Any) -> Any:
        return next(iter(self._grant.credentials(self._own_token)), None)

    patch.setattr(Eligibility, "harmless_credential", anything)


def calls_a_function_again(patch: pytest.MonkeyPatch) -> None:
    """A function that has returned a refresh token is called again without one."""
    credentials = FunctionGrant.credentials

    def open_ones(self: Any, previous: Any) -> Any:
        return [item._replace(opaque=False) for item in credentials(self, previous)]

    patch.setattr(FunctionGrant, "credentials", open_ones)


def drops_an_unsaved_token(patch: pytest.MonkeyPatch) -> None:
    """A new token is dropped if the first save fails."""
    patch.setattr(SimulatedRuntime, "is_helper", lambda self: False)
    patch.setattr(saving, "_SAVES_INLINE", -1.0)


def lets_the_lease_lapse(patch: pytest.MonkeyPatch) -> None:
    """The lease is not extended while a save fails."""
    save = Saver.save

    def alone(self: Any, presented: Any, *details: Any) -> Any:
        presented.lock.confirm = lambda: True
        try:
            return save(self, presented, *details)
        finally:
            del presented.lock.confirm

    patch.setattr(Saver, "save", alone)


def renews_a_token_refused_when_new(patch: pytest.MonkeyPatch) -> None:
    """Every rejection of a new token causes a renewal."""
    patch.setattr(Record, "with_distrust", lambda self, token, now, u: self)


def keeps_the_record_after_a_fork(patch: pytest.MonkeyPatch) -> None:
    """A forked child keeps the record that its parent remembered."""
    after_fork = TokenKeeper._after_fork

    def child(self: Any) -> None:
        self._slot.forget = lambda: None
        after_fork(self)
        del self._slot.forget

    patch.setattr(TokenKeeper, "_after_fork", child)


def joins_the_run_of_its_parent(patch: pytest.MonkeyPatch) -> None:
    """A forked child joins the renewal of its parent, whose thread it does not have."""
    patch.setattr(SingleFlight, "reset", lambda self: None)


def replaces_tokens_of_other_requests_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Programs with different requests replace each other's token for ever."""
    patch.setattr(Record, "was_replaced_lately", lambda *_: False)


def forgets_when_it_started(patch: pytest.MonkeyPatch) -> None:
    """A program that has been running replaces the token of one that started later."""
    was_replaced_lately = Record.was_replaced_lately
    patch.setattr(
        Record,
        "was_replaced_lately",
        lambda self, requested, now, _: was_replaced_lately(self, requested, now, inf),
    )


def narrows_a_token_that_is_fresh(patch: pytest.MonkeyPatch) -> None:
    """A program does not use a token with a wider scope than it requests."""
    patch.setattr(
        Record, "satisfies", lambda self, requested: dict(self.requested) == dict(requested)
    )


def ignores_intents(patch: pytest.MonkeyPatch) -> None:
    """The holder of the lock assumes that every earlier holder is dead."""
    patch.setattr(Eligibility, "is_answer_pending", lambda self, view: False)


def respects_intents_for_ever(patch: pytest.MonkeyPatch) -> None:
    """An intent is respected until its process is known to be dead."""

    def awaits(self: Any, waiter: Any, intent: Any, view: Any) -> bool:
        return bool(waiter != self._ended_wait)

    patch.setattr(Eligibility, "_may_await", awaits)


def respects_intents_of_dead_processes(patch: pytest.MonkeyPatch) -> None:
    """An intent is respected even if its process has died."""
    patch.setattr(SimulatedRuntime, "has_died", lambda self, process: False)


def compares_only_generations(patch: pytest.MonkeyPatch) -> None:
    """The record with more renewals counts as the later one."""

    def precedes(self: Record, other: Record) -> bool:
        return self.salt == other.salt and self.generation < other.generation

    patch.setattr(Record, "precedes", precedes)


def sends_a_late_request(patch: pytest.MonkeyPatch) -> None:
    """A request is sent long after its intent."""
    patch.setattr(Presenter, "_is_in_time", lambda self, view, waiter: True)


def leaves_its_renewals_behind(patch: pytest.MonkeyPatch) -> None:
    """A process that may end right after a request renews in the background."""
    patch.setattr(SimulatedRuntime, "ends_abruptly", lambda self: False)


def hangs_up_at_the_deadline(patch: pytest.MonkeyPatch) -> None:
    """A process does not wait for an answer that is late."""
    present = Presenter._fetch_or_replace

    def impatient(self: Any, view: Any, credential: Any, *details: Any) -> Any:
        return present(self, view, credential._replace(keep_waiting=never), *details)

    patch.setattr(Presenter, "_fetch_or_replace", impatient)


def does_not_say_that_it_waits_longer(patch: pytest.MonkeyPatch) -> None:
    """Other processes are not told that an answer is late."""
    patch.setattr(Presenter, "_extended", lambda self, view, waiter: (view, waiter))


def believes_no_process_that_lives(patch: pytest.MonkeyPatch) -> None:
    """A process with a token that it cannot save is believed for the time of an answer only."""
    patch.setattr(SimulatedRuntime, "may_save", lambda self, process: False)


def waits_for_no_answer_within_the_grace_period(patch: pytest.MonkeyPatch) -> None:
    """Within the grace period, a credential is presented while another answer is awaited."""
    is_pending = Eligibility.is_answer_pending

    def eager(self: Any, view: Any) -> bool:
        intent = view.record.intent
        since = self._slot.now(view) if intent is None else intent.first_sent
        return self._slot.now(view) >= since + self._grant.grace and is_pending(self, view)

    patch.setattr(Eligibility, "is_answer_pending", eager)


def believes_the_parent_no_more_than_itself(patch: pytest.MonkeyPatch) -> None:
    """A forked child takes the ended wait of its parent for its own."""
    may_await = Eligibility._may_await

    def inherited(self: Any, waiter: Any, intent: Any, view: Any) -> bool:
        return bool(waiter != self._ended_wait and may_await(self, waiter, intent, view))

    patch.setattr(Eligibility, "_may_await", inherited)


def remembers_no_place_in_the_login(patch: pytest.MonkeyPatch) -> None:
    """A store knows only the last spent tokens by their hashes."""
    patch.setattr(Record, "placed", lambda self, spent: spent)


_CALM = Plan(processes=2, threads=1)
_LAPSING = Plan(lease=5.0, threads=1, disturbances=("stall",), rate=0.03)
# A process of another machine is not believed for as long as it lives.
_LAPSING_APART = replace(_LAPSING, computers=True, has_clock=True)
_LOCKS_LOST = Plan("adopted", lease=5.0, disturbances=("lose lock",), rate=0.03)
_LOGINS = replace(_LAPSING_APART, grant="adopted", acts=(ADOPTS_REFRESH,), lifetime=10.0)
_KILLS = Plan("adopted", lease=5.0, disturbances=("kill",), rate=0.03)


def _failing(*faults: str, **world: Any) -> Plan:
    return Plan(processes=2, threads=1, server_faults=dict.fromkeys(faults, 0.3), **world)


def _disturbed(*disturbances: str, **world: Any) -> Plan:
    return Plan(**{"processes": 2, "disturbances": disturbances, "rate": 0.03, **world})


MUTANTS = (
    Mutant(waits_for_a_stale_token, _failing("slow", lifetime=30.0, span=60.0)),
    Mutant(renews_a_fresh_token, _CALM),
    Mutant(counts_a_lifetime_from_the_answer, _failing("slow")),
    Mutant(does_not_read_again_under_the_lock, Plan(grant="client", processes=2, threads=1)),
    Mutant(uses_a_token_before_saving_it, _CALM),
    Mutant(writes_without_comparing, _LAPSING),
    Mutant(compares_and_swaps_in_two_steps, _LAPSING),
    Mutant(ignores_its_own_nonce, Plan(processes=2, threads=1, lost_writes=0.3)),
    Mutant(never_retries_the_lock, replace(_KILLS, computers=True, has_clock=True)),
    Mutant(renews_in_the_callers_thread, _failing("slow", disturbances=("interrupt",), rate=0.1)),
    Mutant(ends_during_a_presentation, _disturbed("terminate", server_faults={"slow": 0.5})),
    Mutant(does_not_confirm_the_lock, _LAPSING),
    Mutant(treats_unknown_as_unprocessed, _failing("broken")),
    Mutant(treats_unprocessed_as_unknown, _failing("not reached")),
    Mutant(writes_no_intent, _CALM),
    Mutant(ignores_intents, _LOCKS_LOST),
    Mutant(respects_intents_for_ever, replace(_KILLS, computers=True, has_clock=True)),
    Mutant(respects_intents_of_dead_processes, _KILLS),
    Mutant(sends_a_late_request, _LAPSING),
    Mutant(leaves_its_renewals_behind, _failing("slow", exits=0.5)),
    Mutant(hangs_up_at_the_deadline, _failing(LATE)),
    Mutant(does_not_say_that_it_waits_longer, _failing(LATE, **STORES["database"])),
    Mutant(believes_no_process_that_lives, _LAPSING),
    Mutant(
        believes_the_parent_no_more_than_itself,
        _disturbed("fork", "lose lock", away=0.3, **STORES["database"]),
    ),
    Mutant(
        waits_for_no_answer_within_the_grace_period,
        replace(_LOCKS_LOST, grace=10.0, deadline=2.0, server_faults={"slow": 0.3}),
    ),
    Mutant(
        remembers_no_place_in_the_login,
        _disturbed("stall", "vanish", lifetime=3.0, spent_kept=1, **STORES["database"]),
    ),
    Mutant(writes_no_tombstone, _failing("answer lost")),
    Mutant(ignores_backoffs, _failing("unavailable")),
    Mutant(ignores_retry_after, _failing("unavailable")),
    Mutant(backs_off_all_clients_for_one, Plan(processes=2, threads=1, stale_client=True)),
    Mutant(spends_without_the_store, _disturbed("store down")),
    Mutant(calls_a_function_again, _disturbed("empty", grant="function")),
    Mutant(drops_an_unsaved_token, Plan(processes=2, threads=1, failing_saves=0.3)),
    Mutant(
        lets_the_lease_lapse,
        _disturbed(
            "full",
            grant="adopted",
            lease=1.0,
            grace=10.0,
            span=100.0,
            computers=True,
            has_clock=True,
        ),
    ),
    Mutant(overwrites_a_later_renewal, _LAPSING_APART),
    Mutant(drops_an_adoption_after_a_renewal, _LOGINS),
    Mutant(does_not_remember_spent_tokens, _disturbed("empty", threads=1)),
    Mutant(accepts_a_reset_slot, _disturbed("set back", rate=0.01)),
    Mutant(compares_only_generations, _disturbed("copy", **STORES["file"])),
    Mutant(serves_the_rejected_token, Plan(lifetime=None, disturbances=("revoke",), rate=0.03)),
    Mutant(
        renews_a_token_that_was_not_rejected,
        Plan(lifetime=None, disturbances=("revoke",), rate=0.03),
    ),
    Mutant(renews_a_token_refused_when_new, _disturbed("deny", lifetime=None)),
    Mutant(keeps_the_record_after_a_fork, _disturbed("fork", "empty", grant="adopted")),
    Mutant(joins_the_run_of_its_parent, _failing("slow", disturbances=("fork",), rate=0.03)),
    Mutant(replaces_tokens_of_other_requests_for_ever, Plan(processes=2, threads=1, requested=2)),
    Mutant(forgets_when_it_started, Plan(processes=2, threads=1, requested=2)),
    Mutant(narrows_a_token_that_is_fresh, Plan(processes=3, threads=1, requested=2)),
)
