"""The authorization server, and the API that it protects.

Refresh tokens rotate, unless the world says otherwise.  What descends from one login is a
*family*; when an old refresh token is shown again, and its grace is over, the family is revoked.
Within the grace it gives one more pair of tokens, and those that were given before stay good.
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
    """What descends from one login."""

    def __init__(self, login: int) -> None:
        self.login = login
        self.generation = 0
        self.rotated_at = 0.0
        self.revoked = False


class Issue(NamedTuple):
    """What the server knows of a refresh token, and of the access token that came with it."""

    family: Family
    generation: int

    @property
    def age(self) -> tuple[int, int]:
        """The larger, the newer."""
        return self.family.login, self.generation


class Access(NamedTuple):
    """What the server knows of an access token."""

    family: Family
    generation: int
    until: float
    """When it expires."""


class Authority:
    """The authorization server and the API.

    :param rotation: what comes with a new access token: ``new``, another refresh token; ``same``,
        the one that was presented; ``none``.
    :ivar denies_until: until when the API refuses every token.
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
        """The access tokens that the API has refused to somebody."""
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
                self.world.note(None, "{} was used before: the grant is revoked", refresh)
        if family.revoked:
            self.has_refused = True
            raise ReauthRequired("The server refused it.", error="invalid_grant")
        if self.rotation == "new":
            return self._issue(family)
        answer = self._issue_access(family)
        return answer | {"refresh_token": refresh} if self.rotation == "same" else answer

    def log_in(self, ago: float = 0.0) -> dict[str, Any]:
        """The answer to a new login, so many seconds *ago*."""
        self.logins += 1
        return self._issue(Family(self.logins), ago)

    def hand_in(self, refresh: str) -> None:
        """A login counts from when its token is handed in, whoever has renewed meanwhile."""
        self.logins += 1
        self.refresh[refresh].family.login = self.logins

    def issue_alone(self) -> dict[str, Any]:
        """The answer to a client that asks for itself: without a refresh token."""
        self.logins += 1
        return self._issue_access(Family(self.logins))

    def accepts(self, access: str) -> bool:
        """Whether a token is good."""
        family, _, until = self.access[access]
        return not family.revoked and access not in self.revoked and self.world.now < until

    def admits(self, access: str) -> bool:
        """Whether the API lets a request in."""
        if self.accepts(access) and self.world.now >= self.denies_until:
            return True
        self.refused.add(access)
        return False

    def is_dead(self, document: Document) -> bool:
        """Whether *document* holds a grant that the server has revoked, or none at all."""
        refresh = document.get("token", {}).get("refresh_token", FIRST)
        return self.refresh[refresh].family.revoked

    def age(self, token: Mapping[str, Any]) -> tuple[int, int]:
        """The larger, the newer."""
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
