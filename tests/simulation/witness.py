"""Knows the truth, and checks what must hold.

It sees every presentation, every write and every use of a token, from outside of all processes.
What it demands, it demands where the rule is broken, and not where that hurts later:

* *presentations*: :mod:`simulation.presentations`;
* *outcomes* (:meth:`Witness.releases`): each is written before the lock is free, and no intent
  is left over;
* *writes* (:mod:`simulation.writes`): never an older token over a newer one, nor where the slot
  was set back to one; no hold and no intent beside a new token; no tombstone without a refusal;
  an intent counts its attempts;
* *uses* (:meth:`Witness.used`): nobody uses what is not saved, but its owner where saving failed,
  nor what others asked for otherwise;
* *news* (:meth:`Witness.renewed`): the program is told of each renewal once, where it was done;
* *errors*: :mod:`simulation.complaints`.

Some faults excuse what else would be a violation: a process that died cannot write down an outcome,
and what an emptied store held may be forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf
from typing import Any

from simulation import presentations, writes
from simulation.authority import Authority
from simulation.ledger import Account, Announcement, Mint, Presentation, named
from simulation.process import Process
from simulation.store import Disk, SimulatedLock
from simulation.world import World
from tokenadapter.protocols import Credential, Document
from tokenadapter.token import Token


class Witness:
    """Sees everything that happens in one world.

    :param early: whether tokens are renewed before they expire.
    :param deadline: within how many seconds every request to the authorization server ends.
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
        """Who has written an intent on a refresh token."""
        self.displaced: dict[str, int] = {}
        """The last write that put an intent on something else in place of one on it."""
        self.put_aside: dict[str, tuple[Mapping[str, Any], int]] = {}
        """The intent that was there, which is put back if nothing came of the other one, and the
        last such write before that."""
        self.announced: Counter[str] = Counter()
        """How often each was announced."""
        self.mints: dict[str, Mint] = {}
        self.saved_tokens: set[str] = set()
        self.requested: dict[str, Mapping[str, str]] = {}
        """What each of them was asked for by."""
        self.handed_in: set[str] = set()
        """Those that somebody adopts."""
        self.handed_in_alone: set[str] = set()
        """Refresh tokens that somebody adopts without an access token."""
        self.forgotten: set[str] = set()
        """Those that were given up."""
        self.begun_at = 0
        """The last write by which a grant began or ended, ..."""
        self.begun_when = 0.0
        """... and its time."""
        self.forgotten_at = 0
        """The last write that gave one up."""
        self.distrusted: dict[str, float] = {}
        """Those that were refused when they were new, and when all were told."""
        self.pardoned_at = 0.0
        """When somebody last called for another try, whatever was refused."""
        self.failed_at = self.succeeded_at = self.alive_again_at = self.token_at = 0.0
        self.adopted: set[str] = set()
        """Refresh tokens that somebody adopts."""
        self.readopted: set[str] = set()
        """Refresh tokens that somebody adopts once more, whatever became of them."""
        self.misconfigured: set[str] = set()
        """The clients that were refused."""
        # What happened in this world, as far as it excuses something.
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
        presentation.is_handed_in = credential.secret in self.handed_in_alone
        presentation.is_due = presentations.is_due(self, process)
        if credential.single_use:
            self.presented.setdefault(credential.secret, []).append(presentation)
        if lock is not None:
            writes.check_recorded(self, lock)
            lock.presentation = presentation
        account.presentations[self.world.running] = presentation
        self.presentations += 1
        return presentation

    def told(
        self, presentation: Presentation, outcome: str, answer: Mapping[str, Any] | None = None
    ) -> None:
        """A process learns how its presentation ended."""
        process, account = presentation.process, self.accounts[presentation.process]
        presentation.outcome, presentation.ended_at = outcome, self.world.now
        self.world.note(process, "  {} is {}", presentation.credential.secret, outcome)
        if answer is not None:
            self.token_at = account.token_at = self.world.now
            is_gone = self.copied or self.authority.is_dead(self.disk.document)
            if presentation.credential.first and is_gone:
                # After what is gone, this is a new beginning.
                self.authority.hand_in(presentation.credential.secret)
            presentation.access = answer["access_token"]
            refresh = answer.get("refresh_token", presentation.credential.secret)
            presentation.spends = refresh != presentation.credential.secret
            self.mints[answer["access_token"]] = mint = Mint(process, self.world.now)
            if presentation.is_handed_in:
                self.handed_in.add(answer["access_token"])
                self.adopted.add(refresh)
                # From now on it is spent, or like any other one.
                self.handed_in_alone.discard(presentation.credential.secret)
                mint.told = True  # who has handed it in gets it
            account.met.add(presentation.access)
            # A stale token is renewed once whatever becomes of the request that has found it so.
            account.mints += not presentation.is_due
            # A token that is renewed before it expires may expire on its way, if that is delayed.
            if account.mints > account.requests + self.delays and not self.emptied:
                self.fail(process, "renews more often than anyone asks")
        elif outcome != "refused":
            self.failed_at = self.world.now

    # --- the store -----------------------------------------------------------------------

    def loaded(self, process: Process, document: Document | None, took: float) -> None:
        """A process sees what the slot holds, and it took so many seconds."""
        account = self.accounts[process]
        account.slowest_look = max(account.slowest_look, took)
        self.sees(process, document or {}, self.disk.writes)

    def saved(self, process: Process, before: Document, document: Document) -> None:
        """A process has written the slot."""
        self.world.note(process, "  wrote: {}", writes.brief(document))
        account, token = self.accounts[process], document.get("token")
        refresh = None if token is None else token.get("refresh_token")
        is_adopted = refresh in self.adopted and before.get("token", token) != token
        if is_adopted or (self.forgotten and refresh is not None and "token" not in before):
            self.authority.hand_in(refresh)
        self._heeds_announcement(process, account, before, document)
        if account.wished(self.world.running) == inf:
            self.pardoned_at = self.world.now
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
                    if item.outcome == "open":
                        item.kept = self.disk.writes
            self.token_at = self.world.now
            # What failed since it was minted is not over by that.
            mint = self.mints.get(access)
            if mint is None or mint.at > self.failed_at:
                self.succeeded_at = self.world.now
        if self.authority.is_dead(before) and not self.authority.is_dead(document):
            self.alive_again_at = self.world.now
        for last in account.presentations.values():
            if last.recorded is None and writes.records(document, last):
                last.recorded = self.disk.writes

    def _heeds_announcement(
        self, process: Process, account: Account, before: Document, document: Document
    ) -> None:
        """A process may have announced a presentation."""
        intent = document.get("intent")
        if intent is None or intent == before.get("intent"):
            return
        self.announcers.setdefault(named(intent), set()).add(process)
        put_aside, displaced = self.put_aside.get(named(intent), (None, 0))
        if intent == put_aside:
            self.displaced[named(intent)] = displaced
            return
        last = before.get("intent")
        if last is not None and named(last) != named(intent):
            self.put_aside[named(last)] = last, self.displaced.get(named(last), 0)
            self.displaced[named(last)] = self.disk.writes
        known = () if last is None else last["awaited"]
        for waiter in intent["awaited"]:
            if waiter["process"] == process.name and waiter not in known:
                self.announced[named(intent)] += 1
                for task in [*account.announcements]:
                    if task not in process.tasks:
                        del account.announcements[task]  # it has come to its end
                account.announcements[self.world.running] = Announcement(
                    self.world.running,
                    named(intent),
                    intent["first_sent"],
                    waiter["until"],
                    self.disk.writes,
                )

    def store_failed(self, process: Process) -> None:
        """The store fails a process, which may keep it from writing an outcome: not from saving a
        new token, which is tried until it succeeds."""
        account = self.accounts[process]
        account.store_failures += 1
        account.store_failed_at = self.world.now
        last = self.last_of_this_thread(process)
        if last is not None:
            last.excused |= last.outcome != "open" and not last.must_be_saved()
        self.doubts(process)

    def doubts(self, process: Process) -> None:
        """A process is not told that it has written."""
        last = self.last_of_this_thread(process)
        if last is not None and last.access is not None:
            self.mints[last.access].is_doubtful = True

    def moved(self, process: Process) -> None:
        """A process is told that somebody else has written since it looked: an answer that comes
        after another renewal, or a login, is worth nothing any more."""
        last = self.last_of_this_thread(process)
        if last is not None:
            # What others have renewed does not replace a token that begins a grant of its own.
            since = 0 if last.announcement is None else last.announcement.write
            has_begun = max(self.begun_at, self.disk.changed_at) > since
            is_beginning = last.is_handed_in and last.outcome == "minted" and not has_begun
            is_replaced = writes.is_replaced(self, last) and not is_beginning
            last.excused |= is_replaced
            last.was_overtaken = writes.is_accounted_for(self, last)
            is_worthless = is_replaced and last.outcome == "minted" and not last.is_due
            self.accounts[process].mints -= is_worthless

    def last_of_this_thread(self, process: Process) -> Presentation | None:
        """The last presentation of *process*, if the running thread has made it."""
        return self.accounts[process].presentations.get(self.world.running)

    def releases(self, lock: SimulatedLock) -> None:
        """The holder is about to let the lock go."""
        writes.check_recorded(self, lock)
        writes.check_intent(self, lock)

    def ends_in_order(self, process: Process) -> None:
        """A process ends that was told to: it loses no refresh token, if it can be saved."""
        account = self.accounts[process]
        for last in account.presentations.values():
            if last.announcement is None or process.presenting:
                continue
            is_known = last.recorded or last.excused or last.is_left_to_others()
            if not (is_known or account.store_failures):
                self.fail(process, f"ends, and {last.credential.secret} is {last.outcome}")

    def loses_record(self) -> None:
        """Somebody empties the slot."""
        self.emptied += 1
        self._excuse_all()

    def is_set_back(self, before: Document, document: Document) -> None:
        """Somebody brings *document* back, perhaps with a later login than the one that was lost
        meanwhile: to who has not seen that, it looks like a login now, and is not undone."""
        if document.get("begun", 0.0) > before.get("begun", 0.0):
            self.begun_when = self.world.now

    def gets_record(self, document: Document) -> None:
        """Somebody puts *document* into the slot, with a token that no process knows."""
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
            if mint is None or not process.has_what_was_of(mint.process, mint.at):
                self.fail(process, f"uses {access}, which is not saved and not its own")
            if not self.accounts[mint.process].store_failures:
                self.fail(process, f"uses {access} before it is saved")
        elif self.requested[access] != self.accounts[process].requested:
            self.fail(process, f"uses {access}, which was asked for otherwise")

    def renewed(self, process: Process, token: Token) -> None:
        """The program is told of a renewal."""
        access, mint = token.access_token, self.mints[token.access_token]
        if mint.told or mint.process is not process:
            self.fail(process, f"is told of {access}, which is no news of its own")
        mint.told = True

    def forgets(self, process: Process) -> None:
        """A process has given its token up: it has nothing left to compare the slot with, also if
        that was empty, so that nothing was to be written."""
        account = self.accounts[process]
        account.newest, account.seen = (0, 0), None

    def is_distrusted(self, process: Process, token: Token, since: float) -> None:
        """All are told that the API has refused *token* although it was new, if they can be."""
        stored = self.disk.document.get("token", {}).get("access_token")
        is_pardoned = since <= self.pardoned_at
        has_failed = is_pardoned or self.accounts[process].store_failures
        # Then it does not wait for the lock any more.
        is_leaving = process.is_exiting or process.is_ending
        if stored == token.access_token and not (has_failed or is_leaving):
            self.distrusted.setdefault(stored, since)

    def check_end(self) -> None:
        """Every thread has ended."""
        writes.check_intent(self)
        for access, mint in self.mints.items():
            process = mint.process
            # Who cannot know that it was saved may find the tokens of others in its place.
            may = process.was_killed or mint.is_doubtful
            if access in self.saved_tokens and not mint.told and not may:
                self.fail(process, f"is never told of {access}")

    # --- the truth -----------------------------------------------------------------------

    def store_now(self, process: Process) -> float:
        """The time by the store's clock, as *process* is told it."""
        ahead = self.disk.ahead
        return self.world.now + (process.computer.ahead if ahead is None else ahead)

    def slowest_look(self) -> float:
        """The longest that anybody took to look at the slot, in seconds."""
        return max(account.slowest_look for account in self.accounts.values())

    def fail(self, process: Process, message: str) -> None:
        """*process* has done what must not be done."""
        self.world.fail(f"{process} {message}")

    def sees(self, process: Process, document: Document, number: int) -> None:
        """A process knows that *document* was in the slot after so many writes."""
        account = self.accounts[process]
        account.knows[self.world.running] = number
        account.stored[self.world.running] = document.get("token", {}).get("access_token")
        if "token" in document:
            account.token_at = self.world.now
            account.met.add(document["token"]["access_token"])
            age = self.authority.age(document["token"])
            generation, salt = document.get("generation", 0), document["salt"]
            # Of two that were renewed as often, one from what the slot was set back to, the one
            # counts that it holds.
            is_branch = account.seen is not None and (generation, salt) == account.seen[:2]
            if age >= account.newest or is_branch:
                issued_at, written = document["token"]["issued_at"], document.get("written", 0.0)
                account.newest, account.seen = age, (generation, salt, issued_at, written)
        elif (
            account.seen is not None
            and document.get("salt") == account.seen[1]
            and (
                document.get("generation", 0) > account.seen[0]
                # What the slot was set back to may be given up, too, after that was issued.
                or document.get("begun", 0.0) > account.seen[2]
            )
        ):
            self.forgets(process)  # by another
