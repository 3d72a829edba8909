"""Writes constraints for pip: the lowest version of each dependency that setup.py declares.

    python tests/lowest.py lowest.txt
    pip install --constraint lowest.txt '.[test]'

Indirect dependencies are not constrained.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent

# A requirement in setup.py: a name with optional extras, the lowest version, and an optional
# marker.
BOUND = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?>=(?P<version>[\w.]+)(?:; .+)?")


def lowest(requirements: list[str]) -> dict[str, str]:
    """The lowest version of each requirement that has one, by its name.

    :raises ValueError: if a requirement has another form or several lower bounds.
    """
    versions: dict[str, str] = {}
    for requirement in requirements:
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            if re.search(r"[<=>~!]", requirement):
                raise ValueError(f"unknown form of a lower bound: {requirement}")
            continue
        name, version = bound["name"].lower(), bound["version"]
        if versions.setdefault(name, version) != version:
            raise ValueError(f"{name} has several lower bounds")
    return versions


def declared() -> list[str]:
    """The requirements of the package and its tests in setup.py."""
    arguments: dict[str, Any] = {}
    with patch("setuptools.setup", arguments.update):
        runpy.run_path(str(ROOT / "setup.py"))
    return [*arguments["install_requires"], *arguments["extras_require"]["test"]]


if __name__ == "__main__":
    lines = [f"{name}=={version}\n" for name, version in sorted(lowest(declared()).items())]
    Path(sys.argv[1]).write_text("".join(lines), encoding="utf-8")
