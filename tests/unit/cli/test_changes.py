"""``adopt``, ``refresh`` and ``forget``: changes by hand."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.sources import discovery
from tokenadapter.testing import TokenServer

from .conftest import Command, spawn, start


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> object:
    """Puts a text on standard input."""

    def put(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return put


def stored() -> dict[str, object]:
    document = json.loads(Path("state/token.json").read_text())["document"]
    token: dict[str, object] = document.get("token")
    return token


# --- adopt -------------------------------------------------------------------------------


def test_a_token_response_is_adopted(command: Command, rotating: TokenServer, say: object) -> None:
    answer = rotating.issue()
    say(json.dumps(answer))  # type: ignore[operator]
    code, out, err = command("adopt", "billing")
    assert (code, out) == (0, "")
    assert err == "tokenadapter: billing: adopted, valid for 59 min\n"
    assert command("token", "billing")[1].strip() == answer["access_token"]
    assert stored()["refresh_token"] == answer["refresh_token"]


def test_a_token_without_a_refresh_token_replaces_a_login_only_with_force(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    before = stored()
    short = json.dumps({"access_token": "pasted", "expires_in": 5})
    say(short)  # type: ignore[operator]
    code, out, err = command("adopt", "billing")
    assert (code, out, stored()) == (3, "", before)
    assert "the stored token has one, which would be lost" in err
    assert command("refresh", "billing")[0] == 0
    say(short)  # type: ignore[operator]
    assert command("adopt", "billing", "--force")[0] == 0
    assert stored()["access_token"] == "pasted"
    assert "refresh_token" not in stored()


def test_a_token_without_a_refresh_token_replaces_a_login_that_was_refused(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    rotating.revoke_all()
    assert command("refresh", "billing")[0] == 4
    say(json.dumps({"access_token": "pasted"}))  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0


def test_a_refresh_token_alone_is_presented_at_once(
    command: Command, rotating: TokenServer, say: object
) -> None:
    say(f"{rotating.issue()['refresh_token']}\n")  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert rotating.stats.renewals == 1
    assert command("token", "billing")[1].strip() == stored()["access_token"]
    assert rotating.stats.renewals == 1


def test_adopt_revives_a_profile_whose_grant_was_refused(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    rotating.revoke_all()
    assert command("refresh", "billing")[0] == 4
    say(json.dumps(rotating.issue()))  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert command("refresh", "billing")[0] == 0


def test_a_wrong_paste_does_not_change_a_working_grant(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    kept = stored()
    say("unknown-to-the-server")  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert code == 4
    assert "refused the refresh token" in err
    assert "unknown-to-the-server" not in err
    assert stored() == kept
    assert command("token", "billing")[1].strip() == kept["access_token"]
    assert command("refresh", "billing")[0] == 0


def test_a_server_failure_does_not_change_a_working_grant(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    kept = stored()
    login = rotating.issue()["refresh_token"]
    rotating.fail_next(503)
    say(login)  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 5
    assert stored() == kept
    # No back-off applies, since a person asks.
    say(login)  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert stored()["refresh_token"] not in (kept["refresh_token"], login)


def test_a_refused_refresh_token_may_be_adopted_again(
    command: Command, rotating: TokenServer, say: object
) -> None:
    login = rotating.issue()["refresh_token"]
    rotating.fail_next(400, error="invalid_grant")
    say(login)  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 4
    say(login)  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert command("refresh", "billing")[0] == 0


@pytest.mark.parametrize("rotate", [False, True])
def test_a_command_killed_before_the_response_loses_neither_refresh_token(
    rotate: bool, command: Command, place: Path, say: object
) -> None:
    with TokenServer(rotate=rotate) as server:
        first = f'refresh_token = "{server.issue()["refresh_token"]}"\n'
        write(place, billing(server, place, "refresh_token") + first)
        command("header", "billing")
        kept, login = stored(), server.issue()["refresh_token"]
        with server.hold() as held, start("adopt", "billing", stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(login)
            process.stdin.close()
            assert held.arrived.wait(30)
            process.kill()
        assert stored() == kept
        assert command("refresh", "billing")[0] == 0
        say(login)  # type: ignore[operator]
        # The server rotated, and the response was lost: it repeats the response.
        assert command("adopt", "billing")[0] == (4 if rotate else 0)
        assert command("refresh", "billing")[0] == 0


def test_an_older_refresh_token_of_the_same_grant_is_not_presented(
    command: Command, rotating: TokenServer, say: object
) -> None:
    """The server would consider it stolen, and revoke the grant."""
    say(json.dumps(rotating.issue()))  # type: ignore[operator]
    command("adopt", "billing")
    first = stored()["refresh_token"]
    command("refresh", "billing")
    say(first)  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert (code, rotating.stats.reuse_detections) == (3, 0)
    assert "was already spent by an earlier renewal" in err
    assert command("refresh", "billing")[0] == 0


def test_a_spent_refresh_token_is_refused(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    first = stored()
    command("refresh", "billing")
    say(json.dumps(first))  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert code == 3
    assert "was already spent by an earlier renewal" in err
    assert stored() != first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the input is empty"),
        (" \n", "the input is empty"),
        ('{"access_token": "s3cret"', "the input is not valid JSON (error at line 1)"),
        ('{"s3cret": ' + "[" * 100_000, "the input is not valid JSON (error at the end)"),
        ('{"access_token": "s3cr\u00e9t"}', "the input is not a token response: "),
        ('{"error": "invalid_grant", "hint": "s3cret"}', "the input is an error response: "),
        ('{"token": "s3cret"}', "not a token response: it has no access_token"),
        ('["s3cret"]', "the input is a JSON array"),
        ("[" * 100_000, "the input is not valid JSON (error at the end)"),
        ("s3cret and more", "neither a JSON object nor a refresh token, which is one word"),
        ("s3cr\u00e9t", "refresh_token"),
        ("https://app.example.com/callback?code=s3cret", "the input contains a URL"),
        ("access_token=s3cret&refresh_token=s3cret", "the input is a form"),
        ("refresh_token=s3cret", "the input is a form"),
        ("<html><body>s3cret</body></html>", "the input is HTML"),
        ('"s3cret"', "the input is in quotes"),
        ("\u201cs3cret\u201d", "the input is in quotes"),
        ("Bearer s3cret", "which is one word"),
    ],
)
def test_input_that_is_not_a_token_is_refused(
    text: str, said: str, command: Command, rotating: TokenServer, say: object
) -> None:
    say(text)  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert code == 3
    assert "Nothing was adopted: " in err
    assert said in err
    assert "s3cr" not in err


@pytest.mark.parametrize("text", ["https://id.example.com/s3cret", "a=b", "<s3cret", "'s3cret'"])
def test_the_error_says_what_to_paste(
    text: str, command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    kept = stored()
    say(text)  # type: ignore[operator]
    err = command("adopt", "billing")[2]
    assert "only the value of its refresh_token, without quotes" in err
    assert stored() == kept
    assert rotating.stats.token_requests == 1


def test_a_refresh_token_may_end_in_base64_padding(
    command: Command, rotating: TokenServer, say: object
) -> None:
    say("czNjcmV0==")  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 4
    assert rotating.stats.token_requests == 1


def test_client_credentials_refuse_a_refresh_token_alone(
    command: Command, profile: Path, say: object
) -> None:
    say("a-refresh-token")  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert code == 3
    assert "billing.source: A source of this type cannot use a refresh token" in err


def test_a_terminal_gets_a_prompt_that_does_not_echo(
    command: Command, rotating: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    requested = []
    answer = json.dumps(rotating.issue())
    monkeypatch.setattr("getpass.getpass", lambda prompt: requested.append(prompt) or answer)
    assert command("adopt", "billing")[0] == 0
    assert requested == ["Token response or refresh token (not shown): "]


def test_adopt_reads_a_pipe(rotating: TokenServer) -> None:
    assert spawn("adopt", "billing", stdin=json.dumps(rotating.issue()))[0] == 0


# --- refresh -----------------------------------------------------------------------------


def test_a_fresh_token_is_renewed(command: Command, rotating: TokenServer) -> None:
    first = command("token", "billing")[1]
    code, out, err = command("refresh", "billing")
    assert (code, out) == (0, "")
    assert err == "tokenadapter: billing: renewed, valid for 59 min\n"
    assert command("token", "billing")[1] != first
    assert rotating.stats.renewals == 2


def test_an_empty_store_costs_one_renewal(command: Command, rotating: TokenServer) -> None:
    assert command("refresh", "billing")[0] == 0
    assert rotating.stats.renewals == 1


def test_a_back_off_takes_force(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    rotating.fail_next(503)
    assert command("refresh", "billing")[0] == 5
    before = rotating.stats.token_requests
    assert command("refresh", "billing")[0] == 5
    assert rotating.stats.token_requests == before
    assert command("refresh", "billing", "--force")[0] == 0
    assert rotating.stats.token_requests == before + 1


def test_a_token_that_was_refused_when_new_takes_force(
    command: Command, profile: Path, server: TokenServer
) -> None:
    from tokenadapter.config.config_file import ConfigFile
    from tokenadapter.config.profile import Profile

    keeper = Profile(ConfigFile.read(), "billing").keeper()
    for _ in range(4):  # the time grows with each refusal
        keeper.distrust(keeper.current())
    code, _, err = command("refresh", "billing")
    assert code == 5
    assert "not renewed: the API refused this token when it was new" in err
    assert command("refresh", "billing", "--force")[0] == 0
    assert server.stats.renewals == 2


def test_a_quiet_refresh_confirms_nothing(command: Command, profile: Path) -> None:
    assert command("refresh", "--quiet", "billing") == (0, "", "")


# --- forget ------------------------------------------------------------------------------


def test_a_token_is_revoked_and_forgotten(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    spent = stored()
    code, _, err = command("forget", "billing")
    assert (code, err) == (0, "tokenadapter: billing: revoked and forgotten\n")
    assert stored() is None
    revoked = [request.form for request in rotating.requests if request.path == "/revoke"]
    assert [(form["token_type_hint"], form["token"]) for form in revoked] == [
        ("refresh_token", spent["refresh_token"]),
        ("access_token", spent["access_token"]),
    ]
    # The store still remembers that the first refresh token was spent.
    assert command("header", "billing")[0] == 4
    assert command("forget", "billing") == (0, "", "tokenadapter: billing: there was no token\n")


def test_a_failed_revocation_changes_nothing(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    kept = stored()
    rotating.fail_next(503, endpoint="revoke")
    code, _, err = command("forget", "billing")
    assert code == 5
    assert "/revoke did not revoke the token (503" in err
    assert stored() == kept
    code, _, err = command("forget", "billing", "--local")
    assert err == "tokenadapter: billing: forgotten, but not revoked (--local)\n"
    assert stored() is None


def test_without_a_revocation_url_forget_reports_that_nothing_was_revoked(
    command: Command, profile: Path
) -> None:
    command("header", "billing")
    message = "forgotten, but not revoked (the source has no revocation_url)"
    assert command("forget", "billing") == (0, "", f"tokenadapter: billing: {message}\n")
    assert command("header", "billing")[0] == 0


@pytest.mark.parametrize("change", ["token_url", "client_id"])
def test_forget_with_force_frees_a_store_for_a_changed_profile(
    command: Command, place: Path, rotating: TokenServer, change: str
) -> None:
    command("header", "billing")
    path = place / "tokenadapter.toml"
    before, spent = path.read_text(), rotating.stats.renewals
    changed = {
        "token_url": before.replace('/token"', '/other"'),
        "client_id": before.replace('client_id = "client"', 'client_id = "other"'),
    }
    path.write_text(changed[change])
    for arguments in (("header",), ("refresh",), ("forget",), ("forget", "--local")):
        code, _, err = command(arguments[0], "billing", *arguments[1:])
        assert code == 3
        assert "`tokenadapter check billing` says how" in err
    assert "run `tokenadapter forget billing --force`" in command("check", "--offline")[1]
    code, _, err = command("forget", "billing", "--force")
    assert (code, err) == (0, "tokenadapter: billing: forgotten, but not revoked (--force)\n")
    assert stored() is None
    assert not any(request.path == "/revoke" for request in rotating.requests)
    # The configured refresh token is still known to be spent, and is not presented again.
    assert command("header", "billing")[0] == 4
    assert rotating.stats.renewals == spent


def test_forget_with_force_removes_the_token_of_another_user(
    command: Command, place: Path, rotating: TokenServer
) -> None:
    command("header", "billing")
    path, another = place / "tokenadapter.toml", rotating.issue()["refresh_token"]
    path.write_text(
        re.sub('refresh_token = ".*"', f'refresh_token = "{another}"', path.read_text())
    )
    assert command("forget", "billing")[0] == 3
    assert command("forget", "billing", "--force")[0] == 0
    assert command("header", "billing")[0] == 0


def test_after_several_changes_of_scope_the_command_that_the_error_names_helps(
    command: Command, profile: Path
) -> None:
    text = profile.read_text()
    # A program that starts may replace the token of another once.
    for scope, code in (("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 3)):
        profile.write_text(f'{text}scope = "{scope}"\n')
        found, _, err = command("header", "billing")
        assert found == code
    assert "with `tokenadapter refresh billing --force`." in err
    assert "with `tokenadapter refresh billing --force`." in command("check", "--offline")[1]
    assert command("refresh", "billing", "--force")[0] == 0
    assert command("header", "billing")[0] == 0


def test_forget_with_force_waits_for_the_process_that_renews(
    command: Command, rotating: TokenServer
) -> None:
    with rotating.hold() as held, start("header", "billing") as process:
        assert held.arrived.wait(30)
        with start("forget", "billing", "--force") as forgetting:
            held.release()
            assert process.wait(30) == 0
            assert forgetting.wait(30) == 0
    assert stored() is None


@pytest.mark.parametrize("endpoint", ["named", "absent"])
def test_forget_revokes_where_the_issuer_says(
    command: Command, place: Path, server: TokenServer, endpoint: str
) -> None:
    text = billing(server, place)
    write(place, text.replace(f'token_url = "{server.token_url}"', f'issuer = "{server.issuer}"'))
    command("header", "billing")
    if endpoint == "absent":
        server.metadata["revocation_endpoint"] = None
    discovery._known.clear()  # as in another process
    code, _, err = command("forget", "billing")
    assert code == 0
    revoked = [request.path for request in server.requests].count("/revoke")
    assert revoked == (endpoint == "named")
    assert ("not revoked" in err) == (endpoint == "absent")


def test_the_token_of_a_function_can_be_forgotten(
    command: Command, place: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    (place / "a_source_of_mine.py").write_text("def token(previous):\n    return 'a-token'\n")
    text = billing(server, place)
    text = text[: text.index("[billing.source]")]
    write(place, f'{text}[billing.source]\ncallable = "a_source_of_mine:token"\n')
    assert command("token", "billing")[1] == "a-token\n"
    assert command("forget", "billing")[0] == 0
