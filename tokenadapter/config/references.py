"""References to secrets that are kept outside of the configuration file, and how they are read.

=============================================  ==============================================
``{ env = "BILLING_SECRET" }``                 an environment variable
``{ file = "~/.config/billing/secret" }``      a file; a relative path counts from the
                                               configuration file
``{ command = ["pass", "show", "billing"] }``  what a program prints within 60 s; it runs in the
                                               directory of the configuration file, and a relative
                                               path of the program counts from there
``{ keyring = "service/user" }``               the keyring of the system
=============================================  ==============================================

Line ends after the secret are removed.  Errors name the key, never the secret.

Only a secret may come from a command or the keyring: all other values are read together with the
profile, and reading a profile runs no program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from errno import EACCES, EIO, ENOENT
from typing import TYPE_CHECKING, Any

from tokenadapter.config.problems import ProfileError
from tokenadapter.late_imports import late, load

if TYPE_CHECKING:
    import re
    import shutil
    import subprocess

    import keyring
    from keyring import errors as keyring_errors

    from tokenadapter import spelling
else:
    re = late("re")
    keyring = late("keyring")
    keyring_errors = late("keyring.errors")
    shutil = late("shutil")
    spelling = late("tokenadapter.spelling")
    subprocess = late("subprocess")

__all__ = ["KINDS", "PLAIN_KINDS", "Reference", "is_reference", "references_in", "resolved"]

KINDS = ("env", "file", "command", "keyring")
PLAIN_KINDS = ("env", "file")
"""Where values may be kept that are not secret."""

# Seconds that a command may take: a person may have to enter a PIN.
_COMMAND_TIMEOUT = 60
# Names of variables.  A longer name in lower case may be a secret.
_VARIABLE_NAME = r"[A-Z_][A-Z0-9_]*|\w{1,20}"


def is_reference(value: object) -> bool:
    """Whether *value* is a table that says where a secret is kept."""
    return isinstance(value, Mapping) and len(value) == 1 and not value.keys().isdisjoint(KINDS)


class Reference:
    """The place of one secret.

    :param kind: one of :data:`KINDS`.
    :param place: the variable, path, command or entry.
    :param key: the key that the secret is for, for messages.
    :param file: the configuration file.
    :ivar has_lines: whether the secret has several lines, as a key in PEM has.
    """

    __slots__ = ("file", "has_lines", "key", "kind", "place")

    def __init__(self, kind: str, place: Any, key: str, file: str) -> None:
        self.kind: str = kind
        self.place: Any = place
        self.key: str = key
        self.file: str = file
        self.has_lines: bool = False

    def __repr__(self) -> str:
        return f"<Reference {self.key} {self.kind}>"

    @property
    def path(self) -> str:
        """The file of a ``file`` reference."""
        return os.path.join(self._here, os.path.expanduser(self.place))

    @property
    def program(self) -> str | None:
        """The path of the program of a ``command`` reference; ``None`` if there is none."""
        name = os.path.expanduser(self.place[0])
        if os.path.dirname(name):
            name = os.path.join(self._here, name)
        # An empty or relative entry of PATH counts from the directory in which the program runs.
        places = [os.path.join(self._here, place) for place in os.get_exec_path()]
        found: str | None = shutil.which(name, path=os.pathsep.join(places))
        return found

    # The file may contain the secret itself where the name of a variable or a path belongs.

    @property
    def _shown_variable(self) -> str:
        return self.place if re.fullmatch(_VARIABLE_NAME, self.place, re.ASCII) else "…"

    @property
    def _shown_path(self) -> str:
        return spelling.shown_path(self.path)

    @property
    def _here(self) -> str:
        return os.path.dirname(self.file)

    def expected(self) -> str | None:
        """What *place* should be, if it is something else."""
        if self.kind == "command":
            is_list = isinstance(self.place, list) and self.place
            if not is_list or not all(isinstance(part, str) for part in self.place):
                return "a list of strings: the program and its arguments"
        elif not isinstance(self.place, str) or not self.place:
            return "a string"
        elif self.kind == "keyring" and not all(self.place.rpartition("/")):
            return 'a string such as "service/user"'
        return None

    def read(self) -> str:
        """Read the secret.

        :raises ProfileError: if it cannot be read.
        """
        secret = _READERS[self.kind](self).rstrip("\r\n")
        if not secret:
            raise self._empty()
        if "\n" in secret and not self.has_lines:
            raise self._error(
                f"{self._described()} has {secret.count(chr(10)) + 1} lines: only the secret "
                "should be there, on one line."
            )
        return secret

    def check(self) -> None:
        """Check whether the secret can be there, without reading it or running anything.

        :raises ProfileError: if it cannot.
        """
        _CHECKS[self.kind](self)

    def _empty(self) -> ProfileError:
        return self._error(f"{self._described()} is empty.")

    def _described(self) -> str:
        if self.kind == "env":
            return f"The environment variable {self._shown_variable}"
        if self.kind == "file":
            return f"The file {self._shown_path}"
        if self.kind == "keyring":
            return f"The keyring's entry {self.place}"
        return f"The output of {self.place[0]}"

    def _error(self, problem: str) -> ProfileError:
        return ProfileError(problem, file=self.file, key=self.key)

    def _read_variable(self) -> str:
        self._check_variable()
        return os.environ[self.place]

    def _check_variable(self) -> None:
        if self.place not in os.environ:
            raise self._error(
                f"{self._described()} is not set. cron and systemd do not set "
                "the variables of a login shell: set it there, or keep the secret in a file."
            )
        if not os.environ[self.place].strip("\r\n"):
            raise self._empty()

    def _read_file(self) -> str:
        try:
            with open(self.path, encoding="utf-8-sig") as file:
                return file.read()
        except OSError as error:
            raise self._unreadable(error.errno) from None
        except UnicodeDecodeError:
            raise self._error(f"The file {self.path} is not UTF-8 text.") from None

    def _check_file(self) -> None:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise self._unreadable(error.errno) from None
        if not os.access(self.path, os.R_OK):
            raise self._unreadable(EACCES)
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            raise self._empty()

    def _unreadable(self, reason: int | None) -> ProfileError:
        if reason == ENOENT:
            return self._error(
                f"The file {self._shown_path} does not exist. Create it, with the value of this "
                "key as its only content."
            )
        return self._error(
            f"The file {self._shown_path} cannot be read: {os.strerror(reason or EIO)}."
        )

    def _check_program(self) -> None:
        if self.program is not None:
            return
        name = os.path.expanduser(self.place[0])
        if os.path.dirname(name):
            raise self._error(f"{os.path.join(self._here, name)} is not an executable program.")
        raise self._error(
            f"There is no program {name} in PATH ({os.environ.get('PATH', 'not set')}): give the "
            "full path."
        )

    def _read_output(self) -> str:
        program = self.place[0]
        command = [self.program or os.path.expanduser(program), *self.place[1:]]
        try:
            # Its standard error is ours: its messages say more than an exit code.
            done = subprocess.run(
                command,
                # The working directory may be another user's, and arguments may be paths.
                cwd=self._here,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=_COMMAND_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise self._error(f"{program} did not finish within {_COMMAND_TIMEOUT} s.") from None
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise self._error(
                f"{program} cannot be run: {why}. cron sets a short PATH: give the full path."
            ) from None
        if done.returncode:
            raise self._error(f"{program} failed with exit code {done.returncode}.")
        try:
            return done.stdout.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._error(f"The output of {program} is not UTF-8 text.") from None

    def _check_keyring(self) -> None:
        """Import the package only: a keyring that is read may ask a person to unlock it."""
        try:
            load(keyring, keyring_errors)
        except ImportError:
            raise self._error(
                "The keyring needs a package: run `pip install 'tokenadapter[keyring]'`."
            ) from None

    def _read_keyring(self) -> str:
        self._check_keyring()
        service, _, user = self.place.rpartition("/")
        try:
            secret = keyring.get_password(service, user)
        except keyring_errors.KeyringError as error:
            raise self._error(
                f"The keyring cannot be read ({type(error).__name__}): {error}. Without a login "
                "session, as under cron, it is locked: keep the secret in a file there."
            ) from None
        if secret is None:
            raise self._error(
                f"The keyring has no entry for service {service!r} and user {user!r}: run "
                f"`keyring set {service} {user}`."
            )
        return secret


_READERS: Mapping[str, Callable[[Reference], str]] = {
    "env": Reference._read_variable,
    "file": Reference._read_file,
    "command": Reference._read_output,
    "keyring": Reference._read_keyring,
}
_CHECKS: Mapping[str, Callable[[Reference], None]] = {
    "env": Reference._check_variable,
    "file": Reference._check_file,
    "command": Reference._check_program,
    "keyring": Reference._check_keyring,
}


def references_in(value: Any) -> list[Reference]:
    """The references in *value*."""
    found: list[Reference] = []
    resolved(value, found.append)
    return found


def resolved(value: Any, read: Callable[[Reference], Any]) -> Any:
    """*value* with each reference in it replaced by the result of *read*."""
    if isinstance(value, Reference):
        return read(value)
    if isinstance(value, Mapping):
        return {name: resolved(item, read) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(item, read) for item in value]
    return value
