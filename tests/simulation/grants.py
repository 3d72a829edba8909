"""The grants of the processes: each grant connects one process to the authorization server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simulation.authority import FIRST, Authority
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
# The deadline of every request in seconds.
DEADLINE = 3.0


class SimulatedGrant:
    """Presents the refresh token of the record, or else the first refresh token.

    :param requested: the requested scope or resource.
    :ivar client_credential: the credential of the client.
    :ivar faults: the probability of each fault of a request.
    """

    owner: Mapping[str, str] = OWNER
    deadline = DEADLINE
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
        self.grace = authority.grace
        self.faults = faults

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
            answer = self._exchange(credential, is_late=now() >= end)
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

    def _exchange(self, credential: Credential, *, is_late: bool) -> dict[str, Any]:
        if is_late:
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
        answer = self._answer(credential)
        self.world.log(self.process, "  the server issues {}", answer["access_token"])
        self.world.point("answer on its way")
        if self._happens("answer lost"):
            raise RefreshTemporarilyFailed("time-out")
        return answer

    def _answer(self, credential: Credential) -> dict[str, Any]:
        return self.authority.rotate(credential.secret)

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
