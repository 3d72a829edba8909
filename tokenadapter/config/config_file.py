"""The configuration file: where it is searched for, who may have written it, and its content.

The first of these that exists is used, alone:

1. the file that the caller names: ``from_profile(…, config=…)``, ``--config`` of a command;
2. the file that the environment variable ``TOKENADAPTER_CONFIG`` names;
3. ``tokenadapter/tokenadapter.toml`` in the user's configuration directory: that is
   ``$XDG_CONFIG_HOME``, or else ``~/.config``; on Windows ``%APPDATA%``.

A configuration names programs to run and servers to send secrets to.  So the working directory is
never searched: it may be a repository that the user cloned and somebody else wrote.  For the same
reason, as in ssh, a file that another user may have written is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenadapter.config.problems import ProfileError, nearest
from tokenadapter.groups import lets_others
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import re
    import shlex
    import tomllib
else:
    re = late("re")
    shlex = late("shlex")
    tomllib = late("tomllib")

__all__ = [
    "EXAMPLE",
    "ConfigFile",
    "as_arguments",
    "is_missing",
    "line_of",
    "locate",
    "named_file",
    "users_file",
    "xdg_directory",
]

EXAMPLE = """\
[billing]
prefix = "https://api.example.com/"

[billing.source]
type = "client_credentials"
token_url = "https://id.example.com/token"
client_id = "billing"
# A file in this directory, of mode 0600, that contains only the secret.
client_secret = { file = "billing-secret" }
"""
"""The smallest configuration."""

_FILE_NAME = "tokenadapter.toml"
_VARIABLE = "TOKENADAPTER_CONFIG"


class ConfigFile:
    """A configuration file that was read.

    :ivar path: its path.
    :ivar tables: the profiles' tables, by name.
    :ivar text: its content.
    """

    def __init__(self, path: str, text: str, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self.path = path
        self.tables = tables
        self.text = text

    @classmethod
    def read(cls, path: str | None = None) -> ConfigFile:
        """Read the file *path*, or the one that :func:`locate` finds.

        :raises ProfileError: if the file does not exist, cannot be trusted, or cannot be read.
        """
        path = locate() if path is None else os.path.abspath(os.path.expanduser(path))
        try:
            text = _content(path).decode()
        except FileNotFoundError:
            raise ProfileError("The file does not exist.", file=path) from None
        except OSError as error:
            raise ProfileError(f"The file cannot be read: {error.strerror}.", file=path) from None
        except UnicodeDecodeError as error:
            raise ProfileError(
                f"The file is not UTF-8 text (byte {error.start}).", file=path
            ) from None
        return cls.parsed(path, text)

    @classmethod
    def parsed(cls, path: str, text: str) -> ConfigFile:
        """The file *path*, if its content were *text*.

        :raises ProfileError: if *text* is no configuration.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            hint = ' A text needs quotes: "...".' if "Invalid value" in str(error) else ""
            raise ProfileError(f"The file is not valid TOML: {error}.{hint}", file=path) from None
        made = cls(path, text, tables)
        for name, table in tables.items():
            made._check_profile(name, table)
        return made

    def table(self, name: str) -> Mapping[str, Any]:
        """The table of the profile *name*.

        :raises ProfileError: if there is no such profile.
        """
        try:
            return self.tables[name]
        except KeyError:
            raise ProfileError(
                f"There is no profile {name!r}.{nearest(name, self.tables)} "
                f"Profiles in this file: {', '.join(self.tables) or 'none'}.",
                file=self.path,
            ) from None

    def error(self, key: Sequence[str], problem: str) -> ProfileError:
        """The error for a problem at *key*."""
        return ProfileError(
            problem, file=self.path, line=line_of(self.text, key), key=".".join(key)
        )

    def _check_profile(self, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise self.error(
                [name],
                "The key is outside any profile: put it below the header of one, such as "
                "[billing].",
            )
        # The name becomes a file name, and an argument of commands.
        plain = name.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum()) or name[0] in "-.":
            raise self.error(
                [name],
                "The name of a profile consists of letters, digits, '-', '_' and '.', and does not "
                "begin with '-' or '.'.",
            )


def locate() -> str:
    """The path of the configuration file.

    :raises ProfileError: if there is none.
    """
    path = named_file()
    if path is not None:
        if is_missing(path):
            raise ProfileError(
                f"The file does not exist, but {_VARIABLE} names it. Run `tokenadapter init` to "
                "create it.",
                file=path,
            )
        return path
    path = users_file()
    if not is_missing(path):
        return path
    ignored = (
        f" The {_FILE_NAME} in the working directory is not read, since somebody else may have "
        f"written it. To use it all the same, name it with --config or {_VARIABLE}."
        if os.path.lexists(_FILE_NAME)
        else ""
    )
    raise ProfileError(
        f"There is no configuration file: {_VARIABLE} is not set, and {path} does not exist."
        f"{ignored} Run `tokenadapter init` to create the one below, then edit it:\n\n{EXAMPLE}"
    )


def is_missing(path: str) -> bool:
    """Whether there is no file *path*; ``False`` if that cannot be determined: the error of reading
    the file then says why."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def named_file() -> str | None:
    """The path of the file that the environment names, whether or not it exists."""
    named = os.environ.get(_VARIABLE)
    return os.path.abspath(os.path.expanduser(named)) if named else None


def as_arguments(profile: str, path: str | None) -> str:
    """How a command line names a *profile* of the file *path*: with ``--config``, unless the
    command would find the file by itself.

    :param path: ``None`` for the file that commands find by themselves.
    """
    default = named_file() or users_file()
    path = default if path is None else os.path.abspath(os.path.expanduser(path))
    return profile if path == default else f"{profile} --config {shlex.quote(path)}"


def users_file() -> str:
    """The path of the user's own configuration file, whether or not it exists."""
    return os.path.join(_user_directory(), "tokenadapter", _FILE_NAME)


def _user_directory() -> str:
    if os.name == "nt":
        return os.environ.get("APPDATA") or os.path.expanduser("~")
    return xdg_directory("XDG_CONFIG_HOME", "~/.config")


def xdg_directory(variable: str, default: str) -> str:
    """The directory that *variable* names, unless the path is relative: the XDG Base Directory
    Specification says to ignore it then."""
    given = os.environ.get(variable, "")
    return given if os.path.isabs(given) else os.path.expanduser(default)


def _content(path: str) -> bytes:
    # Checked after it was opened: now nobody can replace it by another file.
    with open(path, "rb", opener=_opener) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ProfileError("This is not a regular file.", file=path)
        if os.name != "nt":
            # A link is checked too: relative paths count from its directory.
            _check_owner(path, os.lstat(path))
            _check_owner(path, found)
            _check_writers(path, found)
        return file.read()


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for a writer


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ProfileError(
            f"The file belongs to another user (uid {found.st_uid}), who could make tokenadapter "
            f"run any program. Name a file of your own with --config or {_VARIABLE}.",
            file=path,
        )


def _check_writers(path: str, found: os.stat_result) -> None:
    if lets_others(found, 0o022):
        raise ProfileError(
            f"Other users can write to the file (mode {stat.S_IMODE(found.st_mode):04o}), and so "
            f"make tokenadapter run any program. Run `chmod go-w {shlex.quote(path)}`.",
            file=path,
        )


# --- lines, for messages ------------------------------------------------------------------

_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_PATH = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = rf"\s*\[\[?\s*({_PATH})\s*\]"
_KEY = rf"\s*({_PATH})\s*="


def line_of(text: str, key: Sequence[str]) -> int | None:
    """The number of the line of *key*, from 1, or else of the table that it belongs to; ``None`` if
    neither is there.

    ``tomllib`` does not report lines.  This function reads no values, so a line within a multi-line
    string can deceive it: then a message names a wrong line, and the right key.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(_HEADER, line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif assignment := re.match(_KEY, line):
            lines.setdefault((*table, *_parts(assignment[1])), number)
    for length in range(len(key), 0, -1):
        if tuple(key[:length]) in lines:
            return lines[tuple(key[:length])]
    return None


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, path))
