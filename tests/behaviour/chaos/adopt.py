"""Stores a login for a fleet.  Standard input has the token response.

python adopt.py BASE_URL STORE
"""

from __future__ import annotations

import json
import sys

from client import CLIENT

from tokenadapter import RefreshToken, TokenKeeper, store_from_url


def main() -> None:
    base, store = sys.argv[1:]
    source = RefreshToken(f"{base}/token", **CLIENT)
    TokenKeeper(source, store_from_url(store)).adopt(json.load(sys.stdin))


if __name__ == "__main__":
    main()
