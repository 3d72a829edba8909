"""The contract that every token store keeps, as pytest classes to inherit.

Your own store is correct if these pass.  A test class says where the slot of a test is, with a
fixture that returns a function::

    import pytest
    from tokenadapter.testing import SharedStoreContract

    class TestMyStore(SharedStoreContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyStore(tmp_path / "slot")

Each call makes one more store object for the same slot, which is empty when a test begins.  What
else can be told, such as for how long a lease lasts and how the content can be broken, is in
:class:`~tokenadapter.testing.contract.terms.Terms`.
"""

from __future__ import annotations

try:
    import pytest  # noqa: F401 - asked for here, to say what is missing
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "The contract of token stores is a pytest suite, and there is no pytest here: "
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
    """What a store promises to the threads of many processes: its objects can be pickled, and a
    lock that is not released ends with the process that had it, at the latest after
    ``LAPSES_WITHIN`` seconds."""
