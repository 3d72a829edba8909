"""A slot is written by whoever saw it last, belongs to one grant, and is never lost in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from doubles import Authority, Clockwork, Shelf

from tokenadapter.errors import RefreshConfigError, StoreError
from tokenadapter.machine import Machine
from tokenadapter.protocols import Document
from tokenadapter.record import Hold, Record
from tokenadapter.slot import Moved, Slot, View
from tokenadapter.token import Token


class Shaky(Shelf):
    """A shelf whose next save goes wrong: *written* or not, it says *answer*, or raises it."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.next: tuple[bool, bool | StoreError] | None = None
        self.ttls: list[float | None] = []

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        self.ttls.append(ttl)
        if self.next is None:
            return super().save(document, tag=tag, expected=expected, ttl=ttl)
        (written, answer), self.next = self.next, None
        if written:
            super().save(document, tag=tag, expected=expected, ttl=ttl)
        if isinstance(answer, StoreError):
            raise answer
        return answer


LOST = StoreError("The answer got lost.")


@pytest.fixture
def clock() -> Clockwork:
    return Clockwork()


@pytest.fixture
def shelf(clock: Clockwork) -> Shaky:
    return Shaky(clock)


@pytest.fixture
def slot(shelf: Shaky, clock: Clockwork) -> Slot:
    return Slot(shelf, Authority(), clock)


@pytest.fixture
def other(shelf: Shaky, clock: Clockwork) -> Slot:
    """The same slot, as another process sees it."""
    return Slot(shelf, Authority(), clock)


def fill(slot: Slot, access_token: str = "abc") -> View:
    view = slot.look()
    token = Token(access_token, issued_at=view.now, expires_at=view.now + 3600)
    return slot.write(view, view.record.minted(token, {}, None))


def token_in(view: View) -> str | None:
    return view.record.token and view.record.token.access_token


# --- looking ---------------------------------------------------------------------------------


def test_an_empty_slot_is_seen_as_a_new_record_of_our_own(slot: Slot) -> None:
    view = slot.look()
    assert view.record == Record(Authority.whose, Authority.asked, view.record.salt)
    assert view.tag is None
    assert view.record.salt != slot.look().record.salt


def test_a_view_knows_both_times(slot: Slot, shelf: Shaky, clock: Clockwork) -> None:
    shelf.ahead = 100.0
    view = slot.look()
    assert view[2:] == (clock.now + 100, clock.ticks, clock.now)
    clock.go_on(5)
    assert slot.now(view) == clock.now + 100
    clock.now -= 3600  # our wall clock was set back: the store's was not
    assert slot.now(view) == view.now + 5


def test_a_view_of_nowhere_goes_by_our_clock(slot: Slot, shelf: Shaky, clock: Clockwork) -> None:
    shelf.failing = lambda step: True
    assert slot.nowhere()[1:] == (None, clock.now, clock.ticks, clock.now)


@pytest.mark.parametrize("document", [{}, {"version": 2}, {"version": 1, "token": "abc"}])
def test_a_record_that_cannot_be_read_is_told_and_left_as_it_is(
    slot: Slot, shelf: Shaky, document: dict[str, Any]
) -> None:
    shelf.slot = (document, "1-x")
    with pytest.raises(StoreError, match=r"^Shelf\(\) holds something .* left as it is"):
        slot.look()
    assert shelf.slot == (document, "1-x")


def test_the_record_of_another_is_told_and_left_as_it_is(slot: Slot, shelf: Shaky) -> None:
    view = fill(slot)
    theirs = view.record._replace(whose={"client": "you"}).to_document()
    shelf.slot = (theirs, "2-x")
    with pytest.raises(RefreshConfigError) as caught:
        slot.look()
    assert "client 'you'" in str(caught.value)
    assert "endpoint 'https://id.example.com/token', client 'me'" in str(caught.value)
    with pytest.raises(RefreshConfigError):
        slot.write(view, view.record)
    assert shelf.slot == (theirs, "2-x")


def test_a_record_of_nobody_in_particular_is_anothers_too(
    slot: Slot, shelf: Shaky, clock: Clockwork
) -> None:
    nobody = Authority()
    nobody.whose = {}
    fill(Slot(shelf, nobody, clock))
    with pytest.raises(RefreshConfigError, match="the token of an unnamed source, not of endpoint"):
        slot.look()


def test_a_store_that_cannot_be_read_says_so(slot: Slot, shelf: Shaky) -> None:
    shelf.failing = lambda step: step == "load"
    with pytest.raises(StoreError, match="load fails"):
        slot.look()


# --- writing ---------------------------------------------------------------------------------


def test_what_is_written_is_what_all_see(slot: Slot, other: Slot) -> None:
    view = fill(slot)
    assert other.look()[:2] == view[:2]
    assert token_in(view) == "abc"


def test_each_write_has_the_next_version_and_a_nonce_of_its_own(slot: Slot, other: Slot) -> None:
    tags = [fill(writer).tag for writer in (slot, other, slot)]
    versions, nonces = zip(*[str(tag).split("-") for tag in tags], strict=True)
    assert versions == ("1", "2", "3")
    assert len(set(nonces)) == 3


@pytest.mark.parametrize("tag", ["one", "-", "x-1"])
def test_a_tag_without_a_version_is_replaced_too(slot: Slot, shelf: Shaky, tag: str) -> None:
    fill(slot)
    assert shelf.slot is not None
    shelf.slot = (shelf.slot[0], tag)
    assert str(fill(slot).tag).startswith("1-")


def test_whoever_was_slower_writes_nothing_and_sees_what_is_there(
    slot: Slot, other: Slot, shelf: Shaky
) -> None:
    view = slot.look()
    theirs = fill(other, "theirs")
    before = shelf.slot
    with pytest.raises(Moved) as caught:
        slot.write(view, view.record)
    assert caught.value.view[:2] == theirs[:2]
    assert shelf.slot == before


@pytest.mark.parametrize("answer", [False, LOST])
def test_a_write_that_is_there_has_succeeded_whatever_the_store_answered(
    slot: Slot, other: Slot, shelf: Shaky, answer: bool | StoreError
) -> None:
    shelf.next = (True, answer)
    view = fill(slot)
    assert other.look()[:2] == view[:2]


def test_a_write_that_failed_says_so(slot: Slot, shelf: Shaky) -> None:
    shelf.next = (False, LOST)
    with pytest.raises(StoreError) as caught:
        fill(slot)
    assert caught.value is LOST
    assert shelf.slot is None


def test_the_store_is_told_how_long_the_record_is_worth_keeping(
    slot: Slot, shelf: Shaky, clock: Clockwork
) -> None:
    shelf.ahead = 100.0
    view = fill(slot)
    clock.go_on(600)
    slot.write(view, view.record)
    slot.write(slot.look(), view.record.unknown(Hold(view.now, 5.0, 1)))
    assert shelf.ttls == [3600, 3000, None]


def test_a_document_is_json(slot: Slot, shelf: Shaky) -> None:
    fill(slot)
    assert shelf.slot is not None
    assert json.loads(json.dumps(shelf.slot[0])) == shelf.slot[0]


# --- a slot that was emptied -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["wrote", "saw"])
def test_a_vanished_record_comes_back_from_the_memory_of_whoever_knew_it(
    slot: Slot, other: Slot, shelf: Shaky, how: str
) -> None:
    known = fill(slot)
    if how == "saw":
        other.look()
        slot = other
    shelf.slot = None
    view = slot.look()
    assert (view.record, view.tag) == (known.record, None)
    assert slot.write(view, view.record).record == known.record
    assert other.look().record == known.record


def test_a_write_that_failed_is_not_remembered(slot: Slot, shelf: Shaky) -> None:
    fill(slot, "saved")
    shelf.next = (False, LOST)
    with pytest.raises(StoreError):
        fill(slot, "unsaved")
    shelf.slot = None
    assert token_in(slot.look()) == "saved"


def test_a_record_without_a_token_is_not_worth_remembering(slot: Slot, shelf: Shaky) -> None:
    view = slot.look()
    slot.write(view, view.record.unknown(Hold(view.now, 5.0, 1)))
    shelf.slot = None
    assert slot.look().record.hold is None


def test_a_forked_child_does_not_bring_back_what_its_parent_may_have_replaced(
    slot: Slot, shelf: Shaky
) -> None:
    fill(slot)
    slot.forget()
    shelf.slot = None
    assert token_in(slot.look()) is None
