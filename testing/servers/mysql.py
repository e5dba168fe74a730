"""MySQL itself, from the suite of Debian that has it, with the shipped configuration."""

from collections.abc import Mapping
from pathlib import Path

from testing.servers.debian import entered
from testing.servers.mariadb import MariaDBServer

CONFIG = Path(__file__).parents[2] / "deploy" / "mysql" / "tidegate.cnf"


class MySQLServer(MariaDBServer):
    """MySQL, used like MariaDB; only options and the creation of its data differ."""

    name = "mysql"
    program = "mysqld"

    def _prepare(self) -> None:
        # It is read from a folder of this server's own instead of /tmp, where the image has it to itself.
        (self.folder / "tidegate.cnf").write_text(CONFIG.read_text().replace("/tmp/", f"{self.folder}/"))
        super()._prepare()

    def _initialization(self) -> list[str]:
        return ["/usr/sbin/mysqld", "--no-defaults", "--initialize-insecure", "--user=root", f"--datadir={self._data}"]

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        options = [
            f"--defaults-file={self.folder / 'tidegate.cnf'}",
            "--user=root",
            f"--datadir={self._data}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=32M",
            "--performance-schema=OFF",
            "--secure-file-priv=NULL",  # the package would create the default folder
            f"--init-file={self.folder / 'init.sql'}",
        ]
        return entered(self._root, ["/usr/sbin/mysqld", *options]), {}
