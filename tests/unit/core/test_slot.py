"""Reads and writes of a slot: compare-and-swap, the owner, and restoring a lost record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from doubles import LOST, Authority, Clockwork, Save, Shelf

from tokenadapter.core.record import Backoff, Intent, Record, Replaced, Tombstone, Waiter
from tokenadapter.core.slot import Conflict, Slot, View
from tokenadapter.errors import RefreshConfigError, StoreError
from tokenadapter.protocols import Document
from tokenadapter.token import Token


@pytest.fixture
def shelf(clock: Clockwork) -> Shelf:
    return Shelf(clock)


@pytest.fixture
def slot(shelf: Shelf, clock: Clockwork) -> Slot:
    return Slot(shelf, Authority(first=None), clock)


@pytest.fixture
def other(shelf: Shelf, clock: Clockwork) -> Slot:
    """The same slot, as another process sees it."""
    return Slot(shelf, Authority(first=None), clock)


def minted(view: View, access_token: str) -> Record:
    token = Token(access_token, issued_at=view.read_at, expires_at=view.read_at + 3600)
    return view.record.with_new_token(token, {}, view.read_at)


def fill(slot: Slot, access_token: str = "abc") -> View:
    view = slot.look()
    return slot.write(view, minted(view, access_token))


def times(view: View) -> tuple[float, float, float, float]:
    return view.read_at, view.monotonic, view.wall, view.took


def content(view: View) -> tuple[Record, str | None]:
    return view.record, view.tag


def token_in(view: View) -> str | None:
    return view.record.token and view.record.token.access_token


# --- looking ---------------------------------------------------------------------------------


def test_an_empty_slot_is_read_as_a_new_record(slot: Slot) -> None:
    view = slot.look()
    assert view.record == Record(Authority.owner, Authority.requested, view.record.salt)
    assert view.tag is None
    assert view.record.salt != slot.look().record.salt


def test_a_view_has_the_times_of_store_and_process(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    shelf.ahead = 100.0
    view = slot.look()
    assert times(view) == (clock.now + 100, clock.ticks, clock.now, 0)
    clock.go_on(5)
    assert slot.now(view) == slot.stamp(view) == clock.now + 100
    clock.now -= 3600  # our wall clock was set back, and that of the store was not
    assert slot.now(view) == view.read_at + 5


@pytest.mark.parametrize("clock_read_after", [0.0, 0.25, 1.0])
def test_the_store_may_have_read_its_clock_at_any_time_during_a_look(
    slot: Slot, shelf: Shelf, clock: Clockwork, clock_read_after: float
) -> None:
    shelf.ahead, shelf.takes, shelf.clock_read_after = 100.0, 4.0, clock_read_after
    before = clock.ticks, clock.now, 4.0
    view = slot.look()
    assert times(view)[1:] == before
    clock.go_on(5)
    # The time is late enough for what may have ended, and early enough for what begins now.
    assert slot.stamp(view) <= clock.now + 100 <= slot.now(view)
    assert slot.now(view) == view.read_at + 9
    assert slot.stamp(view) == view.read_at + 5


def test_a_view_without_a_slot_has_the_clock_of_this_machine(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot)
    shelf.failing = lambda step: True
    view = slot.empty_view()
    assert view.tag is None
    assert times(view) == (clock.now, clock.ticks, clock.now, 0)
    assert view.record == Record(Authority.owner, Authority.requested, view.record.salt)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": 2, "oldest_reader": 2},
        {"format": 1, "oldest_reader": 1, "token": "abc"},
    ],
)
def test_an_unreadable_record_raises_and_is_left_unchanged(
    slot: Slot, shelf: Shelf, document: dict[str, Any]
) -> None:
    shelf.slot = (document, "1-x")
    message = r"^Shelf\(\) holds a record .* read: .* (format|record).* was left unchanged"
    with pytest.raises(StoreError, match=message):
        slot.look()
    assert shelf.slot == (document, "1-x")


def test_the_record_of_another_owner_raises_and_is_left_unchanged(slot: Slot, shelf: Shelf) -> None:
    view = fill(slot)
    theirs = view.record._replace(owner={"client": "you"}).to_document()
    shelf.slot = (theirs, "2-x")
    with pytest.raises(RefreshConfigError) as caught:
        slot.look()
    assert str(caught.value).startswith("Shelf() holds the token of client 'you', not of")
    assert "endpoint 'https://id.example.com/token', client 'me'" in str(caught.value)
    with pytest.raises(RefreshConfigError):
        slot.write(view, view.record)
    assert shelf.slot == (theirs, "2-x")


def test_a_record_without_an_owner_belongs_to_another_owner(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    nobody = Authority(first=None)
    nobody.owner = {}
    fill(Slot(shelf, nobody, clock))
    with pytest.raises(RefreshConfigError, match="the token of an unnamed source, not of endpoint"):
        slot.look()


@pytest.mark.parametrize(
    "worth",
    [
        {"intent": Intent("one", 5.0, 1)},
        {"tombstones": (Tombstone("one", "password", "invalid_grant", 5.0),)},
        {"spent": ("mark",)},
    ],
    ids=lambda worth: next(iter(worth)),
)
def test_a_record_of_another_owner_is_refused_even_without_a_token(
    slot: Slot, shelf: Shelf, worth: dict[str, Any]
) -> None:
    theirs = Record({"client": "you"}, {}, "salt", **worth).to_document()
    shelf.slot = (theirs, "2-x")
    with pytest.raises(RefreshConfigError, match="holds the token of client 'you', not of"):
        slot.look()
    assert shelf.slot == (theirs, "2-x")


@pytest.mark.parametrize("owner", [{}, {"client": "misspelt"}])
def test_a_blank_record_of_another_owner_is_replaced(
    slot: Slot, other: Slot, shelf: Shelf, owner: dict[str, str]
) -> None:
    backoff = Backoff(5.0, 60.0, 3, "them", "config", "invalid_client", "No such client.")
    past = (Replaced({"scope": "theirs"}, 5.0),)
    theirs = Record(owner, {}, "salt", replaced=past, backoff=backoff, distrust=backoff)
    shelf.slot = (theirs.to_document(), "2-x")
    view = slot.look()
    # Later than what another process may remember: a logout may have left it.
    blank = Record(Authority.owner, Authority.requested, "salt").without_token(0.0)
    assert view.record == blank
    assert view.tag == "2-x"
    # A writer replaces it by the usual rule.
    assert slot.write(view, minted(view, "ours")).tag == shelf.saves[0].tag
    assert token_in(other.look()) == "ours"
    with pytest.raises(Conflict):
        other.write(view, minted(view, "late"))


def test_a_store_that_cannot_be_read_raises(slot: Slot, shelf: Shelf) -> None:
    shelf.failing = lambda step: step == "load"
    with pytest.raises(StoreError, match="load fails"):
        slot.look()


# --- writing ---------------------------------------------------------------------------------


def test_every_slot_reads_what_one_has_written(slot: Slot, other: Slot) -> None:
    view = fill(slot)
    assert content(other.look()) == content(view)
    assert token_in(view) == "abc"


def test_each_write_has_the_next_version_and_its_own_nonce(slot: Slot, other: Slot) -> None:
    tags = [fill(writer).tag for writer in (slot, other, slot)]
    versions, nonces = zip(*[str(tag).split("-") for tag in tags], strict=True)
    assert versions == ("1", "2", "3")
    assert len(set(nonces)) == 3


@pytest.mark.parametrize("tag", ["one", "-", "x-1", "9" * 5000, "9" * 5000 + "-x"])
def test_a_tag_without_a_version_is_replaced(slot: Slot, shelf: Shelf, tag: str) -> None:
    fill(slot)
    assert shelf.slot is not None
    shelf.slot = (shelf.slot[0], tag)
    assert str(fill(slot).tag).startswith("1-")


def test_the_slower_writer_writes_nothing_and_gets_the_current_record(
    slot: Slot, other: Slot, shelf: Shelf
) -> None:
    view = slot.look()
    theirs = fill(other, "theirs")
    before = shelf.slot
    with pytest.raises(Conflict) as caught:
        slot.write(view, view.record)
    assert content(caught.value.view) == content(theirs)
    assert shelf.slot == before


def test_a_write_whose_tag_is_stored_has_succeeded_whatever_the_store_answered(
    slot: Slot, other: Slot, shelf: Shelf
) -> None:
    shelf.next = [(True, False)]
    view = fill(slot)
    assert content(other.look()) == content(view)
    assert len(shelf.saves) == 1


@pytest.mark.parametrize("written", [True, False])
def test_a_write_whose_answer_was_lost_is_repeated_with_the_same_tag(
    slot: Slot, other: Slot, shelf: Shelf, written: bool
) -> None:
    shelf.next = [(written, LOST)]
    view = fill(slot)
    assert content(other.look()) == content(view)
    assert len(shelf.saves) == 2
    assert shelf.saves[0] == shelf.saves[1] == Save(str(view.tag), None, 3600)


def test_a_repeated_write_compares_with_the_same_tag(slot: Slot, shelf: Shelf) -> None:
    first = fill(slot)
    shelf.saves.clear()
    shelf.next = [(False, LOST)]
    fill(slot, "second")
    assert [save.expected for save in shelf.saves] == [first.tag, first.tag]


def test_a_repeated_write_does_not_overwrite_a_later_write(
    slot: Slot, other: Slot, shelf: Shelf
) -> None:
    view = slot.look()
    save, theirs = shelf.save, []

    def save_and_be_overtaken(document: Document, **how: Any) -> bool:
        shelf.save = save  # type: ignore[method-assign]
        save(document, **how)
        theirs.append(fill(other, "theirs"))
        raise LOST

    shelf.save = save_and_be_overtaken  # type: ignore[method-assign]
    with pytest.raises(Conflict) as caught:
        slot.write(view, minted(view, "ours"))
    assert content(caught.value.view) == content(theirs[0])
    assert token_in(other.look()) == "theirs"


def test_a_confirmed_write_is_not_read_back(slot: Slot, shelf: Shelf) -> None:
    view = slot.look()
    shelf.failing = lambda step: step == "load"
    assert slot.write(view, view.record).record == view.record


def test_a_write_that_fails_twice_raises(slot: Slot, shelf: Shelf) -> None:
    last = StoreError("The disk is full.")
    shelf.next = [(False, LOST), (False, last)]
    with pytest.raises(StoreError) as caught:
        fill(slot)
    assert caught.value is last
    assert shelf.slot is None
    assert len(shelf.saves) == 2


@pytest.mark.parametrize("written", [True, False])
def test_a_failed_write_can_be_retried_later_with_its_tag(
    slot: Slot, other: Slot, shelf: Shelf, written: bool
) -> None:
    view = slot.look()
    tag = slot.new_tag(view)
    shelf.next = [(written, LOST), (written, LOST)]
    with pytest.raises(StoreError):
        slot.write(view, minted(view, "first try"), tag)
    later = slot.write(view, minted(view, "second try"), tag)
    assert later.tag == other.look().tag == tag
    assert token_in(other.look()) == "second try"


def test_a_write_that_is_retried_later_does_not_overwrite_a_later_write(
    slot: Slot, other: Slot, shelf: Shelf
) -> None:
    view = slot.look()
    tag = slot.new_tag(view)
    shelf.next = [(True, LOST), (True, LOST)]
    with pytest.raises(StoreError):
        slot.write(view, minted(view, "ours"), tag)
    theirs = fill(other, "theirs")
    with pytest.raises(Conflict) as caught:
        slot.write(view, minted(view, "ours"), tag)
    assert content(caught.value.view) == content(theirs)


def test_the_view_of_a_write_has_the_time_of_its_end(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    shelf.ahead = 100.0
    view = slot.look()
    clock.go_on(600)
    shelf.takes = 7.0
    clock.now -= 3600  # our wall clock is set back meanwhile
    written = slot.write(view, view.record)
    assert written.monotonic == clock.ticks == view.monotonic + 607
    assert written.read_at == slot.now(view) == view.read_at + 607
    assert written.wall == view.wall + 607
    assert slot.stamp(written) == slot.stamp(view)


def test_the_store_gets_the_ttl_of_the_record(slot: Slot, shelf: Shelf, clock: Clockwork) -> None:
    shelf.ahead = 100.0
    view = fill(slot)
    clock.go_on(600)
    view = slot.write(view, view.record)
    slot.write(view, view.record.with_unknown_outcome(Backoff(view.read_at, 5.0, 1)))
    assert [save.ttl for save in shelf.saves] == [3600, 3000, None]


def test_a_document_is_json(slot: Slot, shelf: Shelf) -> None:
    fill(slot)
    assert shelf.slot is not None
    assert json.loads(json.dumps(shelf.slot[0])) == shelf.slot[0]


# --- a slot that was emptied -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["wrote", "saw"])
def test_a_vanished_record_is_restored_from_memory(
    slot: Slot, other: Slot, shelf: Shelf, how: str
) -> None:
    known = fill(slot)
    if how == "saw":
        other.look()
        slot = other
    shelf.slot = None
    shelf.takes = 3.0
    view = slot.look()
    assert (view.record, view.tag, view.took) == (known.record, None, 3.0)
    assert slot.write(view, view.record).record == known.record
    assert other.look().record == known.record


def test_a_write_that_failed_is_not_remembered(slot: Slot, shelf: Shelf) -> None:
    fill(slot, "saved")
    shelf.next = [(False, LOST)] * 2
    with pytest.raises(StoreError):
        fill(slot, "unsaved")
    shelf.slot = None
    assert token_in(slot.look()) == "saved"


def test_a_record_without_a_token_is_not_remembered(slot: Slot, shelf: Shelf) -> None:
    view = slot.look()
    slot.write(view, view.record.with_unknown_outcome(Backoff(view.read_at, 5.0, 1)))
    shelf.slot = None
    assert slot.look().record.backoff is None


def test_a_removed_token_is_not_restored(slot: Slot, other: Slot, shelf: Shelf) -> None:
    view = fill(slot)
    other.look()
    slot.write(view, view.record.without_token(view.read_at))
    for one in (slot, other):
        assert token_in(one.look()) is None
    shelf.slot = None
    for one in (slot, other):
        assert token_in(one.look()) is None


def test_a_later_record_of_another_thread_is_not_overwritten_by_an_earlier_one(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "old")
    shelf.slot = None
    view = slot.look()
    renew(slot, clock, "new")  # by another thread
    shelf.slot = None
    with pytest.raises(Conflict) as caught:
        slot.write(view, view.record)
    assert token_in(caught.value.view) == "new"
    assert shelf.slot is None


def test_a_forked_child_does_not_restore_a_token_that_its_parent_may_have_replaced(
    slot: Slot, shelf: Shelf
) -> None:
    fill(slot)
    slot.forget()
    shelf.slot = None
    assert token_in(slot.look()) is None


# --- a slot that was set back ----------------------------------------------------------------


def renew(slot: Slot, clock: Clockwork, access_token: str) -> View:
    """Fill the slot a minute later."""
    clock.go_on(60)
    return fill(slot, access_token)


@pytest.mark.parametrize("how", ["wrote", "saw"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_slot_that_was_set_back_is_read_as_before(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork, how: str, is_first: bool
) -> None:
    if is_first:
        view = slot.look()
        slot.write(view, view.record.with_intent("first", view.read_at, Waiter("p", 0.0)))
    else:
        fill(slot, "old")
    backup = shelf.slot
    known = renew(slot, clock, "new")
    if how == "saw":
        other.look()
        slot = other
    shelf.slot = backup
    assert backup is not None
    view = slot.look()
    assert (view.record, view.tag, view.was_reset) == (known.record, backup[1], True)
    assert not known.was_reset
    # At each look, until it is written back.
    assert slot.look().was_reset
    written = slot.write(view, view.record)
    assert (written.record, written.was_reset) == (known.record, False)
    for one in (slot, other):
        assert content(one.look()) == content(written)
        assert not one.look().was_reset


def test_the_process_with_the_latest_record_restores_it(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "oldest")
    backup = shelf.slot
    renew(slot, clock, "older")
    other.look()
    renew(slot, clock, "newest")
    shelf.slot = backup
    view = other.look()
    assert token_in(view) == "older"
    other.write(view, view.record)
    view = slot.look()
    assert (token_in(view), view.was_reset) == ("newest", True)
    slot.write(view, view.record)
    view = other.look()
    assert (token_in(view), view.was_reset) == ("newest", False)


def test_a_late_write_does_not_make_its_process_forget_a_later_record(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    """A file is copied into the slot between the comparison and the write of one thread, and
    another thread reads it in between."""
    fill(slot, "older")
    backup = shelf.slot
    view = renew(slot, clock, "old")
    compared = shelf.slot
    other.look()
    newer = renew(other, clock, "newer")
    copied, shelf.slot = shelf.slot, compared

    def is_copied_meanwhile(step: str) -> bool:
        if step == "save":
            shelf.slot = copied
            slot.look()
            shelf.slot = compared
        return False

    shelf.failing = is_copied_meanwhile
    slot.write(view, view.record.with_distrust(view.record.token, view.read_at, 0.5))
    shelf.slot = backup
    view = slot.look()
    assert (view.record, view.was_reset) == (newer.record, True)


def test_no_earlier_record_is_written_after_the_slot_was_set_back(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    view = fill(slot, "old")
    backup = shelf.slot
    other.look()
    newer = renew(other, clock, "newer")
    slot.look()  # in another thread
    shelf.slot = backup
    with pytest.raises(Conflict) as caught:
        slot.write(view, view.record.without_refusals())
    assert (caught.value.view.record, caught.value.view.was_reset) == (newer.record, True)
    assert shelf.slot == backup


def test_an_adopted_token_is_restored_even_if_issued_before_its_predecessor(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    """A login was adopted after a renewal that began later."""
    logged_in = Token("adopted", issued_at=clock.now, refresh_token="theirs")
    renew(slot, clock, "renewed")
    other.look()
    view = slot.look()
    clock.go_on(1)
    slot.write(view, view.record.with_adopted_token(logged_in, {}, view.read_at))
    shelf.slot = None
    # By a process that did not see the adoption.
    view = other.look()
    assert token_in(view) == "renewed"
    other.write(view, view.record)
    view = slot.look()
    assert (token_in(view), view.was_reset) == ("adopted", True)


@pytest.mark.parametrize("writes", [1, 5])
def test_a_renewal_after_the_slot_was_set_back_is_not_overwritten(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork, writes: int
) -> None:
    fill(slot, "old")
    backup = shelf.slot
    for _ in range(3):
        renew(slot, clock, "lost")
    shelf.slot = backup
    for _ in range(writes):  # by a process that has not seen the others
        theirs = renew(other, clock, "theirs")
    view = slot.look()
    assert content(view) == content(theirs)
    assert not view.was_reset


def test_a_new_record_is_not_overwritten_by_the_remembered_one(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot)
    renew(slot, clock, "lost")
    shelf.slot = None
    # Its clock is behind, too.
    clock.go_on(-3600)
    theirs = fill(other, "theirs")
    view = slot.look()
    assert content(view) == content(theirs)
    assert not view.was_reset


def test_a_clock_that_was_set_back_does_not_look_like_a_reset_slot(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot)
    shelf.ahead -= 3600
    theirs = fill(other, "theirs")
    view = slot.look()
    assert content(view) == content(theirs)
    assert not view.was_reset


def test_a_record_of_the_same_generation_is_not_behind_whatever_the_clock_says(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "old")
    backup = shelf.slot
    renew(slot, clock, "lost")
    shelf.slot = backup
    shelf.ahead -= 3600
    theirs = fill(other, "theirs")
    assert content(slot.look()) == content(theirs)


def test_a_record_without_a_generation_is_not_behind_itself(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "old")
    view = renew(slot, clock, "new")
    assert shelf.slot is not None
    # An earlier version of this library wrote no generation.
    theirs = {name: value for name, value in shelf.slot[0].items() if name != "generation"}
    shelf.slot = (theirs, "1")
    later = slot.look()
    assert (later.record, later.was_reset) == (view.record._replace(generation=0), False)


def test_another_process_that_continues_from_the_old_record_does_not_hide_the_reset(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "old")
    backup = shelf.slot
    renew(slot, clock, "new")
    shelf.slot = backup
    view = other.look()
    for number in range(5):
        view = other.write(
            view, view.record.with_intent("abc", view.read_at + number, Waiter("p", 0.0))
        )
    assert (token_in(slot.look()), slot.look().was_reset) == ("new", True)


def test_a_slot_that_was_set_back_keeps_later_backoffs(
    slot: Slot, other: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "old")
    backup = shelf.slot
    renew(slot, clock, "new")
    shelf.slot = backup
    clock.go_on(1)
    view = other.look()
    backoff = Backoff(view.read_at, 5.0, 1)
    other.write(view, view.record.with_unknown_outcome(backoff))
    assert (token_in(slot.look()), slot.look().record.backoff) == ("new", backoff)
    shelf.slot = None
    assert (token_in(slot.look()), slot.look().record.backoff) == ("new", None)


def test_a_reset_during_a_write_is_detected(slot: Slot, shelf: Shelf, clock: Clockwork) -> None:
    fill(slot)
    backup = shelf.slot
    view = renew(slot, clock, "new")
    shelf.slot = backup
    with pytest.raises(Conflict) as caught:
        slot.write(view, view.record.with_unknown_outcome(Backoff(view.read_at, 5.0, 1)))
    assert caught.value.view.was_reset
    assert caught.value.view.record == view.record


def test_a_forked_child_uses_the_record_that_it_finds(
    slot: Slot, shelf: Shelf, clock: Clockwork
) -> None:
    fill(slot, "old")
    backup = shelf.slot
    renew(slot, clock, "new")
    slot.forget()
    shelf.slot = backup
    assert token_in(slot.look()) == "old"
