"""Clusters as users run them: each node, mongod, gateway and persister on a host with an address of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.topology import QUEUES
from testing.servers.host import Host
from testing.servers.mariadb import MariaDBServer
from testing.servers.network import OWN_ADDRESS, Network
from testing.servers.ports import free_port
from testing.servers.process import Server
from testing.servers.rabbitmq_cluster import RabbitMQCluster
from testing.servers.replica_set import MONGODS_ELECTION_TIMEOUT_MS, ReplicaSet
from tests.faults.disk import Disk
from tests.faults.stack import SEALING, Service, running_services
from tests.integration.services import SECRET, migrated
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx

NODES = 3
# Of each node: what a run needs, and little more, as it is memory.
DISK_BYTES = 768 * 1024**2
WHOLE_WITHIN_S = 120.0
QUEUE_NAMES = [queue.name for queue in QUEUES]


@dataclass
class Cluster:
    """The servers and services, and the network between them. Auth, its database, the proxy and devices are outside."""

    network: Network
    rabbitmq: RabbitMQCluster
    mongodb: ReplicaSet
    # Each holds the data of the server on the host of this name.
    disks: dict[str, Disk]
    auth: Service
    gateways: list[Service]
    persisters: list[Service]
    compactor: Service
    reader: Service
    # nginx with the shipped configuration, before auth, gateways and reader.
    front_url: str

    @property
    def services(self) -> list[Service]:
        return [self.auth, *self.gateways, *self.persisters, self.compactor, self.reader]

    def disk_of(self, server: Server) -> Disk:
        """Return the disk with a server's data."""
        return self.disks[server.host.name]

    async def rabbitmq_whole(self) -> None:
        """Return once every queue has a leader and all of its members."""
        await until(lambda: self.rabbitmq.whole(QUEUE_NAMES), "every queue has all of its members")

    async def mongodb_whole(self) -> None:
        """Return once there is a primary with all other members behind it."""
        await until(self.mongodb.whole, "the replica set has a primary and two secondaries")

    async def whole(self) -> None:
        """Return once nothing of an earlier fault is left."""
        await asyncio.gather(self.rabbitmq_whole(), self.mongodb_whole())


async def until(holds: Callable[[], bool], what: str) -> None:
    """Return once it holds; AssertionError after two minutes."""
    try:
        async with asyncio.timeout(WHOLE_WITHIN_S):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"not within {WHOLE_WITHIN_S:g} s: {what}") from None


@asynccontextmanager
async def running_cluster(folder: Path, network: Network, rabbitmq_root: Path) -> AsyncIterator[Cluster]:
    """Run everything while the context lasts; RabbitMQ is the one in a root folder of another Debian."""

    def hosts(kind: str, number: int) -> list[Host]:
        return [network.host(f"{kind}-{each}") for each in range(1, number + 1)]

    async with AsyncExitStack() as stack:
        nodes, mongods = hosts("rabbit", NODES), hosts("mongod", NODES)
        # Before any thread: mounts are private to what is started later.
        disks = {host.name: stack.enter_context(Disk(folder / host.name, DISK_BYTES)) for host in [*nodes, *mongods]}
        assert all(disk.small for disk in disks.values()), "mounting is not permitted"
        rabbitmq = RabbitMQCluster([disks[host.name].folder for host in nodes], nodes, root=rabbitmq_root)
        mongodb = ReplicaSet(
            [disks[host.name].folder for host in mongods], mongods, election_timeout_ms=MONGODS_ELECTION_TIMEOUT_MS
        )
        mariadb = MariaDBServer(folder / "mariadb")
        for server in (rabbitmq, mongodb, mariadb):
            stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)
            await asyncio.to_thread(server.__enter__)
        users = mariadb.create_database()
        await migrated(users)
        database = {"AUTH_DATABASE_URL": users, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
        auth = Service("auth", folder, HOST=OWN_ADDRESS, **database)
        broker, readings = {"BROKER_URL": rabbitmq.url}, {"READINGS_URL": f"{mongodb.url}&w=majority"}
        known = {**broker, "AUTH_URL": auth.url}
        port = str(free_port())  # the same one for both: so nginx finds gateways
        made = Cluster(
            network,
            rabbitmq,
            mongodb,
            disks,
            auth,
            [Service("gateway", folder, PORT=port, **known).on(host) for host in hosts("gateway", 2)],
            [Service("persister", folder, **broker, **readings, **SEALING).on(host) for host in hosts("persister", 2)],
            Service("persister", folder, "compact", **readings),
            Service("reader", folder, **known, **readings),
            "",
        )
        names = await stack.enter_async_context(NameServer.serving())
        names.addresses |= {"auth.test": [OWN_ADDRESS], "reader.test": ["127.0.0.1"]}
        names.addresses["gateway.test"] = [gateway.host for gateway in made.gateways]
        (folder / "front").mkdir()
        front = await stack.enter_async_context(
            running_nginx(folder / "front", names, auth=auth.port, gateway=int(port), reader=made.reader.port)
        )
        made.front_url = front.url
        async with running_services(made.services):
            yield made
