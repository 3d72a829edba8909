"""Keepers and stores with one rule taken out: the witness has to find each of them out.

Each stands beside the world that shows it soonest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from simulation.plan import HANDS_IN, STORES, Plan
from simulation.runtime import SimulatedMachine
from simulation.store import SimulatedLock, SimulatedStore
from tokenadapter.core import held_token, policy, presentation
from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.function_grant import FunctionGrant
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.presentation import Presenter
from tokenadapter.core.record import Record
from tokenadapter.core.renewal import Renewal
from tokenadapter.core.single_flight import SingleFlight
from tokenadapter.core.slot import Conflict, Slot


class Mutant(NamedTuple):
    """A rule that is taken out.

    :ivar patch: takes it out.
    :ivar plan: the world in which it is missed.
    """

    patch: Callable[[pytest.MonkeyPatch], None]
    plan: Plan


def does_not_look_again(patch: pytest.MonkeyPatch) -> None:
    """Who has got the lock goes by what it saw before."""
    locked = Renewal._locked

    def blind(self: Any, lock: Any, need: Any, first: Any, serve: Any) -> Any:
        def remember() -> Any:
            del self._slot.look
            return first

        self._slot.look = remember
        return locked(self, lock, need, first, serve)

    patch.setattr(Renewal, "_locked", blind)


def uses_before_saving(patch: pytest.MonkeyPatch) -> None:
    """A new token is used, and then saved."""
    save = Presenter._save

    def late(self: Any, lock: Any, view: Any, before: Any, minted: Any, *rest: Any) -> Any:
        *_, serve_unsaved = rest
        record = view.record.with_new_token(minted.token, self._grant.requested, view.read_at)
        serve_unsaved(view._replace(record=record))
        return save(self, lock, view, before, minted, *rest)

    patch.setattr(Presenter, "_save", late)


def does_not_compare(patch: pytest.MonkeyPatch) -> None:
    """The store writes, whatever was written meanwhile."""
    save = SimulatedStore.save

    def swap(self: Any, document: Any, *, tag: Any, expected: Any, ttl: Any) -> bool:
        stored = None if self.disk.slot is None else self.disk.slot[1]
        return save(self, document, tag=tag, expected=stored, ttl=ttl)

    patch.setattr(SimulatedStore, "save", swap)


def does_not_know_its_own_nonce(patch: pytest.MonkeyPatch) -> None:
    """A write whose answer was lost counts as somebody else's."""
    save = Slot._save

    def write(self: Any, *details: Any) -> bool:
        if not save(self, *details):
            raise Conflict(self.look())
        return True

    patch.setattr(Slot, "_save", write)


def writes_no_intent(patch: pytest.MonkeyPatch) -> None:
    """A refresh token is presented without a word beforehand."""

    def announce(self: Any, lock: Any, view: Any, credential: Any, waiter: Any) -> Any:
        return view if lock.confirm() else None

    patch.setattr(Presenter, "_write_intent", announce)


def writes_no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A refusal leaves no trace."""

    def refused(self: Record, *details: Any, **names: Any) -> Record:
        return self._replace(intent=None, backoff=None)

    patch.setattr(Record, "with_refusal", refused)


def leaves_no_mark(patch: pytest.MonkeyPatch) -> None:
    """That the first refresh token was spent is known to the record alone."""
    patch.setattr(SimulatedStore, "remember_spent", lambda self, note, *, for_good: None)


def ignores_holds(patch: pytest.MonkeyPatch) -> None:
    """Each process asks the server again when it likes."""
    patch.setattr(Eligibility, "raise_if_backing_off", lambda self, record, now: None)


def serves_what_was_rejected(patch: pytest.MonkeyPatch) -> None:
    """The token that was refused counts as good, since it has not expired."""
    settled = Renewal._settled

    def forgetful(self: Any, view: Any, need: Any, first: Any) -> Any:
        return settled(self, view, need._replace(rejected=None), first)

    patch.setattr(Renewal, "_settled", forgetful)


def renews_what_was_not_rejected(patch: pytest.MonkeyPatch) -> None:
    """Whoever was refused renews what is stored by now."""
    settled = Renewal._settled

    def eager(self: Any, view: Any, need: Any, first: Any) -> Any:
        rejected = None if need.rejected is None else view.record.token
        return settled(self, view, need._replace(rejected=rejected), first)

    patch.setattr(Renewal, "_settled", eager)


def does_not_confirm(patch: pytest.MonkeyPatch) -> None:
    """Who once had the lock takes it for granted."""
    patch.setattr(SimulatedLock, "confirm", lambda self: True)


def compares_and_then_swaps(patch: pytest.MonkeyPatch) -> None:
    """A compare-and-swap is two steps although the lock may lapse between them."""
    patch.setattr(SimulatedStore, "between", lambda self: self.world.point("compared"))


def writes_over_its_successor(patch: pytest.MonkeyPatch) -> None:
    """An answer that comes late is saved, whoever has renewed meanwhile."""
    patch.setattr(Presenter, "_is_unrenewed", lambda self, *details: True)


def takes_what_is_adopted_for_a_renewal(patch: pytest.MonkeyPatch) -> None:
    """What a refresh token that was handed in brings is worth nothing if others have renewed."""

    def is_still_ours(self: Any, view: Any, before: Any, credential: Any, minted: Any) -> bool:
        return bool(self._is_unrenewed(view, before, credential))

    patch.setattr(Presenter, "_is_worth_saving", is_still_ours)


def goes_back_with_the_store(patch: pytest.MonkeyPatch) -> None:
    """What the slot holds counts, also if it was set back."""
    patch.setattr(Slot, "_is_behind", lambda self, record, last: False)


def waits_for_what_is_stale(patch: pytest.MonkeyPatch) -> None:
    """Callers wait for the renewal of a token that is only stale."""
    obtain = TokenKeeper.obtain

    def patient(self: Any, rejected: Any = None, **details: Any) -> Any:
        return obtain(self, rejected, **details, patient=True)

    patch.setattr(TokenKeeper, "obtain", patient)


def renews_what_is_fresh(patch: pytest.MonkeyPatch) -> None:
    """A token is stale long before it expires."""

    def early(lifetime: float, u: float) -> tuple[float, float]:
        soft, hard = policy.windows(lifetime, u)
        return 2 * soft, hard

    patch.setattr(held_token, "windows", early)


def counts_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    """A token lives from when it comes, not from when it was asked for."""
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


def only_watches(patch: pytest.MonkeyPatch) -> None:
    """Who did not get the lock waits for the holder, and never tries again."""
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
    patch.setattr(SimulatedMachine, "start", lambda self, work: False)


def ends_at_once(patch: pytest.MonkeyPatch) -> None:
    """A process that is told to end does not wait for what it presents."""
    patch.setattr(SimulatedMachine, "presenting", lambda self, seconds: nullcontext(True))


def takes_unknown_for_unprocessed(patch: pytest.MonkeyPatch) -> None:
    """An answer that did not come was not given."""

    def unknown(self: Record, backoff: Any, *details: Any) -> Record:
        return self._replace(intent=None, backoff=backoff)

    patch.setattr(Record, "with_unknown_outcome", unknown)


def takes_unprocessed_for_unknown(patch: pytest.MonkeyPatch) -> None:
    """What was not sent may have been spent."""
    patch.setattr(
        Record,
        "with_intent_withdrawn",
        lambda self, before, backoff: self._replace(backoff=backoff),
    )


def does_not_wait_as_told(patch: pytest.MonkeyPatch) -> None:
    """A server that says when to come again is asked sooner."""
    backoff = Presenter._new_backoff

    def soon(self: Any, view: Any, failure: Any) -> Any:
        failure.retry_after = None
        return backoff(self, view, failure)

    patch.setattr(Presenter, "_new_backoff", soon)


def blames_all_for_one_client(patch: pytest.MonkeyPatch) -> None:
    """A client that was refused holds all others."""
    patch.setattr(Eligibility, "_applies", lambda self, backoff, record: True)


def spends_without_the_store(patch: pytest.MonkeyPatch) -> None:
    """Without the store, anything is presented."""

    def anything(self: Any) -> Any:
        return next(iter(self._grant.credentials(self._own_token)), None)

    patch.setattr(Eligibility, "harmless_credential", anything)


def trusts_functions(patch: pytest.MonkeyPatch) -> None:
    """A function that has brought a refresh token may be called again without one."""
    credentials = FunctionGrant.credentials

    def open_ones(self: Any, previous: Any) -> Any:
        return [item._replace(opaque=False) for item in credentials(self, previous)]

    patch.setattr(FunctionGrant, "credentials", open_ones)


def gives_up_what_cannot_be_saved(patch: pytest.MonkeyPatch) -> None:
    """A new token is not saved if that does not succeed at once."""
    patch.setattr(SimulatedMachine, "is_helper", lambda self: False)
    patch.setattr(presentation, "_SAVE_ATTEMPTS_FOR", -1.0)


def lets_the_lease_lapse(patch: pytest.MonkeyPatch) -> None:
    """Nobody keeps the lease alive while a new token cannot be saved."""
    save = Presenter._save

    def alone(self: Any, lock: Any, *details: Any) -> Any:
        lock.confirm = lambda: True
        try:
            return save(self, lock, *details)
        finally:
            del lock.confirm

    patch.setattr(Presenter, "_save", alone)


def renews_what_was_refused_when_new(patch: pytest.MonkeyPatch) -> None:
    """Each refusal costs a renewal."""
    patch.setattr(Record, "with_distrust", lambda self, token, now, u: self)


def remembers_after_a_fork(patch: pytest.MonkeyPatch) -> None:
    """A child goes on from what its parent has seen."""
    after_fork = TokenKeeper._after_fork

    def child(self: Any) -> None:
        self._slot.forget = lambda: None
        after_fork(self)
        del self._slot.forget

    patch.setattr(TokenKeeper, "_after_fork", child)


def waits_for_its_parents_thread(patch: pytest.MonkeyPatch) -> None:
    """A child joins the renewal of its parent, whose thread it has not."""
    patch.setattr(SingleFlight, "reset", lambda self: None)


def quarrels(patch: pytest.MonkeyPatch) -> None:
    """Programs that ask for different things replace each other's token."""
    patch.setattr(Record, "was_replaced_lately", lambda self, requested, now: False)


def believes_nobody(patch: pytest.MonkeyPatch) -> None:
    """Who has got the lock takes any earlier holder for dead."""
    patch.setattr(Eligibility, "is_answer_pending", lambda self, view, credential: False)


def believes_for_ever(patch: pytest.MonkeyPatch) -> None:
    """An answer is awaited until its process is known to have died."""

    def awaits(self: Any, waiter: Any, intent: Any, view: Any) -> bool:
        return bool(waiter != self._ended_wait)

    patch.setattr(Eligibility, "_may_await", awaits)


def believes_the_dead(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether the process that awaits an answer has died."""
    patch.setattr(SimulatedMachine, "has_died", lambda self, process: False)


def forgets_when_a_grant_began(patch: pytest.MonkeyPatch) -> None:
    """The token that was renewed more often is the later one."""

    def precedes(self: Record, other: Record) -> bool:
        return self.salt == other.salt and self.generation < other.generation

    patch.setattr(Record, "precedes", precedes)


def sends_late(patch: pytest.MonkeyPatch) -> None:
    """What was announced long ago is presented all the same."""
    patch.setattr(Presenter, "_is_in_time", lambda self, view, waiter: True)


_CALM = Plan(processes=2, threads=1)
_LAPSING = Plan(lease=5.0, threads=1, disturbances=("stall",), rate=0.03)
_ROBBED = Plan("adopted", lease=5.0, disturbances=("lose lock",), rate=0.03)
_LOGINS = replace(_LAPSING, grant="adopted", acts=(HANDS_IN,), lifetime=10.0)
_DEADLY = Plan("adopted", lease=5.0, disturbances=("kill",), rate=0.03)


def _failing(*faults: str, **world: Any) -> Plan:
    return Plan(processes=2, threads=1, server_faults=dict.fromkeys(faults, 0.3), **world)


def _disturbed(*disturbances: str, **world: Any) -> Plan:
    return Plan(**{"processes": 2, "disturbances": disturbances, "rate": 0.03, **world})


MUTANTS = (
    Mutant(waits_for_what_is_stale, _failing("slow", lifetime=30.0, span=60.0)),
    Mutant(renews_what_is_fresh, _CALM),
    Mutant(counts_from_the_answer, _failing("slow")),
    Mutant(does_not_look_again, Plan(grant="client", processes=2, threads=1)),
    Mutant(uses_before_saving, _CALM),
    Mutant(does_not_compare, _LAPSING),
    Mutant(compares_and_then_swaps, _LAPSING),
    Mutant(does_not_know_its_own_nonce, Plan(processes=2, threads=1, lost_writes=0.3)),
    Mutant(only_watches, replace(_DEADLY, computers=True, has_clock=True)),
    Mutant(renews_in_the_callers_thread, _failing("slow", disturbances=("interrupt",), rate=0.1)),
    Mutant(ends_at_once, _disturbed("terminate", server_faults={"slow": 0.5})),
    Mutant(does_not_confirm, _LAPSING),
    Mutant(takes_unknown_for_unprocessed, _failing("broken")),
    Mutant(takes_unprocessed_for_unknown, _failing("not reached")),
    Mutant(writes_no_intent, _CALM),
    Mutant(believes_nobody, _ROBBED),
    Mutant(believes_for_ever, replace(_DEADLY, computers=True, has_clock=True)),
    Mutant(believes_the_dead, _DEADLY),
    Mutant(sends_late, _LAPSING),
    Mutant(writes_no_tombstone, _failing("answer lost")),
    Mutant(ignores_holds, _failing("unavailable")),
    Mutant(does_not_wait_as_told, _failing("unavailable")),
    Mutant(blames_all_for_one_client, Plan(processes=2, threads=1, stale_client=True)),
    Mutant(spends_without_the_store, _disturbed("store down")),
    Mutant(trusts_functions, _disturbed("empty", grant="function")),
    Mutant(gives_up_what_cannot_be_saved, Plan(processes=2, threads=1, failing_saves=0.3)),
    Mutant(lets_the_lease_lapse, _disturbed("full", grant="adopted", lease=1.0, span=100.0)),
    Mutant(writes_over_its_successor, _LAPSING),
    Mutant(takes_what_is_adopted_for_a_renewal, _LOGINS),
    Mutant(leaves_no_mark, _disturbed("empty", threads=1)),
    Mutant(goes_back_with_the_store, _disturbed("set back", rate=0.01)),
    Mutant(forgets_when_a_grant_began, _disturbed("copy", **STORES["file"])),
    Mutant(serves_what_was_rejected, Plan(lifetime=None, disturbances=("revoke",), rate=0.03)),
    Mutant(renews_what_was_not_rejected, Plan(lifetime=None, disturbances=("revoke",), rate=0.03)),
    Mutant(renews_what_was_refused_when_new, _disturbed("deny", lifetime=None)),
    Mutant(remembers_after_a_fork, _disturbed("fork", "empty", grant="adopted")),
    Mutant(waits_for_its_parents_thread, _failing("slow", disturbances=("fork",), rate=0.03)),
    Mutant(quarrels, Plan(processes=2, threads=1, requested=2)),
)
