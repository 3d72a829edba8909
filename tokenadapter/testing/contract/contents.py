"""A saved document is loaded: in full, unchanged, and also after the content was damaged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tokenadapter.testing.contract.terms import Connect, Corrupt, Terms, content_of

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore

__all__ = ["Contents"]


class Contents(Terms):
    """Documents, hashes of spent tokens, and content that is not a record."""

    def test_an_empty_slot_has_neither_document_nor_tag(self, store: TokenStore) -> None:
        snapshot = store.load()
        assert (snapshot.document, snapshot.tag) == (None, None)

    def test_the_time_of_a_snapshot_does_not_run_backwards(self, store: TokenStore) -> None:
        times = [store.load().now for _ in range(5)]
        assert times == sorted(times)

    def test_a_saved_document_is_loaded(self, connect: Connect) -> None:
        document = {
            "text": 'ASCII, "quotes", \\ and \n',
            "unicode": "żółć – 東京 – 🗝️ – \u202e",
            "numbers": [0, -1, 1.5, 1e300, 2**53, 1_700_000_000.123456],
            "words": [True, False, None, "", [], {}],
            "nested": {"a": [{"b": {"c": [[1], [2]]}}]},
            "": "a key without a name",
        }
        assert connect().save(document, tag="one", expected=None, ttl=None)
        snapshot = connect().load()
        assert snapshot.document == document
        assert snapshot.tag == "one"

    def test_large_documents_are_saved_in_full(self, connect: Connect) -> None:
        tag = None
        for size in (self.LARGE, 10, self.LARGE // 2):
            document = {"token": "x" * size, "unicode": "🗝" * (size // 10)}
            assert connect().save(document, tag=f"{size}", expected=tag, ttl=None)
            tag = f"{size}"
            assert content_of(connect()) == (document, tag)

    def test_a_document_that_changes_after_the_save_is_not_saved(self, store: TokenStore) -> None:
        document: dict[str, Any] = {"list": [1]}
        assert store.save(document, tag="one", expected=None, ttl=None)
        document["list"].append(2)
        loaded = store.load().document
        assert loaded == {"list": [1]}
        loaded["list"].append(3)
        assert store.load().document == {"list": [1]}

    @pytest.mark.parametrize("ttl", [None, 3600.0])
    def test_a_document_is_kept_until_it_expires(
        self, store: TokenStore, ttl: float | None
    ) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=ttl)
        assert store.load().document == {"n": 1}

    def test_a_later_save_replaces_the_expiry(self, store: TokenStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=0.05)
        while not store.save({"n": 2}, tag="two", expected=store.load().tag, ttl=None):
            pass
        time.sleep(0.1)
        assert store.load().document == {"n": 2}

    def test_neither_store_nor_snapshot_shows_a_secret(self, store: TokenStore) -> None:
        assert store.save({"secret": "s3cr3t"}, tag="one", expected=None, ttl=None)
        assert "s3cr3t" not in f"{store!r} {store} {store.load()!r} {store.load()}"

    @pytest.mark.parametrize("size", [0, 7])
    def test_content_that_is_not_a_record_counts_as_empty(
        self, connect: Connect, corrupt: Corrupt | None, size: int
    ) -> None:
        if corrupt is None:
            pytest.skip("the fixture 'corrupt' does not say how to damage the content")
        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
        corrupt(b"garbage"[:size])
        assert content_of(connect()) == (None, None)
        assert not connect().save({"n": 2}, tag="two", expected="one", ttl=None)
        assert connect().save({"n": 2}, tag="two", expected=None, ttl=None)
        assert content_of(connect()) == ({"n": 2}, "two")

    # Spent tokens

    @pytest.mark.parametrize("for_good", [True, False])
    def test_spent_tokens_are_remembered(self, connect: Connect, for_good: bool) -> None:
        store = connect()
        for digest in ("first", "second", "first"):
            lock = store.lock()
            assert lock.acquire(self.HOLD)
            store.remember_spent(digest, for_good=for_good)
            lock.release()
        assert store.save({"n": 1}, tag="one", expected=None, ttl=None)
        asked = ("first", "second", "fir", "third", "")
        assert [digest for digest in asked if connect().was_spent(digest)] == ["first", "second"]

    def test_some_spent_tokens_are_never_forgotten_and_of_the_others_the_last_dozens_are_remembered(
        self, connect: Connect
    ) -> None:
        store = connect()
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        store.remember_spent("raised", for_good=False)
        for digest in ("kept", "raised"):
            store.remember_spent(digest, for_good=True)
        store.remember_spent("kept", for_good=False)
        others = [f"other {number}" for number in range(40)]
        for digest in others:
            store.remember_spent(digest, for_good=False)
        lock.release()
        for digest in ("kept", "raised", *others[-24:]):
            assert connect().was_spent(digest), digest

    def test_a_later_place_of_a_login_shows_that_earlier_ones_are_spent(
        self, connect: Connect
    ) -> None:
        store = connect()
        lock = store.lock()
        assert lock.acquire(self.HOLD)
        for place in (8, 9, 10):
            store.remember_spent(f"hash {place}/login/{place}", for_good=False)
        lock.release()
        asked = ("hash 9", "forgotten/login/2", "next/login/10", "later/login/11", "other/of/2")
        spent = [digest for digest in asked if connect().was_spent(digest)]
        assert spent == ["hash 9", "forgotten/login/2"]
