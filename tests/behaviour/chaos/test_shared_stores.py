"""The runs of :mod:`test_chaos` with the stores that machines share: with leases, and with clocks
that are minutes apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from .run import IS_LONG, PROCESSES, SECONDS, Place, run_with_grace, run_without_grace

SIZE = PROCESSES if IS_LONG else 4

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 200)]


PLACES = ["postgresql_place", "redis_place"]
if IS_LONG:
    PLACES += ["sqlite_place", "mariadb_place", "django_place", "memcached_place"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)


def test_with_a_grace_period_no_kill_loses_a_grant(tmp_path: Path, place: Place) -> None:
    run_with_grace(tmp_path, place, SIZE)


@pytest.mark.skipif(not IS_LONG, reason='takes a minute for each store: "tox -e chaos"')
def test_without_grace_only_a_kill_before_the_answer_is_saved_loses_a_grant(
    tmp_path: Path, place: Place
) -> None:
    run_without_grace(tmp_path, place, SIZE)
