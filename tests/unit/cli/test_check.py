"""``check``: finds problems and says how to fix them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter import FileStore, StoreError, groups
from tokenadapter.cli import findings as _findings
from tokenadapter.testing import TokenServer

from .conftest import Command, spawn


@pytest.fixture(autouse=True)
def cleaned(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Iterator[str]]:
    """The directories that are cleaned: pytest's own are in one of them."""
    real = _findings._cleaned
    monkeypatch.setattr(_findings, "_cleaned", lambda: iter(()))
    return real


def findings(command: Command, *arguments: str) -> list[tuple[str, str]]:
    code, out, err = command("check", "--json", *arguments)
    found = [(one["level"], one["text"]) for one in json.loads(out)]
    assert err == ""
    assert code == any(level == "problem" for level, _ in found)
    return found


def problems(command: Command, *arguments: str) -> list[str]:
    return [text for level, text in findings(command, *arguments) if level == "problem"]


def test_a_good_profile_has_no_findings_but_ok(
    command: Command, profile: Path, server: TokenServer
) -> None:
    code, out, _ = command("check")
    assert code == 0
    assert [line[:9] for line in out.splitlines()] == ["ok       "] * 4
    assert f"configuration: {profile}: 1 profile\n" in out
    assert f"billing: {server.token_url} answers\n" in out
    assert f"billing: {server.api_url} answers\n" in out
    # No token was issued, and no secret was sent.
    assert {(r.method, r.body) for r in server.requests} == {("HEAD", b""), ("POST", b"")}
    assert not any("authorization" in request.headers for request in server.requests)


def test_an_invalid_profile_is_a_problem_and_the_others_are_checked(
    command: Command, profile: Path
) -> None:
    profile.write_text(profile.read_text() + '[other]\nprefx = "x"\n')
    (problem,) = problems(command, "--offline")
    assert "other.prefx: This key is unknown. Did you mean 'prefix'?" in problem
    assert problems(command, "--offline", "billing") == []


def test_an_unsafe_prefix_is_a_problem(command: Command, place: Path, server: TokenServer) -> None:
    text = billing(server, place).replace(server.api_url, "http://api.example/")
    write(place, text)
    (problem,) = problems(command, "--offline")
    assert "billing.prefix: http://api.example would carry the token in clear text" in problem


@pytest.mark.parametrize(
    ("mounts", "is_reported"),
    [
        ("/ ext4", False),
        ("/ ext4, {place} nfs4", True),
        ("{place} nfs4, {place} tmpfs", False),
        ("{place} fuse.sshfs, / ext4", True),
        ("/ ext4, {place}-not nfs", False),
        (None, False),
    ],
)
def test_a_file_on_a_shared_file_system_is_a_note(
    command: Command,
    profile: Path,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mounts: str | None,
    is_reported: bool,
) -> None:
    table = tmp_path / "mountinfo"
    if mounts is not None:
        spaced = str(place).replace(" ", "\\040")
        lines = [line.split() for line in mounts.format(place=spaced).split(", ")]
        table.write_text(
            "".join(f"1 2 0:3 / {at} rw shared:4 - {kind} none rw\n" for at, kind in lines)
        )
    monkeypatch.setattr("tokenadapter.cli.findings._MOUNTS", str(table))
    texts = [
        text for _, text in findings(command, "--offline") if "that machines may share" in text
    ]
    assert bool(texts) == is_reported


@pytest.mark.parametrize("variable", ["TMPDIR", "XDG_CACHE_HOME", "HOME", None])
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_file_in_a_place_that_is_cleaned_is_a_note(
    command: Command,
    server: TokenServer,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cleaned: Callable[[], Iterator[str]],
    variable: str | None,
    is_linked: bool,
) -> None:
    ours = {"TMPDIR": tmp_path, "XDG_CACHE_HOME": tmp_path, "HOME": tmp_path / ".cache"}
    bare = tmp_path if variable is None else ours[variable]
    (bare / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(bare / "deep")
    directory = tmp_path / "link" if is_linked else bare / "deep"
    write(place, billing(server, place).replace(str(place / "state"), str(directory)))
    for name in ("TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    fixed = {"/tmp", "/var/tmp", "/run", "/dev/shm"}
    assert fixed <= {*cleaned()}
    monkeypatch.setattr(_findings, "_cleaned", lambda: iter({*cleaned()} - fixed))
    notes = [text for level, text in findings(command, "--offline") if level == "note"]
    expected = [] if variable is None else [f"is in {bare}, where files are deleted"]
    assert len(notes) == len(expected)
    assert all(text in note for text, note in zip(expected, notes, strict=True))


def test_secrets_that_other_users_can_read_are_found(
    command: Command, profile: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_is_alone_in", lambda gid: False)
    profile.chmod(0o644)
    (problem,) = problems(command, "--offline")
    assert (
        f"Other users can read {profile}, and billing.source.client_secret may be secret" in problem
    )
    assert f"Run `chmod 600 {profile}`" in problem
    (place / "secret").write_text("secret")
    (place / "secret").chmod(0o640)
    profile.write_text(profile.read_text().replace('"secret"', '{ file = "secret" }'))
    found = findings(command, "--offline")
    (note,) = [text for level, text in found if level == "note"]
    assert f"Other users can read {place}/secret (mode 0640)" in note


def test_missing_secrets_are_problems(command: Command, profile: Path) -> None:
    text = profile.read_text()
    for where, said in (
        ('{ env = "NO_SUCH_VARIABLE" }', "NO_SUCH_VARIABLE is not set"),
        ('{ file = "no-such-file" }', "no-such-file does not exist"),
        ('{ command = ["no-such-program"] }', "There is no program no-such-program in PATH"),
    ):
        profile.write_text(text.replace('"secret"', where))
        (problem,) = problems(command, "--offline")
        assert "billing.source.client_secret: " in problem
        assert said in problem


def test_the_program_of_a_command_is_checked_and_not_run(
    command: Command, profile: Path, place: Path
) -> None:
    program = place / "program"
    program.write_text(f"#!/bin/sh\ntouch {place}/was-run\n")
    program.chmod(0o700)
    profile.write_text(profile.read_text().replace('"secret"', f'{{ command = ["{program}"] }}'))
    assert problems(command, "--offline") == []
    assert not (place / "was-run").exists()


def test_a_program_that_other_users_can_write_is_a_problem(
    command: Command, profile: Path, place: Path
) -> None:
    (place / "bin").mkdir(mode=0o700)
    program = place / "bin" / "program"
    program.write_text("#!/bin/sh\necho secret\n")
    profile.write_text(profile.read_text().replace('"secret"', '{ command = ["bin/program"] }'))
    for path in (program, program.parent):
        program.chmod(0o700)
        assert problems(command, "--offline") == []
        path.chmod(0o772)
        (problem,) = problems(command, "--offline")
        assert (
            f"billing.source.client_secret: other users can write to {path} (mode 0772)" in problem
        )
        assert f"Run `chmod go-w {path}`" in problem
        path.chmod(0o700)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")
def test_a_program_of_another_user_is_a_problem(
    command: Command, profile: Path, place: Path
) -> None:
    program = place / "program"
    program.write_text("#!/bin/sh\necho secret\n")
    program.chmod(0o755)
    os.chown(program, 12345, -1)
    profile.write_text(profile.read_text().replace('"secret"', '{ command = ["./program"] }'))
    (problem,) = problems(command, "--offline")
    assert f"{program} belongs to another user (uid 12345), who could make you run" in problem


def test_a_setting_that_turns_off_a_protection_is_a_note(command: Command, profile: Path) -> None:
    text = profile.read_text().replace("[billing.source]", "allow_http = true\n[billing.source]")
    profile.write_text(text + "allow_http = true\nverify = false\n")
    notes = [text for level, text in findings(command, "--offline") if level == "note"]
    assert len(notes) == 3
    for key, note in zip(("source.verify", "allow_http", "source.allow_http"), notes, strict=True):
        assert note.startswith(f"billing.{key} is ")
    profile.write_text(text.replace("= true", "= false") + 'verify = "ca.pem"\n')
    assert not [text for level, text in findings(command, "--offline") if level == "note"]


@pytest.mark.parametrize(
    ("rest", "key"),
    [
        ('json = { user = "ada", password = "s3cret" }', "source.json"),
        ('json = { user = "ada", password = { env = "HOME" } }', None),
        ('data = "user=ada&password=s3cret"', "source.data"),
        ('[billing.source.data]\npassword = "s3cret"', "source.data"),
        ('headers = { X-Key = "s3cret" }', "source.headers"),
        ('data.key = { env = "HOME" }\nheaders = { Accept = "text/plain" }', None),
        ('auth = ["ada", "s3cret"]', "source.auth"),
    ],
)
def test_a_login_that_other_users_can_read_is_a_problem(
    rest: str, key: str | None, command: Command, place: Path, server: TokenServer
) -> None:
    text = billing(server, place)
    login = f'[billing.source]\ntype = "login"\nurl = "{server.token_url}"\n{rest}\n'
    path = write(place, text[: text.index("[billing.source]")] + login)
    assert problems(command, "--offline") == []
    path.chmod(0o644)
    found = problems(command, "--offline")
    assert len(found) == (key is not None)
    assert (
        key is None or f"Other users can read {path}, and billing.{key} may be secret" in found[0]
    )


def test_the_password_of_a_store_that_other_users_can_read_is_a_problem(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    text = re.sub("file:.*json", "redis://:s3cret@127.0.0.1:1#billing", billing(server, place))
    write(place, text.replace('"secret"', '{ env = "HOME" }')).chmod(0o644)
    assert any("billing.store may be secret" in one for one in problems(command, "--offline"))


def test_a_missing_first_refresh_token_is_fine_after_its_use(
    command: Command, rotating: TokenServer, place: Path
) -> None:
    path = place / "tokenadapter.toml"
    text = re.sub('refresh_token = ".*"', 'refresh_token = { file = "first" }', path.read_text())
    path.write_text(text)
    assert "billing.source.refresh_token" in problems(command, "--offline")[0]
    (place / "first").write_text(rotating.issue()["refresh_token"])
    command("header", "billing")
    (place / "first").unlink()
    assert problems(command, "--offline") == []


def test_missing_functions_are_problems(command: Command, profile: Path) -> None:
    profile.write_text(
        profile.read_text().replace("[billing.source]", 'verdict = "json:nope"\n[billing.source]')
    )
    (problem,) = problems(command, "--offline")
    assert "billing.verdict: json has no 'nope'" in problem


MISTAKES = {
    "no module": (None, 1, 3),
    "a module that needs another": ("import no_such_module_here", 1, 3),
    "a module that cannot be read": ("def token(", 1, 3),
    "a module that fails": ("1 / 0", 1, 3),
    "no function": ("toekn = 5", 1, 3),
    "what it should be": ("def token(previous):\n    return 'a-token'", 0, 0),
}


def test_check_and_header_agree_on_a_function_each_time_it_changes(
    place: Path, server: TokenServer
) -> None:
    """A corrected mistake causes no back-off."""
    text = billing(server, place)
    source = '[billing.source]\ncallable = "changing_of_mine:token"\n'
    write(place, text[: text.index("[billing.source]")] + source)
    env = {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    for name, (code, checked, header) in MISTAKES.items():
        if code is not None:
            (place / "changing_of_mine.py").write_text(code)
        said = spawn("check", "--offline", env=env)
        assert said[0] == checked, (name, said)
        said = spawn("header", "billing", env=env)
        assert said[0] == header, (name, said)


def test_a_store_that_cannot_be_used_is_a_problem(
    command: Command, profile: Path, place: Path
) -> None:
    command("header", "billing")
    state = place / "state"
    (state / "token.json").chmod(0o644)
    assert "chmod 600" in problems(command, "--offline")[0]
    (state / "token.json").chmod(0o600)
    state.chmod(0o777)
    (problem,) = problems(command, "--offline")
    assert f"others can write to {state} (mode 0777) and so replace the token" in problem
    shutil.rmtree(state)
    state.write_text("not a directory")
    assert problems(command, "--offline")


def test_a_database_file_that_others_can_read_or_replace_is_a_problem(
    command: Command, server: TokenServer, place: Path
) -> None:
    state = place / "state"
    write(
        place,
        re.sub("file:.*json", f"sqlite:///{state}/x.db?create=1#billing", billing(server, place)),
    )
    state.mkdir(0o700, exist_ok=True)
    assert problems(command, "--offline") == []
    (state / "x.db").chmod(0o644)
    (problem,) = problems(command, "--offline")
    assert f"others can read the tokens in {state}/x.db: run `chmod go-rwx {state}/x.db`" in problem
    (state / "x.db").chmod(0o600)
    state.chmod(0o777)
    (problem,) = problems(command, "--offline")
    assert f"others can write to {state} (mode 0777) and so replace the token" in problem


def test_a_save_that_would_fail_is_a_problem(
    command: Command, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FileStore) -> None:
        raise StoreError("No space. Free some.")

    monkeypatch.setattr(FileStore, "prepare", full)
    assert problems(command, "--offline") == ["No space. Free some."]


def test_a_store_in_memory_is_a_note(
    command: Command, profile: Path, place: Path, server: TokenServer
) -> None:
    profile.write_text(re.sub("file:.*json", f"memory:{place.name}", billing(server, place)))
    found = findings(command, "--offline")
    assert any("each command and each program obtains its own" in text for _, text in found)


def test_a_refused_grant_is_a_problem(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    rotating.revoke_all()
    command("refresh", "billing")
    path = Path("state/token.json")
    stored = json.loads(path.read_text())
    stored["document"]["token"]["expires_at"] = time.time() - 1
    path.write_text(json.dumps(stored))
    (problem,) = problems(command, "--offline")
    assert re.match(r"reauth_required since \d\d:\d\d \(invalid_grant\): ", problem)
    assert "`tokenadapter adopt billing`" in problem


def test_a_missing_first_login_is_a_problem(
    command: Command, place: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, billing(server, place, "refresh_token"))
    (problem,) = problems(command, "--offline")
    assert "no credential to obtain a token" in problem
    assert "`tokenadapter adopt billing`" in problem
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(server.issue())))
    assert command("adopt", "billing")[0] == 0
    assert problems(command, "--offline") == []


def test_a_first_login_for_a_store_in_memory_is_a_problem(
    command: Command, place: Path, server: TokenServer
) -> None:
    text = billing(server, place, "refresh_token")
    write(place, re.sub("file:.*json", f"memory:{place.name}", text))
    (found,) = problems(command, "--offline")
    assert "a login would be lost when the command ends" in found
    assert "Give the profile a store that programs share" in found


def test_a_file_without_profiles_is_a_problem(command: Command, place: Path) -> None:
    write(place, "")
    (problem,) = problems(command)
    assert "The file has no profile" in problem


def test_a_failing_renewal_is_a_problem(
    command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(503)
    command("header", "billing")
    (problem,) = problems(command, "--offline")
    assert problem.startswith("The last renewal failed: ")


def test_an_earlier_failure_is_a_note_while_the_token_is_fresh(
    command: Command, profile: Path, server: TokenServer
) -> None:
    command("header", "billing")
    server.fail_next(503)
    assert command("refresh", "billing")[0] == 5
    (problem,) = problems(command, "--offline")
    assert problem.startswith("The last renewal failed: ")
    path = Path("state/token.json")
    stored = json.loads(path.read_text())
    stored["document"]["backoff"]["set_at"] -= 3600
    path.write_text(json.dumps(stored))
    found = findings(command, "--offline")
    assert any(level == "note" and text.startswith("The last ren") for level, text in found)
    assert problems(command, "--offline") == []


TWO = """
[alice]
prefix = "https://api.example.com/"
store = "file:users.json"
source = {{ type = "refresh_token", token_url = "{url}", client_id = "client"{alice} }}
[bob]
prefix = "https://api.example.com/"
store = "{store}"
source = {{ type = "refresh_token", token_url = "{url}", client_id = "client"{bob} }}
"""


@pytest.mark.parametrize(
    ("alice", "bob", "store", "is_problem"),
    [
        ("", "", "file:users.json", True),
        ("", "", "file:./users.json", True),
        ("", "", "file:another.json", False),
        ("", ', refresh_token = "first"', "file:users.json", True),
        (', refresh_token = "her"', ', refresh_token = "his"', "file:users.json", False),
        (', account = "ada"', ', account = "ada"', "file:users.json", False),
    ],
)
def test_profiles_that_share_a_store_and_do_not_name_their_users_are_a_problem(
    command: Command,
    place: Path,
    server: TokenServer,
    alice: str,
    bob: str,
    store: str,
    is_problem: bool,
) -> None:
    write(place, TWO.format(url=server.token_url, alice=alice, bob=bob, store=store))
    shared = "profiles alice and bob share "
    for names in ((), ("alice",), ("bob",)):
        found = [text for text in problems(command, "--offline", *names) if shared in text]
        assert len(found) == is_problem
        assert not is_problem or "`account = " in found[0]


def test_profiles_with_equal_prefixes_are_a_note(
    command: Command, profile: Path, place: Path, server: TokenServer
) -> None:
    other = billing(server, place).replace("[billing", "[user").replace("token.json", "user.json")
    write(place, billing(server, place) + other.replace('/api/"', '/api"'))
    code, out, _ = command("check", "--offline")
    assert code == 0
    assert "note     configuration: The profiles billing and user have the same prefix" in out
    assert "`tokenadapter run` needs --profile" in out


@pytest.mark.parametrize(
    ("answer", "is_problem"),
    [
        ({"status": 404, "body": "<html>"}, True),
        ({"status": 404, "error": "not_found"}, True),
        ({"status": 405, "body": ""}, True),
        ({"status": 200, "body": "<html>Welcome</html>"}, True),
        ({"status": 400, "error": "invalid_request"}, False),
        ({"status": 401, "error": "invalid_client"}, False),
        ({"status": 400, "body": "<html>"}, False),
    ],
)
def test_a_url_that_is_no_token_endpoint_is_a_problem(
    command: Command,
    profile: Path,
    server: TokenServer,
    answer: dict[str, object],
    is_problem: bool,
) -> None:
    server.fail_next(count=None, **answer)  # type: ignore[arg-type]
    found = [text for text in problems(command) if "there is no token endpoint at it" in text]
    assert len(found) == is_problem


@pytest.mark.parametrize(
    ("key", "endpoint"),
    [("revocation_url", "revocation"), ("device_authorization_url", "device authorization")],
)
def test_each_url_that_takes_only_post_requests_is_checked_by_one(
    command: Command, place: Path, server: TokenServer, key: str, endpoint: str
) -> None:
    text = billing(server, place, "refresh_token")
    write(place, f'{text}{key} = "{getattr(server, key)}"\n')
    assert not [text for text in problems(command) if "endpoint" in text]
    write(place, f'{text}{key} = "{server.url}/wrong"\n')
    (problem,) = [text for text in problems(command) if "endpoint" in text]
    assert f"there is no {endpoint} endpoint at it. Correct {key}; " in problem


@pytest.mark.parametrize("key", ["authorization_url", "device_authorization_url"])
def test_a_url_to_log_in_at_that_does_not_answer_is_a_problem_that_names_the_key(
    command: Command, place: Path, server: TokenServer, key: str
) -> None:
    with TokenServer() as gone:
        url = getattr(gone, key)
    write(place, f'{billing(server, place, "refresh_token")}{key} = "{url}"\n')
    (problem,) = [text for text in problems(command) if "cannot be reached" in text]
    assert problem.startswith(f"billing.source.{key}: {url} cannot be reached: ")


def test_an_authorization_url_with_status_404_is_a_note(
    command: Command, place: Path, server: TokenServer
) -> None:
    text = billing(server, place, "refresh_token")
    for url, is_noted in ((server.authorization_url, False), (f"{server.url}/wrong", True)):
        write(place, f'{text}authorization_url = "{url}"\n')
        found = [text for level, text in findings(command) if "authorization_url: " in text]
        assert found == [
            f"billing.source.authorization_url: {url} answers"
            + (" with status 404: compare the URL with the server's documentation." * is_noted)
        ]


def test_servers_that_cannot_be_reached_are_problems(command: Command, place: Path) -> None:
    with TokenServer() as server:
        text = billing(server, place)
    write(place, text)
    found = problems(command)
    assert len(found) == 2
    assert all("cannot be reached: " in text for text in found)


def test_a_token_endpoint_that_redirects_is_a_problem(
    command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(redirect="https://elsewhere.example/token", count=None)
    (problem,) = problems(command)
    assert f"{server.token_url} redirects to https://elsewhere.example/token" in problem


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\x1b]0;x\x07\r\n\r\n",
        b"no status \x1b[2J\r\n\r\n",
    ],
)
def test_text_of_a_server_cannot_control_the_terminal(
    command: Command, place: Path, server: TokenServer, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/token"

        def serve() -> None:
            with listener:  # a second connection is refused rather than left without an answer
                connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        write(place, billing(server, place).replace(server.token_url, url))
        (problem,) = problems(command)
        thread.join()
    assert problem.isprintable()


@pytest.mark.parametrize(("ahead", "level"), [(-3600, "problem"), (30, "note"), (2, None)])
def test_a_wrong_clock_is_found(
    ahead: float,
    level: str | None,
    command: Command,
    profile: Path,
    server: TokenServer,
) -> None:
    from email.utils import formatdate

    date = formatdate(time.time() - ahead, usegmt=True)
    server.fail_next(405, count=None, headers={"Date": date})
    where = "ahead of" if ahead > 0 else "behind"
    said = rf"This machine's clock is \d+ s {where} that of {server.token_url}. Lifetimes"
    found = [one for one in findings(command) if re.match("This machine's clock", one[1])]
    assert [name for name, text in found if re.match(said, text)] == ([level] if level else [])


@pytest.fixture
def with_issuer(server: TokenServer, place: Path) -> Path:
    text = billing(server, place).replace(
        f'token_url = "{server.token_url}"', f'issuer = "{server.issuer}"'
    )
    return write(place, text)


def test_the_endpoints_that_an_issuer_names_are_checked(
    command: Command, with_issuer: Path, server: TokenServer
) -> None:
    found = [text for _, text in findings(command)]
    assert f"{server.issuer} names its endpoints" in found
    assert f"{server.token_url} answers" in found
    assert f"{server.revocation_url} answers" in found
    assert {request.method for request in server.requests} == {"GET", "HEAD"}
    assert server.stats.renewals == 0


def test_the_endpoints_of_a_provider_with_metadata_are_checked(
    command: Command, place: Path
) -> None:
    with TokenServer(https=True) as server:
        source = (
            f'provider = "keycloak"\ndomain = "{server.url.removeprefix("https://")}"\n'
            f'tenant = "main"\nverify = "{server.ca_file}"\n'
        )
        text = billing(server, place).replace(f'token_url = "{server.token_url}"\n', source)
        write(place, text)
        out = command("check")[1]
        assert "keycloak names its endpoints" in out
        assert f"{server.token_url} answers" in out


def test_wrong_metadata_of_an_issuer_is_a_problem(
    command: Command, with_issuer: Path, server: TokenServer
) -> None:
    server.metadata["issuer"] = f"{server.issuer}/"
    (problem,) = problems(command)
    assert "the metadata of another issuer" in problem


def test_an_issuer_that_cannot_be_reached_is_a_problem(
    command: Command, with_issuer: Path, server: TokenServer
) -> None:
    server.stop()
    assert "could not be read" in problems(command)[0]


def test_offline_no_metadata_is_read(
    command: Command, with_issuer: Path, server: TokenServer
) -> None:
    server.metadata["issuer"] = "https://elsewhere.example"
    assert problems(command, "--offline") == []
    assert server.requests == ()
