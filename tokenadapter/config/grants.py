"""The source of a profile: a grant whose secrets are looked up when something is presented.

A token that is fresh needs none of them: no password manager is asked, no key is unlocked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenadapter.config.functions import NamedFunction
from tokenadapter.config.references import Reference, resolved
from tokenadapter.config.trouble import ProfileError
from tokenadapter.core.function_grant import FunctionGrant
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter import errors, sources
    from tokenadapter.protocols import Answer
    from tokenadapter.sources import Source
else:
    errors = late("tokenadapter.errors")
    sources = late("tokenadapter.sources")

__all__ = ["FunctionOfProfile", "ProfileGrant"]

# Seconds for which what was looked up is used: a renewal asks several times, and a program that
# runs for months shall see that a secret was changed.
_KEPT = 60.0


class ProfileGrant:
    """A grant (:class:`~tokenadapter.protocols.Grant`) as a profile describes it.

    :param profile: its name, for messages.
    :param make: makes the source that does the work.
    :param arguments: for *make*, with references in place of secrets.
    :raises TypeError: as *make* does, and so ``ValueError`` and ``UnsafeTarget``.
    """

    def __init__(
        self, profile: str, make: Callable[..., Source], arguments: Mapping[str, Any]
    ) -> None:
        self._profile = profile
        self._make = make
        self.arguments = arguments
        # It has everything but the secrets.
        sample = make(**resolved(arguments, lambda reference: "looked-up-later"))
        self.owner: Mapping[str, str] = sample.owner
        self.requested: Mapping[str, str] = sample.requested
        self.urls: Sequence[str] = sample.urls
        self.deadline: float = sample.deadline
        self.grace: float = sample.grace
        self.spends: bool = sample.spends
        self.revokes: bool = getattr(sample, "revokes", False)
        self._name = repr(sample)
        self._source: Source | None = None
        self._until = 0.0
        self._missing: ProfileError | None = None

    def load(self) -> None:
        """Import what :meth:`fetch` needs."""
        sources.Source.load()

    def seeds(self) -> Iterator[str]:
        """What identifies the first refresh token.

        Of one that a program or a keyring gives, that is first the place where it is kept: for a
        token that is good, no password manager is asked.  An environment variable or a file of the
        same name may belong to somebody else.
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
        return self._looked_up().client_credential

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        """What could be presented now, the most welcome first.

        :raises RefreshConfigError: if a secret cannot be looked up.
        """
        found = self._looked_up().credentials(previous)
        if not found and self._missing is not None:
            raise _unusable(self._profile, self._missing)
        return found

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        """Present *credential*, in one request.

        :raises TokenError: as sources do.
        """
        try:
            # What the credential was made from, even if that was a while ago.
            return (self._source or self._looked_up()).fetch(credential, previous)
        except errors.ReauthRequired as error:
            told = str(error).replace("adopt NAME", f"adopt {self._profile}")
            raise errors.ReauthRequired(told, reason=error.reason, error=error.error) from None

    def revoke(self, token: Token) -> None:
        """Have the server revoke *token* and what came with it (RFC 7009).

        :raises TokenError: if that fails.
        """
        self._looked_up().revoke(token)  # type: ignore[attr-defined]

    def references(self) -> list[Reference]:
        """The places of its secrets."""
        found: list[Reference] = []
        resolved(self.arguments, found.append)
        return found

    def inline_secrets(self) -> list[str]:
        """The arguments that are secrets, and stand in the configuration as they are."""
        names = ["client_secret", "refresh_token", "password", "auth", "json", "data"]
        if self.arguments.keys().isdisjoint(names):
            names.append("headers")  # something has to prove who logs in
        return [
            name
            for name in names
            if name in self.arguments and not _is_elsewhere(self.arguments[name])
        ]

    def __repr__(self) -> str:
        return self._name

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_until": 0.0}

    def _looked_up(self) -> Source:
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
            self._source, self._until = source, time.monotonic() + _KEPT
        return source

    def _argument(self, name: str, value: Any) -> Any:
        try:
            return resolved(value, Reference.read)
        except ProfileError as error:
            if name != "refresh_token":
                raise
            # Perhaps it was deleted after its use, and the store has a newer one.
            self._missing = error
            return None


def _is_elsewhere(value: Any) -> bool:
    """Whether a secret, or one that is a part of *value*, is kept elsewhere: then the other parts,
    such as the name of the user, are not secret."""
    found: list[Reference] = []
    resolved(value, found.append)
    return bool(found)


class FunctionOfProfile(FunctionGrant):
    """A function that a profile names, as a grant.

    :param profile: its name, for messages.
    """

    def __init__(self, profile: str, function: NamedFunction, owner: Mapping[str, str]) -> None:
        super().__init__(function, owner)
        self._profile = profile
        self._named = function

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        """Call the function.

        :raises RefreshConfigError: if there is none.
        """
        try:
            self._named.find()
        except ProfileError as error:
            raise _unusable(self._profile, error) from None
        return super().fetch(credential, previous)

    def _function(self) -> Callable[..., Answer]:
        function: Callable[..., Answer] = self._named.find()
        return function

    def __repr__(self) -> str:
        return f"<function {self._named.name}>"


def _unusable(profile: str, error: Exception) -> errors.RefreshConfigError:
    return errors.RefreshConfigError(
        f"The profile {profile!r} cannot obtain a token. {error} Nothing was sent, and what the "
        "store holds is kept.",
        is_local=True,
    )
