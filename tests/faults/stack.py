"""The real stack: three servers, auth, two gateways, persisters and alarms each, restarted as compose would."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp

from bench.processes import ENDS_WITH_PARENT
from broker.failpoints import VARIABLE, Point
from testing.servers.host import LOOPBACK, Host
from testing.servers.mariadb import MariaDBServer
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer
from tests.faults.alarms.receiver import Receiver
from tests.faults.clock import Clock
from tests.faults.disk import Disk
from tests.faults.link import Link
from tests.integration.services import ROOT, SECRET, migrated, run_auth_keys
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx

GATEWAYS = ("127.0.0.1", "127.0.0.2")
RESTART_AFTER_S = 0.3
STOPS_WITHIN_S = 15.0
# Of all at once, on a machine that is busy.
STARTS_WITHIN_S = 180.0
DIES_WITHIN_S = 60.0
# So small that readings are sealed every few seconds, in the middle of every other fault.
SEALING = {"SEAL_READINGS": "2000", "SEAL_SECONDS": "10"}


class Service:
    """One process that is restarted whenever it ends."""

    def __init__(self, name: str, folder: Path, *arguments: str, **settings: str) -> None:
        self.name = name
        self.at = LOOPBACK
        self._arguments = arguments
        self.host = settings.get("HOST", self.at.address)
        self.port, self.ops_port = int(settings.get("PORT", 0)) or free_port(), free_port()
        self._log = folder / f"{name}-{self.port}-{self.ops_port}.log"
        self._settings = {
            "HOST": self.host,
            "PORT": str(self.port),
            "OPS_HOST": self.at.address,
            "OPS_PORT": str(self.ops_port),
            **settings,
        }
        self._process: Process | None = None
        self._next_start: dict[str, str] = {}
        # The exit status of each end, in order, and the log of those that were not requested.
        self.ends: list[int] = []
        self.crashes: list[str] = []
        self._end_asked = False
        self._may_start = asyncio.Event()
        self._may_start.set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def ops_url(self) -> str:
        return f"http://{self.at.address}:{self.ops_port}"

    def on(self, host: Host) -> Self:
        """Let it run on another host, before it is started."""
        self.at, self.host = host, host.address
        self._settings |= {"HOST": host.address, "OPS_HOST": host.address}
        return self

    async def run(self) -> None:
        while True:
            await self._may_start.wait()
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(*ENDS_WITH_PARENT, *self.at.enter, sys.executable, "-m", self.name, *self._arguments),
                    cwd=ROOT,
                    env={**os.environ, **self._settings, **self._next_start},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the run, which stops its services in order
                )
            self._end_asked = VARIABLE in self._next_start
            self._next_start = {}
            try:
                self.ends.append(await self._process.wait())
                if not self._end_asked:
                    self.crashes.append(f"{self.name} ended with {self.ends[-1]}: {self.log_tail()}")
            except asyncio.CancelledError:
                self._process.kill()
                await self._process.wait()
                raise
            await asyncio.sleep(RESTART_AFTER_S)

    @property
    def pid(self) -> int:
        """The pid of the process that runs, or ran last."""
        return self._process.pid if self._process else 0

    def log_tail(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1500:]

    def logged(self, *words: str) -> bool:
        """Whether its log has a line with all these words."""
        lines = self._log.read_text(errors="replace").splitlines()
        return any(all(word in line for word in words) for line in lines)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._end_asked = self._end_asked or number in (signal.SIGTERM, signal.SIGKILL)
            self._process.send_signal(number)

    async def stop(self) -> int:
        """SIGTERM; return the exit status."""
        before = len(self.ends)
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(STOPS_WITHIN_S):
            while len(self.ends) == before:
                await asyncio.sleep(0.02)
        return self.ends[-1]

    async def restart(self, **settings: str) -> None:
        """Restart it, this once with these additional settings."""
        self._next_start = settings
        code = await self.stop()
        assert code == 0, f"{self.name} ended with {code}"
        await self.ready()

    async def take_away(self) -> None:
        """Stop it, and do not restart it before `bring_back`."""
        self._may_start.clear()
        assert await self.stop() == 0

    def bring_back(self) -> None:
        """Allow it to be started again."""
        self._may_start.set()

    async def arm(self, point: Point, times: int) -> int:
        """Restart it so that it will kill itself at a failpoint; return the index of that end."""
        self._next_start = {VARIABLE: f"{point}:{times}"}
        await self.stop()
        awaited = len(self.ends)
        await self.ready()
        return awaited

    async def died(self, awaited: int, within_s: float = DIES_WITHIN_S) -> None:
        """Return once it has killed itself and runs again."""
        try:
            async with asyncio.timeout(within_s):
                while len(self.ends) == awaited:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.name} did not reach its failpoint; {self.log_tail()}") from None
        assert self.ends[awaited] == -signal.SIGKILL, f"{self.name} ended with {self.ends[awaited]}"
        await asyncio.sleep(RESTART_AFTER_S)
        await self.ready()

    async def ready(self, within_s: float = 60) -> None:
        """Return once `/readyz` is 200."""
        await self._answers("readyz", within_s)

    async def alive(self, within_s: float = 60) -> None:
        """Return once `/healthz` is 200: it may not be ready yet."""
        await self._answers("healthz", within_s)

    async def _answers(self, question: str, within_s: float) -> None:
        async with aiohttp.ClientSession() as session, asyncio.timeout(within_s):
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{self.ops_url}/{question}") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)


@dataclass
class Stack:
    """The servers and services, and the links on which faults are injected."""

    rabbitmq: RabbitMQServer
    mongodb: MongoDBServer
    mariadb: MariaDBServer
    # From the gateways to RabbitMQ, and from the persisters to MongoDB.
    to_rabbitmq: Link
    to_mongodb: Link
    # Holds MongoDB's data.
    disk: Disk
    # The users' database.
    users_url: str
    auth: Service
    # The first gateway's clock.
    clock: Clock
    gateways: list[Service]
    persisters: list[Service]
    compactors: list[Service]
    reader: Service
    # Each may evaluate; persisters ask the first one what rules watch.
    alarms: list[Service]
    # Takes the webhooks.
    receiver: Receiver
    # nginx with the shipped configuration, before auth, gateways and reader.
    front_url: str
    # The age of the backup from which MongoDB is restored.
    backup_age_s: float

    async def auth_keys(self, *arguments: str) -> str:
        """Run `python -m auth keys …` as an operator does, and return its output."""
        settings = {"AUTH_DATABASE_URL": self.users_url, "SIGNING_KEY_SECRET": SECRET, "KEY_PUBLISH_SECONDS": "0"}
        return await run_auth_keys(settings, *arguments)

    @property
    def services(self) -> list[Service]:
        return [self.auth, *self.gateways, *self.persisters, *self.compactors, self.reader, *self.alarms]


@asynccontextmanager
async def running_services(services: Sequence[Service]) -> AsyncIterator[None]:
    """Run services while the context lasts, which begins when all are ready."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(service.run(), name=service.name) for service in services]
        try:
            await asyncio.gather(*(service.ready(STARTS_WITHIN_S) for service in services))
            yield
        finally:
            for task in running:
                task.cancel()


@asynccontextmanager
async def running_stack(folder: Path, disk_bytes: int, backup_age_s: float, seed: int) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(Disk(folder / "m", disk_bytes))
        servers = (
            RabbitMQServer(folder / "r"),
            MongoDBServer(disk.folder, replica_set=True),
            MariaDBServer(folder / "s"),
        )
        for server in servers:
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)
        rabbitmq, mongodb, mariadb = servers
        users = mariadb.create_database()
        await migrated(users)
        to_rabbitmq = await stack.enter_async_context(Link.to(rabbitmq.port))
        to_mongodb = await stack.enter_async_context(Link.to(mongodb.port))
        auth = Service("auth", folder, AUTH_DATABASE_URL=users, SIGNING_KEY_SECRET=SECRET, BCRYPT_COST="4")
        amqp = f"amqp://guest:guest@127.0.0.1:{to_rabbitmq.port}/"
        clock = Clock(folder / "clock")
        # Two addresses of one name, with the same port: so nginx finds gateways.
        gateway = {"BROKER_URL": amqp, "AUTH_URL": auth.url, "PORT": str(free_port())}
        gateways = [
            Service("gateway", folder, HOST=host, **gateway, **settings)
            for host, settings in zip(GATEWAYS, (clock.settings, {}), strict=True)
        ]
        mongo = f"mongodb://127.0.0.1:{to_mongodb.port}/?directConnection=true"
        receiver = await stack.enter_async_context(Receiver.listening(random.Random(f"{seed}/receiver")))
        alarming = {"AUTH_DATABASE_URL": users, "BROKER_URL": rabbitmq.url, "AUTH_URL": auth.url}
        alarming |= {"ALARM_SECRET": SECRET, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
        alarms = [Service("alarms", folder, **alarming) for _ in range(2)]
        persisting = {"BROKER_URL": rabbitmq.url, "READINGS_URL": mongo, "ALARMS_URL": alarms[0].url}
        persisters = [Service("persister", folder, **persisting, **SEALING) for _ in range(2)]
        compactors = [Service("persister", folder, "compact", READINGS_URL=mongo) for _ in range(2)]
        reader = Service("reader", folder, BROKER_URL=rabbitmq.url, READINGS_URL=mongodb.url, AUTH_URL=auth.url)
        names = await stack.enter_async_context(NameServer.serving())
        names.addresses |= {"auth.test": ["127.0.0.1"], "gateway.test": list(GATEWAYS), "reader.test": ["127.0.0.1"]}
        (folder / "front").mkdir()
        front = await stack.enter_async_context(
            running_nginx(folder / "front", names, auth=auth.port, gateway=gateways[0].port, reader=reader.port)
        )
        made = Stack(
            rabbitmq,
            mongodb,
            mariadb,
            to_rabbitmq,
            to_mongodb,
            disk,
            users,
            auth,
            clock,
            gateways,
            persisters,
            compactors,
            reader,
            alarms,
            receiver,
            front.url,
            backup_age_s,
        )
        async with running_services(made.services):
            yield made
