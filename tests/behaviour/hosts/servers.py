"""The servers of the stores, on the address of the server and the default ports."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from databases import PostgreSQL, unprivileged, with_table
from unit.stores.servers import RedisServer

from .network import ADDRESS, Host


class NetworkRedis(RedisServer):
    def __init__(self, host: Host) -> None:
        listening = ("--bind", ADDRESS, "--protected-mode", "no")
        durable = ("--appendonly", "yes", "--appendfsync", "always")
        super().__init__(*listening, *durable, port=6379)
        self._command = [*host.within("--net", "--uts"), *self._command]

    def store(self) -> str:
        """The URL of a store for all hosts."""
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
        user = unprivileged()
        credentials = [f"--setuid={user['user']}", f"--setgid={user['group']}"]
        listening = ["-c", f"listen_addresses={ADDRESS}"]
        return [*self._host.within("--net", "--uts"), *credentials, *super().command(), *listening]

    def user(self) -> dict[str, Any]:
        return {}  # only root may enter the namespaces

    def store(self) -> str:
        database = sqlalchemy.make_url(with_table(self.new_database())).database
        return f"postgresql+psycopg://postgres@{ADDRESS}/{database}#token"
