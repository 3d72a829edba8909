"""What a token source and a token store must have, and what they may have.

A *token source* obtains tokens.  The simplest one is a function of the previous token.  A *grant*
is a source that says beforehand what it is about to present, so that the keeper presents nothing
twice, and nothing again that was refused.

A *token store* is where the token lives: one slot, shared by all programs that name it.  A store
stores, compares and locks, and decides nothing.  Its slot contains a *document*, a JSON object that
the store does not interpret, beside a *tag* that each write replaces.

The protocols with one member are optional: a source, store or lock has that member if it can.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from tokenadapter.token import Token
from tokenadapter.values import Credential, Document, Snapshot

if TYPE_CHECKING:
    from tokenadapter.errors import ReauthRequired
    from tokenadapter.keys.key import Key

__all__ = [
    "Advising",
    "Answer",
    "CertificateBound",
    "ClientAuth",
    "Credential",
    "Discovering",
    "Document",
    "Glimpsed",
    "Grant",
    "HolderBound",
    "HolderKnowing",
    "InFile",
    "KeyBound",
    "Leased",
    "LoggingIn",
    "Preloading",
    "ProviderKnowing",
    "Replacing",
    "Reserving",
    "Revoking",
    "Seeded",
    "Snapshot",
    "Spender",
    "StoreLock",
    "TokenSource",
    "TokenStore",
]

Answer: TypeAlias = Token | Mapping[str, Any] | str
"""What a source may return: a token, a token response (RFC 6749 section 5.1), or the bare text of
an access token."""

TokenSource: TypeAlias = Callable[[Token | None], Answer | Awaitable[Answer]]
"""A function, or a coroutine function, from the previous token, if there is one, to the next."""


@runtime_checkable
class Grant(Protocol):
    """A token source that names what it presents."""

    @property
    def owner(self) -> Mapping[str, str]:
        """The owner of the tokens: ``endpoint``, ``client``, ``user``, as far as known.  A record
        with another owner is refused."""

    @property
    def requested(self) -> Mapping[str, str]:
        """The requested ``scope``, ``resource``, ``audience``, ..., as far as given."""

    @property
    def client_credential(self) -> str:
        """What authenticates the client.  Its hash says which clients back off after a refusal.
        Looked up as late as :meth:`credentials`."""

    @property
    def deadline(self) -> float:
        """The seconds within which :meth:`fetch` ends, whatever the server does."""

    @property
    def grace(self) -> float:
        """The seconds for which the server accepts a rotated refresh token again; 0 if it does not,
        or if that is unknown."""

    @property
    def urls(self) -> Sequence[str]:
        """The URLs that the grant itself requests, which never get a token."""

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        """What can be presented now, in order of preference.

        Called when a renewal is due or a refresh token is adopted, never for a token that is fresh.
        So a grant may look its secrets up here (run a program, read a file).  A renewal calls this
        several times: a grant whose secrets take time to look up caches them for a while.

        :raises TokenError: if a secret cannot be looked up.  Nothing is presented then.
        """

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        """Present *credential*, once.

        :raises ReauthRequired: if the server refused the credential.
        :raises RefreshConfigError: if the server refused the request for another reason.
        :raises RefreshTemporarilyFailed: if there was no answer, or an inconclusive one.
            With ``processed=False`` the credential was certainly not spent.
        """


class Spender(Protocol):
    """Optional, of a :class:`Grant`: whether it spends credentials.  By default it may."""

    @property
    def spends(self) -> bool:
        """``False`` if none of its credentials is ever ``single_use``, so that an ending process
        need not wait for a renewal."""


class Seeded(Protocol):
    """Optional, of a :class:`Grant` that is configured with a first refresh token."""

    def seeds(self) -> Iterator[str]:
        """What identifies the configured first refresh token: the token itself, or the place where
        it is kept.  The cheapest to compute comes first.

        Two users of one client may share a slot by mistake.  A record contains hashes of the seeds
        that its grant began with, and a program with other seeds is refused.  If
        :attr:`Grant.owner` names the user, the program is not refused, and its next renewal reports
        the difference.
        """


class Discovering(Protocol):
    """Optional, of a :class:`Grant` whose server may name its endpoints in metadata."""

    @property
    def discovers(self) -> bool:
        """Whether it does."""

    def discover(self) -> object:
        """Replace :attr:`Grant.urls` by a sequence that has these endpoints too.

        Called when a request looks like a token request of the program's own: only then can it
        matter which URLs these are.

        :raises TokenError: if the metadata cannot be read.
        """


class Revoking(Protocol):
    """Optional, of a :class:`Grant` whose server may revoke tokens (RFC 7009)."""

    @property
    def revokes(self) -> bool:
        """Whether it does.  A :class:`Discovering` grant knows after its ``discover()``."""

    def revoke(self, token: Token) -> None:
        """Have the server revoke *token*: the refresh token, then the access token.

        :raises TokenError: if the server did not say that it has.
        """


class Advising(Protocol):
    """Optional, of a :class:`Grant` that knows how a person logs in.  A grant may have any of these
    members."""

    @property
    def how_to_log_in(self) -> str:
        """What to do, in a sentence for :class:`~tokenadapter.ReauthRequired`."""

    @property
    def begins_with_login(self) -> bool:
        """Whether only a login can provide a first token."""


class CertificateBound(Protocol):
    """Optional, of a :class:`Grant` whose tokens may be bound to a client certificate (RFC 8705
    section 3).

    A :class:`~tokenadapter.TokenAdapter` presents the certificate to the API, too.
    """

    @property
    def cert(self) -> str | tuple[str, str] | None:
        """The certificate of the token requests: a path, or those of certificate and key."""


class KeyBound(Protocol):
    """Optional, of a :class:`Grant` whose server may bind tokens to a key (RFC 9449).

    A token has its key in ``key``, unless the key is configured.
    """

    @property
    def dpop_key(self) -> Key | None:
        """The key that is configured: no record has it."""

    def new_key(self, previous: Token | None) -> str | None:
        """A new key, as a JWK in JSON; ``None`` if the key is configured, or tokens are not bound.

        Called before a refresh token is presented, if the record has no key.  The key is saved with
        the intent, and :meth:`Grant.fetch` gets it as the ``key`` of the credential.

        :param previous: the token that was stored last.
        :raises TokenError: if no key can be made.
        """


class Replacing(Protocol):
    """Optional, of a :class:`Grant` that presents tokens which another keeper keeps."""

    def replacement(self, refused: Credential, refusal: ReauthRequired) -> Credential | None:
        """Another credential than *refused*, which the server refused; ``None`` if there is none.

        Called once for the presentation of a ``replaceable`` credential.  A refusal of the
        replacement is final for now.

        :param refusal: what the server said.
        :raises TokenError: if the other keeper has no other token.
        """


class LoggingIn(Protocol):
    """Optional, of a :class:`Grant` that stands for an OAuth source, as that of a profile does."""

    @property
    def login_settings(self) -> Mapping[str, str]:
        """How a person logs in, as arguments of :func:`tokenadapter.login`."""

    def looked_up(self) -> Grant:
        """The source itself, with its secrets."""


class ProviderKnowing(Protocol):
    """Optional, of a :class:`Grant`: what is known of its server beyond the protocol.  A grant may
    have any of these members."""

    @property
    def renew_early(self) -> bool:
        """``False`` if a renewal ends the old access token: see
        :class:`~tokenadapter.TokenKeeper`."""

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """How the API says that a token has expired, as arguments of
        :func:`~tokenadapter.expired_on`, if it does not answer 401."""

    @property
    def login_lifetime(self) -> float | None:
        """After how many seconds the server ends a login, however often the token is renewed;
        ``None`` if it does not, or if that is unknown."""


class ClientAuth(Protocol):
    """How a client authenticates at the endpoints of its authorization server (RFC 6749 section
    2.3).  Pass such an object as ``client_auth=`` where none of the names fits.
    ``tokenadapter/sources/client_auth/basic.py`` is an example."""

    @property
    def credential(self) -> str:
        """What proves the client's identity, or any text that changes with it.  Only its hash is
        stored: it tells clients apart that were refused and clients that were not."""

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        """Add what proves the client's identity to one request.

        :param url: the endpoint that the request is posted to.
        :param form: its parameters, to be added to.
        :param headers: its headers, to be added to.
        :returns: the secrets that were added, as they are sent: messages mask them.
        :raises Exception: if the client cannot prove its identity now.  Nothing is sent then, and
            nothing is spent.
        """


class Preloading(Protocol):
    """Optional, of a :class:`Grant` and a :class:`StoreLock`.

    The keeper calls it before the first renewal, and never while the process forks.
    """

    def load(self) -> None:
        """Import what the grant or lock imports late."""


@runtime_checkable
class StoreLock(Protocol):
    """The right to renew, for one holder at a time.  A lock is made for each attempt, and one
    thread takes, confirms and releases it."""

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: seconds after which the holder gives up unless it confirms the lock: a
            store whose lock is a lease extends it for no longer than that.
        :raises StoreError: if the lock cannot be taken for another reason than a holder.
        """

    def confirm(self) -> bool:
        """Ask the store whether the lock is still held; if so, *hold_for* starts again."""

    def release(self) -> None:
        """Release the lock.  Never raises; never releases a lock that another holder has by now."""


class HolderKnowing(Protocol):
    """Optional, of a :class:`StoreLock` that knows its holder.

    The command ``tokenadapter status`` calls it, on a lock that is not taken.
    """

    def holder(self) -> str | None:
        """The process that holds the lock now, as
        ``tokenadapter.process_names.this_process()`` names it, with or without ``:`` and more
        after it; ``None`` if the lock is free, or the store cannot tell.

        :raises StoreError: if the store cannot be asked.
        """


class TokenStore(Protocol):
    """One slot for one document.

    Its ``repr`` names the slot in messages, events and the log, and shows no secret.
    """

    @property
    def is_copy(self) -> bool:
        """Whether another process has the content of the slot as well, with no lock between the
        two: it was copied by a fork or by pickle, or both use one place.  ``False`` for a store
        that processes share."""

    @property
    def poll(self) -> tuple[float, float]:
        """How often a waiting process may load: the seconds between its first two loads, and the
        most seconds between any two."""

    def load(self) -> Snapshot:
        """The content of the slot now, without a lock.

        A slot whose content is not a record (torn, or written by something else) counts as empty.
        The next :meth:`save` puts such content aside, and never overwrites it.

        :raises StoreError: if the store cannot be read.
        """

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        A slot that has the tag *tag* already is written again: a write whose answer was lost is
        repeated with the same tag.  A write is durable when this method returns ``True``: it
        survives a crash right after.

        :param ttl: seconds after which the document is worth nothing; ``None``: keep it.
        :returns: ``False``, with nothing written, if the tag is another one.
        :raises StoreError: if the document cannot be written, or it is unknown whether it was.
        """

    def prepare(self) -> None:
        """Do beforehand what could make the next :meth:`save` fail.

        :raises StoreError: if a save would fail now.
        """

    def lock(self) -> StoreLock:
        """A lock on this slot, not yet taken."""

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember the hash of a spent token, also if the slot is emptied, where the store has a
        place for that.

        :param digest: the hash, with or without its place in its login.
        :param for_good: otherwise, *digest* may be forgotten after some dozens of others.
        :raises StoreError: if the place cannot be written.
        """

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered, or a later one of the same login: call
        :func:`tokenadapter.stores.toolkit.is_remembered` with all that the place holds.

        :raises StoreError: if the place cannot be read.
        """


class Leased(Protocol):
    """Optional, of a :class:`TokenStore` whose lock is a lease.

    A keeper refuses a store whose lease is not shorter than its grant's ``grace``.
    """

    @property
    def lease(self) -> float | None:
        """For how many seconds the lock outlives a holder that died; ``None`` if it does not."""


class HolderBound(Protocol):
    """Optional, of a :class:`TokenStore` whose lock the kernel keeps.

    With any other lock, a holder that was stopped may go on after another process has taken the
    lock.  So the keeper believes for a while that such a holder still awaits its answer.
    """

    @property
    def lock_ends_with_holder(self) -> bool:
        """Whether the lock ends with its holder, and no sooner."""


class Glimpsed(Protocol):
    """Optional, of a :class:`TokenStore` that can tell at little cost whether it was written.

    The keeper calls it while it waits for another process' renewal, and loads only after a change.
    """

    def glimpse(self) -> object:
        """A value that differs after each write; ``None`` if the store cannot tell now."""


class Reserving(Glimpsed, Protocol):
    """Optional, of a :class:`TokenStore` that many processes of one machine share.

    The keeper calls it before it imports what a renewal needs.  A process that does not get the
    reservation waits for a while before it tries the lock, and meanwhile calls
    :meth:`~Glimpsed.glimpse` again and again.  So a keeper refuses (:class:`TypeError`) a store
    that has ``reserve()`` without ``glimpse()``.
    """

    def reserve(self) -> AbstractContextManager[object] | None:
        """Announce that the caller is about to renew, at much less cost than the lock.

        :returns: the reservation, to be entered and left; ``None`` if another living process has
            the reservation or the lock.  A reservation excludes no process from the lock.
        """


class InFile(Protocol):
    """Optional, of a :class:`TokenStore` in a file, and of a :class:`StoreLock` that is the
    kernel's lock on a file.

    The command ``tokenadapter check`` examines the file and its directory; ``status`` finds the
    lock's holder by the file.
    """

    @property
    def path(self) -> str | None:
        """The path of the file; ``None`` if there is none."""
