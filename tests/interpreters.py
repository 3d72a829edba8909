"""Runs code in a second interpreter of a process, which has more restrictions than the first."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_MAIN = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters
failure = interpreters.run_string(interpreters.create(), sys.argv[1])
if failure is not None:
    print(failure.formatted, file=sys.stderr)
sys.stdout.flush()
# Do not end the second interpreter: some versions of Python crash.
os._exit(0 if failure is None else 1)
"""


def in_another_interpreter(code: str) -> list[str]:
    """The lines that *code* prints in an isolated interpreter, which may start no daemon threads
    and set no signal handlers."""
    code = f"import sys\nsys.path[:] = {sys.path!r}\n{textwrap.dedent(code)}\nsys.stdout.flush()"
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
