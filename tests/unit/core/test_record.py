"""The transitions of a record, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.core.record import (
    Backoff,
    Intent,
    Record,
    Replaced,
    Tombstone,
    Waiter,
    digest,
    spent_hash,
)
from tokenadapter.token import Token
from tokenadapter.values import Account, one_line

NOW = 1_700_000_000.0

texts = st.text(max_size=10)
lines = texts.map(lambda text: one_line(text, 10))
names = st.dictionaries(texts, texts, max_size=2)
times = st.floats(0, 1e10)
holds = st.builds(
    Backoff, times, times, st.integers(1, 99), st.none() | texts, texts, st.none() | lines, lines
)
# Only a few, so that two of them are often equal.
hashes = st.sampled_from(["one", "two", "three"])
kinds = st.sampled_from(["refresh_token", "password"])
tokens = st.builds(
    Token,
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    issued_at=times,
    expires_at=st.none() | times,
    refresh_token=st.none() | st.just("s3cr3t-refresh"),
    scope=st.none() | texts,
)
records = st.builds(
    Record,
    names,
    names,
    texts,
    st.none() | tokens,
    st.lists(st.builds(Replaced, names, times), max_size=2).map(tuple),
    st.none() | st.builds(Intent, hashes, times, st.integers(1, 9)),
    st.lists(st.builds(Tombstone, hashes, kinds, lines, times), max_size=3).map(tuple),
    st.none() | holds,
    st.none() | holds,
    st.none() | texts,
    st.lists(texts, max_size=2).map(tuple),
    st.integers(0, 99),
    seeds=st.lists(texts, max_size=2).map(tuple),
    account=st.none() | st.builds(Account, texts, texts, st.none() | lines),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)


def changed(before: Record, after: Record) -> set[str]:
    names = Record.__annotations__
    return {name for name in names if getattr(before, name) != getattr(after, name)}


def present(record: Record, credential: str, now: float = NOW) -> Record:
    return record.with_intent(credential, now, Waiter("host:1", now + 12))


def refuse(record: Record, credential: str, kind: str = "refresh_token") -> Record:
    return record.with_refusal(credential, kind, NOW, error="invalid_grant", cause="No.")


TOKEN = Token("access", issued_at=NOW, expires_at=NOW + 60)
NEXT = Token("next", issued_at=NOW, expires_at=NOW + 3600)
HOLD = Backoff(NOW, 10.0, 1)
EMPTY = Record({"client": "me"}, {"scope": "a"}, "salt")


# --- presenting, and its four outcomes -------------------------------------------------------


@given(records, hashes)
def test_the_first_presentation_writes_an_intent(record: Record, credential: str) -> None:
    after = present(record._replace(intent=None), credential)
    assert after.intent == Intent(credential, NOW, 1, (Waiter("host:1", NOW + 12),))
    assert changed(record, after) <= {"intent"}


def test_a_process_that_may_still_save_a_token_is_kept_beside_the_next_presentation() -> None:
    first, second = Waiter("first", NOW + 12), Waiter("second", NOW + 80)
    saving = EMPTY.with_intent("one", NOW, first)
    for now, awaited in ((NOW + 13, (first, second)), (NOW + 73, (second,))):
        assert saving.with_intent("one", now, second).intent == Intent("one", NOW, 2, awaited)


@given(records, hashes, st.integers(1, 5))
def test_repeated_presentations_count_from_the_first(
    record: Record, credential: str, times: int
) -> None:
    record = present(record._replace(intent=None), credential)
    for n in range(times):
        record = present(record, credential, NOW + 1 + n)
    waiters = tuple(Waiter("host:1", NOW + 12 + n) for n in (0, *range(1, times + 1)))
    assert record.intent == Intent(credential, NOW, 1 + times, waiters)


def test_an_intent_for_another_credential_starts_over() -> None:
    record = present(present(present(EMPTY, "one"), "one"), "two", NOW + 5)
    assert record.intent == Intent("two", NOW + 5, 1, (Waiter("host:1", NOW + 17),))


@given(records, tokens, names, st.none() | texts)
def test_a_new_token_clears_only_intent_and_backoff(
    record: Record, token: Token, requested: dict[str, str], spent: str | None
) -> None:
    after = record.with_new_token(token, requested, NOW, spent)
    assert (after.token, after.requested, after.intent, after.backoff) == (
        token,
        requested,
        None,
        None,
    )
    assert after.generation == record.generation + 1
    may_change = {"token", "requested", "replaced", "intent", "backoff", "spent"}
    assert changed(record, after) <= {*may_change, "generation", "begun", "written"}


@given(records, tokens, names)
def test_the_previous_request_is_remembered_when_the_request_changes(
    record: Record, token: Token, requested: dict[str, str]
) -> None:
    expected = [*record.replaced]
    if record.token is not None and not record.satisfies(requested):
        expected.append(Replaced(record.requested, NOW))
    assert record.with_new_token(token, requested, NOW).replaced == tuple(expected)


def ask(record: Record, scope: str, now: float = NOW) -> Record:
    return record.with_new_token(NEXT, {"scope": scope}, now)


def test_a_recently_replaced_request_is_a_conflict() -> None:
    record = ask(ask(EMPTY, "a"), "b")
    assert record.was_replaced_lately({"scope": "a"}, NOW, NOW - 1)
    assert not record.was_replaced_lately({"scope": "b"}, NOW, NOW - 1)
    assert not record.was_replaced_lately({"scope": "c"}, NOW, NOW - 1)


def test_a_program_that_started_since_may_replace_a_request_once() -> None:
    record = ask(ask(EMPTY, "a"), "b")
    assert not record.was_replaced_lately({"scope": "a"}, NOW, NOW + 1)
    record = ask(ask(record, "a", NOW + 2), "b", NOW + 3)
    assert record.was_replaced_lately({"scope": "a"}, NOW + 4, NOW + 4)


def test_a_wider_scope_replaces_a_narrower_one_at_any_time() -> None:
    record = ask(ask(EMPTY, "a b"), "c")
    assert record.was_replaced_lately({"scope": "a b"}, NOW, NOW - 1)
    assert not ask(record, "b").was_replaced_lately({"scope": "a b"}, NOW, NOW - 1)


@pytest.mark.parametrize(
    ("obtained", "requested", "satisfies"),
    [
        ({"scope": "a b"}, {"scope": "a"}, True),
        ({"scope": "a b c"}, {"scope": "c a"}, True),
        ({"scope": "a b"}, {"scope": "b a"}, True),
        ({"scope": "a"}, {"scope": "a b"}, False),
        ({"scope": "ab"}, {"scope": "a"}, False),
        ({"scope": "a b", "resource": "x"}, {"scope": "a", "resource": "x"}, True),
        ({"scope": "a b", "resource": "x"}, {"scope": "a", "resource": "y"}, False),
        ({"scope": "a b", "resource": "x"}, {"scope": "a"}, False),
        ({"scope": "a b"}, {"scope": "a", "audience": "x"}, False),
        # Without a scope, the server decides what it grants.
        ({"scope": "a"}, {}, False),
        ({}, {"scope": "a"}, False),
        ({}, {}, True),
        ({"audience": "x"}, {"audience": "x"}, True),
    ],
)
def test_a_token_for_a_wider_scope_satisfies_a_request(
    obtained: dict[str, str], requested: dict[str, str], satisfies: bool
) -> None:
    assert EMPTY._replace(requested=obtained).satisfies(requested) is satisfies


def test_a_request_conflict_ends_with_the_token_or_after_an_hour() -> None:
    record = ask(ask(EMPTY, "a"), "b")
    long_lived = record._replace(token=NEXT.replace(expires_at=None))
    for one in (record, long_lived):
        assert one.was_replaced_lately({"scope": "a"}, NOW + 3599, NOW - 1)
        assert not one.was_replaced_lately({"scope": "a"}, NOW + 3600, NOW - 1)
    assert not record._replace(token=None).was_replaced_lately({"scope": "a"}, NOW, NOW - 1)
    assert not record._replace(token=TOKEN).was_replaced_lately({"scope": "a"}, NOW + 60, NOW)


def test_only_the_latest_replaced_requests_are_remembered() -> None:
    record = EMPTY
    for scope in "abcdefghijk":
        record = ask(record, scope)
    assert [past.requested["scope"] for past in record.replaced] == list("cdefghij")


def test_reverting_a_request_leaves_no_conflict() -> None:
    record = ask(ask(ask(EMPTY, "a"), "b"), "a")
    assert record.satisfies({"scope": "a"})
    assert [past.requested["scope"] for past in record.replaced] == ["a", "b"]


def test_a_narrower_request_is_no_conflict_for_a_wider_one() -> None:
    assert ask(ask(EMPTY, "a b"), "a").replaced == ()


@given(records, st.lists(texts))
def test_a_spent_credential_is_remembered_permanently_and_only_once(
    record: Record, marks: list[str]
) -> None:
    after = record
    for spent in [*marks, None, *marks]:
        after = after.with_new_token(TOKEN, {}, NOW, spent)
    assert after.spent[: len(record.spent)] == record.spent
    assert set(after.spent) == {*record.spent, *marks}
    added = after.spent[len(record.spent) :]
    assert len(added) == len(set(added))


@given(records, tokens, names)
def test_an_adopted_token_starts_a_new_grant_and_keeps_spent_and_refused_credentials(
    record: Record, token: Token, requested: dict[str, str]
) -> None:
    after = record.with_adopted_token(token, requested, NOW)
    assert after == Record(
        record.owner,
        requested,
        record.salt,
        token,
        tombstones=tuple(stone for stone in record.tombstones if stone.kind == "refresh_token"),
        origin=None if token.refresh_token is None else spent_hash(token.refresh_token),
        spent=record.spent,
        generation=record.generation + 1,
        begun=max(NOW, record.begun + 0.001),
        written=max(NOW, record.written + 0.001),
    )


@given(records, tokens, texts)
def test_a_new_grant_records_its_first_refresh_token_and_a_renewal_keeps_it(
    record: Record, token: Token, seed: str
) -> None:
    goes_on = record.with_new_token(token, {}, NOW, begins=True)
    assert (goes_on.origin, goes_on.seeds) == (record.origin, record.seeds)
    after = record.with_new_token(token, {}, NOW, begins=True, origin=seed, seeds=(f"{seed}1",))
    assert after.began_with(seed)
    assert after.began_with(f"{seed}1")
    assert not after.began_with(f"{seed}2")


@given(records)
def test_removing_the_token_keeps_only_spent_and_refused_credentials(record: Record) -> None:
    assert record.without_token(NOW) == Record(
        record.owner,
        record.requested,
        record.salt,
        tombstones=record.tombstones,
        spent=record.spent,
        generation=record.generation + 1,
        begun=max(NOW, record.begun + 0.001),
        written=max(NOW, record.written + 0.001),
    )


@given(records, records)
def test_restoring_a_record_changes_only_refusals_and_backoff(
    record: Record, found: Record
) -> None:
    record = record._replace(token=TOKEN)
    after = record.restored_over(found)
    assert changed(record, after) <= {"tombstones", "backoff"}
    assert after.tombstones[: len(record.tombstones)] == record.tombstones
    assert after.backoff in (record.backoff, found.backoff)


def test_restoring_a_record_keeps_the_intents_on_its_refresh_token() -> None:
    token = TOKEN.replace(refresh_token="kept")
    mine, other = Waiter("mine", NOW + 5), Waiter("other", NOW + 9)
    key = digest(EMPTY.salt, "refresh_token", "kept")
    seen = EMPTY._replace(token=token)
    found = seen.with_intent(key, NOW, other)
    assert seen.restored_over(found).intent == found.intent
    both = seen.with_intent(key, NOW + 1, mine).restored_over(found).intent
    assert both == Intent(key, NOW + 1, 2, (mine, other))
    assert both.without(mine) == Intent(key, NOW + 1, 1, (other,))
    earlier = digest(EMPTY.salt, "refresh_token", "earlier")
    assert seen.restored_over(seen.with_intent(earlier, NOW, other)).intent is None


def test_restoring_a_record_keeps_later_refusals_and_backoffs() -> None:
    def found(at: float) -> Record:
        stone = Tombstone("one", "password", "invalid_grant", at)
        return EMPTY._replace(tombstones=(stone,), backoff=Backoff(at, 9.0, 1))

    seen = EMPTY._replace(token=TOKEN)
    for at in (NOW - 1, NOW):  # before the token was issued
        assert seen.restored_over(found(at)) == seen
    later = seen.restored_over(found(NOW + 1))
    assert (later.token, later.tombstones) == (TOKEN, found(NOW + 1).tombstones)
    assert later.backoff == found(NOW + 1).backoff
    # The later of two counts, and a known one is not added twice.
    assert later.restored_over(found(NOW + 2)).backoff == found(NOW + 2).backoff
    assert later.restored_over(found(NOW + 0.5)).backoff == later.backoff
    assert later.restored_over(found(NOW + 2)).tombstones == later.tombstones
    many = tuple(Tombstone(str(n), "password", "invalid_grant", NOW + 1) for n in range(8))
    kept = later.restored_over(found(NOW)._replace(tombstones=many)).tombstones
    assert kept == many


def test_adopting_a_refused_refresh_token_removes_its_tombstone() -> None:
    refused = refuse(EMPTY, digest("salt", "refresh_token", "def"))
    assert refused.with_adopted_token(TOKEN.replace(refresh_token="def"), {}, NOW).tombstones == ()
    assert refused.with_adopted_token(TOKEN.replace(refresh_token="ghi"), {}, NOW).tombstones != ()
    assert refused.with_adopted_token(TOKEN, {}, NOW).tombstones != ()


@given(records)
def test_clearing_refusals_removes_all_that_keeps_from_a_renewal(record: Record) -> None:
    after = record.without_refusals()
    assert (after.tombstones, after.backoff, after.distrust) == ((), None, None)
    assert after.replaced == ()
    assert changed(record, after) <= {"tombstones", "backoff", "distrust", "replaced"}


@given(records, hashes, kinds)
def test_a_refusal_replaces_the_intent_by_a_tombstone(
    record: Record, credential: str, kind: str
) -> None:
    after = present(record, credential).with_refusal(
        credential, kind, NOW, error="invalid_grant", cause="No."
    )
    again = record.intent is not None and record.intent.credential == credential
    reason = "uncertain_rotation" if again else "invalid_grant"
    assert after.tombstone(credential) == Tombstone(
        credential, kind, reason, NOW, "invalid_grant", "No."
    )
    assert [stone.credential for stone in after.tombstones].count(credential) == 1
    assert (after.intent, after.backoff) == (None, None)
    assert changed(record, after) <= {"intent", "backoff", "tombstones"}


def test_the_refusal_of_another_credential_keeps_the_intent() -> None:
    uncertain = present(present(EMPTY, "one"), "one")
    record = refuse(uncertain, "two")
    assert record.tombstone("two").reason == "invalid_grant"  # type: ignore[union-attr]
    assert record.tombstone("one") is None
    assert record.intent == uncertain.intent


def test_only_the_latest_tombstones_are_kept() -> None:
    record = EMPTY
    for n in range(20):
        record = refuse(record, str(n))
    assert [stone.credential for stone in record.tombstones] == [str(n) for n in range(12, 20)]


def test_a_credential_that_is_refused_again_keeps_one_tombstone_the_latest() -> None:
    record = refuse(refuse(refuse(EMPTY, "one"), "two"), "one")
    assert [stone.credential for stone in record.tombstones] == ["two", "one"]


@given(records, hashes)
def test_an_unprocessed_presentation_changes_only_the_backoff(
    before: Record, credential: str
) -> None:
    after = present(before, credential).with_intent_withdrawn(before, HOLD)
    assert after == before._replace(backoff=HOLD)


def test_the_intent_of_a_deleted_record_is_not_restored_into_a_new_one() -> None:
    before = present(EMPTY, "one")
    new = present(EMPTY._replace(salt="other"), "two")
    assert new.with_intent_withdrawn(before, HOLD).intent is None


@given(records, hashes)
def test_after_an_unknown_outcome_the_intent_stays_without_its_waiter(
    before: Record, credential: str
) -> None:
    mine = Waiter("host:2", NOW + 20)
    after = before.with_intent(credential, NOW, mine).with_unknown_outcome(HOLD, mine)
    assert after.intent is not None
    assert after.intent.credential == credential
    assert mine not in after.intent.awaited
    assert changed(before, after) <= {"intent", "backoff"}


# --- the account -----------------------------------------------------------------------------

ADA = Account("https://id.example", "ada", "Ada")


def test_a_renewal_keeps_the_account_and_a_new_grant_begins_without_one() -> None:
    record = EMPTY.with_adopted_token(TOKEN, {}, NOW, account=ADA)
    assert record.account == ADA
    assert record.with_new_token(NEXT, {}, NOW).account == ADA
    assert record.with_new_token(NEXT, {}, NOW, begins=True).account is None
    assert record.with_adopted_token(NEXT, {}, NOW).account is None
    assert record.without_token(NOW).account is None


def test_an_account_is_shown_on_one_line_without_codes_for_a_terminal() -> None:
    document = EMPTY.with_adopted_token(TOKEN, {}, NOW, account=ADA).to_document()
    document["account"]["name"] = "A\x1b[2J\n" + "x" * 2000
    account = Record.from_document(document).account
    assert str(account).isprintable()
    assert len(str(account)) == 200
    document["account"]["name"] = ["Ada"]
    assert str(Record.from_document(document).account) == "['Ada']"


# --- backoffs --------------------------------------------------------------------------------


@given(holds, texts, times)
def test_a_backoff_applies_only_during_its_time_and_to_its_target(
    backoff: Backoff, who: str, now: float
) -> None:
    inside = backoff.set_at - 1 <= now < backoff.set_at + backoff.duration
    assert (backoff.remaining(now) > 0) is inside
    is_target = backoff.bound_to is None or who in backoff.targets
    assert backoff.applies_to(who, now) is (inside and is_target)


@pytest.mark.parametrize(
    ("now", "left"),
    [(NOW - 2, 0), (NOW - 1, 11), (NOW, 10), (NOW + 4, 6), (NOW + 10, 0), (NOW + 99, 0)],
)
def test_a_backoff_is_void_before_its_start_and_after_its_end(now: float, left: float) -> None:
    assert HOLD.remaining(now) == left


def test_a_backoff_applies_to_one_client_or_to_all() -> None:
    assert HOLD.applies_to("me", NOW)
    assert HOLD._replace(bound_to="me").applies_to("me", NOW)
    assert not HOLD._replace(bound_to="you").applies_to("me", NOW)
    both = HOLD._replace(bound_to="you me")
    assert [both.applies_to(one, NOW) for one in ("you", "me", "you me", "m")] == [
        True,
        True,
        False,
        False,
    ]


@given(records)
def test_distrust_applies_to_the_token_that_was_refused_when_new(record: Record) -> None:
    after = record.with_distrust(TOKEN, NOW, 0.5)
    assert after.distrust is not None
    assert after.distrust.applies_to(TOKEN.fingerprint, NOW + 4.9)
    assert not after.distrust.applies_to(NEXT.fingerprint, NOW + 4.9)
    assert changed(record, after) <= {"distrust"}


def test_distrust_lasts_longer_for_each_refused_token_until_it_is_long_over() -> None:
    record, now, spans = EMPTY, NOW, []
    for token in (TOKEN, NEXT, TOKEN):
        record = record.with_distrust(token, now, 0.5).with_new_token(token, {}, now)
        assert record.distrust is not None
        spans.append(record.distrust.duration)
        now += record.distrust.duration
    assert spans == [5, 10, 20]
    record = record.with_distrust(TOKEN, now + 600, 0.5)
    assert record.distrust is not None
    assert record.distrust.duration == 5
    # The ten minutes count from the end.
    again = record.with_distrust(TOKEN, now + 600 + 5 + 599, 0.5)
    assert again.distrust is not None
    assert again.distrust.duration == 10


# --- the ttl of a record -------------------------------------------------------------------


@pytest.mark.parametrize(
    "worth",
    [
        {"token": None},
        {"token": TOKEN.replace(refresh_token="def")},
        {"token": TOKEN.replace(expires_at=None)},
        {"intent": Intent("one", NOW, 1)},
        {"tombstones": (Tombstone("one", "password", "invalid_grant", NOW),)},
        {"backoff": HOLD},
        {"spent": ("remember_spent",)},
    ],
)
def test_a_record_with_more_than_an_expiring_access_token_has_no_ttl(worth: dict[str, Any]) -> None:
    record = EMPTY._replace(token=TOKEN)
    assert record._replace(**worth).ttl(NOW) is None


@pytest.mark.parametrize(("age", "ttl"), [(0, 60), (50, 10), (59.5, 1), (3600, 1)])
def test_an_access_token_alone_has_a_ttl_of_at_least_a_second(age: float, ttl: float) -> None:
    record = EMPTY._replace(token=TOKEN, distrust=HOLD, replaced=(Replaced({}, NOW),))
    assert record.ttl(NOW + age) == ttl


@pytest.mark.parametrize(
    ("token", "age", "expired"),
    [
        (None, 0, True),
        (TOKEN, 59, False),
        (TOKEN, 60, True),
        (TOKEN.replace(expires_at=None), 10**9, False),
    ],
)
def test_a_record_expires_with_its_token(token: Token | None, age: float, expired: bool) -> None:
    assert EMPTY._replace(token=token).is_expired(NOW + age) is expired


@pytest.mark.parametrize(
    ("worth", "blank"),
    [
        ({}, True),
        (
            {
                "backoff": HOLD,
                "distrust": HOLD,
                "origin": "remember_spent",
                "seeds": ("remember_spent",),
            },
            True,
        ),
        ({"token": TOKEN}, False),
        ({"intent": Intent("one", NOW, 1)}, False),
        ({"tombstones": (Tombstone("one", "password", "invalid_grant", NOW),)}, False),
        ({"spent": ("remember_spent",)}, False),
    ],
)
def test_a_record_without_token_intent_or_spent_credentials_is_blank(
    worth: dict[str, Any], blank: bool
) -> None:
    assert EMPTY._replace(**worth).is_blank() is blank


# --- to and from JSON ------------------------------------------------------------------------


@given(records)
def test_a_record_survives_json_unchanged(record: Record) -> None:
    document = json.loads(json.dumps(record.to_document()))
    assert Record.from_document(document) == record


def test_texts_that_are_shown_are_cut_to_one_line() -> None:
    forged = "No.\nERROR root all is lost\x1b[2J\u2028" + "x" * 5000
    shown = "No.\\nERROR root all is lost\\x1b[2J\\u2028x"
    waiter = {"process": forged, "until": NOW}
    document = EMPTY.to_document() | {
        "backoff": HOLD._asdict() | {"cause": forged, "error": forged},
        "tombstones": [
            {"credential": "one", "kind": "password", "reason": forged, "at": NOW, "cause": forged}
        ],
        "intent": {"credential": "one", "first_sent": NOW, "attempt": 1, "awaited": [waiter]},
    }
    record = Record.from_document(document)
    assert record.backoff is not None
    assert record.intent is not None
    (stone,) = record.tombstones
    texts = [record.backoff.cause, record.backoff.error, stone.reason, stone.cause]
    for text in (*texts, record.intent.awaited[0].process):
        assert text is not None
        assert text.startswith(shown)
        assert len(text) < 1100
    assert Record.from_document(record.to_document()) == record


def test_a_record_without_a_generation_starts_counting() -> None:
    document = EMPTY.to_document()
    assert Record.from_document(document).generation == 0
    assert Record.from_document(document).with_new_token(TOKEN, {}, NOW).generation == 1


def test_empty_fields_are_not_written() -> None:
    assert EMPTY.to_document() == {
        "format": 1,
        "oldest_reader": 1,
        "owner": {"client": "me"},
        "requested": {"scope": "a"},
        "salt": "salt",
    }


@given(json_values, st.dictionaries(texts, json_values))
def test_any_json_object_is_read_or_raises_value_error(reader: Any, document: Any) -> None:
    for one in (reader, 1):
        candidate = document | {"format": 1, "oldest_reader": one}
        with pytest.raises(ValueError, match=r"^a newer version|^it is not a valid record"):
            Record.from_document(candidate)


def use(record: Record) -> None:
    """Every operation on a record, once."""
    token = record.token or TOKEN
    record.is_blank()
    record.ttl(NOW)
    record.was_replaced_lately({"scope": "a"}, NOW, NOW)
    record.satisfies({"scope": "a"})
    record.without_refusals().with_adopted_token(token, {}, NOW).to_document()
    hash((record.origin, record.spent))
    refuse(present(record, "one"), "one").to_document()
    record.with_distrust(token, NOW, 0.5).with_new_token(
        token, {}, NOW, "remember_spent"
    ).to_document()
    for backoff in (record.backoff, record.distrust):
        if backoff is not None:
            backoff.applies_to("me", NOW)
            backoff._replace(step=backoff.step + 1)


@given(records, st.data())
def test_a_damaged_record_is_refused_or_usable(record: Record, data: st.DataObject) -> None:
    document: Any = json.loads(json.dumps(record.to_document()))
    where = document
    # One value in it, at any depth, is replaced.
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [value for value in where.values() if isinstance(value, dict) and value]
        where = data.draw(st.sampled_from(inner)) if inner else where
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(json_values)
    try:
        damaged = Record.from_document(document)
    except ValueError:
        return
    use(damaged)


def test_hashes_are_read_as_texts() -> None:
    use(Record.from_document(EMPTY.to_document() | {"origin": [], "spent": [[], {}, 5]}))


# A document of the first version, which every later version must read.
PAST = {
    "format": 1,
    "oldest_reader": 1,
    "owner": {"grant": "refresh_token", "endpoint": "https://id.example.com/token"},
    "requested": {"scope": "read"},
    "salt": "5a17",
    "token": {
        "access_token": "access-1",
        "token_type": "Bearer",
        "issued_at": NOW,
        "expires_at": NOW + 3600,
        "expires_in": 3600,
        "refresh_token": "refresh-1",
    },
    "replaced": [{"requested": {}, "at": NOW - 9}],
    "origin": "e399b2a17d84e67113d41ee629711daa",
    "intent": {
        "credential": "20a8f3e45e02991381b8dde77c8b02b5",
        "first_sent": NOW + 3000,
        "attempt": 2,
        "awaited": [{"process": "host:1:2:3:4", "until": NOW + 3012}],
    },
    "backoff": {
        "set_at": NOW + 3000,
        "duration": 5.0,
        "step": 1,
        "bound_to": None,
        "kind": "temporary",
        "error": None,
        "cause": "The server did not answer.",
    },
    "distrust": {
        "set_at": NOW,
        "duration": 5.0,
        "step": 1,
        "bound_to": "1a2b3c4d",
        "kind": "temporary",
        "error": None,
        "cause": "",
    },
    "tombstones": [
        {
            "credential": "20a8f3e45e02991381b8dde77c8b02b6",
            "kind": "refresh_token",
            "reason": "invalid_grant",
            "at": NOW - 99,
            "error": "invalid_grant",
            "cause": "The server refused it.",
        }
    ],
    "spent": ["e399b2a17d84e67113d41ee629711daa"],
    "generation": 7,
    "begun": NOW - 99.0,
    "written": NOW + 0.0,
}


def test_a_record_of_an_earlier_version_is_read_and_written_unchanged() -> None:
    record = Record.from_document(PAST)
    assert record.token == Token(
        "access-1", refresh_token="refresh-1", issued_at=NOW, expires_at=NOW + 3600
    )
    assert record.intent == Intent(
        PAST["intent"]["credential"], NOW + 3000, 2, (Waiter("host:1:2:3:4", NOW + 3012),)
    )
    assert [*record.tombstones, record.backoff, record.distrust] == [
        Tombstone(*PAST["tombstones"][0].values()),
        Backoff(*PAST["backoff"].values()),
        Backoff(*PAST["distrust"].values()),
    ]
    assert record.to_document() == PAST


def test_unknown_keys_of_a_later_version_are_kept_at_the_top_level_and_ignored_below() -> None:
    future = json.loads(json.dumps(PAST))
    new: dict[str, Any] = {"keys": {"dpop": "jwk"}, "format": 7}
    future |= new
    for part in (*future["tombstones"], *future["replaced"], future["token"]):
        part["more"] = "text"
    for name in ("intent", "backoff", "distrust"):
        future[name] |= {"more": [1], "urgency": 5}
    record = Record.from_document(future)
    assert record._replace(format=1, others={}, token=None) == Record.from_document(PAST)._replace(
        token=None
    )
    for after in (
        present(record, "one"),
        record.with_new_token(NEXT, {}, NOW),
        record.without_token(NOW),
    ):
        written = after.to_document()
        assert {name: written[name] for name in new} == new
        assert written["oldest_reader"] == 1


def test_a_record_that_requires_a_later_version_is_refused() -> None:
    message = r"^a newer version wrote it, and reading it requires format 2$"
    with pytest.raises(ValueError, match=message):
        Record.from_document(PAST | {"format": 3, "oldest_reader": 2})


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": None},
        {"token": []},
        {"token": {"access_token": ""}},
        {"intent": {"credential": "one"}},
        {"intent": {"credential": "one", "first_sent": 1, "attempt": "1"}},
        {"intent": {"credential": "one", "first_sent": 10**400, "attempt": 1}},
        {"intent": {"credential": "one", "first_sent": 1e999, "attempt": 1}},
        {"replaced": 5},
        {"replaced": [{"requested": {}, "at": 10**400}]},
        {"oldest_reader": None},
        {"format": "new"},
        {"backoff": {"set_at": None, "duration": 1, "step": 1}},
        {"backoff": {"set_at": 1, "duration": 1, "step": 1, "cause": 1}},
        {"tombstones": None},
        {"tombstones": ["one"]},
        {"spent": 5},
        {"account": []},
        {"account": {"subject": "ada"}},
        {"account": {"issuer": "https://id.example", "subject": 7}},
    ],
)
def test_an_invalid_record_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^it is not a valid record \(\w+\)$"):
        Record.from_document(EMPTY.to_document() | wrong)


# --- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["refresh_token", "password"])
def test_a_digest_depends_on_salt_kind_and_secret_and_reveals_none(kind: str) -> None:
    given = [("salt", kind, "s3cr3t"), ("pepper", kind, "s3cr3t"), ("salt", kind, "s3cr3u")]
    digests = [digest(*parts) for parts in [*given, ("salt", "client", "s3cr3t")]]
    assert len(set(digests)) == 4
    assert digest(*given[0]) == digests[0]
    assert {len(text) for text in digests} == {32}
    assert not any("s3cr3" in text for text in digests)


def test_the_hash_of_a_spent_token_has_no_salt_and_differs_from_the_digest() -> None:
    assert spent_hash("s3cr3t") == spent_hash("s3cr3t") != spent_hash("s3cr3u")
    assert spent_hash("s3cr3t") != digest("", "refresh_token", "s3cr3t")
    assert len(spent_hash("s3cr3t")) == 32


def test_only_the_hash_of_a_password_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[int] = []

    def derive(name: str, password: bytes, salt: bytes, rounds: int, length: int) -> bytes:
        slow.append(rounds)
        return b"x" * length

    monkeypatch.setattr("hashlib.pbkdf2_hmac", derive)
    digest("salt", "refresh_token", "s3cr3t")
    assert slow == []
    digest("salt", "password", "s3cr3t")
    assert slow == [200_000]


REFRESH = digest("salt", "refresh_token", "s3cr3t-refresh")
PASSWORD = digest("salt", "password", "me\0s3cr3t-password")
TRANSITIONS: list[Callable[[Record], Record]] = [
    lambda record: present(record, REFRESH),
    lambda record: refuse(record, PASSWORD, "password"),
    lambda record: refuse(record, REFRESH),
    lambda record: record.with_new_token(NEXT, {"scope": "b"}, NOW, spent_hash("s3cr3t-refresh")),
    lambda record: record.with_adopted_token(TOKEN.replace(refresh_token="s3cr3t-other"), {}, NOW),
    lambda record: record.with_unknown_outcome(HOLD),
    lambda record: record.with_distrust(NEXT, NOW, 60.0),
]


@given(st.lists(st.sampled_from(TRANSITIONS), max_size=6))
def test_secrets_are_written_only_in_the_token(
    transitions: list[Callable[[Record], Record]],
) -> None:
    record = EMPTY._replace(token=TOKEN.replace(refresh_token="s3cr3t-refresh"))
    for transition in transitions:
        record = transition(record)
    document = record.to_document()
    del document["token"]
    assert "s3cr3t" not in json.dumps(document)
    assert "s3cr3t" not in repr(record)


def test_stored_hashes_are_stable_across_versions() -> None:
    # Other processes would forget refused and spent credentials.
    assert spent_hash("abc") == "e399b2a17d84e67113d41ee629711daa"
    assert digest("salt", "refresh_token", "abc") == "20a8f3e45e02991381b8dde77c8b02b5"
    assert digest("salt", "password", "abc") == "e5bba81ff94986b3f62a5d863cce926c"
