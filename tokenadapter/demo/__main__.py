"""``python -m tokenadapter.demo``: the program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tokenadapter.demo.recording import Run, Setting
from tokenadapter.demo.scenario import play
from tokenadapter.demo.screen import Screen
from tokenadapter.demo.summary import EXPLANATION, broken_promises, longest_wait, table, was_starved
from tokenadapter.demo.timeline import draw, legend
from tokenadapter.demo.ways import AS_SCRIPTS_DO, WITH_TOKENADAPTER, Way

_USUAL = Setting(processes=8, seconds=10.0, lifetime=2.0)
_QUICK = Setting(processes=4, seconds=3.0, lifetime=1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo.

    :returns: the exit code: 0 if tokenadapter kept its promise, 1 if not, 130 after Ctrl-C.
    """
    setting, comparison = _options(arguments)
    with Screen() as screen:
        try:
            return _demo(setting, screen, comparison=comparison)
        except KeyboardInterrupt:
            screen.keep(["Interrupted: every process has ended."])
            return 130


def _demo(setting: Setting, screen: Screen, *, comparison: bool) -> int:
    def perform(way: Way, setting: Setting, *, trouble: bool) -> Run:
        def show(run: Run, now: float) -> None:
            screen.show(draw(run, now, screen.width, screen.style))

        run = play(way, setting, show, trouble=trouble)
        screen.keep([*draw(run, setting.seconds, screen.width, screen.style), ""])
        return run

    screen.say(_introduction(setting))
    screen.keep(["", *legend(screen.width, screen.style), ""])
    ours = perform(WITH_TOKENADAPTER, setting, trouble=True)
    runs = [ours]
    if comparison:
        screen.say(
            "The same time without tokenadapter, and without trouble: each renews for itself."
        )
        screen.keep([""])
        runs.append(perform(AS_SCRIPTS_DO, setting, trouble=False))
    screen.keep([*table(runs, screen.style), ""])
    screen.say(EXPLANATION)
    screen.say(longest_wait(ours))
    if broken := broken_promises(ours):
        screen.say(f"The promise is broken: {'; '.join(broken)}.", "bad")
        if was_starved(ours):
            screen.say(
                "The machine was too busy for tokens that live so short a time: a request waited "
                "for longer than that. Try a longer --lifetime."
            )
        return 1
    screen.say("The promise held: one renewal per expiry, and no caller noticed.", "good")
    return 0


def _introduction(setting: Setting) -> str:
    return (
        f"{setting.processes} processes that share one token file call an API. Access tokens live "
        f"{setting.lifetime:g} s. A refresh token works once: who shows it twice, logs the user "
        "out. Meanwhile the server revokes the access token once, and once lets a renewal wait."
    )


def _options(arguments: Sequence[str] | None) -> tuple[Setting, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m tokenadapter.demo",
        description="Processes that share one token file, on a token server of their own; then "
        "the same without tokenadapter.  The exit code is 0 if there was one renewal per expiry "
        "and no request failed.",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes (8)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of the run (10)")
    parser.add_argument("--lifetime", type=float, metavar="S", help="life of a token (2)")
    parser.add_argument("--quick", action="store_true", help="4 processes, 3 s, tokens of 1 s")
    parser.add_argument(
        "--no-comparison", dest="comparison", action="store_false", help="tokenadapter only"
    )
    options = parser.parse_args(arguments)
    given = {
        name: value for name in Setting._fields if (value := getattr(options, name)) is not None
    }
    setting = (_QUICK if options.quick else _USUAL)._replace(**given)
    if setting.processes < 1 or not 0.5 <= setting.lifetime <= setting.seconds <= 3600:
        parser.error("it takes a process and, in s, 0.5 <= lifetime <= seconds <= 3600")
    return setting, options.comparison


if __name__ == "__main__":
    sys.exit(main())
