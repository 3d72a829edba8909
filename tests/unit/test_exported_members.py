"""The public names: sorted, loaded when used, and the same for people and for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tokenadapter

HOMES = tokenadapter._HOMES


def run(program: str) -> str:
    """What *program* prints, in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def modules_loaded_by(statement: str) -> set[str]:
    program = f"import sys; old = {{*sys.modules}}; {statement}; print(*{{*sys.modules}} - old)"
    return set(run(program).split())


def test_public_names_are_sorted() -> None:
    assert tokenadapter.__all__ == sorted(tokenadapter.__all__)


def test_every_public_name_has_a_home_and_nothing_else_has() -> None:
    assert sorted(HOMES) == tokenadapter.__all__


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(tokenadapter.__file__).read_text(encoding="utf-8"))
    for_checkers = {
        alias.name: imported.module
        for imported in ast.walk(tree)
        if isinstance(imported, ast.ImportFrom) and imported.module != "tokenadapter.late_imports"
        for alias in imported.names
    }
    assert for_checkers == HOMES


@pytest.mark.parametrize("name", tokenadapter.__all__)
def test_public_name_is_what_its_home_defines_and_exports(name: str) -> None:
    home = import_module(HOMES[name])
    public = getattr(tokenadapter, name)
    assert public is getattr(home, name)
    assert public.__module__ == home.__name__
    assert name in home.__all__


def test_importing_the_package_imports_only_what_imports_the_rest() -> None:
    loaded = modules_loaded_by("import tokenadapter")
    assert loaded - {"__future__"} == {"tokenadapter", "tokenadapter.late_imports"}


WITHOUT_EXTRAS = """
import sys
EXTRAS = "cryptography django keyring pymysql psycopg pytest redis sqlalchemy trustme valkey"

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS.split():
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import inspect, pydoc
from unittest.mock import create_autospec
import tokenadapter, tokenadapter.testing
"""


@pytest.mark.parametrize("package", ["tokenadapter", "tokenadapter.testing"])
def test_a_program_that_looks_at_the_public_names_needs_no_extra(package: str) -> None:
    program = f"""{WITHOUT_EXTRAS}
from {package} import *
for one in [{package}, *(getattr({package}, name) for name in {package}.__all__)]:
    create_autospec(one), inspect.getmembers(one), pydoc.render_doc(one)
print(all(hasattr({package}, name) for name in {package}.__all__))
"""
    assert run(program) == "True"


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        ("tokenadapter.SQLStore('sqlite://', 'slot')", "sql"),
        ("class TestMine(tokenadapter.testing.StoreContract): pass", "testing"),
    ],
)
def test_the_error_for_a_missing_dependency_names_its_extra(use: str, extra: str) -> None:
    program = f"{WITHOUT_EXTRAS}\ntry:\n    {use}\nexcept ImportError as error: print(error)"
    assert f"pip install 'tokenadapter[{extra}]'" in run(program)


def test_an_error_of_the_package_itself_is_not_hidden() -> None:
    program = "import sys, tokenadapter; sys.modules['tokenadapter.stores.file'] = None"
    with pytest.raises(AssertionError, match=r"import of tokenadapter\.stores\.file halted"):
        run(f"{program}; tokenadapter.FileStore")


def test_star_import_gives_the_public_names() -> None:
    program = "from tokenadapter import *; print(*sorted(n for n in dir() if n[0] != '_'))"
    assert run(program).split() == tokenadapter.__all__


def test_dir_includes_the_names_that_are_not_loaded() -> None:
    names = run("import tokenadapter; print(*dir(tokenadapter))").split()
    assert {*tokenadapter.__all__, "__version__"} <= {*names}
    assert names == sorted(names)


def test_a_name_is_looked_up_once() -> None:
    program = "import tokenadapter as t; t.Token; print('Token' in vars(t), 'FileStore' in vars(t))"
    assert run(program) == "True False"


def test_unknown_name_is_an_attribute_error_like_that_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'tokenadapter' has no attribute 'Toke'"):
        tokenadapter.Toke  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "token",
        "protocols",
        "core.policy",
        "core.record",
        "core.single_flight",
        "core.keeper",
        "stores.file",
    ],
)
def test_code_that_serves_a_stored_token_stays_cheap_to_import(module: str) -> None:
    dear = {"requests", "urllib3", "cachetools", "filelock", "dataclasses", "inspect"}
    loaded = modules_loaded_by(f"import tokenadapter.{module}")
    assert not loaded & {*dear, "tokenadapter.errors"}
