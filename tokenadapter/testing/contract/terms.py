"""The settings and fixtures by which a test class describes its store."""

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
"""A function that replaces the content of the test's slot with bytes."""


class Terms:
    """The settings and fixtures of the contract."""

    HOLD = 60.0
    """For how many seconds the locks of the tests are taken: longer than any test runs."""

    LEASE: float | None = None
    """For how many seconds a lock lasts without a heartbeat; ``None`` if a lock ends only with its
    holder.  Tests wait that long: give them a store whose leases are short, such as half a
    second."""

    LAPSES_WITHIN = 30.0
    """After how many seconds at most a lock is free whose holder was killed or has given up."""

    LARGE = 100_000
    """How many characters a document may have at least.  Some servers' tokens have thousands."""

    @pytest.fixture
    def connect(self) -> Connect:
        """A function that makes one more store object for the slot of the test.  The slot is empty
        when the test begins.  A test class must override this fixture."""
        raise NotImplementedError("override the fixture 'connect': return a function")

    @pytest.fixture
    def corrupt(self) -> Corrupt | None:
        """A function that replaces the content of the slot without the store; ``None`` if that
        cannot be tested."""
        return None

    @pytest.fixture
    def store(self, connect: Connect) -> TokenStore:
        """One store object for the slot."""
        return connect()


def content_of(store: TokenStore) -> tuple[Document | None, str | None]:
    """The document in *store*, and its tag."""
    found = store.load()
    return found.document, found.tag
