"""The crontab lines of docs/howto/cron.md work in the environment that cron gives them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "cron.md"
LINES = re.findall(r"^\d\S* [\d*]+ \* \* \*  (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

REPORT = """
import requests, sys
requests.get("{api}report", headers={{"Authorization": "Bearer pasted"}}).raise_for_status()
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def command(directory: Path) -> None:
    """Install the command in *directory*, as pip would."""
    line = f'exec {sys.executable} -m tokenadapter "$@"'
    program(directory / "tokenadapter", f"#!/bin/sh\n{line}\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_each_line_works(place: Path, server: TokenServer) -> None:
    assert len(LINES) == 8
    home, opt, var = place / "home", place / "opt" / "billing", place / "var"
    (home / ".config" / "tokenadapter").mkdir(parents=True)
    var.mkdir()
    write(
        home / ".config" / "tokenadapter",
        billing(server, home).replace('"secret"', '{ file = "secret" }'),
    )
    program(home / ".config" / "tokenadapter" / "secret", "secret\n")
    report = REPORT.format(api=server.api_url)
    program(opt / "report.py", report)
    program(home / "reports" / "monthly.py", report)
    program(opt / "bin" / "upload", '#!/bin/sh\ntest -n "$API_TOKEN"\n')
    program(opt / "bin" / "deploy", '#!/bin/sh\ntest -n "$(cat "$2")"\n')
    program(
        opt / "bin" / "tokenadapter", f'#!/bin/sh\nexec {sys.executable} -m tokenadapter "$@"\n'
    )
    for line in LINES:
        words = line.replace("/opt/billing", str(opt)).replace("/var/lib/billing", str(var))
        done = subprocess.run(
            ["/bin/bash", "-c", words.replace("https://api.example.com/", server.api_url)],
            env={"HOME": str(home), "LOGNAME": "billing", "PATH": f"{opt}/bin:/usr/bin:/bin"},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, ""), (line, done.stderr)
        assert not done.stderr, (line, done.stderr)
    assert (var / "invoices.json").exists()
    assert (var / "report.json").exists()
    assert server.stats.api_refused == 0
    assert server.stats.renewals == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_a_line_fails_if_there_is_no_token(place: Path) -> None:
    command(place)
    with TokenServer() as server:
        config = write(place, billing(server, place))
        line = LINES[0].replace("https://api.example.com/", f"{server.public_url}")
        server.fail_next(503)
        done = subprocess.run(
            ["/bin/bash", "-c", line.replace("/var/lib/billing", str(place))],
            env={
                "HOME": str(place),
                "PATH": f"{place}:/usr/bin:/bin",
                "TOKENADAPTER_CONFIG": str(config),
            },
            cwd=place,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 5
    assert done.stderr.startswith("tokenadapter: ")
