"""The rules for presentations.

A process may present a credential only under the lock; only with an intent in the record if the
presentation can spend the credential; not during a backoff; not without need; and not if the
credential was presented before, except after an unknown outcome.

If the lock is a lease, its holder may be stopped for longer than the lease.  Other processes
respect the intent of the holder for as long as the answer may take, and then present the same
credential.  One case cannot be prevented, and is excused: a process that is stopped for even
longer, right after it has confirmed its lock, may send its request or save its answer too late.

Without an intent, only the lock guards a presentation.  If the store loses the lock right after its
holder has confirmed it, the holder and its successor may both present the credential.  The same
applies to a presentation with an intent if the store loses lock and intent at the same moment.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from simulation.ledger import Presentation, digest, includes, named
from simulation.process import Process
from simulation.writes import is_behind
from tokenadapter.core import policy, record
from tokenadapter.protocols import Credential, Document

if TYPE_CHECKING:
    from simulation.store import SimulatedLock
    from simulation.witness import Witness

# Seconds that may pass at points between an intent and the request.
_ASKING = 0.5
# Seconds for which an intent is respected beyond the deadline of its request.
_SPARE = 1.0
# Seconds for which a process that lives is believed to have an answer, after the time for it; 0 if
# processes believe each other for the time of an answer only.
_BELIEVED = 60.0
# The least seconds for which a token that was refused when new is not renewed again.
_DISTRUSTED = 2.5
# Seconds for which programs with different requests may not replace each other's token.
_REPLACEMENT_BAN = 3600.0


def check(
    witness: Witness, process: Process, credential: Credential, lock: SimulatedLock | None
) -> None:
    """A credential is about to be presented.

    :param lock: the one that *process* holds.
    """
    account, document = witness.accounts[process], witness.disk.document
    if account.store_failures and not (credential.single_use and not credential.opaque):
        return  # without the store, the process cannot know of other processes
    if lock is None:
        witness.fail(process, f"presents {credential.secret} without the lock")
    known = account.knows.get(witness.world.running, 0)
    disk = witness.disk
    is_announced = credential.single_use and not credential.opaque
    # A process without the lock may have written since the last read, or a fault changed the slot.
    is_adoption = credential.secret in witness.adopted_alone
    if known >= (disk.writes if disk.lost_locks else disk.changed_at):
        if not is_adoption:
            _check_request(witness, process, document)
            _check_need(witness, process, document)
            _check_backoff(witness, process, document)
        if is_announced:
            _check_intent(witness, process, credential, lock)
    # A process cannot notice that it was stopped after its last check.
    was_stopped = disk.lease is not None and process.stalled > lock.stalled
    # Nor that the lock was lost after the check: then only an intent keeps other processes away,
    # unless the intent was lost together with the lock.
    awaited = document.get("intent", {}).get("awaited", ())
    is_unannounced = all(one["process"] != process.name for one in awaited)
    is_unguarded = is_unannounced and not lock.is_held()
    if credential.single_use and not (was_stopped or is_unguarded):
        _check_spent(witness, process, credential)


def is_due(witness: Witness, process: Process) -> bool:
    """Whether the token in the slot may seem stale, but not expired, to *process*."""
    token = witness.disk.document.get("token", {})
    expires_at = token.get("expires_at")
    if not witness.early or expires_at is None:
        return False
    left = expires_at - witness.store_now(process)
    soft, hard = policy.windows(expires_at - token["issued_at"], 1.0)
    may_seem = witness.slowest_look() + witness.disk.clocks_differ
    return hard - _ASKING < left <= soft + may_seem


def _check_request(witness: Witness, process: Process, document: Document) -> None:
    """Programs with different requests do not replace each other's token for ever."""
    token = document.get("token")
    if token is None or witness.moved_clocks or is_behind(witness, process, document):
        return  # if the slot was set back, its token does not count
    now, requested = witness.store_now(process), witness.accounts[process].requested
    theirs = document["requested"]
    if includes(requested, theirs) or includes(theirs, requested):
        return  # one of the two tokens satisfies both programs
    expires_at = token.get("expires_at")
    # As it may seem to the process: a token may have aged while the slot was read.
    is_alive = expires_at is None or now + witness.slowest_look() + _ASKING < expires_at
    replaced = [
        past["at"]
        for past in document.get("replaced", ())
        if past["requested"] == requested and now < past["at"] + _REPLACEMENT_BAN
    ]
    # A process that has started since may do so once.
    started = now - (witness.world.now - process.began) + witness.disk.clocks_differ
    if is_alive and (len(replaced) > 1 or any(at > started for at in replaced)):
        witness.fail(process, f"replaces {token['access_token']}, which has replaced its own")


def _check_need(witness: Witness, process: Process, document: Document) -> None:
    """One renewal per expiry."""
    token, account = document.get("token"), witness.accounts[process]
    if (
        token is None
        or witness.moved_clocks
        or not includes(document["requested"], account.requested)
    ):
        return
    if is_behind(witness, process, document):
        return  # the slot was set back, and its token does not count
    access, expires_at = token["access_token"], token.get("expires_at")
    demanded = account.demanded_validity(witness.world.running)
    # A token may have aged while the slot was read.
    now = witness.store_now(process) + witness.slowest_look() + witness.disk.clocks_differ
    if account.store_failures:
        # A process that could not save its token may add the time of the token request.
        now += _ASKING + process.stalled
    left, soft, hard = inf, 0.0, 0.0
    if expires_at is not None:
        left = expires_at - now
        soft, hard = policy.windows(expires_at - token["issued_at"], 1.0)
    if demanded == inf or left < demanded:
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
        witness.fail(process, f"renews {access}, which is valid")
    # A token with a wider scope is left to the program that requested it.
    is_early = witness.early and document["requested"] == account.requested
    if left > (soft if is_early else hard):
        witness.fail(process, f"renews {access}, which is fresh")


def _check_backoff(witness: Witness, process: Process, document: Document) -> None:
    backoff = document.get("backoff")
    if backoff is None or witness.moved_clocks:
        return
    account = witness.accounts[process]
    if backoff["bound_to"] not in (
        None,
        digest(document["salt"], "client", account.backoff_target()),
    ):
        return  # the backoff is for another client
    seen = account.seen
    # If the slot was set back, its backoff may be older than the record that the process knows; if
    # clocks differ, the process cannot know which is older.
    if (
        seen is not None
        and is_behind(witness, process, document)
        and (witness.disk.clocks_differ or backoff["set_at"] <= seen[2])
    ):
        return
    # The backoff may seem to be over by as long as a read of the slot takes.
    if (
        witness.store_now(process) + witness.slowest_look()
        < backoff["set_at"] + backoff["duration"]
    ):
        witness.fail(process, "contacts the server during a backoff")


def _check_intent(
    witness: Witness, process: Process, credential: Credential, lock: SimulatedLock
) -> None:
    """An intent is written ahead, so that after a crash other processes know of the presentation,
    and know for how long to wait for its answer."""
    document = witness.disk.document
    announcement = witness.accounts[process].announcements.get(witness.world.running)
    intent = document.get("intent")
    if intent is None or named(intent) != credential.secret or announcement is None:
        witness.fail(process, f"presents {credential.secret} without an intent")
    if witness.disk.lease is None or witness.moved_clocks:
        return
    stopped_for = process.stalled - lock.stalled
    latest = announcement.until - witness.deadline - _SPARE + _ASKING
    if witness.store_now(process) - stopped_for > latest:
        witness.fail(process, f"presents {credential.secret} long after its intent")


def _check_spent(witness: Witness, process: Process, credential: Credential) -> None:
    """No credential is presented twice, except after an unknown outcome."""
    secret, account = credential.secret, witness.accounts[process]
    is_older = witness.authority.refresh[secret].age < account.newest
    if (
        is_older
        and witness.authority.rotation == "new"
        and not credential.first
        and secret not in witness.adopted_alone
        # Another thread may have read a copied file since this thread last read the slot.
        and account.knows.get(witness.world.running, 0) >= witness.disk.changed_at
        and not witness.emptied
    ):
        witness.fail(process, f"presents {secret} although it has seen a newer one")
    presented = witness.presented.get(secret, [])
    # A presentation that brought a token without a rotation settles all earlier ones.
    settled = [number for number, item in enumerate(presented) if item.has_renewed_for_free()]
    for earlier in presented[settled[-1] if settled else 0 :]:
        if not _may_follow(witness, process, credential, earlier):
            witness.fail(
                process, f"presents {secret}, which was {earlier.outcome} to {earlier.process}"
            )


def _may_follow(
    witness: Witness, process: Process, credential: Credential, earlier: Presentation
) -> bool:
    """Whether *process* may present the credential of *earlier* again."""
    account = witness.accounts[process]
    is_own = process.is_or_was_forked_from(earlier.process, earlier.ended_at)
    # A process that had lost the lock saved its outcome while *process* held the lock.
    is_late = (
        earlier.has_lost_its_lock()
        and earlier.recorded is not None
        and account.knows.get(witness.world.running, 0) < earlier.recorded
    )
    if earlier.recorded is None and _is_believed(witness, process, earlier):
        return False
    match earlier.outcome:
        case "open":
            return _is_no_longer_awaited(witness, process, earlier)
        case "minted" if not earlier.spends:
            return True
        case "minted" if credential.opaque and (
            account.has_forced(earlier.ended_at) or (earlier.recorded is None and not is_own)
        ):
            return True  # no other process knows that the function spends a refresh token
        case "minted" if earlier.is_adoption and is_own:
            return False  # the process itself has the answer
        case "minted" if earlier.recorded is None:
            # An ending process tries to save for a few more seconds, and then releases the lock.
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
            or earlier.ended_at <= witness.cleared_at
        ):
            return True
        case "refused" if earlier.recorded is None:
            # A refusal that could not be saved applies to its process until there is another
            # token, or the record is lost; a child may have been forked before the refusal.
            return (
                process is not earlier.process
                or earlier.ended_at <= witness.token_at
                or _is_lost_since(witness, earlier)
            )
        case "minted" | "refused":
            return is_late or _is_forgotten(witness, process, earlier)
    return True


def _is_no_longer_awaited(witness: Witness, process: Process, earlier: Presentation) -> bool:
    """Whether no process can still await the answer to *earlier*, as far as *process* knows."""
    if earlier.lock is None or _is_lost_since(witness, earlier):
        return True
    if process.sees_death_of(earlier.process):
        return True
    presented = witness.presented[earlier.credential.secret]
    known = witness.accounts[process].knows.get(witness.world.running, 0)
    if any(
        item.recorded is not None and item.recorded <= known
        for item in presented[presented.index(earlier) + 1 :]
    ):
        return True  # a process that could tell has presented it since, and saved the outcome
    if witness.disk.lease is None:
        return False
    if earlier.announcement is None:
        return earlier.has_lost_its_lock()
    # Also within a grace period: else the server may read the earlier request after the later one.
    if witness.forgotten_at > earlier.announcement.write:
        return True  # the intent was removed with its token
    if witness.moved_clocks and witness.disk.ahead is None:
        return True  # the wait may seem to be over, or to begin in the future
    until = earlier.announcement.until - witness.disk.clocks_differ
    return witness.store_now(process) >= until or earlier.announcement.secret in witness.readopted


def _is_believed(witness: Witness, process: Process, earlier: Presentation) -> bool:
    """Whether the process of *earlier* lives on the computer of *process*, and waits for its
    answer, or cannot save it yet: then no other process presents the credential."""
    owner, announcement = earlier.process, earlier.announcement
    if announcement is None or earlier.task not in owner.tasks or not process.sees_life_of(owner):
        return False
    is_leaving = owner.is_exiting or owner.is_ending
    is_lost = earlier.excused or _is_lost_since(witness, earlier)
    if is_leaving or is_lost or earlier.outcome not in ("open", "minted"):
        return False
    is_in_time = witness.store_now(process) < announcement.until + _BELIEVED - _ASKING
    return is_in_time and not witness.moved_clocks


def _is_lost_since(witness: Witness, earlier: Presentation) -> bool:
    """Whether the intent of *earlier* may be lost to all but its process."""
    since = 0 if earlier.announcement is None else earlier.announcement.write
    return witness.disk.changed_at > since


def _is_forgotten(witness: Witness, process: Process, earlier: Presentation) -> bool:
    """Whether the saved outcome of *earlier* may be lost to *process*."""
    if not (witness.emptied or witness.copied):
        return False
    if earlier.outcome == "minted":
        spent = record.spent_hash("" if earlier.credential.opaque else earlier.credential.secret)
        lock = witness.disk.locks[witness.world.running]
        if witness.disk.spent_at.get(spent, 0.0) >= lock.taken_at:
            return earlier.has_lost_its_lock()  # the process may have looked before that
        if witness.disk.remembers(spent, process):
            return False
        # The hash is stored apart from the slot after the save, unless a fault prevents that, or
        # lets another process take the lock before that.
        owner = earlier.process
        was_hindered = not owner.alive or owner.stalled or witness.accounts[owner].store_failures
        return bool(was_hindered) or earlier.has_lost_its_lock() or witness.disk.may_forget()
    return True
