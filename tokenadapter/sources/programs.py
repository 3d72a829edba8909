"""Run a program for what it prints: without a shell, within a deadline, up to a limit.

The program gets a process group of its own.  At the deadline the whole group is killed: a shell
script that waits for another program does not leave it behind.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

__all__ = ["LIMIT", "ProgramFailed", "output_of"]

LIMIT = 1 << 20
"""The most bytes that a program may print."""

# Seconds that a program may take to end after it was killed.
_ENDS_WITHIN = 1.0


class ProgramFailed(ValueError):
    """A program printed nothing that can be used.

    :ivar is_lasting: whether it cannot be run at all.
    """

    def __init__(self, why: str, *, is_lasting: bool = False) -> None:
        super().__init__(why)
        self.is_lasting: bool = is_lasting


def output_of(command: Sequence[str], seconds: float, directory: str | None = None) -> bytes:
    """What the program prints on its standard output.  Its standard error is that of this process.

    :param seconds: after which it is killed.
    :param directory: to run it in; by default the working directory.
    :raises ProgramFailed: if it cannot be run, fails, takes too long, or prints too much.
    """
    end = time.monotonic() + seconds
    try:
        program = subprocess.Popen(  # noqa: S603 - the caller chose the program
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ProgramFailed(f"it cannot be run: {why}", is_lasting=True) from None
    assert program.stdout is not None
    printed = None
    try:
        with program.stdout as pipe:
            printed = _read(pipe, end) if os.name != "nt" else _communicated(program, seconds)
        program.wait(max(end - time.monotonic(), 0))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ProgramFailed(f"it did not finish within {seconds:g} s") from None
    finally:
        if program.returncode is None:
            _kill(program)
    if printed is None:
        raise ProgramFailed(f"it printed more than {LIMIT >> 20} MiB")
    if program.returncode:
        raise ProgramFailed(f"it failed with exit code {program.returncode}")
    return printed


def _read(pipe: IO[bytes], end: float) -> bytes | None:
    """All of *pipe*; ``None`` if that is too much.

    :raises TimeoutError: if it is not at its end in time.
    """
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(printed) <= LIMIT:
            if not selector.select(max(end - time.monotonic(), 0)):
                raise TimeoutError
            piece = os.read(pipe.fileno(), 1 << 16)
            if not piece:
                return bytes(printed)
            printed += piece
    return None


def _communicated(program: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """As :func:`_read`, where pipes cannot be waited for."""
    printed, _ = program.communicate(timeout=seconds)
    return printed if len(printed) <= LIMIT else None


def _kill(program: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        # The number belongs to this group: the program has not been waited for.
        if os.name != "nt":
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()
    # One with the rights of another user, such as sudo, cannot be killed, and goes on.
    with suppress(subprocess.TimeoutExpired):
        program.wait(_ENDS_WITHIN)
