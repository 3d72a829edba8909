"""The authorization server, and the API that it protects.

Refresh tokens rotate unless the plan says otherwise.  All tokens of one login form a *family*.  If
an old refresh token is presented after its grace period, the server revokes the family.  Within
the grace period, the server issues one more pair of tokens, and the earlier pair remains valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from simulation.process import Process
from simulation.world import World
from tokenadapter.errors import ReauthRequired
from tokenadapter.protocols import Document

FIRST = "R0"


class Family:
    """All tokens of one login."""

    def __init__(self, login: int) -> None:
        self.login = login
        self.generation = 0
        self.rotated_at = 0.0
        self.revoked = False


class Issue(NamedTuple):
    """A refresh token and its access token, as the server knows them."""

    family: Family
    generation: int

    @property
    def age(self) -> tuple[int, int]:
        """A rank: a newer token has a larger one."""
        return self.family.login, self.generation


class Access(NamedTuple):
    """An access token, as the server knows it."""

    family: Family
    generation: int
    until: float
    """When it expires."""


class Authority:
    """The authorization server and the API.

    :param rotation: the refresh token in an answer: ``new``, another one; ``same``, the presented
        one; ``none``, no refresh token.
    :ivar denies_until: the time until which the API refuses every token.
    """

    def __init__(
        self, world: World, *, lifetime: float | None, grace: float, rotation: str = "new"
    ) -> None:
        self.world = world
        self.lifetime = lifetime
        self.grace = grace
        self.rotation = rotation
        self.denies_until = 0.0
        self.refresh: dict[str, Issue] = {FIRST: Issue(Family(0), 0)}
        self.access: dict[str, Access] = {}
        self.revoked: set[str] = set()
        self.refused: set[str] = set()
        """The access tokens that the API has refused at least once."""
        self.logins = 0
        self.has_refused = False
        self.login_by: Process | None = None
        self.count = 0

    def rotate(self, refresh: str) -> dict[str, Any]:
        """The answer to a refresh token.

        :raises ReauthRequired: if it is refused.
        """
        family, generation = self.refresh[refresh]
        now = self.world.now
        if self.rotation != "new":
            family.generation += 1
        elif not family.revoked:
            if generation == family.generation:
                family.generation += 1
                family.rotated_at = now
            elif generation < family.generation - 1 or now >= family.rotated_at + self.grace:
                family.revoked = True
                self.world.log(None, "{} was presented before: the grant is revoked", refresh)
        if family.revoked:
            self.has_refused = True
            raise ReauthRequired("The server refused it.", error="invalid_grant")
        if self.rotation == "new":
            return self._issue(family)
        answer = self._issue_access(family)
        return answer | {"refresh_token": refresh} if self.rotation == "same" else answer

    def log_in(self, ago: float = 0.0) -> dict[str, Any]:
        """The answer to a login that took place *ago* seconds before now."""
        self.logins += 1
        return self._issue(Family(self.logins), ago)

    def count_as_login(self, refresh: str) -> None:
        """Count the grant of *refresh* as the newest login: a grant is as old as its adoption."""
        self.logins += 1
        self.refresh[refresh].family.login = self.logins

    def issue_alone(self) -> dict[str, Any]:
        """The answer to the client credentials grant, which has no refresh token."""
        self.logins += 1
        return self._issue_access(Family(self.logins))

    def accepts(self, access: str) -> bool:
        """Whether an access token is valid."""
        family, _, until = self.access[access]
        return not family.revoked and access not in self.revoked and self.world.now < until

    def admits(self, access: str) -> bool:
        """Whether the API admits a request with this token."""
        if self.accepts(access) and self.world.now >= self.denies_until:
            return True
        self.refused.add(access)
        return False

    def is_dead(self, document: Document) -> bool:
        """Whether the server has revoked the grant in *document*, or else the first grant."""
        refresh = document.get("token", {}).get("refresh_token", FIRST)
        return self.refresh[refresh].family.revoked

    def age(self, token: Mapping[str, Any]) -> tuple[int, int]:
        """A rank: a newer token has a larger one."""
        family, generation, _ = self.access[token["access_token"]]
        return family.login, generation

    def _issue(self, family: Family, ago: float = 0.0) -> dict[str, Any]:
        answer = self._issue_access(family, ago)
        answer["refresh_token"] = refresh = f"R{self.count}"
        self.refresh[refresh] = Issue(family, family.generation)
        return answer

    def _issue_access(self, family: Family, ago: float = 0.0) -> dict[str, Any]:
        self.count += 1
        access, until = f"A{self.count}", float("inf")
        answer: dict[str, Any] = {"access_token": access}
        if self.lifetime is not None:
            answer["expires_in"] = self.lifetime
            until = self.world.now + self.lifetime - ago
        self.access[access] = Access(family, family.generation, until)
        return answer
