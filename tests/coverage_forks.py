"""Prevents deadlocks in forked children when coverage is measured.

Another thread may hold the lock of coverage's data during the fork, and no thread of the child
would release it.  So the child gets a new lock before any of its code is traced.
"""

from __future__ import annotations

import os
import sys
import threading

if "coverage" in sys.modules:
    measured = sys.modules["coverage"].Coverage.current()
    if measured is not None:
        collector = measured._collector
        os.register_at_fork(
            after_in_child=lambda: setattr(collector, "data_lock", threading.Lock())
        )
