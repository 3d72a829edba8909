"""Completion, tested with a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokenadapter.cli.main import COMMANDS

from .conftest import Command

# Completes the given words as bash would.
ASK = """
tokenadapter() {{ {python} -m tokenadapter "$@"; }}
source completion.bash
COMP_WORDS=("$@")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_tokenadapter
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_profiles(
    command: Command, profile: Path, place: Path
) -> None:
    code, out, _ = command("completion", "bash")
    assert code == 0
    (place / "completion.bash").write_text(out)
    for words, offered in (
        (["re"], {"refresh", "request"}),
        ([""], {*COMMANDS}),
        (["header", "b"], {"billing"}),
        (
            ["header", "--"],
            {"--help", "--config", "--min-validity", "--json", "--verbose", "--debug"},
        ),
        (["run", "--profile", ""], {"billing"}),
        (["status", "--watch", ""], {"30s", "5m", "1h"}),
        (["init", "--provider", "s"], {"salesforce", "slack", "spotify", "strava"}),
        (["completion", "z"], {"zsh"}),
        (["run", "--", "completion.b"], {"completion.bash"}),
        (["run", "--inherit", "completion.b"], {"completion.bash"}),
        (["exec", "billing", "completion.b"], {"completion.bash"}),
        (["header", "--config", "tok"], {"tokenadapter.toml"}),
    ):
        done = subprocess.run(
            ["bash", "-c", ASK.format(python=sys.executable), "bash", "tokenadapter", *words],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert set(done.stdout.split()) == offered, words


def test_zsh_uses_the_same_script(command: Command, profile: Path) -> None:
    bash = command("completion", "bash")[1]
    zsh = command("completion", "zsh")[1]
    assert zsh.startswith("autoload -Uz bashcompinit")
    assert zsh.endswith(bash)


def test_the_names_of_the_profiles(command: Command, profile: Path) -> None:
    assert command("completion", "names") == (0, "billing\n", "")
