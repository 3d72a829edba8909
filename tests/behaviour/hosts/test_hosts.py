"""Programs on several hosts share one token, with clocks that are minutes apart, a cut cable, and a
killed host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pytest

from .network import Host, Network, objection
from .programs import Programs
from .servers import NetworkPostgreSQL, NetworkRedis

# The error of the wall clock of each host in seconds.
CLOCKS = [-420.0, 0.0, 300.0]
PROGRAMS = 3
LIFETIME = 6.0
LEASE = 1.0
# Seconds for which a cable is cut.  TCP resends lost packets after 3 s and 6 s.
CUT = 4 * LEASE
# The answer to the token request is late, and its token must still be valid.
LONG_LIFETIME = 15.0
GRACE = 60.0

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif("HOSTS" not in os.environ, reason='takes minutes: "tox -e hosts"'),
]


class Start(Protocol):
    def __call__(self, *, lifetime: float = ..., grace: float = ...) -> Programs: ...


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    reason = objection()
    if reason is not None:
        pytest.skip(reason)
    with Network(tmp_path, CLOCKS) as network:
        yield network


@pytest.fixture(params=[NetworkRedis, NetworkPostgreSQL], ids=["Redis", "PostgreSQL"])
def start(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> Iterator[Start]:
    """Starts the programs, on a store of each kind."""
    with request.param(network.server) as server, ExitStack() as stack:

        def start(*, lifetime: float = LIFETIME, grace: float = 0.0) -> Programs:
            programs = Programs(
                *(network, server.store(), tmp_path),
                number=PROGRAMS,
                lifetime=lifetime,
                lease=LEASE,
                grace=grace,
            )
            return stack.enter_context(programs)

        yield start


def report(title: str, programs: Programs, *, again: int = 0) -> None:
    """Print the figures, and check that there was one renewal for each expiry."""
    presented, stats = programs.ask("presented"), programs.ask("stats")
    moments = [each["time"] for each in presented if not each["before"]]
    shortest = min(after - before for before, after in pairwise(moments))
    repeated = sum(each["before"] for each in presented)
    by_host = {name: dict(words) for name, words in sorted(programs.words.items())}
    sys.stdout.write(
        f"\n{title}: {len(presented)} presentations, {repeated} of them repeated, by "
        f"{sorted({each['host'] for each in presented})}; {shortest:.1f} s apart at least; "
        f"reuse detections {stats['reuse_detections']}, grants revoked "
        f"{stats['families_revoked']}; {by_host}\n"
    )
    assert stats["reuse_detections"] == stats["families_revoked"] == 0
    assert repeated <= again
    # A token is renewed after four fifths of its lifetime, which begins before the token request
    # is sent: the request may arrive much later.
    assert shortest > programs.lifetime / 2


def host_that_renews(network: Network, programs: Programs) -> Host:
    """The host whose token request was processed and awaits its answer."""
    programs.ask("hold")
    address = programs.ask("arrived")
    (host,) = (host for host in network.hosts if host.address == address)
    return host


def test_clocks_that_are_minutes_apart_cause_no_additional_renewal(start: Start) -> None:
    programs = start()
    for _ in range(4):
        programs.wait_until_all_have_another_token()
    report("clocks apart", programs)
    assert all(set(words) == {"200"} for words in programs.words.values()), programs.log()


def test_a_cable_cut_for_longer_than_a_lease_during_a_renewal_loses_no_grant(
    start: Start, network: Network
) -> None:
    programs = start(lifetime=LONG_LIFETIME)
    programs.wait_until_all_have_another_token()
    host = host_that_renews(network, programs)
    network.cut(host)
    programs.ask("release")
    programs.hear(CUT)
    network.mend(host)
    programs.wait_until_all_have_another_token()
    programs.wait_until_all_have_another_token()
    report("cable cut", programs)
    others = [words for name, words in programs.words.items() if name != host.name]
    assert all(set(words) == {"200"} for words in others), programs.log()


def test_a_host_killed_during_a_renewal_is_replaced_within_the_grace_period(
    start: Start, network: Network
) -> None:
    programs = start(grace=GRACE)
    programs.wait_until_all_have_another_token()
    host = host_that_renews(network, programs)
    network.kill(host)
    programs.ask("release")
    programs.wait_until_all_have_another_token()
    programs.wait_until_all_have_another_token()
    report("host killed", programs, again=1)
    assert all(set(words) == {"200"} for words in programs.words.values()), programs.log()
