"""What a large upload and its replay add to the peak memory of a process.

A file of 1 GiB, and a generator of as much, go to a server on this machine: with plain requests,
and through a token adapter whose token is refused when all has arrived, so that all is sent twice.
Each runs in a process of its own, which tells its peak at the end.

    python benchmarks/upload_memory.py
    python benchmarks/upload_memory.py --mebibytes 64
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1024 * 1024
LIMIT = 20  # MiB over plain requests


def generator(size: int) -> Iterator[bytes]:
    block = bytes(64 * 1024)
    return (block for _ in range(size // len(block)))


def child(how: str, kind: str, path: str, url: str) -> None:
    import requests

    with requests.Session() as session:
        if how == "replayed":
            from tokenadapter import TokenAdapter

            def source(previous: object) -> str:
                return "made-up"

            adapter = TokenAdapter(url, source, replay_limit=1 << 40).mount(session)
            adapter.keeper.current()
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            body = file if kind == "file" else generator(size)
            answer = session.put(f"{url}x", data=body)
        assert answer.json()["length"] == size
        assert len(answer.history) == (how == "replayed")
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def main() -> int:
    from tokenadapter.testing import TokenServer

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mebibytes", type=int, default=1024)
    size = parser.parse_args().mebibytes * MEBIBYTE
    worst = 0.0
    with TokenServer() as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "body")
        path.touch()
        os.truncate(path, size)
        print(f"peak memory of an upload of {size // MEBIBYTE} MiB, in MiB")
        print(f"{'':12}{'plain':>10}{'replayed':>10}{'more':>10}")
        for kind in ("file", "generator"):
            peaks = []
            for how in ("plain", "replayed"):
                if how == "replayed":
                    server.fail_next(401, endpoint="public")
                command = [sys.executable, __file__, how, kind, str(path), server.public_url]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                peaks.append(int(done.stdout) / MEBIBYTE)
            plain, replayed = peaks
            worst = max(worst, replayed - plain)
            print(f"{kind:12}{plain:10.1f}{replayed:10.1f}{replayed - plain:10.1f}")
    print(f"less than {LIMIT} MiB more: {'yes' if worst < LIMIT else 'NO'}")
    return 0 if worst < LIMIT else 1


if __name__ == "__main__":
    if len(sys.argv) == 5:
        child(*sys.argv[1:])
    else:
        sys.exit(main())
