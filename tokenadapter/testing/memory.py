"""Keep a test from finding tokens in memory that an earlier test left."""

from __future__ import annotations

from tokenadapter.core import keeper as keepers
from tokenadapter.stores import memory
from tokenadapter.stores.encrypted import innermost

__all__ = ["empty_memory_stores"]

# Seconds to wait for a renewal that the test has left under way.
_PATIENCE = 10.0


def empty_memory_stores() -> None:
    """Empty the slots of all memory stores that have a name, such as ``memory:billing``,
    encrypted or not.

    Keepers and adapters that use these stores forget their tokens.  A renewal that is under way
    is awaited first, so that it saves nothing during the next test.

    :raises LockTimeout: if the renewal does not end.
    """
    affected = []
    for keeper in list(keepers.KEEPERS):
        store = innermost(keeper.store)
        if isinstance(store, memory.MemoryStore) and store.name is not None:
            affected.append(keeper)
    for keeper in affected:
        keeper.wait(_PATIENCE)
    memory.empty_named()
    for keeper in affected:
        keeper.forget()  # or it would restore the record that it remembers
