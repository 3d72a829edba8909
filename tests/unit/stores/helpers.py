"""What several test modules of the stores use."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from tokenadapter.protocols import TokenStore


def save(store: TokenStore, number: int = 1, *, expected: str | None = None) -> None:
    assert store.save({"n": number}, tag=f"tag {number}", expected=expected, ttl=None)


def mode(path: Path) -> int:
    """Who may do what with a file, as ``chmod`` takes it."""
    return stat.S_IMODE(path.stat().st_mode)


def failing(
    call: Callable[..., Any],
    number: int,
    *,
    times: float = inf,
    only: Callable[[Any], bool] = lambda first: True,
) -> Callable[..., Any]:
    """A function that fails so many *times* where *only* likes its first argument, and otherwise
    does what *call* does."""
    left = times

    def fail(first: Any, *args: Any) -> Any:
        nonlocal left
        if left > 0 and only(first):
            left -= 1
            raise OSError(number, os.strerror(number))
        return call(first, *args)

    return fail


def run(code: str) -> None:
    """Run *code* in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
