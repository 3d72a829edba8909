"""An orderly exit of a process waits for presentations of refresh tokens, and for nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from doubles import Authority, Clockwork, Shelf

from tokenadapter import FileStore, RefreshTemporarilyFailed, RefreshToken, TokenKeeper
from tokenadapter.core import shutdown
from tokenadapter.core.runtime import RUNTIME
from tokenadapter.testing import TokenServer
from tokenadapter.testing.script import Hold

PATIENCE = 60  # seconds to wait for what should happen at once

PROGRAM = """
import atexit, faulthandler, os, signal, sys, threading, time
from tokenadapter import FileStore, RefreshToken, TokenKeeper
from tokenadapter.core import shutdown

token_url, *paths = sys.argv[1:]

def new_keeper(path=paths[0], timeout=10, **settings):
    source = RefreshToken(token_url, client_id="client", client_secret="secret", timeout=timeout)
    return TokenKeeper(source, FileStore(path), **settings)

def tell(word):
    print(word, flush=True)

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread

def tell_when_ending():
    def watch():
        while not shutdown.is_ending():
            time.sleep(0.001)
        tell("ending")
    threading.Thread(target=watch, daemon=True).start()

def tell_when_over():
    def watch():
        threading.main_thread().join()
        tell("over")
    threading.Thread(target=watch, daemon=True).start()

def tell_actions():
    for number in (signal.SIGTERM, signal.SIGHUP):
        tell("default" if signal.getsignal(number) == signal.SIG_DFL else "another")
"""


class Stage:
    """A server, and a file with a token that has expired."""

    def __init__(self, server: TokenServer, path: Path) -> None:
        self.server = server
        self.path = path
        self.adopt(path, left=-1.0)

    def keeper(self, path: Path | None = None) -> TokenKeeper:
        source = RefreshToken(self.server.token_url, client_id="client", client_secret="secret")
        return TokenKeeper(source, FileStore(path or self.path))

    def adopt(self, path: Path, *, left: float) -> None:
        """Start with a token that is valid for so many more seconds."""
        now = time.time()
        answer = {**self.server.issue(), "issued_at": now - 3000, "expires_at": now + left}
        self.keeper(path).adopt(answer)

    def start(self, text: str, *more: Path, prefix: tuple[str, ...] = ()) -> Program:
        code = PROGRAM + textwrap.dedent(text)
        paths = [str(path) for path in (self.path, *more)]
        command = [*prefix, sys.executable, "-c", code, self.server.token_url, *paths]
        return Program(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def renewing(self, text: str, *more: Path, count: int = 1) -> Iterator[tuple[Program, Hold]]:
        """A program in mid-renewal: the server has spent the refresh token, and waits until it is
        released to say so."""
        with self.server.hold(processed=True) as hold, self.start(text, *more) as program:
            self.server.wait_for(lambda stats: stats.refreshes == count, PATIENCE)
            yield program, hold

    def assert_kept(self, *paths: Path) -> None:
        """No login is needed."""
        for path in paths or [self.path]:
            self.keeper(path).refresh()
        assert self.server.stats.reuse_detections == 0


class Program(subprocess.Popen[str]):
    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)

    def said(self) -> str:
        assert self.stdout is not None
        return self.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.stdin is not None
        self.stdin.write("\n")
        self.stdin.flush()

    def ended(self) -> int:
        return self.wait(PATIENCE)


@pytest.fixture
def stage(server: TokenServer, tmp_path: Path) -> Stage:
    return Stage(server, tmp_path / "token.json")


# --- signals whose action is the default -------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "text",
    [
        "new_keeper().current()",
        "keeper = new_keeper(); in_thread(keeper.current).join()",
        "keeper = new_keeper(inline=True); keeper.current()",
        "keeper = new_keeper(inline=True); in_thread(keeper.current).join()",
    ],
    ids=["main thread", "another thread", "inline", "inline in another thread"],
)
def test_a_signal_ends_the_process_when_the_token_is_saved(stage, text, name):
    number = getattr(signal, name)
    with stage.renewing(text + "\ntell('not reached')") as (program, hold):
        program.send_signal(number)
        hold.release()
        assert program.ended() == -number
        assert program.said() == ""
    stage.assert_kept()


def test_a_signal_during_interpreter_exit_waits_for_the_save(stage):
    stage.adopt(stage.path, left=100.0)
    with stage.renewing("new_keeper().current()\natexit.register(tell, 'exits')") as (
        program,
        hold,
    ):
        program.send_signal(signal.SIGTERM)
        hold.release()
        assert program.ended() == -signal.SIGTERM
    stage.assert_kept()


def test_a_second_signal_changes_nothing(stage):
    text = "tell_when_ending(); new_keeper().current()"
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGTERM)
        assert program.said() == "ending"
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            program.send_signal(number)
        hold.release()
        assert program.ended() == -signal.SIGTERM
    stage.assert_kept()


def test_exceptions_of_other_handlers_do_not_end_the_wait(stage):
    text = """
    def fail(number, frame):
        raise TimeoutError

    signal.signal(signal.SIGALRM, fail)
    tell_when_ending()
    new_keeper().current()
    """
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGTERM)
        assert program.said() == "ending"
        program.send_signal(signal.SIGALRM)
        program.send_signal(signal.SIGINT)
        hold.release()
        assert program.ended() == -signal.SIGTERM
    stage.assert_kept()


def test_a_signal_waits_for_all_presentations_in_progress(stage, tmp_path):
    second = tmp_path / "second.json"
    stage.adopt(second, left=-1.0)
    text = """
    keepers = [new_keeper(path) for path in paths]
    for keeper in keepers:
        in_thread(keeper.current)
    threading.Event().wait()
    """
    with stage.renewing(text, second, count=2) as (program, hold):
        program.send_signal(signal.SIGTERM)
        hold.release()
        assert program.ended() == -signal.SIGTERM
    stage.assert_kept(stage.path, second)


def test_a_signal_does_not_wait_for_a_renewal_that_has_not_presented_anything(stage):
    lock = FileStore(stage.path).lock()
    assert lock.acquire(60)
    try:
        text = "in_thread(new_keeper().current)\ntell('begun')\nthreading.Event().wait()"
        with stage.start(text) as program:
            assert program.said() == "begun"
            program.send_signal(signal.SIGTERM)
            assert program.ended() == -signal.SIGTERM
    finally:
        lock.release()
    assert stage.server.stats.token_requests == 0


def test_a_signal_waits_no_longer_than_source_deadline_and_save(stage):
    # The save needs the lock of the interrupted thread.
    text = """
    from tokenadapter.stores.memory import _GUARD, MemoryStore

    shutdown._SAVES_WITHIN = 0.1
    keeper = new_keeper(timeout=0.5)
    keeper = TokenKeeper(keeper.source, MemoryStore())
    keeper.adopt({"access_token": "x", "refresh_token": sys.stdin.readline().strip(),
                  "issued_at": 1, "expires_at": 2})
    in_thread(keeper.current)
    sys.stdin.readline()
    with _GUARD:
        tell("has the guard")
        threading.Event().wait()
    """
    with stage.server.hold(processed=True) as hold, stage.start(text) as program:
        program.stdin.write(stage.server.issue()["refresh_token"])
        program.go_on()
        assert hold.arrived.wait(PATIENCE)
        program.go_on()
        assert program.said() == "has the guard"
        hold.release()
        program.send_signal(signal.SIGTERM)
        assert program.ended() == -signal.SIGTERM


def test_a_lock_of_the_interrupted_thread_does_not_delay_the_save_for_long(stage):
    # The renewal logs too: its request, at the level DEBUG.
    text = """
    import logging

    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    handler = logging.getLogger().handlers[0]
    shutdown._SAVES_WITHIN = 90.0
    keeper = new_keeper(timeout=90)
    keeper.adopt({"access_token": "x", "refresh_token": sys.stdin.readline().strip(),
                  "issued_at": 1, "expires_at": 2})
    handler.setLevel(logging.DEBUG)
    in_thread(keeper.current)
    sys.stdin.readline()
    with handler.lock:
        tell("has the lock")
        while not shutdown.is_ending():
            time.sleep(0.001)
    threading.Event().wait()
    """
    with stage.server.hold(processed=True) as hold, stage.start(text) as program:
        program.stdin.write(stage.server.issue()["refresh_token"])
        program.go_on()
        assert hold.arrived.wait(PATIENCE)
        program.go_on()
        while program.said() != "has the lock":
            pass
        program.send_signal(signal.SIGTERM)
        hold.release()
        assert program.ended() == -signal.SIGTERM
    stage.assert_kept()


def test_process_1_of_a_container_survives_the_signal_as_usual(stage):
    alone = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no process of a namespace of its own here")
    text = """
    assert os.getpid() == 1
    keeper = new_keeper()
    keeper.current()
    sys.stdin.readline()
    tell(keeper.refresh().access_token and "renewed")
    """
    with stage.server.hold(processed=True) as hold, stage.start(text, prefix=alone) as program:
        assert hold.arrived.wait(PATIENCE)
        [child] = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        subprocess.run(["kill", "-TERM", child], check=True)
        hold.release()
        program.go_on()
        assert program.said() == "renewed"
        assert program.ended() == 0
    stage.assert_kept()


# --- when there is a handler, and when there is none -------------------------------------


def test_handlers_are_installed_only_while_a_refresh_token_is_presented(stage):
    text = """
    keeper = new_keeper()
    tell_actions()
    thread = in_thread(keeper.current)
    sys.stdin.readline()
    tell_actions()
    thread.join()
    tell_actions()
    """
    with stage.renewing(text) as (program, hold):
        program.go_on()
        assert [program.said() for _ in range(4)] == ["default"] * 2 + ["another"] * 2
        hold.release()
        assert [program.said() for _ in range(2)] == ["default"] * 2


def test_a_forked_child_has_the_default_action(stage):
    text = """
    thread = in_thread(new_keeper().current)
    sys.stdin.readline()
    tell_actions()
    child = os.fork()
    if child == 0:
        tell_actions()
        os._exit(shutdown.is_ending())
    tell(os.waitpid(child, 0)[1])
    tell_actions()
    """
    with stage.renewing(text) as (program, hold):
        program.go_on()
        said = [program.said() for _ in range(7)]
        assert said == ["another"] * 2 + ["default"] * 2 + ["0"] + ["another"] * 2
        hold.release()


def test_a_child_forked_while_the_parent_waits_has_the_default_action(stage):
    text = """
    def work():
        while not shutdown.is_ending():
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        tell(os.waitpid(child, 0)[1])

    threading.Thread(target=work, daemon=True).start()
    new_keeper().current()
    """
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGTERM)
        assert program.said() == str(int(signal.SIGTERM))
        hold.release()
        assert program.ended() == -signal.SIGTERM


def test_the_programs_own_handlers_are_left_alone(stage):
    text = """
    signal.signal(signal.SIGTERM, lambda number, frame: tell("mine"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    in_thread(new_keeper().current).join()
    """
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGHUP)
        program.send_signal(signal.SIGTERM)
        assert program.said() == "mine"
        hold.release()
        assert program.ended() == 0


def test_handlers_that_are_not_python_functions_are_left_alone(stage):
    text = """
    faulthandler.register(signal.SIGTERM, file=sys.stdout)
    in_thread(new_keeper().current).join()
    """
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGTERM)
        assert "most recent call first" in program.said()
        hold.release()
        assert program.ended() == 0


@pytest.mark.parametrize("wait", ["signal.pause()", "signal.sigwait(everything)"])
def test_a_main_thread_that_waits_for_signals_gets_no_sigurg(stage, wait):
    text = f"""
    everything = signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP}}
    if "sigwait" in {wait!r}:
        signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    else:
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
    keeper = new_keeper()

    def work():
        keeper.current()
        tell("renewed")
        os.kill(os.getpid(), signal.SIGUSR1)

    in_thread(work)
    {wait}
    tell("woken")
    """
    with stage.start(text) as program:
        assert [program.said(), program.said()] == ["renewed", "woken"]


def test_a_handler_of_the_program_waits_until_the_main_thread_has_saved(stage):
    text = """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    new_keeper(inline=True).current()
    """
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGTERM)
        hold.release()
        assert program.ended() == 7
    stage.assert_kept()


@pytest.mark.parametrize("left", [400.0, 30.0, -1.0], ids=["stale", "about to expire", "expired"])
def test_an_exception_of_a_handler_reaches_the_caller_that_renews_in_the_main_thread(stage, left):
    text = """
    def over(number, frame):
        raise RuntimeError("the time of this job is over")
    signal.signal(signal.SIGALRM, over)
    try:
        new_keeper(inline=True).current()
    except RuntimeError:
        tell("raised")
    """
    stage.adopt(stage.path, left=left)
    with stage.renewing(text) as (program, hold):
        program.send_signal(signal.SIGALRM)
        hold.release()
        assert program.said() == "raised"
        assert program.ended() == 0
    stage.assert_kept()


def test_a_signal_ends_the_wait_for_another_process_in_the_main_thread(stage):
    text = """
    import contextlib

    def over(number, frame):
        raise RuntimeError("the time of this job is over")
    signal.signal(signal.SIGALRM, over)
    signal.signal(signal.SIGCHLD, lambda number, frame: tell("child"))

    class Store(FileStore):
        def reserve(self):
            return contextlib.nullcontext()

        def lock(self):
            tell("waits")
            return super().lock()

    keeper = TokenKeeper(new_keeper().grant, Store(paths[0]), lock_timeout=600.0, inline=True)
    try:
        keeper.current()
    except RuntimeError:
        tell("raised")
    """
    lock = FileStore(stage.path).lock()
    assert lock.acquire(PATIENCE)
    with stage.start(text) as program:
        assert program.said() == "waits"
        for number, word in ((signal.SIGCHLD, "child"), (signal.SIGALRM, "raised")):
            program.send_signal(number)
            while (said := program.said()) == "waits":
                pass
            assert said == word
    lock.release()


def test_signals_are_delivered_once_even_if_a_handler_raises(stage):
    text = """
    import asyncio

    def over(number, frame):
        raise RuntimeError
    signal.signal(signal.SIGALRM, over)
    signal.signal(signal.SIGUSR1, lambda number, frame: tell("mine"))

    def interrupting():
        yield signal.SIGUSR1
        signal.raise_signal(signal.SIGALRM)

    async def main():
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, tell, "loop")
        loop.add_signal_handler(signal.SIGHUP, end.set)
        for numbers in ([signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1], interrupting()):
            try:
                with shutdown.signals_deferred(numbers):
                    for number in numbers:
                        signal.raise_signal(number)
            except RuntimeError:
                tell("raised")
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGHUP)
        await end.wait()
        tell("end")

    asyncio.run(main())
    """
    with stage.start(text) as program:
        said = [program.said() for _ in range(6)]
    assert said == ["mine", "raised", "raised", "mine", "loop", "end"]


# --- when the program is over ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "setting", "status"),
    [
        ("SIGINT", "", 0),
        ("SIGTERM", "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))", 0),
        ("SIGTERM", "", -signal.SIGTERM),
    ],
    ids=["Ctrl-C", "a handler of the program", "no handler"],
)
@pytest.mark.parametrize("begun", ["before", "afterwards"])
def test_a_signal_that_interrupts_the_exiting_interpreter_waits_for_the_save(
    stage, begun, name, setting, status
):
    text = f"""
    {setting}
    keeper = new_keeper()

    def work():
        if {begun!r} == "afterwards":
            threading.main_thread().join()
        keeper.current()

    tell_when_over()
    in_thread(work)
    while {begun!r} == "before" and keeper.wait(0):
        time.sleep(0.001)
    """
    stage.adopt(stage.path, left=100.0)  # the renewal is in the background
    with stage.renewing(text) as (program, hold):
        assert program.said() == "over"
        for _ in range(3):
            program.send_signal(getattr(signal, name))
            time.sleep(0.1)  # else they would count as one
        assert program.poll() is None
        hold.release()
        assert program.ended() == status
    stage.assert_kept()


def test_a_second_ctrl_c_loses_nothing(stage):
    with stage.renewing("tell_when_over(); new_keeper().current()") as (program, hold):
        program.send_signal(signal.SIGINT)
        assert program.said() == "over"
        program.send_signal(signal.SIGINT)
        hold.release()
        assert program.ended() == -signal.SIGINT
    stage.assert_kept()


def test_after_ctrl_c_a_program_says_why_it_does_not_end_at_once(stage):
    text = """
        import sys
        sys.stderr = sys.stdout  # which the test reads
        in_thread(new_keeper().current)
        tell("waiting")
        threading.Event().wait()
    """
    with stage.renewing(text) as (program, hold):
        assert program.stdout.readline() == "waiting\n"
        program.send_signal(signal.SIGINT)
        lines = iter(program.stdout.readline, "")
        said = next(line for line in lines if line.startswith("tokenadapter: "))
        assert re.fullmatch(r"tokenadapter: saving a renewed token \(up to \d+ s\)\n", said)
        hold.release()
        assert program.ended() == -signal.SIGINT
    stage.assert_kept()


def test_the_interpreter_waits_for_a_daemon_thread_that_renews_inline(stage):
    text = """
    keeper = new_keeper(inline=True)
    threading.Thread(target=keeper.current, daemon=True).start()
    sys.stdin.readline()
    tell_when_ending()
    """
    with stage.renewing(text) as (program, hold):
        program.go_on()
        assert program.said() == "ending"
        hold.release()
        assert program.ended() == 0
    stage.assert_kept()


def test_a_second_ctrl_c_loses_nothing_in_a_child_of_multiprocessing(stage):
    text = """
    import multiprocessing

    keeper = new_keeper()

    process = multiprocessing.get_context("fork").Process(target=keeper.current)
    process.start()
    tell(process.pid)
    process.join()
    """
    with stage.renewing(text) as (program, hold):
        child = int(program.said())
        for _ in range(3):
            os.kill(child, signal.SIGINT)
            time.sleep(0.1)  # else they would count as one
        hold.release()
        assert program.ended() == 0
    stage.assert_kept()


def test_a_handler_that_raises_nothing_runs_at_once(stage):
    text = """
    signal.signal(signal.SIGTERM, lambda number, frame: tell("mine"))
    new_keeper().current()
    tell_when_over()
    """
    stage.adopt(stage.path, left=100.0)
    with stage.renewing(text) as (program, hold):
        assert program.said() == "over"
        program.send_signal(signal.SIGTERM)
        assert program.said() == "mine"
        hold.release()
        assert program.ended() == 0
    stage.assert_kept()


# --- no renewal begins that the exit would cut off---------------------------------------


def test_nothing_is_presented_when_the_process_is_ending(stage, monkeypatch):
    monkeypatch.setattr(shutdown, "_is_ending", True)
    with pytest.raises(RefreshTemporarilyFailed, match="This process is shutting down"):
        stage.keeper().current()
    monkeypatch.undo()
    assert stage.server.stats.token_requests == 0
    assert "intent" not in stage.path.read_text()
    stage.assert_kept()


def test_a_process_that_is_ending_is_exiting(monkeypatch):
    assert not RUNTIME.exiting()
    monkeypatch.setattr(shutdown, "_is_ending", True)
    assert RUNTIME.exiting()


def test_uvicorn_that_stops_gets_a_new_token_only_for_requests_that_it_waits_for(stage):
    server = uvicorn.Server(uvicorn.Config("app"))
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.should_exit = True
        with pytest.raises(RefreshTemporarilyFailed, match="This process is shutting down"):
            stage.keeper().current()
        assert stage.server.stats.token_requests == 0
        server.server_state.tasks.add(request := object())
        with stage.server.hold() as hold:
            keeper = stage.keeper()
            thread = threading.Thread(target=keeper.current)
            thread.start()
            assert hold.arrived.wait(PATIENCE)
            assert len(server.server_state.tasks) == 2
        thread.join(PATIENCE)
        assert server.server_state.tasks == {request}
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stage.server.stats.refreshes == 1


@pytest.mark.parametrize("left", [100.0, -1.0])
def test_at_exit_only_an_expired_token_is_renewed(stage, left):
    stage.adopt(stage.path, left=left)
    with stage.start("atexit.register(new_keeper().current)") as program:
        assert program.ended() == 0
    assert stage.server.stats.token_requests == (left < 0)


class Unguarded(Clockwork):
    def guard(self) -> bool:
        return False


@pytest.mark.parametrize(("spends", "renewals"), [(True, 1), (False, 2)])
def test_no_refresh_token_is_spent_in_the_background_if_the_process_end_would_not_wait(
    spends, renewals
):
    runtime = Unguarded()
    source = Authority()
    source.spends = spends
    keeper = TokenKeeper(source, Shelf(runtime), runtime=runtime)
    keeper.current()
    runtime.go_on(3500)
    keeper.current()
    assert keeper.wait(PATIENCE)
    assert len(source.presented) == renewals


# --- waiting for it ----------------------------------------------------------------------


def test_wait_lasts_until_the_token_is_saved(stage):
    stage.adopt(stage.path, left=100.0)
    keeper = stage.keeper()
    assert keeper.wait()
    with stage.server.hold(processed=True) as hold:
        old = keeper.current()
        assert hold.arrived.wait(PATIENCE)
        assert not keeper.wait(0)
    assert keeper.wait()
    assert keeper.current() != old
    assert keeper.current().access_token in stage.path.read_text()


def test_wait_lasts_longer_than_callers_wait_for_a_token_that_cannot_be_saved():
    clock = Clockwork()
    shelf, full, sleeping, space = Shelf(clock), [False], threading.Event(), threading.Event()
    source = Authority()
    source.asking = lambda: full.__setitem__(0, True)
    shelf.failing = lambda step: step == "save" and full[0] and not space.is_set()

    def sleep(seconds: float) -> None:
        sleeping.set()
        assert space.wait(PATIENCE)

    clock.sleep = sleep  # type: ignore[method-assign]
    keeper = TokenKeeper(source, shelf, runtime=clock)
    keeper.current()
    assert sleeping.wait(PATIENCE)
    assert not keeper.wait(0)
    space.set()
    assert keeper.wait(PATIENCE)
    assert shelf.slot[0]["token"]["access_token"] == "access-1"


def test_a_renewal_does_not_wait_for_itself():
    waited: list[bool] = []
    keeper = TokenKeeper(
        Authority(), Shelf(RUNTIME), on_refresh=lambda token: waited.append(keeper.wait())
    )
    keeper.current()
    assert keeper.wait()
    assert waited == [False]
