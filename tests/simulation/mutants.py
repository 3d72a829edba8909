"""Keepers and stores with one rule taken out: the witness has to find each of them out.

Each stands beside the world that shows it soonest.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import pytest

from simulation.plan import Plan
from simulation.store import SimulatedLock, SimulatedStore
from tokenadapter.choice import Choice
from tokenadapter.presentation import Presenter
from tokenadapter.record import Record
from tokenadapter.renewal import Renewal
from tokenadapter.slot import Moved, Slot


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
        record = view.record.minted(minted.token, self._grant.asked, view.read_at)
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
            raise Moved(self.look())
        return True

    patch.setattr(Slot, "_save", write)


def writes_no_intent(patch: pytest.MonkeyPatch) -> None:
    """A refresh token is presented without a word beforehand."""

    def announce(self: Any, lock: Any, view: Any, credential: Any, waiter: Any) -> Any:
        return (view, inf) if lock.confirm() else None

    patch.setattr(Presenter, "_announce", announce)


def writes_no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A refusal leaves no trace."""

    def refused(self: Record, *details: Any, **names: Any) -> Record:
        return self._replace(intent=None, hold=None)

    patch.setattr(Record, "refused", refused)


def leaves_no_mark(patch: pytest.MonkeyPatch) -> None:
    """That the first refresh token was spent is known to the record alone."""
    patch.setattr(SimulatedStore, "mark", lambda self, note, *, for_good: None)


def ignores_holds(patch: pytest.MonkeyPatch) -> None:
    """Each process asks the server again when it likes."""
    patch.setattr(Choice, "raise_if_held", lambda self, record, now: None)


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
    patch.setattr(Presenter, "_is_still_ours", lambda self, *details: True)


def goes_back_with_the_store(patch: pytest.MonkeyPatch) -> None:
    """What the slot holds counts, also if it was set back."""
    patch.setattr(Slot, "_is_behind", lambda self, record, last: False)


_CALM = Plan(processes=2, threads=1)
_LAPSING = Plan(lease=5.0, threads=1, disturbances=("stall",), rate=0.03)

MUTANTS = (
    Mutant(does_not_look_again, Plan(grant="client", processes=2, threads=1)),
    Mutant(uses_before_saving, _CALM),
    Mutant(does_not_compare, _LAPSING),
    Mutant(compares_and_then_swaps, _LAPSING),
    Mutant(does_not_know_its_own_nonce, Plan(processes=2, threads=1, lost_writes=0.3)),
    Mutant(writes_no_intent, _CALM),
    Mutant(
        writes_no_tombstone,
        Plan(processes=2, threads=1, server_faults={"answer lost": 0.3}),
    ),
    Mutant(leaves_no_mark, Plan(processes=2, threads=1, disturbances=("empty",), rate=0.03)),
    Mutant(ignores_holds, Plan(processes=2, threads=1, server_faults={"unavailable": 0.3})),
    Mutant(serves_what_was_rejected, Plan(lifetime=None, disturbances=("revoke",), rate=0.03)),
    Mutant(renews_what_was_not_rejected, Plan(lifetime=None, disturbances=("revoke",), rate=0.03)),
    Mutant(does_not_confirm, _LAPSING),
    Mutant(writes_over_its_successor, _LAPSING),
    Mutant(goes_back_with_the_store, Plan(processes=2, disturbances=("set back",), rate=0.01)),
)
