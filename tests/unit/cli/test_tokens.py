"""``header`` and ``token``: renew when due, once for all processes, and are cheap otherwise."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

from .conftest import CROWD, Command, spawn, start


def test_a_header_is_one_line_for_curl(
    command: Command, profile: Path, server: TokenServer
) -> None:
    code, out, err = command("header", "billing")
    assert (code, err) == (0, "")
    name, _, value = out.partition(": ")
    assert name == "Authorization"
    assert value.startswith("Bearer ")
    assert value.endswith("\n")
    assert command("token", "billing")[1] == value.removeprefix("Bearer ")
    assert server.stats.renewals == 1


def test_header_and_scheme_are_those_of_the_profile(
    command: Command, place: Path, server: TokenServer
) -> None:
    for scheme, lead in (("", ""), ("Token", "Token ")):
        settings = f'header = "X-Key"\nscheme = "{scheme}"\n[billing.source]'
        write(place, billing(server, place).replace("[billing.source]", settings))
        token = command("token", "billing")[1]
        assert command("header", "billing")[1] == f"X-Key: {lead}{token}"


def test_json_has_the_header_and_the_end(command: Command, profile: Path) -> None:
    header = json.loads(command("header", "billing", "--json")[1])
    token = json.loads(command("token", "billing", "--json")[1])
    assert header["value"] == f"Bearer {token['access_token']}"
    assert header["header"] == "Authorization"
    assert header["expires_at"] == token["expires_at"] == pytest.approx(time.time() + 3600, abs=60)
    assert 3000 < token["expires_in"] <= 3600
    assert token["token_type"] == "Bearer"


def test_an_expired_token_is_renewed(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    first = command("token", "billing")[1]
    outlive(place)
    assert command("token", "billing")[1] != first
    assert server.stats.renewals == 2


def outlive(place: Path) -> None:
    """Make the stored token one that has just expired."""
    path = place / "state" / "token.json"
    stored = json.loads(path.read_text())
    token = stored["document"]["token"]
    token["issued_at"] -= token["expires_at"] - time.time() + 1
    token["expires_at"] = time.time() - 1
    path.write_text(json.dumps(stored))


def test_processes_that_start_together_cost_one_renewal(rotating: TokenServer, place: Path) -> None:
    assert spawn("header", "billing")[0] == 0
    outlive(place)
    before = rotating.stats.renewals
    with rotating.hold(endpoint="token"):
        # All of them find an expired token: none is issued before the last process has looked.
        crowd = [start("header", "billing") for _ in range(CROWD)]
        rotating.wait_for(lambda stats: stats.token_requests > before)
    said = [process.communicate(timeout=60) for process in crowd]
    assert [process.returncode for process in crowd] == [0] * CROWD
    assert {err for _, err in said} == {""}
    (header,) = {out for out, _ in said}
    assert header.startswith("Authorization: Bearer ")
    assert rotating.stats.renewals == before + 1
    assert rotating.stats.reuse_detections == 0


def test_a_valid_token_needs_no_requests_no_errors_and_no_argparse(
    profile: Path, server: TokenServer
) -> None:
    assert spawn("header", "billing")[0] == 0
    for words in (["header", "billing"], ["token", "billing"], ["status", "billing"]):
        program = (
            "import sys; from tokenadapter.cli.main import main; "
            f"code = main({words!r}); print(*sys.modules); sys.exit(code)"
        )
        out = run_python(program)
        loaded = set(out.splitlines()[-1].split())
        dear = {
            "argparse",
            "asyncio",
            "cachetools",
            "dataclasses",
            "email",
            "filelock",
            "http.client",
            "importlib.metadata",
            "inspect",
            "logging",
            "pathlib",
            "requests",
            "socket",
            "ssl",
            "subprocess",
            "tokenadapter.clients.requests",
            "tokenadapter.errors",
            "tokenadapter.core.renewal",
            "tokenadapter.keys",
            "tokenadapter.sources.given_token",
            "urllib3",
        }
        # Ignore the imports of a .pth file of an editable installation.
        assert not loaded & (dear - set(run_python("import sys; print(*sys.modules)").split()))
    assert server.stats.token_requests == 1


def run_python(program: str) -> str:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- --min-validity ----------------------------------------------------------------------


def aged(place: Path, left: float, lifetime: float) -> None:
    """Give the stored token so many seconds of its lifetime."""
    path = place / "state" / "token.json"
    stored = json.loads(path.read_text())
    token = stored["document"]["token"]
    token["expires_at"] = time.time() + left
    token["issued_at"] = token["expires_at"] - lifetime
    path.write_text(json.dumps(stored))


def test_a_token_that_lives_long_enough_is_kept(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    command("header", "billing")
    aged(place, left=1800, lifetime=3600)
    assert command("header", "billing", "--min-validity", "29m")[0] == 0
    assert server.stats.renewals == 1
    assert command("header", "billing", "--min-validity", "31m")[0] == 0
    assert server.stats.renewals == 2


def test_a_min_validity_beyond_the_lifetime_does_not_renew_at_each_call(
    command: Command, profile: Path, server: TokenServer
) -> None:
    for _ in range(3):
        code, out, err = command("header", "billing", "--min-validity", "2h")
        assert code == 0
        assert out.startswith("Authorization: Bearer ")
        assert "tokenadapter: billing: the token is valid for " in err
        assert err.endswith(" min, less than 2 h\n")
    assert server.stats.renewals == 1


def test_a_token_that_cannot_be_renewed_is_served_while_it_is_valid(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    command("header", "billing")
    aged(place, left=1800, lifetime=3600)
    server.fail_next(503, count=None)
    code, out, err = command("header", "billing", "--min-validity", "31m")
    assert code == 0
    assert out.startswith("Authorization: Bearer ")
    assert "renewal failed" in err
    assert "less than 31 min" in err


@pytest.mark.parametrize("text", ["", "m", "-1", "5 minutes", "nan", "1e99"])
def test_an_invalid_time_is_wrong_usage(text: str, command: Command, profile: Path) -> None:
    code, out, err = command("header", "billing", f"--min-validity={text}")
    assert (code, out) == (2, "")
    assert f"invalid time {text!r}: give one such as 90s, 5m or 1h" in err


@pytest.mark.parametrize(("text", "meant"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_times(text: str, meant: float) -> None:
    from tokenadapter.cli.common import seconds

    assert seconds(text) == meant


def test_a_header_names_bearer_only_for_a_bearer_token(
    command: Command, server: TokenServer, profile: Path
) -> None:
    server.fail_next(200, body={"access_token": "made-up", "token_type": "DPoP"})
    code, out, err = command("header", "billing")
    assert (code, out) == (3, "")
    assert "must not be sent as a Bearer token" in err
    # A caller that wants the bare token decides how to send it.
    assert command("token", "billing")[1] == "made-up\n"
