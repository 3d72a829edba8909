"""``adopt``, ``refresh`` and ``forget``: what people change by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import billing, write

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
    assert err == "tokenadapter: billing: adopted, for 59 min\n"
    assert command("token", "billing")[1].strip() == answer["access_token"]
    assert stored()["refresh_token"] == answer["refresh_token"]


def test_a_bare_refresh_token_is_tried_at_once(
    command: Command, rotating: TokenServer, say: object
) -> None:
    say(f"{rotating.issue()['refresh_token']}\n")  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert rotating.stats.renewals == 1
    assert command("token", "billing")[1].strip() == stored()["access_token"]
    assert rotating.stats.renewals == 1


def test_it_is_the_way_back_after_a_grant_died(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    rotating.revoke_all()
    assert command("refresh", "billing")[0] == 4
    say(json.dumps(rotating.issue()))  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert command("refresh", "billing")[0] == 0


def test_a_wrong_paste_leaves_a_living_grant_as_it_was(
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


def test_a_server_that_fails_at_that_moment_leaves_a_living_grant_as_it_was(
    command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    kept = stored()
    login = rotating.issue()["refresh_token"]
    rotating.fail_next(503)
    say(login)  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 5
    assert stored() == kept
    # Nothing has to be waited for: a person asks.
    say(login)  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 0
    assert stored()["refresh_token"] not in (kept["refresh_token"], login)


def test_what_was_refused_may_be_tried_again(
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
def test_a_command_that_is_killed_before_the_answer_loses_neither(
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
        # A server that rotates has done so, and the answer is lost: it says so once more.
        assert command("adopt", "billing")[0] == (4 if rotate else 0)
        assert command("refresh", "billing")[0] == 0


def test_an_older_refresh_token_of_the_same_grant_is_not_presented(
    command: Command, rotating: TokenServer, say: object
) -> None:
    """The server would take it for stolen, and revoke the grant."""
    say(json.dumps(rotating.issue()))  # type: ignore[operator]
    command("adopt", "billing")
    first = stored()["refresh_token"]
    command("refresh", "billing")
    say(first)  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert (code, rotating.stats.reuse_detections) == (3, 0)
    assert "was already spent by an earlier renewal" in err
    assert command("refresh", "billing")[0] == 0


def test_one_that_was_spent_is_refused(
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
        ("", "it is empty"),
        (" \n", "it is empty"),
        ('{"access_token": "s3cret"', "it is no JSON object, as far as line 1"),
        ('{"s3cret": ' + "[" * 100_000, "it is no JSON object, as far as the end"),
        ('{"access_token": "s3cr\u00e9t"}', "it is no token response: "),
        ('{"error": "invalid_grant", "hint": "s3cret"}', "it is the answer to a failed request"),
        ('{"token": "s3cret"}', "it has neither: a token response has access_token"),
        ('["s3cret"]', "it is a JSON array"),
        ("[" * 100_000, "it is no JSON object, as far as the end"),
        ("s3cret and more", "it is neither a JSON object nor one word, a refresh token"),
        ("s3cr\u00e9t", "refresh_token"),
        ("https://app.example.com/callback?code=s3cret", "it is a URL"),
        ("access_token=s3cret&refresh_token=s3cret", "it is a form"),
        ("refresh_token=s3cret", "it is a form"),
        ("<html><body>s3cret</body></html>", "it is HTML"),
        ('"s3cret"', "it is in quotes"),
        ("\u201cs3cret\u201d", "it is in quotes"),
        ("Bearer s3cret", "nor one word"),
    ],
)
def test_what_cannot_be_adopted(
    text: str, said: str, command: Command, rotating: TokenServer, say: object
) -> None:
    say(text)  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert code == 3
    assert "What is on standard input cannot be adopted: " in err
    assert said in err
    assert "s3cr" not in err


@pytest.mark.parametrize("text", ["https://id.example.com/s3cret", "a=b", "<s3cret", "'s3cret'"])
def test_it_is_said_which_part_of_a_paste_is_wanted(
    text: str, command: Command, rotating: TokenServer, say: object
) -> None:
    command("header", "billing")
    kept = stored()
    say(text)  # type: ignore[operator]
    err = command("adopt", "billing")[2]
    assert "of that answer the value of refresh_token alone, without quotes" in err
    assert stored() == kept
    assert rotating.stats.token_requests == 1


def test_what_ends_in_the_padding_of_base64_may_be_a_refresh_token(
    command: Command, rotating: TokenServer, say: object
) -> None:
    say("czNjcmV0==")  # type: ignore[operator]
    assert command("adopt", "billing")[0] == 4
    assert rotating.stats.token_requests == 1


def test_a_bare_refresh_token_is_of_no_use_to_client_credentials(
    command: Command, profile: Path, say: object
) -> None:
    say("a-refresh-token")  # type: ignore[operator]
    code, _, err = command("adopt", "billing")
    assert code == 3
    assert "billing.source: Such a source presents no refresh token" in err


def test_at_a_terminal_it_is_asked_for_and_not_shown(
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


def test_it_reads_a_pipe(rotating: TokenServer) -> None:
    assert spawn("adopt", "billing", stdin=json.dumps(rotating.issue()))[0] == 0


# --- refresh -----------------------------------------------------------------------------


def test_a_good_token_is_renewed(command: Command, rotating: TokenServer) -> None:
    first = command("token", "billing")[1]
    code, out, err = command("refresh", "billing")
    assert (code, out) == (0, "")
    assert err == "tokenadapter: billing: renewed, it lives for 59 min\n"
    assert command("token", "billing")[1] != first
    assert rotating.stats.renewals == 2


def test_where_there_is_none_it_is_one_renewal(command: Command, rotating: TokenServer) -> None:
    assert command("refresh", "billing")[0] == 0
    assert rotating.stats.renewals == 1


def test_what_is_held_off_takes_force(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    rotating.fail_next(503)
    assert command("refresh", "billing")[0] == 5
    before = rotating.stats.token_requests
    assert command("refresh", "billing")[0] == 5
    assert rotating.stats.token_requests == before
    assert command("refresh", "billing", "--force")[0] == 0
    assert rotating.stats.token_requests == before + 1


def test_a_token_that_was_refused_when_it_was_new_takes_force(
    command: Command, profile: Path, server: TokenServer
) -> None:
    from tokenadapter.config.file import ConfigFile
    from tokenadapter.config.profile import Profile

    keeper = Profile(ConfigFile.read(), "billing").keeper()
    for _ in range(4):  # the longer, the more often
        keeper.distrust(keeper.current())
    code, _, err = command("refresh", "billing")
    assert code == 5
    assert "not renewed: the API refused this token when it was new" in err
    assert command("refresh", "billing", "--force")[0] == 0
    assert server.stats.renewals == 2


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
    # The first refresh token was spent, and that is not forgotten.
    assert command("header", "billing")[0] == 4
    assert command("forget", "billing") == (0, "", "tokenadapter: billing: there was no token\n")


def test_a_server_that_fails_leaves_all_as_it_was(command: Command, rotating: TokenServer) -> None:
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


def test_without_a_revocation_url_it_is_said_that_nothing_was_revoked(
    command: Command, profile: Path
) -> None:
    command("header", "billing")
    told = "forgotten, but not revoked (the source has no revocation_url)"
    assert command("forget", "billing") == (0, "", f"tokenadapter: billing: {told}\n")
    assert command("header", "billing")[0] == 0


def test_the_profile_of_a_function_can_forget(
    command: Command, place: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    (place / "a_source_of_mine.py").write_text("def token(previous):\n    return 'a-token'\n")
    text = billing(server, place)
    text = text[: text.index("[billing.source]")]
    write(place, f'{text}[billing.source]\ncallable = "a_source_of_mine:token"\n')
    assert command("token", "billing")[1] == "a-token\n"
    assert command("forget", "billing")[0] == 0
