"""The grants of the processes: each grant connects one process to the authorization server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from simulation.authority import FIRST, Authority
from simulation.plan import LATE, LATEST
from simulation.process import Process
from simulation.witness import Witness
from tokenadapter.core.function_grant import FunctionGrant
from tokenadapter.errors import ReauthRequired, RefreshConfigError, RefreshTemporarilyFailed
from tokenadapter.protocols import Answer, Credential, Grant
from tokenadapter.token import Token

# The owner of every record.
OWNER: Mapping[str, str] = {"client": "c"}
# The credential of a client that the server refuses.
STALE = "stale"
# Seconds for which the store is away between an answer and its save: for longer than others believe
# the intent of a process that may have died.
_AWAY = 15.0
# Seconds between two questions whether to go on waiting for an answer that is late.
_LOOKS_EVERY = 1.0


class SimulatedGrant:
    """Presents the refresh token of the record, or else the first refresh token.

    :param requested: the requested scope or resource.
    :ivar client_credential: the credential of the client.
    :ivar faults: the probability of each fault of a request.
    :ivar away: the probability that the store is away when the answer comes.
    """

    owner: Mapping[str, str] = OWNER
    is_told = True
    """Whether the keeper says how long to wait for an answer."""
    urls: Sequence[str] = ()

    def __init__(
        self,
        authority: Authority,
        witness: Witness,
        process: Process,
        faults: Mapping[str, float],
        *,
        requested: Mapping[str, str] = {},
        client_credential: str = "c",
    ) -> None:
        self.requested = requested
        self.client_credential = client_credential
        self.authority = authority
        self.witness = witness
        self.process = process
        self.world = authority.world
        self.grace, self.deadline = authority.grace, witness.deadline
        self.faults = faults
        self.away = 0.0

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        stored = previous.refresh_token if previous is not None else None
        found = []
        if stored is not None:
            found.append(_refresh_token(stored))
        return found + [item for item in self.configured() if item.secret != stored]

    def seeds(self) -> Iterator[str]:
        return (item.secret for item in self.configured() if item.first)

    def configured(self) -> list[Credential]:
        """The credentials other than the refresh token of the record."""
        return [_refresh_token(FIRST, first=True)]

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        """Present *credential*, and report the outcome to the witness."""
        presentation = self.witness.starts(self.process, credential)
        now = self.process.runtime.monotonic
        end = now() + self.deadline
        self.world.point(f"sends {credential.secret}")
        try:
            answer = self._exchange(credential, end)
        except ReauthRequired:
            self.world.point("refusal on its way")
            self.witness.learns_outcome(presentation, "refused")
            raise
        except RefreshTemporarilyFailed as error:
            known = error.processed is False
            presentation.wait = error.retry_after
            self.witness.learns_outcome(presentation, "unprocessed" if known else "unknown")
            raise
        except RefreshConfigError:
            self.witness.misconfigured.add(self.client_credential)
            self.witness.learns_outcome(presentation, "unprocessed")
            raise
        self.witness.learns_outcome(presentation, "minted", answer)
        return answer

    def _exchange(self, credential: Credential, end: float) -> dict[str, Any]:
        if self.process.runtime.monotonic() >= end:
            raise RefreshTemporarilyFailed("not sent", processed=False)
        if self._happens("not reached"):
            raise RefreshTemporarilyFailed("connection refused", processed=False)
        if self._happens("unavailable"):
            wait = self.world.choices.between(1.0, 20.0)
            raise RefreshTemporarilyFailed("503", processed=False, retry_after=wait)
        if self.client_credential == STALE or self._happens("client refused"):
            raise RefreshConfigError("401", error="invalid_client")
        if self._happens("slow"):
            self.world.sleep(self.world.choices.between(0.0, self.deadline))
        if self._happens("broken"):
            raise RefreshTemporarilyFailed("502")
        is_late = self._happens(LATE)
        answer = self._late_answer(credential, end) if is_late else self._answer(credential)
        self.world.log(self.process, "  the server issues {}", answer["access_token"])
        self.world.point("answer on its way")
        if self.world.happens(self.away):
            disk = self.witness.disk
            disk.take_down(min(_AWAY, max(self.world.calm_from - self.world.now, 0.0)))
        if self._happens("answer lost"):
            raise RefreshTemporarilyFailed("time-out")
        return answer

    def _answer(self, credential: Credential) -> dict[str, Any]:
        return self.authority.rotate(credential.secret)

    def _late_answer(self, credential: Credential, end: float) -> dict[str, Any]:
        """The answer after the deadline.

        The server processes the request when it reads it, or when it answers, even if the process
        no longer waits for the answer.
        """
        choices = self.world.choices
        answer = self._answer(credential) if choices.chance(0.5) else None
        try:
            self._wait(self.deadline * choices.between(1.0, LATEST), credential, end)
        except RefreshTemporarilyFailed:
            if answer is None:
                with suppress(ReauthRequired):
                    self._answer(credential)
            raise
        return self._answer(credential) if answer is None else answer

    def _wait(self, seconds: float, credential: Credential, end: float) -> None:
        """Wait for an answer, and from *end* on for as long as *credential* allows.

        :raises RefreshTemporarilyFailed: if the answer has not come by then.
        """
        sent = self.world.now
        comes = sent + seconds
        while self.world.now < comes:
            left = end - self.process.runtime.monotonic()
            if left <= 0:
                if not credential.keep_waiting():
                    if self.is_told:
                        self.witness.gives_up(self.process, credential, self.world.now - sent)
                    raise RefreshTemporarilyFailed("time-out")
                self.witness.waits_longer(self.process)
                left = _LOOKS_EVERY
            self.world.sleep(min(left, comes - self.world.now))

    def _happens(self, fault: str) -> bool:
        if not self.world.happens(self.faults.get(fault, 0.0)):
            return False
        self.world.log(self.process, "  {}", fault)
        return True

    def as_grant(self) -> Grant:
        """The grant that the keeper gets."""
        return self


def _refresh_token(secret: str, *, first: bool = False) -> Credential:
    return Credential("refresh_token", secret, single_use=True, first=first, refusal_is_final=True)


class AdoptedGrant(SimulatedGrant):
    """Presents the refresh token of the record only."""

    def configured(self) -> list[Credential]:
        return []


class PasswordGrant(SimulatedGrant):
    """Falls back to a password, which may be presented any number of times."""

    def configured(self) -> list[Credential]:
        return [Credential("password", "pw", refusal_is_final=True)]

    def _answer(self, credential: Credential) -> dict[str, Any]:
        if credential.kind == "password":
            return self.authority.log_in()
        return super()._answer(credential)


class ClientGrant(SimulatedGrant):
    """Spends no credential."""

    def configured(self) -> list[Credential]:
        return [Credential("client", "client")]

    def _answer(self, credential: Credential) -> dict[str, Any]:
        return self.authority.issue_alone()


class Function(SimulatedGrant):
    """A plain function.  Without a previous token, it presents the first refresh token, which the
    keeper cannot see."""

    is_told = False

    def __call__(self, previous: Token | None) -> Answer:
        credential = self.credentials(previous)[0]
        return self.fetch(
            credential._replace(opaque=credential.first, refusal_is_final=False), previous
        )

    def as_grant(self) -> Grant:
        grant = FunctionGrant(self, self.owner)
        grant.requested, grant.deadline, grant.grace = self.requested, self.deadline, self.grace
        grant.client_credential = self.client_credential
        return grant


class ClientFunction(Function):
    """A plain function that returns no refresh token."""

    def configured(self) -> list[Credential]:
        return [Credential("client", "client")]

    def _answer(self, credential: Credential) -> dict[str, Any]:
        return self.authority.issue_alone()


GRANTS: Mapping[str, type[SimulatedGrant]] = {
    "first": SimulatedGrant,
    "adopted": AdoptedGrant,
    "password": PasswordGrant,
    "client": ClientGrant,
    "function": Function,
    "function client": ClientFunction,
}
