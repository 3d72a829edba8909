"""Runs pytest in a process, as users of the plugin do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in *directory* with the plugin of tokenadapter, found by its entry point, and with
    no other."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tokenadapter"),
            *("--strict-markers", "-W", "error", "-q", *arguments),
        ],
        cwd=directory,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
