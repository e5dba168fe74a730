"""Whole systems side by side: Tidegate and what one would otherwise take, from the device's socket to MongoDB.

All share one RabbitMQ node and one mongod, each with its own vhost and database; only one has load at a time. Every
write, everybody's, is journaled and waits for the majority: of a standalone mongod, or of a replica set of one.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymongo import MongoClient, WriteConcern

from bench.processes import TICKS, Speaking, Started
from bench.stage import Stage, installed_node, stage
from tests.runtime.issuer import ISSUER
from tests.servers.mongodb import MongoDBServer
from tests.servers.ports import free_port

HERE = Path(__file__).parent
SAFE = WriteConcern("majority", j=True)
PEERS = HERE / "peers"
NAMES = ("Tidegate", "Tidegate, clustered", "Node.js, MongoDB", "Node.js, RabbitMQ, MongoDB", "Python, plain")
OURS = NAMES[:2]


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time of a process, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Machine:
    """The servers that all share, and what is known of them."""

    def __init__(self, on: Stage, mongodb: MongoDBServer) -> None:
        self.on = on
        self.mongodb = mongodb
        self.client: MongoClient[dict[str, Any]] = MongoClient(mongodb.url)

    def servers(self) -> dict[str, int]:
        """Return the processes that all systems use."""
        return {"RabbitMQ": self.on.rabbitmq.pid, "mongod": self.mongodb.pid}

    def fresh(self, database: str, *, clustered: bool = False) -> Any:
        """Return an empty collection of readings, of the form that a persister makes."""
        self.client[database].drop_collection("readings")
        options: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}
        if clustered:
            options["clusteredIndex"] = {"key": {"_id": 1}, "unique": True}
        return self.client[database].create_collection("readings", write_concern=SAFE, **options)


@dataclass(frozen=True)
class System:
    """One system that runs, and the load process that belongs to it."""

    name: str
    database: str
    processes: dict[str, Started]
    load: Speaking

    @property
    def clustered(self) -> bool:
        """Whether its collection is."""
        return "clustered" in self.name

    def must_run(self) -> None:
        """Raise BenchError when one of its processes has ended."""
        for process in self.processes.values():
            process.must_run()


@contextmanager
def machine(folder: Path, *, replica_set: bool = False) -> Iterator[Machine]:
    """Start what all share."""
    with stage(folder) as on, MongoDBServer(folder / "mongodb", replica_set=replica_set, cache_gb=1) as mongodb:
        found = Machine(on, mongodb)
        with found.client:
            yield found


@contextmanager
def running(at: Machine, name: str, devices: int, **settings: str) -> Iterator[System]:
    """Run one of `NAMES`, with that many connections open."""
    port, database = free_port(), "bench_" + "".join(letter for letter in name.lower() if letter.isalpha())
    at.fresh(database, clustered="clustered" in name)
    commands = (_ours if name in OURS else _peer)(at, name, port, database, settings)
    with ExitStack() as stack:
        processes = {}
        for what, (command, environment, listens) in commands.items():
            log = at.on.folder / f"{database}-{what}.log"
            processes[what] = stack.enter_context(Started(command, log=log, environment=environment))
            if listens:
                processes[what].wait_for_port(listens)
        load_command = [sys.executable, "-m", "bench.load", str(port)]
        load = stack.enter_context(Speaking(load_command, log=at.on.folder / f"{database}-load.log"))
        load.say([at.on.device_auth(number) for number in range(devices)])
        load.ask({"connect": devices})
        yield System(name, database, processes, load)


Commands = dict[str, tuple[list[str], dict[str, str], int]]


def _ours(at: Machine, name: str, port: int, database: str, settings: dict[str, str]) -> Commands:
    """Return the command, environment and port of each of our processes."""
    broker_url = at.on.rabbitmq.create_vhost()
    gateway_ops, persister_ops = free_port(), free_port()
    persister = {
        "BROKER_URL": broker_url,
        "READINGS_URL": at.mongodb.url,
        "READINGS_DATABASE": database,
        "READINGS_CLUSTERED": str("clustered" in name).lower(),
        "OPS_HOST": "127.0.0.1",
        "OPS_PORT": str(persister_ops),
        **settings,
    }
    return {
        "gateway": (
            [sys.executable, "-m", "gateway"],
            at.on.gateway_settings(port, gateway_ops) | {"BROKER_URL": broker_url},
            gateway_ops,
        ),
        "persister": ([sys.executable, "-m", "persister"], persister, persister_ops),
    }


def _peer(at: Machine, name: str, port: int, database: str, settings: dict[str, str]) -> Commands:
    """Return the same of a peer."""
    public = at.on.issuer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    environment = {
        "PORT": str(port),
        "MONGODB_URL": at.mongodb.url,
        "DATABASE": database,
        "PUBLIC_KEY_PEM": public.decode(),
        "TOKEN_ISSUER": ISSUER,
        "QUEUE": "readings",
        "NODE_ENV": "production",
        **settings,
    }
    if name == "Node.js, MongoDB":
        return {"server": ([*_node("to_mongodb.js")], environment, port)}
    environment["AMQP_URL"] = at.on.rabbitmq.create_vhost()
    if name == "Python, plain":
        python = [sys.executable, "-m"]
        return {
            "server": ([*python, "bench.peers.python.server"], environment, port),
            "consumer": ([*python, "bench.peers.python.consumer"], environment, 0),
        }
    return {
        "server": (_node("to_rabbitmq.js"), environment, port),
        "consumer": (_node("consumer.js"), environment, 0),
    }


def _node(script: str) -> list[str]:
    folder = PEERS / "node"
    return [installed_node(folder), str(folder / script)]


def reader_of_cpu(at: Machine, system: System) -> Callable[[], dict[str, float]]:
    """Return a function that gives the seconds of processor time of each process that works for a system."""
    pids = at.servers() | {what: process.pid for what, process in system.processes.items()}
    if system.name == "Node.js, MongoDB":
        del pids["RabbitMQ"]  # it knows of none
    return lambda: {what: cpu_s(pid) for what, pid in pids.items()}
