"""What a token store is made from: the stores here, and one that you write.

:doc:`/howto/own-store` shows a complete store.  A lock for the processes of one machine is
:class:`tokenadapter.stores.lockfile.LockFile`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from tokenadapter.late_imports import late
from tokenadapter.stores._lease import LEASE, Lease, checked_lease
from tokenadapter.stores._text import FORMAT, LIMIT, Refused, decode, encode

if TYPE_CHECKING:
    import logging

    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")
    logging = late("logging")

__all__ = [
    "FORMAT",
    "LEASE",
    "LIMIT",
    "REMEMBERED",
    "WRITE_TIMEOUT",
    "Lease",
    "Refused",
    "checked_lease",
    "damaged_name",
    "decode",
    "encode",
    "explained",
    "failure",
    "is_remembered",
    "remembering",
    "warn",
    "warn_of_damage",
    "warn_once",
    "warn_put_aside",
]

WRITE_TIMEOUT: Final = 10.0
"""Seconds that a write by a thread without the lock waits for the thread or process that has it."""

REMEMBERED: Final = 32
"""How many hashes of spent tokens are remembered, in addition to those that are never forgotten."""

# What follows a hash that is never forgotten.
_FOR_GOOD: Final = " for good"
# The store objects that have logged a warning.
_WARNED: WeakSet[object] = WeakSet()


# --- errors ------------------------------------------------------------------------------


@contextmanager
def explained(
    store: object,
    task: str,
    advise: Callable[[Exception], str],
    catch: type[Exception] = Exception,
) -> Iterator[None]:
    """Turn each error in a block into a :class:`~tokenadapter.StoreError` that helps.

    :param task: what the block does, as in ``save the token``.
    :param advise: returns what to do about an error.  It is not called for :class:`Refused`, whose
        text says that already.
    :param catch: the errors to turn into a ``StoreError``.
    """
    try:
        yield
    except catch as error:
        if isinstance(error, errors.StoreError):
            raise
        advice = "" if isinstance(error, Refused) else advise(error)
        raise failure(store, task, str(error) or type(error).__name__, advice) from error


def failure(store: object, task: str, cause: str, advice: str = "") -> errors.StoreError:
    """The error that says that *store* could not do its *task*, why, and what to do."""
    end = f" {advice}" if advice else ""
    return errors.StoreError(
        f"{store!r} cannot {task}: {cause.rstrip('.')}. Nothing stored was lost.{end}"
    )


# --- content that is not a record --------------------------------------------------------


def warn_of_damage(store: object) -> None:
    """Log that what the slot contains is not a record and counts as empty.  Each store object logs
    that once, although every :meth:`~tokenadapter.protocols.TokenStore.load` finds it again."""
    warn_once(
        store,
        "%r contains something that is not a record: it counts as empty, and the next save puts it "
        "aside. Pass a token of another library to TokenKeeper.adopt().",
        store,
    )


def damaged_name() -> str:
    """A new name for content that is put aside: ``damaged-``, the time (UTC), and a nonce."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"damaged-{stamp}-{os.urandom(4).hex()}"


def warn_put_aside(store: object, place: str) -> None:
    """Log where content that was not a record is now."""
    warn("%r contained something that was not a record: that is in %s now", store, place)


def warn_once(store: object, message: str, *args: object) -> None:
    """Log a warning unless this store object has logged one by this function before."""
    if store not in _WARNED:
        with suppress(TypeError):  # a store with slots may have no weak references
            _WARNED.add(store)
        warn(message, *args)


def warn(message: str, *args: object) -> None:
    """Log a warning about a store (``tokenadapter.store``)."""
    logging.getLogger("tokenadapter.store").warning(message, *args)


# --- spent refresh tokens ----------------------------------------------------------------


def remembering(lines: Sequence[str], digest: str, *, for_good: bool) -> list[str]:
    """*lines* with the hash of a spent token added, for
    :meth:`~tokenadapter.protocols.TokenStore.remember_spent`.

    :param for_good: never forget the hash.  Of the others, the last ``REMEMBERED`` are
        remembered.
    """
    kept = [line for line in lines if line.removesuffix(_FOR_GOOD) != digest]
    is_for_good = for_good or digest + _FOR_GOOD in lines
    kept.append(digest + _FOR_GOOD if is_for_good else digest)
    others = [line for line in kept if not line.endswith(_FOR_GOOD)]
    forgotten = set(others[:-REMEMBERED])
    return [line for line in kept if line not in forgotten]


def is_remembered(lines: Iterable[str], digest: str) -> bool:
    """Whether *lines* say that the token with that hash is spent, for
    :meth:`~tokenadapter.protocols.TokenStore.was_spent`.

    They do so by the hash, or by a later place of the same login.
    """
    spent, login, place = _parts(digest)
    return any(
        known == spent or (login != "" and theirs == login and newest > place)
        for known, theirs, newest in map(_parts, lines)
    )


def _parts(line: str) -> tuple[str, str, int]:
    """Of ``HASH`` or ``HASH/LOGIN/PLACE``: the hash, the login and the place."""
    spent, login, place = (*line.removesuffix(_FOR_GOOD).split("/"), "", "")[:3]
    return spent, login, int(place[:99]) if place.isdecimal() else -1
