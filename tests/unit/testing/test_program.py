"""``python -m tokenadapter.testing``: the token server as a program of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tokenadapter import ClientCredentials
from tokenadapter.testing import TokenServer
from tokenadapter.testing.__main__ import PORT, main
from unit.testing.helpers import CLIENT, TIMEOUT

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "testing.md"
END_OF_EXAMPLE = "invoices"  # in its last line


class Program:
    """The server as a process, and what it has printed when it is ready."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tokenadapter.testing", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        self.text = ""
        for line in lines:
            self.text += line
            if END_OF_EXAMPLE in line:
                break

    def named(self, what: str) -> str:
        """What it printed beside a name."""
        found = re.search(rf"^{what} +(.+)$", self.text, re.MULTILINE)
        assert found is not None, self.text
        return found[1]

    def end(self, number: signal.Signals) -> tuple[str, str]:
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    with ExitStack() as stack:

        def start(*options: str) -> Program:
            program = Program(*options)
            stack.enter_context(program.process)
            stack.callback(program.process.kill)
            return program

        yield start


@pytest.mark.parametrize(
    ("options", "proof"),
    [
        ([], None),
        (["--header=X-Api-Key", "--scheme="], None),
        (["--dpop"], "DPoP (RFC 9449)"),
        (["--dpop-nonces"], "DPoP (RFC 9449), with the nonce of the server"),
        (
            ["--dpop-nonces=0.5"],
            "DPoP (RFC 9449), with the nonce of the server: another one every 0.5 s",
        ),
    ],
)
def test_the_printed_example_runs_unchanged(
    program: Callable[..., Program], options: list[str], proof: str | None
) -> None:
    server = program("--port=0", *options)
    text = server.text
    if proof is None:
        assert "DPoP" not in text
    else:
        assert server.named("proof") == proof
        refused = requests.get(server.named("API"), timeout=TIMEOUT)
        assert refused.headers["WWW-Authenticate"].startswith("DPoP ")
        assert ("DPoP-Nonce" in refused.headers) is ("nonce" in proof)
    example = text[text.index("import requests") :]
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60
    )
    assert "'path': '/api/invoices'" in done.stdout, done.stderr


def test_the_printed_urls_and_credentials_work(
    program: Callable[..., Program],
) -> None:
    server = program("--port=0", "--lifetime=90")
    client_id, secret = server.named("client").split(", secret: ")
    assert (client_id, secret) == CLIENT
    source = ClientCredentials(
        issuer=server.named("issuer"), client_id=client_id, client_secret=secret
    )
    assert source().expires_at
    user, password = server.named("user").split(", password: ")
    refreshed = requests.post(
        server.named("token endpoint"),
        {"grant_type": "refresh_token", "refresh_token": server.named("refresh token")},
        auth=(client_id, secret),
        timeout=TIMEOUT,
    ).json()
    assert refreshed["expires_in"] == 90
    logged_in = requests.post(
        server.named("login, not OAuth"), auth=(user, password), timeout=TIMEOUT
    ).json()
    for token in (refreshed["access_token"], logged_in["access_token"]):
        header = {"Authorization": f"Bearer {token}"}
        assert requests.get(server.named("API"), headers=header, timeout=TIMEOUT).ok
    assert requests.post(
        server.named("revocation"),
        {"token": refreshed["refresh_token"]},
        auth=(client_id, secret),
        timeout=TIMEOUT,
    ).ok


@pytest.mark.parametrize(
    ("options", "rule", "statuses"),
    [
        ([], "An old refresh token that is presented again revokes the grant.", [200, 400, 400]),
        (
            ["--no-reuse-detection"],
            "An old refresh token that is presented again is refused.",
            [200, 400, 200],
        ),
        (
            ["--grace=60"],
            "An old refresh token that is presented again more than 60 s later revokes the grant.",
            [200, 200, 200],
        ),
        (["--no-rotate"], "A renewal does not replace the refresh token.", [200, 200, 200]),
        (["--refresh-lifetime=1e-9"], "Refresh tokens live for 1e-09 s.", [400, 400, 400]),
    ],
)
def test_the_options_and_the_printed_rule_say_what_becomes_of_a_refresh_token(
    program: Callable[..., Program], options: list[str], rule: str, statuses: list[int]
) -> None:
    server = program("--port=0", *options)
    assert rule in server.text.splitlines()
    first = server.named("refresh token")

    def present(refresh_token: str) -> requests.Response:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        url = server.named("token endpoint")
        return requests.post(url, form, auth=CLIENT, timeout=TIMEOUT)

    answers = [present(first), present(first)]
    answers.append(present(answers[0].json().get("refresh_token", first)))
    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_program_without_a_traceback_and_frees_the_port(
    program: Callable[..., Program], number: signal.Signals
) -> None:
    server = program("--port=0")
    port = int(server.named("API").split(":")[2].partition("/")[0])
    assert server.end(number) == ("stopped\n", "")
    assert server.process.returncode == 0
    again = program(f"--port={port}")
    assert again.named("API") == server.named("API")


def test_a_port_in_use_is_an_error_with_advice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TokenServer() as other:
        port = int(other.url.rpartition(":")[2])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            assert main([f"--port={port}"]) == 1
        finally:
            signal.signal(signal.SIGTERM, handler)
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(rf"cannot listen on port {port}: .+ Pass another --port; .+\n", errors)


@pytest.mark.parametrize(
    "option",
    ["--port=65536", "--port=-1", "--lifetime=0", "--lifetime=inf", "--grace=x", "--dpop-nonces=0"],
)
def test_invalid_options_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([option])
    assert stop.value.code == 2
    assert "python -m tokenadapter.testing: error:" in capsys.readouterr().err


def test_without_cryptography_the_program_names_the_extra() -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from tokenadapter.testing.__main__ import main
sys.exit(main(["--port=0", "--dpop"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("run `pip install 'tokenadapter[crypto]'`.\n")


def test_the_documented_port_is_the_default() -> None:
    assert f"http://127.0.0.1:{PORT}/" in HOWTO.read_text(encoding="utf-8")
