"""The known vulnerabilities of the requirements of the wheel in dist/, and its SBOM: a task of tox.

The wheel is installed into a new environment, with the newest versions that it allows, as for a
user. The SBOM is written next to the wheel, as CycloneDX in JSON.

pip-audit queries a vulnerability service, which requires a network.  Without a network, pass
``--advisories`` with a directory or a zip archive of JSON files in the OSV format, such as the
export for PyPI of osv.dev.  If a package gets no answer, the audit fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import uuid
import venv
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parent.parent
Advisory = Mapping[str, Any]


class Unanswered(Exception):
    """The service or the advisories gave no answer."""


# --- the installed packages -------------------------------------------------------------------


def installed(wheel: Path, directory: str) -> list[Distribution]:
    """Install the wheel, and return it and its requirements as pip resolves them."""
    venv.create(directory)
    (python,) = [path for path in Path(directory).glob("*/python*") if path.stem == "python"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", wheel], check=True
    )
    (packages,) = {path.parent for path in Path(directory).rglob("*.dist-info")}
    return sorted(distributions(path=[str(packages)]), key=named)


def named(distribution: Distribution) -> str:
    """The normalized name."""
    return canonicalize_name(distribution.name)


def required_by(distribution: Distribution) -> dict[str, Requirement]:
    """The requirements on this platform without extras, by name."""
    requirements = map(Requirement, distribution.requires or [])
    return {
        canonicalize_name(requirement.name): requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


# --- the SBOM ---------------------------------------------------------------------------------


def sbom(wheel: Path, found: Sequence[Distribution]) -> dict[str, Any]:
    """The wheel and its requirements as a CycloneDX document.

    The same wheel and versions give the same document.
    """
    (ours,) = [each for each in found if named(each) == "tokenadapter"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    declared = required_by(ours)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'sha256:{digest}')}",
        "version": 1,
        "metadata": {
            "component": {
                **component(ours),
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
        },
        "components": [
            component(each, declared.get(named(each))) for each in found if each is not ours
        ],
        "dependencies": [
            {
                "ref": purl(each),
                "dependsOn": sorted(
                    purl(other) for other in found if named(other) in required_by(each)
                ),
            }
            for each in found
        ],
    }


def component(distribution: Distribution, declared: Requirement | None = None) -> dict[str, Any]:
    """One entry of an SBOM.

    :param declared: the requirement of the wheel, if it requires this package directly.
    """
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl(distribution),
        "name": distribution.name,
        "version": distribution.version,
        "purl": purl(distribution),
    }
    if expression := distribution.metadata.get("License-Expression"):
        entry["licenses"] = [{"expression": expression}]
    elif text := (distribution.metadata.get("License") or "").strip():
        entry["licenses"] = [{"license": {"name": text.splitlines()[0]}}]
    if declared is not None:
        entry["properties"] = [{"name": "tokenadapter:declared", "value": str(declared)}]
    return entry


def purl(distribution: Distribution) -> str:
    """The package URL."""
    return f"pkg:pypi/{named(distribution)}@{distribution.version}"


# --- known vulnerabilities --------------------------------------------------------------------


def known_to_service(found: Iterable[Distribution], options: Sequence[str]) -> list[str]:
    """The vulnerabilities that a service knows, queried by pip-audit.

    :param options: further options of pip-audit.
    :raises Unanswered: if the service cannot be reached, or does not know one of the packages.
    """
    with tempfile.TemporaryDirectory() as directory:
        pins = Path(directory, "pins.txt")
        pins.write_text("".join(f"{named(each)}=={each.version}\n" for each in found))
        command = ["-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off"]
        done = subprocess.run(
            [sys.executable, *command, "--format=json", f"--requirement={pins}", *options],
            capture_output=True,
            encoding="utf-8",
        )
    try:
        return reported(done.stdout, found)
    except Unanswered:
        sys.stderr.write(done.stderr)
        raise


def reported(report: str, found: Iterable[Distribution]) -> list[str]:
    """The vulnerabilities in a report of pip-audit.

    The exit code of pip-audit is 1 both for a vulnerability and for a failure, and 0 for a package
    that the service does not know.  So the report must have an answer for each package.
    """
    try:
        answers = {entry["name"]: entry for entry in json.loads(report)["dependencies"]}
    except (ValueError, KeyError):
        raise Unanswered("pip-audit made no report") from None
    if silent := [n for each in found if "vulns" not in answers.get(n := named(each), {})]:
        raise Unanswered(f"the vulnerability service does not know {', '.join(silent)}")
    return [
        f"{name} {entry['version']}: {identifiers(known)}, fixed in "
        f"{', '.join(known['fix_versions']) or 'no version'}"
        for name, entry in answers.items()
        for known in entry["vulns"]
    ]


def identifiers(advisory: Advisory) -> str:
    """The identifiers of an advisory."""
    return " ".join([advisory["id"], *advisory.get("aliases", [])])


def advisories(path: Path) -> Iterator[Advisory]:
    """The advisories in a directory or a zip archive.

    :raises Unanswered: if there are none.
    """
    none = True
    try:
        if path.is_dir():
            texts: Iterable[bytes] = (file.read_bytes() for file in path.rglob("*.json"))
        else:
            archive = zipfile.ZipFile(path)
            texts = (archive.read(name) for name in archive.namelist() if name.endswith(".json"))
        for text in texts:
            advisory = json.loads(text)
            none = none and "affected" not in advisory
            yield advisory
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Unanswered(f"{path} cannot be read: {error}") from error
    if none:
        raise Unanswered(f"{path} holds no advisory in the OSV format")


def known_to_files(found: Iterable[Distribution], known: Iterable[Advisory]) -> list[str]:
    """The vulnerabilities that advisories in the OSV format name.

    :raises Unanswered: if an advisory has an invalid version.
    """
    versions = {named(each): each.version for each in found}
    lines = []
    for advisory in known:
        for affected in advisory.get("affected", []):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            if package.get("ecosystem") != "PyPI" or name not in versions:
                continue
            try:
                if "withdrawn" not in advisory and is_affected(Version(versions[name]), affected):
                    lines.append(f"{name} {versions[name]}: {identifiers(advisory)}")
            except InvalidVersion as error:
                raise Unanswered(f"{advisory['id']} cannot be read: {error}") from error
    return lines


def is_affected(version: Version, affected: Mapping[str, Any]) -> bool:
    """Whether an advisory applies to this version: it is listed, or within a range."""
    return any(same(version, listed) for listed in affected.get("versions", [])) or any(
        is_within(version, limits["events"])
        for limits in affected.get("ranges", [])
        if limits["type"] == "ECOSYSTEM"
    )


def is_within(version: Version, events: Iterable[Mapping[str, str]]) -> bool:
    """Whether the last event before a version marks it as affected."""
    inside = False
    for at, kind in sorted((bound(at), kind) for event in events for kind, at in event.items()):
        if at < version or (at == version and kind != "last_affected"):
            inside = kind == "introduced"
    return inside


def same(version: Version, text: str) -> bool:
    """Whether *text* is that version; an old version may be invalid by current rules."""
    try:
        return Version(text) == version
    except InvalidVersion:
        return False


def bound(text: str) -> Version:
    """The version at a limit of a range; ``0`` precedes every version."""
    return Version("0.dev0" if text == "0" else text)


# --- the task ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the SBOM, and print the known vulnerabilities.

    :returns: the exit code: 0 if no vulnerability is known, 1 if one is, 2 if there was no answer.
    """
    parser = argparse.ArgumentParser(description="Further options go to pip-audit.")
    parser.add_argument("--advisories", type=Path, help="OSV files to ask instead of a service")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the wheel is")
    options, others = parser.parse_known_args(arguments)
    wheels = [*options.dist.glob("*.whl")]
    if len(wheels) != 1:
        sys.stderr.write(f"not audited: one wheel in {options.dist} is wanted: tox -e package\n")
        return 2
    (wheel,) = wheels
    with tempfile.TemporaryDirectory() as directory:
        found = installed(wheel, directory)
        path = wheel.with_name(f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json")
        path.write_text(json.dumps(sbom(wheel, found), indent=2) + "\n", encoding="utf-8")
        # The wheel itself is not published yet.
        requested = [each for each in found if named(each) != "tokenadapter"]
        names = ", ".join(f"{each.name} {each.version}" for each in requested)
        try:
            if options.advisories is None:
                known = known_to_service(requested, others)
            else:
                known = known_to_files(requested, advisories(options.advisories))
        except Unanswered as reason:
            sys.stderr.write(f"not audited: {reason}\n")
            return 2
    sys.stdout.write("".join(f"{line}\n" for line in known))
    sys.stdout.write(f"known vulnerabilities in {names}: {len(known)}; SBOM: {path.name}\n")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
