"""The rules for writes, and for the content of the slot when the lock is released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.ledger import Presentation, named
from simulation.process import Process
from simulation.store import SimulatedLock
from tokenadapter.protocols import Document

if TYPE_CHECKING:
    from simulation.witness import Witness


# The rounding error of sums of seconds.
_EXACT = 1e-6
# The least seconds between the times of two writes in a record.
_LEAST_DIFFERENCE = 0.001


def check(witness: Witness, process: Process, before: Document, document: Document) -> None:
    """A process has replaced *before* by *document*."""
    old, new = before.get("token"), document.get("token")
    if new is not None:
        access = new["access_token"]
        is_free = "backoff" not in document and _is_left_to_others(process, document)
        if access not in witness.saved_tokens and not is_free:
            witness.fail(process, f"leaves a backoff or an intent beside the new token {access}")
        # After the slot was set back or emptied, or an expired document was dropped, two tokens may
        # descend from one record.  The token that was issued later counts, as far as the clocks
        # agree.
        has_two = witness.disk.set_back_at or witness.emptied or witness.disk.has_dropped
        is_later = has_two and (
            witness.moved_clocks
            or (old and new["issued_at"] > old["issued_at"])
            or (old and _are_simultaneous(before, document))
        )
        is_older = old and witness.authority.age(new) < witness.authority.age(old)
        if is_older and not is_later and access not in witness.adopted_access:
            witness.fail(process, f"writes {access} over {old['access_token']}")
        _check_origin(witness, process, before, access)
        _check_expiry(witness, process, new)
    _check_wait(witness, process, before.get("backoff"), document.get("backoff"))
    for stone in document.get("tombstones", ()):
        if not _was_refused(witness, named(stone)):
            witness.fail(process, "writes a tombstone of something that was never refused")
    if "intent" in document:
        _check_attempt(witness, process, before.get("intent"), document["intent"])


def _are_simultaneous(before: Document, document: Document) -> bool:
    """Whether the tokens of two records were issued within the least difference between two writes:
    if several writes led to *document*, it seems to be written later than it was."""
    lead = before["token"]["issued_at"] - document["token"]["issued_at"]
    seems_later = document.get("written", 0.0) > before.get("written", 0.0)
    return bool(lead < _LEAST_DIFFERENCE and seems_later)


def _is_left_to_others(process: Process, document: Document) -> bool:
    """Whether the intent beside a new token, if any, belongs to other processes: the server has not
    rotated its refresh token, and the answer that they await may still spend it."""
    intent = document.get("intent")
    if intent is None:
        return True
    owners = [waiter["process"] for waiter in intent["awaited"]]
    is_kept = named(intent) == document["token"].get("refresh_token")
    return is_kept and bool(owners) and process.name not in owners


def _check_origin(witness: Witness, process: Process, before: Document, access: str) -> None:
    """A lost token is restored only by a process that has seen it in the slot, and not after it was
    forgotten."""
    if access in witness.adopted_access:
        return
    if not before and access not in witness.accounts[process].met:
        witness.fail(process, f"restores {access}, which it has not seen itself")
    is_forgotten = access in witness.forgotten and not witness.disk.changed_at
    mint = witness.mints.get(access)
    is_doubtful = mint is not None and mint.is_doubtful  # its process may save it again
    if before and "token" not in before and is_forgotten and not is_doubtful:
        witness.fail(process, f"restores {access}, which was forgotten")


def _check_expiry(witness: Witness, process: Process, token: dict[str, Any]) -> None:
    """No process takes a token for younger than it is."""
    access, expires_at = token["access_token"], token.get("expires_at")
    if access in witness.saved_tokens or expires_at is None or witness.moved_clocks:
        return
    *_, until = witness.authority.access[access]
    if expires_at > until + witness.store_now(process) - witness.world.now + _EXACT:
        witness.fail(process, f"saves an expiry of {access} that is later than the real one")


def _check_wait(
    witness: Witness, process: Process, old: dict[str, Any] | None, backoff: dict[str, Any] | None
) -> None:
    """A backoff lasts for at least the seconds of Retry-After, unless a lost record is restored,
    with the backoff that it had."""
    last = witness.last_of_this_thread(process)
    if last is None or last.wait is None or backoff is None or backoff == old or last.recorded:
        return
    is_restored = any(backoff == past.get("backoff") for (past, _), _ in witness.disk.past[:-1])
    if backoff["duration"] < last.wait - _EXACT and not is_restored:
        witness.fail(process, f"backs off for {backoff['duration']:.3f} s, not {last.wait:.3f} s")


def is_replaced(witness: Witness, presentation: Presentation) -> bool:
    """Whether the stored token does not come from *presentation*, and never will be replaced by its
    token."""
    document = witness.disk.document
    if not document:
        return False  # the slot was emptied
    token, secret = document.get("token", {}), presentation.credential.secret
    if token.get("access_token") != presentation.stored:
        return True
    if "intent" not in document or named(document["intent"]) == secret:
        return False
    # Another credential is being presented, which replaces nothing yet unless this one was refused.
    is_refused = any(named(stone) == secret for stone in document.get("tombstones", ()))
    return is_refused or token.get("refresh_token", secret) != secret


def is_accounted_for(witness: Witness, presentation: Presentation) -> bool:
    """Whether the writes of other processes account for *presentation*: by an intent, which counts
    it as possibly processed, or by the outcome of a later presentation."""
    document = witness.disk.document
    items = [*document.get("tombstones", ()), document.get("intent")]
    is_named = any(named(item) == presentation.credential.secret for item in items if item)
    return is_named or is_replaced(witness, presentation)


def is_behind(witness: Witness, process: Process, document: Document) -> bool:
    """Whether *process* has seen a later record than *document*."""
    seen = witness.accounts[process].seen
    if seen is None or document["salt"] != seen[1]:
        return False
    return bool(document.get("generation", 0) < seen[0])


def check_memory(witness: Witness, process: Process, before: Document, document: Document) -> None:
    """A process that replaces *before* in a slot that was set back writes no older token than it
    has seen.  An adopted token begins a grant of its own, and is not older."""
    account = witness.accounts[process]
    if not before or "token" not in document:
        return
    if document["token"]["access_token"] in witness.adopted_access:
        return
    if witness.moved_clocks or witness.disk.clocks_differ:
        return  # the process cannot know which token was issued later
    if account.knows.get(witness.world.running, 0) < witness.disk.changed_at:
        return  # another thread has read what a fault put there after this thread compared
    if (
        is_behind(witness, process, before)
        and witness.authority.age(document["token"]) < account.newest
        and account.seen is not None
        and before.get("written", 0.0) <= account.seen[3]
    ):
        access = document["token"]["access_token"]
        witness.fail(process, f"writes {access} although it has seen a newer token")


def check_recorded(witness: Witness, lock: SimulatedLock) -> None:
    """Every outcome is saved before the next presentation, and before the lock is released."""
    last = lock.presentation
    if last is None or last.recorded is not None or last.excused:
        return
    process = last.process
    if witness.copied and last.access is not None:
        newest = witness.accounts[process].newest
        if witness.authority.age({"access_token": last.access}) < newest:
            return  # the process has seen a later login, which was copied here
    is_leaving = process.is_exiting or process.is_ending
    if not (is_leaving and witness.accounts[process].store_failures):
        witness.fail(
            last.process, f"does not save the outcome of {last.credential.secret}: {last.outcome}"
        )


def check_intent(witness: Witness, lock: SimulatedLock | None = None) -> None:
    """An intent remains only if the outcome of its presentation is unknown.

    :param lock: the lock that is about to be released.
    """
    intent = witness.disk.document.get("intent")
    if intent is None or not _is_reliable(witness, secret := named(intent)):
        return
    if any(
        process.alive and last.secret == secret and (lock is None or last.task is not lock.task)
        for process, account in witness.accounts.items()
        for last in account.announcements.values()
    ):
        return  # a process that has lost the lock may be about to present it, or await its answer
    presentations = witness.presented.get(secret)
    if intent == witness.replaced_intents.get(secret, (None,))[0]:
        return  # it was restored after its process could no longer withdraw it
    if presentations is None:
        witness.world.fail(f"an intent on {secret} remains, which was never presented")
    if not any(item.outcome == "unknown" or item.excused for item in presentations):
        witness.world.fail(f"an intent on {secret} remains, which has a known outcome")


def records(document: Document, presentation: Presentation) -> bool:
    """Whether *document* records the outcome of *presentation*."""
    match presentation.outcome:
        case "minted":
            return bool(document.get("token", {}).get("access_token") == presentation.access)
        case "refused" if presentation.credential.refusal_is_final:
            secret, stones = presentation.credential.secret, document.get("tombstones", ())
            return any(named(stone) == secret for stone in stones)
        case "refused":
            return "backoff" in document
        case "unprocessed" | "unknown":
            return "backoff" in document
    return False


def brief(document: Document) -> str:
    """A summary of *document* for the trace."""
    token = document.get("token", {})
    parts = [token.get("access_token", "no token"), token.get("refresh_token", "")]
    parts += [name for name in ("intent", "backoff", "tombstones", "distrust") if name in document]
    return " ".join(filter(None, parts))


def _was_refused(witness: Witness, secret: str) -> bool:
    return any(item.outcome == "refused" for item in witness.presented.get(secret, ()))


def _check_attempt(
    witness: Witness, process: Process, old: dict[str, Any] | None, intent: dict[str, Any]
) -> None:
    """The attempt number counts the presentations that the server may have processed."""
    secret = named(intent)
    if old is not None and named(old) == secret and old["attempt"] >= intent["attempt"]:
        return  # the last attempt was not processed, and does not count
    if intent == witness.replaced_intents.get(secret, (None,))[0]:
        return  # another credential was not processed, and the earlier intent is restored
    if not _is_reliable(witness, secret):
        return
    presented = witness.presented.get(secret, ())
    settled = [item.recorded for item in presented if item.is_settled() and item.recorded]
    since = max([witness.forgotten_at, witness.displaced.get(secret, 0), *settled])
    sent = [(item, item.announcement) for item in presented if item.announcement is not None]
    unknown = sum(item.may_be_processed() and said.write > since for item, said in sent)
    # An intent without a request counts as well if other processes have written since.
    unsent = witness.announced[secret] - 1 - len(sent)
    # So does an unprocessed presentation whose outcome was not saved.
    unreported = sum(item.is_unreported() and said.write > since for item, said in sent)
    # So does a presentation that was still awaited when another one brought a token for free.
    kept = sum(said.write <= since <= item.kept for item, said in sent)
    if not unknown < intent["attempt"] <= unknown + 1 + unsent + unreported + kept:
        witness.fail(
            process,
            f"writes an intent for attempt {intent['attempt']} with {secret}, which the server may "
            f"have processed {unknown} times before",
        )


def _is_reliable(witness: Witness, secret: str) -> bool:
    """Whether no fault kept a process from saving an outcome of *secret*."""
    return not (
        witness.emptied
        or witness.copied
        or secret in witness.readopted
        or any(
            process.was_killed or process.stalled or witness.accounts[process].store_failures
            for process in witness.announcers.get(secret, ())
        )
    )
