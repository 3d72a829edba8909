"""The tests of an HTTP library itself, run without and with ours under each of its clients.

They come from the source distribution of the version that is installed, are run with the plain
library and then with a plugin, and the two results are compared: what passed has to pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree


def compare(library: str, plugin: str, known: Mapping[str, str]) -> int:
    """Run the tests of *library*, and say what came of it.

    :param plugin: the name of a module beside this one.
    :param known: tests that pass with the plain library only, and why.
    :returns: 1 if there are others, or nothing passed at all.
    """
    name = f"{library}-{version(library)}"
    with tempfile.TemporaryDirectory() as folder:
        download = ["download", "-q", "--no-deps", "--no-binary", library, "-d", folder]
        wanted = f"{library}=={version(library)}"
        subprocess.run([sys.executable, "-m", "pip", *download, wanted], check=True)
        with tarfile.open(Path(folder, f"{name}.tar.gz")) as archive:
            archive.extractall(folder, filter="data")
        # What is installed is tested, and not what stands beside the tests.
        shutil.rmtree(Path(folder, name, library), ignore_errors=True)
        plain = run(Path(folder, name))
        ours = run(Path(folder, name), "-p", plugin)
    broken = sorted(test for test in plain if plain[test] and not ours.get(test))
    unknown = [test for test in broken if test not in known]
    say(f"{name}: {len(plain)} tests")
    say(f"  pass with plain {library}: {sum(plain.values())}")
    say(f"  pass with {plugin}: {sum(ours.values())}")
    say(f"  pass with plain {library} only: {len(broken)}, of which {len(unknown)} unexplained")
    for test in broken:
        say(f"  {test}: {known.get(test, 'UNEXPLAINED')}")
    return 1 if unknown or not any(plain.values()) else 0


def run(folder: Path, *arguments: str) -> dict[str, bool]:
    """Run the tests in a folder: of each, whether it passed; those that were skipped left out."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short"]
    # A server of theirs whose thread has failed an assertion never answers.
    options += ["--timeout=20", "--timeout-method=signal", *sys.argv[1:]]
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments, f"--junitxml={report}", "tests"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        check=False,
    )
    return {
        f"{case.get('classname')}::{case.get('name')}": not case.findall("failure")
        and not case.findall("error")
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("skipped") is None
    }


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
