"""``tokenadapter exec``: runs any program with the token in its environment or on a descriptor.

  tokenadapter exec billing --env API_TOKEN ./report --month 5
  tokenadapter exec billing --fd 3 sh -c 'deploy --token-file /dev/fd/3'

The program replaces this process, so exit code and signals are those of the program. The program
cannot renew its token: if it runs for long, pass --min-validity, or let it call tokenadapter
itself. The environment variables with the profile's secrets are removed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenadapter.cli.common import add_min_validity, add_name, named_profile, usable_token
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.references import is_reference

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from tokenadapter.config.profile import Profile

__all__ = ["NOT_THERE", "TAKES_PROGRAM", "add_arguments", "exec_program", "perform"]

TAKES_PROGRAM = True
"""The command ends with a program and its arguments."""

NOT_THERE = 127
"""The exit code if there is no such program, as in shells."""
_NOT_RUNNABLE = 126


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.usage = (
        "%(prog)s NAME [--env VAR | --fd N] [--min-validity TIME] [--config FILE] [--] PROGRAM …"
    )
    add_name(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--env",
        metavar="VAR",
        type=_variable,
        default="ACCESS_TOKEN",
        help="the environment variable for the token (default: ACCESS_TOKEN)",
    )
    way.add_argument(
        "--fd",
        metavar="N",
        type=_descriptor,
        help="the file descriptor from which the program reads the token",
    )
    add_min_validity(parser)


def perform(options: Namespace) -> int:
    """Run the program."""
    profile = named_profile(options)
    token = usable_token(profile, options.min_validity)
    # The program would also replace a renewal in the background: wait for it.
    keeper = profile.keeper()
    keeper.wait(keeper.lock_timeout)
    token = keeper.fresh() or token
    environment = _without_secrets(profile)
    if options.fd is None:
        environment[options.env] = token.access_token
    else:
        _offer(token.access_token, options.fd)
    return exec_program(options.program, environment)


def _without_secrets(profile: Profile) -> dict[str, str]:
    """The environment without the variables that obtain a token or open the store: the program
    gets the token, and nothing else."""
    store: Any = profile.config.table(profile.name).get("store")
    taken = {store["env"]} if is_reference(store) and "env" in store else set()
    taken |= {each.place for each in profile.references() if each.kind == "env"}
    return {name: value for name, value in os.environ.items() if name not in taken}


def _variable(text: str) -> str:
    if text and not set(text) & {"=", "\0"}:
        return text
    from argparse import ArgumentTypeError

    raise ArgumentTypeError(f"{text!r} cannot be the name of an environment variable")


def _descriptor(text: str) -> int:
    if text.isdecimal() and 2 < int(text) < 256:
        return int(text)
    from argparse import ArgumentTypeError

    raise ArgumentTypeError(f"invalid file descriptor {text!r}: give one from 3 to 255")


def _offer(secret: str, fd: int) -> None:
    """Make *secret* readable from the descriptor *fd*, once."""
    end, source = os.pipe()
    os.set_blocking(source, False)
    # A pipe has room for any token.  If not, half a token is useless.
    content = secret.encode()
    written = os.write(source, content)
    os.close(source)
    if written < len(content):
        os.close(end)
        raise ProfileError(
            f"The token is too long for a pipe, which has room for {written} bytes here: use "
            "--env instead of --fd."
        )
    if end != fd:
        os.dup2(end, fd)
        os.close(end)
    os.set_inheritable(fd, True)


def exec_program(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run *command* in place of this process, with *environment*.

    :returns: an exit code, if the program cannot be run, or if processes cannot be replaced here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if os.name == "nt":
            # On Windows, a process that is replaced seems to end at once to its parent.
            from subprocess import call

            return call([*command], env=environment)  # noqa: S603 - the user's own command
        os.execvpe(command[0], [*command], environment)  # noqa: S606 - so is this
    except FileNotFoundError:
        from shutil import which

        if which(command[0]) is not None:
            sys.stderr.write(
                f"tokenadapter: {command[0]} cannot be run: the interpreter in its first line, "
                "after #!, does not exist\n"
            )
            return _NOT_RUNNABLE
        sys.stderr.write(f"tokenadapter: there is no program {command[0]}\n")
        return NOT_THERE
    except OSError as error:
        sys.stderr.write(f"tokenadapter: {command[0]} cannot be run: {error.strerror}\n")
        return _NOT_RUNNABLE
