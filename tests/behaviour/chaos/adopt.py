"""Puts a login into the store of a fleet, and ends: the token response comes by standard input.

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
