"""The audit: known vulnerabilities, missing answers, and the SBOM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import audit
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

AUDIT = Path(audit.__file__)


def make_wheel(directory: Path, name: str, version: str, *lines: str) -> Path:
    """A wheel with nothing but metadata in it."""
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"{line}\n" for line in lines)
    info = f"{name}-{version}.dist-info"
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the audit of a wheel that requires a package, which requires another."""
    (tmp_path / "dist").mkdir()
    make_wheel(
        tmp_path / "dist",
        "tokenadapter",
        "9.0",
        "License-Expression: MIT",
        "Requires-Dist: first_leaf>=1",
        'Requires-Dist: absent; extra == "all"',
        'Requires-Dist: missing; python_version < "3"',
    )
    make_wheel(tmp_path, "first_leaf", "1.5", "License: BSD\n  and more", "Requires-Dist: second")
    make_wheel(tmp_path, "second", "2.0")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(AUDIT), f"--dist={tmp_path / 'dist'}", *options],
            env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


def an_advisory(name: str, **affected: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": name}
    return {"id": "PYSEC-1", "aliases": ["CVE-1"], "affected": [{"package": package, **affected}]}


def in_range(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.fixture
def leaf(tmp_path: Path) -> Distribution:
    """A package that is installed in version 1.5."""
    info = tmp_path / "First.Leaf-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: First.Leaf\nVersion: 1.5\n")
    return Distribution.at(info)


# --- the program ------------------------------------------------------------------------------


def test_vulnerabilities_named_by_the_advisories_are_reported(run, tmp_path):
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("PYSEC-1.json", json.dumps(an_advisory("second", versions=["2"])))
        file.writestr("PYSEC-2.json", json.dumps(an_advisory("first-leaf", versions=["1.4"])))
    done = run(f"--advisories={archive}")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0] == "second 2.0: PYSEC-1 CVE-1"
    assert "known vulnerabilities in first_leaf 1.5, second 2.0: 1;" in done.stdout


def test_the_sbom_says_what_the_wheel_is_and_requires(run, tmp_path):
    (tmp_path / "PYSEC-1.json").write_text(json.dumps(an_advisory("other", versions=["1"])))
    assert run(f"--advisories={tmp_path}").returncode == 0
    text = (tmp_path / "dist" / "tokenadapter-9.0.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    wheel = document["metadata"]["component"]
    assert wheel["purl"] == "pkg:pypi/tokenadapter@9.0"
    assert wheel["licenses"] == [{"expression": "MIT"}]
    leaf, second = document["components"]
    assert leaf["licenses"] == [{"license": {"name": "BSD"}}]
    assert leaf["properties"] == [{"name": "tokenadapter:declared", "value": "first_leaf>=1"}]
    assert "properties" not in second
    assert [(each["ref"], each["dependsOn"]) for each in document["dependencies"]] == [
        ("pkg:pypi/first-leaf@1.5", ["pkg:pypi/second@2.0"]),
        ("pkg:pypi/second@2.0", []),
        ("pkg:pypi/tokenadapter@9.0", ["pkg:pypi/first-leaf@1.5"]),
    ]


def test_a_service_that_gives_no_answer_does_not_look_like_no_vulnerability(run):
    done = run("--vulnerability-service=osv", "--osv-url=http://127.0.0.1:9/")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "not audited: pip-audit made no report" in done.stderr


def test_without_a_wheel_nothing_is_audited(tmp_path, capsys):
    assert audit.main([f"--dist={tmp_path}"]) == 2
    assert "tox -e package" in capsys.readouterr().err


# --- answers of a service ---------------------------------------------------------------------


def report(*entries: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(entries), "fixes": []})


def test_each_package_needs_an_answer_of_the_service(leaf: Distribution) -> None:
    fine = {"name": "first-leaf", "version": "1.5", "vulns": []}
    assert audit.reported(report(fine), [leaf]) == []
    skipped = {"name": "first-leaf", "skip_reason": "not found on PyPI"}
    for text in (report(), report(skipped)):
        with pytest.raises(audit.Unanswered, match="does not know first-leaf"):
            audit.reported(text, [leaf])
    for text in ("", "[", "{}"):
        with pytest.raises(audit.Unanswered, match="made no report"):
            audit.reported(text, [leaf])


def test_a_vulnerability_is_reported_with_the_versions_that_fix_it(leaf: Distribution) -> None:
    vulns = [
        {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.6", "2.0"]},
        {"id": "PYSEC-2", "aliases": [], "fix_versions": []},
    ]
    found = {"name": "first-leaf", "version": "1.5", "vulns": vulns}
    assert audit.reported(report(found), [leaf]) == [
        "first-leaf 1.5: PYSEC-1 CVE-1, fixed in 1.6, 2.0",
        "first-leaf 1.5: PYSEC-2, fixed in no version",
    ]


# --- advisories as files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("affected", "known"),
    [
        ({"versions": ["1.4", "1.5.0"]}, True),
        ({"versions": ["1.4", "2004-old"]}, False),
        (in_range({"introduced": "0"}), True),
        (in_range({"introduced": "0"}, {"fixed": "1.5"}), False),
        (in_range({"introduced": "0"}, {"fixed": "1.5.1"}), True),
        (in_range({"introduced": "1.5"}, {"last_affected": "1.5"}), True),
        (in_range({"introduced": "1.0"}, {"last_affected": "1.4"}), False),
        (in_range({"fixed": "1.2"}, {"introduced": "0"}, {"introduced": "1.4"}), True),
        (in_range({"introduced": "1.10"}), False),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
    ],
)
def test_an_advisory_applies_to_its_listed_versions_and_its_ranges(
    affected: dict[str, Any], known: bool, leaf: Distribution
) -> None:
    names = audit.known_to_files([leaf], [an_advisory("first_leaf", **affected)])
    assert names == (["first-leaf 1.5: PYSEC-1 CVE-1"] if known else [])


def test_an_advisory_of_another_ecosystem_or_that_was_withdrawn_is_none(leaf: Distribution) -> None:
    other = an_advisory("first-leaf", versions=["1.5"])
    other["affected"][0]["package"]["ecosystem"] = "npm"
    withdrawn = {**an_advisory("first-leaf", versions=["1.5"]), "withdrawn": "2026-01-01T00:00:00Z"}
    assert audit.known_to_files([leaf], [other, withdrawn]) == []


def test_an_unreadable_advisory_is_not_an_answer(leaf: Distribution) -> None:
    with pytest.raises(audit.Unanswered, match="PYSEC-1 cannot be read"):
        audit.known_to_files([leaf], [an_advisory("first-leaf", **in_range({"introduced": "?"}))])


@pytest.mark.parametrize("content", [None, "{", '{"id": "PYSEC-1"}'])
def test_a_folder_without_an_advisory_is_no_answer(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "PYSEC-1.json").write_text(content)
    with pytest.raises(audit.Unanswered):
        list(audit.advisories(tmp_path))


def test_an_invalid_archive_is_not_an_answer(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_text("<h1>Not found</h1>")
    for path in (tmp_path / "all.zip", tmp_path / "absent.zip"):
        with pytest.raises(audit.Unanswered, match="cannot be read"):
            list(audit.advisories(path))
