"""The mark of tests that start and kill many processes: ``-m "not chaos"`` leaves them out."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: starts and kills many processes")
