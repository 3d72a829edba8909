"""Paths into a JSON value."""

from __future__ import annotations

from typing import Any

import pytest

from tokenadapter.http.json_path import value_at

VALUE = {
    "token": "plain",
    "data": {"session": {"token": "deep"}},
    "items": [{"token": "first"}, {"token": "second"}],
    "matrix": [["a", "b"]],
    "https://claims.example/token": "dotted",
    "a": {"b": "by steps"},
    "a.b": "by name",
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("token", "plain"),
        ("data.session.token", "deep"),
        ("data.session", {"token": "deep"}),
        ("items.0.token", "first"),
        ("items.1.token", "second"),
        ("items.-1.token", "second"),
        ("matrix.0.1", "b"),
        ("https://claims.example/token", "dotted"),
        ("a.b", "by name"),
        ("none", None),
    ],
)
def test_a_path_leads_to_members_and_items(path: str, expected: Any) -> None:
    assert value_at(VALUE, path, "nothing") == expected


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "token.deeper",
        "data.session.nothing",
        "items.2.token",
        "items.-3.token",
        "items.--1.token",
        "items.first",
        "items.²",
        "none.deeper",
        "data.",
        "",
    ],
)
def test_a_path_that_leads_nowhere_gives_the_default(path: str) -> None:
    assert value_at(VALUE, path, "nothing") == "nothing"
    assert value_at(VALUE, path) is None


@pytest.mark.parametrize("value", ["text", 1, None, [], {}])
def test_a_value_without_members_has_nothing_at_any_path(value: Any) -> None:
    assert value_at(value, "0", "nothing") == "nothing"
