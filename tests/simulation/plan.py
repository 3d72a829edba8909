"""What kind of world a schedule plays in."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# What can go wrong between a process and the authorization server.
SERVER_FAULTS = ("not reached", "unavailable", "client refused", "slow", "broken", "answer lost")
# What can happen to processes, computers, store and API at any point.
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
# What users do besides.
ACTS = ("forget", "refresh", "min validity")
# ... and what only those do whose grant presents refresh tokens.
HANDS_IN = "hand in"
# What tokenadapter's stores are like, in the words of a plan.
STORES: Mapping[str, Mapping[str, Any]] = {
    "file": {"swaps_locked": True, "is_file": True},
    "keyring": {"swaps_locked": True},
    "functions with a lock": {"swaps_locked": True, "notes_apart": False},
    "Redis": {"lease": 5.0, "has_clock": True, "drops": True},
    "database": {"lease": 5.0, "has_clock": True},
    "cache": {"lease": 5.0, "drops": True},
}


# Those of them that end processes.
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
    """A world, and how likely what is to break in it."""

    grant: str = "first"
    """One of :data:`simulation.grants.GRANTS`."""
    processes: int = 3
    threads: int = 2
    span: float = 20.0
    """For how many seconds things happen."""
    pause: float = 5.0
    """Seconds between two requests of a thread, at most."""
    lifetime: float | None = 10.0
    rotation: str = "new"
    """Which refresh token comes with an access token: a ``new`` one, the ``same``, or ``none``."""
    grace: float = 0.0
    requested: int = 1
    """For how many different things processes ask."""
    stale_client: bool = False
    """Whether the server refuses the client of one of the processes."""
    acts: tuple[str, ...] = ()
    """What users do besides making requests."""
    early: bool = True
    """Whether tokens are renewed in the background before they expire."""
    lease: float | None = None
    """Seconds for which the lock outlives its holder; ``None``: it ends with its process."""
    swaps_locked: bool = False
    """Whether a compare-and-swap is two steps, a look and a write, under the lock."""
    is_file: bool = False
    """Whether a glimpse tells that it was written, and renewals can be claimed there."""
    drops: bool = False
    """Whether what is worth nothing any more is gone."""
    notes_apart: bool = True
    """Whether notes are beside the slot, and not lost with it."""
    has_clock: bool = False
    """Whether the store has a clock of its own; else times are those of whoever asks it."""
    computers: bool = False
    """Whether each process has a computer of its own, with its own idea of the time: a very
    different one only where the store has a clock."""
    threads_at_exit: bool = True
    """Whether a process that exits can start another thread."""
    server_faults: Mapping[str, float] = field(default_factory=dict)
    failing_saves: float = 0.0
    lost_writes: float = 0.0
    """How likely it is that a write succeeds and its writer does not learn that."""
    disturbances: tuple[str, ...] = ()
    rate: float = 0.0
    """How likely one of them is at each point."""
    most: int = 6
    """How many of them there are at most."""

    @classmethod
    def drawn(cls, seed: int) -> Plan:
        """A world by dice.  Each has some of the faults only: where everything breaks all the
        time, nothing gets far enough to break in an interesting way."""
        dice = random.Random(f"plan {seed}")

        def perhaps(probability: float, *rates: float) -> float:
            return dice.choice(rates) if dice.random() < probability else 0.0

        store = STORES[dice.choice([*STORES])]
        # A lock that ends with its process does not reach beyond the computer.
        computers = "lease" in store and dice.random() < 0.7
        impossible = set() if "lease" in store else {"lose lock", "flush"}
        grant = dice.choice(_DRAWN_GRANTS)
        if "is_file" not in store or "client" in grant:
            impossible.add("copy")  # of a login
        if computers:
            # Only where all share it can the clock of a computer stand still for all of them ...
            impossible.add("sleep")
        if computers and "has_clock" not in store:
            impossible.add("set clock")  # ... or be changed, if they have to agree
        disturbances = tuple(name for name in DISTURBANCES if dice.random() < 0.25)
        return cls(
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
        )._with_logins(dice)

    def _with_logins(self, dice: random.Random) -> Plan:
        """Perhaps one in which somebody hands in refresh tokens."""
        # One that the server does not rotate is stored: the witness could not tell it from others.
        if "client" in self.grant or self.rotation != "new" or dice.random() >= 0.15:
            return self
        return replace(self, acts=(*self.acts, HANDS_IN))

    def is_faultless(self) -> bool:
        """Whether nothing breaks in it."""
        return not (
            set(self.server_faults) - {"slow"}
            or self.failing_saves
            or self.lost_writes
            or self.disturbances
            or self.acts
            or self.requested > 1
            or self.stale_client
        )

    def is_lively(self) -> bool:
        """Whether only the death of a process can keep others from renewing."""
        return not (
            set(self.server_faults) - {"slow"}
            or self.failing_saves
            or self.lost_writes
            or set(self.disturbances) - _ENDINGS - {"fork", "revoke", "deny"}
            or self.stale_client
        )

    def keeps_grants(self) -> bool:
        """Whether no grant may be lost in it, whose server never fails: processes die, but at once
        another tries again, and the server takes that well; or the store goes back in time, but
        the only process there is does not."""
        is_alone = self.processes == 1
        harmless = {"revoke", "deny", *(("set back",) if is_alone else _ENDINGS)}
        return (
            self.grant in ("first", "adopted")
            and (self.grace > 0 or is_alone)
            and not set(self.server_faults) - {"slow"}
            and not self.failing_saves
            and not set(self.disturbances) - harmless
            and not {"forget", "refresh", HANDS_IN} & set(self.acts)
            and not self.stale_client
        )
