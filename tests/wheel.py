"""The wheel and the sdist in dist/ are whole, and the wheel works without extras: a task of tox.

The wheel is installed into an environment of its own, which has nothing but what it requires, and
everything runs outside the checkout.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "tokenadapter").rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}
# What the tests, the documentation and the tasks need of the sdist.
SOURCES = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "tox.ini"}
SOURCES |= {"docs/conf.py", "docs/index.md", "pyproject.toml", "setup.py", "tests/conftest.py"}
SOURCES |= {"tests/wheel.py"}


def check_contents(wheel: Path, sdist: Path) -> None:
    """Each has what it should have, and the wheel has nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == PACKAGE, f"in one only: {sorted(names ^ PACKAGE)}"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = (PACKAGE | SOURCES) - names
    assert not missing, f"not in the sdist: {sorted(missing)}"


def check_installed(wheel: Path, directory: str) -> None:
    """What a user has after ``pip install``: the package, its command, and the quick start."""
    venv.create(directory, with_pip=True)
    programs = Path(directory) / ("Scripts" if sys.platform == "win32" else "bin")

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [programs / program, *arguments], cwd=directory, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.decode()

    run("python", "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel))
    home = run("python", "-I", "-c", "import tokenadapter; print(tokenadapter.__file__)")
    assert Path(home).is_relative_to(Path(directory).resolve()), home
    version = wheel.name.split("-")[1]
    assert version in run("tokenadapter", "--version")
    sys.stdout.write(run("python", "-I", str(ROOT / "tests" / "quickstart.py")))


if __name__ == "__main__":
    [wheel], [sdist] = (ROOT / "dist").glob("*.whl"), (ROOT / "dist").glob("*.tar.gz")
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory() as directory:
        check_installed(wheel, directory)
