"""The toolkit of stores: helpful errors, and warnings that are logged once."""

from __future__ import annotations

import logging

import pytest

from tokenadapter.errors import StoreError
from tokenadapter.stores.toolkit import (
    LIMIT,
    Refused,
    checked_lease,
    damaged_name,
    decode,
    encode,
    explained,
    warn_of_damage,
    warn_once,
)


class Store:
    __slots__ = ()

    def __repr__(self) -> str:
        return "Store()"


def cure(error: Exception) -> str:
    return f"Cure {type(error).__name__}."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x."), "Store() cannot save: 'x.'. Nothing stored was lost. Cure KeyError."),
        (OSError(), "Store() cannot save: OSError. Nothing stored was lost. Cure OSError."),
        (Refused("shut: open it"), "Store() cannot save: shut: open it. Nothing stored was lost."),
        (StoreError("the vault is sealed"), "the vault is sealed"),
    ],
)
def test_an_error_says_what_failed_and_what_to_do(error: Exception, text: str) -> None:
    with pytest.raises(StoreError) as caught, explained(Store(), "save", cure):
        raise error
    assert str(caught.value) == text
    assert error in (caught.value, caught.value.__cause__)


def test_a_mistake_in_a_store_is_raised_unchanged() -> None:
    with pytest.raises(TypeError), explained(Store(), "save", cure, OSError):
        raise TypeError


def test_each_store_object_logs_its_damage_once(caplog: pytest.LogCaptureFixture) -> None:
    class Weak(Store):
        pass

    stores = [Weak(), Weak()]
    for _ in range(3):
        for store in stores:
            warn_of_damage(store)
    assert len(caplog.messages) == 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert caplog.messages[0].startswith("Store() contains something that is not a record")


def test_a_store_without_weak_references_can_log(caplog: pytest.LogCaptureFixture) -> None:
    warn_once(Store(), "torn: %s", 1)
    assert caplog.messages == ["torn: 1"]


def test_names_of_damaged_content_differ() -> None:
    assert len({damaged_name() for _ in range(100)}) == 100
    assert damaged_name().startswith("damaged-2")


def test_a_record_is_text_of_limited_length() -> None:
    assert decode(encode({"n": 1}, "tag")) == ({"n": 1}, "tag")
    with pytest.raises(Refused, match=f"more than {LIMIT}"):
        encode({"n": "x" * LIMIT}, "tag")
    assert decode(b" " * (LIMIT + 1)) is None


@pytest.mark.parametrize("lease", [0, -1.0, float("nan")])
def test_a_lease_is_above_0_seconds(lease: float) -> None:
    assert checked_lease(0.5) == 0.5
    with pytest.raises(ValueError, match="lease must be above 0 seconds"):
        checked_lease(lease)
