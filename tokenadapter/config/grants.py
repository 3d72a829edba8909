"""The source of a profile: a grant that reads its secrets only when it presents something.

A fresh token needs no secret, so no password manager is asked and no keyring is unlocked.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenadapter.config.config_file import as_arguments
from tokenadapter.config.functions import NamedFunction
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.references import Reference, references_in, resolved
from tokenadapter.core.function_grant import FunctionGrant
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter import errors, sources
    from tokenadapter.keys.key import Key
    from tokenadapter.protocols import Answer
    from tokenadapter.sources import Source
else:
    errors = late("tokenadapter.errors")
    sources = late("tokenadapter.sources")

__all__ = ["FunctionOfProfile", "ProfileGrant"]

# Seconds for which secrets that were read are used again: a renewal needs them several times, and a
# program that runs for months has to notice that a secret was changed.
_SECRETS_VALID = 60.0


class ProfileGrant:
    """A grant (:class:`~tokenadapter.protocols.Grant`) that a profile describes.

    :param profile: the profile's name, for messages.
    :param file: the path of the configuration file, for messages.
    :param make: makes the source that does the work.
    :param arguments: the arguments of *make*, with references in place of secrets.
    :param login: how a person logs in, as arguments of :func:`tokenadapter.login`.
    :param program: the program that prints the token.
    :raises TypeError: as *make* does, and so ``ValueError`` and ``UnsafeTarget``.
    """

    def __init__(
        self,
        profile: str,
        file: str,
        make: Callable[..., Source],
        arguments: Mapping[str, Any],
        login: Mapping[str, str],
        program: Reference | None = None,
    ) -> None:
        self._profile = profile
        self._file = file
        self._program = program
        self._make = make
        self.arguments = arguments
        # The sample has everything but the secrets.
        sample = make(**resolved(arguments, lambda reference: "looked-up-later"))
        self.owner: Mapping[str, str] = sample.owner
        self.requested: Mapping[str, str] = sample.requested
        self.discovers: bool = sample.discovers
        self._sample = sample
        self.cert: str | tuple[str, str] | None = getattr(sample, "cert", None)
        self.deadline: float = sample.deadline
        self.grace: float = sample.grace
        self.spends: bool = sample.spends
        self.renew_early: bool = sample.renew_early
        self.verdict: Mapping[str, Any] | None = sample.verdict
        self.login_lifetime: float | None = sample.login_lifetime
        #: Whether the profile itself cannot obtain a first token.
        self.begins_with_login: bool = sample.begins_with_login
        self.login_settings: Mapping[str, str] = {**sample.login_settings, **login}
        #: Whether a person can log in: at the URLs that are given, or at those of the issuer or
        #: the provider.
        self.can_log_in: bool = self.owner.get("grant") == "refresh_token" and bool(
            self.login_settings or sample.discovers
        )
        for name, url in login.items():
            if name in ("authorization_url", "device_authorization_url"):
                sample.oauth2_client.endpoint(name, url)  # type: ignore[attr-defined]
        self._name = repr(sample)
        self._source: Source | None = None
        self._until = 0.0
        self._missing: ProfileError | None = None

    @property
    def urls(self) -> Sequence[str]:
        """The URLs that the grant itself requests."""
        return (self._source or self._sample).urls

    @property
    def revokes(self) -> bool:
        """Whether the source can revoke a token."""
        return getattr(self._sample, "revokes", False)

    def discover(self) -> object:
        """Read the issuer's metadata, as sources do.  No secret is needed.

        :raises TokenError: as sources do.
        """
        found = self._sample.discover()  # type: ignore[attr-defined]
        if self._source is not None:
            self._source.discover()  # type: ignore[attr-defined]  # it takes what was read
        return found

    @property
    def as_arguments(self) -> str:
        """How a command line names the profile."""
        return as_arguments(self._profile, self._file)

    @property
    def how_to_log_in(self) -> str:
        """What to do if no credential is left."""
        if self.can_log_in:
            return f"Run `tokenadapter login {self.as_arguments}`."
        return (
            "Log in elsewhere, and pass the token response to "
            f"`tokenadapter adopt {self.as_arguments}`."
        )

    @property
    def dpop_key(self) -> Key | None:
        """The key that is configured, if tokens are bound to one.

        :raises RefreshConfigError: if it cannot be read.
        """
        # Not looked up again after a while: every request needs it.
        return getattr(self._source or self.looked_up(), "dpop_key", None)

    def new_key(self, previous: Token | None) -> str | None:
        """A new key to bind tokens to, if one has to be made.

        :raises RefreshConfigError: if no key can be made.
        """
        # Not the sample: a key that it lacks would be the path of a file.
        new_key = getattr(self._source or self.looked_up(), "new_key", None)
        return None if new_key is None else new_key(previous)

    def load(self) -> None:
        """Import what :meth:`fetch` needs."""
        sources.Source.load()

    def seeds(self) -> Iterator[str]:
        """What identifies the first refresh token.

        For a refresh token from a command or the keyring, its place comes first: while the token is
        good, no password manager is asked.  An environment variable or a file is read: the same
        name may belong to somebody else.
        """
        given = self.arguments.get("refresh_token")
        if given is None:
            return
        if isinstance(given, Reference) and given.kind in ("command", "keyring"):
            yield f"{given.kind}: {given.place!r}"
        seed: str | None = self._argument("refresh_token", given)
        if seed is not None:
            yield seed

    @property
    def client_credential(self) -> str:
        """What authenticates the client."""
        return self.looked_up().client_credential

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        """What could be presented now, the preferred one first.

        :raises RefreshConfigError: if a secret cannot be read.
        """
        found = self.looked_up().credentials(previous)
        if not found and self._missing is not None:
            raise _unusable(self._profile, self._missing)
        return found

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        """Present *credential*, in one request.

        :raises TokenError: as sources do.
        """
        # The source that the credential came from, even if that was a while ago.
        return (self._source or self.looked_up()).fetch(credential, previous)

    def replacement(self, refused: Credential, refusal: errors.ReauthRequired) -> Credential | None:
        """Another credential in place of a refused one, if another keeper keeps it.

        :raises TokenError: as sources do.
        """
        replacement = getattr(self._source or self.looked_up(), "replacement", None)
        return None if replacement is None else replacement(refused, refusal)

    def revoke(self, token: Token) -> None:
        """Revoke *token*, and the refresh token that came with it, at the server (RFC 7009).

        :raises TokenError: if the server does not.
        """
        self.looked_up().revoke(token)  # type: ignore[attr-defined]

    def references(self) -> list[Reference]:
        """Where its secrets are, or the program that prints the token."""
        programs = [self._program] if self._program is not None else []
        return [*programs, *references_in(self.arguments)]

    def key_files(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The arguments that name a file with a private key, and what is said of the key."""
        for lead, table in (
            ("", self.arguments),
            ("client_auth.", self.arguments.get("client_auth")),
        ):
            if isinstance(table, Mapping) and isinstance(table.get("key"), str):
                said = {name: table[name] for name in ("key", "alg", "kid") if name in table}
                yield f"{lead}key", said
        if isinstance(self.arguments.get("dpop"), str):
            yield "dpop", {"key": self.arguments["dpop"]}
        if "path" in self.arguments:
            yield "path", {"key": self.arguments["path"]}

    def functions(self) -> list[NamedFunction]:
        """The functions that return tokens to present."""
        auth = self.arguments.get("client_auth")
        values = [*self.arguments.values(), *(auth.values() if isinstance(auth, Mapping) else ())]
        return [value for value in values if isinstance(value, NamedFunction)]

    def inline_secrets(self) -> list[str]:
        """The arguments whose secrets the configuration file itself contains."""
        names = ["client_secret", "refresh_token", "password", "auth", "json", "data"]
        if self.arguments.keys().isdisjoint(names):
            names.append("headers")  # something has to authenticate the user
        # One part that is elsewhere is the secret; the others, such as the user's name, are not.
        return [
            name
            for name in names
            if name in self.arguments and not references_in(self.arguments[name])
        ]

    def __repr__(self) -> str:
        return self._name

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_until": 0.0}

    def looked_up(self) -> Source:
        """The source, with its secrets.

        :raises RefreshConfigError: if a secret cannot be read.
        """
        source = self._source
        if source is None or time.monotonic() > self._until:
            self._missing = None
            try:
                arguments = {
                    name: self._argument(name, value) for name, value in self.arguments.items()
                }
                source = self._make(**arguments)
            except (ProfileError, TypeError, ValueError) as error:
                raise _unusable(self._profile, error) from None
            self._source, self._until = source, time.monotonic() + _SECRETS_VALID
        return source

    def _argument(self, name: str, value: Any) -> Any:
        try:
            return resolved(value, Reference.read)
        except ProfileError as error:
            if name != "refresh_token":
                raise
            # It may have been deleted after its use, and the store has a newer one.
            self._missing = error
            return None


class FunctionOfProfile(FunctionGrant):
    """A grant that calls a function which a profile names.

    :param profile: the profile's name, for messages.
    """

    # As of a ProfileGrant.
    can_log_in: bool = False
    begins_with_login: bool = False

    def __init__(self, profile: str, function: NamedFunction, owner: Mapping[str, str]) -> None:
        super().__init__(function, owner)
        self._profile = profile
        self._named = function
        #: How a command line names the profile.
        self.as_arguments: str = as_arguments(profile, function.file)

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        """Call the function.

        :raises RefreshConfigError: if there is no such function.
        """
        try:
            self._named.find()
        except ProfileError as error:
            raise _unusable(self._profile, error) from None
        return super().fetch(credential, previous)

    def _function(self) -> Callable[..., Answer | Awaitable[Answer]]:
        function: Callable[..., Answer | Awaitable[Answer]] = self._named.find()
        return function

    def __repr__(self) -> str:
        return f"<function {self._named.name}>"


def _unusable(profile: str, error: Exception) -> errors.RefreshConfigError:
    return errors.RefreshConfigError(
        f"The profile {profile!r} cannot obtain a token. {error} Nothing was sent, and the stored "
        "token is kept.",
        is_local=True,
    )
