"""What a record allows now: whether to back off, and which credential may be presented."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenadapter.core.record import (
    STORE_AWAY,
    Backoff,
    Intent,
    Record,
    Waiter,
    digest,
    spent_hash,
)
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

# Seconds within which a process saves its token when the store has come back.
_SAVES_WITHIN = 5.0
# The refused credentials that one backoff is limited to.  After more, the client backs off.
_REFUSED_KEPT = 8


class Eligibility:
    """Chooses the credential for one grant and one slot.

    It also remembers the failures that could not be saved to the record, for this process alone.
    """

    def __init__(self, slot: Slot, grant: Grant, runtime: Runtime) -> None:
        self._slot = slot
        self._grant = grant
        self._runtime = runtime
        self._digests: dict[tuple[str, Credential], str] = {}
        # The token in the slot when the failures below happened; None if it could not be read.
        self._own_token: Token | None = None
        # By the monotonic clock of this process.
        self._own_backoff: Backoff | None = None
        # The credentials that the backoff is limited to; empty if it applies to all.
        self._own_refused: tuple[Credential, ...] = ()
        self._own_refusals: dict[Credential, TokenError] = {}
        # The last wait of this process, which is over even if the record still contains it.
        self._ended_wait: Waiter | None = None
        # The process and the record for which refresh() allows a function to begin again.
        self._forced: tuple[str, str, int] | None = None

    def raise_if_backing_off(self, record: Record, now: float) -> None:
        """Raise the error of a backoff that applies at *now*, by the store's clock, to every
        credential."""
        is_same = record.token is self._own_token or (
            record.token is not None and record.token.is_same(self._own_token)
        )
        if not is_same:
            self._forget_failures()  # another process has renewed
        error = self.backing_off(record, now, None)
        if error is not None:
            raise error

    def backing_off(
        self, record: Record, now: float, credential: Credential | None
    ) -> TokenError | None:
        """The error of a backoff that applies only to *credential*, because the server refused it;
        with ``None``, the error of a backoff that applies to every credential."""
        backoff, own = record.backoff, self._own_backoff
        if backoff is not None:
            left = backoff.remaining(now)
            if left > 0 and self._applies(backoff, record, credential):
                return messages.backing_off(backoff, left, self._runtime.wall())
        refused = self._own_refused
        if own is not None and (credential in refused if credential else not refused):
            left = own.remaining(self._runtime.monotonic())
            if left > 0:
                return messages.backing_off(own, left, self._runtime.wall())
        return None

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
            # A refusal is more informative than the fact that the first refresh token was spent.
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
        if credential.replaceable:
            error = self.backing_off(record, self._slot.now(view), credential)
            if error is not None:
                return error
        if credential.single_use and store.is_copy:
            return messages.private_copy()
        if credential.opaque:
            return self._objection_to_function(view, credential)
        if credential.single_use and self.is_spent(view, credential.secret):
            return messages.record_lost(store)
        return None

    def _objection_to_function(self, view: View, credential: Credential) -> TokenError | None:
        if not self.is_spent(view, credential.secret):
            # Nothing had to be forced.  After another process begins, force is needed again.
            self._forced = None
            return None
        is_forced = self._identity(view) == self._forced
        return None if is_forced else messages.function_may_repeat(self._slot.store)

    def is_answer_pending(self, view: View) -> bool:
        """Whether another process may still get the answer to the announced request, so that
        nothing must be presented.

        The caller holds the lock.  If the lock ends with its holder, that proves that no earlier
        holder is alive, except one whose lock file was deleted.  A lease may have lapsed while its
        holder was stopped, and that process may continue.

        :raises StoreError: if the lock does not exclude other machines.
        """
        slot, waiters = self._slot, self.pending_waiters(view)
        if slot.lock_ends_with_holder:
            for one in waiters:
                if self._runtime.is_elsewhere(one.process):
                    left = one.until - slot.now(view)
                    raise messages.lock_is_local(slot.store, one.process, left)
            return any(self._runtime.may_save(one.process) for one in waiters)
        # Within a declared grace too: the earlier request may arrive when the grace is over.
        return bool(waiters)

    def pending_waiters(self, view: View) -> list[Waiter]:
        """The processes that may still get an answer to the announced request."""
        intent = view.record.intent
        if intent is None:
            return []
        return [one for one in intent.awaited if self._may_await(one, intent, view)]

    def _may_await(self, waiter: Waiter, intent: Intent, view: View) -> bool:
        if waiter == self._ended_wait and waiter.process == self._runtime.process():
            return False  # not in a forked child: its parent may not have saved the answer yet
        if self._runtime.has_died(waiter.process):
            return False
        left = waiter.until - self._slot.stamp(view)
        if left > 0:
            # After a clock was set back, the wait lasts at most twice as long.
            return left <= 2 * (waiter.until - intent.first_sent)
        if self._slot.lock_ends_with_holder:
            return False  # it would hold the lock
        # The process may have the answer, and save it as soon as the store can be reached again.
        was_away = self._runtime.monotonic() < self._slot.failed_at + _SAVES_WITHIN
        return was_away or (left > -STORE_AWAY and self._runtime.may_save(waiter.process))

    def end_wait(self, waiter: Waiter) -> None:
        """This process no longer waits for the answer, whether or not that can be saved."""
        self._ended_wait = waiter

    def harmless_credential(self) -> Credential | None:
        """A credential that may be presented without the store, since nothing can be spent by it;
        ``None`` if there is none.

        A process that has never read the store cannot exclude that a function has returned a
        refresh token before.

        :raises TokenError: if the server refused every such credential.
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

    def client_hash(self, record: Record, credential: Credential | None = None) -> str:
        """The salted hash that limits a backoff to a refused client or scope.

        :param credential: limits the backoff to this credential as well.
        """
        requested = json.dumps(dict(self._grant.requested), sort_keys=True)
        text = f"{self._grant.client_credential}\0{requested}"
        if credential is not None:
            text += f"\0{credential.kind}\0{credential.secret}"
        return self.digest(record, Credential("client", text))

    def backoff_target(self, record: Record, refused: tuple[Credential, ...], now: float) -> str:
        """What a backoff is limited to: the client, or those of its credentials that were refused.

        Programs that share the record may present different credentials.  So those for which a
        backoff applies at *now* keep waiting.
        """
        hashes = [self.client_hash(record, credential) for credential in refused]
        last = record.backoff
        if hashes and last is not None and last.remaining(now) > 0:
            hashes = [*dict.fromkeys([*last.targets, *hashes])]
        is_limited = 0 < len(hashes) <= _REFUSED_KEPT
        return " ".join(hashes) if is_limited else self.client_hash(record)

    def next_step(self, record: Record) -> int:
        """The number of the next consecutive failure."""
        return 1 + max(
            backoff.step if backoff else 0 for backoff in (record.backoff, self._own_backoff)
        )

    def remember_backoff(
        self, record: Record, backoff: Backoff, refused: tuple[Credential, ...] = ()
    ) -> None:
        """Remember a backoff that could not be saved, for this process.

        :param refused: the credentials that it is limited to.
        """
        self._own_token = record.token
        self._own_backoff = backoff._replace(set_at=self._runtime.monotonic())
        self._own_refused = refused

    def remember_refusal(self, record: Record, credential: Credential, error: TokenError) -> None:
        """Remember a refusal that could not be saved, for this process."""
        self._own_token = record.token
        self._own_refusals[credential] = error
        error.since = self._runtime.wall()

    def is_spent(self, view: View, secret: str) -> bool:
        """Whether a rotation is known to have spent the refresh token *secret*.

        :raises Conflict: if that happened since *view*.
        """
        spent = spent_hash(secret)
        if spent in view.record.spent:
            return True
        token = view.record.token
        if token is not None and token.refresh_token == secret:
            spent = view.record.placed(spent)
        if not self._slot.store.was_spent(spent):
            return False
        # The new token was saved before the spent one was remembered: perhaps since this view.
        current = self._slot.look()
        if current.tag != view.tag:
            raise Conflict(current)
        return True

    def clear_failures(self) -> None:
        """Forget all failures but the refusals of refresh tokens: a token was obtained."""
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
        """Allow another attempt with refused credentials.

        :param secret: the refresh token to allow; ``None`` for all credentials.
        :param view: the record for which a function may begin again, until the next renewal.
        """
        self.clear_failures()
        self._forced = None if view is None else self._identity(view)
        for credential in [*self._own_refusals]:
            if secret in (None, credential.secret):
                del self._own_refusals[credential]

    def _applies(self, backoff: Backoff, record: Record, credential: Credential | None) -> bool:
        # In this order, because the slow hash is expensive.
        return backoff.bound_to is None or self.client_hash(record, credential) in backoff.targets

    def _identity(self, view: View) -> tuple[str, str, int]:
        """This process, the record, and the number of its token.  Empty slots are alike."""
        record = ("", 0) if view.tag is None else (view.record.salt, view.record.generation)
        return self._runtime.process(), *record
