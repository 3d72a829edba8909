"""The threads that use the token, as the adapter does."""

from __future__ import annotations

from simulation.authority import Authority
from simulation.complaints import LONGEST_BACKOFF, Complaints
from simulation.faults import stop
from simulation.grants import STALE
from simulation.ledger import Demand
from simulation.plan import ADOPTS_REFRESH, Plan
from simulation.process import Process
from simulation.witness import Witness
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.errors import ReauthRequired, TokenError
from tokenadapter.token import Token

# Seconds from the end of all faults to the last request, by when every backoff and distrust is
# over.
_CALM = LONGEST_BACKOFF + 30.0
# Additional seconds if a clock was set back: a backoff that seems to lie in the future is void at
# first, and applies when that time has come.
_SET_BACK = 30.0
# The probability that a user takes another action than a request.
_ACTS = 0.2
# The longest time in seconds from a request to the end of its process.
_WORKS = 1.0
# The longest time in seconds for which a process is frozen after a request.
_FROZEN = 20.0
# As in the adapter.
_MOST_ADOPTIONS = 3


class User:
    """One thread of a process that sends requests.

    :ivar served: the number of requests that the API admitted.
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
        """Send requests while there are faults, and one request after that."""
        world = self.world
        try:
            while world.now < world.calm_from and not self.process.is_exiting:
                self._try()
                self._perhaps_leave()
                world.sleep(world.choices.between(0.0, self.plan.pause))
        except KeyboardInterrupt:
            # The main thread ends.  An exit handler may send one more request.
            self.process.is_exiting = True
            if world.happens(0.3):
                self._try()
        if not self.process.is_exiting:
            world.sleep(max(world.calm_from - world.now, 0.0))
            world.sleep(_CALM + _SET_BACK * self.witness.moved_clocks)
            self._recover()

    def _perhaps_leave(self) -> None:
        """End or freeze the process right after a request, as a child of a forking server is ended,
        and a function in the cloud is frozen."""
        process, world = self.process, self.world
        if not process.ends_abruptly or process.requesting or not world.happens(self.plan.exits):
            return
        # The job, or the answer to another program, takes a moment after the request.
        world.sleep(world.choices.between(0.0, _WORKS))
        if process.requesting:
            return
        self.witness.leaves(process)
        if world.choices.chance(0.5):
            world.log(process, "leaves by os._exit()")
            process.exit_hard()
        else:
            seconds = min(world.choices.between(0.0, _FROZEN), world.calm_from - world.now)
            stop(self.witness, process, seconds)
            world.sleep(seconds)

    def _try(self) -> None:
        self.process.requesting += 1
        try:
            self._try_once()
        finally:
            self.process.requesting -= 1

    def _try_once(self) -> None:
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
        """Check that without faults every user gets a valid token, at most after a login."""
        for _ in range(4):
            if self._is_misconfigured():
                return
            try:
                if self.request():
                    return
                # If the store was emptied, a process may have written back an older token, ...
                if not (self.witness.emptied or self.witness.copied):
                    self.world.fail(f"{self.process} does not recover: its token is refused")
                # ... which is distrusted, and not renewed for a while.
                self.world.sleep(LONGEST_BACKOFF)
            except ReauthRequired:
                self._log_in()
            except TokenError as error:
                self.world.fail(f"{self.process} does not recover: {error!r}")
            self.world.sleep(2.0)
        self.world.fail(f"{self.process} does not recover: its requests keep failing")

    def _is_misconfigured(self) -> bool:
        """Whether this process cannot get a token by any means."""
        if self.account.client == STALE:
            return True
        # Other processes have another request, and their token is valid.
        return self.plan.requested > 1

    def _act(self, act: str) -> None:
        """Take the action *act*."""
        world, account = self.world, self.account
        world.log(self.process, "{}", act)
        if act == "min validity":
            lifetime = self.plan.lifetime or 10.0
            self.request(world.choices.one_of((lifetime / 2, lifetime * 2)))
            return
        if act == ADOPTS_REFRESH:
            self._adopt_refresh_token()
            return
        demand, call = Demand(world.running, world.now), self.complaints.begin()
        if act == "refresh":
            account.demands.append(demand)
            account.requests += 1
        else:
            self._drop()
        try:
            if act == "refresh":
                token = self.keeper.refresh()
                if self.account.dropped_at < call.began:
                    self.account.held = token  # also one from elsewhere, with less time left
            else:
                self.keeper.forget()
                self.witness.forgets(self.process)
        except TokenError as error:
            call.failed(error)
            raise
        finally:
            demand.ended = world.now
            call.ended(2 * self.keeper.lock_timeout)
            if act == "forget":
                self._drop()

    def _adopt_refresh_token(self) -> None:
        """Log in on another machine, and adopt the refresh token without its access token."""
        secret = self.authority.log_in()["refresh_token"]
        self.world.log(self.process, "  adopts {}", secret)
        self.witness.adopted_alone.add(secret)
        self.account.requests += 1
        call = self.complaints.begin()
        try:
            token = self.keeper.adopt({"refresh_token": secret})
        except TokenError as error:
            call.failed(error)
            raise
        finally:
            call.ended(2 * self.keeper.lock_timeout)
        # Another thread may have forgotten the token as soon as it was saved.
        is_forgotten = self.account.dropped_at >= call.began
        self._drop()
        if not is_forgotten:
            self.account.held = token

    def _drop(self) -> None:
        """Drop the held token of this process."""
        self.account.dropped_at = self.world.now
        self.account.held = None

    def request(self, min_validity: float = 0.0) -> bool:
        """Send one request.

        :returns: whether the API admits it in the end.
        """
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
            self.world.log(self.process, "  401")
            return False
        return True

    def _obtain(self, rejected: Token | None, min_validity: float = 0.0) -> tuple[Token, bool]:
        call = self.complaints.begin()
        demand = Demand(self.world.running, call.began, min_validity)
        if min_validity:
            self.account.demands.append(demand)
        try:
            outcome = self.keeper.obtain(rejected, min_validity=min_validity)
        except TokenError as error:
            call.failed(error)
            if not min_validity:
                call.got_no_token(rejected, error)
            raise
        finally:
            demand.ended = self.world.now
            call.ended(self.keeper.lock_timeout)
        if rejected is None and not min_validity:
            call.waited_for_token()
        if self.account.dropped_at < call.began:
            self.account.held = outcome.token
        return outcome.token, outcome.is_new

    def _log_in(self) -> None:
        """Log in again, unless another user is doing so, and adopt the token."""
        authority = self.authority
        if authority.login_by is not None and authority.login_by.alive:
            return
        authority.login_by = self.process
        answer = authority.log_in()
        self.world.log(self.process, "  logs in: {}", answer["access_token"])
        now, lifetime = self.process.runtime.wall(), answer.get("expires_in")
        token = Token(
            answer["access_token"],
            refresh_token=answer["refresh_token"],
            issued_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        self.witness.adopted.add(answer["refresh_token"])
        self.witness.adopted_access.add(answer["access_token"])
        for _ in range(20):
            try:
                self._hold_login(self.keeper.adopt(token))
                break
            except TokenError:
                self.world.sleep(1.0)
                self.witness.readopted.add(answer["refresh_token"])
        # Not after Ctrl-C: then the token is still on its way into the store.
        authority.login_by = None

    def _hold_login(self, adopted: Token) -> None:
        """The token of a login replaces the held one, which the process can no longer use, even if
        the API refuses the new one later."""
        held = self.account.held
        if held is None:
            return  # nothing to replace, or another thread has forgotten the new token already
        ages = [self.authority.age({"access_token": t.access_token}) for t in (held, adopted)]
        if ages[0] < ages[1]:  # else another thread has renewed since the login was saved
            self.account.held = adopted
