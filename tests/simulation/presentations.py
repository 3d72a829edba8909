"""When a credential may be presented: under the lock, one at a time; announced in the record, if
that can spend it; not while a hold binds; not without need; and never if it was presented before,
except after an unknown outcome.

Where the lock is a lease, one thing cannot be prevented, and is excused: a holder whose lease has
run out may save what it was answered after the next holder has announced its own presentation, and
before that is sent.  What the next holder does then follows from what it could know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.authority import FIRST
from simulation.ledger import Presentation, named
from simulation.process import Process
from simulation.writes import is_behind
from tokenadapter import policy, record
from tokenadapter.protocols import Credential, Document

if TYPE_CHECKING:
    from simulation.store import SimulatedLock
    from simulation.witness import Witness

# Seconds that points take between an announcement and the request.
_ASKING = 0.5


def check(
    witness: Witness, process: Process, credential: Credential, lock: SimulatedLock | None
) -> None:
    """A credential is about to be presented.

    :param lock: the one that *process* holds.
    """
    account, document = witness.accounts[process], witness.disk.document
    known = account.knows.get(witness.world.running, 0)
    if account.store_failures and not credential.single_use:
        return  # it goes on without the store, and can know nothing of the others
    if lock is None:
        witness.fail(process, f"presents {credential.secret} without the lock")
    is_overtaken = known < (witness.disk.writes if witness.lapses else witness.disk.set_back_at)
    if not is_overtaken:
        _check_need(witness, process, document)
        _check_hold(witness, process, document)
    if credential.single_use:
        if not is_overtaken:
            _check_announced(witness, process, credential, document)
        _check_spent(witness, process, credential)


def _check_need(witness: Witness, process: Process, document: Document) -> None:
    """One renewal per expiry."""
    token = document.get("token")
    if token is None or witness.moved_clocks:
        return
    access, expires_at = token["access_token"], token.get("expires_at")
    if access in witness.authority.refused or not witness.authority.accepts(access):
        return
    if expires_at is None:
        witness.fail(process, f"renews {access}, which is good")
    soft, hard = policy.windows(expires_at - token["issued_at"], 1.0)
    # A token may have aged by as long as it takes to look at it, ...
    now = witness.store_now(process) + witness.slowest_look() + witness.disk.clocks_differ
    if witness.accounts[process].store_failures:
        # ... and to its owner, who could not save it, by as long as it took to ask for it.
        now += _ASKING + process.stalled
    if now < expires_at - (soft if witness.early else hard):
        witness.fail(process, f"renews {access}, which is fresh")


def _check_hold(witness: Witness, process: Process, document: Document) -> None:
    hold = document.get("hold")
    # A hold begins before its failure by as long as the look took, and is void before it begins.
    if hold is None or witness.moved_clocks or witness.slowest_look() > 1.0:
        return
    seen = witness.accounts[process].seen
    # What the slot was set back to may hold what is older than what came after; if clocks differ,
    # that is not to be told.
    if (
        seen is not None
        and is_behind(witness, process, document)
        and (witness.disk.clocks_differ or hold["set_at"] <= seen[2])
    ):
        return
    if witness.store_now(process) < hold["set_at"] + hold["duration"]:
        witness.fail(process, "asks the server although a hold binds it")


def _check_announced(
    witness: Witness, process: Process, credential: Credential, document: Document
) -> None:
    """Write-ahead: whoever comes after a crash knows what was going on."""
    if not document and witness.emptied:
        return
    intent = document.get("intent")
    if intent is None or named(intent) != credential.secret:
        witness.fail(process, f"presents {credential.secret} without an intent")


def _check_spent(witness: Witness, process: Process, credential: Credential) -> None:
    """Nothing is presented twice, except after an unknown outcome."""
    secret, account = credential.secret, witness.accounts[process]
    is_older = witness.authority.refresh[secret].age < account.newest
    if is_older and not credential.first and not witness.emptied:
        witness.fail(process, f"presents {secret} although it has seen a newer one")
    for earlier in witness.presented.get(secret, []):
        if earlier.outcome == "open":
            may = earlier.has_lost_its_lock()
        elif earlier.outcome in ("unprocessed", "unknown"):
            may = True
        elif earlier.recorded is None:
            # What cannot be written binds its process, until there is another token.
            may = earlier.process is not process or earlier.ended_at <= witness.token_at
        elif earlier.outcome == "refused" and secret in witness.readopted:
            may = True
        else:
            known = account.knows.get(witness.world.running, 0)
            is_overtaken = witness.lapses > 0 and known < earlier.recorded
            may = is_overtaken or _is_forgotten(witness, process, earlier)
        if not may:
            witness.fail(
                process, f"presents {secret}, which was {earlier.outcome} to {earlier.process}"
            )


def _is_forgotten(witness: Witness, process: Process, earlier: Presentation) -> bool:
    """Whether what was written down of it may be lost to *process*."""
    if not witness.emptied:
        return False
    if earlier.credential.first and earlier.outcome == "minted":
        if witness.disk.remembers(record.mark(FIRST), process):
            return False
        # It is noted outside the slot, after it is saved, if that works.
        who = earlier.process
        was_hindered = not who.alive or who.stalled or witness.accounts[who].store_failures
        return bool(was_hindered) or witness.disk.may_forget()
    return True
