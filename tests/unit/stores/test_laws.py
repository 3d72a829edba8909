"""Rules for every document and every order of saves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenadapter.protocols import Document, TokenStore
from tokenadapter.stores import toolkit
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.memory import MemoryStore

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(), some, max_size=4),
)
TAGS = st.sampled_from(["a", "b", "c"])
DIGESTS = st.sampled_from(["a", "b", "c", "d", "e"])
STORES = pytest.mark.parametrize(
    "make", [lambda _: MemoryStore(), FileStore], ids=["memory", "file"]
)


@STORES
@settings(max_examples=40)
@given(document=st.dictionaries(st.text(), JSON))
def test_any_document_is_loaded_as_it_was_saved(
    make: Callable[[Path], TokenStore], document: Document
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = make(Path(directory) / "token.json")
        assert store.save(document, tag="one", expected=None, ttl=None)
        assert store.load().document == document


@STORES
@settings(max_examples=40)
@given(writes=st.lists(st.tuples(TAGS, st.none() | TAGS), max_size=8))
def test_a_save_succeeds_if_it_expects_the_current_tag(
    make: Callable[[Path], TokenStore], writes: list[tuple[str, str | None]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = make(Path(directory) / "token.json")
        stored: Document | None = None
        for number, (tag, expected) in enumerate(writes):
            before = store.load().tag
            written = store.save({"n": number}, tag=tag, expected=expected, ttl=None)
            # What has the new tag already is the same write, tried again.
            assert written == (before in (expected, tag))
            if written:
                stored = {"n": number}
            snapshot = store.load()
            assert snapshot.document == stored
            assert snapshot.tag == (tag if written else before)


@given(line=st.text() | st.builds("hash/login/{}".format, st.text("0123456789²٣-", max_size=9)))
@example(line=f"hash/login/{'9' * 5000}")
def test_no_line_makes_the_spent_tokens_unreadable(line: str) -> None:
    assert toolkit.is_remembered([line, "kept"], "kept")


@settings(max_examples=40)
@given(calls=st.lists(st.tuples(DIGESTS, st.booleans()), max_size=8))
def test_spent_tokens_are_forgotten_in_the_order_in_which_they_were_last_remembered(
    calls: list[tuple[str, bool]],
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        patch("tokenadapter.stores.toolkit.REMEMBERED", 2),
    ):
        store = FileStore(Path(directory) / "token.json")
        kept: set[str] = set()
        passing: list[str] = []
        for digest, for_good in calls:
            passing = [other for other in passing if other != digest]
            if for_good or digest in kept:
                kept.add(digest)
            else:
                passing = [*passing, digest][-2:]
            store.remember_spent(digest, for_good=for_good)
            remembered = {other for other in "abcde" if store.was_spent(other)}
            assert remembered == {*kept, *passing}
