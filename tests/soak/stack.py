"""The servers and services of a soak, on a folder that a later run goes on with."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from testing.servers.mariadb import MariaDBServer
from testing.servers.mongodb import MongoDBServer
from testing.servers.process import Server, descendants
from testing.servers.rabbitmq import RabbitMQServer
from tests.faults.stack import Service, running_services
from tests.integration.services import SECRET, migrated, run_auth_keys
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx
from tests.soak.oracle import AGED

TOKEN_S = 300
# A collection a minute at some 500 readings a second, so that sealing, compaction and retention run all the time.
SETTINGS = {
    "gateway": {"EXPIRING_SECONDS": "60", "TRUSTED_PROXIES": "127.0.0.0/8"},
    "persister": {
        "SEAL_READINGS": "50000",
        "SEAL_SECONDS": "60",
        "RETENTION_DAYS_BY_SENSOR_TYPE": f"{AGED}=1",
    },
}
# Of `auth` and of the commands that rotate its keys, which the shortest run does every 6 s.
KEYS = {
    "SIGNING_KEY_SECRET": SECRET,
    "KEY_PUBLISH_SECONDS": "5",
    "ACCESS_TOKEN_SECONDS": str(TOKEN_S),
    "DEVICE_TOKEN_SECONDS": str(TOKEN_S),
}
STATE = "stack.json"


@dataclass
class Stack:
    """What runs: its own processes by name, and the servers."""

    url: str
    mongodb: MongoDBServer
    rabbitmq: RabbitMQServer
    servers: dict[str, Server]
    services: dict[str, Service]
    front_pid: int
    keys: dict[str, str] = field(repr=False)

    async def auth_keys(self, *arguments: str) -> str:
        """Run `python -m auth keys …` as an operator does, and return its output."""
        return await run_auth_keys(self.keys, *arguments)

    def pids(self) -> dict[str, list[int]]:
        """Return the processes of each service and server, by name."""
        found = {name: [service.pid] for name, service in self.services.items()}
        for name, server in self.servers.items():
            with suppress(Exception):  # it has ended: the verdict says so
                found[name] = [server.pid]
        found["nginx"] = [self.front_pid, *descendants(self.front_pid)]
        return found

    @property
    def crashes(self) -> list[str]:
        """What ended without being asked to."""
        return [crash for service in self.services.values() for crash in service.crashes]


@asynccontextmanager
async def running_stack(folder: Path, **persister: str) -> AsyncIterator[Stack]:
    """Start everything on a folder, new or of an earlier run; at the end stop it in order.

    `persister`: settings of persisters in place of those of a soak.
    """
    async with AsyncExitStack() as stack:
        rabbitmq, mongodb, mariadb = servers = (
            RabbitMQServer(folder / "rabbitmq"),
            MongoDBServer(folder / "mongodb", replica_set=True),
            MariaDBServer(folder / "mariadb"),
        )
        state_file = folder / STATE
        again = state_file.exists()
        for server in servers:
            await asyncio.to_thread(server.start_again if again else server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
            server.leave_identity()
        if not again:
            state_file.write_text(json.dumps({"users": mariadb.create_database().rpartition("/")[2]}))
        users = mariadb.url + json.loads(state_file.read_text())["users"]
        await migrated(users)
        services = _services(folder, users, rabbitmq.url, mongodb.url, SETTINGS["persister"] | persister)
        names = await stack.enter_async_context(NameServer.serving())
        ports = {name: services[name].port for name in ("auth", "gateway", "reader")}
        names.addresses |= {f"{name}.test": ["127.0.0.1"] for name in ports}
        front = folder / "nginx"
        shutil.rmtree(front, ignore_errors=True)
        front.mkdir()
        proxy = await stack.enter_async_context(running_nginx(front, names, **ports))
        front_pid = int((front / "nginx.pid").read_text())
        keys = KEYS | {"AUTH_DATABASE_URL": users}
        by_name = {"rabbitmq": rabbitmq, "mongod": mongodb, "mariadbd": mariadb}
        made = Stack(proxy.url, mongodb, rabbitmq, by_name, services, front_pid, keys)
        async with running_services(list(services.values())):
            try:
                yield made
            finally:
                for service in services.values():
                    with suppress(TimeoutError):
                        await service.take_away()


def _services(folder: Path, users: str, amqp: str, mongo: str, persister: dict[str, str]) -> dict[str, Service]:
    auth = Service("auth", folder, AUTH_DATABASE_URL=users, BROKER_URL=amqp, BCRYPT_COST="4", **KEYS)
    stores = {"BROKER_URL": amqp, "READINGS_URL": mongo}
    return {
        "auth": auth,
        "gateway": Service("gateway", folder, BROKER_URL=amqp, AUTH_URL=auth.url, **SETTINGS["gateway"]),
        "persister-1": Service("persister", folder, **stores, **persister),
        "persister-2": Service("persister", folder, **stores, **persister),
        "compactor": Service("persister", folder, "compact", READINGS_URL=mongo),
        "reader": Service("reader", folder, AUTH_URL=auth.url, **stores),
    }
