"""What the keeper asks of a token source and of a token store.

A *token source* obtains tokens.  The simplest is a function of the previous token.  A *grant* is
a source that tells beforehand what it is about to present, so that the keeper can see to it that
nothing is presented twice and that nothing that was refused is tried again.

A *token store* is where the token lives: one slot, shared by all who name it.  It stores,
compares and locks, and decides nothing.  What it holds is a *document*, a JSON object that means
nothing to it, beside a *tag* that is replaced with each write.
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
"""What a source may return: a token, a token response (RFC 6749 section 5.1), or the bare text of
an access token."""

TokenSource: TypeAlias = Callable[[Token | None], Answer]
"""A function from the previous token, if there is one, to the next."""


@runtime_checkable
class Grant(Protocol):
    """A token source that says what it presents.

    One that imports what it needs late may have a method ``load()`` besides that does so: it is
    called in good time, and not while the process forks.
    """

    @property
    def owner(self) -> Mapping[str, str]:
        """Whose tokens these are: ``endpoint``, ``client``, ``user``, as far as they are known.
        A record that names another is refused."""

    @property
    def requested(self) -> Mapping[str, str]:
        """What is asked for: ``scope``, ``resource``, ``audience``, ..., as far as given."""

    @property
    def client_credential(self) -> str:
        """What authenticates the client.  Its hash says which clients back off after a refusal.
        Looked up as late as :meth:`credentials`."""

    @property
    def deadline(self) -> float:
        """Within how many seconds :meth:`fetch` ends, whatever the server does."""

    @property
    def grace(self) -> float:
        """For how many seconds the server takes a rotated refresh token once more; 0 if it does
        not, or nobody knows."""

    @property
    def urls(self) -> Sequence[str]:
        """The URLs that the grant itself asks, which never get a token."""

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
        :raises RefreshConfigError: if the request was refused for another reason than that.
        :raises RefreshTemporarilyFailed: if there was no answer, or none that says either.
            With ``processed=False`` it is certain that the credential was not spent.
        """


class Spender(Protocol):
    """What a :class:`Grant` may say besides: whether it spends anything.  Without this, it may."""

    @property
    def spends(self) -> bool:
        """``False`` if none of its credentials is ever ``single_use``: then no end of a process has
        to wait for a renewal."""


class Seeded(Protocol):
    """What a :class:`Grant` may say besides, if it is configured with a first refresh token."""

    def seeds(self) -> Iterator[str]:
        """What identifies the configured first refresh token: itself, or the place where it is
        kept.  What costs least to find out comes first.

        Two users of one client may share a slot by mistake.  A record remembers which of these it
        began with, as hashes, and a program with another one is refused.  If :attr:`Grant.owner`
        names the user, the program is not refused, and its next renewal reports the difference.
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
    """The right to renew, for one holder at a time.  Made anew for each attempt, and taken,
    confirmed and released by one thread.

    One that may lapse while its holder lives may have a method ``is_certain()`` besides: whether it
    cannot have lapsed yet, without asking the store.  It is asked just before a refresh token is
    sent for which the server declares a grace.

    Like a :class:`Grant`, it may have a method ``load()``.
    """

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: seconds after which the holder has given up of itself, unless it confirms:
            a store whose lock is a lease keeps it alive for no longer than that.
        :raises StoreError: if the lock cannot be had for another reason than a holder.
        """

    def confirm(self) -> bool:
        """Whether the lock is still held, asked of the store itself; if so, *hold_for* begins
        anew."""

    def release(self) -> None:
        """Let others take it.  Never raises; never frees a lock that others hold by now."""


class TokenStore(Protocol):
    """One slot for one document.

    A store whose lock is a lease has an attribute ``lease`` besides: for how many seconds the lock
    outlives a holder that died.  It has to be shorter than the grant's ``grace``, if there is one.

    A store whose lock ends with its holder, and no sooner, because the kernel keeps it, has an
    attribute ``lock_ends_with_holder`` that is true.  Of any other lock, a holder that was stopped
    may go on after others have taken it: so what its intent says is believed for a while.

    A store that can tell for much less than a :meth:`load` whether it was written has a method
    ``glimpse()`` besides, for those who wait for that: what it returns differs then; ``None`` if it
    cannot tell.

    One that has such and keeps many processes of one machine apart may have a method ``claim()``
    as well.  It says that the caller is about to renew what the slot holds now, for much less than
    the lock takes, and returns a context manager, for as long as that lasts; or ``None`` if another
    process has said so and is alive, or has the lock.  A claim keeps nobody from anything: those
    who find one wait for a while before they try the lock.  They look at the slot again and again,
    so a keeper refuses (:class:`TypeError`) a store that has ``claim()`` without ``glimpse()``.
    """

    @property
    def is_copy(self) -> bool:
        """Whether what it holds is another process' too, with no lock between the two: it was
        copied from that process, by a fork or by pickle, or both use one place.  A store that
        processes share never is."""

    @property
    def poll(self) -> tuple[float, float]:
        """How often a waiter may look: seconds between the first two looks, and at most."""

    def load(self) -> Snapshot:
        """What the slot holds now, without any lock.

        A slot whose content cannot be read back (torn, or written by something else) counts as
        empty; the content is put aside by the next :meth:`save`, never overwritten.

        :raises StoreError: if the store cannot be read.
        """

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the document and its tag if the slot's tag is still *expected*.

        A slot whose tag is *tag* already is written again: a write whose answer was lost is
        repeated with the same tag.  When it returns ``True`` the write is durable: it survives a
        crash right after.

        :param ttl: seconds after which the document is worth nothing; ``None``: keep it.
        :returns: ``False``, and nothing was written, if the tag has moved on.
        :raises StoreError: if it cannot be written, or nobody knows whether it was.
        """

    def prepare(self) -> None:
        """Do beforehand whatever could keep the next :meth:`save` from succeeding.

        :raises StoreError: if a save would fail now.
        """

    def lock(self) -> StoreLock:
        """A lock on this slot, not yet taken."""

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note* even if the slot is emptied, where the store has a place for that.

        :param for_good: else it may be forgotten when some dozens have come after it.
        :raises StoreError: if the place cannot be written.
        """

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if the place cannot be read.
        """
