"""The complaints of users: every error must have a cause that still exists."""

from __future__ import annotations

from simulation.ledger import includes
from simulation.plan import LATE, LATEST, Plan
from simulation.process import Process
from simulation.witness import Witness
from simulation.writes import is_behind
from tokenadapter import errors
from tokenadapter.core import policy
from tokenadapter.token import Token

# The longest backoff in seconds, which is longer than any Retry-After in these worlds.
LONGEST_BACKOFF = 60.0
# Seconds within which a thread with nothing to wait for continues, whatever other threads do.
_AT_ONCE = 3.0
# Seconds for which a caller that renews tries to save a token.
_SAVES_INLINE = 30.0
# Seconds that may pass at points between an observation of a process and its reaction.
_SLACK = 1.0


class Complaints:
    """The complaints of the users of one process.

    :ivar count: how many complaints there were.
    :ivar calls: the calls that have not ended.
    """

    def __init__(self, plan: Plan, witness: Witness, process: Process) -> None:
        self.plan = plan
        self.witness = witness
        self.world = witness.world
        self.process = process
        self.account = witness.accounts[process]
        self.count = 0
        self.calls: list[Call] = []

    def begin(self) -> Call:
        """A user calls the keeper for a token."""
        call = Call(self)
        self.calls.append(call)
        return call


class Call:
    """One call of the keeper, with the state of the world when the call began."""

    def __init__(self, complaints: Complaints) -> None:
        self.complaints = complaints
        process, world = complaints.process, complaints.world
        self.began = world.now
        # The call may get the result of a renewal that began earlier.
        self.since = min(
            [
                world.now,
                *(task.began for task in process.tasks if task.helps),
                *(call.began for call in complaints.calls if process.ends_abruptly),
            ]
        )
        self.held = complaints.account.held
        self.stalled = process.stalled
        self.began_store = complaints.witness.store_now(process)
        self.busy, self.deaths = complaints.witness.disk.busy, complaints.witness.deaths
        token = complaints.witness.disk.document.get("token")
        self.stored = None if token is None else token["access_token"]
        self.losses = self._losses()

    def _losses(self) -> int:
        """The number of the last write from outside of all processes."""
        return self.complaints.witness.disk.changed_at

    def ended(self, limit: float) -> None:
        """Check that the call ended in time, with or without an error."""
        complaints = self.complaints
        complaints.calls.remove(self)
        process, witness = complaints.process, complaints.witness
        waited = complaints.world.now - self.began - (process.stalled - self.stalled)
        if process.is_exiting or process.is_ending:
            return
        if process.ends_abruptly:
            # The caller renews itself.  It tries to save, and waits for an answer that is late.
            limit += _SAVES_INLINE + witness.deadline * LATEST
        if waited > limit + _SLACK:
            self._fail(f"has waited {waited:.3f} s")
        if complaints.plan.only_deaths_delay():
            self._check_idle(waited)

    def _check_idle(self, waited: float) -> None:
        """Check that a dead process was replaced in time: on its computer at once, and on other
        computers when its lease has run out and its intent is no longer respected."""
        plan, witness = self.complaints.plan, self.complaints.witness
        idle = waited - (witness.disk.busy - self.busy)
        wait = 0.0
        if plan.computers and plan.lease is not None:
            respected = witness.deadline + 2.0 + 4 * witness.slowest_look()
            wait = max(plan.lease, respected)
        # The replacement of a dead process may die, too.
        deaths = 1 + witness.deaths - self.deaths
        if idle > deaths * wait + _AT_ONCE:
            self._fail(f"has waited for {idle:.3f} s while no process renewed")

    def waited_for_token(self) -> None:
        """Check that the call did not wait for the renewal of a token that was only stale."""
        complaints, process, held = self.complaints, self.complaints.process, self.held
        account = complaints.account
        if held is None or account.dropped_at >= self.began or account.store_failures:
            return
        if process.ends_abruptly:
            return  # its renewals end before its requests
        witness, expires_at = complaints.witness, held.expires_at
        stopped_for = process.stalled - self.stalled
        waited = complaints.world.now - self.began - stopped_for
        if witness.moved_clocks or expires_at is None or waited < _AT_ONCE / 2:
            return
        _, hard = policy.windows(expires_at - held.issued_at, 1.0)
        if self.began_store + witness.slowest_look() + _SLACK < expires_at - hard:
            self._fail(f"has waited {waited:.3f} s although {held.access_token} is valid")

    def failed(self, error: errors.TokenError) -> None:
        """Check that the error has a cause."""
        self.complaints.count += 1
        self.complaints.world.log(
            self.complaints.process, "  user: {} ({})", type(error).__name__, error
        )
        match error:
            case errors.ReauthRequired():
                has_cause = self._is_login_needed(error.reason)
            case errors.RefreshTemporarilyFailed():
                has_cause = self._is_server_failing() or self._is_answer_late()
            case errors.RefreshConfigError():
                is_failing = self._is_misconfigured() or self._has_other_request()
                has_cause = is_failing or self._is_overtaken()
            case errors.LockTimeout():
                witness = self.complaints.witness
                # A restored record may have an intent, whose process is believed for a while.
                is_delayed = witness.delays > 0 or witness.emptied > 0 or self._is_answer_late()
                has_cause = self.complaints.process.is_exiting or is_delayed
            case errors.StoreError():
                has_cause = self._is_store_failing()
            case _:
                has_cause = False
        if not has_cause and not self.complaints.process.is_ending:
            self._fail(f"gets an error without a cause: {error!r}")

    def got_no_token(self, rejected: Token | None, error: errors.TokenError) -> None:
        """Check that the caller did not get an error instead of a valid token.

        :param rejected: the token that the API refused.
        """
        if self.complaints.process.is_ending:
            return
        held = self.complaints.account.held
        if rejected is None and held is not None and self._lives(held):
            self._fail(f"gets an error although {held.access_token} is valid: {error!r}")
        self._check_stored(rejected, error)

    def _is_login_needed(self, reason: str) -> bool:
        witness = self.complaints.witness
        if witness.emptied or witness.copied or witness.forgotten:
            return True
        if reason in ("store_lost", "no_credential"):
            return False
        if self.complaints.account.store_failed_at >= self.since and witness.authority.has_refused:
            return True  # the process may not know of a later login
        return (
            witness.authority.is_dead(witness.disk.document) or witness.alive_again_at >= self.since
        )

    def _is_misconfigured(self) -> bool:
        """A refused client backs off, even if another client obtains a token in the meantime."""
        witness = self.complaints.witness
        is_refused = self.complaints.account.client in witness.misconfigured
        is_recent = self.since < witness.failed_at + LONGEST_BACKOFF + _SLACK
        return is_refused and (is_recent or self._is_server_failing())

    def _has_other_request(self) -> bool:
        """Another process has used another request."""
        return self.complaints.plan.requested > 1

    def _is_overtaken(self) -> bool:
        """An adoption undoes no login and no logout that another process has written meanwhile."""
        witness = self.complaints.witness
        # By a clock that was set back, a login that was lost meanwhile seems to be later.
        seems_later = witness.moved_clocks > 0 and witness.emptied > 0
        return witness.copied > 0 or seems_later or witness.begun_when >= self.since

    def _is_server_failing(self) -> bool:
        """A backoff ends with its time, or with the next success.  A backoff that could not be
        saved applies to its own process until the process sees the new token, which the store may
        have dropped by then."""
        witness = self.complaints.witness
        if self.complaints.account.store_failed_at >= self.since:
            return witness.failed_at > 0
        is_lost = witness.emptied or witness.forgotten or witness.moved_clocks
        if witness.failed_at < witness.succeeded_at < self.since and not is_lost:
            return self._has_own_backoff() or self._has_kept_backoff()
        return (
            bool(witness.moved_clocks) or self.since < witness.failed_at + LONGEST_BACKOFF + _SLACK
        )

    def _is_answer_late(self) -> bool:
        """A caller does not wait for longer than a token request may take."""
        complaints = self.complaints
        is_slow = LATE in complaints.plan.server_faults
        return is_slow and complaints.witness.is_overdue(self.since - _SLACK)

    def _has_own_backoff(self) -> bool:
        account = self.complaints.account
        return any(
            last.outcome in ("unprocessed", "unknown")
            and last.recorded is None
            and last.ended_at > account.token_at
            and self.since < last.ended_at + LONGEST_BACKOFF + _SLACK
            for last in account.presentations.values()
        )

    def _has_kept_backoff(self) -> bool:
        """Whether the store has dropped a document with its token, so that the process goes by the
        last record that it has seen, with a backoff that has not ended.  It cannot know that
        another process has renewed since: the slot may as well have been emptied."""
        witness, account = self.complaints.witness, self.complaints.account
        backoff = account.seen_backoff
        if backoff is None or account.seen is None or not witness.disk.has_dropped:
            return False
        return bool(self.began_store < backoff["set_at"] + backoff["duration"] + _SLACK)

    def _is_store_failing(self) -> bool:
        """A lost answer of the store is not a failure: the writer reads the slot again."""
        return self.complaints.account.store_failed_at >= self.since

    def _lives(self, token: Token) -> bool:
        """Whether *token* is valid for certain, so that no caller may get an error."""
        witness = self.complaints.witness
        if (
            witness.moved_clocks
            or witness.emptied
            or witness.copied
            or token.access_token not in witness.saved_tokens
        ):
            return False  # the process may have lost the token, or misjudge its age
        if witness.authority.has_refused and token.access_token in witness.authority.refused:
            return False  # nothing could renew it when the API refused it: nobody uses it any more
        return token.expires_at is None or self._now() < token.expires_at - _SLACK

    def _now(self) -> float:
        # A token may have aged while the slot was read.
        complaints = self.complaints
        return complaints.witness.store_now(complaints.process) + complaints.account.slowest_look

    def _check_stored(self, rejected: Token | None, error: errors.TokenError) -> None:
        """Check that the slot holds no valid token that the caller should have got."""
        witness = self.complaints.witness
        stored = self.stored
        document = witness.disk.document.get("token", {})
        if (
            stored is None
            or self.losses != self._losses()  # the caller has not seen that write
            or self.since < self.began
            or document.get("access_token") != stored
            or not includes(witness.requested[stored], self.complaints.account.requested)
            or (rejected is not None and rejected.access_token == stored)
            or is_behind(witness, self.complaints.process, witness.disk.document)
            # The process restores the record of a program with another request, seen before that.
            or (witness.emptied and self.complaints.plan.requested > 1)
            # If two processes renewed from what each remembered, either token may seem the later.
            or (witness.disk.changed_at > 0 and witness.disk.clocks_differ > 0)
            or stored in witness.authority.refused
            or not witness.authority.accepts(stored)
            or witness.moved_clocks
            or self.complaints.account.store_failed_at >= self.since
            or isinstance(error, errors.LockTimeout)
        ):
            return
        expires_at, issued_at = document.get("expires_at"), document["issued_at"]
        hard = 0.0 if expires_at is None else (expires_at - issued_at) / 10
        if expires_at is None or self._now() < expires_at - hard - _SLACK:
            self._fail(f"gets an error although {stored} is stored and valid: {error!r}")

    def _fail(self, message: str) -> None:
        self.complaints.world.fail(f"{self.complaints.process} {message}")
