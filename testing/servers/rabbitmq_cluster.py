"""Three RabbitMQ nodes of one cluster, each on a host of its own, configured as deploy/kubernetes has them."""

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from testing.servers.host import Host
from testing.servers.process import ServerError, wait_until
from testing.servers.rabbitmq import RabbitMQServer

# Each node is alone on its host.
PORT, MANAGEMENT_PORT, DIST_PORT, EPMD_PORT = 5672, 15672, 25672, 4369
VHOST = quote("/", safe="")


class Node(RabbitMQServer):
    """One node. It joins the first of `hosts`, or another one that runs, when it is started on an empty folder."""

    start_timeout_s = 400.0  # three at once, on two processors that do other work too

    def __init__(
        self, folder: Path, host: Host, hosts: Sequence[Host], cookie: str, *, root: Path | None = None
    ) -> None:
        super().__init__(folder, root=root, host=host)
        self._hosts = hosts
        self._node = node_name(host)
        self._cookie = cookie

    @property
    def node(self) -> str:
        """Its name in the cluster."""
        return self._node

    def _choose_ports(self) -> None:
        self.port, self._management_port = PORT, MANAGEMENT_PORT
        self._dist_port, self._epmd_port = DIST_PORT, EPMD_PORT

    def _prepare(self) -> None:
        super()._prepare()
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)
        lines = [f'{{host, {{{host.address.replace(".", ",")}}}, ["{host.name}"]}}.\n' for host in self._hosts]
        (self.folder / "inetrc").write_text("".join(lines) + "{lookup, [file, native]}.\n")

    def _configuration(self) -> str:
        nodes = [
            f"cluster_formation.classic_config.nodes.{number} = {node_name(host)}\n"
            for number, host in enumerate(self._hosts, 1)
        ]
        return (
            super()._configuration()
            + "cluster_formation.peer_discovery_backend = classic_config\n"
            + "".join(nodes)
            + "cluster_partition_handling = pause_minority\n"
            + "loopback_users = none\n"
        )

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"ERL_INETRC": str(self.folder / "inetrc")}


def node_name(host: Host) -> str:
    """Return the name of the node on a host."""
    return f"rabbit@{host.name}"


class RabbitMQCluster:
    """The cluster, running while the context lasts."""

    def __init__(self, folders: Sequence[Path], hosts: Sequence[Host], *, root: Path | None = None) -> None:
        """Use this machine's RabbitMQ, or the one in the root folder of another Debian."""
        cookie = secrets.token_hex(10)
        self.nodes = [Node(folder, host, hosts, cookie, root=root) for folder, host in zip(folders, hosts, strict=True)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            first, *others = self.nodes
            self._stack.enter_context(first)
            # The others find a node that runs, so that two never found a cluster each.
            with ThreadPoolExecutor() as threads:
                for node in others:
                    self._stack.callback(node.__exit__, None, None, None)
                list(threads.map(Node.start, others))
            wait_until(lambda: len(self.running()) == len(self.nodes), "every node is in the cluster", 400)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """`BROKER_URL` with all nodes."""
        hosts = ",".join(f"{node.host.address}:{PORT}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def running(self) -> list[str]:
        """Return the names of the nodes that see each other, as one that answers tells."""
        found = self.ask("nodes")
        return [one["name"] for one in found or () if one["running"]]

    def ask(self, path: str) -> Any:
        """Return what any node that runs answers to a GET of the management API; None if none does."""
        for node in self.nodes:
            try:
                return node.api("GET", path)
            except (ServerError, OSError):
                continue
        return None

    def leader(self, queue: str) -> Node | None:
        """Return the node with a queue's leader; None while there is none."""
        leader = self._queue(queue).get("leader")
        return next((node for node in self.nodes if node.node == leader), None)

    def whole(self, queues: Sequence[str]) -> bool:
        """Return whether each queue has a leader, and each of its members is online."""
        for queue in queues:
            found = self._queue(queue)
            if not found.get("leader") or len(found.get("online", ())) < len(self.nodes):
                return False
        return True

    def _queue(self, name: str) -> Mapping[str, Any]:
        return self.ask(f"queues/{VHOST}/{name}") or {}

    def move_leaders(self, queues: Sequence[str], to: Node) -> None:
        """Make a node's members of these queues the leaders."""
        names = ", ".join(f'<<"{queue}">>' for queue in queues)
        to.rabbitmqctl(
            "eval",
            f'[begin {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Name)), '
            f"rabbit_quorum_queue:transfer_leadership(Q, '{to.node}') end || Name <- [{names}]].",
        )
