"""Finds the command that is meant, has it done, and tells by the exit code what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.output import prepare_streams, write_line

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["COMMANDS", "main", "parser_of", "takes_program"]

COMMANDS = {
    "header": "print a header line with the token, for curl -H @-",
    "token": "print the token alone",
    "request": "send one request with the token, and print the answer",
    "run": "run a Python program whose requests are signed",
    "exec": "run any program with the token in its environment",
    "status": "show which tokens there are, without side effects",
    "adopt": "put a token from a login into the store",
    "refresh": "renew a token now",
    "forget": "revoke a token and empty its store",
    "check": "look for what is wrong, and say what to do",
    "init": "write the smallest configuration file, to begin with",
    "demo": "show what this is about, on a server of its own",
    "completion": "print what makes the shell complete all this",
}

# With these the line of a program begins that is a module or a text.
_OF_PYTHON = ("-m", "-c")

_EPILOG = """\
"tokenadapter COMMAND --help" tells more.

exit codes:
  0    done
  1    "check" found something wrong; or an error of none of the other kinds
  2    the arguments are wrong
  3    the configuration is wrong
  4    somebody has to log in again (then: tokenadapter adopt NAME)
  5    it failed for now, later it may not
  6    the token store cannot be used
  22   the API answered "request" with a status of 400 or above
  126, 127  the program of "run" or "exec" cannot be run, or is not there
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the *arguments* say, by default those of the process, and return the exit code."""
    prepare_streams()
    given = sys.argv[1:] if arguments is None else [*arguments]
    if not given or given[0] not in COMMANDS:
        return _without_command(given)
    command, *rest = given
    options: Any = None
    try:
        options = _options(command, rest)
        if options.level is not None:
            from tokenadapter.cli.output import printable_lines
            from tokenadapter.startup.log import begin_log

            begin_log(options.level, printable_lines)
        code: int = _module(command).perform(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read this has gone: nothing is left to say, at the interpreter's end neither.
        sys.stdout = None
        return 141
    except Exception as error:
        # Imported now: a command that succeeds needs none of the errors.
        from tokenadapter.cli.reporting import reported

        code = reported(error, getattr(options, "name", None))
        if not code:
            raise
    return code


def parser_of(command: str) -> ArgumentParser:
    """What reads the arguments of *command*."""
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    module = _module(command)
    summary = COMMANDS[command]
    parser = ArgumentParser(
        prog=f"tokenadapter {command}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=(module.__doc__ or "").partition("\n\n")[2],
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument(
        "-v",
        "--verbose",
        dest="level",
        action="store_const",
        const="INFO",
        help="show what happens to the token, on standard error",
    )
    parser.add_argument(
        "--debug",
        dest="level",
        action="store_const",
        const="DEBUG",
        help="show it in detail, with the tracebacks of your own functions",
    )
    return parser


def takes_program(command: str) -> bool:
    """Whether a program and its arguments stand at the end of *command*."""
    return getattr(_module(command), "TAKES_PROGRAM", False)


def _module(command: str) -> Any:
    # "exec" is no name for a module.
    return import_module(f"tokenadapter.cli.{'execute' if command == 'exec' else command}")


def _options(command: str, rest: Sequence[str]) -> Any:
    """What the arguments after the command mean."""
    plain = getattr(_module(command), "PLAIN", None)
    if plain is not None and len(rest) == 1 and rest[0][:1] not in ("-", ""):
        # As most crontabs have it: argparse alone would take a tenth of the time that this takes.
        return SimpleNamespace(name=rest[0], level=None, **plain)
    parser = parser_of(command)
    if not takes_program(command):
        return parser.parse_args(rest)
    ours, program = _parted(parser, rest)
    options = parser.parse_args(ours)
    options.program = program
    if not program:
        parser.error("what is to be run is missing: it stands at the end")
    return options


def _parted(parser: ArgumentParser, rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that are ours, and the program's line, with or without a ``--`` before it.

    Not left to argparse: it takes the program's options for ours, and what it makes of a second
    ``--`` depends on its version.
    """
    takes_value = {
        option: action.nargs != 0 for action in parser._actions for option in action.option_strings
    }
    names = sum(not action.option_strings for action in parser._actions)
    ours: list[str] = []
    left = [*rest]
    while left and left[0] != "--":
        word = left[0]
        if word[:1] == "-" and word not in _OF_PYTHON:
            count = 2 if takes_value.get(word) else 1
        elif names:
            names, count = names - 1, 1
        else:
            return ours, left
        ours, left = ours + left[:count], left[count:]
    return ours, left[1:]


def _without_command(given: Sequence[str]) -> int:
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    listed = "\n".join(f"  {name:12}{summary}" for name, summary in COMMANDS.items())
    parser = ArgumentParser(
        prog="tokenadapter",
        usage="tokenadapter COMMAND …",
        description="Access tokens that renew themselves, for crontabs, shells and programs.\n\n"
        f"commands:\n{listed}",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    if not given:
        parser.print_help(sys.stderr)
        return 2
    options, rest = parser.parse_known_args(given)
    if not options.version or rest:
        from tokenadapter.config.problems import nearest

        parser.error(f"{given[0]!r} is no command.{nearest(given[0], COMMANDS)}")
    from tokenadapter import __version__

    write_line(f"tokenadapter {__version__}")
    return 0
