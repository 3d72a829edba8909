"""Lets forked children live where coverage is measured.

Another thread may have the lock on coverage's books at the moment of the fork, and nobody in the
child would ever free it.  So the child gets a new one, before anything else of it is traced.
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
