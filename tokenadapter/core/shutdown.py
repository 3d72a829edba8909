"""Make an orderly end of this process wait for the refresh tokens that it is presenting.

A process that ends between the server's answer and the save loses the login.  An interpreter that
exits waits for helper threads, but there are other ends: a signal whose action is the default, or a
pool whose workers leave by ``os._exit()``.  This module makes them wait.

The order is always the same.  The thread that presents *registers*, and then checks whether the
process is ending.  The code that ends the process *says so*, and then checks which threads are
registered.  So a refresh token is either waited for, or not presented at all.

**Signals.**  Our handlers are in place only where the action is the default, and only while a
refresh token is being presented.  A handler written in Python runs when the main thread returns to
Python code, so a signal that arrives just before the main thread begins to wait is handled only
after that wait.  A worker of :class:`multiprocessing.pool.Pool` that waits for a task would never
notice that the pool ends it: with permanent handlers, 7 of 20 pools hung.  Only the main thread can
change handlers.  A helper asks it to do so by SIGURG, which is ignored by default.  SIGURG also
interrupts the wait of the main thread, which then runs the handlers of signals that it has missed.

Handlers interrupt the main thread anywhere, so they take no lock that it may hold.  But the thread
that presents may need such a lock, for example that of a log.  So a handler does not wait in one
go: it returns now and then, for a moment in which the main thread goes on.

**The end of the program.**  The interpreter waits for helper threads, unless a signal handler
raises an exception meanwhile: a second Ctrl-C, or a second SIGTERM whose handler calls
``sys.exit()``.  So an ``atexit`` callback waits once more, and defers such exceptions.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # at no cost, unlike signal
import _thread
import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from typing import Any, Final

from tokenadapter.core.helper_threads import Latch

__all__ = [
    "ends_abruptly",
    "handled",
    "is_awaited",
    "is_ending",
    "is_interrupted",
    "is_presenting",
    "presenting",
    "signals_deferred",
    "update_handlers",
]

# Seconds that the save of an answer may take.
_SAVES_WITHIN: Final = 10.0
# Seconds within which a main thread answers unless it is busy outside of Python.
_ANSWERS_WITHIN: Final = 0.5
# Seconds for which a handler waits at a time, and for which the main thread goes on in between.
_TURN: Final = 0.5
_BREAK: Final = 0.02
_SIGURG: Final[int | None] = getattr(_signal, "SIGURG", None)
# The signals that ask a process to end, and do so by default.
_ENDINGS: Final[list[int]] = [
    getattr(_signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(_signal, name)
]
# The calls by which a main thread waits for signals of any kind.  It must not get another signal.
_WAITS: Final = {"pause", "sigwait", "sigwaitinfo", "sigtimedwait"}

# What is set where a process may be frozen or ended as soon as it has answered: AWS Lambda, Cloud
# Run, Cloud Run functions; and in a process that does one job of RQ.
_ABRUPT: Final = ("AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE", "FUNCTION_TARGET", "RQ_JOB_ID")
# The flag of a process that was forked and has not executed a program since (Linux: PF_FORKNOEXEC).
_FORKED: Final = 0x40

# The process that imported this module, which a forked child inherits.
_imported_in = os.getpid()
# The last result of ends_abruptly(), and its process.
_abrupt: tuple[int, bool] = (0, False)
# The latch that is set when a presentation is over, and its deadline by the monotonic clock.
_presentations: dict[Latch, float] = {}
_is_ending = False
# The earliest deadline.  A token whose save has been failing for long gets as much time as others.
_waits_until = 0.0
# Whether the interpreter is exiting and has waited: only the main thread may present anything.
_is_over = False
# Whether a signal waits until the main thread has renewed.
_is_interrupted = False
# The ID of the process in which the interpreter waits when it exits.
_waits_in = 0
# Whether the handlers are installed, and whether the main thread is updating them.
_is_guarding = False
_is_updating = False
# Whether this process, a child of billiard, is hooked to wait before its end.
_is_hooked = False


@contextmanager
def presenting(seconds: float, requested: Callable[[int, Any], object]) -> Iterator[bool]:
    """While a block runs, make an orderly end of this process wait for it.

    :param seconds: the most that the presentation takes, without the save of its outcome.
    :param requested: the handler of SIGURG that calls :func:`update_handlers`, if it is in place.
    :returns: yields whether the block may present anything: ``False`` if the process is ending.
    """
    _register_waits()
    over = Latch()
    _presentations[over] = time.monotonic() + seconds + _SAVES_WITHIN
    try:
        with _uvicorn_waiting() as is_serving:
            if threading.current_thread() is threading.main_thread():
                with signals_deferred(_ENDINGS):
                    yield is_serving and not _is_ending
            else:
                _ask_main_thread(requested)
                yield is_serving and not (_is_ending or _is_over)
    finally:
        del _presentations[over]
        over.set()
        if not _is_ending:
            _ask_main_thread(requested)


def is_ending() -> bool:
    """Whether this process is about to end, and must not present anything."""
    return _is_ending


def is_interrupted() -> bool:
    """Whether a signal is deferred, so that the main thread must not wait any longer for others."""
    return _is_interrupted


def is_presenting() -> bool:
    """Whether this process is presenting anything, or saving what it got."""
    return bool(_presentations)


@contextmanager
def signals_deferred(numbers: Iterable[int]) -> Iterator[None]:
    """In the main thread, defer signals that have a handler or end the process.

    :param numbers: the signals.
    """
    process, handlers, caught = os.getpid(), dict[int, Any](), list[int]()

    def catch(number: int, frame: object) -> None:
        global _is_interrupted  # noqa: PLW0603 - there is one main thread
        if os.getpid() == process:
            _is_interrupted = True
            caught.append(number)
        else:  # a child that another thread has forked meanwhile, which never leaves the block
            _signal.signal(number, handlers[number])
            _signal.raise_signal(number)

    def deliver() -> None:
        global _is_interrupted  # noqa: PLW0603
        _is_interrupted = False
        with ExitStack() as last_to_first:
            for number in reversed(caught):
                handler = handlers[number]
                if callable(handler):  # asyncio would get a signal twice that is raised again
                    last_to_first.callback(handler, number, sys._getframe())
                else:
                    last_to_first.callback(_signal.raise_signal, number)

    # Even if a handler raises an exception, all handlers are put back, and all signals delivered.
    with ExitStack() as ends:
        ends.callback(deliver)
        for number in numbers:
            handler = _signal.getsignal(number)
            if handler is not None:  # else it could not be put back
                with suppress(ValueError):  # another thread: handlers do not run there
                    _signal.signal(number, catch)
                    handlers[number] = handler
                    ends.callback(_signal.signal, number, handler)
        yield


# --- signals -----------------------------------------------------------------------------


def _ask_main_thread(requested: Callable[[int, Any], object]) -> None:
    """Make the main thread update the signal handlers, if it can be asked."""
    if _SIGURG is None or not (_is_guarding or _defaults()):
        return
    main = threading.main_thread().ident or 0
    pause, end = 0.0002, time.monotonic() + _ANSWERS_WITHIN
    while _is_guarding != bool(_presentations) and time.monotonic() < end:
        if _signal.getsignal(_SIGURG) != requested or _waits_for_signals(main):
            break
        # Again and again: it may be about to wait for something.
        _signal.pthread_kill(main, _SIGURG)
        time.sleep(pause)
        pause *= 2


def _waits_for_signals(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    # None: it is not in Python, or no thread of the system's at all, as with gevent.
    return frame is None or not _WAITS.isdisjoint(frame.f_code.co_names)


def _defaults() -> list[int]:
    """The signals that would end this process now."""
    found = [number for number in _ENDINGS if _signal.getsignal(number) == _signal.SIG_DFL]
    with suppress(OSError):  # there is no such file elsewhere than on Linux
        # Code other than Python's may have installed handlers: uWSGI, faulthandler.
        with open("/proc/self/status", "rb") as status:  # noqa: PTH123 - a handler imports nothing
            caught = [int(line[7:], 16) for line in status if line.startswith(b"SigCgt:")]
        found = [number for number in found if not any(mask >> number - 1 & 1 for mask in caught)]
    return found


def update_handlers() -> None:
    """Install or remove our handlers, as needed now.  Only the main thread can do so."""
    global _is_guarding, _is_updating  # noqa: PLW0603 - there is one process
    if _is_updating:
        return  # called again by a signal; the loop below checks once more
    _is_updating = True
    try:
        # A thread that registers, and then finds the handlers installed, is noticed by the next
        # check of the loop.
        while _is_guarding != bool(_presentations):
            _is_guarding = not _is_guarding
            if _is_guarding:
                for number in _defaults():
                    _signal.signal(number, _end)
            else:
                for number in _ENDINGS:
                    if _signal.getsignal(number) == _end:
                        _signal.signal(number, _signal.SIG_DFL)
    finally:
        _is_updating = False


def _end(number: int, frame: object) -> None:
    """End this process by the default action of a signal, once nothing is being presented."""
    if _end_within(_TURN, number):
        return
    try:
        _thread.start_new_thread(_remind, (number,))
    except RuntimeError:  # there are too many threads
        _end_within(inf, number)


def _end_within(seconds: float, number: int) -> bool:
    global _is_ending, _is_guarding
    with _ending(seconds) as is_over:
        if is_over:
            _signal.signal(number, _signal.SIG_DFL)
            os.kill(os.getpid(), number)
    if is_over:
        # The kernel spares process 1 of a container.
        _is_ending, _is_guarding = False, True
        update_handlers()
    return is_over


def _remind(number: int) -> None:
    """Let the main thread go on for a moment, then make it handle the signal again."""
    time.sleep(_BREAK)
    _signal.pthread_kill(threading.main_thread().ident, number)


@contextmanager
def _ending(seconds: float = inf) -> Iterator[bool]:
    """Allow no new presentation, and wait until none is in progress.

    :param seconds: how long to wait at most.
    :returns: yields whether no presentation is left to wait for.
    """
    global _is_ending, _waits_until
    begun = time.monotonic()
    if not _is_ending:
        _is_ending, _waits_until = True, begun + _SAVES_WITHIN
    # An exception from a handler of the program would end the wait.
    with signals_deferred(handled()):
        left = 0.0
        for over, end in _presentations.copy().items():
            last = max(end, _waits_until)
            if not over.wait(min(last, begun + seconds) - time.monotonic()):
                left = max(left, last - time.monotonic())
        yield left <= 0


def handled() -> list[int]:
    """The signals that have a handler, but not the one by which helpers ask the main thread."""
    found = [number for number in range(1, _signal.NSIG) if callable(_signal.getsignal(number))]
    return [number for number in found if number != _SIGURG]


def _register_waits() -> None:
    """Make the exit of this process wait once more."""
    global _waits_in  # noqa: PLW0603
    if _waits_in == os.getpid():
        return
    _waits_in = os.getpid()
    atexit.register(_wait_at_exit)
    # Called before the interpreter waits for threads, and before any callback of atexit.
    register: Callable[..., object] = getattr(threading, "_register_atexit", atexit.register)
    with suppress(RuntimeError):  # the interpreter is exiting
        register(_tell_if_interrupted)
    # Children of multiprocessing call no atexit callbacks, before Python 3.13 at least.
    finalize = getattr(sys.modules.get("multiprocessing.util"), "Finalize", None)
    if finalize is not None:
        finalize(None, _wait_until_saved, exitpriority=0)


def _tell_if_interrupted() -> None:
    """Say why a program that Ctrl-C has ended does not end at once."""
    ends = [*_presentations.values()]
    if ends and sys.stderr and isinstance(getattr(sys, "last_value", None), KeyboardInterrupt):
        seconds = max(ends) - time.monotonic()
        with suppress(OSError, ValueError):  # it is closed, or nobody reads it
            sys.stderr.write(f"tokenadapter: saving a renewed token (up to {seconds:.0f} s)\n")
            sys.stderr.flush()


def _wait_at_exit() -> None:
    """Wait for threads for which the interpreter does not: daemon threads that renew inline, and
    all of them if a signal handler has raised an exception meanwhile."""
    global _is_over  # noqa: PLW0603
    _is_over = True
    _wait_until_saved()


def _wait_until_saved() -> None:
    global _is_ending  # noqa: PLW0603
    with _ending():
        _is_ending = False  # exit handlers of the program may need a token


# --- servers and workers -----------------------------------------------------------------


class _Task:
    """An object that uvicorn takes for a request in progress."""

    def cancel(self, msg: object = None) -> None:
        pass  # uvicorn's own timeout is over


@contextmanager
def _uvicorn_waiting() -> Iterator[bool]:
    """While a block runs, keep uvicorn from stopping, if it serves in this process.

    uvicorn has its own handlers.  When it has stopped, it restores the previous action, which is
    the default, and raises the signal again.

    :returns: yields ``False`` if uvicorn is about to stop.
    """
    server = getattr(_signal.getsignal(_signal.SIGTERM), "__self__", None)
    tasks = getattr(getattr(server, "server_state", None), "tasks", None)
    if not isinstance(tasks, set):
        yield True
        return
    ours = _Task()
    tasks.add(ours)
    try:
        # While it answers requests, uvicorn will check its tasks again.
        is_answering = any(type(task) is not _Task for task in tasks.copy())
        yield is_answering or not getattr(server, "should_exit", False)
    finally:
        tasks.discard(ours)


def is_awaited(*, can_guard: bool) -> bool:
    """Whether an orderly end of this process waits for its presentations, as far as is known.

    :param can_guard: whether the end by a SIGTERM waits.
    """
    billiard = sys.modules.get("billiard.process")
    name = "MainProcess" if billiard is None else billiard.current_process().name
    if name != "MainProcess":
        return _is_awaited_by_billiard(name) and can_guard
    multiprocessing = sys.modules.get("multiprocessing.process")
    # Only the workers of a pool are routinely ended by SIGTERM.
    return can_guard or multiprocessing is None or multiprocessing.parent_process() is None


def ends_abruptly() -> bool:
    """Whether this process may leave by ``os._exit()`` or be frozen after a request, as far as is
    known, so that nobody waits for what goes on in the background.

    A child of ``os.fork()`` may: RQ and ``socketserver.ForkingMixIn`` end their children so.
    """
    global _abrupt  # noqa: PLW0603
    if _abrupt[0] != os.getpid():
        _abrupt = os.getpid(), _ends_abruptly()
    return _abrupt[1]


def _ends_abruptly() -> bool:
    billiard = sys.modules.get("billiard.process")
    name = "MainProcess" if billiard is None else billiard.current_process().name
    if name != "MainProcess":
        return not _is_awaited_by_billiard(name)
    if any(name in os.environ for name in _ABRUPT):
        return True
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = None if multiprocessing is None else multiprocessing.parent_process()
    # A child of multiprocessing waits at its end, but not one that it has forked itself.
    return _was_forked() and (parent is None or parent.pid != os.getppid())


def _was_forked() -> bool:
    try:
        with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123 - as above
            flags = int(stat.read().rpartition(b")")[2].split()[6])
    except (OSError, ValueError, IndexError):  # elsewhere than on Linux
        return os.getpid() != _imported_in
    return bool(flags & _FORKED)  # also if the fork came before the import of this module


def _is_awaited_by_billiard(name: str) -> bool:
    """Make a child of billiard, Celery's multiprocessing, wait before its ``os._exit()``.

    :param name: of the process.
    :returns: whether that is possible.
    """
    global _is_hooked  # noqa: PLW0603
    if _is_hooked:
        return True
    if "PoolWorker" not in name:
        _is_hooked = True
        sys.modules["billiard.util"].Finalize(None, _wait_at_end, exitpriority=0)
    elif "celery.concurrency.prefork" in sys.modules:
        _is_hooked = True
        sys.modules["celery.signals"].worker_process_shutdown.connect(
            _wait_at_end, weak=False, dispatch_uid="tokenadapter"
        )
    # The workers of billiard's own pool have no hook at their end.
    return _is_hooked


def _wait_at_end(**circumstances: object) -> None:
    with _ending():
        pass


def _after_fork_in_child() -> None:
    """Forget the presentations of the parent, whose threads are not in this process."""
    global _is_ending, _is_hooked, _is_interrupted, _is_over, _is_updating  # noqa: PLW0603
    _presentations.clear()
    _is_ending = _is_hooked = _is_interrupted = _is_over = _is_updating = False
    update_handlers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
