"""The result of the runs: a table that compares them, and whether the promise held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tokenadapter.demo.recording import Moment, Run
from tokenadapter.demo.screen import Style

# The part of a token's life after which its renewal is due.  Processes that renew the same token
# twice do so within moments.
_DUE: Final = 2 / 3

EXPLANATION: Final = (
    "The table counts one expiry each time a token is revoked or reaches the last third of its "
    "life."
)


def expiries(run: Run) -> int:
    """How many renewals were due: the token had lived its life, or had been revoked.

    On a busy machine, processes report late.  So a renewal counts as not due only if it ended too
    early: it may have began later than its process reports.
    """
    count, issued = 0, 0.0
    revocations = [incident for incident in run.incidents if incident.what == "revoked"]
    renewals = [m for lane in run.lanes for m in lane if m.kind == "renewed"]
    for began, ended in sorted((m.at - m.seconds, m.at) for m in renewals):
        # The server may have issued the token while it revoked all that it had issued.
        was_revoked = any(r.at <= ended and issued <= r.at + r.seconds for r in revocations)
        count += was_revoked or ended - issued >= run.setting.lifetime * _DUE
        issued = began  # expiry counts from before the request
    return count


def broken_promises(run: Run) -> list[str]:
    """The promises that were not kept."""
    failures, renewals, due = run.count("failed"), run.count("renewed"), expiries(run)
    # Even a busy machine renews a token within one and a half lives after its end.
    least = int(run.setting.seconds / run.setting.lifetime / 2.5)
    promises = (
        (failures == 0, f"requests failed: {failures}"),
        (run.crashed == 0, f"processes crashed: {run.crashed}"),
        (all(run.lanes), "a process made no request"),
        (run.stats.reuse_detections == 0, "a refresh token was presented twice"),
        (run.stats.families_revoked == 0, "the user was logged out"),
        (
            run.stats.token_requests == due,
            f"{run.stats.token_requests} token requests for {due} expiries",
        ),
        (renewals >= least, f"{renewals} renewals where at least {least} were due"),
    )
    return [broken for kept, broken in promises if not kept]


def longest_wait(run: Run) -> str:
    """The cause of the longest wait of a request."""
    longest = _longest(run)

    def was_meanwhile(began: float, seconds: float) -> bool:
        return began <= longest.at and longest.at - longest.seconds <= began + seconds

    delayed = (incident for incident in run.incidents if incident.what == "delayed")
    delays = [each.seconds for each in delayed if was_meanwhile(each.at, each.seconds)]
    renewals = (m for lane in run.lanes for m in lane if m.kind == "renewed")
    if delays:
        cause = f"was for the renewal that the server delayed by {delays[0]:g} s on purpose"
    elif any(was_meanwhile(m.at - m.seconds, m.seconds) for m in renewals):
        cause = "was for a renewal"
    else:
        cause = "was caused by the machine: no renewal was under way"
    return f"The longest wait of a request {run.title}, {longest.seconds:.2f} s, {cause}."


def was_starved(run: Run) -> bool:
    """Whether the machine was too busy: a token may have expired on its way to the API."""
    return _longest(run).seconds >= run.setting.lifetime


def _longest(run: Run) -> Moment:
    calls = (m for lane in run.lanes for m in lane if m.kind in ("ok", "failed"))
    return max(calls, key=lambda call: call.seconds, default=Moment(0.0, "ok"))


def table(runs: Sequence[Run], style: Style) -> list[str]:
    """A table that compares the runs."""
    columns = [_facts(run) for run in runs]
    widths = [max(len(run.title), *(len(fact.text) for fact in _facts(run))) for run in runs]
    margin = max(len(fact.name) for fact in columns[0])
    titles = (run.title.rjust(width) for run, width in zip(runs, widths, strict=True))
    lines = [style.paint("  ".join((" " * margin, *titles)), "title")]
    for facts in zip(*columns, strict=True):
        texts = (
            style.paint(fact.text.rjust(width), fact.role)
            for fact, width in zip(facts, widths, strict=True)
        )
        lines.append("  ".join((facts[0].name.ljust(margin), *texts)))
    return lines


class _Fact(NamedTuple):
    name: str
    text: str
    role: str = ""


def _facts(run: Run) -> list[_Fact]:
    def judged(name: str, text: str, *, good: bool) -> _Fact:
        return _Fact(name, text, "good" if good else "bad")

    calls = [m for lane in run.lanes for m in lane if m.kind in ("ok", "failed")]
    failed = [call.at for call in calls if call.kind == "failed"]
    stats, due = run.stats, expiries(run)
    per_expiry = stats.token_requests / due if due else 0.0
    logged_out = stats.families_revoked > 0
    since = f"after {min(failed, default=run.setting.seconds):.1f} s"
    return [
        _Fact("requests", f"{len(calls)}"),
        judged("failures", f"{len(failed)}", good=not failed),
        _Fact("expiries", f"{due}"),
        _Fact("renewals", f"{stats.renewals}"),
        judged("token requests per expiry", f"{per_expiry:.2f}", good=stats.token_requests == due),
        _Fact("replays", f"{run.count('replayed')}"),
        judged("reuse detections", f"{stats.reuse_detections}", good=stats.reuse_detections == 0),
        judged("families revoked", f"{stats.families_revoked}", good=not logged_out),
        judged("user logged out", since if logged_out else "no", good=not logged_out),
        _Fact("longest wait", f"{_longest(run).seconds:.2f} s"),
    ]
