"""``tokenadapter run``: a Python program, as it is, with its requests signed.

  tokenadapter run report.py --month 5
  tokenadapter run --profile billing -m reports.monthly
  tokenadapter run some-console-script

Every requests session of the program signs what it sends under the prefixes of the profiles (all
of them, or those that are named), renews, and replays; a header that the program sets itself is
replaced. The program takes the place of this process. So that it is signed wherever requests is
imported, it starts with a directory of ours at the head of PYTHONPATH, which it takes off again
at once, and runs your own sitecustomize too. Pools of multiprocessing are signed as well; other
programs that it starts are not, unless --inherit is given.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_config
from tokenadapter.cli.execute import exec_program
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["TAKES_PROGRAM", "add_arguments", "perform"]

TAKES_PROGRAM = True
"""Whether a program and its arguments stand at the end."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.usage = (
        "%(prog)s [--profile NAME]… [--inherit] [--] SCRIPT.py … | -m MODULE … | PROGRAM …"
    )
    parser.add_argument(
        "--profile", metavar="NAME", action="append", help="one of the profiles; all if none is"
    )
    parser.add_argument(
        "--inherit", action="store_true", help="the Python programs that it starts are signed, too"
    )
    add_config(parser)


def perform(options: Namespace) -> int:
    """Become the program."""
    config = ConfigFile.read(options.config)
    names = options.profile or [*config.tables]
    if not names:
        raise ProfileError("There is no profile in it.", file=config.path)
    for name in names:
        Profile(config, name)  # said now, rather than in the middle of the program
    command = _command(options.program)
    from tokenadapter.startup import DIRECTORY, VARIABLE

    paths = os.environ.get("PYTHONPATH")
    orders = {
        "profiles": names,
        "config": config.path,
        "inherit": options.inherit,
        "level": options.level,
        "pythonpath": paths,
    }
    ours = {
        VARIABLE: json.dumps(orders),
        "PYTHONPATH": os.pathsep.join([DIRECTORY, *([paths] if paths else [])]),
    }
    return exec_program(command, {**os.environ, **ours})


def _command(program: list[str]) -> list[str]:
    first = program[0]
    if first in ("-m", "-c"):
        if len(program) < 2:
            raise ProfileError(f"Behind {first} something is missing: what is to be run?")
        return [sys.executable, *program]
    if first.endswith((".py", ".pyz", ".pyc")) or os.path.isdir(first):
        return [sys.executable, *program]
    if os.path.isfile(first) and not os.access(first, os.X_OK):
        return [sys.executable, *program]
    _check_interpreter(program)
    return program


def _check_interpreter(program: list[str]) -> None:
    """Python that ignores its environment would not sign anything."""
    from shutil import which

    path = which(program[0])
    if path is None:
        return
    if os.path.basename(path).startswith("python"):
        words = program[1:]
    else:
        words = _first_line(path)
        # Behind the interpreter: env may come before it, with options of its own.
        while words and not os.path.basename(words.pop(0)).startswith("python"):
            pass
    for word in _options(words):
        if set(word) & set("EIS"):
            raise ProfileError(
                f"{word} has {path} ignore PYTHONPATH or sitecustomize, and so the program would "
                "not be signed: run it without that, as -m MODULE or as SCRIPT.py."
            )


def _first_line(path: str) -> list[str]:
    """The words behind the ``#!`` of a program, if it has such a line."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256).decode("utf-8", "replace")
    except OSError:
        return []  # what may be run need not be open to be read
    return first[2:].split() if first.startswith("#!") else []


def _options(words: list[str]) -> Iterator[str]:
    """The options of an interpreter without their values; what follows is for the program."""
    left = iter(words)
    for word in left:
        if word[:1] != "-" or word[1:2] in ("-", ""):
            return
        option, letter, value = _split(word)
        yield option
        if letter in ("c", "m"):
            return
        if letter and not value:
            next(left, None)


def _split(word: str) -> tuple[str, str, str]:
    """The letters of *word*, that of them which takes a value, and the value."""
    for at, letter in enumerate(word):
        if letter in "cmWX":
            return word[: at + 1], letter, word[at + 1 :]
    return word, "", ""
