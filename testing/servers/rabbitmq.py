"""A RabbitMQ node that shares nothing with others: own name, cookie, ports, port mapper, plugins and data."""

import base64
import json
import os
import secrets
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pamqp.frame
from pamqp import commands

from testing.servers.debian import entered
from testing.servers.host import LOOPBACK, Host
from testing.servers.ports import free_port
from testing.servers.process import Server, ServerError, wait_until

BIN = Path("/usr/lib/rabbitmq/bin")  # not /usr/sbin: those wrappers change the user
AMQP_HEADER = b"AMQP\0\0\x09\x01"
# No busy waiting, which would slow down a machine with two CPUs.
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "rabbitmq" / "rabbitmq.conf"
# The size of the log of quorum queues: 4.3.6 has a setting of its own for it, and 4.0.5 the one of all Raft systems.
LOG_SIZE, LOG_SIZE_BEFORE_4_3 = "quorum_queue.wal_max_size_bytes", "raft.wal_max_size_bytes"
ERLANG_OPTIONS = "+sbwt none +sbwtdcpu none +sbwtdio none"


class RabbitMQServer(Server):
    """A single RabbitMQ node with the management plugin."""

    name = "rabbitmq"
    program = "beam.smp"
    identity = ("port", "metrics_port", "_management_port", "_dist_port", "_epmd_port", "_node")

    def __init__(self, folder: Path, *, metrics: bool = False, root: Path | None = None, host: Host = LOOPBACK) -> None:
        """Use this machine's RabbitMQ, or the one in the root folder of another Debian."""
        super().__init__(folder, host=host)
        self._metrics = metrics
        self._root = root
        self._login = "guest:guest"
        self.metrics_port = 0
        # The folder in mnesia/ is named after the node, so the name is kept over restarts.
        self._node = f"tidegate-{secrets.token_hex(4)}@localhost"

    @property
    def url(self) -> str:
        """The URL of the default vhost."""
        return f"amqp://{self._login}@{self.host.address}:{self.port}/"

    @property
    def version(self) -> str:
        """The version that the running node announces to clients, such as "3.10.8"."""
        with socket.create_connection((self.host.address, self.port), timeout=10) as connection:
            connection.sendall(AMQP_HEADER)
            with connection.makefile("rb") as answer:
                head = answer.read(7)  # type, channel, size
                whole = head + answer.read(int.from_bytes(head[3:], "big") + 1)
        start = pamqp.frame.unmarshal(whole)[2]
        assert isinstance(start, commands.Connection.Start)
        version = (start.server_properties or {})["version"]
        return version.decode() if isinstance(version, bytes) else str(version)

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on the node and return what it prints; about 0.3 s."""
        done = subprocess.run(
            [*self.host.enter, *entered(self._root, [str(BIN / "rabbitmqctl"), "--quiet", *arguments])],
            env=os.environ | self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,  # its start alone, where the processors are busy with three nodes
            check=False,
        )
        if done.returncode:
            raise ServerError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def set_consumer_timeout(self, timeout_s: float | None) -> None:
        """Set the consumer timeout of channels opened from now on; None: the default of 30 minutes.

        RabbitMQ checks it at each tick of the channel, by default once a minute.
        """
        times_ms = (1_800_000, 60_000) if timeout_s is None else (int(timeout_s * 1000), int(timeout_s * 100))
        for name, ms in zip(("consumer_timeout", "channel_tick_interval"), times_ms, strict=True):
            self.rabbitmqctl("eval", f"application:set_env(rabbit, {name}, {ms}).")

    def log_text(self) -> str:
        """Return the node's log."""
        return "".join(file.read_text(errors="replace") for file in sorted((self.folder / "log").glob("*.log")))

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API, as in api("GET", "queues"); return the decoded response, None if it is empty."""
        request = urllib.request.Request(
            f"http://{self.host.address}:{self._management_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(self._login.encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ServerError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text else None

    def create_vhost(self) -> str:
        """Create a vhost with a random name and all rights for the guest, and return its URL; about 15 ms."""
        name = f"test-{secrets.token_hex(6)}"
        self.api("PUT", f"vhosts/{name}")
        self.api("PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        return self.url + name

    def delete_vhost(self, url: str) -> None:
        """Delete a vhost by its URL, with its queues and connections."""
        self.api("DELETE", f"vhosts/{quote(urlsplit(url).path[1:], safe='')}")

    def wait_until_registered(self, url: str, queue: str) -> None:
        """Return once a quorum queue survives kill(), about a second after its declaration.

        RabbitMQ 3.10 writes its register of quorum queues to disk once a second, and a restarting node drops the log of
        a queue that is not in it: a confirmed message was lost, and the queue never had a leader again.
        """
        vhost = unquote(urlsplit(url).path[1:]) or "/"
        name = f"{vhost.replace('/', '%2F')}_{queue}".encode()
        registers = (self.folder / "mnesia" / self._node / "quorum").glob("*/names.dets")
        register = next(registers)
        wait_until(lambda: name in register.read_bytes(), f"{queue} is in {register}", timeout_s=10)

    def _choose_ports(self) -> None:
        self.port, self._management_port, self._dist_port, self._epmd_port = (free_port() for _ in range(4))
        self.metrics_port = free_port()

    def _prepare(self) -> None:
        plugins = "rabbitmq_management,rabbitmq_prometheus" if self._metrics else "rabbitmq_management"
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        (self.folder / "rabbitmq.conf").write_text(self._configuration())
        return entered(self._root, [str(BIN / "rabbitmq-server")]), self._environment()

    def _configuration(self) -> str:
        address = self.host.address
        return (
            f"management.tcp.ip = {address}\nmanagement.tcp.port = {self._management_port}\n"
            + (f"prometheus.tcp.ip = {address}\nprometheus.tcp.port = {self.metrics_port}\n" if self._metrics else "")
            + "disk_free_limit.absolute = 50MB\nlog.file.level = info\n"
            + _log_size(self._root)
        )

    def _environment(self) -> dict[str, str]:
        address = self.host.address
        # Node traffic by this address only.
        interface = f"-kernel inet_dist_use_interface {{{address.replace('.', ',')}}}"
        return {
            "HOME": str(self.folder),  # for the cookie, which Erlang makes
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": address,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": address,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{ERLANG_OPTIONS} {interface}",
        }

    def _answers(self) -> bool:
        # The AMQP listener opens after all but the plugins', and create_vhost needs the management API.
        with suppress(OSError), socket.create_connection((self.host.address, self.port), timeout=1) as connection:
            connection.sendall(AMQP_HEADER)
            if connection.recv(1) == b"\x01":  # a method frame: Connection.Start
                self.api("GET", "vhosts/%2F")
                return True
        return False


def log_size_setting(root: Path | None) -> str:
    """Return the setting for the log of quorum queues in the RabbitMQ of a root folder, or of this machine."""
    (folder,) = ((root or Path("/")) / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
    version = folder.name.partition("-")[2].split(".")
    return LOG_SIZE if (int(version[0]), int(version[1])) >= (4, 3) else LOG_SIZE_BEFORE_4_3


def _log_size(root: Path | None) -> str:
    """Return the line of the shipped configuration with the size of that log."""
    (size,) = [line.split(" = ")[1] for line in CONFIGURATION.read_text().splitlines() if line.startswith(LOG_SIZE)]
    return f"{log_size_setting(root)} = {size}\n"
