"""``status``: a table for people, JSON for machines, and no side effects."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from profiles import billing, write

from tokenadapter import ReauthRequired, RefreshToken, SQLStore, TokenKeeper
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.core.record import Backoff, Record
from tokenadapter.testing import TokenServer

from .conftest import Command, spawn, start
from .test_tokens import aged


def state(command: Command) -> dict[str, object]:
    code, out, _ = command("status", "billing", "--json")
    assert code == 0
    (status,) = json.loads(out)
    return status


def test_advice_that_a_program_without_a_profile_stored_names_the_profile(
    command: Command, rotating: TokenServer, place: Path
) -> None:
    command("header", "billing")
    rotating.revoke_all()
    source = RefreshToken(rotating.token_url, client_id="client", client_secret="secret")
    with pytest.raises(ReauthRequired, match=r"tokenadapter\.login\(\)"):
        TokenKeeper(source, f"file:{place}/state/token.json").refresh()
    for line in (["status"], ["status", "--json"], ["check", "--offline"]):
        out = command(*line)[1]
        assert "`tokenadapter adopt billing`" in out
        assert "NAME`" not in out


def test_an_empty_store_has_no_token(command: Command, profile: Path, place: Path) -> None:
    code, out, err = command("status")
    assert (code, err) == (0, "")
    header, row = out.splitlines()
    assert header.split("  ")[0] == "NAME"
    assert re.search(
        r"^billing +absent +– +– +free +http://127.0.0.1:\d+/api/ +/.*/token.json$", row
    )
    # No side effects.
    assert [path.name for path in place.iterdir()] == ["tokenadapter.toml"]


def test_the_states_of_a_token(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    command("header", "billing")
    status = state(command)
    assert status["state"] == "usable"
    assert status["expires_in"] == pytest.approx(3600, abs=60)
    assert status["renewed_ago"] == pytest.approx(0, abs=60)
    assert re.fullmatch("[0-9a-f]{8}", str(status["token"]))
    for left, expected in ((100, "usable"), (30, "expired"), (-30, "expired")):
        aged(place, left=left, lifetime=3600)
        assert state(command)["state"] == expected
    assert re.search(r"expired +3\d s ago +\d\d min ago", command("status")[1])
    assert server.stats.token_requests == 1


def test_paths_and_times_are_readable(
    command: Command,
    profile: Path,
    server: TokenServer,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command("header", "billing")
    monkeypatch.setenv("HOME", str(place))
    header, row = command("status")[1].splitlines()
    assert "EXPIRES  " in header
    assert row.endswith("  ~/state/token.json")
    end = time.strftime("%H:%M", time.localtime(float(str(state(command)["expires_at"]))))
    assert re.search(rf"usable +in 59 min \((\d{{4}}-\d\d-\d\d )?{end}\)  ", row)
    assert state(command)["path"] == f"{place}/state/token.json"
    aged(place, left=100_000, lifetime=200_000)
    assert re.search(r"in 27 h 46 min \(\d{4}-\d\d-\d\d \d\d:\d\d\)", command("status")[1])


@pytest.mark.parametrize(
    ("path", "said"),
    [("/home/ada/x/y", "~/x/y"), ("/home/adam/x", "/home/adam/x"), ("/x", "/x")],
)
def test_a_path_below_home_is_short(path: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenadapter.cli.output import short

    for home in ("/home/ada", "/home/ada/"):
        monkeypatch.setenv("HOME", home)
        assert short(path) == said
    monkeypatch.setenv("HOME", "/")
    assert short(path) == path


def test_text_in_the_store_cannot_control_the_terminal(command: Command, profile: Path) -> None:
    of_billing = Profile(ConfigFile.read(str(profile)), "billing")
    slot = of_billing.store()
    backoff = Backoff(slot.load().now, 3000, 1, cause="busy \x1b]0;owned\x07")
    record = Record(of_billing.grant.owner, of_billing.grant.requested, "salt", backoff=backoff)
    assert slot.save(record.to_document(), tag="1-a", expected=None, ttl=None)
    for arguments in (["status"], ["check", "--offline"], ["token", "billing"]):
        _, out, err = command(*arguments)
        assert r"busy \x1b]0;owned\x07" in out + err
        assert "\x1b" not in out + err


def test_no_secret_is_shown(command: Command, rotating: TokenServer) -> None:
    token = json.loads(command("token", "billing", "--json")[1])["access_token"]
    stored = json.loads(Path("state/token.json").read_text())["document"]["token"]
    for arguments in (["status"], ["status", "--json"]):
        out = command(*arguments)[1]
        assert token not in out
        assert stored["refresh_token"] not in out


def test_a_failure_is_shown_with_the_time_of_the_next_attempt(
    command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(503, count=1, retry_after="100")
    command("header", "billing")
    status = state(command)
    assert status["state"] == "absent"
    assert "503" in status["failure"]["cause"]  # type: ignore[index]
    assert 90 < status["failure"]["retry_in"] <= 100  # type: ignore[index]
    out = command("status")[1]
    assert re.search(r"\n    \d s ago: .*503.* Next attempt in \d\d s\.\n", out)


def test_a_dead_grant_needs_a_login(command: Command, rotating: TokenServer, place: Path) -> None:
    command("header", "billing")
    rotating.revoke_all()
    command("refresh", "billing")
    status = state(command)
    assert status["state"] == "usable"  # as far as is known: the API may still accept it
    assert "invalid_grant" in status["failure"]["cause"]  # type: ignore[index]
    aged(place, left=-5, lifetime=3600)
    assert state(command)["state"] == "reauth_required"
    assert "tokenadapter adopt billing" in command("status")[1]


def test_a_new_login_clears_a_refusal(
    command: Command, rotating: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("header", "billing")
    rotating.revoke_all()
    command("refresh", "billing")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(rotating.issue())))
    assert command("adopt", "billing")[0] == 0
    assert state(command)["failure"] is None
    aged(place, left=-5, lifetime=3600)
    status = state(command)
    assert (status["state"], status["failure"]) == ("expired", None)


def test_a_corrected_password_clears_a_refusal(
    command: Command, place: Path, server: TokenServer
) -> None:
    def configure(password: str) -> None:
        text = f'username = "user"\npassword = "{password}"\n'
        write(place, billing(server, place, "password") + text)

    configure("wrong")
    assert command("header", "billing")[0] == 4
    status = state(command)
    assert status["state"] == "reauth_required"
    configure("password")
    assert command("header", "billing")[0] == 0
    change(lambda document: document["tombstones"][0].update(at=time.time() - 7200))
    aged(place, left=-5, lifetime=3600)
    status = state(command)
    assert (status["state"], status["failure"]) == ("expired", None)


def change(change: Callable[[dict[str, Any]], object]) -> None:
    """Change the stored record by hand."""
    path = Path("state/token.json")
    stored = json.loads(path.read_text())
    change(stored["document"])
    path.write_text(json.dumps(stored))


def test_a_token_without_a_known_end(command: Command, profile: Path) -> None:
    command("header", "billing")
    change(lambda document: document["token"].pop("expires_at"))
    change(lambda document: document["token"].pop("expires_in", None))
    status = state(command)
    assert (status["state"], status["expires_in"]) == ("usable", None)
    assert re.search(r"^billing +usable +unknown +\d s ago", command("status")[1], re.MULTILINE)


def test_a_renewal_that_did_not_end_is_shown(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    intent = {"credential": "x", "first_sent": time.time() - 5, "attempt": 1}
    change(lambda document: document.update(intent=intent))
    out = command("status")[1]
    assert "5 s ago: A renewal began and did not end: its response may be lost." in out
    # The lock of the file is free, so the process that began has died.
    intent["awaited"] = [{"process": "web-2:4711:1:2:3", "until": time.time() + 99}]
    change(lambda document: document.update(intent=intent))
    assert "its response may be lost." in command("status")[1]


def test_a_renewal_whose_response_may_still_arrive_is_shown(
    command: Command, profile: Path, place: Path
) -> None:
    url = f"sqlite:///{place}/tokens.sqlite3"
    write(place, re.sub("file:.*json", f"{url}#billing", profile.read_text()))
    store = SQLStore(url, "billing")
    store.create_table()
    command("header", "billing")
    found = store.load()
    assert found.document is not None
    found.document["intent"] = {
        "credential": "x",
        "first_sent": found.now - 5,
        "attempt": 1,
        "awaited": [{"process": "web-2:4711:1:2:3", "until": found.now + 60}],
    }
    assert store.save(found.document, tag="next", expected=found.tag, ttl=None)
    status = state(command)["failure"]
    assert status["cause"].startswith("The lock of process 4711 on web-2 lapsed")  # type: ignore[index]
    assert 50 < status["retry_in"] < 60  # type: ignore[index]


def test_a_record_of_a_later_format_is_left_alone(command: Command, profile: Path) -> None:
    command("header", "billing")
    change(lambda document: document.update(oldest_reader=99))
    status = state(command)
    assert status["state"] == "unusable"
    assert (
        "cannot be used: a newer version wrote it, and reading it requires format 99"
        in status["failure"]["cause"]
    )  # type: ignore[index]


def test_an_unusable_profile_does_not_hide_the_others(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    command("header", "billing")
    text = profile.read_text()
    text += '\n[broken]\nprefx = "x"\n'
    text += billing(server, place).replace("billing", "other").replace('"client"', '"another"')
    write(place, text)
    status = {one["name"]: one for one in json.loads(command("status", "--json")[1])}
    assert status["billing"]["state"] == "usable"
    assert status["broken"]["state"] == status["other"]["state"] == "unusable"
    assert status["billing"].keys() == status["broken"].keys() == status["other"].keys()
    assert "broken.prefx" in status["broken"]["failure"]["cause"]
    assert "the token of the profile billing" in status["other"]["failure"]["cause"]
    Path("state/token.json").chmod(0o644)
    assert "chmod 600" in state(command)["failure"]["cause"]  # type: ignore[index]
    assert command("status")[0] == 0
    assert command("status", "broken")[0] == 3


def test_each_mistake_of_a_profile_has_a_line_of_its_own(command: Command, place: Path) -> None:
    write(place, '[broken]\nprefx = "x"\nheader = 5\n')
    out = command("status")[1]
    assert re.search(r"^    \S+: 3 problems:\n      line 2: broken\.prefx: ", out, re.MULTILINE)
    assert "\n      line 3: broken.header: " in out


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="nothing lists locks here")
def test_the_process_that_has_the_lock_is_named_and_not_disturbed(
    command: Command, profile: Path
) -> None:
    command("header", "billing")
    assert state(command)["lock"] is None
    with Path("state/token.json.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert state(command)["lock"] == f"process {os.getpid()} ({own_name()})"
        code, out, _ = command("check", "--offline")
        assert code == 0
        assert f"The lock is taken by process {os.getpid()}" in out


def own_name() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_the_process_that_has_a_lease_is_named(
    command: Command, profile: Path, place: Path
) -> None:
    text = re.sub("file:.*json", f"sqlite:///{place}/tokens.sqlite3#billing", profile.read_text())
    write(place, text)
    store = SQLStore(f"sqlite:///{place}/tokens.sqlite3", "billing")
    store.create_table()
    assert state(command)["lock"] is None
    lock = store.lock()
    assert lock.acquire(30)
    try:
        assert state(command)["lock"] == f"process {os.getpid()} on {socket.gethostname()}"
    finally:
        lock.release()
    assert state(command)["lock"] is None


def test_colour_is_for_terminals(profile: Path) -> None:
    assert "\x1b" not in spawn("status")[1]
    # A pseudo-terminal, with and without NO_COLOR.
    for wish, is_coloured in (("", True), ("1", False)):
        ours, theirs = os.openpty()
        process = start("status", env={"NO_COLOR": wish, "TERM": "xterm"}, stdout=theirs)
        process.wait(60)
        os.close(theirs)
        text = os.read(ours, 65536).decode()
        os.close(ours)
        process.communicate()
        assert ("\x1b[33mabsent" in text) is is_coloured


def test_watch_repeats_the_table(profile: Path) -> None:
    process = start("status", "--watch", "0.1")
    assert process.stdout is not None
    seen = 0
    while seen < 2:
        seen += process.stdout.readline().startswith("billing")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (7500, "2 h 5 min"),
        (172_800, "2 d"),
        (180_000, "2 d 2 h"),
    ],
)
def test_spans(seconds: float, said: str) -> None:
    from tokenadapter.cli.output import span

    assert span(seconds) == said


# --- before a login, and after a logout --------------------------------------------------


def test_a_profile_that_was_never_logged_in_needs_a_login(
    command: Command, server: TokenServer, place: Path
) -> None:
    text = billing(server, place, "refresh_token")
    write(place, text)
    status = state(command)
    assert (status["state"], status["failure"]) == ("absent", None)
    assert (status["reason"], status["renewable"]) == ("no_credential", False)
    assert "`tokenadapter adopt billing`" in str(status["advice"])
    write(place, f'{text}authorization_url = "{server.url}/authorize"\n')
    assert state(command)["advice"] == "Run `tokenadapter login billing`."
    assert "\n    Run `tokenadapter login billing`." in command("status")[1]


def test_a_login_without_a_refresh_token_needs_the_next_login_at_its_end(
    command: Command, server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, billing(server, place, "refresh_token"))
    answer = server.issue()
    del answer["refresh_token"]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(answer)))
    assert command("adopt", "billing")[0] == 0
    assert state(command)["state"] == "usable"
    aged(place, left=-5, lifetime=3600)
    assert state(command)["state"] == "reauth_required"


def test_a_logout_outdates_what_was_refused_before(
    command: Command, server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adopt(text: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return command("adopt", "billing")[0]

    write(place, billing(server, place, "refresh_token"))
    assert adopt("a-wrong-paste\n") == 4
    failure = state(command)["failure"]
    assert "invalid_grant" in failure["cause"]  # type: ignore[index]
    assert "stored token" not in failure["cause"]  # type: ignore[index]
    assert adopt(json.dumps(server.issue())) == 0
    assert state(command)["failure"] is None
    assert command("logout", "billing", "--local")[0] == 0
    status = state(command)
    assert (status["state"], status["failure"]) == ("absent", None)
