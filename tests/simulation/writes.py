"""What may be written into the slot, and what has to be there when the lock is let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.ledger import Presentation, named
from simulation.process import Process
from simulation.store import SimulatedLock
from tokenadapter.protocols import Document

if TYPE_CHECKING:
    from simulation.witness import Witness


# Seconds by which sums of seconds may be wrong.
_EXACT = 1e-6


def check(witness: Witness, process: Process, before: Document, document: Document) -> None:
    """A process has replaced *before* by *document*."""
    old, new = before.get("token"), document.get("token")
    if new is not None:
        access = new["access_token"]
        is_free = "backoff" not in document and _is_left_to_others(process, document)
        if access not in witness.saved_tokens and not is_free:
            witness.fail(process, f"leaves a hold or an intent beside {access}, which is new")
        # Of two that go on from what was set back, or lost while others remembered it, the one
        # counts that was issued later, as far as their clocks tell.
        has_two = witness.disk.set_back_at or witness.emptied
        is_later = has_two and (
            witness.moved_clocks or (old and new["issued_at"] > old["issued_at"])
        )
        is_older = old and witness.authority.age(new) < witness.authority.age(old)
        if is_older and not is_later and access not in witness.handed_in:
            witness.fail(process, f"writes {access} over {old['access_token']}")
        _check_origin(witness, process, before, access)
        _check_expiry(witness, process, new)
    _check_wait(witness, process, before.get("backoff"), document.get("backoff"))
    for stone in document.get("tombstones", ()):
        if not _was_refused(witness, named(stone)):
            witness.fail(process, "writes a tombstone of something that was never refused")
    if "intent" in document:
        _check_attempt(witness, process, before.get("intent"), document["intent"])


def _is_left_to_others(process: Process, document: Document) -> bool:
    """Whether the intent beside a new token, if there is one, is about the refresh token that the
    server has kept, and others await another answer to that, by which it may be spent yet."""
    intent = document.get("intent")
    if intent is None:
        return True
    owners = [waiter["process"] for waiter in intent["awaited"]]
    is_kept = named(intent) == document["token"].get("refresh_token")
    return is_kept and bool(owners) and process.name not in owners


def _check_origin(witness: Witness, process: Process, before: Document, access: str) -> None:
    """What was lost is brought back by who has seen it in the slot, and not if it was given up."""
    if access in witness.handed_in:
        return
    if not before and access not in witness.accounts[process].met:
        witness.fail(process, f"brings {access} back, which it has not seen itself")
    is_given_up = access in witness.forgotten and not witness.disk.changed_at
    mint = witness.mints.get(access)
    is_doubtful = mint is not None and mint.is_doubtful  # it is saved once more
    if before and "token" not in before and is_given_up and not is_doubtful:
        witness.fail(process, f"brings {access} back, which was given up")


def _check_expiry(witness: Witness, process: Process, token: dict[str, Any]) -> None:
    """Nobody takes a token for younger than it is."""
    access, expires_at = token["access_token"], token.get("expires_at")
    if access in witness.saved_tokens or expires_at is None or witness.moved_clocks:
        return
    *_, until = witness.authority.access[access]
    if expires_at > until + witness.store_now(process) - witness.world.now + _EXACT:
        witness.fail(process, f"says that {access} lives for longer than it does")


def _check_wait(
    witness: Witness, process: Process, old: dict[str, Any] | None, backoff: dict[str, Any] | None
) -> None:
    """The server is left alone for as long as it asks to be."""
    last = witness.last_of_this_thread(process)
    if last is None or last.wait is None or backoff is None or backoff == old or last.recorded:
        return
    if backoff["duration"] < last.wait - _EXACT:
        witness.fail(
            process, f"asks again after {backoff['duration']:.3f} s, not {last.wait:.3f} s"
        )


def is_replaced(witness: Witness, presentation: Presentation) -> bool:
    """Whether what is stored does not come of what was presented, nor will."""
    document = witness.disk.document
    if not document:
        return False  # it was emptied
    token, secret = document.get("token", {}), presentation.credential.secret
    if token.get("access_token") != presentation.stored:
        return True
    if "intent" not in document or named(document["intent"]) == secret:
        return False
    # Another one is presented: it replaces nothing yet, unless this one was refused.
    is_refused = any(named(stone) == secret for stone in document.get("tombstones", ()))
    return is_refused or token.get("refresh_token", secret) != secret


def is_accounted_for(witness: Witness, presentation: Presentation) -> bool:
    """Whether what others have written tells of *presentation*: the intent, which counts it as one
    that may have been processed; or what became of a later one."""
    document = witness.disk.document
    told = [*document.get("tombstones", ()), document.get("intent")]
    is_told = any(named(item) == presentation.credential.secret for item in told if item)
    return is_told or is_replaced(witness, presentation)


def is_behind(witness: Witness, process: Process, document: Document) -> bool:
    """Whether *process* has seen what came after *document*."""
    seen = witness.accounts[process].seen
    if seen is None or document["salt"] != seen[1]:
        return False
    return bool(document.get("generation", 0) < seen[0])


def check_memory(witness: Witness, process: Process, before: Document, document: Document) -> None:
    """A process has replaced *before*: by nothing that is older than what it has seen, if the
    slot was set back since.  What is handed in begins a grant of its own, and is no older."""
    account = witness.accounts[process]
    if not before or "token" not in document:
        return
    if document["token"]["access_token"] in witness.handed_in:
        return
    if witness.moved_clocks or witness.disk.clocks_differ:
        return  # which token was issued later is not to be told
    if (
        is_behind(witness, process, before)
        and witness.authority.age(document["token"]) < account.newest
        and account.seen is not None
        and before.get("written", 0.0) <= account.seen[3]
    ):
        access = document["token"]["access_token"]
        witness.fail(process, f"goes on from {access}, although it has seen a newer one")


def check_recorded(witness: Witness, lock: SimulatedLock) -> None:
    """Every outcome is written down before the next presentation, and before the lock is free."""
    last = lock.presentation
    if last is None or last.recorded is not None or last.excused:
        return
    process = last.process
    is_leaving = process.is_exiting or process.is_ending
    if not (is_leaving and witness.accounts[process].store_failures):
        witness.fail(
            last.process, f"leaves no trace of {last.credential.secret}, which was {last.outcome}"
        )


def check_intent(witness: Witness, lock: SimulatedLock | None = None) -> None:
    """An intent that is left says that the outcome of a presentation is unknown.

    :param lock: the one that is about to be let go.
    """
    intent = witness.disk.document.get("intent")
    if intent is None or not _is_reliable(witness, secret := named(intent)):
        return
    if any(
        process.alive and last.secret == secret and (lock is None or last.task is not lock.task)
        for process, account in witness.accounts.items()
        for last in account.announcements.values()
    ):
        return  # one that has lost the lock may be about to present it, or to hear of it
    presentations = witness.presented.get(secret)
    if intent == witness.put_aside.get(secret, (None,))[0]:
        return  # it was put back when its writer could not withdraw it any more
    if presentations is None:
        witness.world.fail(f"an intent on {secret} is left, which was never presented")
    if not any(item.outcome == "unknown" or item.excused for item in presentations):
        witness.world.fail(f"an intent on {secret} is left, which has an outcome")


def records(document: Document, presentation: Presentation) -> bool:
    """Whether *document* tells the outcome of *presentation*."""
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
    """What *document* holds, for the trace."""
    token = document.get("token", {})
    parts = [token.get("access_token", "no token"), token.get("refresh_token", "")]
    parts += [name for name in ("intent", "backoff", "tombstones", "distrust") if name in document]
    return " ".join(filter(None, parts))


def _was_refused(witness: Witness, secret: str) -> bool:
    return any(item.outcome == "refused" for item in witness.presented.get(secret, ()))


def _check_attempt(
    witness: Witness, process: Process, old: dict[str, Any] | None, intent: dict[str, Any]
) -> None:
    """The attempts that count are those that the server may have processed."""
    secret = named(intent)
    if old is not None and named(old) == secret and old["attempt"] >= intent["attempt"]:
        return  # it was not processed, and all is as before
    if intent == witness.put_aside.get(secret, (None,))[0]:
        return  # nor was another credential, and all is as before that
    if not _is_reliable(witness, secret):
        return
    presented = witness.presented.get(secret, ())
    settled = [item.recorded for item in presented if item.is_settled() and item.recorded]
    since = max([witness.forgotten_at, witness.displaced.get(secret, 0), *settled])
    sent = [(item, item.announcement) for item in presented if item.announcement is not None]
    unknown = sum(item.may_be_processed() and said.write > since for item, said in sent)
    # What was announced and not sent counts, too, if others have written since.
    unsent = witness.announced[secret] - 1 - len(sent)
    # So does what came of nothing, if its lock was lost before the others were told.
    untold = sum(item.is_untold() and said.write > since for item, said in sent)
    # So does what was awaited still when another was answered, and spent nothing.
    kept = sum(said.write <= since <= item.kept for item, said in sent)
    if not unknown < intent["attempt"] <= unknown + 1 + unsent + untold + kept:
        witness.fail(
            process,
            f"announces attempt {intent['attempt']} with {secret}, of which {unknown} may have "
            "been processed before",
        )


def _is_reliable(witness: Witness, secret: str) -> bool:
    """Whether nothing kept anyone from writing down how it went with *secret*."""
    return not (
        witness.emptied
        or witness.copied
        or secret in witness.readopted
        or any(
            process.was_killed or process.stalled or witness.accounts[process].store_failures
            for process in witness.announcers.get(secret, ())
        )
    )
