"""What a record allows now: whether anyone may ask, and which credential is left to present."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenadapter.machine import Machine
from tokenadapter.protocols import Credential, Grant
from tokenadapter.record import Hold, Record, digest, mark
from tokenadapter.slot import Slot, View

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError

__all__ = ["Choice"]

_NEW_LOGIN = "Log in again and hand the new token to TokenKeeper.adopt()."


class Choice:
    """Chooses for one grant on one slot.

    :ivar has_private_copy: whether the memory of this process was copied from another process,
        by a fork or by pickle: a refresh token that lives in memory only belongs to that one.
    """

    def __init__(self, slot: Slot, grant: Grant, machine: Machine) -> None:
        self.has_private_copy = False
        self._slot = slot
        self._grant = grant
        self._machine = machine
        self._digests: dict[tuple[str, Credential], str] = {}
        # What could not be written down for others, and binds this process at least.
        self._own_hold: Hold | None = None
        self._own_refusals: dict[Credential, TokenError] = {}

    def raise_if_held(self, record: Record, now: float) -> None:
        """Raise the error of a hold that binds us at *now*, by the store's clock."""
        hold = record.hold
        if hold is not None and hold.bound_to is not None and hold.bound_to != self.client(record):
            hold = None
        left = 0.0 if hold is None else hold.remaining(now)
        if left <= 0 and self._own_hold is not None:
            hold, left = self._own_hold, self._own_hold.remaining(self._machine.monotonic())
        if hold is None or left <= 0:
            return
        from tokenadapter.errors import RefreshConfigError, RefreshTemporarilyFailed

        told = f"{hold.cause} Nobody asks again for {left:.1f} s."
        if hold.kind == "config":
            raise RefreshConfigError(told, error=hold.error)
        retry_at = self._machine.wall() + left
        raise RefreshTemporarilyFailed(told, error=hold.error, retry_at=retry_at)

    def credential(self, view: View) -> Credential:
        """The credential to present now.

        :raises ReauthRequired: if none is left.
        """
        from tokenadapter.errors import ReauthRequired

        record = view.record
        error: TokenError | None = None
        for credential in self._grant.credentials(record.token):
            stone = record.tombstone(self.digest(record, credential)) if record.tombstones else None
            if stone is not None:
                error = ReauthRequired(stone.cause, reason=stone.reason, error=stone.error)
            elif credential in self._own_refusals:
                error = self._own_refusals[credential]
            elif credential.first and self._is_spent(credential, view):
                error = error or ReauthRequired(
                    f"The record in {self._slot.store!r} is gone, and the configured first refresh "
                    "token was spent by an earlier renewal: to present it again could revoke the "
                    f"grant. Nothing was sent. {_NEW_LOGIN}",
                    reason="store_lost",
                )
            elif credential.single_use and self.has_private_copy and not self._slot.store.shared:
                error = ReauthRequired(
                    "The refresh token lives in the memory of the process that this one was "
                    "copied from: if both presented it, the grant could be revoked. Nothing was "
                    "sent. Use a store that processes share, such as FileStore.",
                    reason="private_copy",
                )
            else:
                return credential
        raise error or ReauthRequired(
            f"There is no token in {self._slot.store!r} and nothing to obtain one with. "
            f"{_NEW_LOGIN}",
            reason="no_credential",
        )

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

    def client(self, record: Record) -> str:
        """The salted hash for which a hold on a refused client or scope is meant."""
        asked = json.dumps(dict(self._grant.asked), sort_keys=True)
        return self.digest(
            record, Credential("client", f"{self._grant.client_credential}\0{asked}")
        )

    def hold_alone(self, hold: Hold) -> None:
        """Keep a hold that could not be written, for this process."""
        self._own_hold = hold._replace(set_at=self._machine.monotonic())

    def refuse_alone(self, credential: Credential, error: TokenError) -> None:
        """Keep a refusal that could not be written, for this process."""
        self._own_refusals[credential] = error

    def succeeded(self) -> None:
        """A token was obtained: what was kept for this process alone is past."""
        self._own_hold = None
        self._own_refusals.clear()

    def _is_spent(self, credential: Credential, view: View) -> bool:
        note = mark(credential.secret)
        return note in view.record.spent or (view.tag is None and self._slot.store.marked(note))
