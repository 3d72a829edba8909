"""``request``: sends one request, with renewal and replay, and prints the response."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer
from tokenadapter.testing.report import Request

from .conftest import Command, spawn
from .test_tokens import outlive


def sent(server: TokenServer) -> Request:
    """The last request that reached the API."""
    return [request for request in server.requests if request.path.startswith("/api/")][-1]


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_the_body_is_printed(command: Command, profile: Path, server: TokenServer) -> None:
    code, out, err = command("request", "billing", f"{server.api_url}invoices?month=5")
    assert (code, err) == (0, "")
    assert out
    assert server.stats.renewals == 1
    assert server.stats.api_refused == 0
    again = command("request", "billing", f"{server.api_url}invoices?month=5")
    assert again[0] == 0
    assert server.stats.renewals == 1


def test_a_refused_request_is_renewed_and_replayed(
    command: Command, profile: Path, server: TokenServer
) -> None:
    """``header | curl`` would fail here until the token expires."""
    command("header", "billing")
    server.expire_now()
    code, _, err = command(
        "request", "billing", f"{server.api_url}x", "--json", '{"total": 5}', "-X", "PUT"
    )
    assert (code, err) == (0, "")
    assert server.stats.renewals == 2
    request = sent(server)
    assert (request.method, request.sha256) == ("PUT", digest(b'{"total": 5}'))
    assert request.headers["content-type"] == "application/json"


def test_an_expired_token_is_renewed_before_the_request(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    command("header", "billing")
    outlive(place)
    assert command("request", "billing", f"{server.api_url}x")[0] == 0
    assert server.stats.renewals == 2
    assert server.stats.api_refused == 0


@pytest.mark.parametrize(
    ("arguments", "method", "body", "kind"),
    [
        ([], "GET", b"", None),
        (["-X", "delete"], "DELETE", b"", None),
        (["-d", "a=1", "--data", "b=2"], "POST", b"a=1&b=2", "application/x-www-form-urlencoded"),
        (["-d", "@body"], "POST", b"from a file\n", "application/x-www-form-urlencoded"),
        (["-d", "@body", "-H", "content-type: text/csv"], "POST", b"from a file\n", "text/csv"),
        (["--json", "[]"], "POST", b"[]", "application/json"),
        (["-d", ""], "POST", b"", "application/x-www-form-urlencoded"),
    ],
    ids=str,
)
def test_options_are_those_of_curl(
    arguments: list[str],
    method: str,
    body: bytes,
    kind: str | None,
    command: Command,
    profile: Path,
    place: Path,
    server: TokenServer,
) -> None:
    (place / "body").write_text("from a file\n")
    assert command("request", "billing", f"{server.api_url}x", *arguments)[0] == 0
    request = sent(server)
    assert (request.method, request.sha256) == (method, digest(body))
    assert request.headers.get("content-type") == kind


def test_a_body_may_come_from_standard_input(profile: Path, server: TokenServer) -> None:
    code, _, err = spawn("request", "billing", f"{server.api_url}x", "-d", "@-", stdin="a b\n")
    assert (code, err) == (0, "")
    assert sent(server).sha256 == digest(b"a b\n")


def test_headers_are_sent(command: Command, profile: Path, server: TokenServer) -> None:
    line = ["-H", "X-One: 1", "--header", "X-Two:2"]
    assert command("request", "billing", f"{server.api_url}x", *line)[0] == 0
    headers = sent(server).headers
    assert (headers["x-one"], headers["x-two"]) == ("1", "2")


@pytest.mark.parametrize("status", [400, 404, 500])
def test_the_exit_code_follows_the_status(
    status: int, command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(status, endpoint="api", body="because", count=2)
    code, out, err = command("request", "billing", f"{server.api_url}x")
    assert (code, out, err) == (22, "because", "")
    code, out, err = command("request", "billing", f"{server.api_url}x", "-f")
    said = f"tokenadapter: billing: the API answered {status}\n"
    assert (code, out, err) == (22, "", said)


def test_a_second_refusal_is_reported_and_handed_on(
    command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(401, endpoint="api", body="no", count=None)
    code, out, err = command("request", "billing", f"{server.api_url}x")
    assert (code, out) == (22, "no")
    assert "handed on: 401" in err


def test_status_and_headers_can_be_printed_too(
    command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(404, endpoint="api", body="gone", headers={"X-Why": "old"})
    _, out, _ = command("request", "billing", f"{server.api_url}x", "-i")
    head, _, body = out.partition("\r\n\r\n" if "\r\n\r\n" in out else "\n\n")
    assert head.startswith("HTTP/1.1 404 ")
    assert "X-Why: old" in head
    assert body == "gone"


def test_a_body_of_any_bytes_goes_to_a_file(
    command: Command, profile: Path, server: TokenServer, place: Path
) -> None:
    server.fail_next(404, endpoint="api", body=b"\xff\x00\r\n")
    code, out, err = command("request", "billing", f"{server.api_url}x", "-o", "answer")
    assert (code, out, err) == (22, "", "")
    assert (place / "answer").read_bytes() == b"\xff\x00\r\n"


def test_nothing_is_sent_if_the_file_for_the_response_cannot_be_written(
    command: Command, profile: Path, server: TokenServer
) -> None:
    """Sent again, a request would have its effect twice."""
    for path, why in (("no/answer", "No such file"), (".", "Is a directory")):
        code, _, err = command("request", "billing", f"{server.api_url}x", "-d", "a", "-o", path)
        assert code == 1
        assert err.startswith(f"tokenadapter: {path} cannot be written: {why}")
    assert not server.requests


@pytest.mark.parametrize("before", [None, b"a much longer earlier response"])
def test_a_file_is_changed_only_by_a_response(
    before: bytes | None, command: Command, profile: Path, place: Path, server: TokenServer
) -> None:
    answer = place / "answer"
    if before is not None:
        answer.write_bytes(before)
    line = ("request", "billing", f"{server.api_url}x", "-o", "answer")
    server.fail_next(503)  # of the token endpoint
    assert command(*line)[0] == 5
    server.fail_next(404, endpoint="api")
    assert command("refresh", "billing", "--force")[0] == 0
    assert command(*line, "--fail")[0] == 22
    assert (answer.read_bytes() if answer.exists() else None) == before
    server.fail_next(200, endpoint="api", body="short")
    assert command(*line)[0] == 0
    assert answer.read_bytes() == b"short"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_response_that_does_not_fit_is_reported(
    command: Command, profile: Path, server: TokenServer
) -> None:
    code, out, err = command("request", "billing", f"{server.api_url}x", "-o", "/dev/full")
    assert (code, out) == (1, "")
    assert err.startswith("tokenadapter: /dev/full cannot be written: No space left on device.")


def test_the_response_may_go_to_a_device(
    command: Command, profile: Path, server: TokenServer
) -> None:
    assert command("request", "billing", f"{server.api_url}x", "-o", os.devnull)[0] == 0


@pytest.mark.parametrize("url", ["https://elsewhere.example/", "http://127.0.0.1:1/"])
def test_no_request_leaves_the_prefix(
    url: str, command: Command, profile: Path, server: TokenServer
) -> None:
    code, out, err = command("request", "billing", url)
    assert (code, out) == (3, "")
    assert f"The URL is outside {server.api_url}, so the token of billing must not be sent" in err
    assert not server.requests


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["/invoices"], 3, "The URL is incomplete: give it in full, from https:// on."),
        (["https://"], 3, "The request is invalid: Invalid URL 'https://'"),
        (["URL", "-H", "X"], 2, "invalid header 'X': give one such as 'Accept: text/csv'"),
        (["URL", "-H", "X: a\nY: b"], 2, "invalid header"),
        (["URL", "-d", "@gone"], 3, "gone cannot be read: No such file"),
        (["URL", "-d", "a", "--json", "b"], 2, "not allowed with argument"),
    ],
    ids=str,
)
def test_the_error_names_wrong_usage(
    arguments: list[str],
    code: int,
    said: str,
    command: Command,
    profile: Path,
    server: TokenServer,
) -> None:
    line = [word.replace("URL", server.api_url) for word in arguments]
    ended, out, err = command("request", "billing", *line)
    assert (ended, out) == (code, "")
    assert said in err
    assert not server.requests


def test_an_api_that_cannot_be_reached_is_5(command: Command, place: Path) -> None:
    with TokenServer() as down:
        gone = down.api_url
    with TokenServer() as server:
        write(place, billing(server, place).replace(server.api_url, gone))
        code, out, err = command("request", "billing", f"{gone}x")
    assert (code, out) == (5, "")
    assert err.startswith("tokenadapter: billing: the API sent no complete response: ")
    assert len(err.splitlines()) == 1


def test_a_response_that_breaks_off_is_5(
    command: Command, place: Path, server: TokenServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

        thread = threading.Thread(target=serve)
        thread.start()
        api = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        write(place, billing(server, place).replace(server.api_url, api))
        code, _, err = command("request", "billing", f"{api}x")
        thread.join()
    assert code == 5
    assert "the API sent no complete response: " in err


def test_without_a_token_nothing_is_sent(
    command: Command, profile: Path, server: TokenServer
) -> None:
    server.fail_next(503)
    code, out, err = command("request", "billing", f"{server.api_url}x")
    assert (code, out) == (5, "")
    assert len(err.splitlines()) == 1
    assert server.stats.api_requests == 0


def test_a_reader_that_has_gone_gets_no_traceback(profile: Path, server: TokenServer) -> None:
    server.fail_next(404, endpoint="api", body="x" * 1_000_000)
    line = f"{sys.executable} -m tokenadapter request billing {server.api_url}x | head -c 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("x", "")


def test_check_names_the_command_for_an_api_that_refuses_a_usable_token(
    command: Command, profile: Path
) -> None:
    command("header", "billing")
    out = command("check", "--offline", "--json")[1]
    (usable,) = [one["text"] for one in json.loads(out) if ": usable" in one["text"]]
    assert "if the API refuses the token anyway, run `tokenadapter refresh billing`" in usable
