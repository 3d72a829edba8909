"""Keepers that share a file, compared with a model of one page.

Hypothesis drives both: processes start and end, time passes, the API refuses tokens, the token
endpoint fails, loses answers or revokes the grant, people log in, and the file is lost or torn.
The model says of each call which token it has to return, or which error to raise, and what it may
present.
"""

from __future__ import annotations

import tempfile
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doubles import Authority, Clockwork
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.record import Record, digest
from tokenadapter.errors import ReauthRequired, RefreshTemporarilyFailed
from tokenadapter.protocols import Answer, Credential, Snapshot
from tokenadapter.stores.file import FileStore
from tokenadapter.token import Token

HOUR = 3600.0
HARD = 60.0


class Held(NamedTuple):
    """A token as the model knows it: the number that the server gave it, and its end."""

    number: int
    dies: float


def held(token: Token) -> Held:
    assert token.expires_at is not None
    return Held(number(token), token.expires_at)


def number(token: Token) -> int:
    return int(token.access_token.rpartition("-")[2])


class Server(Authority):
    """A login begins a new grant; reuse of an earlier one has no effect on it."""

    first_of_grant = 0

    def log_in(self) -> dict[str, Any]:
        self.revoked = False
        answer = self.issue()
        self.first_of_grant = self.count
        return answer

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        was_revoked = self.revoked
        try:
            return super().fetch(credential, previous)
        finally:
            if int(credential.secret.rpartition("-")[2]) < self.first_of_grant:
                self.revoked = was_revoked


class File(FileStore):
    """A file on a machine whose clock stands still."""

    def __init__(self, path: Path, clock: Clockwork) -> None:
        super().__init__(path)
        self.clock = clock

    def load(self) -> Snapshot:
        return super().load()._replace(now=self.clock.now)


class SharedFile(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "token.json"
        self.clock = Clockwork()
        self.server = Server(lifetime=HOUR)
        self.keepers: list[TokenKeeper] = []
        self.hands: list[Held | None] = []
        # What the file holds.
        self.stored: Held | None = None
        self.held_until, self.steps = 0.0, 0
        # Refresh tokens that were refused, and that a rotation has spent.
        self.dead: set[str] = set()
        self.spent: set[str] = set()
        # The refresh token of a lost answer: it may be presented once more.
        self.uncertain: str | None = None
        # Whether the file was lost or torn, and what was written since is less than what some
        # process remembers.
        self.is_damaged = False
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.directory.cleanup()

    # --- what happens ----------------------------------------------------------------------

    @precondition(lambda self: len(self.keepers) < 4)
    @rule()
    def start(self) -> None:
        store = File(self.path, self.clock)
        self.keepers.append(TokenKeeper(self.server, store, renew_early=False, runtime=self.clock))
        self.hands.append(None)

    @precondition(lambda self: len(self.keepers) > 1)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        one = self.draw_process(data)
        del self.keepers[one], self.hands[one]

    @rule(seconds=st.sampled_from([1.0, 30.0, 120.0, 1800.0, HOUR - HARD - 1, 2 * HOUR]))
    def pass_time(self, seconds: float) -> None:
        self.clock.go_on(seconds)

    @rule(failure=st.sampled_from(["down", "lost", "lost and down"]))
    def fail_next(self, failure: str) -> None:
        down = RefreshTemporarilyFailed("It is down.", processed=False)
        lost = RefreshTemporarilyFailed("The answer was lost.", processed=None)
        self.server.script = {
            "down": [down],
            "lost": [("lost", lost)],
            "lost and down": [("lost", lost), down],
        }[failure]

    @rule()
    def revoke(self) -> None:
        self.server.revoked = True

    @rule(data=st.data())
    def log_in(self, data: st.DataObject) -> None:
        one = self.draw_process(data)
        token = self.keepers[one].adopt(self.server.log_in())
        self.saved(one, number(token))
        if self.is_damaged:
            self.learn(one)

    @rule(torn=st.booleans())
    def lose_file(self, torn: bool) -> None:
        if torn and self.path.exists():
            self.path.write_bytes(self.path.read_bytes()[:40])
        else:
            self.path.unlink(missing_ok=True)
        self.is_damaged = True

    # --- requests ----------------------------------------------------------------------------

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        self.ask(self.draw_process(data), None)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """The API refuses the held token of a process."""
        one = self.draw_process(data)
        held = self.keepers[one]._holder.held
        if held is not None:
            self.ask(one, held.token)

    def ask(self, one: int, rejected: Token | None) -> None:
        keeper, before = self.keepers[one], len(self.server.presented)
        if self.is_damaged:
            self.ask_damaged(one, rejected)
            return
        expected = self.expected(one, None if rejected is None else number(rejected))
        if isinstance(expected, int):
            token = keeper.current() if rejected is None else keeper.renew(rejected)
            assert number(token) == expected
        else:
            with pytest.raises(expected):
                keeper.obtain(rejected)
        assert len(self.server.presented) - before == len(self.presented)
        assert self.server.presented[before:] == self.presented

    def ask_damaged(self, one: int, rejected: Token | None) -> None:
        """Of the file there may be nothing left but what some process remembers."""
        keeper, before = self.keepers[one], len(self.server.presented)
        was_revoked, script = self.server.revoked, list(self.server.script)
        issued = self.server.count
        try:
            token = keeper.obtain(rejected).token
        except (ReauthRequired, RefreshTemporarilyFailed):
            pass
        else:
            assert not token.is_same(rejected)
            assert token.expires_at is not None
            assert self.clock.now < token.expires_at
            if number(token) > issued:  # else it is an old one that still lives
                self.spent.update(self.server.presented[before:][-1:])
        presented = self.server.presented[before:]
        assert len(presented) <= 2
        # Whatever was lost, nothing that a rotation has spent is presented to a living grant.
        if self.uncertain not in presented:
            assert self.server.revoked == was_revoked
        for secret, step in zip(presented, script, strict=False):
            if isinstance(step, tuple):
                self.uncertain = secret
        self.learn(one)

    # --- the model ---------------------------------------------------------------------------

    def expected(self, one: int, rejected: int | None) -> int | type[Exception]:
        """What a call has to come to, and in ``presented`` what the server gets to see."""
        now, own = self.clock.now, self.hands[one]
        self.presented: list[str] = []
        for held in (own, self.stored):
            if held is not None and held.number != rejected and held.dies - now > HARD:
                # The held token is used while it is valid; then the stored one.
                self.hands[one] = held
                return held.number
        if self.stored is not None and (
            own is None
            or own.number == self.stored.number
            or not self.stored.dies <= now < own.dies
        ):
            self.hands[one] = self.stored
        outcome = self.renewed(one, now)
        if isinstance(outcome, int):
            return outcome
        if outcome is ReauthRequired and self.stored and self.stored.number == rejected:
            # The API refused it, and nothing can renew it: from now on, nobody uses it.
            self.stored = self.hands[one] = Held(rejected, -inf)
        own = self.hands[one]
        if own is not None and own.number != rejected and own.dies > now:
            return own.number  # old, but alive
        return outcome

    def renewed(self, one: int, now: float) -> int | type[Exception]:
        if now < self.held_until:
            return RefreshTemporarilyFailed
        script = list(self.server.script)
        for secret in self.secrets():
            self.presented.append(secret)
            step = script.pop(0) if script else None
            if isinstance(step, Exception):
                self.backoff(now)
                return RefreshTemporarilyFailed
            if secret != self.server.live or self.server.revoked:
                self.dead.add(secret)
                self.uncertain, self.held_until, self.steps = None, 0.0, 0
                continue
            if step is not None:
                self.uncertain = secret
                self.backoff(now)
                return RefreshTemporarilyFailed
            self.spent.add(secret)
            self.saved(one, self.server.count + 1)
            return self.server.count + 1
        return ReauthRequired

    def secrets(self) -> list[str]:
        """What may be presented: what is stored, else the first; nothing dead, nothing spent."""
        stored = [] if self.stored is None else [f"refresh-{self.stored.number}"]
        return [one for one in (*stored, "refresh-0") if one not in self.dead | self.spent]

    def backoff(self, now: float) -> None:
        self.steps += 1
        # The dice always fall in the middle.
        self.held_until = now + min(5.0 * 2.0 ** (self.steps - 1), 60.0)

    def saved(self, one: int, new: int) -> None:
        self.stored = self.hands[one] = Held(new, self.clock.now + HOUR)
        self.held_until, self.steps, self.uncertain = 0.0, 0, None

    def learn(self, one: int) -> None:
        """Copy the held token of process *one* and the content of the file into the model."""
        own = self.keepers[one]._holder.held
        self.hands[one] = None if own is None else Held(number(own.token), own.dies_wall)
        document = FileStore(self.path).load().document
        self.is_damaged = document is None
        if document is None:
            return
        record = Record.from_document(document)
        self.is_damaged = any(self.remembers_more(keeper, record) for keeper in self.keepers)
        self.stored = None if record.token is None else held(record.token)
        if self.stored is not None and record.is_rejected:
            self.stored = self.stored._replace(dies=-inf)
        backoff = record.backoff
        self.held_until, self.steps = (
            (backoff.set_at + backoff.duration, backoff.step) if backoff else (0.0, 0)
        )
        known = [f"refresh-{issued}" for issued in range(self.server.count + 1)]
        self.dead = {
            one for one in known if record.tombstone(digest(record.salt, "refresh_token", one))
        }

    def remembers_more(self, keeper: TokenKeeper, record: Record) -> bool:
        """Whether *keeper* will write back a later record that it has seen."""
        seen = keeper._slot._memory
        if seen is None or seen.salt != record.salt:
            return False
        return seen.generation > record.generation

    # --- always ------------------------------------------------------------------------------

    @invariant()
    def no_other_user_can_read_the_file(self) -> None:
        if hasattr(self, "path") and self.path.exists():
            assert self.path.stat().st_mode & 0o077 == 0

    def draw_process(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.keepers) - 1), label="process")


TestSharedFile: Any = SharedFile.TestCase
TestSharedFile.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,  # minimizing each would take long, and one is enough
    suppress_health_check=[HealthCheck.too_slow],
)
