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


def test_a_script_ends_before_curl_if_there_is_no_token(place: Path) -> None:
    (script,) = re.findall(
        r"^```\n(set -euo pipefail\n.+?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    command(place / "bin")
    program(place / "bin" / "curl", f'#!/bin/sh\ncat "$3" > {place}/sent\n')
    (place / "invoice.json").write_text("{}")
    script = script.replace("curl -fsS -H @", "curl -fsS -H ")
    environment = {"HOME": str(place), "PATH": f"{place}/bin:/usr/bin:/bin"}

    def run() -> int:
        call = ["/bin/bash", "-c", script]
        return subprocess.run(call, cwd=place, env=environment, check=False).returncode

    assert run() == 3
    assert not (place / "sent").exists()
    program(place / "bin" / "tokenadapter", "#!/bin/sh\necho 'Authorization: Bearer x'\n")
    assert run() == 0
    assert (place / "sent").read_text() == "Authorization: Bearer x\n"


def test_a_login_moves_to_another_machine_with_what_was_spent(
    place: Path, rotating: TokenServer
) -> None:
    text = (PAGE.parent / "stores.md").read_text(encoding="utf-8")
    (copy,) = re.findall(r"^   ```\n(   tar .+?)^   ```$", text, re.MULTILINE | re.DOTALL)
    old, new = (place / name / ".local/state/billing/token.json" for name in ("old", "new"))
    settings = (place / "tokenadapter.toml").read_text()
    program(place / "bin" / "ssh", f'#!/bin/sh\nHOME={place}/new exec sh -c "$2"\n')

    def refresh(path: Path) -> int:
        write(place, settings.replace(f"file:{place}/state/token.json", f"file:{path}"))
        call = [sys.executable, "-m", "tokenadapter", "refresh", "billing", "--quiet"]
        return subprocess.run(call, check=False).returncode

    assert refresh(old) == 0
    environment = {"HOME": str(place / "old"), "PATH": f"{place}/bin:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-ec", copy], check=True, env=environment)
    assert {path.name for path in new.parent.iterdir()} == {"token.json", "token.json.spent"}
    assert refresh(new) == 0
    new.unlink()
    assert refresh(new) == 4  # the first refresh token was spent on the old machine
    assert rotating.stats.renewals == 2


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
