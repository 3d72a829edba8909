"""An upload that is refused

48 MiB are sent to a server on this machine, from bytes, from a file, and from a generator. When all
of it has arrived, the server answers 401, because the token is no longer valid. Does the whole
upload arrive in the end, and how much memory does that take? *0 bytes, 200* is an upload that was
sent again empty, and that the server accepted.

The second table shows the same with 1 GiB, and with a `replay_limit` above that. By default, 64 MiB
of a body that cannot be rewound are recorded, and a longer body is not sent again.

Each upload runs in its own process. The memory is how many MiB more its peak was than that of plain
requests with a valid token, which send once. Most of the difference of the other libraries is what
they import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contenders import OURS, PLAIN, Case, contender, installed, title
from measuring import TELL_MEMORY, Claim, Finding, Table, alone, issued, peak_memory

from tokenadapter.testing import TokenServer

MEBIBYTE = 1 << 20
SMALL, LARGE = 48, 1024
LIMIT = 20
WHOLE = "whole"
KINDS = ("bytes", "file", "generator")


class Upload(NamedTuple):
    """How an upload ended, and the MiB that the process had at its peak."""

    outcome: str
    peak: float


def generator(size: int) -> Iterator[bytes]:
    block = bytes(64 << 10)
    return (block for _ in range(size // len(block)))


def child(name: str, kind: str, size: int, body: str, *where: str) -> None:
    """The process that uploads."""
    case = Case(*where)
    options = {"replay_limit": 2 * size} if name == OURS and size > SMALL * MEBIBYTE else {}
    send = contender(name).sender(case, **options)
    with Path(body).open("rb") as file:
        bodies = {"bytes": bytes, "file": lambda _: file, "generator": generator}
        try:
            answer = send("PUT", case.api, data=bodies[kind](size))
        except Exception as error:  # noqa: BLE001 - each has errors of its own
            print(type(error).__name__)
        else:
            arrived = answer.json().get("length") if answer.ok else None
            print(answer.status_code if arrived is None else said(arrived, size))
    exec(TELL_MEMORY)


def said(arrived: int, size: int) -> str:
    return WHOLE if arrived == size else f"{arrived:,} bytes, 200"


def upload(name: str, kind: str, size: int) -> Upload:
    with TokenServer() as server, tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.touch()
        os.truncate(body, size)
        case = Case(server.api_url, server.token_url, str(Path(folder, "token.json")))
        contender(name).store(case, issued(server))
        if name != PLAIN:
            server.expire_now()
        arguments = [name, kind, str(size), str(body), *case]
        done = subprocess.run(
            [sys.executable, __file__, "--child", *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return Upload(done.stdout.partition("\n")[0], peak_memory(done.stdout))


def compared(names: list[str], mebibytes: int) -> tuple[Table, list[Claim]]:
    uploads = {name: [upload(name, kind, mebibytes * MEBIBYTE) for kind in KINDS] for name in names}
    more = {
        name: [one.peak - plain.peak for one, plain in zip(mine, uploads[PLAIN], strict=True)]
        for name, mine in uploads.items()
    }
    rows = [
        [
            title(name) + (", valid token" if name == PLAIN else ""),
            *(one.outcome for one in mine),
            *(f"{peak:+.1f}" for peak in more[name]),
        ]
        for name, mine in uploads.items()
    ]
    head = [f"{mebibytes} MiB", *KINDS, *(f"{kind}, MiB" for kind in KINDS)]
    most = max(more[OURS])
    return Table(head, rows), [
        Claim(
            f"{mebibytes} MiB: everything arrives",
            all(one.outcome == WHOLE for one in uploads[OURS]),
        ),
        Claim(f"{mebibytes} MiB: at most {LIMIT} MiB more: {most:.1f}", most <= LIMIT),
    ]


def measure(quick: bool) -> Finding:
    sizes = [([PLAIN, OURS], 1)] if quick else [(installed(), SMALL), ([PLAIN, OURS], LARGE)]
    tables, claims = zip(*(compared(names, size) for names, size in sizes), strict=True)
    return Finding(tables, (), [claim for those in claims for claim in those])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, kind, size, *rest = sys.argv[2:]
        child(name, kind, int(size), *rest)
    else:
        alone(measure)
