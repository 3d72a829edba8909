"""How ``tokenadapter run`` gets into a program that knows nothing of it.

The program starts with :data:`DIRECTORY` at the head of ``PYTHONPATH``, so that the interpreter
imports the ``sitecustomize`` that lies there, before anything of the program runs.
"""

import os

__all__ = ["DIRECTORY", "VARIABLE"]

# Absolute: the program may change its working directory.
DIRECTORY = os.path.dirname(os.path.abspath(__file__))
"""What stands at the head of ``PYTHONPATH``."""

VARIABLE = "TOKENADAPTER_RUN"
"""The environment variable that says, in JSON, what to do; nothing in it is secret."""
