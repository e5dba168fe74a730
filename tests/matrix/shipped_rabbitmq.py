"""RabbitMQ with the shipped configuration and plugins, and the six users of rights.json as `make up` creates them."""

import json
import runpy
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testing.servers.rabbitmq import LOG_SIZE, RabbitMQServer, log_size_setting
from tests.integration.services import ROOT

FOLDER = ROOT / "deploy" / "rabbitmq"


class ShippedRabbitMQServer(RabbitMQServer):
    """Only ports, paths, and the addresses that it listens on are changed; there is no user `guest`."""

    def __init__(self, folder: Path, *, root: Path | None = None, rights: Mapping[str, Any] | None = None) -> None:
        """Take the shipped rights, or others."""
        super().__init__(folder, root=root)
        self._rights = rights or json.loads((FOLDER / "rights.json").read_text())
        self._passwords = {name: secrets.token_hex(8) for name in self._rights}
        self._login = f"operator:{self._passwords['operator']}"

    def url_of(self, user: str) -> str:
        """The URL with the login of one of the users."""
        return f"amqp://{user}:{self._passwords[user]}@127.0.0.1:{self.port}/"

    def _prepare(self) -> None:
        (self.folder / "enabled_plugins").write_text((FOLDER / "enabled_plugins").read_text())
        definitions = runpy.run_path(str(ROOT / "deploy" / "compose" / "env.py"))["definitions"]
        env = {f"RABBITMQ_{name.upper()}_PASSWORD": password for name, password in self._passwords.items()}
        (self.folder / "definitions.json").write_text(json.dumps(definitions(env, self._rights)))

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        command = super()._command()
        listener = "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port"
        replacements = {
            LOG_SIZE: log_size_setting(self._root),
            "/etc/rabbitmq/definitions.json": str(self.folder / "definitions.json"),
            "listeners.tcp.default = 5672": f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "management.tcp.port = 15672": f"{listener} = {self._management_port}",
            "prometheus.tcp.port = 15692": f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.metrics_port}",
        }
        text = (FOLDER / "rabbitmq.conf").read_text()
        for old, new in replacements.items():
            assert old in text, f"{old!r} no longer occurs in rabbitmq.conf"
            text = text.replace(old, new)
        (self.folder / "rabbitmq.conf").write_text(text)
        return command
