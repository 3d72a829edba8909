"""The threads that use the token, as the adapter does."""

from __future__ import annotations

from simulation.authority import Authority
from simulation.complaints import LONGEST_HOLD, Complaints
from simulation.plan import Plan
from simulation.process import Process
from simulation.witness import Witness
from tokenadapter.errors import ReauthRequired, TokenError
from tokenadapter.keeper import TokenKeeper
from tokenadapter.token import Token

# Seconds from the end of all faults to the last request: by then no hold and no distrust binds ...
_CALM = LONGEST_HOLD + 30.0
# ... if no clock was set back: a hold that is void since it seems to come from the future binds
# once that future has come.
_SET_BACK = 30.0
# As in the adapter.
_MOST_ADOPTIONS = 3


class User:
    """One thread of a process that makes requests.

    :ivar served: how many of them the API admitted.
    """

    def __init__(
        self,
        plan: Plan,
        keeper: TokenKeeper,
        authority: Authority,
        witness: Witness,
        complaints: Complaints,
        process: Process,
    ) -> None:
        self.plan = plan
        self.keeper = keeper
        self.authority = authority
        self.witness = witness
        self.complaints = complaints
        self.process = process
        self.world = process.world
        self.hand: Token | None = None
        self.served = 0

    def live(self) -> None:
        """Make requests while things break, and one when they no longer do."""
        world = self.world
        try:
            while world.now < world.calm_from and not self.process.is_exiting:
                self._try()
                world.sleep(world.choices.between(0.0, self.plan.pause))
        except KeyboardInterrupt:
            # The main thread ends.  Perhaps something it leaves behind makes a request yet.
            self.process.is_exiting = True
            if world.happens(0.3):
                self._try()
        if not self.process.is_exiting:
            world.sleep(max(world.calm_from - world.now, 0.0))
            world.sleep(_CALM + _SET_BACK * self.witness.moved_clocks)
            self._recover()

    def _try(self) -> None:
        try:
            self.request()
        except ReauthRequired:
            if self.world.happens(0.4):
                self._log_in()
        except TokenError:
            pass

    def _recover(self) -> None:
        """When nothing breaks any more, everyone gets a good token, after a login at most."""
        for _ in range(4):
            try:
                if self.request():
                    return
                # Where the store was emptied, another may have written back an older token ...
                if not self.witness.emptied:
                    self.world.fail(f"{self.process} does not recover: it is refused")
                # ... which is not renewed for a while, since it was not known here.
                self.world.sleep(LONGEST_HOLD)
            except ReauthRequired:
                self._log_in()
            except TokenError as error:
                self.world.fail(f"{self.process} does not recover: {error!r}")
            self.world.sleep(2.0)
        self.world.fail(f"{self.process} does not recover: there is no end of it")

    def request(self) -> bool:
        """One request, and whether the API admits it in the end."""
        self.witness.accounts[self.process].requests += 1
        token, is_new = self.keeper.fresh(), False
        if token is None:
            token, is_new = self._obtain(None)
        adoptions = 0
        while not self._is_admitted(token):
            if is_new:
                self.keeper.distrust(token)
                return False
            refused = token
            token, is_new = self._obtain(refused)
            adoptions += not is_new
            if token.is_same(refused) or adoptions > _MOST_ADOPTIONS:
                return False
        self.served += 1
        return True

    def _is_admitted(self, token: Token) -> bool:
        self.hand = token
        self.witness.used(self.process, token)
        self.world.point(f"uses {token.access_token}")
        if not self.authority.admits(token.access_token):
            self.world.note(self.process, "  401")
            return False
        return True

    def _obtain(self, rejected: Token | None) -> tuple[Token, bool]:
        call = self.complaints.begin()
        try:
            outcome = self.keeper.obtain(rejected)
        except TokenError as error:
            call.failed(error, rejected, self.hand)
            raise
        finally:
            call.ended(self.keeper.lock_timeout)
        return outcome.token, outcome.is_new

    def _log_in(self) -> None:
        """Log in again, unless somebody is about to, and tell all processes."""
        authority = self.authority
        if authority.login_by is not None and authority.login_by.alive:
            return
        authority.login_by = self.process
        answer = authority.log_in()
        self.world.note(self.process, "  logs in: {}", answer["access_token"])
        now, lifetime = self.process.machine.wall(), answer.get("expires_in")
        token = Token(
            answer["access_token"],
            refresh_token=answer["refresh_token"],
            issued_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        self.witness.adopted.add(answer["refresh_token"])
        for _ in range(20):
            try:
                self.keeper.adopt(token)
                break
            except TokenError:
                self.world.sleep(1.0)
                self.witness.readopted.add(answer["refresh_token"])
        # Not if Ctrl-C has ended it: then the token is still on its way into the store.
        authority.login_by = None
