"""Imported by an interpreter that ``tokenadapter run`` started, before its program.

It restores the search path and the environment, and runs the ``sitecustomize`` that it hides.
"""

import os
import sys


def _clear_the_way() -> None:
    """Take this directory out of the search path."""
    here = os.path.dirname(__file__)
    sys.path[:] = [path for path in sys.path if path != here]


def _watch() -> None:
    # The package is where this file is, whatever the search path of the program.
    from tokenadapter.startup import VARIABLE
    from tokenadapter.startup.watch import begin

    text = os.environ.get(VARIABLE)
    if text is not None:
        begin(text)


def _go_on() -> None:
    """Run the ``sitecustomize`` that this one hides."""
    ours = sys.modules.pop(__name__)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        # The import of this module ends by looking it up.
        sys.modules.setdefault(__name__, ours)


if __name__ == "sitecustomize":
    _clear_the_way()
    try:
        _watch()
    except ImportError as _error:
        sys.stderr.write(
            f"tokenadapter: {sys.executable} cannot import tokenadapter ({_error}), so the "
            "program's requests would not be signed. Install it for that interpreter too.\n"
        )
        os._exit(3)
    _go_on()
