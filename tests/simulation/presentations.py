"""When a credential may be presented: under the lock, one at a time; announced in the record, if
that can spend it; not while a hold binds; not without need; and never if it was presented before,
except after an unknown outcome.

Where the lock is a lease, its holder may stand still for longer than that.  Others believe its
announcement for as long as its answer may take, and then present what it presented; so one thing
cannot be prevented, and is excused: who stood still for longer than that, after it had made sure of
its lock, may send its request, or save what it was answered, too late.

What is not announced is guarded by the lock alone.  Where the store forgets who holds the lock just
after its holder has made sure of it, the holder and its successor may both present that.  The same
is true of what is announced, where the store forgets the announcement at the same moment.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from simulation.authority import FIRST
from simulation.ledger import Presentation, digest, named
from simulation.process import Process
from simulation.writes import is_behind
from tokenadapter.core import policy, record
from tokenadapter.protocols import Credential, Document

if TYPE_CHECKING:
    from simulation.store import SimulatedLock
    from simulation.witness import Witness

# Seconds that points take between an announcement and the request.
_ASKING = 0.5
# Seconds by which an announcement is believed for longer than its request and the answer take.
_SPARE = 1.0
# Seconds for which a token that was refused when new is not renewed again, at the least.
_DISTRUSTED = 2.5
# Seconds for which programs that ask for different things may not replace each other's token.
_QUARREL = 3600.0


def check(
    witness: Witness, process: Process, credential: Credential, lock: SimulatedLock | None
) -> None:
    """A credential is about to be presented.

    :param lock: the one that *process* holds.
    """
    account, document = witness.accounts[process], witness.disk.document
    if account.store_failures and not (credential.single_use and not credential.opaque):
        return  # it goes on without the store, and can know nothing of the others
    if lock is None:
        witness.fail(process, f"presents {credential.secret} without the lock")
    known = account.knows.get(witness.world.running, 0)
    disk = witness.disk
    is_announced = credential.single_use and not credential.opaque
    # One that had lost its lock may have written since it looked, or somebody who heeds no lock.
    is_handed_in = credential.secret in witness.handed_in_alone
    if known >= (disk.writes if disk.lost_locks else disk.changed_at):
        if not is_handed_in:
            _check_asked(witness, process, document)
            _check_need(witness, process, document)
            _check_hold(witness, process, document)
        if is_announced:
            _check_announced(witness, process, credential, lock)
    # No check finds out that it stood still after the check.
    stood_still = disk.lease is not None and process.stalled > lock.stalled
    # Nor that a lock was lost after the check: then only an announcement keeps others away, unless
    # that was lost together with the lock.
    awaited = document.get("intent", {}).get("awaited", ())
    is_unannounced = all(one["process"] != process.name for one in awaited)
    is_unguarded = is_unannounced and not lock.is_held()
    if credential.single_use and not (stood_still or is_unguarded):
        _check_spent(witness, process, credential)


def is_due(witness: Witness, process: Process) -> bool:
    """Whether the token in the slot is stale and lives, as it may seem to *process*."""
    token = witness.disk.document.get("token", {})
    expires_at = token.get("expires_at")
    if not witness.early or expires_at is None:
        return False
    left = expires_at - witness.store_now(process)
    soft, hard = policy.windows(expires_at - token["issued_at"], 1.0)
    may_seem = witness.slowest_look() + witness.disk.clocks_differ
    return hard - _ASKING < left <= soft + may_seem


def _check_asked(witness: Witness, process: Process, document: Document) -> None:
    """Programs that ask for different things do not renew each other to death."""
    token = document.get("token")
    if token is None or witness.moved_clocks:
        return
    now, requested = witness.store_now(process), witness.accounts[process].requested
    expires_at = token.get("expires_at")
    # As it seems to them: a token may have aged by as long as it takes to look at it.
    is_alive = expires_at is None or now + witness.slowest_look() + _ASKING < expires_at
    replaced = [past for past in document.get("replaced", ()) if past["requested"] == requested]
    if is_alive and any(now < past["at"] + _QUARREL for past in replaced):
        witness.fail(process, f"replaces {token['access_token']}, which has replaced its own")


def _check_need(witness: Witness, process: Process, document: Document) -> None:
    """One renewal per expiry."""
    token, account = document.get("token"), witness.accounts[process]
    if token is None or witness.moved_clocks or document["requested"] != account.requested:
        return
    if is_behind(witness, process, document):
        return  # it is set back, and not what counts
    access, expires_at = token["access_token"], token.get("expires_at")
    wished = account.wished(witness.world.running)
    # A token may have aged by as long as it takes to look at it, ...
    now = witness.store_now(process) + witness.slowest_look() + witness.disk.clocks_differ
    if account.store_failures:
        # ... and to its owner, who could not save it, by as long as it took to ask for it.
        now += _ASKING + process.stalled
    left, soft, hard = inf, 0.0, 0.0
    if expires_at is not None:
        left = expires_at - now
        soft, hard = policy.windows(expires_at - token["issued_at"], 1.0)
    if wished == inf or left < wished:
        return
    if access in witness.authority.refused or not witness.authority.accepts(access):
        distrusted_at = witness.distrusted.get(access)
        if (
            distrusted_at is not None
            and witness.world.now < distrusted_at + _DISTRUSTED - _ASKING
            and left > soft
            and not (witness.emptied or witness.copied)
        ):
            witness.fail(process, f"renews {access}, which was refused when it was new")
        return
    if expires_at is None:
        witness.fail(process, f"renews {access}, which is good")
    if left > (soft if witness.early else hard):
        witness.fail(process, f"renews {access}, which is fresh")


def _check_hold(witness: Witness, process: Process, document: Document) -> None:
    backoff = document.get("backoff")
    if backoff is None or witness.moved_clocks:
        return
    account = witness.accounts[process]
    if backoff["bound_to"] not in (
        None,
        digest(document["salt"], "client", account.client_asked()),
    ):
        return  # it is meant for another client
    seen = account.seen
    # What the slot was set back to may hold what is older than what came after; if clocks differ,
    # that is not to be told.
    if (
        seen is not None
        and is_behind(witness, process, document)
        and (witness.disk.clocks_differ or backoff["set_at"] <= seen[2])
    ):
        return
    # It may seem to be over for as long as a look may have taken.
    if (
        witness.store_now(process) + witness.slowest_look()
        < backoff["set_at"] + backoff["duration"]
    ):
        witness.fail(process, "asks the server although a hold binds it")


def _check_announced(
    witness: Witness, process: Process, credential: Credential, lock: SimulatedLock
) -> None:
    """Write-ahead: whoever comes after a crash knows what was going on, and who waits for the
    answer knows for how long."""
    document = witness.disk.document
    announcement = witness.accounts[process].announcements.get(witness.world.running)
    intent = document.get("intent")
    if intent is None or named(intent) != credential.secret or announcement is None:
        witness.fail(process, f"presents {credential.secret} without an intent")
    if witness.disk.lease is None or witness.moved_clocks:
        return
    stood_still = process.stalled - lock.stalled
    latest = announcement.until - witness.deadline - _SPARE + _ASKING
    if witness.store_now(process) - stood_still > latest:
        witness.fail(process, f"presents {credential.secret} long after it announced that")


def _check_spent(witness: Witness, process: Process, credential: Credential) -> None:
    """Nothing is presented twice, except after an unknown outcome."""
    secret, account = credential.secret, witness.accounts[process]
    is_older = witness.authority.refresh[secret].age < account.newest
    if (
        is_older
        and witness.authority.rotation == "new"
        and not credential.first
        and secret not in witness.handed_in_alone
        # Another thread may have seen what somebody has copied here since this one looked.
        and account.knows.get(witness.world.running, 0) >= witness.disk.changed_at
        and not witness.emptied
    ):
        witness.fail(process, f"presents {secret} although it has seen a newer one")
    presented = witness.presented.get(secret, [])
    # One that has brought a token, and not spent it, settles what came before.
    settled = [number for number, item in enumerate(presented) if item.has_renewed_for_free()]
    for earlier in presented[settled[-1] if settled else 0 :]:
        if not _may_follow(witness, process, credential, earlier):
            witness.fail(
                process, f"presents {secret}, which was {earlier.outcome} to {earlier.process}"
            )


def _may_follow(
    witness: Witness, process: Process, credential: Credential, earlier: Presentation
) -> bool:
    """Whether *process* may present what was presented *earlier*."""
    account = witness.accounts[process]
    is_own = process.has_what_was_of(earlier.process, earlier.ended_at)
    # It was overtaken, while it held the lock, by one who had lost it.
    is_late = (
        earlier.has_lost_its_lock()
        and earlier.recorded is not None
        and account.knows.get(witness.world.running, 0) < earlier.recorded
    )
    match earlier.outcome:
        case "open":
            return _is_given_up(witness, process, earlier)
        case "minted" if not earlier.spends:
            return True
        case "minted" if credential.opaque and (
            account.has_forced(earlier.ended_at) or (earlier.recorded is None and not is_own)
        ):
            return True  # nobody else knows that it spends anything
        case "minted" if earlier.is_handed_in and is_own:
            return False  # it has the answer, whatever became of that
        case "minted" if earlier.recorded is None:
            # A process that ends tries to save for a few seconds more, and then lets the lock go.
            return (
                not earlier.process.alive
                or earlier.process.is_exiting
                or earlier.process.is_ending
                or earlier.excused
                or earlier.has_lost_its_lock()
                or _is_lost_since(witness, earlier)
            )
        case "refused" if (
            not earlier.credential.refusal_is_final
            or credential.secret in witness.readopted
            or earlier.ended_at <= witness.pardoned_at
        ):
            return True
        case "refused" if earlier.recorded is None:
            # What cannot be written binds its process, until there is another token; a child may
            # have been forked before that was known.
            return process is not earlier.process or earlier.ended_at <= witness.token_at
        case "minted" | "refused":
            return is_late or _is_forgotten(witness, process, earlier)
    return True


def _is_given_up(witness: Witness, process: Process, earlier: Presentation) -> bool:
    """Whether nobody can still await the answer to *earlier*, as far as *process* can know."""
    if earlier.lock is None or _is_lost_since(witness, earlier):
        return True
    if process.sees_death_of(earlier.process):
        return True
    if witness.disk.lease is None:
        return False
    if earlier.announcement is None:
        return earlier.has_lost_its_lock()
    now, lock = witness.store_now(process), witness.disk.locks[witness.world.running]
    # As far as can be checked: it may have stood still after that.
    checked = now - (process.stalled - lock.stalled)
    grace = witness.authority.grace
    if grace and checked < earlier.announcement.first_sent + grace:
        return earlier.has_lost_its_lock()  # the server takes it once more
    if witness.moved_clocks and witness.disk.ahead is None:
        return True  # it may seem to be over, or to come from the future
    until = earlier.announcement.until - witness.disk.clocks_differ
    return now >= until or earlier.announcement.secret in witness.readopted


def _is_lost_since(witness: Witness, earlier: Presentation) -> bool:
    """Whether what was announced of *earlier* may be lost to all but its owner."""
    since = 0 if earlier.announcement is None else earlier.announcement.write
    return witness.disk.changed_at > since


def _is_forgotten(witness: Witness, process: Process, earlier: Presentation) -> bool:
    """Whether what was written down of it may be lost to *process*."""
    if not (witness.emptied or witness.copied):
        return False
    if earlier.credential.first and earlier.outcome == "minted":
        note = record.spent_hash("" if earlier.credential.opaque else FIRST)
        lock = witness.disk.locks[witness.world.running]
        if witness.disk.noted_at.get(note, 0.0) >= lock.taken_at:
            return earlier.has_lost_its_lock()  # it may have looked before that
        if witness.disk.remembers(note, process):
            return False
        # It is noted outside the slot, after it is saved, if that works.
        who = earlier.process
        was_hindered = not who.alive or who.stalled or witness.accounts[who].store_failures
        return bool(was_hindered) or witness.disk.may_forget()
    return True
