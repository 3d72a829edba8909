"""The threads that use the token, as the adapter does."""

from __future__ import annotations

from simulation.authority import Authority
from simulation.complaints import LONGEST_HOLD, Complaints
from simulation.grants import STALE
from simulation.ledger import Wish
from simulation.plan import HANDS_IN, Plan
from simulation.process import Process
from simulation.witness import Witness
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.errors import ReauthRequired, TokenError
from tokenadapter.token import Token

# Seconds from the end of all faults to the last request: by then no hold and no distrust binds ...
_CALM = LONGEST_HOLD + 30.0
# ... if no clock was set back: a hold that is void since it seems to come from the future binds
# once that future has come.
_SET_BACK = 30.0
# How likely it is that a user does something else than a request.
_ACTS = 0.2
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
        self.account = witness.accounts[process]
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
            if self.plan.acts and self.world.happens(_ACTS):
                self._act(self.world.choices.one_of(self.plan.acts))
            else:
                self.request()
        except ReauthRequired:
            if self.world.happens(0.4):
                self._log_in()
        except TokenError:
            pass

    def _recover(self) -> None:
        """When nothing breaks any more, everyone gets a good token, after a login at most."""
        for _ in range(4):
            if self._is_misconfigured():
                return
            try:
                if self.request():
                    return
                # Where the store was emptied, another may have written back an older token ...
                if not (self.witness.emptied or self.witness.copied):
                    self.world.fail(f"{self.process} does not recover: it is refused")
                # ... which is not renewed for a while, since it was not known here.
                self.world.sleep(LONGEST_HOLD)
            except ReauthRequired:
                self._log_in()
            except TokenError as error:
                self.world.fail(f"{self.process} does not recover: {error!r}")
            self.world.sleep(2.0)
        self.world.fail(f"{self.process} does not recover: there is no end of it")

    def _is_misconfigured(self) -> bool:
        """Whether no token can be had here by whatever means."""
        if self.account.client == STALE:
            return True
        # Others ask for something else, and their token lives.
        return self.plan.requested > 1

    def _act(self, act: str) -> None:
        """Do something else than a mere request."""
        world, account = self.world, self.account
        world.note(self.process, "{}", act)
        if act == "min validity":
            lifetime = self.plan.lifetime or 10.0
            self.request(world.choices.one_of((lifetime / 2, lifetime * 2)))
            return
        if act == HANDS_IN:
            self._hand_in()
            return
        wish, call = Wish(world.running, world.now), self.complaints.begin()
        if act == "refresh":
            account.wishes.append(wish)
            account.requests += 1
        else:
            self._drop()
        try:
            if act == "refresh":
                self.keeper.refresh()
            else:
                self.keeper.forget()
                self.witness.forgets(self.process)
        except TokenError as error:
            call.failed(error)
            raise
        finally:
            wish.ended = world.now
            call.ended(2 * self.keeper.lock_timeout)
            if act == "forget":
                self._drop()

    def _hand_in(self) -> None:
        """Log in elsewhere, and hand in the refresh token alone."""
        secret = self.authority.log_in()["refresh_token"]
        self.world.note(self.process, "  hands in {}", secret)
        self.witness.handed_in_alone.add(secret)
        self.account.requests += 1
        call = self.complaints.begin()
        try:
            token = self.keeper.adopt({"refresh_token": secret})
        except TokenError as error:
            call.failed(error)
            raise
        finally:
            call.ended(2 * self.keeper.lock_timeout)
        # Another thread may have given it up as soon as it was saved.
        is_given_up = self.account.dropped_at >= call.began
        self._drop()
        if not is_given_up:
            self.account.held = token

    def _drop(self) -> None:
        """What this process has in hand it has no more."""
        self.account.dropped_at = self.world.now
        self.account.held = None

    def request(self, min_validity: float = 0.0) -> bool:
        """One request, and whether the API admits it in the end."""
        self.account.requests += 1
        token, is_new = self.keeper.fresh() if not min_validity else None, False
        if token is None:
            token, is_new = self._obtain(None, min_validity)
        adoptions = 0
        while not self._is_admitted(token):
            if is_new:
                self._distrust(token)
                return False
            refused = token
            token, is_new = self._obtain(refused)
            adoptions += not is_new
            if token.is_same(refused) or adoptions > _MOST_ADOPTIONS:
                return False
        self.served += 1
        return True

    def _distrust(self, token: Token) -> None:
        began = self.world.now
        if self.keeper.distrust(token) is None:
            self.witness.is_distrusted(self.process, token, began)

    def _is_admitted(self, token: Token) -> bool:
        self.witness.used(self.process, token)
        self.world.point(f"uses {token.access_token}")
        if not self.authority.admits(token.access_token):
            self.world.note(self.process, "  401")
            return False
        return True

    def _obtain(self, rejected: Token | None, min_validity: float = 0.0) -> tuple[Token, bool]:
        call = self.complaints.begin()
        wish = Wish(self.world.running, call.began, min_validity)
        if min_validity:
            self.account.wishes.append(wish)
        try:
            outcome = self.keeper.obtain(rejected, min_validity=min_validity)
        except TokenError as error:
            call.failed(error)
            if not min_validity:
                call.went_without(rejected, error)
            raise
        finally:
            wish.ended = self.world.now
            call.ended(self.keeper.lock_timeout)
        if rejected is None and not min_validity:
            call.was_needed()
        if self.account.dropped_at < call.began:
            self.account.held = outcome.token
        return outcome.token, outcome.is_new

    def _log_in(self) -> None:
        """Log in again, unless somebody is about to, and tell all processes."""
        authority = self.authority
        if authority.login_by is not None and authority.login_by.alive:
            return
        authority.login_by = self.process
        answer = authority.log_in()
        self.world.note(self.process, "  logs in: {}", answer["access_token"])
        now, lifetime = self.process.runtime.wall(), answer.get("expires_in")
        token = Token(
            answer["access_token"],
            refresh_token=answer["refresh_token"],
            issued_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        self.witness.adopted.add(answer["refresh_token"])
        self.witness.handed_in.add(answer["access_token"])
        for _ in range(20):
            try:
                self.keeper.adopt(token)
                break
            except TokenError:
                self.world.sleep(1.0)
                self.witness.readopted.add(answer["refresh_token"])
        # Not if Ctrl-C has ended it: then the token is still on its way into the store.
        authority.login_by = None
