"""At most one run at a time: all callers share it, and it ends even if callers leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from interpreters import in_another_interpreter

from tokenadapter.core.runtime import RUNTIME, Runtime
from tokenadapter.core.single_flight import Run, SingleFlight
from tokenadapter.errors import RefreshTemporarilyFailed

PATIENCE = 60.0  # seconds to wait for what should happen at once


class Tower(Runtime):
    """A runtime on which helper threads start, or do not."""

    def __init__(self, start: Callable[[Callable[[], None]], bool]) -> None:
        self._start = start

    def start(self, work: Callable[[], None]) -> bool:
        return self._start(work)


NO_THREADS = Tower(lambda work: False)


class Work:
    """Work that ends when the test allows it."""

    def __init__(self, end: Callable[[Run[Any]], Any]) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.times = 0
        self._end = end

    def __call__(self, run: Run[Any]) -> Any:
        self.times += 1
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        return self._end(run)


def raising(error: BaseException) -> Callable[[Run[Any]], Any]:
    def fail(run: Run[Any]) -> Any:
        raise error

    return fail


def outcome(run: Run[Any]) -> Any:
    """The result or the error of *run*."""
    assert run.wait(PATIENCE)
    try:
        return run.result()
    except Exception as error:  # noqa: BLE001  (whatever it is)
        return error


def all_at_once(work: Work, count: int) -> list[Any]:
    """The outcomes of *count* threads that join one run at the same time."""
    flight: SingleFlight[Any] = SingleFlight(RUNTIME)
    barrier = threading.Barrier(count)
    outcomes: list[Any] = []

    def come() -> None:
        barrier.wait(PATIENCE)
        run = flight.join(work)
        if barrier.wait(PATIENCE) == 0:  # all have arrived
            work.may_end.set()
        outcomes.append(outcome(run))

    threads = [threading.Thread(target=come) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert flight.under_way() is None
    return outcomes


def test_all_callers_share_one_run_and_its_result() -> None:
    token = object()
    work = Work(lambda run: token)
    assert all_at_once(work, 32) == [token] * 32
    assert work.times == 1


def test_each_caller_gets_a_copy_of_the_runs_error() -> None:
    error = RefreshTemporarilyFailed("Try again later.", retry_at=5.0)
    error.__cause__ = cause = ValueError()
    outcomes = all_at_once(Work(raising(error)), 8)
    assert len({id(copy) for copy in [error, *outcomes]}) == 9
    for copy in outcomes:
        assert (type(copy), str(copy), copy.retry_at) == (type(error), "Try again later.", 5.0)
        assert copy.__cause__ is cause


def test_an_error_that_cannot_be_copied_is_shared_as_it_is() -> None:
    error = ZeroDivisionError()
    assert all_at_once(Work(raising(error)), 2) == [error, error]


def test_a_caller_that_stops_waiting_does_not_end_the_run() -> None:
    work = Work(lambda run: "token")
    run = SingleFlight[Any](RUNTIME).join(work)
    assert not run.wait(0.0)
    assert not run.wait(-1.0)
    work.may_end.set()
    assert outcome(run) == "token"


def test_a_new_run_is_possible_before_callers_are_released() -> None:
    free: list[bool] = []

    class Watched(threading.Event):
        def set(self) -> None:
            free.append(flight.under_way() is None)
            super().set()

    runtime = Runtime()
    runtime.event = Watched  # type: ignore[method-assign]
    flight: SingleFlight[Any] = SingleFlight(runtime)
    assert outcome(flight.join(lambda run: "first")) == "first"
    assert isinstance(outcome(flight.join(raising(OSError()))), OSError)
    assert set(free) == {True}
    assert outcome(flight.join(lambda run: "third")) == "third"


@pytest.mark.parametrize("end", [lambda run: "later", raising(OSError())])
def test_a_run_that_settles_early_continues_and_its_end_changes_no_result(
    end: Callable[[Run[Any]], Any],
) -> None:
    ended = threading.Event()
    work = Work(end)

    def settle_early(run: Run[Any]) -> Any:
        run.settle("early")
        run.settle("again")
        try:
            return work(run)
        finally:
            ended.set()

    flight: SingleFlight[Any] = SingleFlight(RUNTIME)
    run = flight.join(settle_early)
    assert outcome(run) == "early"
    assert flight.join(settle_early) is run
    assert flight.under_way() is run
    work.may_end.set()
    assert ended.wait(PATIENCE)
    assert outcome(run) == "early"


@pytest.mark.parametrize("runtime", [RUNTIME, NO_THREADS])
def test_the_thread_that_does_the_work_must_not_wait_for_it(runtime: Runtime) -> None:
    flight: SingleFlight[Any] = SingleFlight(runtime)

    def come_back(run: Run[Any]) -> Any:
        again = flight.join(raising(AssertionError()))
        return again is run, again.is_mine(), again.is_settled()

    run = flight.join(come_back)
    assert outcome(run) == (True, True, False)
    assert run.is_settled()


def test_a_signal_handler_in_the_starting_thread_must_not_wait_for_the_run() -> None:
    mine: list[bool] = []
    work = Work(lambda run: None)

    def start(task: Callable[[], None]) -> bool:
        mine.append(flight.join(work).is_mine())
        return RUNTIME.start(task)

    flight: SingleFlight[Any] = SingleFlight(Tower(start))
    run = flight.join(work)
    assert mine == [True]
    assert not run.is_mine()
    work.may_end.set()
    assert run.wait(PATIENCE)
    assert work.times == 1


def test_all_other_threads_may_wait() -> None:
    work = Work(lambda run: None)
    run = SingleFlight[Any](RUNTIME).join(work)
    assert work.begun.wait(PATIENCE)
    assert not run.is_mine()
    work.may_end.set()


def test_if_no_thread_can_start_the_caller_does_the_work() -> None:
    run = SingleFlight[Any](NO_THREADS).join(lambda run: threading.current_thread())
    assert run.wait(0)
    assert run.result() is threading.current_thread()


def test_an_error_of_work_in_the_caller_is_the_error_of_the_run() -> None:
    flight: SingleFlight[Any] = SingleFlight(NO_THREADS)
    run = flight.join(raising(OSError()))
    assert flight.under_way() is None
    with pytest.raises(OSError):  # noqa: PT011
        run.result()


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals come to the main one"
)
def test_ctrl_c_is_deferred_until_work_in_the_caller_is_done() -> None:
    flight: SingleFlight[Any] = SingleFlight(NO_THREADS)
    handler, done = signal.getsignal(signal.SIGINT), []

    def work(run: Run[Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(run)

    with pytest.raises(KeyboardInterrupt):
        flight.join(work)
    assert len(done) == 1
    assert done[0].is_settled()
    assert flight.under_way() is None
    assert signal.getsignal(signal.SIGINT) is handler
    # Without one, nothing is raised.
    assert flight.join(lambda run: "token").result() == "token"
    assert signal.getsignal(signal.SIGINT) is handler


def test_no_caller_waits_for_a_run_that_never_began() -> None:
    joined: list[Run[Any]] = []

    def interrupted(task: Callable[[], None]) -> bool:
        joined.append(flight.join(lambda run: None))
        raise KeyboardInterrupt

    flight: SingleFlight[Any] = SingleFlight(Tower(interrupted))
    with pytest.raises(KeyboardInterrupt):
        flight.join(lambda run: None)
    assert flight.under_way() is None
    assert outcome(joined[0]) is None


def test_a_run_continues_after_its_starter_was_interrupted() -> None:
    work = Work(lambda run: "token")

    def interrupted(task: Callable[[], None]) -> bool:
        assert RUNTIME.start(task)
        assert work.begun.wait(PATIENCE)
        raise KeyboardInterrupt

    flight: SingleFlight[Any] = SingleFlight(Tower(interrupted))
    with pytest.raises(KeyboardInterrupt):
        flight.join(work)
    run = flight.join(raising(AssertionError()))
    assert not run.is_mine()
    work.may_end.set()
    assert outcome(run) == "token"


def test_a_helper_that_begins_late_does_not_affect_a_later_run() -> None:
    may_begin, ended = threading.Event(), threading.Event()
    joined: list[Run[Any]] = []

    def interrupted(task: Callable[[], None]) -> bool:
        def begin_late() -> None:
            assert may_begin.wait(PATIENCE)
            task()
            ended.set()

        assert RUNTIME.start(begin_late)
        joined.append(flight.join(raising(AssertionError())))
        raise KeyboardInterrupt

    tower = Tower(interrupted)
    flight: SingleFlight[Any] = SingleFlight(tower)
    late, next_one = Work(lambda run: "late"), Work(lambda run: "next")
    with pytest.raises(KeyboardInterrupt):
        flight.join(late)
    assert outcome(joined[0]) is None
    tower.start = RUNTIME.start  # type: ignore[method-assign]
    run = flight.join(next_one)
    late.may_end.set()
    may_begin.set()
    assert ended.wait(PATIENCE)
    assert flight.under_way() is run
    assert not run.is_settled()
    assert outcome(joined[0]) is None
    next_one.may_end.set()
    assert outcome(run) == "next"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_an_exception_that_ends_the_helper_does_not_end_the_callers(error: BaseException) -> None:
    flight: SingleFlight[Any] = SingleFlight(RUNTIME)
    ended = outcome(flight.join(raising(error)))
    assert isinstance(ended, RefreshTemporarilyFailed)
    assert type(error).__name__ in str(ended)
    assert flight.under_way() is None


def test_system_exit_ends_the_thread_that_does_the_work() -> None:
    flight: SingleFlight[Any] = SingleFlight(NO_THREADS)
    joined: list[Run[Any]] = []

    def end(run: Run[Any]) -> Any:
        joined.append(run)
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        flight.join(end)
    assert isinstance(outcome(joined[0]), RefreshTemporarilyFailed)
    assert flight.under_way() is None


def test_a_separate_run_does_not_affect_the_run_in_progress() -> None:
    flight: SingleFlight[Any] = SingleFlight(RUNTIME)
    work = Work(lambda run: "under way")
    run = flight.join(work)
    assert outcome(flight.aside(lambda run: "aside")) == "aside"
    assert isinstance(outcome(flight.aside(raising(OSError()))), OSError)
    assert flight.under_way() is run
    work.may_end.set()
    assert outcome(run) == "under way"


def test_the_helper_of_a_separate_run_must_not_wait_for_it() -> None:
    flight: SingleFlight[Any] = SingleFlight(RUNTIME)
    run = flight.aside(lambda run: (run.is_mine(), flight.under_way(), threading.get_ident()))
    is_mine, under_way, thread = outcome(run)
    assert (is_mine, under_way) == (True, None)
    assert thread != threading.get_ident()
    assert not run.is_mine()


def test_a_signal_handler_in_the_starting_thread_does_not_find_a_separate_run() -> None:
    met: list[Run[Any] | None] = []

    def start(task: Callable[[], None]) -> bool:
        met.append(flight.under_way())
        return RUNTIME.start(task)

    flight: SingleFlight[Any] = SingleFlight(Tower(start))
    assert outcome(flight.aside(lambda run: "aside")) == "aside"
    assert met == [None]


def test_a_forked_child_starts_its_own_run() -> None:
    flight: SingleFlight[Any] = SingleFlight(RUNTIME)
    old, new = Work(lambda run: "old"), Work(lambda run: "new")
    left = flight.join(old)
    flight.reset()
    assert flight.under_way() is None
    run = flight.join(new)
    assert run is not left
    old.may_end.set()
    assert outcome(left) == "old"
    assert flight.under_way() is run
    new.may_end.set()
    assert outcome(run) == "new"


# --- Ctrl-C, and the end of the interpreter --------------------------------------------------

PREAMBLE = """
import atexit, os, signal, sys, threading
from tokenadapter.core.single_flight import SingleFlight
from tokenadapter.core.runtime import RUNTIME

class NoThreads(type(RUNTIME)):
    def start(self, work):
        return False

def say(*words):
    print(*words, flush=True)
"""


def lines_of(program: str) -> tuple[int, list[str]]:
    """The exit code of *program* and the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr or "KeyboardInterrupt" in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_run_outlives_an_interrupted_main_thread() -> None:
    code, lines = lines_of("""
        waiting = threading.Event()

        def work(run):
            waiting.wait()
            os.kill(os.getpid(), signal.SIGINT)
            threading.main_thread().join(30)
            say("saved" if RUNTIME.exiting() else "too early")

        run = SingleFlight(RUNTIME).join(work)
        try:
            waiting.set()
            run.wait(30)
        except KeyboardInterrupt:
            say("interrupted")
            raise
    """)
    assert lines == ["interrupted", "saved"]
    assert code in (-signal.SIGINT, 1)


def test_ctrl_c_is_deferred_while_the_main_thread_does_the_work() -> None:
    code, lines = lines_of("""
        def work(run):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            say("saved")

        flight = SingleFlight(NoThreads())
        for fly in (flight.join, flight.aside):
            try:
                fly(work)
            except KeyboardInterrupt:
                say("interrupted", flight.under_way())
            say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """)
    assert lines == ["saved", "interrupted None", "True"] * 2
    assert code == 0


def test_work_in_another_thread_does_not_change_signal_handlers() -> None:
    runs: list[Run[Any]] = []

    def come() -> None:
        runs.append(SingleFlight[Any](NO_THREADS).join(lambda run: signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=come)
    thread.start()
    thread.join(PATIENCE)
    assert outcome(runs[0]) is signal.getsignal(signal.SIGINT)


def test_in_a_subinterpreter_a_caller_renews_in_its_own_thread() -> None:
    lines = in_another_interpreter("""
        from tokenadapter.core.keeper import TokenKeeper
        from tokenadapter.stores.memory import MemoryStore

        keeper = TokenKeeper(lambda previous: "access", MemoryStore(), inline=True)
        print(keeper.current().access_token)
    """)
    assert lines == ["access"]


def test_an_exit_handler_gets_its_token_and_ctrl_c_does_not_lose_it() -> None:
    code, lines = lines_of("""
        def work(run):
            signal.raise_signal(signal.SIGINT)
            say("saved", threading.current_thread().name)
            return "token"

        def late():
            flight = SingleFlight(RUNTIME)
            try:
                flight.join(work)
            except KeyboardInterrupt:
                say("interrupted")
            run = flight.join(lambda run: "token")
            say(run.is_settled(), run.result())

        atexit.register(late)
    """)
    # In the main thread, because the interpreter would not wait for another one.
    assert lines == ["saved MainThread", "interrupted", "True token"]
    assert code == 0
