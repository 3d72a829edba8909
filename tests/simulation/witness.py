"""Observes the world, and checks the rules.

The witness observes every presentation, every write and every use of a token, from outside of all
processes.  A check fails where a process violates a rule, not where the violation does harm later:

* *presentations*: :mod:`simulation.presentations`;
* *outcomes* (:meth:`Witness.releases`): each outcome is saved before the lock is released, and no
  intent remains;
* *writes* (:mod:`simulation.writes`): no process writes an older token over a newer one, even after
  the slot was set back; a new token has no backoff and no intent beside it; a tombstone follows a
  refusal; an intent counts its attempts;
* *uses* (:meth:`Witness.used`): a process uses only saved tokens, except its own token if saving
  failed, and only tokens of its own request;
* *reports* (:meth:`Witness.renewed`): ``on_refresh`` is called once for each renewal, in the
  process that renewed;
* *errors*: :mod:`simulation.complaints`.

Some faults excuse a violation: a dead process cannot save an outcome, and the content of an emptied
store may be lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf
from typing import Any

from simulation import presentations, writes
from simulation.authority import Authority
from simulation.ledger import Account, Announcement, Mint, Presentation, includes, named
from simulation.process import Process
from simulation.store import Disk, SimulatedLock
from simulation.world import World
from tokenadapter.protocols import Credential, Document
from tokenadapter.token import Token

# Seconds for which a process waits for the answer to a request; 0: only until its deadline.
_ANSWERED_WITHIN = 50.0


class Witness:
    """Observes one world.

    :param early: whether tokens are renewed before they expire.
    :param deadline: the deadline of every token request in seconds.
    """

    def __init__(self, world: World, authority: Authority, *, early: bool, deadline: float) -> None:
        self.world = world
        self.authority = authority
        self.early = early
        self.deadline = deadline
        self.disk = Disk(world, self)
        self.accounts: dict[Process, Account] = {}
        self.presented: dict[str, list[Presentation]] = {}
        self.announcers: dict[str, set[Process]] = {}
        """For each refresh token, the processes that have written an intent on it."""
        self.displaced: dict[str, int] = {}
        """For each secret, the last write that replaced its intent by an intent on another one."""
        self.replaced_intents: dict[str, tuple[Mapping[str, Any], int]] = {}
        """For each secret, the replaced intent, which is restored if the other presentation was not
        processed, and the previous value in ``displaced``."""
        self.announced: Counter[str] = Counter()
        """For each secret, the number of its announcements."""
        self.mints: dict[str, Mint] = {}
        self.saved_tokens: set[str] = set()
        self.requested: dict[str, Mapping[str, str]] = {}
        """The request of each saved token."""
        self.adopted_access: set[str] = set()
        """The access tokens of adoptions."""
        self.adopted_alone: set[str] = set()
        """The refresh tokens that are adopted without an access token."""
        self.forgotten: set[str] = set()
        """The access tokens that were forgotten."""
        self.begun_at = 0
        """The last write by which a grant began or ended, ..."""
        self.begun_when = 0.0
        """... and its time."""
        self.forgotten_at = 0
        """The last write that forgot a token."""
        self.distrusted: dict[str, float] = {}
        """The access tokens that were refused when they were new, with the time of the record."""
        self.cleared_at = 0.0
        """The time of the last forced renewal, which clears all refusals."""
        self.failed_at = self.succeeded_at = self.alive_again_at = self.token_at = 0.0
        self.late_at = 0.0
        """When the last answer came, or was given up, after the deadline of its request."""
        self.adopted: set[str] = set()
        """The refresh tokens of adoptions."""
        self.readopted: set[str] = set()
        """The refresh tokens of adoptions that were repeated after an error."""
        self.misconfigured: set[str] = set()
        """The credentials of refused clients."""
        # The events that excuse violations.
        self.emptied = self.copied = self.moved_clocks = self.delays = self.deaths = 0
        self.presentations = 0

    # --- presentations -------------------------------------------------------------------

    def starts(self, process: Process, credential: Credential) -> Presentation:
        """A credential is about to be presented."""
        lock = self.disk.locks.get(self.world.running)
        if lock is not None and not lock.is_good():
            lock = None
        presentations.check(self, process, credential, lock)
        account = self.accounts[process]
        announcement = account.announcements.get(self.world.running)
        if announcement is not None and announcement.secret != credential.secret:
            announcement = None
        presentation = Presentation(
            self.world.running,
            lock,
            credential,
            account.stored.get(self.world.running),
            announcement,
        )
        presentation.excused = self.emptied > 0 and not self.disk.document
        presentation.is_adoption = credential.secret in self.adopted_alone
        presentation.is_due = presentations.is_due(self, process)
        if credential.single_use:
            self.presented.setdefault(credential.secret, []).append(presentation)
        if lock is not None:
            writes.check_recorded(self, lock)
            lock.presentation = presentation
        account.presentations[self.world.running] = presentation
        self.presentations += 1
        return presentation

    def learns_outcome(
        self, presentation: Presentation, outcome: str, answer: Mapping[str, Any] | None = None
    ) -> None:
        """A process learns the outcome of its presentation."""
        process, account = presentation.process, self.accounts[presentation.process]
        presentation.outcome, presentation.ended_at = outcome, self.world.now
        if presentation.began + self.deadline < self.world.now:
            self.late_at = self.world.now
        self.world.log(process, "  {} is {}", presentation.credential.secret, outcome)
        if answer is not None:
            self.token_at = account.token_at = self.world.now
            is_gone = self.copied or self.authority.is_dead(self.disk.document)
            if presentation.credential.first and is_gone:
                # With the earlier grant gone, the first refresh token begins a new one.
                self.authority.count_as_login(presentation.credential.secret)
            presentation.access = answer["access_token"]
            refresh = answer.get("refresh_token", presentation.credential.secret)
            presentation.spends = refresh != presentation.credential.secret
            self.mints[answer["access_token"]] = mint = Mint(process, self.world.now)
            if presentation.is_adoption:
                self.adopted_access.add(answer["access_token"])
                self.adopted.add(refresh)
                # From now on, the refresh token is spent, or like any other one.
                self.adopted_alone.discard(presentation.credential.secret)
                mint.is_reported = True  # the caller of adopt() gets it
            account.met.add(presentation.access)
            # The renewal of a stale token is not on account of a request.
            account.mints += not presentation.is_due
            # After a delay, a new token may have expired before its first use.
            if account.mints > account.requests + self.delays and not self.emptied:
                self.fail(process, "renews more often than there are requests")
        elif outcome != "refused":
            self.failed_at = self.world.now

    def gives_up(self, process: Process, credential: Credential, waited: float) -> None:
        """A process no longer waits for the answer to a request, which the server may have read.

        Within a grace period, the credential is presented again; a process that ends cannot wait.
        """
        is_ending = process.is_exiting or process.is_ending
        may_be_lost = not (credential.single_use and not credential.opaque)
        if waited < _ANSWERED_WITHIN and not (self.authority.grace or is_ending or may_be_lost):
            self.fail(process, f"gives up the answer to {credential.secret} after {waited:.1f} s")

    def waits_longer(self, process: Process) -> None:
        """A process goes on waiting for an answer that is late, and has said so in the record, if
        the lock does not keep other processes away."""
        last, account = self.last_of_this_thread(process), self.accounts[process]
        if self.disk.lease is None or last is None or last.announcement is None:
            return
        is_hindered = account.store_failures or self.disk.lost_locks or self.disk.changed_at
        is_said = self.store_now(process) < last.announcement.until
        if not (is_said or is_hindered or process.stalled or self.moved_clocks):
            self.fail(process, f"waits longer for the answer to {last.credential.secret} than said")

    # --- the store -----------------------------------------------------------------------

    def loaded(self, process: Process, document: Document | None, took: float) -> None:
        """A process has read the slot, which took *took* seconds."""
        account = self.accounts[process]
        account.slowest_look = max(account.slowest_look, took)
        self.sees(process, document or {}, self.disk.writes)
        last = self.last_of_this_thread(process)
        if last is None or last.outcome == "open" or last.recorded or last.excused:
            return
        if writes.is_replaced(self, last):
            # Another thread has seen the write of another process, or a copied file, so this one
            # tries none: beside another token, a failure does not count either.
            self.moved(process)

    def saved(self, process: Process, before: Document, document: Document) -> None:
        """A process has written the slot."""
        self.world.log(process, "  wrote: {}", writes.brief(document))
        account, token = self.accounts[process], document.get("token")
        refresh = None if token is None else token.get("refresh_token")
        is_adopted = refresh in self.adopted and before.get("token", token) != token
        if is_adopted or (self.forgotten and refresh is not None and "token" not in before):
            self.authority.count_as_login(refresh)
        self._observe_intent(process, account, before, document)
        if account.demanded_validity(self.world.running) == inf:
            self.cleared_at = self.world.now
            self.distrusted.clear()
        if document.get("begun") != before.get("begun"):
            self.begun_at, self.begun_when = self.disk.writes, self.world.now
        if token is None and "token" in before:
            self.forgotten.add(before["token"]["access_token"])
            self.forgotten_at = self.disk.writes
        writes.check(self, process, before, document)
        writes.check_memory(self, process, before, document)
        if token is not None and token["access_token"] not in self.saved_tokens:
            access = token["access_token"]
            self.saved_tokens.add(access)
            self.requested[access] = document["requested"]
            if "intent" in document:
                for item in self.presented.get(named(document["intent"]), ()):
                    if item.outcome in ("open", "unknown"):
                        item.kept = self.disk.writes
            self.token_at = self.world.now
            # A failure after the token was issued is not over.
            mint = self.mints.get(access)
            if mint is None or mint.at > self.failed_at:
                self.succeeded_at = self.world.now
        if self.authority.is_dead(before) and not self.authority.is_dead(document):
            self.alive_again_at = self.world.now
        for last in account.presentations.values():
            if last.recorded is None and writes.records(document, last):
                last.recorded = self.disk.writes

    def _observe_intent(
        self, process: Process, account: Account, before: Document, document: Document
    ) -> None:
        """A process may have written an intent."""
        intent = document.get("intent")
        if intent is None or intent == before.get("intent"):
            return
        self.announcers.setdefault(named(intent), set()).add(process)
        replaced, displaced = self.replaced_intents.get(named(intent), (None, 0))
        if intent == replaced:
            self.displaced[named(intent)] = displaced
            return
        last = before.get("intent")
        if last is not None and named(last) != named(intent):
            self.replaced_intents[named(last)] = last, self.displaced.get(named(last), 0)
            self.displaced[named(last)] = self.disk.writes
        known = () if last is None else last["awaited"]
        waiting = account.presentations.get(self.world.running)
        if waiting is not None and waiting.outcome == "open" and waiting.announcement is not None:
            # The thread says that it waits longer for the answer to its presentation.
            until = max(waiter["until"] for waiter in intent["awaited"] if waiter not in known)
            waiting.announcement = waiting.announcement._replace(until=until)
            return
        for waiter in intent["awaited"]:
            if waiter["process"] == process.name and waiter not in known:
                self.announced[named(intent)] += 1
                for task in [*account.announcements]:
                    if task not in process.tasks:
                        del account.announcements[task]  # the thread has ended
                account.announcements[self.world.running] = Announcement(
                    self.world.running,
                    named(intent),
                    intent["first_sent"],
                    waiter["until"],
                    self.disk.writes,
                )

    def is_overdue(self, since: float) -> bool:
        """Whether an answer was late after *since*."""
        return since < self.late_at or any(
            last.outcome == "open" and last.began + self.deadline < self.world.now
            for account in self.accounts.values()
            for last in account.presentations.values()
        )

    def store_failed(self, process: Process) -> None:
        """The store fails for a process.  That excuses an outcome that is not saved, but not a new
        token, whose save is retried until it succeeds."""
        account = self.accounts[process]
        account.store_failures += 1
        account.store_failed_at = self.world.now
        last = self.last_of_this_thread(process)
        if last is not None:
            last.excused |= last.outcome != "open" and not last.must_be_saved()
        self.doubts(process)

    def doubts(self, process: Process) -> None:
        """A process does not learn that its write succeeded."""
        last = self.last_of_this_thread(process)
        if last is not None and last.access is not None:
            self.mints[last.access].is_doubtful = True

    def moved(self, process: Process) -> None:
        """A process learns that another process has written since its last read.  An answer that
        comes after another renewal or a login has become worthless."""
        last = self.last_of_this_thread(process)
        if last is not None:
            # The renewal of another process does not replace an adopted token, which begins a
            # grant.
            since = 0 if last.announcement is None else last.announcement.write
            has_begun = max(self.begun_at, self.disk.changed_at) > since
            is_beginning = last.is_adoption and last.outcome == "minted" and not has_begun
            is_replaced = writes.is_replaced(self, last) and not is_beginning
            last.excused |= is_replaced
            last.was_overtaken = writes.is_accounted_for(self, last)
            is_worthless = is_replaced and last.outcome == "minted" and not last.is_due
            self.accounts[process].mints -= is_worthless

    def last_of_this_thread(self, process: Process) -> Presentation | None:
        """The last presentation of *process* by the running thread."""
        return self.accounts[process].presentations.get(self.world.running)

    def releases(self, lock: SimulatedLock) -> None:
        """The holder is about to release the lock."""
        writes.check_recorded(self, lock)
        writes.check_intent(self, lock)

    def ends_in_order(self, process: Process) -> None:
        """A terminated process ends: it loses no refresh token that can be saved."""
        account = self.accounts[process]
        for last in account.presentations.values():
            if last.announcement is None or process.presenting:
                continue
            is_known = last.recorded or last.excused or last.is_left_to_others()
            if not (is_known or account.store_failures):
                self.fail(
                    process,
                    f"ends before it saves the outcome of {last.credential.secret}: {last.outcome}",
                )

    def leaves(self, process: Process) -> None:
        """A process leaves right after a request: none of its threads goes on.

        It awaits no answer, and has saved its tokens, as far as the store allows.
        """
        account = self.accounts[process]
        for last in account.presentations.values():
            if last.announcement is None or last.task not in process.tasks:
                continue
            is_lost = last.outcome in ("open", "minted") and not (last.recorded or last.excused)
            if is_lost and not account.store_failures:
                self.fail(
                    process,
                    f"ends with its request, before it saves the outcome of "
                    f"{last.credential.secret}: {last.outcome}",
                )

    def loses_record(self) -> None:
        """The slot was emptied or overwritten by a fault."""
        self.emptied += 1
        self._excuse_all()

    def is_set_back(self, before: Document, document: Document) -> None:
        """The slot is set back to *document*.  Its login may be later than the one that is lost
        now: a process that has not seen the lost login takes it for a new one, and does not undo
        it."""
        if document.get("begun", 0.0) > before.get("begun", 0.0):
            self.begun_when = self.world.now

    def gets_record(self, document: Document) -> None:
        """A file is copied into the slot, with a token that no process knows."""
        self.copied += 1
        self.saved_tokens.add(document["token"]["access_token"])
        self.requested[document["token"]["access_token"]] = document["requested"]
        self.alive_again_at = self.world.now
        self._excuse_all()

    def _excuse_all(self) -> None:
        for account in self.accounts.values():
            for presentation in account.presentations.values():
                presentation.excused = True

    # --- the users -----------------------------------------------------------------------

    def used(self, process: Process, token: Token) -> None:
        """A request is about to carry *token*."""
        access = token.access_token
        if access not in self.saved_tokens:
            mint = self.mints.get(access)
            if mint is None or not process.is_or_was_forked_from(mint.process, mint.at):
                self.fail(process, f"uses {access}, which is neither saved nor its own")
            if not self.accounts[mint.process].store_failures:
                self.fail(process, f"uses {access} before it is saved")
        elif not includes(self.requested[access], self.accounts[process].requested):
            self.fail(process, f"uses {access}, which belongs to another request")

    def renewed(self, process: Process, token: Token) -> None:
        """``on_refresh`` is called in *process*."""
        access, mint = token.access_token, self.mints[token.access_token]
        if mint.is_reported or mint.process is not process:
            self.fail(process, f"reports {access} twice, or for another process")
        mint.is_reported = True

    def forgets(self, process: Process) -> None:
        """A process has forgotten its token, even if the slot was empty: from now on, it remembers
        no record with which to compare the slot."""
        account = self.accounts[process]
        account.newest, account.seen = (0, 0), None

    def is_distrusted(self, process: Process, token: Token, since: float) -> None:
        """A process has recorded that the API refused *token* although it was new."""
        stored = self.disk.document.get("token", {}).get("access_token")
        is_cleared = since <= self.cleared_at
        has_failed = is_cleared or self.accounts[process].store_failures
        # An ending process does not wait for the lock.
        is_leaving = process.is_exiting or process.is_ending
        if stored == token.access_token and not (has_failed or is_leaving):
            # Another process may have recorded that before, even one that is excused above.  While
            # its entry applies, there is no later one.
            entry = self.disk.document.get("distrust")
            if entry is not None and entry["bound_to"] == token.fingerprint:
                since = min(since, self.world.now - (self.store_now(process) - entry["set_at"]))
            self.distrusted.setdefault(stored, since)

    def check_end(self) -> None:
        """Check the rules that apply after all threads have ended."""
        writes.check_intent(self)
        for access, mint in self.mints.items():
            process = mint.process
            # A process that cannot know of its save may find the token of another process instead.
            is_excused = process.was_killed or mint.is_doubtful
            if access in self.saved_tokens and not mint.is_reported and not is_excused:
                self.fail(process, f"never reports {access}")

    # --- the truth -----------------------------------------------------------------------

    def store_now(self, process: Process) -> float:
        """The time of the store, as *process* gets it."""
        ahead = self.disk.ahead
        return self.world.now + (process.computer.ahead if ahead is None else ahead)

    def slowest_look(self) -> float:
        """The longest read of the slot by any process, in seconds."""
        return max(account.slowest_look for account in self.accounts.values())

    def fail(self, process: Process, message: str) -> None:
        """*process* has violated a rule."""
        self.world.fail(f"{process} {message}")

    def sees(self, process: Process, document: Document, number: int) -> None:
        """A process knows that *document* was in the slot after write *number*."""
        account = self.accounts[process]
        account.knows[self.world.running] = number
        account.stored[self.world.running] = document.get("token", {}).get("access_token")
        if "token" in document:
            account.token_at = self.world.now
            account.met.add(document["token"]["access_token"])
            age = self.authority.age(document["token"])
            generation, salt = document.get("generation", 0), document["salt"]
            issued_at, written = document["token"]["issued_at"], document.get("written", 0.0)
            # If two records have the same generation, one of them renewed from a record that was
            # set back, the record in the slot counts.  So does the record that was written later,
            # which may continue an earlier grant after the store was set back.
            is_branch = account.seen is not None and (generation, salt) == account.seen[:2]
            is_later = account.seen is not None and written > account.seen[3]
            if age >= account.newest or is_branch or is_later:
                account.newest, account.seen = age, (generation, salt, issued_at, written)
                account.seen_backoff = document.get("backoff")
        elif (
            account.seen is not None
            and document.get("salt") == account.seen[1]
            and (
                document.get("generation", 0) > account.seen[0]
                # A record that was set back may also be forgotten after the token was issued.
                or document.get("begun", 0.0) > account.seen[2]
            )
        ):
            self.forgets(process)  # another process has forgotten the token
