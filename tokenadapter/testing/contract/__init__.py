"""The contract of every token store, as pytest classes to inherit.

Your own store is correct if its tests pass.  Your test class overrides a fixture that returns a
function::

    import pytest
    from tokenadapter.testing import SharedStoreContract

    class TestMyStore(SharedStoreContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyStore(tmp_path / "slot")

Each call of the function makes one more store object for the same slot, which is empty when a test
begins.  :class:`~tokenadapter.testing.contract.terms.Terms` has the other settings, such as how
long a lease lasts and how to damage the content.
"""

from __future__ import annotations

try:
    import pytest  # noqa: F401 - imported here, to say what is missing
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "The contract of token stores is a pytest suite, and pytest is not installed: "
        "run `pip install 'tokenadapter[testing]'`."
    ) from _error

from .contents import Contents
from .locks import Locks
from .processes import Processes
from .swaps import Swaps
from .terms import Connect, Corrupt

__all__ = ["Connect", "Corrupt", "SharedStoreContract", "StoreContract"]


class StoreContract(Contents, Swaps, Locks):
    """What a store promises to the threads of one process."""


class SharedStoreContract(StoreContract, Processes):
    """What a store promises to many processes: its objects can be pickled, and a lock that is not
    released ends with its process, at the latest after ``LAPSES_WITHIN`` seconds."""
