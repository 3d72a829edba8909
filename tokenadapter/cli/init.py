"""``tokenadapter init``: creates a configuration file to start from.

The file contains one small profile. Edit it, then run "tokenadapter check". The other commands find
the file where this command creates it; only you can read it. An existing file is never changed.
With --provider, the profile is for a user who logs in at this provider.
"""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_config
from tokenadapter.cli.output import write_line
from tokenadapter.config.config_file import EXAMPLE, named_file, users_file
from tokenadapter.config.problems import ProfileError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "config_path", "create", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_config(parser)
    parser.add_argument(
        "--provider", metavar="NAME", help="write the profile for a known provider, such as google"
    )


def perform(options: Namespace) -> int:
    """Write the file."""
    text = EXAMPLE if options.provider is None else _profile_for(options.provider)
    path = config_path(options.config)
    try:
        create(path, text)
    except OSError as error:
        if os.path.lexists(path):
            problem = "The file exists already and was not changed."
            if options.provider is not None:
                problem += f" Add this profile to it:\n\n{text}"
            raise ProfileError(problem, file=path) from None
        raise ProfileError(f"The file cannot be written: {error.strerror}.", file=path) from None
    check, login = "tokenadapter check", f"tokenadapter login {options.provider}"
    if options.config is not None:
        where = f" --config {quote(options.config)}"
        check, login = check + where, login + where
    then = "" if options.provider is None else f" and `{login}`"
    write_line(f"Created {path}. Edit it, then run `{check}`{then}.")
    return 0


def config_path(named: str | None) -> str:
    """The path of the configuration file, whether or not it exists.

    :param named: the path in the arguments, if there is one.
    """
    if named is None:
        return named_file() or users_file()
    return os.path.abspath(os.path.expanduser(named))


def create(path: str, text: str) -> None:
    """Write the new file *path*, which only its owner can read.

    :raises OSError: if it exists, or cannot be written.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    # This does not write through a broken link either.
    with open(path, "x", encoding="utf-8", opener=_opener) as file:
        file.write(text)


def _profile_for(name: str) -> str:
    from tokenadapter.sources.providers import example

    try:
        return example(name)
    except ValueError as error:
        raise ProfileError(f"{error}.") from None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
