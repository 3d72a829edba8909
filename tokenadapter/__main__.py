"""``python -m tokenadapter``: the same as the command ``tokenadapter``."""

import sys

if __name__ == "__main__":
    # The interpreter has put the working directory at the head of the search path, where the
    # command does not have it.  A function that a profile names is not to come from there.
    if not sys.flags.safe_path:
        del sys.path[0]

    from tokenadapter.cli.main import main

    sys.exit(main())
