"""The demo: what it draws, how it judges, and that it runs and ends cleanly."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tokenadapter.cli.main import main
from tokenadapter.demo.recording import Demand, Incident, Moment, Run, Setting
from tokenadapter.demo.scenario import _trouble
from tokenadapter.demo.screen import Screen, Style
from tokenadapter.demo.summary import broken_promises, expiries, longest_wait, table, was_starved
from tokenadapter.demo.timeline import draw, legend
from tokenadapter.testing import Stats, TokenServer

PLAIN = Style(colour=False, unicode=False)
NOTHING = Stats(*[0] * len(Stats._fields))
# Lanes of 20 columns, each half a second wide.
NARROW = len("process 2 ") + 1 + 20


def run(*lanes: list[Moment], seconds: float = 10.0, **stats: int) -> Run:
    setting = Setting(len(lanes), seconds, lifetime=2.0)
    return Run("a run", setting, list(lanes), NOTHING._replace(**stats))


def good_run() -> Run:
    """Two processes, 10 s, tokens of 2 s: renewals in turn, one after a revocation."""
    renewed = [[1.7, 4.4, 7.7], [3.4, 6.0, 9.4]]
    kept = run(
        *([Moment(0.1, "ok"), *(Moment(at, "renewed", 0.05) for at in lane)] for lane in renewed),
        renewals=6,
        token_requests=6,
    )
    kept.incidents.append(Incident(4.3, "revoked"))
    return kept


def lane(picture: list[str], label: str) -> str:
    [line] = (line for line in picture if line.startswith(label))
    return line[len("process 2 ") :]


# --- the timeline --------------------------------------------------------------------------


def test_a_lane_shows_what_happened_and_when() -> None:
    moments = [
        Moment(0.1, "ok"),
        Moment(0.6, "ok"),
        Moment(1.1, "renewed"),
        Moment(1.6, "failed"),
        Moment(2.1, "replayed"),
    ]
    picture = draw(run(moments, []), 2.5, NARROW, PLAIN)
    assert lane(picture, "process 1") == "--Rxo" + " " * 15
    assert lane(picture, "process 2") == " " * 20


def test_a_cell_shows_the_most_important_of_its_moments() -> None:
    everything = [Moment(0.1, kind) for kind in ("renewed", "failed", "replayed", "ok")]
    for moments, sign in ((everything, "R"), (everything[1:], "x"), (everything[2:], "o")):
        assert lane(draw(run(moments, []), 0.5, NARROW, PLAIN), "process 1").startswith(f"{sign} ")


def test_a_process_that_waits_for_a_response_is_shown_waiting() -> None:
    moments = [Moment(0.6, "ok", 0.01)]
    before = draw(run(moments, []), 2.1, NARROW, PLAIN)
    assert lane(before, "process 1") == "~-~~" + " " * 16
    moments.append(Moment(2.6, "ok", 1.9))
    after = draw(run(moments, []), 2.7, NARROW, PLAIN)
    assert lane(after, "process 1") == "~-~~~-" + " " * 14


def test_the_servers_row_counts_token_requests() -> None:
    herd = run([], [])
    herd.demand += [Demand(0.1, 1), Demand(1.1, 5), Demand(1.2, 3), Demand(2.1, 12)]
    assert lane(draw(herd, 3.0, NARROW, PLAIN), "server") == "1 8 +" + " " * 15


def test_incidents_are_named_within_the_width() -> None:
    troubled = run([], [])
    troubled.incidents += [Incident(0.6, "revoked"), Incident(9.4, "delayed")]
    picture = draw(troubled, 10.0, NARROW, PLAIN)
    assert f"{' ' * 10} ^ revoked delayed ^" in picture


@pytest.mark.parametrize("seconds", [0.5, 3.0, 10.0, 600.0])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_picture_is_as_wide_as_the_terminal_at_most(width: int, seconds: float) -> None:
    lanes = [[Moment(seconds, "ok"), Moment(seconds + 1, "failed")] for _ in range(12)]
    picture = draw(run(*lanes, seconds=seconds), seconds, width, PLAIN)
    assert max(len(line) for line in [*picture, *legend(width, PLAIN)]) <= width
    assert len(picture) == 12 + 5


def test_colour_changes_nothing_but_the_colour() -> None:
    coloured = draw(good_run(), 10.0, 80, Style(colour=True, unicode=True))
    plain = draw(good_run(), 10.0, 80, Style(colour=False, unicode=True))
    assert "\x1b[" in "".join(coloured)
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured] == plain


# --- the screen ----------------------------------------------------------------------------


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO) -> str:
    with Screen(stream) as screen:
        screen.show(["first"])
        screen.show(["second"])
        screen.keep([screen.style.paint("third", "good")])
    return stream.getvalue()


def test_a_terminal_sees_each_picture_in_the_place_of_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = shown(Terminal())
    assert "first\n\x1b[1F\x1b[Jsecond\n\x1b[1F\x1b[J\x1b[32mthird\x1b[0m\n" in text
    assert text.endswith("\x1b[?25h")


@pytest.mark.parametrize("setting", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_that_asks_for_plain_text_gets_it(
    setting: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert shown(Terminal()) == "third\n"


def test_a_file_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert shown(io.StringIO()) == "third\n"


def test_a_stream_without_unicode_gets_none() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert not Screen(stream).style.unicode


# --- the verdict ---------------------------------------------------------------------------


def test_the_promise_holds_with_one_renewal_for_each_expiry() -> None:
    assert expiries(good_run()) == 6
    assert broken_promises(good_run()) == []


def test_a_renewal_of_a_young_token_is_not_for_an_expiry() -> None:
    wasteful = good_run()
    wasteful.lanes[0].append(Moment(1.75, "renewed", 0.05))
    assert expiries(wasteful) == 6
    wasteful.stats = wasteful.stats._replace(token_requests=7)
    assert broken_promises(wasteful) == ["7 token requests for 6 expiries"]


def test_a_renewal_that_was_reported_late_is_due() -> None:
    late = good_run()
    # For the token of 1.65 s: its process was paused before it sent the request.
    late.lanes[1][1] = Moment(3.4, "renewed", 0.9)
    assert expiries(late) == 6


def test_the_life_of_the_first_token_begins_with_the_run() -> None:
    hasty = good_run()
    hasty.lanes[0].insert(1, Moment(1.2, "renewed", 0.05))
    assert expiries(hasty) == 5


def test_a_renewal_of_a_token_that_was_issued_during_the_revocation_is_due() -> None:
    unlucky = good_run()
    unlucky.incidents[0] = Incident(3.3, "revoked", 0.1)
    unlucky.lanes[0][2] = Moment(3.6, "renewed", 0.05)
    assert expiries(unlucky) == 6


def test_a_wasted_token_request_breaks_the_promise() -> None:
    futile = good_run()
    futile.stats = futile.stats._replace(token_requests=8)
    assert broken_promises(futile) == ["8 token requests for 6 expiries"]


def test_too_few_renewals_break_the_promise() -> None:
    idle = run([Moment(0.1, "ok"), Moment(1.7, "renewed", 0.05)], token_requests=1)
    assert broken_promises(idle) == ["1 renewals where at least 2 were due"]


def test_failures_and_crashes_break_the_promise() -> None:
    bad = good_run()
    bad.lanes[1].append(Moment(5.0, "failed"))
    bad.lanes.append([])
    bad.crashed = 1
    assert broken_promises(bad) == [
        "requests failed: 1",
        "processes crashed: 1",
        "a process made no request",
    ]


def test_reuse_and_a_revoked_family_break_the_promise() -> None:
    bad = good_run()
    bad.stats = bad.stats._replace(reuse_detections=1, families_revoked=1)
    assert broken_promises(bad) == [
        "a refresh token was presented twice",
        "the user was logged out",
    ]


def test_the_table_compares_the_runs() -> None:
    bad = run([Moment(0.1, "ok", 0.25), Moment(2.0, "failed")], families_revoked=1)
    rows = {line[:27].strip(): line[27:].split() for line in table([good_run(), bad], PLAIN)}
    assert rows["requests"] == ["2", "2"]
    assert rows["failures"] == ["0", "1"]
    assert rows["token requests per expiry"] == ["1.00", "0.00"]
    assert rows["user logged out"] == ["no", "after", "2.0", "s"]
    assert rows["longest wait"] == ["0.00", "s", "0.25", "s"]


@pytest.mark.parametrize(
    ("calls", "cause"),
    [
        ([(5.9, 0.1), (7.75, 0.9)], "0.90 s, was for the renewal that the server delayed by 0.8 s"),
        ([(1.72, 0.07), (7.75, 0.02)], "0.07 s, was for a renewal."),
        ([(2.5, 0.3)], "0.30 s, was caused by the machine: no renewal was under way."),
    ],
)
def test_the_longest_wait_is_explained(calls: list[tuple[float, float]], cause: str) -> None:
    explained = good_run()
    explained.incidents.append(Incident(6.9, "delayed", 0.8))
    explained.lanes[1] += [Moment(at, "ok", seconds) for at, seconds in calls]
    assert cause in longest_wait(explained)


def test_a_request_that_waited_longer_than_a_token_lives_shows_a_busy_machine() -> None:
    busy = good_run()
    assert not was_starved(busy)
    busy.lanes[0].append(Moment(9.9, "failed", 2.1))
    assert was_starved(busy)


# --- the program ---------------------------------------------------------------------------

# Errors, except for the warning of coverage when it starts late.
WARNINGS = ["-W", "error", "-W", "ignore:Module tokenadapter was previously imported"]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the demo in a process group of its own, its temporary files in *tmp_path*."""
    with ExitStack() as processes:

        def start(*options: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, *WARNINGS, "-m", "tokenadapter", "demo", *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield start


def rest(process: subprocess.Popen[str]) -> str:
    """The rest of the output of the demo, all on stdout.

    Its own processes have its stdout and stderr too, so this is not over before they are.
    """
    output, errors = process.communicate(timeout=90)
    assert errors == ""
    return output


def test_the_demo_shows_that_the_promise_holds(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    # No shorter: on a busy machine a token may take a second or two on its way to the API.
    process = demo("--processes=4", "--seconds=8", "--lifetime=4")
    output = rest(process)
    assert process.returncode == 0, output
    assert "The promise held" in output
    assert "▲ revoked" in output
    assert re.findall(r"^(?:with tokenadapter|as scripts do), (.*)$", output, re.MULTILINE) == [
        "8.0 s",
        "8.0 s",
    ]
    assert "The longest wait of a request with tokenadapter, " in output
    assert "\x1b" not in output
    facts = {line[:27].strip(): line[27:].split() for line in output.splitlines()}
    assert int(facts["renewals"][0]) >= 2
    assert facts["expiries"][0] == facts["renewals"][0]
    assert facts["token requests per expiry"][0] == "1.00"
    for name in ("failures", "reuse detections", "families revoked"):
        ours, theirs = facts[name]
        assert ours == "0"
        assert theirs != "0"
    assert facts["user logged out"][:2] == ["no", "after"]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_demo_with_all_its_processes(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = demo("--processes=2", "--seconds=600")
    while not list(tmp_path.glob("*/token.json")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert "Interrupted" in rest(process)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option", ["--processes=0", "--lifetime=0.1", "--seconds=1", "--quick --lifetime=3.5"]
)
def test_options_out_of_range_are_wrong_usage(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", *option.split()])
    assert stop.value.code == 2
    assert "lifetime <= seconds" in capsys.readouterr().err


def test_ctrl_c_ends_the_demo_as_the_trouble_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = threading.Thread.start

    def begin_and_be_interrupted(thread: threading.Thread) -> None:
        begin(thread)
        raise KeyboardInterrupt

    # A thread that is left running fails the test.
    with TokenServer() as server, monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", begin_and_be_interrupted)
        with pytest.raises(KeyboardInterrupt), _trouble(server, good_run(), time.time()):
            raise AssertionError("not interrupted")
