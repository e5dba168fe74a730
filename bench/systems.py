"""Complete systems: Tidegate and its alternatives, from the device's socket to MongoDB.

All share one RabbitMQ node and one mongod, each with its own vhost and database; only one is under load at a time. All
writes of all systems are journaled and wait for the majority: of a standalone mongod, as in onebox, or of a replica set
of one, as in compose.yaml, which writes everything twice.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient, WriteConcern
from pymongo.errors import CollectionInvalid, OperationFailure

from bench.environment import Environment, node_command, start_environment
from bench.processes import ROOT, BenchProcess, LineProcess, cpu_of, memory_of
from bench.report import progress
from bench.versions import BASE
from persister.mongodb_errors import NAMESPACE_EXISTS
from runtime.compiled import VARIABLE as COMPILED
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port
from testing.servers.process import ServerError

SAFE = WriteConcern("majority", j=True)
TIDEGATE, CLUSTERED = "Tidegate", "Tidegate, clustered collection"
NODE_MONGODB, NODE_RABBITMQ = "Node.js + MongoDB", "Node.js + RabbitMQ + MongoDB"
# With the gateway's checks of every reading, which the one above does without.
NODE_CHECKED = "Node.js + RabbitMQ + MongoDB, the same checks"
PYTHON = "Python, plain"
FLOOR = "bare insert_many of raw BSON"
NODE_SYSTEMS, PYTHON_SYSTEM = ROOT / "bench" / "peers" / "node", "bench.peers.python"
PEERS = (NODE_MONGODB, NODE_RABBITMQ, PYTHON)
SYSTEMS = (TIDEGATE, CLUSTERED, *PEERS)
# Tidegate without its compiled modules, where there are some, and the commit that targets are ratios to.
PURE, BEFORE = "Tidegate, not compiled", f"Tidegate, commit {BASE}"
VERSIONS = (PURE, BEFORE)
OURS = (TIDEGATE, CLUSTERED, *VERSIONS)

# RabbitMQ flushes its write-ahead log, shared by all systems, to the queues' segment files once it is full. This
# forces the flush now and waits for it; the log itself rolls over asynchronously.
ROLL_OVER = (
    "ra_log_wal:force_roll_over(ra_log_wal), timer:sleep(100), ra_log_segment_writer:await(ra_log_segment_writer)."
)

# By process name: its command, its environment variables, and the port that shows its readiness.
Commands = dict[str, tuple[list[str], dict[str, str], int]]


class SharedServers:
    """The servers that all systems share: an environment with its RabbitMQ, and a mongod."""

    def __init__(self, environment: Environment, mongodb: MongoDBServer, client: MongoClient[dict[str, Any]]) -> None:
        self.environment = environment
        self.mongodb = mongodb
        self.client = client
        # RabbitMQ is several processes: the emulator, its port mapper, its disk monitor.
        self._pids = {"RabbitMQ": environment.rabbitmq.processes(), "mongod": {mongodb.pid}}

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each server."""
        return {name: cpu_of(pids) for name, pids in self._pids.items()}

    def memory_bytes(self) -> dict[str, int]:
        """Return the resident memory of each server."""
        return {name: memory_of(pids) for name, pids in self._pids.items()}

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers, and mongod's cache."""
        rabbitmq = str(self.environment.rabbitmq.api("GET", "overview")["rabbitmq_version"])
        status = self.client.admin.command("serverStatus")
        cache = status["wiredTiger"]["cache"]["maximum bytes configured"] / 1024**3
        return {"rabbitmq": rabbitmq, "mongod": str(status["version"]), "mongodCache": f"{cache:.1f} GiB"}

    def checkpoint(self) -> None:
        """Make mongod write a checkpoint now; otherwise it would fall into some measurement of the next minute."""
        self.client.admin.command("fsync")

    def flush_writes(self) -> None:
        """Make both servers flush pending writes, so that no measurement pays for an earlier one."""
        try:
            self.environment.rabbitmq.rabbitmqctl("eval", ROLL_OVER)
        except (ServerError, subprocess.TimeoutExpired) as error:
            progress(f"    RabbitMQ did not flush its log, which may affect a measurement: {error}")
        self.checkpoint()

    def fresh(self, database: str, *, clustered: bool = False) -> Any:
        """Return an empty collection of readings with the options that a persister sets."""
        options: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}
        if clustered:
            options["clusteredIndex"] = {"key": {"_id": 1}, "unique": True}
        while True:
            self.client[database].drop_collection("readings")
            try:
                return self.client[database].create_collection("readings", write_concern=SAFE, **options)
            except CollectionInvalid:
                continue  # a persister has found it missing, and created it
            except OperationFailure as error:
                if error.code != NAMESPACE_EXISTS:
                    raise


@dataclass(frozen=True)
class System:
    """A running system and its load generator."""

    name: str
    database: str
    servers: SharedServers
    processes: dict[str, BenchProcess]
    load: LineProcess

    def fresh(self) -> Any:
        """Return its collection, recreated and empty."""
        return self.servers.fresh(self.database, clustered=self.name == CLUSTERED)

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each process that serves it."""
        servers = self.servers.cpu_s()
        if self.name == NODE_MONGODB:
            del servers["RabbitMQ"]
        return {name: process.cpu_s() for name, process in self.processes.items()} | servers

    def memory_bytes(self) -> dict[str, int]:
        """Return the resident memory of each of these processes."""
        return {name: process.memory_bytes() for name, process in self.processes.items()} | self.servers.memory_bytes()

    def require_running(self) -> None:
        """Raise BenchError if one of its processes has ended."""
        for process in self.processes.values():
            process.require_running()


@contextmanager
def start_servers(folder: Path, *, replica_set: bool = False) -> Iterator[SharedServers]:
    """Start the shared servers."""
    with (
        start_environment(folder) as environment,
        MongoDBServer(folder / "mongodb", replica_set=replica_set, cache_gb=None) as mongodb,
    ):
        client: MongoClient[dict[str, Any]] = MongoClient(mongodb.url)
        with client:
            yield SharedServers(environment, mongodb, client)


@contextmanager
def running(servers: SharedServers, name: str, connections: int, *, folder: Path = ROOT) -> Iterator[System]:
    """Run one of `SYSTEMS` or `VERSIONS`, with `connections` open connections; `folder`: a checkout of its code."""
    port, database = free_port(), _database_of(name)
    servers.fresh(database, clustered=name == CLUSTERED)
    with _started(servers, name, database, _commands(servers, name, port, database), port, connections, folder) as made:
        yield made


@contextmanager
def running_on(
    servers: SharedServers, name: str, connections: int, *, python: str, folder: Path, compiled: bool
) -> Iterator[System]:
    """Run Tidegate on another Python; `name` is the system's. Compiled modules are required if `compiled`, else off."""
    port, database = free_port(), _database_of(name)
    servers.fresh(database)
    commands = _tidegate(
        servers, port, database, python=python, clustered=False, compiled="required" if compiled else "off"
    )
    with _started(servers, name, database, commands, port, connections, folder) as made:
        yield made


def missing_build() -> dict[str, str]:
    """Return what cannot be measured if Tidegate runs its sources here, with the reason; nothing if it is compiled."""
    command = [sys.executable, "-c", "from runtime.compiled import use_compiled; use_compiled()"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {COMPILED: "required"}, capture_output=True, text=True, check=False
    )
    why = f"{TIDEGATE} is not compiled: {done.stderr.strip()}"
    return {f"{TIDEGATE}, compiled": why} if done.returncode else {}


def _database_of(system: str) -> str:
    return "bench_" + "_".join("".join(one if one.isalnum() else " " for one in system.lower()).split())


@contextmanager
def _started(
    servers: SharedServers, name: str, database: str, commands: Commands, port: int, connections: int, folder: Path
) -> Iterator[System]:
    processes: dict[str, BenchProcess] = {}
    with ExitStack() as stack:
        for what, (command, environment, ready) in commands.items():
            log = servers.environment.folder / f"{database}-{what}.log"
            process = BenchProcess(command, log=log, environment=environment, folder=folder)
            processes[what] = stack.enter_context(process)
            if ready:
                processes[what].wait_for_port(ready)
        processes["server" if "server" in processes else "gateway"].wait_for_port(port)
        load_command = [sys.executable, "-m", "bench.load", str(port)]
        load = stack.enter_context(LineProcess(load_command, log=servers.environment.folder / f"{database}-load.log"))
        # Real tokens, which every system verifies at connect.
        load.send([servers.environment.device_auth(number) for number in range(connections)])
        load.request({"connect": connections})
        yield System(name, database, servers, processes, load)


def _commands(servers: SharedServers, name: str, port: int, database: str) -> Commands:
    """Return the processes of a system."""
    if name in OURS:
        compiled = "off" if name in VERSIONS else "auto"
        return _tidegate(servers, port, database, clustered=name == CLUSTERED, compiled=compiled)
    environment = {"PORT": str(port), "MONGODB_URL": servers.mongodb.url, "DATABASE": database}
    environment |= servers.environment.node_settings()
    if name == NODE_MONGODB:
        return {"server": (node_command(NODE_SYSTEMS, "to_mongodb.js"), environment, port)}
    environment |= {"AMQP_URL": servers.environment.rabbitmq.create_vhost(), "QUEUE": "readings"}
    if name == PYTHON:
        python = [sys.executable, "-m"]
        server, consumer = [*python, f"{PYTHON_SYSTEM}.server"], [*python, f"{PYTHON_SYSTEM}.consumer"]
    else:
        script = "checked.js" if name == NODE_CHECKED else "to_rabbitmq.js"
        server, consumer = (node_command(NODE_SYSTEMS, one) for one in (script, "consumer.js"))
    return {"server": (server, environment, port), "consumer": (consumer, environment, 0)}


def _tidegate(
    servers: SharedServers,
    port: int,
    database: str,
    *,
    clustered: bool,
    compiled: str,
    python: str = sys.executable,
) -> Commands:
    """Return Tidegate's processes, as operators run them; `compiled` is TIDEGATE_COMPILED."""
    common = {
        "BROKER_URL": servers.environment.rabbitmq.create_vhost(),
        "READINGS_URL": servers.mongodb.url,
        COMPILED: compiled,
    }
    gateway_ops, persister_ops = free_port(), free_port()
    gateway = servers.environment.gateway_settings(port, gateway_ops) | common
    persister = common | {
        "READINGS_DATABASE": database,
        "READINGS_CLUSTERED": str(clustered).lower(),
        "OPS_HOST": "127.0.0.1",
        "OPS_PORT": str(persister_ops),
    }
    return {
        "gateway": ([python, "-m", "gateway"], gateway, gateway_ops),
        "persister": ([python, "-m", "persister"], persister, persister_ops),
    }
