"""The stores' servers on the server's address, each on its usual port."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from databases import PostgreSQL, as_whom, with_table
from unit.stores.servers import RedisServer

from .network import ADDRESS, Host


class NetworkRedis(RedisServer):
    def __init__(self, host: Host) -> None:
        listening = ("--bind", ADDRESS, "--protected-mode", "no")
        durable = ("--appendonly", "yes", "--appendfsync", "always")
        super().__init__(*listening, *durable, port=6379)
        self._command = [*host.within("--net", "--uts"), *self._command]

    def store(self) -> str:
        """The URL of a store, as all hosts have it."""
        return f"redis://{ADDRESS}#token"


class NetworkPostgreSQL(PostgreSQL):
    def __init__(self, host: Host) -> None:
        super().__init__(is_durable=True)
        self._host = host

    def install(self) -> None:
        super().install()
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 192.0.2.0/24 trust\n")

    def command(self) -> list[str]:
        whom = as_whom()
        becoming = [f"--setuid={whom['user']}", f"--setgid={whom['group']}"]
        listening = ["-c", f"listen_addresses={ADDRESS}"]
        return [*self._host.within("--net", "--uts"), *becoming, *super().command(), *listening]

    def whom(self) -> dict[str, Any]:
        return {}  # root has to enter the host

    def store(self) -> str:
        database = sqlalchemy.make_url(with_table(self.new_database())).database
        return f"postgresql+psycopg://postgres@{ADDRESS}/{database}#token"
