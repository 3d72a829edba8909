"""The parameters of a world."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# The faults between a process and the authorization server.
SERVER_FAULTS = ("not reached", "unavailable", "client refused", "slow", "broken", "answer lost")
# A fault with a probability in :data:`RARE`: the answer comes after the deadline of the request.
LATE = "late"
# The longest time that such an answer takes, as a multiple of the deadline.
LATEST = 4.0
# The faults of processes, computers, store and API.
DISTURBANCES = (
    "kill",
    "terminate",
    "stall",
    "interrupt",
    "set clock",
    "sleep",
    "fork",
    "empty",
    "flush",
    "set back",
    "copy",
    "store down",
    "cut off",
    "full",
    "lose lock",
    "revoke",
    "deny",
)
# The probability that a world has a fault apart from those above; 0 turns the fault off.
RARE: Mapping[str, float] = {
    "hard exit": 0.06,  # processes that end, or are frozen, right after a request
    "short memory": 0.06,  # a list of spent tokens that is shorter than a process sleeps
    "short grace": 0.04,  # a grace period that is little longer than two requests
    "late": 0.06,  # a token endpoint that answers after the deadline
    "store away": 0.06,  # a store that fails between an answer and its save
}
# The grace periods with the deadlines of requests that fit in: a request, and its repetition by
# another process, end before the grace period does.
GRACES = ((5.0, 2.0), (10.0, 2.0), (30.0, 2.0), (30.0, 10.0))
_SHORT_LIFETIME = 3.0
# The actions of users apart from requests.
ACTS = ("forget", "refresh", "min validity")
# The action that requires a grant with refresh tokens.
ADOPTS_REFRESH = "adopt refresh token"
# The properties of tokenadapter's stores.
STORES: Mapping[str, Mapping[str, Any]] = {
    "file": {"swaps_locked": True, "is_file": True},
    "keyring": {"swaps_locked": True},
    "functions with a lock": {"swaps_locked": True, "spent_apart": False},
    "Redis": {"lease": 5.0, "has_clock": True, "drops": True},
    "database": {"lease": 5.0, "has_clock": True},
    "cache": {"lease": 5.0, "drops": True},
}


# The disturbances that end a process.
_ENDINGS = {"kill", "terminate", "interrupt"}
_DRAWN_GRANTS = (
    *("first", "adopted") * 4,
    "password",
    "password",
    "client",
    "client",
    "function",
    "function client",
)


@dataclass(frozen=True)
class Plan:
    """A world, and the probability of each fault in it."""

    grant: str = "first"
    """One of :data:`simulation.grants.GRANTS`."""
    processes: int = 3
    threads: int = 2
    span: float = 20.0
    """The seconds until all faults end."""
    pause: float = 5.0
    """The maximal seconds between two requests of a thread."""
    lifetime: float | None = 10.0
    rotation: str = "new"
    """The refresh token in an answer: a ``new`` one, the ``same``, or ``none``."""
    grace: float = 0.0
    deadline: float = 3.0
    """The seconds that a token request may take."""
    requested: int = 1
    """The number of different requested scopes."""
    stale_client: bool = False
    """Whether the server refuses the client of one of the processes."""
    acts: tuple[str, ...] = ()
    """The actions of users apart from requests."""
    early: bool = True
    """Whether tokens are renewed in the background before they expire."""
    lease: float | None = None
    """Seconds for which the lock outlives its holder; ``None``: the lock ends with its process."""
    swaps_locked: bool = False
    """Whether a compare-and-swap is two steps, a read and a write, under the lock."""
    is_file: bool = False
    """Whether the store has glimpses and reservations."""
    drops: bool = False
    """Whether the store drops a document after its ttl."""
    spent_kept: int | None = None
    """How many hashes of spent tokens the store keeps; ``None``: all.  The hashes of tokens that a
    configuration may provide again are always kept."""
    spent_apart: bool = True
    """Whether hashes of spent tokens are stored apart from the slot, and survive its loss."""
    has_clock: bool = False
    """Whether the store has a clock of its own; else the clock of the calling process counts."""
    computers: bool = False
    """Whether each process has a computer of its own, with its own clock.  The clocks differ much
    only if the store has a clock."""
    threads_at_exit: bool = True
    """Whether a process that exits can start another thread."""
    exits: float = 0.0
    """The probability that a process ends by ``os._exit()``, or is frozen, right after a request.
    The keepers know that, and so do those of forked processes."""
    server_faults: Mapping[str, float] = field(default_factory=dict)
    away: float = 0.0
    """The probability that the store fails for a while between an answer and its save."""
    failing_saves: float = 0.0
    lost_writes: float = 0.0
    """The probability that a write succeeds and its answer is lost."""
    disturbances: tuple[str, ...] = ()
    rate: float = 0.0
    """The probability of a disturbance at each point."""
    most: int = 6
    """The maximal number of disturbances."""

    @classmethod
    def drawn(cls, seed: int) -> Plan:
        """A random world.  Each world has only some of the faults: with all faults at once, no
        process would get far enough to fail in an interesting way."""
        dice = random.Random(f"plan {seed}")

        def perhaps(probability: float, *rates: float) -> float:
            return dice.choice(rates) if dice.random() < probability else 0.0

        store = STORES[dice.choice([*STORES])]
        # A lock that ends with its process works on one computer only.
        computers = "lease" in store and dice.random() < 0.7
        impossible = set() if "lease" in store else {"lose lock", "flush"}
        grant = dice.choice(_DRAWN_GRANTS)
        if "is_file" not in store or "client" in grant:
            impossible.add("copy")  # of a login
        if computers:
            # The computer can be suspended only if all processes share it ...
            impossible.add("sleep")
        if computers and "has_clock" not in store:
            impossible.add("set clock")  # ... nor may a clock be set if the clocks have to agree
        disturbances = tuple(name for name in DISTURBANCES if dice.random() < 0.25)
        return (
            cls(
                grant=grant,
                processes=dice.choice((2, 2, 3, 4)),
                threads=dice.choice((1, 1, 2)),
                lifetime=dice.choice((10.0, 10.0, 10.0, 30.0, None)),
                rotation=dice.choice(("new",) * 8 + ("same", "none")),
                grace=dice.choice((0.0, 0.0, 30.0)),
                requested=dice.choice((1,) * 9 + (2,)),
                stale_client=dice.random() < 0.1,
                acts=tuple(name for name in ACTS if dice.random() < 0.15),
                early=dice.random() < 0.7,
                computers=computers,
                threads_at_exit=dice.random() < 0.5,
                server_faults={
                    name: rate for name in SERVER_FAULTS if (rate := perhaps(0.3, 0.05, 0.2, 0.5))
                },
                failing_saves=perhaps(0.3, 0.02, 0.1, 0.3),
                lost_writes=perhaps(0.3, 0.02, 0.1, 0.3),
                disturbances=tuple(name for name in disturbances if name not in impossible),
                **store,
                rate=dice.choice((0.003, 0.01, 0.03)),
            )
            ._with_logins(dice)
            ._with_rare_faults(dice)
        )

    def _with_logins(self, dice: random.Random) -> Plan:
        """This plan, perhaps with users that adopt a refresh token alone."""
        # Without rotation, the witness could not tell an adopted refresh token from a stored one.
        if "client" in self.grant or self.rotation != "new" or dice.random() >= 0.15:
            return self
        return replace(self, acts=(*self.acts, ADOPTS_REFRESH))

    def _with_rare_faults(self, dice: random.Random) -> Plan:
        """This plan, perhaps with the faults in :data:`RARE`.

        They are drawn last, so that all other worlds stay as they are.
        """
        plan = self
        drawn = {name for name, chance in RARE.items() if dice.random() < chance}
        if "hard exit" in drawn:
            faults = {**plan.server_faults, "slow": 0.5}
            plan = replace(plan, exits=dice.choice((0.1, 0.5)), server_faults=faults)
        if "short memory" in drawn and plan.rotation == "new":
            losses = dice.choice((("vanish",), ("vanish",), ("vanish", "lose spent")))
            plan = replace(
                plan,
                spent_kept=dice.choice((1, 1, 2)),
                lifetime=_SHORT_LIFETIME,  # for more renewals while a process sleeps
                disturbances=tuple(dict.fromkeys((*plan.disturbances, "stall", *losses))),
            )
        if "short grace" in drawn:
            fitting = [pair for pair in GRACES if pair[0] > (plan.lease or 0.0)]
            grace, deadline = dice.choice(fitting)
            # A user has to come within the grace period, and not many processes may die.
            plan = replace(
                plan, grace=grace, deadline=deadline, pause=grace / 10, most=dice.choice((1, 6))
            )
        if "late" in drawn:
            faults = {**plan.server_faults, LATE: dice.choice((0.1, 0.5))}
            plan = replace(plan, server_faults=faults)
        if "store away" in drawn:
            plan = replace(plan, away=dice.choice((0.05, 0.3)))
        return plan

    def is_faultless(self) -> bool:
        """Whether the world has no faults."""
        return not (
            set(self.server_faults) - {"slow"}
            or self.failing_saves
            or self.lost_writes
            or self.disturbances
            or self.exits
            or self.away
            or self.acts
            or self.requested > 1
            or self.stale_client
        )

    def only_deaths_delay(self) -> bool:
        """Whether nothing but the death of a process can keep others from renewing."""
        return not (
            set(self.server_faults) - {"slow"}
            or self.failing_saves
            or self.lost_writes
            or set(self.disturbances) - _ENDINGS - {"fork", "revoke", "deny"}
            or self.exits
            or self.away
            or self.stale_client
        )

    def keeps_grants(self) -> bool:
        """Whether no grant may be lost: the server answers, if only late, and either no process
        dies but after a request, or another one presents the refresh token again within the grace
        period, or the store is set back, but its only process remembers the later record."""
        is_alone = self.processes == 1
        is_safe = is_alone or not _ENDINGS & set(self.disturbances)
        # Within the grace period, each death may be followed by another presentation.
        has_grace = self.grace > (self.most + 1) * self.deadline + (self.lease or 0.0)
        harmless = {"revoke", "deny"}
        harmless |= {"set back"} if is_alone else _ENDINGS
        return (
            self.grant in ("first", "adopted")
            and (has_grace if self.grace else is_safe)
            and not set(self.server_faults) - ({"slow"} if self.grace else {"slow", LATE})
            and not self.failing_saves
            # A process that dies meanwhile takes its token along; one elsewhere cannot be seen.
            and not (self.away and (self.computers or _ENDINGS & set(self.disturbances)))
            and not set(self.disturbances) - harmless
            and not {"forget", "refresh", ADOPTS_REFRESH} & set(self.acts)
            and not self.stale_client
        )
