"""What a test class tells the contract about its store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore
    from tokenadapter.values import Document

__all__ = ["Connect", "Corrupt", "Terms", "content_of"]

Connect: TypeAlias = "Callable[[], TokenStore]"
"""A function that makes one more store object for the slot of the test."""

Corrupt: TypeAlias = Callable[[bytes], object]
"""A function that puts bytes in the place of what the slot of the test holds."""


class Terms:
    """The settings and fixtures of the contract."""

    HOLD = 60.0
    """For how many seconds the locks of the tests are taken: longer than any test runs."""

    LEASE: float | None = None
    """For how many seconds a lock lasts that no heartbeat extends; ``None`` if locks end with
    their holders and with nothing else.  Tests wait that long: give them a store whose leases are
    short, such as half a second."""

    LAPSES_WITHIN = 30.0
    """How many seconds after its holder was killed, or has given up, a lock is free at the
    latest."""

    LARGE = 100_000
    """How many characters a document may have at least.  Some servers' tokens have thousands."""

    @pytest.fixture
    def connect(self) -> Connect:
        """Where the slot of a test is: a function that makes one more store object for it.  The
        slot is empty when the test begins.  A test class has to say this."""
        raise NotImplementedError("override the fixture 'connect': say where the slot is")

    @pytest.fixture
    def corrupt(self) -> Corrupt | None:
        """How the content of the slot can be replaced behind the store's back; ``None`` if that
        cannot be tested."""
        return None

    @pytest.fixture
    def store(self, connect: Connect) -> TokenStore:
        """One store object for the slot."""
        return connect()


def content_of(store: TokenStore) -> tuple[Document | None, str | None]:
    """What *store* holds: a document and its tag."""
    found = store.load()
    return found.document, found.tag
