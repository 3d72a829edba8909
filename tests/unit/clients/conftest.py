"""The clients of httpx and httpx2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from unit.clients.httpx_face import LIBRARIES, Face


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return LIBRARIES[request.param]


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest, library: Any) -> Iterator[Face]:
    face = Face(library, request.param)
    yield face
    face.close()
