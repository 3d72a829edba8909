"""``python -m tokenadapter``: the same as the command ``tokenadapter``."""

import sys

from tokenadapter.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
