"""``tokenadapter init``: a configuration file to begin with.

It has the smallest profile there is. Edit it, then let "tokenadapter check" look at it. It goes
where the other commands look for it, readable for you alone; a file that is there is left as it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tokenadapter.cli.common import add_config
from tokenadapter.cli.output import write_line
from tokenadapter.config.config_file import EXAMPLE, named_file, users_file
from tokenadapter.config.problems import ProfileError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_config(parser)


def perform(options: Namespace) -> int:
    """Write the file."""
    if options.config is None:
        path = named_file() or users_file()
    else:
        path = os.path.abspath(os.path.expanduser(options.config))
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # Also of a link that leads nowhere, this makes no file.
        with open(path, "x", encoding="utf-8", opener=_opener) as file:
            file.write(EXAMPLE)
    except OSError as error:
        if os.path.lexists(path):
            raise ProfileError("It is there already, and was left as it is.", file=path) from None
        raise ProfileError(f"It cannot be written: {error.strerror}.", file=path) from None
    write_line(f"{path}: edit it, and run `tokenadapter check`.")
    return 0


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
