"""Everything behind one proxy, in chosen versions: shipped configuration, rights and users, two gateways."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import ENDS_WITH_PARENT
from testing.servers.debian import write_wrapper
from testing.servers.mariadb import MariaDBServer
from testing.servers.mysql import MySQLServer
from testing.servers.ports import free_port
from testing.servers.process import Server
from tests.integration.guarded_mongodb import GuardedMongoDBServer
from tests.integration.services import ROOT, SECRET, Running, started
from tests.matrix.choices import Programs
from tests.matrix.shipped_rabbitmq import ShippedRabbitMQServer
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import enable_tls, nginx_program, running_nginx

GATEWAYS = ("127.0.0.2", "127.0.0.3")


@dataclass
class Stack:
    """A running system: the proxy's URLs, and what an operator has."""

    url: str
    tls_url: str
    certificate: Path
    # Programs of the chosen versions.
    python: str
    node: str
    rabbitmq: ShippedRabbitMQServer
    mongodb: GuardedMongoDBServer
    services: list[Running]

    async def command(self, *arguments: str, **settings: str) -> None:
        """Run `python -m …` as an operator does; AssertionError if it fails."""
        process = await asyncio.create_subprocess_exec(
            *(*ENDS_WITH_PARENT, self.python, "-m", *arguments),
            cwd=ROOT,
            env=os.environ | settings,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0, f"python -m {' '.join(arguments)} exits with {process.returncode}"


@asynccontextmanager
async def running_stack(
    folder: Path, programs: Programs, rights: Mapping[str, Any] | None = None
) -> AsyncIterator[Stack]:
    """Start the servers at once, then the services in the order of `make up`. Logs are in `folder`, as *.log.

    `rights`: of RabbitMQ's users, instead of the shipped ones.
    """
    async with AsyncExitStack() as stack:
        kind = MySQLServer if programs.database.program == "mysql" else MariaDBServer
        rabbitmq = ShippedRabbitMQServer(folder / "rabbitmq", root=programs.rabbitmq.root, rights=rights)
        mongodb = GuardedMongoDBServer(folder / "mongodb")
        database = kind(folder / "database", root=programs.database.root)
        await asyncio.gather(*(_run(stack, server) for server in (rabbitmq, mongodb, database)))
        packages = {} if programs.python.packages is None else {"PYTHONPATH": programs.python.packages}
        log = folder / "services.log"
        roots = programs.python.root, programs.node.root, programs.nginx.root
        paths = (
            "/usr/bin/python3" if roots[0] else sys.executable,
            "/usr/bin/node" if roots[1] else str(shutil.which("node")),
            "/usr/sbin/nginx" if roots[2] else nginx_program(),
        )
        python = write_wrapper(folder / "python", roots[0], paths[0], log=log, **packages)
        node = write_wrapper(folder / "node", roots[1], paths[1])
        nginx = write_wrapper(folder / "nginx", roots[2], paths[2])
        names = await stack.enter_async_context(NameServer.serving())
        made = Stack(
            "", "", folder / "proxy" / "tls" / "certificate.pem", str(python), str(node), rabbitmq, mongodb, []
        )
        ports = await _start_services(stack, made, database.create_database())
        names.addresses |= {f"{name}.test": ["127.0.0.1"] for name in ports} | {"gateway.test": list(GATEWAYS)}
        (folder / "proxy").mkdir()
        tls_port = enable_tls(folder / "proxy", str(nginx))
        proxy = await stack.enter_async_context(running_nginx(folder / "proxy", names, str(nginx), **ports))
        made.url, made.tls_url = proxy.url, f"https://localhost:{tls_port}"
        yield made


async def _run(stack: AsyncExitStack, server: Server) -> None:
    await asyncio.to_thread(server.start)
    stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)


async def _start_services(stack: AsyncExitStack, made: Stack, users: str) -> dict[str, int]:
    """Return the port of each service."""
    amqp, mongo = made.rabbitmq.url_of, made.mongodb.url_of
    await asyncio.gather(
        made.command("broker", "declare", "--wait", "60", BROKER_URL=amqp("operator")),
        made.command("auth", "migrate", AUTH_DATABASE_URL=users),
    )

    async def start(name: str, **settings: str) -> Running:
        running = await stack.enter_async_context(started(name, python=made.python, **settings))
        made.services.append(running)
        return running

    secrets = {"AUTH_DATABASE_URL": users, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
    auth = await start("auth", BROKER_URL=amqp("auth"), **secrets)
    port, proxies = free_port(), {"AUTH_URL": auth.url, "TRUSTED_PROXIES": "127.0.0.0/8"}
    _, _, _, reader = await asyncio.gather(
        *(start("gateway", BROKER_URL=amqp("gateway"), HOST=host, PORT=str(port), **proxies) for host in GATEWAYS),
        start("persister", BROKER_URL=amqp("persister"), READINGS_URL=mongo("persister")),
        start("reader", BROKER_URL=amqp("reader"), READINGS_URL=mongo("reader"), AUTH_URL=auth.url),
    )
    return {"auth": auth.port, "gateway": port, "reader": reader.port}
