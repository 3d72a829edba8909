"""Plays the demo on a terminal: with tokenadapter, then without it, then a comparison."""

from __future__ import annotations

from tokenadapter.demo.recording import Run, Setting
from tokenadapter.demo.scenario import play
from tokenadapter.demo.screen import Screen
from tokenadapter.demo.summary import (
    EXPLANATION,
    broken_promises,
    longest_wait,
    table,
    was_starved,
)
from tokenadapter.demo.timeline import draw, legend
from tokenadapter.demo.ways import AS_SCRIPTS_DO, WITH_TOKENADAPTER, Way


def show(setting: Setting, *, comparison: bool) -> int:
    """Play the demo.

    :param comparison: whether to play it without tokenadapter too.
    :returns: the exit code: 0 if tokenadapter kept its promise, 1 if not, 130 after Ctrl-C.
    """
    with Screen() as screen:
        try:
            return _show(setting, screen, comparison=comparison)
        except KeyboardInterrupt:
            screen.keep(["Interrupted: every process has ended."])
            return 130


def _show(setting: Setting, screen: Screen, *, comparison: bool) -> int:
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
            "Now without tokenadapter, and without trouble at the server: each process renews the "
            "token for itself."
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
                "The machine was too busy for tokens with such a short lifetime: a request waited "
                "longer than a token lives. Pass a longer --lifetime."
            )
        return 1
    screen.say("The promise held: one renewal per expiry, and no caller noticed.", "good")
    return 0


def _introduction(setting: Setting) -> str:
    return (
        f"{setting.processes} processes that share one token file call an API. Access tokens are "
        f"valid for {setting.lifetime:g} s. Each refresh token works once: presenting it twice "
        "logs the user out. During the run, the server revokes the access token once and delays "
        "one renewal."
    )
