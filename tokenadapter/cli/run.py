"""``tokenadapter run``: runs an unmodified Python program and signs its requests.

  tokenadapter run report.py --month 5
  tokenadapter run --profile billing -m reports.monthly
  tokenadapter run some-console-script

Every requests session and urllib3 pool of the program signs requests under the prefixes of the
profiles (all profiles, or those that --profile names), renews the token, and replays refused
requests. If two of the profiles have the same prefix, --profile has to choose one. A header that
the program sets itself is replaced. The program replaces this process. It starts with a directory
of tokenadapter first in PYTHONPATH, which it removes at once; your own sitecustomize still runs.
Processes of multiprocessing sign their requests too; other programs that the program starts do so
only with --inherit.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenadapter.cli.common import UsageError, add_config
from tokenadapter.cli.exec import NOT_THERE, exec_program
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile, shared_prefixes

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["TAKES_PROGRAM", "add_arguments", "perform"]

TAKES_PROGRAM = True
"""The command ends with a program and its arguments."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.usage = (
        "%(prog)s [--profile NAME]… [--inherit] [--config FILE] [--] "
        "SCRIPT.py … | -m MODULE … | PROGRAM …"
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        action="append",
        help="use this profile; the default is all of them",
    )
    parser.add_argument(
        "--inherit",
        action="store_true",
        help="also sign the requests of Python programs that the program starts",
    )
    add_config(parser)


def perform(options: Namespace) -> int:
    """Run the program in place of this process."""
    config = ConfigFile.read(options.config)
    names = options.profile or [*config.tables]
    if not names:
        raise ProfileError("The file has no profile: add one, such as [billing].", file=config.path)
    # An error now is better than one in mid-program.
    profiles = [Profile(config, name) for name in dict.fromkeys(names)]
    if len(profiles) > 1:
        for prefix, sharing in shared_prefixes(profiles).items():
            raise ProfileError(
                f"The profiles {' and '.join(sharing)} have the same prefix, {prefix}, so it is "
                "unclear which of them signs a request. Nothing was run. Choose with --profile.",
                file=config.path,
            )
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
    code = exec_program(command, {**os.environ, **ours})
    if code == NOT_THERE and command[0] in config.tables:  # exec takes the profile first
        sys.stderr.write(f"tokenadapter: {command[0]} is a profile: write --profile {command[0]}\n")
    return code


def _command(program: list[str]) -> list[str]:
    first = program[0]
    if first in ("-m", "-c"):
        if len(program) < 2:
            missing = "name of a module" if first == "-m" else "code to run"
            raise UsageError(f"After {first}, the {missing} is missing.")
        return [sys.executable, *program]
    if first.endswith((".py", ".pyz", ".pyc")) or os.path.isdir(first):
        return [sys.executable, *program]
    if os.path.isfile(first) and not os.access(first, os.X_OK):
        return [sys.executable, *program]
    _check_interpreter(program)
    return program


def _check_interpreter(program: list[str]) -> None:
    """Refuse options by which Python ignores its environment: the program would sign nothing."""
    from shutil import which

    path = which(program[0])
    if path is None:
        return
    if os.path.basename(path).startswith("python"):
        words = program[1:]
    else:
        words = _first_line(path)
        # Skip env and its options, which may come before the interpreter.
        while words and not os.path.basename(words.pop(0)).startswith("python"):
            pass
    for word in _options(words):
        if set(word) & set("EIS"):
            raise ProfileError(
                f"With {word}, {path} ignores PYTHONPATH or sitecustomize, so the program's "
                "requests would not be signed. Run it without that option, as -m MODULE or as "
                "SCRIPT.py."
            )


def _first_line(path: str) -> list[str]:
    """The words after the ``#!`` of a program, if it has such a line."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256).decode("utf-8", "replace")
    except OSError:
        return []  # a program may be executable without being readable
    return first[2:].split() if first.startswith("#!") else []


def _options(words: list[str]) -> Iterator[str]:
    """The options of an interpreter, without their values and without the program's arguments."""
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
    """Split the option *word*: up to the letter that takes a value, that letter, and the value."""
    for at, letter in enumerate(word):
        if letter in "cmWX":
            return word[: at + 1], letter, word[at + 1 :]
    return word, "", ""
