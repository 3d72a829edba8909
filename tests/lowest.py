"""Writes constraints for pip: the lowest version of each dependency that setup.py declares.

    python tests/lowest.py lowest.txt
    pip install --constraint lowest.txt '.[test]'

What dependencies bring along themselves is as new as they admit.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent

# A name, perhaps with extras, the lowest version, and perhaps where it is needed: how setup.py
# writes a requirement.
BOUND = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?>=(?P<version>[\w.]+)(?:; .+)?")


def lowest(requirements: list[str]) -> dict[str, str]:
    """The lowest version of each that has one, by its name.

    :raises ValueError: if one is written in another way, or has several.
    """
    versions: dict[str, str] = {}
    for requirement in requirements:
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            if re.search(r"[<=>~!]", requirement):
                raise ValueError(f"no lower bound as it is known here: {requirement}")
            continue
        name, version = bound["name"].lower(), bound["version"]
        if versions.setdefault(name, version) != version:
            raise ValueError(f"{name} has several lower bounds")
    return versions


def declared() -> list[str]:
    """What setup.py says that the package and its tests need."""
    said: dict[str, Any] = {}
    with patch("setuptools.setup", said.update):
        runpy.run_path(str(ROOT / "setup.py"))
    return [*said["install_requires"], *said["extras_require"]["test"]]


if __name__ == "__main__":
    lines = [f"{name}=={version}\n" for name, version in sorted(lowest(declared()).items())]
    Path(sys.argv[1]).write_text("".join(lines), encoding="utf-8")
