"""The metadata of the installed distribution is correct: extras, commands and files."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import yaml

import tokenadapter

PACKAGE = Path(tokenadapter.__file__).parent
ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[^;]*(?:;.*\bextra == [\"'](?P<extra>\w+)[\"'])?")
# Where each package may be imported that "import tokenadapter" and a stored token do without.
ROOMS = {
    "aiohttp": "clients/aiohttp",
    "azure": "bridges/azure",
    "botocore": "bridges/botocore",
    "cachetools": "stores/memory",
    "cryptography": "keys/algorithms|stores/_cipher",
    "databricks": "bridges/databricks",
    "django": "stores/_?django",
    "filelock": "stores/lockfile",
    "google": "bridges/google",
    "keyring": "stores/keyring|config/references",
    "kiota_abstractions": "bridges/kiota",
    "pyiceberg": "bridges/pyiceberg",
    "pytest": "testing/",
    "sqlalchemy": "stores/_?sql",
    "trustme": "testing/certificate",
}
# A requirement whose package has another name.
NAMES = {
    "azure_core": "azure",
    "databricks_sdk": "databricks",
    "google_auth": "google",
    "microsoft_kiota_abstractions": "kiota_abstractions",
    "pysocks": "socks",
}


@pytest.fixture(scope="module")
def ours() -> Distribution:
    return distribution("tokenadapter")


@pytest.fixture(scope="module")
def requirements(ours: Distribution) -> dict[str, set[str]]:
    """The packages that each extra brings; those without an extra under ``""``."""
    found: dict[str, set[str]] = {}
    for text in ours.requires or []:
        match = REQUIREMENT.match(text)
        assert match is not None
        name = match["name"].lower().replace("-", "_")
        found.setdefault(match["extra"] or "", set()).add(NAMES.get(name, name))
    return found


def imported() -> Iterator[tuple[Path, str]]:
    """Each package of others that a module of ours imports when it runs."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        hidden = {
            inner
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for inner in ast.walk(block)
        }
        for node in ast.walk(tree):
            if node in hidden:
                continue
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                package = name.partition(".")[0]
                if package not in sys.stdlib_module_names | {"tokenadapter", "sitecustomize"}:
                    yield path, package


def test_each_import_is_required_or_in_an_extra(
    requirements: dict[str, set[str]],
) -> None:
    for_developers = {"all", "docs", "lint", "test", "types"}
    brought = set().union(
        *(names for extra, names in requirements.items() if extra not in for_developers)
    )
    assert {(path.name, name) for path, name in imported() if name not in brought} == set()


def test_optional_modules_are_separate_packages() -> None:
    elsewhere = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path, name in imported()
        if name not in {"requests", "urllib3"}
        and not re.match(ROOMS[name], path.relative_to(PACKAGE).as_posix())
    }
    assert elsewhere == set()


def test_every_extra_in_a_text_exists(ours: Distribution) -> None:
    extras = ours.metadata.get_all("Provides-Extra") or []
    texts = [*PACKAGE.rglob("*.py")]
    texts += [] if not (docs := PACKAGE.parent / "docs").is_dir() else docs.rglob("*.md")
    named = {
        extra
        for path in texts
        for extra in re.findall(r"tokenadapter\[(\w+)\]", path.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= {*extras}


def test_the_data_files_are_installed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "sources" / "providers.toml").is_file()
    # Imported by its path, not as a part of the package.
    assert (PACKAGE / "startup" / "sitecustomize.py").is_file()


@pytest.mark.parametrize("group", ["console_scripts", "pytest11"])
def test_each_entry_point_exists(ours: Distribution, group: str) -> None:
    (entry_point,) = [entry for entry in ours.entry_points if entry.group == group]
    assert entry_point.name == "tokenadapter"
    assert entry_point.load()


# An interpreter that has no package but those that the distribution requires without an extra.
BARE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def test_without_extras_everything_but_their_stores_works(
    requirements: dict[str, set[str]], tmp_path: Path
) -> None:
    blocked = set().union(*requirements.values()) - requirements[""] - {"requests"}
    program = BARE.format(blocked=blocked) + (
        "import pathlib, importlib, tokenadapter\n"
        "for name in {*tokenadapter.__all__} - {'SQLStore'}:\n"
        "    getattr(tokenadapter, name)\n"
        "import tokenadapter.demo.show, tokenadapter.cli.main, tokenadapter.config.profile\n"
        "import quickstart\n"
        "quickstart.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if "COV" in name},
            "PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{Path(__file__).parents[1]}",
            "HOME": str(tmp_path),
            "BILLING_SECRET": "made-up",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- what stands beside the package -----------------------------------------------------------

FOR_THE_CODE_HOST = [*ROOT.glob(".pre-commit-config.yaml"), *ROOT.glob(".github/**/*.yml")]
in_a_checkout = pytest.mark.skipif(not FOR_THE_CODE_HOST, reason="they are not in the sdist")
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)(?:#[^)]*)?\)")


def test_the_sdist_has_each_text_of_the_root() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    (line,) = re.findall(r"^include (.+)$", manifest, re.MULTILINE)
    # setuptools adds the README by itself.
    assert {path.name for path in ROOT.glob("*.md")} == {*line.split(), "README.md"} - {"tox.ini"}


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_the_links_of_a_text_lead_to_files(name: str) -> None:
    links = LINK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert [path for path in links if not (ROOT / path).is_file()] == []


def test_the_readme_and_the_security_page_link_to_the_policy() -> None:
    assert "](SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](security-policy.md)" in (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert "include} ../SECURITY.md" in (ROOT / "docs" / "security-policy.md").read_text("utf-8")


@pytest.mark.parametrize("path", FOR_THE_CODE_HOST, ids=lambda path: path.name)
def test_a_file_for_the_code_host_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


@in_a_checkout
def test_each_supported_python_is_tested(ours: Distribution) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classifiers = " ".join(ours.metadata.get_all("Classifier") or [])
    assert {*re.findall(r"Python :: (3\.\d+)", classifiers)} <= {*tested}


@in_a_checkout
def test_pre_commit_has_the_ruff_of_the_linters(ours: Distribution) -> None:
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = configuration["repos"][0]["hooks"]
    (ruff,) = {one for hook in hooks for one in hook["additional_dependencies"]}
    requirements = [text.replace('"', "'") for text in ours.requires or []]
    assert f"{ruff}; extra == 'lint'" in requirements


def test_the_security_policy_invents_no_address_to_write_to() -> None:
    assert "@" not in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
