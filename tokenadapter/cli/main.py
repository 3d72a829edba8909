"""The entry point: parses the arguments, performs the command, and returns its exit code."""

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
    "header": "print an HTTP header line with the token, for curl -H @-",
    "token": "print the token alone",
    "request": "send one request with the token and print the response",
    "run": "run a Python program and sign its requests",
    "exec": "run any program with the token in its environment",
    "file": "write the token to a file, and keep it fresh there",
    "helper": "give the token to git, kubectl, docker and others",
    "status": "show the state of each token, without side effects",
    "login": "log in with a browser, and store the token",
    "logout": "revoke the token and empty its store",
    "adopt": "store a token from elsewhere",
    "refresh": "renew a token now",
    "forget": "log out, or delete the token of another source or user",
    "check": "find problems and say how to fix them",
    "init": "create a small configuration file to start from",
    "demo": "show processes sharing one token, on a local test server",
    "completion": "print a script for completion in the shell",
}

# The line of a program may begin with one of these: a module, or code.
_OF_PYTHON = ("-m", "-c")

_EPILOG = """\
Start with "tokenadapter demo" or "tokenadapter init".
"tokenadapter COMMAND --help" explains a command.

exit codes:
  0    success
  1    "check" found a problem; or an error of no kind below
  2    wrong arguments
  3    wrong configuration
  4    a new login is needed (then: tokenadapter login NAME)
  5    temporary failure: try again later
  6    the token store cannot be used
  22   the API answered "request" with a status of 400 or above
  126, 127  the program of "run" or "exec" cannot be run, or does not exist
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform the command in *arguments*, by default those of the process; return the exit code."""
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
        # The reader has gone.  Without this, the interpreter would write once more when it exits.
        sys.stdout = None
        return 141
    except Exception as error:
        # Imported here: a command that succeeds needs none of the errors.
        from tokenadapter.cli.reporting import reported
        from tokenadapter.config.config_file import as_arguments

        name = getattr(options, "name", None)
        code = reported(error, None if name is None else as_arguments(name, options.config))
        if not code:
            raise
    return code


def parser_of(command: str) -> ArgumentParser:
    """The parser for the arguments of *command*."""
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
        help="log what happens to the token, to standard error",
    )
    parser.add_argument(
        "--debug",
        dest="level",
        action="store_const",
        const="DEBUG",
        help="log it in detail, with tracebacks of your own functions",
    )
    return parser


def takes_program(command: str) -> bool:
    """Whether *command* ends with a program and its arguments."""
    return getattr(_module(command), "TAKES_PROGRAM", False)


def _module(command: str) -> Any:
    return import_module(f"tokenadapter.cli.{command}")


def _options(command: str, rest: Sequence[str]) -> Any:
    """Parse the arguments after the command."""
    plain = getattr(_module(command), "PLAIN", None)
    if plain is not None and len(rest) == 1 and rest[0][:1] not in ("-", ""):
        # As in most crontabs.  Importing argparse would take a tenth of the time of the command.
        return SimpleNamespace(name=rest[0], level=None, **plain)
    parser = parser_of(command)
    if getattr(_module(command), "TAKES_WORDS", False):
        ours, words = _parted(parser, rest, has_own_options=True)
        options = parser.parse_args(ours)
        options.words = words
        return options
    if not takes_program(command):
        return parser.parse_args(rest)
    ours, program = _parted(parser, rest)
    options = parser.parse_args(ours)
    options.program = program
    if not program:
        parser.error("the program to run is missing: put it at the end of the line")
    return options


def _parted(
    parser: ArgumentParser, rest: Sequence[str], *, has_own_options: bool = False
) -> tuple[list[str], list[str]]:
    """Split the arguments into ours and the program's, with or without a ``--`` between them.

    argparse would take the program's options for ours, and its treatment of a second ``--`` depends
    on its version.

    :param has_own_options: whether the program's part may begin with an option.  No word after its
        first one is ours: pip appends the user of a URL, and the author of the URL could name
        another configuration file.
    """
    takes_value = {
        option: action.nargs != 0 for action in parser._actions for option in action.option_strings
    }
    names = sum(not action.option_strings for action in parser._actions)
    ours: list[str] = []
    left = [*rest]
    while left and left[0] != "--":
        word = left[0]
        if has_own_options and not names and word.partition("=")[0] not in takes_value:
            return ours, left
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
        parser.error(_unknown(given[0]))
    from tokenadapter import __version__

    write_line(f"tokenadapter {__version__}")
    return 0


def _unknown(word: str) -> str:
    from tokenadapter.config.problems import nearest

    if word.startswith("-"):
        return f"unknown option {word!r}. Options of a command come after the command."
    return f"unknown command {word!r}.{nearest(word, COMMANDS)} See `tokenadapter --help`."
