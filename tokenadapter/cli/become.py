"""Becoming another program: its exit code, its signals and its place among processes are ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

__all__ = ["become"]

_NOT_THERE = 127
_NOT_RUNNABLE = 126


def become(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run *command* in place of this process, with *environment*.

    :returns: an exit code, if there is no such program, or nothing can take a process' place here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if os.name == "nt":
            # There, a process that is replaced seems to end at once to whoever waits for it.
            from subprocess import call

            return call([*command], env=environment)  # noqa: S603 - it is the user's own command
        os.execvpe(command[0], [*command], environment)  # noqa: S606 - so is this
    except FileNotFoundError:
        from shutil import which

        if which(command[0]) is not None:
            sys.stderr.write(
                f"tokenadapter: {command[0]} cannot be run: what its first line names, behind #!, "
                "is not there\n"
            )
            return _NOT_RUNNABLE
        sys.stderr.write(f"tokenadapter: {command[0]}: there is no such program\n")
        return _NOT_THERE
    except OSError as error:
        sys.stderr.write(f"tokenadapter: {command[0]} cannot be run: {error.strerror}\n")
        return _NOT_RUNNABLE
