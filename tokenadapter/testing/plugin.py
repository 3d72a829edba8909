"""The pytest plugin: the fixtures ``token_server``, ``frozen_clock`` and ``empty_memory_stores``.

pytest loads the plugin at each start if tokenadapter is installed, even if no test uses the
fixtures. So only the fixtures import anything but pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tokenadapter.testing import FrozenClock, TokenServer

__all__ = ["empty_memory_stores", "frozen_clock", "pytest_configure", "token_server"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker for ``--strict-markers`` and ``pytest --markers``."""
    config.addinivalue_line(
        "markers",
        "token_server(lifetime=3600, rotate=True, https=False, ...): "
        "the arguments of the TokenServer that the fixture token_server gives.",
    )


@pytest.fixture
def token_server(request: pytest.FixtureRequest) -> Iterator[TokenServer]:
    """A running tokenadapter.testing.TokenServer, with the settings of the marker token_server."""
    from tokenadapter.testing import TokenServer

    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    # From the module's marker to that of the test, which says the last word.
    for marker in reversed(list(request.node.iter_markers("token_server"))):
        arguments += marker.args
        options |= marker.kwargs
    with TokenServer(*arguments, **options) as server:
        yield server


@pytest.fixture
def frozen_clock() -> Iterator[FrozenClock]:
    """An installed tokenadapter.testing.FrozenClock, which only the test moves."""
    from tokenadapter.testing import FrozenClock

    with FrozenClock() as clock:
        yield clock


@pytest.fixture
def empty_memory_stores() -> Iterator[None]:
    """Memory stores with a name, such as memory:billing, are empty before and after the test."""
    from tokenadapter.testing import empty_memory_stores

    empty_memory_stores()
    yield
    empty_memory_stores()
