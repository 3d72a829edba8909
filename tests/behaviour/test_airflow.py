"""Airflow's HttpHook with an adapter, as docs/howto/sdks.md shows it.

``tox -e airflow`` installs Airflow; elsewhere, this test is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tokenadapter.testing import TokenServer

# A program of its own: Airflow changes the logging and the warnings of its process.
PROGRAM = """
import sys
from airflow.providers.http.hooks.http import HttpHook
from tokenadapter import ClientCredentials, FileStore, TokenAdapter
url, store = sys.argv[1:]
source = ClientCredentials(url + "/token", client_id="client", client_secret="secret")
adapter = TokenAdapter(url + "/api/", source, store=FileStore(store))
hook = HttpHook("GET", http_conn_id="billing", adapter=adapter)
print(hook.run("invoices").json()["path"])
"""


@pytest.mark.skipif(find_spec("airflow") is None, reason="it is installed by tox -e airflow")
def test_a_hook_sends_with_the_token_of_the_adapter(server: TokenServer, tmp_path: Path) -> None:
    connection = {"conn_type": "http", "host": server.api_url}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.url, str(tmp_path / "token.json")],
            env={
                **os.environ,
                "AIRFLOW_HOME": str(tmp_path),
                "AIRFLOW_CONN_BILLING": json.dumps(connection),
            },
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert "/api/invoices" in done.stdout
        server.revoke_all()
    assert (server.stats.renewals, server.stats.api_refused) == (2, 1)
