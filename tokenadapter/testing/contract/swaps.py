"""A save replaces the document that its writer saw, or nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tokenadapter.testing.contract.terms import Connect, Terms, content_of
from tokenadapter.testing.workers import in_threads

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore

__all__ = ["Swaps"]


class Swaps(Terms):
    """The compare-and-swap on the tag."""

    def test_a_save_that_expects_the_current_tag_succeeds(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert content_of(store) == ({"n": 2}, "two")

    @pytest.mark.parametrize("expected", [None, "zero"])
    def test_a_save_that_expects_another_tag_writes_nothing(
        self, store: TokenStore, expected: str | None
    ) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert not store.save({"n": 2}, tag="two", expected=expected, ttl=None)
        assert content_of(store) == ({"n": 1}, "one")

    def test_a_save_that_expects_a_tag_does_not_fill_an_empty_slot(self, store: TokenStore) -> None:
        assert not store.save({"n": 1}, tag="one", expected="zero", ttl=None)
        assert store.load().document is None

    def test_a_repeated_save_succeeds_again(self, store: TokenStore) -> None:
        for _ in range(2):
            assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        for _ in range(2):
            assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert content_of(store) == ({"n": 2}, "two")

    def test_a_repeated_save_writes_the_newest_document(self, store: TokenStore) -> None:
        # The repeated document may differ, such as in a time.
        for number in range(3):
            assert store.save({"n": number}, tag="one", expected=None, ttl=None)
            assert content_of(store) == ({"n": number}, "one")

    def test_a_save_that_is_repeated_after_another_one_fails(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert store.save({"n": 2}, tag="two", expected="one", ttl=None)
        assert not store.save({"n": 1}, tag="one", expected=None, ttl=None)
        assert content_of(store) == ({"n": 2}, "two")

    def test_one_of_many_threads_that_save_at_once_succeeds(self, connect: Connect) -> None:
        barrier = threading.Barrier(12)
        won: list[list[str]] = [[], [], []]

        def write(number: int) -> None:
            store = connect()
            for winners in won:
                expected = store.load().tag
                barrier.wait()
                tag = f"{expected}-{number}"
                if store.save({"by": tag}, tag=tag, expected=expected, ttl=None):
                    winners.append(tag)
                barrier.wait()

        in_threads(write, range(barrier.parties))
        assert [len(winners) for winners in won] == [1, 1, 1]
        assert content_of(connect()) == ({"by": won[-1][0]}, won[-1][0])
