"""What a record allows now: whether anyone may ask, and which credential is left to present."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenadapter.core.record import Backoff, Intent, Record, Waiter, digest, spent_hash
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import Conflict, Slot, View
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.core import messages
    from tokenadapter.errors import TokenError
    from tokenadapter.protocols import Grant
else:
    messages = late("tokenadapter.core.messages")

__all__ = ["Eligibility"]


class Eligibility:
    """Chooses for one grant on one slot.

    Besides the record it knows what could not be written there, and binds this process at least.
    """

    def __init__(self, slot: Slot, grant: Grant, runtime: Runtime) -> None:
        self._slot = slot
        self._grant = grant
        self._runtime = runtime
        self._digests: dict[tuple[str, Credential], str] = {}
        # What was in the slot then; None where it could not be read.
        self._own_token: Token | None = None
        # By our monotonic clock.
        self._own_backoff: Backoff | None = None
        self._own_refusals: dict[Credential, TokenError] = {}
        # What this process awaited last, and awaits no more, whether or not the record says so.
        self._ended_wait: Waiter | None = None
        # In which process, and of which record, somebody says that a function can begin again.
        self._forced: tuple[str, str, int] | None = None

    def raise_if_backing_off(self, record: Record, now: float) -> None:
        """Raise the error of a hold that binds us at *now*, by the store's clock."""
        is_same = record.token is self._own_token or (
            record.token is not None and record.token.is_same(self._own_token)
        )
        if not is_same:
            self._forget_failures()  # others have renewed since
        for backoff, time in (
            (record.backoff, now),
            (self._own_backoff, self._runtime.monotonic()),
        ):
            left = 0.0 if backoff is None else backoff.remaining(time)
            if backoff is not None and left > 0 and self._applies(backoff, record):
                raise messages.backing_off(backoff, left, self._runtime.wall())

    def credential(self, view: View) -> Credential:
        """The credential to present now.

        :raises ReauthRequired: if none is left.
        """
        record = view.record
        error: TokenError | None = None
        for credential in self._grant.credentials(record.token):
            objection = self.objection(view, credential)
            if objection is None:
                return credential
            # A refusal says more than that the first refresh token is used up.
            if error is None or not credential.first:
                error = objection
        raise error or messages.no_credential(self._slot.store)

    def objection(self, view: View, credential: Credential) -> TokenError | None:
        """Why *credential* must not be presented."""
        record, store = view.record, self._slot.store
        if credential in self._own_refusals:
            return self._own_refusals[credential].again()
        if record.tombstones:
            stone = record.tombstone(self.digest(record, credential))
            if stone is not None:
                return messages.refused(stone)
        if credential.single_use and store.is_copy:
            return messages.private_copy()
        if credential.opaque:
            return self._objection_to_function(view, credential)
        if credential.single_use and self.is_spent(view, credential.secret):
            return messages.record_lost(store)
        return None

    def _objection_to_function(self, view: View, credential: Credential) -> TokenError | None:
        if not self.is_spent(view, credential.secret):
            # Nothing had to be forced.  Once another process has begun, it would have to be.
            self._forced = None
            return None
        is_forced = self._identity(view) == self._forced
        return None if is_forced else messages.function_may_repeat(self._slot.store)

    def is_answer_pending(self, view: View, credential: Credential) -> bool:
        """Whether a process may still get the answer to what the intent announces, so that nobody
        else may present *credential*.

        The caller has the lock.  Only of a lock that ends with its holder does that prove anything:
        one that lapses may have been the lock of a process that was stopped, and goes on.

        :raises StoreError: if the lock keeps nobody on another machine from renewing.
        """
        slot, waiters = self._slot, self.pending_waiters(view)
        if slot.lock_ends_with_holder:
            for one in waiters:
                if self._runtime.is_elsewhere(one.process):
                    left = one.until - slot.now(view)
                    raise messages.lock_is_local(slot.store, one.process, left)
            return False
        if not waiters:
            return False
        intent = view.record.intent
        is_same = intent is not None and intent.credential == self.digest(view.record, credential)
        # Within a declared grace, whoever presents the same later gets an answer, too.
        return not (is_same and self.grace_left(view) > 0)

    def pending_waiters(self, view: View) -> list[Waiter]:
        """The processes that may still get an answer to what the intent announces."""
        intent = view.record.intent
        if intent is None:
            return []
        return [one for one in intent.awaited if self._may_await(one, intent, view)]

    def _may_await(self, waiter: Waiter, intent: Intent, view: View) -> bool:
        left = waiter.until - self._slot.stamp(view)
        # A clock that was set back makes it last for as long again, and no longer.
        is_time_left = 0 < left <= 2 * (waiter.until - intent.first_sent)
        return (
            is_time_left
            and waiter != self._ended_wait
            and not self._runtime.has_died(waiter.process)
        )

    def grace_left(self, view: View) -> float:
        """For how many more seconds what the intent announces may be presented again, whoever
        awaits an answer: that counts from before the first request, and so ends before the
        server's."""
        intent = view.record.intent
        first_sent = self._slot.now(view) if intent is None else intent.first_sent
        left = first_sent + self._grant.grace - self._slot.now(view)
        # By a clock that is behind, or was set back, it comes from the future.
        return left if left <= 2 * self._grant.grace else 0.0

    def end_wait(self, waiter: Waiter) -> None:
        """This process has an outcome, whether or not that can be written."""
        self._ended_wait = waiter

    def harmless_credential(self) -> Credential | None:
        """What can be presented without the store; ``None`` if everything may be spent by that.

        A function may have brought a refresh token before, as far as a process knows that has never
        looked into the store.

        :raises TokenError: if it was refused.
        """
        error: TokenError | None = None
        for credential in self._grant.credentials(None):
            is_unknown = credential.opaque and not self._slot.has_looked
            if not (credential.single_use or is_unknown):
                error = self._own_refusals.get(credential)
                if error is None:
                    return credential
        if error is not None:
            raise error.again()
        return None

    def digest(self, record: Record, credential: Credential) -> str:
        """The salted hash by which *record* knows *credential*."""
        key = record.salt, credential
        known = self._digests.get(key)
        if known is None:
            if len(self._digests) > 64:
                self._digests.clear()
            known = digest(record.salt, credential.kind, credential.secret)
            self._digests[key] = known
        return known

    def client_hash(self, record: Record) -> str:
        """The salted hash for which a hold on a refused client or scope is meant."""
        requested = json.dumps(dict(self._grant.requested), sort_keys=True)
        return self.digest(
            record, Credential("client", f"{self._grant.client_credential}\0{requested}")
        )

    def next_step(self, record: Record) -> int:
        """The number of the next failure in a row."""
        return 1 + max(
            backoff.step if backoff else 0 for backoff in (record.backoff, self._own_backoff)
        )

    def remember_backoff(self, record: Record, backoff: Backoff) -> None:
        """Keep a hold that could not be written, for this process."""
        self._own_token = record.token
        self._own_backoff = backoff._replace(set_at=self._runtime.monotonic(), bound_to=None)

    def remember_refusal(self, record: Record, credential: Credential, error: TokenError) -> None:
        """Keep a refusal that could not be written, for this process."""
        self._own_token = record.token
        self._own_refusals[credential] = error

    def is_spent(self, view: View, secret: str) -> bool:
        """Whether a rotation has spent the refresh token *secret*, as far as can be known.

        :raises Conflict: if it has since *view*, which is out of date.
        """
        note = spent_hash(secret)
        if note in view.record.spent:
            return True
        if not self._slot.store.was_spent(note):
            return False
        # What is marked was saved before: perhaps since this look.
        current = self._slot.look()
        if current.tag != view.tag:
            raise Conflict(current)
        return True

    def clear_failures(self) -> None:
        """A token was obtained.  A refresh token that is dead stays dead, all else may be tried."""
        self._forget_failures()
        self._forced = None

    def _forget_failures(self) -> None:
        self._own_token = None
        self._own_backoff = None
        self._own_refusals = {
            credential: error
            for credential, error in self._own_refusals.items()
            if credential.kind == "refresh_token"
        }

    def clear_refusals(self, secret: str | None = None, view: View | None = None) -> None:
        """Somebody says that it is worth another try.

        :param secret: the only refresh token that they mean, if they do not mean all.
        :param view: of the record for which a function can begin again, until somebody renews.
        """
        self.clear_failures()
        self._forced = None if view is None else self._identity(view)
        for credential in [*self._own_refusals]:
            if secret in (None, credential.secret):
                del self._own_refusals[credential]

    def _applies(self, backoff: Backoff, record: Record) -> bool:
        # In this order: a hash that nobody can guess from takes its time.
        return backoff.bound_to is None or backoff.bound_to == self.client_hash(record)

    def _identity(self, view: View) -> tuple[str, str, int]:
        """Which process sees which record, and how often its token was replaced.  One empty slot is
        like another."""
        record = ("", 0) if view.tag is None else (view.record.salt, view.record.generation)
        return self._runtime.process(), *record
