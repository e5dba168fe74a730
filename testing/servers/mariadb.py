"""A MariaDB server with its own data, socket and user."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pymysql

from testing.servers.debian import entered
from testing.servers.ports import free_port
from testing.servers.process import Server, ServerError

USER = "tidegate"
# Root has to say so; for anybody else it would be a change of user.
AS_ROOT = ["--user=root"] if os.geteuid() == 0 else []


class MariaDBServer(Server):
    """MariaDB in place of MySQL, because Debian's stable releases have no MySQL server."""

    name = "mariadb"
    program = "mariadbd"
    identity = ("port", "_password")

    def __init__(self, folder: Path, *, root: Path | None = None) -> None:
        """Use this machine's server, or the one in the root folder of another Debian."""
        super().__init__(folder)
        self._root = root
        self._password = secrets.token_hex(8)
        self._data = self.folder / "data"

    @property
    def url(self) -> str:
        """The URL without a database; see create_database()."""
        return f"mysql+aiomysql://{USER}:{self._password}@127.0.0.1:{self.port}/"

    def create_database(self) -> str:
        """Create a database with a random name and return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url + name

    def drop_database(self, url: str) -> None:
        """Drop a database by its URL."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]}")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement with autocommit as the tests' user and return its rows."""
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self._password, autocommit=True, connect_timeout=5
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _prepare(self) -> None:
        if self._data.exists():
            return
        done = subprocess.run(
            entered(self._root, self._initialization()),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{self.name} did not create its data: {done.stdout}{done.stderr}")
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )

    def _initialization(self) -> list[str]:
        """Return the command that creates the data folder."""
        return [
            "mariadb-install-db",
            "--no-defaults",
            *AS_ROOT,
            f"--datadir={self._data}",
            f"--tmpdir={self.folder}",  # two servers created at the same time would clash in a shared one
            "--skip-test-db",
            "--innodb-log-file-size=16M",
        ]

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        program = "/usr/sbin/mariadbd" if self._root else shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        options = [
            "--no-defaults",
            *AS_ROOT,
            f"--datadir={self._data}",
            "--socket=mariadb.sock",  # in the data folder, and short enough for any folder
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--performance-schema=off",
            f"--init-file={self.folder / 'init.sql'}",
        ]
        return entered(self._root, [program, *options]), {}

    def _answers(self) -> bool:
        with suppress(pymysql.Error):
            return self.execute("SELECT 1") == [(1,)]
        return False
