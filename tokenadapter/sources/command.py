"""A program that prints a token: the command line of a cloud, a helper, a script."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from tokenadapter.http.json_path import value_at
from tokenadapter.late_imports import late, load
from tokenadapter.sources import Source
from tokenadapter.sources.reply import NoReply, moment
from tokenadapter.token import Token, fingerprint
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError
    from tokenadapter.sources import outcome, programs
else:
    outcome = late("tokenadapter.sources.outcome")
    programs = late("tokenadapter.sources.programs")

__all__ = ["Command"]

# Where the token and the time of its expiry are: in a token response (RFC 6749 section 5.1), with
# the time that some programs add; an ExecCredential of Kubernetes; the answers of "az account
# get-access-token", "gcloud config config-helper", an executable of Google's workload identity
# federation, and "aws codeartifact get-authorization-token".
_FORMATS = (
    ("access_token", "expires_at"),
    ("status.token", "status.expirationTimestamp"),
    ("accessToken", "expires_on"),
    ("credential.access_token", "credential.token_expiry"),
    ("id_token", "expiration_time"),
    ("authorizationToken", "expiration"),
)


class Command(Source):
    """Tokens that a program prints.

    ::

        Command(["gcloud", "auth", "print-access-token"], lifetime=3600)
        Command(["az", "account", "get-access-token", "--resource", "https://api.example.com"])
        Command(["aws", "eks", "get-token", "--cluster-name", "prod", "--output", "json"])

    The program runs without a shell.  It prints the token alone, or JSON in one of these formats: a
    token response (RFC 6749 section 5.1), an ``ExecCredential`` of Kubernetes, or what ``az account
    get-access-token``, ``gcloud config config-helper --format=json``, ``aws codeartifact
    get-authorization-token`` and the executables of Google's workload identity federation print.

    :param command: the program and its arguments.
    :param timeout: seconds after which the program is killed, and the programs that it started.
    :param lifetime: of a token, in seconds, if the program does not tell it.
    :param directory: to run the program in; by default the working directory.
    :param account: a name for the user: a record of another user is refused.
    :raises TypeError: if *command* is not a list of texts.
    :raises ValueError: if *command* is empty, or a number is not above 0.
    """

    spends = False

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout: float = 30.0,
        lifetime: float | None = None,
        directory: str | os.PathLike[str] | None = None,
        account: str | None = None,
    ) -> None:
        if isinstance(command, (str, bytes)) or not all(isinstance(it, str) for it in command):
            raise TypeError("command must be a list of texts: the program and its arguments")
        if not command or not command[0]:
            raise ValueError("command is empty: give the program and its arguments")
        for name, seconds in (("timeout", timeout), ("lifetime", lifetime)):
            if seconds is not None and not (isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} must be a number of seconds above 0, not {seconds!r}")
        self._command = [os.path.expanduser(command[0]), *command[1:]]
        self._directory = None if directory is None else os.path.expanduser(directory)
        self._lifetime = lifetime
        self.deadline = timeout
        self.urls: Sequence[str] = ()
        self._program = os.path.basename(command[0])
        # Arguments may be secrets.
        self._arguments = fingerprint("\0".join(self._command))
        self.owner: Mapping[str, str] = {
            "grant": "command",
            "command": f"{self._program} {self._arguments}",
        }
        if account is not None:
            self.owner = {**self.owner, "user": account}

    @staticmethod
    def load() -> None:
        """Import what running the program needs."""
        load(outcome, programs)

    @property
    def client_credential(self) -> str:
        """The fingerprint of the program and its arguments."""
        return self._arguments

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        return [Credential("command", self.client_credential)]

    def __repr__(self) -> str:
        return f"<Command {self._program}>"

    def _present(self, credential: Credential) -> Token | TokenError:
        attempt = outcome.Attempt(f"the command {self._program}", credential.kind, set())
        ran_at = time.time()
        try:
            printed = programs.output_of(self._command, self.deadline, self._directory)
        except programs.ProgramFailed as error:
            missing = NoReply(
                str(error),
                sent=False,
                lasting=error.is_lasting,
                local=error.is_lasting,
                advice="Check the command." if error.is_lasting else "Try again later.",
            )
            return outcome.no_answer(attempt, missing)
        token = self._token(printed, ran_at)
        if isinstance(token, Token):
            return token
        advice = "Check what the command prints."
        return outcome.no_answer(attempt, NoReply(token, False, lasting=True, advice=advice))

    def _token(self, printed: bytes, ran_at: float) -> Token | str:
        """The token in what the program printed, or why there is none."""
        try:
            text = printed.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return "it printed something other than text"
        said = _parsed(text)
        found = _found(said, ran_at)
        if found is None:
            if isinstance(said, dict):
                return f"it printed JSON without a token in a known format: {', '.join(said):.200}"
            if not text or text.split() != [text] or text[0] in "<{[":
                return "it printed something other than a token"
            found = {"access_token": said if isinstance(said, str) else text}
        if self._lifetime is not None:
            found.setdefault("expires_in", self._lifetime)
        try:
            return Token.from_response(found, requested_at=ran_at)
        except ValueError as error:
            return str(error)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _found(said: Any, ran_at: float) -> dict[str, Any] | None:
    """The token in *said*, as in a token response."""
    for token_path, end_path in _FORMATS:
        token, end = value_at(said, token_path), moment(value_at(said, end_path))
        if isinstance(token, str) and token:
            response = dict(said) if token_path == "access_token" else {}
            if end is not None:
                response.setdefault("expires_in", end - ran_at)
            return {**response, "access_token": token}
    return None
