"""The configuration file: where it is looked for, who may have written it, and what it holds.

The first of these that exists is used, alone:

1. the file that is named: ``from_profile(…, config=…)``, ``tokenadapter --config``;
2. the file that the environment variable ``TOKENADAPTER_CONFIG`` names;
3. ``tokenadapter/tokenadapter.toml`` in the user's configuration directory: that is
   ``$XDG_CONFIG_HOME``, or else ``~/.config``; on Windows ``%APPDATA%``.

A configuration names programs to run and servers to send secrets to.  So the working directory is
never searched: it may be a repository that somebody else wrote, and the user only cloned.  For the
same reason a file that another user may have written is refused, as ssh does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenadapter.config.problems import ProfileError, nearest
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import re
    import shlex
    import tomllib
else:
    re = late("re")
    shlex = late("shlex")
    tomllib = late("tomllib")

__all__ = ["EXAMPLE", "ConfigFile", "line_of", "locate", "named_file", "users_file"]

EXAMPLE = """\
[billing]
prefix = "https://api.example.com/"

[billing.source]
type = "client_credentials"
token_url = "https://id.example.com/token"
client_id = "billing"
client_secret = { file = "billing-secret" }
"""
"""The smallest configuration."""

NAME = "tokenadapter.toml"
VARIABLE = "TOKENADAPTER_CONFIG"


class ConfigFile:
    """A configuration file that was read.

    :ivar path: where it is.
    :ivar tables: what it says, by the names of the profiles.
    """

    def __init__(self, path: str, text: str, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self.path = path
        self.tables = tables
        self._text = text

    @classmethod
    def read(cls, path: str | None = None) -> ConfigFile:
        """Read the file *path*, or the one that :func:`locate` finds.

        :raises ProfileError: if there is none, it must not be used, or it cannot be read.
        """
        path = locate() if path is None else os.path.abspath(os.path.expanduser(path))
        try:
            text = _content(path).decode()
        except FileNotFoundError:
            raise ProfileError("There is no such file.", file=path) from None
        except OSError as error:
            raise ProfileError(f"It cannot be read: {error.strerror}.", file=path) from None
        except UnicodeDecodeError as error:
            raise ProfileError(
                f"It is not text in UTF-8 (byte {error.start}).", file=path
            ) from None
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(f"It is not TOML: {error}.", file=path) from None
        made = cls(path, text, tables)
        for name, table in tables.items():
            made._check_profile(name, table)
        return made

    def table(self, name: str) -> Mapping[str, Any]:
        """What the file says about the profile *name*.

        :raises ProfileError: if that is nothing.
        """
        try:
            return self.tables[name]
        except KeyError:
            raise ProfileError(
                f"There is no profile {name!r}.{nearest(name, self.tables)} There {self._are()}.",
                file=self.path,
            ) from None

    def error(self, key: Sequence[str], problem: str) -> ProfileError:
        """The error of what stands at *key*."""
        return ProfileError(
            problem, file=self.path, line=line_of(self._text, key), key=".".join(key)
        )

    def _are(self) -> str:
        names = ", ".join(self.tables)
        return f"is {names}" if len(self.tables) == 1 else f"are {names or 'none at all'}"

    def _check_profile(self, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise self.error(
                [name], "It stands outside of a profile: begin with one, such as [billing]."
            )
        # It becomes a file name, and an argument of commands.
        plain = name.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum()) or name[0] in "-.":
            raise self.error(
                [name], "A profile is named with letters, digits, '-', '_' and '.' inside."
            )


def locate() -> str:
    """The path of the configuration file.

    :raises ProfileError: if there is none.
    """
    path = named_file()
    if path is not None:
        if not os.path.exists(path):
            raise ProfileError(
                f"There is no such file, but {VARIABLE} names it: `tokenadapter init` writes one.",
                file=path,
            )
        return path
    path = users_file()
    if os.path.lexists(path):
        return path
    passed_over = (
        f" The {NAME} in the working directory is not read unless you name it, by --config or by "
        f"{VARIABLE}: it could come from somebody else."
        if os.path.lexists(NAME)
        else ""
    )
    raise ProfileError(
        f"There is no configuration file: {VARIABLE} is not set, and there is no {path}."
        f"{passed_over} `tokenadapter init` writes a small one, to be edited:\n\n{EXAMPLE}"
    )


def named_file() -> str | None:
    """The path of the file that the environment names, whether or not it exists."""
    named = os.environ.get(VARIABLE)
    return os.path.abspath(os.path.expanduser(named)) if named else None


def users_file() -> str:
    """The path of the user's own configuration file, whether or not it exists."""
    return os.path.join(_user_directory(), "tokenadapter", NAME)


def _user_directory() -> str:
    if os.name == "nt":
        return os.environ.get("APPDATA") or os.path.expanduser("~")
    # A relative one is to be ignored, says the XDG Base Directory Specification.
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return given if os.path.isabs(given) else os.path.expanduser("~/.config")


def _content(path: str) -> bytes:
    # Looked at after it was opened: by then nobody can put another in its place.
    with open(path, "rb", opener=_opener) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ProfileError("It is not a regular file.", file=path)
        if os.name != "nt":
            # Of a link, too: relative paths count from where that is.
            _check_owner(path, os.lstat(path))
            _check_owner(path, found)
            _check_writers(path, found)
        return file.read()


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for a writer


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ProfileError(
            f"It belongs to another user (number {found.st_uid}), who could have this run any "
            f"program: name your own by --config or {VARIABLE}, or change to another directory.",
            file=path,
        )


def _check_writers(path: str, found: os.stat_result) -> None:
    if found.st_mode & 0o022:
        raise ProfileError(
            f"Others may write it (mode {stat.S_IMODE(found.st_mode):04o}) and so have this run "
            f"any program: run `chmod go-w {shlex.quote(path)}`.",
            file=path,
        )


# --- lines, for messages ------------------------------------------------------------------

_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_PATH = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = rf"\s*\[\[?\s*({_PATH})\s*\]"
_KEY = rf"\s*({_PATH})\s*="


def line_of(text: str, key: Sequence[str]) -> int | None:
    """The number of the line, from 1, where *key* stands, or else what it would stand in."""
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
