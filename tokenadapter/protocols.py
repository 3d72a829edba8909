"""The interfaces of token sources and token stores.

A *token source* obtains tokens.  The simplest one is a function of the previous token.  A *grant*
is a source that names the credentials that it can present, so that the keeper can make sure that no
credential is presented twice or after a refusal.

A *token store* keeps the token: one slot, shared by all processes that use it.  It stores, compares
and locks, and makes no decisions.  The slot holds a *document*, a JSON object that the store does
not interpret, and a *tag* that is replaced with each write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from tokenadapter.token import Token
from tokenadapter.values import Credential, Document, Snapshot

__all__ = [
    "Answer",
    "ClientAuth",
    "Credential",
    "Document",
    "Grant",
    "Seeded",
    "Snapshot",
    "Spender",
    "StoreLock",
    "TokenSource",
    "TokenStore",
]

Answer: TypeAlias = Token | Mapping[str, Any] | str
"""The result of a source: a token, a token response (RFC 6749 section 5.1), or an access token as
text."""

TokenSource: TypeAlias = Callable[[Token | None], Answer]
"""A function of the previous token, if there is one, that returns the next."""


@runtime_checkable
class Grant(Protocol):
    """A token source that names what it presents.

    A grant that imports modules late may have a method ``load()`` that imports them.  It is called
    before they are needed, and not while the process forks.
    """

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
    """An optional part of a :class:`Grant`: whether it spends credentials.  By default it may."""

    @property
    def spends(self) -> bool:
        """``False`` if none of its credentials is ever ``single_use``, so that an ending process
        need not wait for a renewal."""


class Seeded(Protocol):
    """An optional part of a :class:`Grant` that is configured with a first refresh token."""

    def seeds(self) -> Iterator[str]:
        """What identifies the configured first refresh token: the token itself, or the place where
        it is kept.  The cheapest to compute comes first.

        Two users of one client may share a slot by mistake.  A record contains hashes of the seeds
        that its grant began with, and a program with other seeds is refused.  If
        :attr:`Grant.owner` names the user, the program is not refused, and its next renewal reports
        the difference.
        """


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
        """


class StoreLock(Protocol):
    """The right to renew, for one holder at a time.  A new object is used for each attempt, and one
    thread acquires, confirms and releases it.

    A lock that may lapse while its holder lives may have a method ``is_certain()``: whether the
    lock certainly has not lapsed, without asking the store.  It is called right before a refresh
    token with a declared grace is sent.

    Like a :class:`Grant`, a lock may have a method ``load()``.
    """

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: seconds after which the holder gives up, unless it confirms.  A store whose
            lock is a lease keeps the lease alive for no longer than that.
        :raises StoreError: if the lock cannot be taken for another reason than a holder.
        """

    def confirm(self) -> bool:
        """Whether the store says that the lock is still held.  If so, *hold_for* starts again."""

    def release(self) -> None:
        """Release the lock.  Never raises, and never releases the lock of another holder."""


class TokenStore(Protocol):
    """One slot for one document.

    A store whose lock is a lease has an attribute ``lease``: the seconds for which the lock
    outlives a holder that died.  They must be fewer than the grant's ``grace``, if there is one.

    A store whose lock ends exactly with its holder, because the kernel keeps it, has a true
    attribute ``lock_ends_with_holder``.  With any other lock, a holder that was stopped may
    continue after another process has taken the lock, so its intent is respected for a while.

    A store that can detect a write much more cheaply than by :meth:`load` may have a method
    ``glimpse()`` for waiting processes.  Its result changes with each write; ``None`` means
    unknown.

    A store with ``glimpse()`` may also have a method ``reserve()``.  It announces, much more
    cheaply than the lock, that the caller is about to renew the current content.  It returns a
    context manager for the duration of the renewal, or ``None`` if another living process has a
    reservation or the lock.  A reservation excludes no one: a process that finds one waits for a
    while before it tries the lock.  It reads the slot repeatedly meanwhile, so a keeper refuses
    (:class:`TypeError`) a store that has ``reserve()`` without ``glimpse()``.
    """

    @property
    def is_copy(self) -> bool:
        """Whether another process has the same content without a common lock: because the store was
        copied by a fork or by pickle, or because both use one place.  ``False`` for a store that
        processes share."""

    @property
    def poll(self) -> tuple[float, float]:
        """The first and the longest pause of a waiting process between two reads, in seconds."""

    def load(self) -> Snapshot:
        """Read the slot, without any lock.

        A slot with unreadable content (torn, or written by another program) counts as empty.  The
        next :meth:`save` moves that content aside and never overwrites it.

        :raises StoreError: if the store cannot be read.
        """

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        A slot whose tag is already *tag* is written again: a write whose answer was lost is
        repeated with the same tag.  On ``True`` the write is durable: it survives an immediate
        crash.

        :param ttl: seconds after which the document may be dropped; ``None``: keep it.
        :returns: ``False``, and nothing was written, if the slot has another tag.
        :raises StoreError: if the document cannot be written, or if that is unknown.
        """

    def prepare(self) -> None:
        """Do in advance whatever could make the next :meth:`save` fail.

        :raises StoreError: if a save would fail now.
        """

    def lock(self) -> StoreLock:
        """A lock on this slot, not yet taken."""

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember the hash *note*, even if the slot is emptied, if the store has a place for that.

        :param for_good: whether to remember the hash for ever; otherwise the store may forget it
            after some dozens of others.
        :raises StoreError: if the hash cannot be written.
        """

    def was_spent(self, note: str) -> bool:
        """Whether the hash *note* is remembered.

        :raises StoreError: if the hashes cannot be read.
        """
