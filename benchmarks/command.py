"""The command

What `tokenadapter header` costs while the token is valid. A crontab may call it every minute.

The reference is `python -c "import requests"`, the least that a Python script pays for its first
request. The figures are for whole processes, from start to end, which take turns.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import (
    Bar,
    Chart,
    Claim,
    Finding,
    Table,
    alone,
    environment,
    in_turns,
    ratio,
    shown,
    spread,
)

from tokenadapter.testing import TokenServer

LIMIT = 0.45
FLOOR = 'python -c "import requests"'
HEADER = "tokenadapter header billing"
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
COMMANDS = {
    FLOOR: ("-c", "import requests"),
    HEADER: ("-c", SCRIPT, "header", "billing"),
    "tokenadapter token billing": ("-c", SCRIPT, "token", "billing"),
    "tokenadapter status billing": ("-c", SCRIPT, "status", "billing"),
    "tokenadapter header billing --min-validity 5m": (
        *("-c", SCRIPT, "header", "billing", "--min-validity", "5m"),
    ),
    "python -m tokenadapter header billing": ("-m", "tokenadapter", "header", "billing"),
    'python -c "pass"': ("-c", "pass"),
}


class Processes:
    """The commands, ready to be run: a token is stored, and all they import is compiled."""

    def __init__(self, server: TokenServer, directory: Path) -> None:
        path = directory / "tokenadapter.toml"
        path.write_text(
            PROFILE.format(api=server.api_url, token=server.token_url, directory=directory)
        )
        path.chmod(0o600)
        (directory / "first").write_text(server.issue()["refresh_token"])
        self._environment = environment(directory) | {
            "TOKENADAPTER_CONFIG": str(path),
            "BILLING_SECRET": "secret",
        }
        for name in COMMANDS:
            self.output(name)

    def output(self, name: str) -> str:
        command = [sys.executable, *COMMANDS[name]]
        done = subprocess.run(
            command, env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def seconds(self, name: str) -> float:
        started = time.perf_counter()
        self.output(name)
        return time.perf_counter() - started


def measure(quick: bool) -> Finding:
    with TokenServer() as server, tempfile.TemporaryDirectory() as directory:
        processes = Processes(server, Path(directory))
        assert processes.output(HEADER).startswith("Authorization: Bearer ")
        taken = in_turns(COMMANDS, 1 if quick else 30, processes.seconds)
        assert server.stats.token_requests == 1, "a good token was renewed"
    times = {name: ratio(mine, taken[FLOOR]) for name, mine in taken.items()}
    rows = [
        [f"`{name}`", *shown(spread(mine).times(1e3)), f"{times[name]:.3f}"]
        for name, mine in taken.items()
    ]
    bars = [Bar(name, spread(mine).times(1e3)) for name, mine in taken.items()]
    chart = Chart("bench-command", "A command, from start to end: ms", bars)
    text = f"A header: at most {LIMIT} of the time of `import requests`: {times[HEADER]:.3f}"
    return Finding(
        [Table(["", "ms", "middle half", "to import requests"], rows)],
        [chart],
        [Claim(text, times[HEADER] <= LIMIT)],
    )


if __name__ == "__main__":
    alone(measure)
