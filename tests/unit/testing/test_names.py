"""The public names of the test kit: sorted, loaded when used, and the same for type checkers."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from tokenadapter import testing

HOMES = testing._HOMES


def test_public_names_are_sorted_and_each_has_a_home() -> None:
    assert testing.__all__ == sorted(testing.__all__) == sorted(HOMES)
    assert set(testing.__all__) <= set(dir(testing))


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(testing.__file__).read_text(encoding="utf-8"))
    for_checkers = {
        alias.name: imported.module
        for imported in ast.walk(tree)
        if isinstance(imported, ast.ImportFrom) and imported.level == 1
        for alias in imported.names
    }
    assert for_checkers == HOMES


@pytest.mark.parametrize("name", testing.__all__)
def test_a_public_name_is_what_its_home_defines(name: str) -> None:
    home = import_module(f"tokenadapter.testing.{HOMES[name]}")
    assert getattr(testing, name) is getattr(home, name)
    assert getattr(testing, name).__module__ == home.__name__


def test_unknown_name_is_an_attribute_error_like_that_of_any_module() -> None:
    with pytest.raises(AttributeError, match=r"'tokenadapter\.testing' has no attribute 'Toke'"):
        testing.Toke  # noqa: B018
