"""``run``: runs an unmodified program and signs its requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from profiles import billing, write

from tokenadapter.cli.main import main
from tokenadapter.startup import DIRECTORY
from tokenadapter.startup.deferred import DeferredProfiles
from tokenadapter.testing import TokenServer
from tokenadapter.testing.workers import succeeds_in_child

from .conftest import CROWD, Command, spawn, start
from .test_tokens import outlive

# A typical script: three calls, and a token that was pasted into it long ago.
LEGACY = """
import sys
import requests

HEADERS = {"Authorization": "Bearer pasted-long-ago"}
api = sys.argv[1]
for name in ("one", "two", "three"):
    answer = requests.get(api + name, headers=HEADERS)
    answer.raise_for_status()
    print(name)
    sys.stdout.flush()
    if sys.argv[2:] == ["--wait"]:
        sys.stdin.readline()
"""


def script(place: Path, text: str, name: str = "script.py") -> Path:
    path = place / name
    path.write_text(text)
    return path


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The command lines that would have been run."""
    lines: list[object] = []
    monkeypatch.setattr(
        "tokenadapter.cli.run.exec_program", lambda line, env: lines.append(line) or 0
    )
    return lines


def output_of(place: Path, program: str, *arguments: str, **options: Any) -> Any:
    """Run a program, and return the JSON that it prints."""
    code, out, err = spawn("run", "--", str(script(place, program)), *arguments, **options)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_script_with_a_stale_header_outlives_two_expiries(
    rotating: TokenServer, place: Path
) -> None:
    script(place, LEGACY)
    process = start("run", "--", "script.py", rotating.api_url, "--wait", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for name in ("one", "two", "three"):
        assert process.stdout.readline() == f"{name}\n"
        rotating.expire_now()
        process.stdin.write("\n")
        process.stdin.flush()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert rotating.stats.renewals == 3
    assert rotating.stats.reuse_detections == 0


def test_copies_that_start_together_cost_one_renewal(rotating: TokenServer, place: Path) -> None:
    script(place, LEGACY)
    spawn("header", "billing")
    outlive(place)
    before = rotating.stats.renewals
    crowd = [start("run", "--", "script.py", rotating.api_url) for _ in range(CROWD)]
    said = [process.communicate(timeout=100) for process in crowd]
    assert said == [("one\ntwo\nthree\n", "")] * CROWD
    assert [process.returncode for process in crowd] == [0] * CROWD
    assert rotating.stats.renewals == before + 1
    assert rotating.stats.reuse_detections == 0


# --- as without us -----------------------------------------------------------------------

WORLD = """
import atexit, json, os, sys, threading
import __main__

world = {
    "argv": sys.argv,
    "name": __name__,
    "file": __file__,
    "main is this": vars(__main__) is globals(),
    "path": sys.path,
    "flags": list(sys.flags),
    "executable": sys.executable,
    "environment": sorted(os.environ.items()),
    "threads": len(threading.enumerate()),
    "requests": "requests" in sys.modules,
}
print(json.dumps(world))
"""


@pytest.mark.parametrize("pythonpath", [None, "", "lib:/other"])
def test_the_program_sees_the_same_environment_as_without_us(
    pythonpath: str | None, profile: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(place, WORLD)
    if pythonpath is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", pythonpath)
    command = ["script.py", "--month", "5", "--", "a b"]
    # Passed on unchanged, since readline changes the environment without os.environ.
    plain = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=dict(os.environ)
    )
    code, out, err = spawn("run", "--", *command)
    assert (code, err) == (0, plain.stderr)
    ours, theirs = json.loads(out), json.loads(plain.stdout)
    assert ours == theirs
    assert not any(DIRECTORY in str(value) for value in ours.values())


def test_modules_and_commands_can_be_run(
    profile: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    package = place / "reports"
    package.mkdir()
    (package / "__init__.py").touch()
    script(package, "import sys; print(__name__, __spec__.name, sys.argv[1:])", "monthly.py")
    assert spawn("run", "--", "-m", "reports.monthly", "--x") == (
        0,
        "__main__ reports.monthly ['--x']\n",
        "",
    )
    assert spawn("run", "--", "-c", "import sys; print(sys.argv)", "a") == (0, "['-c', 'a']\n", "")
    (package / "__main__.py").write_text("print('the package')")
    assert spawn("run", "--", "reports")[1] == "the package\n"


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (["script.py", "--month", "5"], ["script.py", "--month", "5"]),
        (["--inherit", "script.py", "--inherit"], ["script.py", "--inherit"]),
        (["--profile", "billing", "-m", "json.tool", "-h"], ["-m", "json.tool", "-h"]),
        (["--profile=billing", "-c", "pass", "--", "a"], ["-c", "pass", "--", "a"]),
        (["script.py", "--", "a"], ["script.py", "--", "a"]),
        (["--", "script.py", "--", "a"], ["script.py", "--", "a"]),
        (["-v", "script.py"], ["script.py"]),
    ],
    ids=str,
)
def test_dashes_before_the_program_are_optional(
    line: list[str],
    command: list[str],
    profile: Path,
    place: Path,
    executed: list[object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    script(place, "")
    assert main(["run", *line]) == 0
    assert executed == [[sys.executable, *command]]


def test_verbose_shows_the_log_in_the_program(
    profile: Path, place: Path, server: TokenServer
) -> None:
    script(place, LEGACY)
    for flag, is_told in (("--verbose", True), ("--debug", True), ("--inherit", False)):
        server.expire_now()
        code, out, err = spawn("run", flag, "script.py", server.api_url)
        assert (code, out) == (0, "one\ntwo\nthree\n")
        assert ("tokenadapter: renewed: token " in err) is is_told


def test_a_console_script_runs_under_its_own_interpreter(
    profile: Path, place: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = script(place, f"#!{sys.executable}\n{LEGACY}", "billing-report")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    assert spawn("run", "--", "billing-report", server.api_url) == (0, "one\ntwo\nthree\n", "")


def test_exit_code_output_and_atexit(profile: Path, place: Path) -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('at the end'))\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    script(place, program)
    assert spawn("run", "--", "script.py") == (7, "at the end\n", "to stderr\n")


def test_a_traceback_shows_only_the_program(profile: Path, place: Path) -> None:
    script(place, "import requests\n\ndef fail():\n    1 / 0\n\nfail()\n")
    code, _, err = spawn("run", "--", "script.py")
    plain = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert (code, err) == (1, plain.stderr)
    assert "tokenadapter" not in err


def test_run_replaces_the_process_and_signals_reach_the_program(profile: Path, place: Path) -> None:
    script(
        place,
        "import os, signal, sys, requests\n"
        "def on_term(number, frame):\n    print('terminated'); sys.exit(9)\n"
        "signal.signal(signal.SIGTERM, on_term)\n"
        "print(os.getpid(), flush=True)\n"
        "while True: signal.pause()\n",
    )
    process = start("run", "--", "script.py")
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("terminated\n", "")
    assert process.returncode == 9


def test_a_program_without_requests_does_not_load_requests(profile: Path, place: Path) -> None:
    assert (
        output_of(place, "import json, sys; print(json.dumps(sorted(sys.modules)))").count(
            "requests"
        )
        == 0
    )


def test_finding_the_spec_of_requests_does_not_import_it(
    profile: Path, place: Path, server: TokenServer
) -> None:
    program = (
        "import importlib.util, json, sys\n"
        "found = importlib.util.find_spec('requests') is not None\n"
        "import requests\n"
        "loader = type(requests.__loader__).__name__, type(requests.__spec__.loader).__name__\n"
        "status = requests.get(sys.argv[1]).status_code\n"
        "print(json.dumps([found, loader, status]))\n"
    )
    said = output_of(place, program, f"{server.api_url}x")
    assert said == [True, ["SourceFileLoader", "SourceFileLoader"], 200]


def test_a_program_may_use_tokenadapter_itself(
    profile: Path, place: Path, server: TokenServer
) -> None:
    for first in ("from tokenadapter import TokenAdapter", "import tokenadapter.errors"):
        program = f"import sys\n{first}\nimport requests\n"
        script(place, f"{program}print(requests.get(sys.argv[1]).status_code)\n")
        assert spawn("run", "--", "script.py", f"{server.api_url}x") == (0, "200\n", "")


def test_a_tracer_that_wraps_the_session_sees_every_request(
    profile: Path, place: Path, server: TokenServer
) -> None:
    program = (
        "import json, requests, sys\n"
        "plain, seen = requests.Session.send, []\n"
        "def send(self, request, **kwargs):\n"
        "    seen.append(request.url)\n"
        "    return plain(self, request, **kwargs)\n"
        "requests.Session.send = send\n"
        "said = [requests.get(sys.argv[1]).status_code for _ in range(2)]\n"
        "print(json.dumps([said, len(seen)]))\n"
    )
    assert output_of(place, program, f"{server.api_url}x") == [[200, 200], 2]


def test_a_session_that_finds_adapters_in_its_own_way_is_signed_from_the_first_request(
    profile: Path, place: Path, server: TokenServer
) -> None:
    program = (
        "import json, requests, sys\n"
        "class Own(requests.Session):\n"
        "    def get_adapter(self, url):\n"
        "        return self.adapters['http://']\n"
        "print(json.dumps([Own().get(sys.argv[1]).status_code for _ in range(2)]))\n"
    )
    assert output_of(place, program, f"{server.api_url}x") == [200, 200]


def test_bare_urllib3_is_signed(profile: Path, place: Path, server: TokenServer) -> None:
    program = (
        "import json, sys, urllib3\n"
        "url, path = sys.argv[1], urllib3.util.parse_url(sys.argv[1]).path\n"
        "early = 'requests' in sys.modules\n"
        "said = [urllib3.request('GET', url).status]\n"
        "manager = urllib3.PoolManager(headers={'Authorization': 'Bearer pasted-long-ago'})\n"
        "said.append(manager.request('GET', url).status)\n"
        "said.append(urllib3.connection_from_url(url).request('GET', path).status)\n"
        "import requests\n"
        "said.append(requests.get(url).status_code)\n"
        "print(json.dumps([early, said]))\n"
    )
    assert output_of(place, program, f"{server.api_url}x") == [False, [200] * 4]
    # The request of requests was sent once, signed by the adapter.
    assert server.stats.api_requests == 4


# --- what it starts ----------------------------------------------------------------------

WITH_POOL = """
import json, multiprocessing, subprocess, sys, threading
import requests

def status(url):
    return requests.get(url).status_code

if __name__ == "__main__":
    url = sys.argv[1]
    said = {}
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            said[method] = pool.apply(status, [url])
    late = threading.Thread(target=lambda: said.update(thread=status(url)))
    late.start()
    late.join()
    program = "import requests, sys; print(requests.get(sys.argv[1]).status_code)"
    child = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True)
    said["child"] = int(child.stdout)
    print(json.dumps(said))
"""


@pytest.mark.parametrize("inherit", [False, True])
def test_pools_and_threads_are_signed_and_other_programs_with_inherit(
    inherit: bool, profile: Path, place: Path, server: TokenServer
) -> None:
    script(place, WITH_POOL)
    options = ["--inherit"] if inherit else []
    code, out, err = spawn("run", *options, "--", "script.py", f"{server.api_url}x")
    assert (code, err) == (0, "")
    signed = dict.fromkeys(("fork", "spawn", "forkserver", "thread"), 200)
    assert json.loads(out) == {**signed, "child": 200 if inherit else 401}
    assert server.stats.renewals == 1


# --- sitecustomize -----------------------------------------------------------------------


def test_a_sitecustomize_of_the_user_is_run(
    profile: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "lib").mkdir()
    script(place / "lib", "import sys; sys.of_the_user = __file__", "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(place / "lib"))
    program = (
        "import json, sys, sitecustomize\n"
        "print(json.dumps([sys.of_the_user, sitecustomize.__file__]))\n"
    )
    assert output_of(place, program) == [str(place / "lib" / "sitecustomize.py")] * 2


def test_a_sitecustomize_that_fails_is_reported_as_without_us(
    profile: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "lib").mkdir()
    script(place / "lib", "import no_such_module_at_all", "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(place / "lib"))
    script(place, "print('went on')")
    code, out, err = spawn("run", "--", "script.py")
    plain = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    # Once in the interpreter of the command itself.
    assert (code, out, err) == (0, "went on\n", plain.stderr * 2)


# --- what goes wrong ---------------------------------------------------------------------


def test_only_the_named_profiles_are_installed(
    profile: Path, place: Path, server: TokenServer
) -> None:
    other = billing(server, place).replace("billing", "other").replace("/api/", "/api/other/")
    write(place, profile.read_text() + other.replace("token.json", "other.json"))
    script(place, "import requests, sys; print(requests.get(sys.argv[1]).status_code)")
    arguments = ["--profile", "other", "--", "script.py"]
    assert spawn("run", *arguments, f"{server.api_url}other/x")[1] == "200\n"
    assert spawn("run", *arguments, f"{server.api_url}x")[1] == "401\n"


def test_the_name_of_a_profile_in_place_of_a_program_is_explained(
    command: Command, profile: Path
) -> None:
    code, out, err = command("run", "billing", "script.py")
    assert (code, out) == (127, "")
    assert err == (
        "tokenadapter: there is no program billing\n"
        "tokenadapter: billing is a profile: write --profile billing\n"
    )


@pytest.mark.parametrize("spelt", ["http:{}", "http:{}/", "HTTP:{}"])
def test_of_profiles_with_equal_prefixes_one_has_to_be_chosen(
    spelt: str, profile: Path, place: Path, server: TokenServer
) -> None:
    prefix = server.api_url.removesuffix("/")
    other = profile.read_text().replace("[billing", "[user").replace("token.json", "user.json")
    other = other.replace(server.api_url, spelt.format(prefix.removeprefix("http:")))
    write(place, profile.read_text() + other)
    script(place, "import requests, sys; print(requests.get(sys.argv[1]).status_code)")
    line = ["--", "script.py", f"{prefix}/x"]
    for names in ([], ["--profile", "billing", "--profile", "user"]):
        code, out, err = spawn("run", *names, *line)
        assert (code, out) == (3, "")
        assert f"The profiles billing and user have the same prefix, {prefix}, so" in err
        assert "Choose with --profile." in err
    assert server.stats.token_requests == 0
    assert spawn("run", "--profile", "billing", *line)[:2] == (0, "200\n")


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_request_outside_the_prefixes_is_reported_with_the_closest(
    names: tuple[str, str], place: Path, server: TokenServer
) -> None:
    texts = [
        billing(server, place)
        .replace("[billing", f"[{name}")
        .replace("/api/", f"/api/{name}/reports/")
        .replace("token.json", f"{name}.json")
        for name in names
    ]
    write(place, "".join(texts))
    script(place, "import requests, sys\nfor url in sys.argv[1:]: requests.get(url)")
    for name in names:
        for url in (
            f"{server.api_url}{name}/other",
            f"{server.api_url.replace('127.0.0.1', 'localhost')}{name}/reports/x",
        ):
            code, _, err = spawn("run", "--", "script.py", url)
            assert code == 0
            assert f"{url} is outside the prefix {server.api_url}{name}/reports;" in err


def test_an_invalid_profile_is_reported_before_the_program_starts(
    command: Command, profile: Path, place: Path
) -> None:
    profile.write_text(profile.read_text() + '[other]\nprefx = "x"\n')
    code, _, err = command("run", "--", "script.py")
    assert code == 3
    assert "other.prefx" in err
    assert command("run", "--profile", "nobody", "--", "script.py")[0] == 3
    profile.write_text("")
    code, _, err = command("run", "--", "script.py")
    assert code == 3
    assert "no profile" in err


def test_a_mistake_found_in_use_fails_each_request_with_an_error_of_requests(
    profile: Path, place: Path, server: TokenServer
) -> None:
    profile.write_text(billing(server, place).replace(server.api_url, "http://api.example/"))
    program = (
        "import json, requests, sys\n"
        "said = []\n"
        "for url in sys.argv[1:] * 2:\n"
        "    try:\n"
        "        requests.get(url)\n"
        "    except requests.RequestException as error:\n"
        "        said.append(str(error))\n"
        "print(json.dumps(said))\n"
    )
    said = output_of(place, program, f"{server.api_url}x")
    assert len(said) == 2
    for message in said:
        assert "billing.prefix: http://api.example would carry the token in clear" in message
    assert server.stats.api_requests == 0


@pytest.mark.parametrize("flag", ["-I", "-E", "-S", "-sE"])
def test_python_that_would_ignore_us_is_refused(
    flag: str, command: Command, profile: Path, place: Path
) -> None:
    tool = script(place, f"#!{sys.executable} {flag}\nprint('ran')\n", "tool")
    tool.chmod(0o755)
    for program in ([str(tool)], [sys.executable, flag, "script.py"]):
        code, _, err = command("run", "--", *program)
        assert code == 3
        assert f"With {flag}, " in err
        assert "would not be signed" in err


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        ("/usr/bin/env -S python3 -u", False),
        ("/usr/bin/env -S python3 -W error -X dev", False),
        ("/usr/bin/env python3", False),
        ("/usr/bin/env -S bash -E", False),
        ("/usr/bin/env -S python3 -u -I", True),
        ("/usr/bin/env -S python3 -W error -Xdev -sE", True),
    ],
)
def test_options_are_distinguished_from_their_values_and_from_those_of_env(
    line: str,
    is_refused: bool,
    command: Command,
    profile: Path,
    place: Path,
    executed: list[object],
) -> None:
    tool = script(place, f"#!{line}\n", "tool")
    tool.chmod(0o755)
    assert command("run", "--", str(tool))[0] == (3 if is_refused else 0)
    assert len(executed) == (not is_refused)
    executed.clear()
    interpreter = [sys.executable, "-W", "-I", "-X", "-I", "-c", "pass", "-I"]
    assert command("run", "--", *interpreter)[0] == 0
    assert executed == [interpreter]


def test_a_program_that_cannot_be_read_is_left_to_the_system(
    command: Command,
    profile: Path,
    place: Path,
    executed: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    tool = script(place, "a program", "tool")
    tool.chmod(0o711)
    monkeypatch.setattr("tokenadapter.cli.run.open", closed, raising=False)
    assert command("run", "--", str(tool))[0] == 0
    assert executed == [[str(tool)]]


def test_a_child_forked_while_another_thread_installs_the_profiles_does_so_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent, has_begun, goes_on = os.getpid(), threading.Event(), threading.Event()

    class Session:
        def send(self) -> str:
            return "sent"

        get_adapter = send

    def adapters() -> list[object]:
        has_begun.set()
        assert os.getpid() != parent or goes_on.wait(30)
        return []

    profiles = DeferredProfiles([], "unused.toml")
    monkeypatch.setattr(profiles, "adapters", adapters)
    profiles.sign_sessions(SimpleNamespace(Session=Session))
    other = threading.Thread(target=Session().send)
    other.start()
    assert has_begun.wait(30)
    assert succeeds_in_child(lambda: Session().send() == "sent")
    goes_on.set()
    other.join()


def test_an_interpreter_without_tokenadapter_is_reported(
    profile: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in an environment without the package.
    (place / "lib" / "tokenadapter").mkdir(parents=True)
    script(place / "lib" / "tokenadapter", "raise ImportError('not here')", "__init__.py")
    monkeypatch.setenv("PYTHONPATH", str(place / "lib"))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    script(place, "print('unsigned')")
    root = Path(DIRECTORY).parent.parent
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); "
        "from tokenadapter.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--", "script.py"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert (
        "cannot import tokenadapter (not here), so the program's requests would not be signed"
        in done.stderr
    )


def test_minus_m_needs_a_module(command: Command, profile: Path) -> None:
    code, _, err = command("run", "--", "-m")
    assert code == 2
    assert "After -m, the name of a module is missing" in err
    assert command("run", "--", "no-such-program")[0] == 127
