"""Which credential a record allows, and failures that could not be saved."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from doubles import Authority, Clockwork, Shelf

from tokenadapter.core import eligibility as choice_module
from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.record import Backoff, Intent, Record, Waiter
from tokenadapter.core.slot import Slot, View
from tokenadapter.errors import ReauthRequired, RefreshTemporarilyFailed, TokenError
from tokenadapter.protocols import Credential
from tokenadapter.token import Token

TOKEN = Token("abc", issued_at=1.0)
OTHER = Token("def", issued_at=2.0)
FIRST = Credential("refresh_token", "refresh-0", True, True, True)
PASSWORD = Credential("password", "s3cr3t", refusal_is_final=True)
REFUSED = ReauthRequired("Refused.")


class Keys:
    """A grant with the given credentials."""

    owner = Authority.owner
    client_credential = "me"
    requested: Any = MappingProxyType({"scope": "a", "resource": "b"})

    def __init__(self, *credentials: Credential) -> None:
        self.given = credentials

    def credentials(self, previous: Token | None) -> Any:
        return self.given


@pytest.fixture
def slot(clock: Clockwork) -> Slot:
    return Slot(Shelf(clock), Authority(), clock)


@pytest.fixture
def record(slot: Slot) -> Record:
    return slot.look().record._replace(token=TOKEN)


def choice_of(slot: Slot, clock: Clockwork, *credentials: Credential) -> Eligibility:
    return Eligibility(slot, Keys(*credentials), clock)  # type: ignore[arg-type]


def view_of(slot: Slot, record: Record) -> View:
    return slot.look()._replace(record=record)


# --- hashes ----------------------------------------------------------------------------------


def test_a_slow_hash_is_computed_once(
    slot: Slot, clock: Clockwork, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str, str]] = []

    def digest(*what: str) -> str:
        made.append(what)  # type: ignore[arg-type]
        return f"hash {len(made)}"

    monkeypatch.setattr(choice_module, "digest", digest)
    eligibility = choice_of(slot, clock)
    assert [eligibility.digest(record, PASSWORD) for _ in range(3)] == ["hash 1"] * 3
    assert eligibility.digest(record._replace(salt="other"), PASSWORD) == "hash 2"
    assert made == [(record.salt, "password", "s3cr3t"), ("other", "password", "s3cr3t")]
    # Old digests are dropped.
    for number in range(100):
        eligibility.digest(record, Credential("password", str(number)))
    made.clear()
    eligibility.digest(record, PASSWORD)
    assert made == [(record.salt, "password", "s3cr3t")]


def test_the_client_hash_depends_on_credential_and_request_in_any_order(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    def hashed(client: str, requested: dict[str, str]) -> str:
        grant = Keys()
        grant.client_credential, grant.requested = client, requested
        return Eligibility(slot, grant, clock).client_hash(record)  # type: ignore[arg-type]

    ours = hashed("me", {"scope": "a", "resource": "b"})
    assert ours == hashed("me", {"resource": "b", "scope": "a"})
    others = [("you", {"scope": "a", "resource": "b"}), ("me", {"scope": "a"}), ("me", {})]
    assert len({ours, *(hashed(*other) for other in others)}) == 4


# --- failures that could not be saved --------------------------------------------------------


def test_an_unsaved_backoff_applies_until_there_is_another_token(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    eligibility = choice_of(slot, clock)
    eligibility.remember_backoff(
        record, Backoff(0.0, 5.0, 3, "somebody", "temporary", None, "Down.")
    )
    assert eligibility.next_step(record) == 4
    clock.go_on(4.9)
    with pytest.raises(RefreshTemporarilyFailed, match=r"^Down"):
        eligibility.raise_if_backing_off(record, 0.0)
    eligibility.raise_if_backing_off(record._replace(token=OTHER), 0.0)
    assert eligibility.next_step(record) == 1
    eligibility.raise_if_backing_off(record, 0.0)  # another process has renewed


def test_an_unsaved_backoff_ends(slot: Slot, clock: Clockwork, record: Record) -> None:
    eligibility = choice_of(slot, clock)
    eligibility.remember_backoff(record, Backoff(0.0, 5.0, 3))
    clock.go_on(5.0)
    eligibility.raise_if_backing_off(record, 0.0)


@pytest.mark.parametrize("is_saved", [True, False])
def test_after_a_refusal_another_credential_need_not_wait(
    slot: Slot, clock: Clockwork, record: Record, is_saved: bool
) -> None:
    refused, other = subject("one"), subject("two")
    eligibility = choice_of(slot, clock, refused)
    bound_to = eligibility.client_hash(record, refused)
    backoff = Backoff(slot.now(slot.look()), 60.0, 1, bound_to, "refused", None, "Refused.")
    if is_saved:
        record = record._replace(backoff=backoff)
    else:
        eligibility.remember_backoff(record, backoff, (refused,))
    eligibility.raise_if_backing_off(record, slot.now(slot.look()))
    view = view_of(slot, record)
    assert refusal(eligibility, view) == "Refused. Next attempt in 60.0 s."
    assert eligibility.objection(view, other) is None
    clock.go_on(60.0)
    assert refusal(eligibility, view_of(slot, record)) is None


def test_a_backoff_is_limited_to_the_refused_credentials_of_all_programs_up_to_a_number(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    eligibility, now = choice_of(slot, clock), 100.0
    client = eligibility.client_hash(record)

    def backing_off(*refused: Credential) -> Record:
        target = eligibility.backoff_target(record, refused, now)
        return record._replace(backoff=Backoff(now, 60.0, 1, target, "refused"))

    subjects = [subject(str(number)) for number in range(9)]
    for number, one in enumerate(subjects[:8]):
        record = backing_off(one, *subjects[:number])
        waiting = [eligibility.backing_off(record, now, each) is not None for each in subjects]
        assert waiting == [each <= number for each in range(9)]
        eligibility.raise_if_backing_off(record, now)
    ended = eligibility.backoff_target(record, (subjects[8],), now + 60)
    assert ended == eligibility.client_hash(record, subjects[8])
    # What is refused with each call must not be presented without end.
    record = backing_off(subjects[8])
    assert record.backoff is not None
    assert record.backoff.bound_to == client
    with pytest.raises(ReauthRequired):
        eligibility.raise_if_backing_off(record, now)
    assert eligibility.backoff_target(record, (), now) == client


def subject(token: str) -> Credential:
    """A token that another keeper keeps."""
    return Credential("subject_token", token, replaceable=True)


def refusal(eligibility: Eligibility, view: View) -> str | None:
    try:
        eligibility.credential(view)
    except TokenError as error:
        return str(error)
    return None


def test_an_unsaved_refusal_applies_until_there_is_another_token(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    eligibility, view = choice_of(slot, clock, PASSWORD), view_of(slot, record)
    eligibility.remember_refusal(record, PASSWORD, REFUSED)
    for _ in range(2):
        eligibility.raise_if_backing_off(record, 0.0)
        assert refusal(eligibility, view) == "Refused."
    eligibility.raise_if_backing_off(record._replace(token=OTHER), 0.0)
    assert refusal(eligibility, view) is None


def test_an_unsaved_refusal_of_a_refresh_token_stays_until_it_is_cleared(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    eligibility, view = choice_of(slot, clock, FIRST), view_of(slot, record)
    eligibility.remember_refusal(record, FIRST, REFUSED)
    eligibility.raise_if_backing_off(record._replace(token=OTHER), 0.0)
    eligibility.clear_refusals("another refresh token")
    assert refusal(eligibility, view) == "Refused."
    eligibility.clear_refusals("refresh-0")
    assert refusal(eligibility, view) is None
    eligibility.remember_refusal(record, FIRST, REFUSED)
    eligibility.clear_refusals()
    assert refusal(eligibility, view) is None


# --- which credential ------------------------------------------------------------------------


def test_the_first_credential_without_an_objection_is_presented(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    eligibility = choice_of(slot, clock, FIRST, PASSWORD)
    assert eligibility.credential(view_of(slot, record)) is FIRST
    dead = record.with_refusal(
        eligibility.digest(record, FIRST), FIRST.kind, 1.0, error=None, cause="Dead."
    )
    assert eligibility.credential(view_of(slot, dead)) is PASSWORD


@pytest.mark.parametrize("stored_first", [True, False])
def test_of_two_objections_the_one_to_the_stored_refresh_token_is_raised(
    slot: Slot, clock: Clockwork, record: Record, stored_first: bool
) -> None:
    stored = FIRST._replace(secret="refresh-5", first=False)
    order = (stored, FIRST) if stored_first else (FIRST, stored)
    eligibility = choice_of(slot, clock, *order)
    for credential, cause in ((stored, "Stored."), (FIRST, "Configured.")):
        key = eligibility.digest(record, credential)
        record = record.with_refusal(key, "refresh_token", 1.0, error=None, cause=cause)
    assert refusal(eligibility, view_of(slot, record)) == "Stored."


def test_without_the_store_only_a_credential_that_is_not_spent_is_presented(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    assert choice_of(slot, clock, FIRST).harmless_credential() is None
    eligibility = choice_of(slot, clock, FIRST, PASSWORD)
    assert eligibility.harmless_credential() is PASSWORD
    eligibility.remember_refusal(record, PASSWORD, REFUSED)
    with pytest.raises(ReauthRequired, match="Refused"):
        eligibility.harmless_credential()


# --- answers on their way --------------------------------------------------------------------


def test_a_forked_child_waits_for_its_parent_that_has_an_answer(
    slot: Slot, clock: Clockwork, record: Record
) -> None:
    """The parent no longer waits, but may not have saved the answer yet."""
    choice = choice_of(slot, clock, FIRST)
    waiter = Waiter(clock.process(), clock.now + 5)
    view = view_of(slot, record._replace(intent=Intent("digest", clock.now, 1, (waiter,))))
    choice.end_wait(waiter)
    assert choice.pending_waiters(view) == []
    clock.process = lambda: "child"  # type: ignore[method-assign]
    assert choice.pending_waiters(view) == [waiter]
