"""Whole systems side by side: Tidegate and what one would otherwise take, from the device's socket to MongoDB.

All share one RabbitMQ node and one mongod; each has a vhost and a database of its own. Only one has load at a time.
Every write is journaled and waits for the majority, everybody's: of a mongod alone, as onebox has it, or of a replica
set of one, as compose.yaml has it, which writes everything twice.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymongo import MongoClient, WriteConcern

from bench.processes import ROOT, Speaking, Started, cpu_of, memory_of
from bench.report import progress
from bench.stage import Stage, node_command, stage
from testing.issuer import ISSUER
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port
from testing.servers.process import ServerError

SAFE = WriteConcern("majority", j=True)
OURS, CLUSTERED = "Tidegate", "Tidegate, clustered collection"
NODE_MONGODB, NODE_RABBITMQ = "Node.js + MongoDB", "Node.js + RabbitMQ + MongoDB"
PYTHON = "Python, plain"
FLOOR = "bare insert_many of raw BSON"
NODE_SYSTEMS, PYTHON_SYSTEM = ROOT / "bench" / "peers" / "node", "bench.peers.python"
PEERS = (NODE_MONGODB, NODE_RABBITMQ, PYTHON)
SYSTEMS = (OURS, CLUSTERED, *PEERS)

# RabbitMQ writes what is left of its journal to the files of queues once there are 512 MB of it, whoever's they are. So
# it does it now, and answers when it is done; the journal is told of it and turns over on its own time.
ROLL_OVER = (
    "ra_log_wal:force_roll_over(ra_log_wal), timer:sleep(100), ra_log_segment_writer:await(ra_log_segment_writer)."
)

# By the name of a process: its command, its environment, and the port on which it listens once it is ready.
Commands = dict[str, tuple[list[str], dict[str, str], int]]


class Ground:
    """The servers that all share: a stage with its RabbitMQ, and a mongod."""

    def __init__(self, on: Stage, mongodb: MongoDBServer, client: MongoClient[dict[str, Any]]) -> None:
        self.on = on
        self.mongodb = mongodb
        self.client = client
        # RabbitMQ is a family: the emulator, its port mapper, what looks after its disk.
        self._pids = {"RabbitMQ": on.rabbitmq.processes(), "mongod": {mongodb.pid}}

    def cpu_s(self) -> dict[str, float]:
        """Return the seconds of processor time that each server has used."""
        return {name: cpu_of(pids) for name, pids in self._pids.items()}

    def memory_bytes(self) -> dict[str, int]:
        """Return the resident memory of each server."""
        return {name: memory_of(pids) for name, pids in self._pids.items()}

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers, and mongod's cache."""
        rabbitmq = str(self.on.rabbitmq.api("GET", "overview")["rabbitmq_version"])
        status = self.client.admin.command("serverStatus")
        cache = status["wiredTiger"]["cache"]["maximum bytes configured"] / 1024**3
        return {"rabbitmq": rabbitmq, "mongod": str(status["version"]), "mongodCache": f"{cache:.1f} GiB"}

    def write_out(self) -> None:
        """Have mongod write a checkpoint: what it would do within the minute anyhow, in whosever turn that falls."""
        self.client.admin.command("fsync")

    def settle(self) -> None:
        """Have both servers write out what they still have of earlier turns, so that nobody pays for another."""
        try:
            self.on.rabbitmq.rabbitmqctl("eval", ROLL_OVER)
        except (ServerError, subprocess.TimeoutExpired) as error:
            progress(f"    RabbitMQ has not turned its journal over, which a turn may feel: {error}")
        self.write_out()

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
    ground: Ground
    processes: dict[str, Started]
    load: Speaking

    def fresh(self) -> Any:
        """Return its collection, made anew and empty."""
        return self.ground.fresh(self.database, clustered=self.name == CLUSTERED)

    def cpu_s(self) -> dict[str, float]:
        """Return the seconds of processor time that each process which works for it has used."""
        servers = self.ground.cpu_s()
        if self.name == NODE_MONGODB:
            del servers["RabbitMQ"]
        return {name: process.cpu_s() for name, process in self.processes.items()} | servers

    def memory_bytes(self) -> dict[str, int]:
        """Return the resident memory of each of these processes."""
        return {name: process.memory_bytes() for name, process in self.processes.items()} | self.ground.memory_bytes()

    def must_run(self) -> None:
        """Raise BenchError when one of its processes has ended."""
        for process in self.processes.values():
            process.must_run()


@contextmanager
def ground(folder: Path, *, replica_set: bool = False) -> Iterator[Ground]:
    """Start what all share."""
    with stage(folder) as on, MongoDBServer(folder / "mongodb", replica_set=replica_set, cache_gb=None) as mongodb:
        client: MongoClient[dict[str, Any]] = MongoClient(mongodb.url)
        with client:
            yield Ground(on, mongodb, client)


@contextmanager
def running(at: Ground, name: str, connections: int) -> Iterator[System]:
    """Run one of `SYSTEMS`, with that many connections open."""
    port = free_port()
    database = "bench_" + "_".join("".join(letter if letter.isalpha() else " " for letter in name.lower()).split())
    at.fresh(database, clustered=name == CLUSTERED)
    processes: dict[str, Started] = {}
    with ExitStack() as stack:
        for what, (command, environment, ready) in _commands(at, name, port, database).items():
            log = at.on.folder / f"{database}-{what}.log"
            processes[what] = stack.enter_context(Started(command, log=log, environment=environment))
            if ready:
                processes[what].wait_for_port(ready)
        processes["server" if "server" in processes else "gateway"].wait_for_port(port)
        load_command = [sys.executable, "-m", "bench.load", str(port)]
        load = stack.enter_context(Speaking(load_command, log=at.on.folder / f"{database}-load.log"))
        # Real tokens, which every system verifies as a connection opens.
        load.say([at.on.device_auth(number) for number in range(connections)])
        load.ask({"connect": connections})
        yield System(name, database, at, processes, load)


def _commands(at: Ground, name: str, port: int, database: str) -> Commands:
    """Return the processes of a system."""
    if name in (OURS, CLUSTERED):
        return _ours(at, port, database, clustered=name == CLUSTERED)
    public_key = at.on.issuer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    environment = {
        "PORT": str(port),
        "MONGODB_URL": at.mongodb.url,
        "DATABASE": database,
        "PUBLIC_KEY_PEM": public_key.decode(),
        "TOKEN_ISSUER": ISSUER,
        "NODE_ENV": "production",
    }
    if name == NODE_MONGODB:
        return {"server": (node_command(NODE_SYSTEMS, "to_mongodb.js"), environment, port)}
    environment |= {"AMQP_URL": at.on.rabbitmq.create_vhost(), "QUEUE": "readings"}
    if name == PYTHON:
        python = [sys.executable, "-m"]
        server, consumer = [*python, f"{PYTHON_SYSTEM}.server"], [*python, f"{PYTHON_SYSTEM}.consumer"]
    else:
        server, consumer = (node_command(NODE_SYSTEMS, script) for script in ("to_rabbitmq.js", "consumer.js"))
    return {"server": (server, environment, port), "consumer": (consumer, environment, 0)}


def _ours(at: Ground, port: int, database: str, *, clustered: bool) -> Commands:
    """Return our processes, as their operators run them."""
    common = {"BROKER_URL": at.on.rabbitmq.create_vhost(), "READINGS_URL": at.mongodb.url}
    gateway_ops, persister_ops = free_port(), free_port()
    gateway = at.on.gateway_settings(port, gateway_ops) | common
    persister = common | {
        "READINGS_DATABASE": database,
        "READINGS_CLUSTERED": str(clustered).lower(),
        "OPS_HOST": "127.0.0.1",
        "OPS_PORT": str(persister_ops),
    }
    return {
        "gateway": ([sys.executable, "-m", "gateway"], gateway, gateway_ops),
        "persister": ([sys.executable, "-m", "persister"], persister, persister_ops),
    }
