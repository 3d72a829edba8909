"""Where a secret is kept instead of in the file, and how it is read from there.

=============================================  ==============================================
``{ env = "BILLING_SECRET" }``                 an environment variable
``{ file = "~/.config/billing/secret" }``      a file; a relative path counts from the
                                               configuration file
``{ command = ["pass", "show", "billing"] }``  what a program prints, within 60 s
``{ keyring = "service/user" }``               the keyring of the system
=============================================  ==============================================

Line ends behind the secret are not part of it.  Errors name the key, and never the secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tokenadapter.config.trouble import ProfileError
from tokenadapter.late import late, load

if TYPE_CHECKING:
    import subprocess

    import keyring
    from keyring import errors as keyring_errors
else:
    keyring = late("keyring")
    keyring_errors = late("keyring.errors")
    subprocess = late("subprocess")

__all__ = ["KINDS", "Reference", "is_reference", "resolved"]

KINDS = ("env", "file", "command", "keyring")

# Seconds: a person may have to enter a PIN.
_PATIENCE = 60


def is_reference(value: object) -> bool:
    """Whether *value* is a table that says where a secret is kept."""
    return isinstance(value, Mapping) and len(value) == 1 and not value.keys().isdisjoint(KINDS)


class Reference:
    """One secret's place.

    :param kind: one of :data:`KINDS`.
    :param place: what stands behind it.
    :param key: the key that it was given for, for messages.
    :param file: the configuration file.
    """

    __slots__ = ("file", "key", "kind", "place")

    def __init__(self, kind: str, place: Any, key: str, file: str) -> None:
        self.kind: str = kind
        self.place: Any = place
        self.key: str = key
        self.file: str = file

    def __repr__(self) -> str:
        return f"<Reference {self.key} {self.kind}={self.place!r}>"

    @property
    def path(self) -> str:
        """The file of a ``file`` reference."""
        return os.path.join(os.path.dirname(self.file), os.path.expanduser(self.place))

    def expected(self) -> str | None:
        """What should stand there, if something else does."""
        if self.kind == "command":
            is_list = isinstance(self.place, list) and self.place
            if not is_list or not all(isinstance(part, str) for part in self.place):
                return "a list of texts, the program and its arguments"
        elif not isinstance(self.place, str) or not self.place:
            return "a text"
        elif self.kind == "keyring" and not all(self.place.rpartition("/")):
            return 'a text such as "service/user"'
        return None

    def read(self) -> str:
        """The secret.

        :raises ProfileError: if it is not there.
        """
        secret = _READERS[self.kind](self).rstrip("\r\n")
        if not secret:
            raise self._error(f"{self._told()} is empty.")
        if "\n" in secret:
            raise self._error(
                f"{self._told()} has {secret.count(chr(10)) + 1} lines: the secret alone should "
                "stand there."
            )
        return secret

    def _told(self) -> str:
        if self.kind == "env":
            return f"The environment variable {self.place}"
        if self.kind == "file":
            return f"The file {self.path}"
        if self.kind == "keyring":
            return f"The keyring's entry {self.place}"
        return f"What {self.place[0]} prints"

    def _error(self, problem: str) -> ProfileError:
        return ProfileError(problem, file=self.file, key=self.key)

    def _read_variable(self) -> str:
        try:
            return os.environ[self.place]
        except KeyError:
            raise self._error(
                f"The environment variable {self.place} is not set here. cron and systemd set "
                "none of those that a login sets: give it there, or keep the secret in a file."
            ) from None

    def _read_file(self) -> str:
        try:
            with open(self.path, encoding="utf-8-sig") as file:
                return file.read()
        except OSError as error:
            raise self._error(f"The file {self.path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise self._error(f"The file {self.path} is not text in UTF-8.") from None

    def _read_output(self) -> str:
        program = self.place[0]
        command = [os.path.expanduser(program), *self.place[1:]]
        try:
            # Its complaints go where ours go: they say more than an exit code does.
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise self._error(f"{program} has printed nothing within {_PATIENCE} s.") from None
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise self._error(
                f"{program} cannot be run: {why}. cron's PATH is short: give the full path."
            ) from None
        if done.returncode:
            raise self._error(f"{program} ended with exit code {done.returncode}.")
        try:
            return done.stdout.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._error(f"What {program} prints is not text in UTF-8.") from None

    def _read_keyring(self) -> str:
        try:
            load(keyring, keyring_errors)
        except ImportError:
            raise self._error(
                "The keyring needs a package: pip install 'tokenadapter[keyring]'."
            ) from None
        service, _, user = self.place.rpartition("/")
        try:
            secret = keyring.get_password(service, user)
        except keyring_errors.KeyringError as error:
            raise self._error(
                f"The keyring cannot be read ({type(error).__name__}): {error}. Where nobody is "
                "logged in, as under cron, it is locked: keep the secret in a file there."
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


def resolved(value: Any, read: Callable[[Reference], Any]) -> Any:
    """*value* with each reference in it replaced by what *read* makes of it."""
    if isinstance(value, Reference):
        return read(value)
    if isinstance(value, Mapping):
        return {name: resolved(item, read) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(item, read) for item in value]
    return value
