"""What ``tokenadapter header`` costs where the token is good: a crontab calls it each minute.

Beside ``python -c "import requests"``, the least that a script in Python pays for its first
request. Whole processes are measured, from start to end, and they take turns; the ratio is the
median of those of neighbours.

    python benchmarks/command.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from tokenadapter.testing import TokenServer

LIMIT = 0.45

PROFILE = """
[billing]
prefix = "{api}"
store = "file:{directory}/state/token.json"

[billing.source]
type = "refresh_token"
token_url = "{token}"
client_id = "client"
client_secret = {{ env = "BILLING_SECRET" }}
refresh_token = {{ file = "first" }}
"""

# As pip installs it: the shell's search for it is not ours to measure.
SCRIPT = "import sys; from tokenadapter.cli.main import main; sys.exit(main())"

CONTENDERS = {
    "import requests": ("-c", "import requests"),
    "header billing": ("-c", SCRIPT, "header", "billing"),
    "token billing": ("-c", SCRIPT, "token", "billing"),
    "status billing": ("-c", SCRIPT, "status", "billing"),
    "header, options": ("-c", SCRIPT, "header", "billing", "--min-validity", "5m"),
    "-m tokenadapter": ("-m", "tokenadapter", "header", "billing"),
    "python alone": ("-c", "pass"),
}


class Processes:
    """The contenders, ready to be run: a token is stored, and all they import is compiled."""

    def __init__(self, server: TokenServer, directory: Path) -> None:
        path = directory / "tokenadapter.toml"
        path.write_text(
            PROFILE.format(api=server.api_url, token=server.token_url, directory=directory)
        )
        path.chmod(0o600)
        (directory / "first").write_text(server.issue()["refresh_token"])
        self._environment = {
            "HOME": str(directory),
            "PATH": os.environ["PATH"],
            "PYTHONPYCACHEPREFIX": str(directory / "compiled"),
            "TOKENADAPTER_CONFIG": str(path),
            "BILLING_SECRET": "secret",
        }
        for name in CONTENDERS:
            self.run(name)

    def run(self, name: str) -> str:
        command = [sys.executable, *CONTENDERS[name]]
        done = subprocess.run(
            command, env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout


def report(processes: Processes, rounds: int) -> float:
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        order = list(CONTENDERS)
        for name in order if number % 2 else reversed(order):
            started = time.perf_counter()
            processes.run(name)
            taken[name].append(time.perf_counter() - started)
    floor = taken["import requests"]
    ratios = {}
    print(f"{'':18}{'ms a process':>14}{'middle half':>18}{'to import requests':>20}")
    for name, mine in taken.items():
        low, middle, high = (1e3 * value for value in quantiles(mine, n=4))
        ratios[name] = median(one / other for one, other in zip(mine, floor, strict=True))
        print(f"{name:18}{middle:14.1f}{f'{low:.1f} – {high:.1f}':>18}{ratios[name]:20.3f}")
    return ratios["header billing"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with TokenServer() as server, tempfile.TemporaryDirectory() as directory:
        processes = Processes(server, Path(directory))
        assert processes.run("header billing").startswith("Authorization: Bearer ")
        ratio = report(processes, options.rounds)
        assert server.stats.token_requests == 1, "a good token was renewed"
    if ratio > LIMIT:
        sys.exit(f"A header costs {ratio:.3f} of import requests, more than {LIMIT}.")


if __name__ == "__main__":
    main()
