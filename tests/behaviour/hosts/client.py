"""A program on a host: sends requests at random times, and reports each one.

The program ends when its standard input ends.  A report is a line ``HOST PROCESS WORD TOKEN``: the
status of the answer and the fingerprint of the token after it, or the type of an error.

    python client.py BASE_URL CA_FILE STORE LEASE GRACE AHEAD

``AHEAD`` is the number of seconds by which the host's wall clock is fast.
"""

from __future__ import annotations

import os
import random
import select
import socket
import sys
import time
import traceback

if __name__ == "__main__":
    # Before any other module reads the clock.
    right_time, ahead = time.time, float(sys.argv[-1])
    time.time = lambda: right_time() + ahead

import requests

from tokenadapter import RefreshToken, TokenAdapter, TokenKeeper, store_from_url

# The maximal seconds between two requests.
PAUSE = 0.4


def report(word: str, token: str = "-") -> None:
    # One write, so that lines of several processes never mix.
    os.write(1, f"{socket.gethostname()} {os.getpid()} {word} {token}\n".encode())


def main() -> None:
    base, ca_file, url, lease, grace, _ = sys.argv[1:]
    store = store_from_url(url)
    store.lease = float(lease)  # type: ignore[attr-defined]
    source = RefreshToken(
        f"{base}/token",
        client_id="client",
        client_secret="secret",
        verify=ca_file,
        grace=float(grace),
    )
    keeper = TokenKeeper(source, store)
    with requests.Session() as session:
        session.verify = ca_file
        TokenAdapter(f"{base}/api/", keeper).mount(session)
        while not select.select([0], [], [], random.uniform(0, PAUSE))[0]:
            try:
                status = session.get(f"{base}/api/", timeout=30).status_code
                report(str(status), keeper.current().fingerprint)
            except requests.RequestException as error:
                traceback.print_exc()
                report(type(error).__name__)


if __name__ == "__main__":
    main()
