"""What users may complain of: every error needs a cause, and one that is still there."""

from __future__ import annotations

from simulation.process import Process
from simulation.store import SimulatedStore
from simulation.witness import Witness
from tokenadapter import errors
from tokenadapter.token import Token

# Seconds for which a hold may bind: the longest back-off, which is longer than any Retry-After
# in these worlds.
LONGEST_HOLD = 60.0
# Seconds that points take between what a process sees and what it does.
_SLACK = 1.0


class Complaints:
    """Hears the users of one process.

    :ivar count: how many complaints there were.
    """

    def __init__(self, witness: Witness, store: SimulatedStore, process: Process) -> None:
        self.witness = witness
        self.world = witness.world
        self.store = store
        self.process = process
        self.account = witness.accounts[process]
        self.count = 0

    def begin(self) -> Call:
        """A user asks the keeper for a token."""
        return Call(self)


class Call:
    """One call of the keeper: when it began, and what was true then."""

    def __init__(self, complaints: Complaints) -> None:
        self.complaints = complaints
        process, world = complaints.process, complaints.world
        self.began = world.now
        # It may get the result of a renewal that began before.
        self.since = min(
            [world.now, *(task.began for task in process.tasks if task.helps)],
        )
        self.stalled = process.stalled
        token = complaints.witness.disk.document.get("token")
        self.stored = None if token is None else token["access_token"]
        self.losses = self._losses()

    def _losses(self) -> tuple[int, int]:
        """How often the slot was emptied, and when it was set back last."""
        witness = self.complaints.witness
        return witness.emptied, witness.disk.set_back_at

    def ended(self, limit: float) -> None:
        """Everyone ends, with or without an error, and in time."""
        complaints = self.complaints
        process = complaints.process
        waited = complaints.world.now - self.began - (process.stalled - self.stalled)
        if waited > limit + _SLACK and not process.is_exiting:
            self._fail(f"has waited {waited:.3f} s")

    def failed(self, error: errors.TokenError, rejected: Token | None, hand: Token | None) -> None:
        """Nobody gets an error without a cause.

        :param rejected: the token that was refused.
        :param hand: the last token that the process used.
        """
        self.complaints.count += 1
        self.complaints.world.note(
            self.complaints.process, "  user: {} ({})", type(error).__name__, error
        )
        match error:
            case errors.ReauthRequired():
                has_cause = self._is_login_needed(error.reason)
            case errors.RefreshTemporarilyFailed():
                has_cause = self._is_server_failing()
            case errors.RefreshConfigError():
                has_cause = self.complaints.witness.misconfigured > 0 and self._is_server_failing()
            case errors.LockTimeout():
                has_cause = self.complaints.process.is_exiting or self.complaints.witness.delays > 0
            case errors.StoreError():
                has_cause = self._is_store_failing()
            case _:
                has_cause = False
        if not has_cause:
            self._fail(f"gets an error without a cause: {error!r}")
        if rejected is None and hand is not None and self._lives(hand):
            self._fail(f"gets an error although {hand.access_token} lives: {error!r}")
        self._check_stored(rejected, error)

    def _is_login_needed(self, reason: str) -> bool:
        witness = self.complaints.witness
        if reason in ("store_lost", "no_credential"):
            return witness.emptied > 0
        return (
            witness.authority.is_dead(witness.disk.document)
            or witness.alive_again_at >= self.since
            or witness.emptied > 0
        )

    def _is_server_failing(self) -> bool:
        """A hold ends with its time, and with the next success."""
        witness = self.complaints.witness
        if self.complaints.account.store_failed_at >= self.since:
            return witness.failed_at > 0
        if witness.failed_at < witness.succeeded_at < self.since and not witness.emptied:
            return False
        return bool(witness.moved_clocks) or self.since < witness.failed_at + LONGEST_HOLD + _SLACK

    def _is_store_failing(self) -> bool:
        """An answer of the store that is lost is no failure: the writer finds out."""
        witness = self.complaints.witness
        return (
            self.complaints.account.store_failed_at >= self.since
            or witness.lapses > 0
            or witness.emptied > 0
        )

    def _lives(self, token: Token) -> bool:
        """While the access token lives, nobody notices a failure."""
        witness = self.complaints.witness
        if (
            witness.moved_clocks
            or witness.emptied
            or token.access_token not in witness.saved_tokens
        ):
            return False  # it is not known whether the process has it still, or how old it seems
        return token.expires_at is None or self._now() < token.expires_at - _SLACK

    def _now(self) -> float:
        # A token may have aged by as long as it takes to look at it.
        return self.complaints.store.now + self.complaints.account.slowest_look

    def _check_stored(self, rejected: Token | None, error: errors.TokenError) -> None:
        """Where the slot holds a good token, everyone gets it."""
        witness = self.complaints.witness
        stored = self.stored
        document = witness.disk.document.get("token", {})
        if (
            stored is None
            or self.losses != self._losses()  # who looked then has not seen it
            or self.since < self.began
            or document.get("access_token") != stored
            or (rejected is not None and rejected.access_token == stored)
            or stored in witness.authority.refused
            or witness.moved_clocks
            or self.complaints.account.store_failed_at >= self.since
            or isinstance(error, errors.LockTimeout)
        ):
            return
        expires_at, issued_at = document.get("expires_at"), document["issued_at"]
        hard = 0.0 if expires_at is None else (expires_at - issued_at) / 10
        if expires_at is None or self._now() < expires_at - hard - _SLACK:
            self._fail(f"gets an error although {stored} is stored and good: {error!r}")

    def _fail(self, message: str) -> None:
        self.complaints.world.fail(f"{self.complaints.process} {message}")
