"""The values between keeper, sources and stores: frozen, and without secrets in their repr."""

from __future__ import annotations

import pickle

import pytest

from tokenadapter.values import Credential, Snapshot, Value


def test_by_default_a_credential_is_neither_single_use_nor_finally_refused() -> None:
    credential = Credential("client", "s3cr3t")
    assert not credential.single_use
    assert not credential.first
    assert not credential.refusal_is_final


def test_no_secret_is_shown() -> None:
    credential = Credential("password", "s3cr3t")
    snapshot = Snapshot({"token": {"access_token": "s3cr3t"}}, "7-nonce", 5.0)
    assert repr([credential, snapshot]) == "[<Credential password>, <Snapshot tag='7-nonce'>]"
    assert "s3cr3t" not in f"{credential} {snapshot}"


# --- their base ---------------------------------------------------------------------------------


class Point(Value):
    x: float
    y: float = 0.0


def test_fields_are_positional_or_named_and_have_defaults() -> None:
    assert Point(1.0) == Point(x=1.0) == Point(1.0, y=0.0)
    assert Point(1.0, 2.0)._asdict() == {"x": 1.0, "y": 2.0}
    assert Point(1.0) != Point(2.0)
    assert len({Point(1.0), Point(1.0, 0.0)}) == 1


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})],
    ids=["none", "too many", "twice", "unknown", "one is missing"],
)
def test_arguments_that_match_no_field_raise_type_error(
    values: tuple[float, ...], named: dict[str, float]
) -> None:
    with pytest.raises(TypeError):
        Point(*values, **named)


def test_a_value_is_frozen_but_can_be_replaced() -> None:
    point = Point(1.0)
    with pytest.raises(AttributeError):
        point.x = 2.0  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert point._replace(y=3.0) == Point(1.0, 3.0)
    assert point == Point(1.0)


def test_a_value_can_be_pickled_and_shows_its_fields() -> None:
    point = Point(1.0, 2.0)
    assert pickle.loads(pickle.dumps(point)) == point
    assert repr(point) == "Point(x=1.0, y=2.0)"
