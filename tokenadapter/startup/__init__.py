"""How ``tokenadapter run`` signs the requests of an unmodified program.

The program starts with :data:`DIRECTORY` first in ``PYTHONPATH``, so that the interpreter imports
the ``sitecustomize`` in that directory before the program runs.
"""

import os

__all__ = ["DIRECTORY", "VARIABLE"]

# Absolute, since the program may change its working directory.
DIRECTORY = os.path.dirname(os.path.abspath(__file__))
"""The first entry of ``PYTHONPATH``."""

VARIABLE = "TOKENADAPTER_RUN"
"""The environment variable with the orders, in JSON; it contains no secret."""
