"""The program at the top of README.md, run against a token server: ``python tests/quickstart.py``.

It needs only the package without extras.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from tokenadapter.testing import TokenServer

README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    """Run the program, and check the requests that the servers got."""
    program = re.search(
        r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert program is not None
    with TokenServer(clients={"billing": "made-up"}) as server:
        code = program[1].replace("https://api.example.com/", server.api_url)
        code = code.replace("https://id.example.com/token", server.token_url)
        exec(compile(code, README, "exec"), {})
        seen = server.stats
    assert (seen.token_requests, seen.api_requests, seen.api_refused) == (1, 1, 0), seen


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(HOME=home, BILLING_SECRET="made-up")
        main()
    sys.stdout.write("the quick start works\n")
