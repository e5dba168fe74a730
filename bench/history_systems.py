"""Both versions of the pipeline on one RabbitMQ and one mongod: gateway, persister, and a load generator."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.processes import BenchProcess, LineProcess
from bench.systems import TIDEGATE, SharedServers, System
from bench.versions import Version
from testing.servers.ports import free_port


@dataclass(frozen=True)
class VersionSystem(System):
    """A pipeline of one version; `port` is that of its gateway."""

    port: int


@contextmanager
def running_version(
    servers: SharedServers,
    version: Version,
    database: str,
    connections: int,
    gateway: Mapping[str, str] | None = None,
    **persister: str,
) -> Iterator[VersionSystem]:
    """Run gateway and persister of a version, with open connections and more of their settings."""
    environment = servers.environment
    common = {
        "BROKER_URL": environment.rabbitmq.create_vhost(),
        "READINGS_URL": servers.mongodb.url,
        "READINGS_DATABASE": database,
    }
    port, gateway_ops = free_port(), free_port()
    settings = {
        "gateway": environment.gateway_settings(port, gateway_ops) | common | dict(gateway or {}),
        "persister": common | {"OPS_HOST": "127.0.0.1", "OPS_PORT": str(free_port()), **persister},
    }
    processes: dict[str, BenchProcess] = {}
    with ExitStack() as stack:
        for module, variables in settings.items():
            log = environment.folder / f"{database}-{version.name}-{module}.log"
            processes[module] = stack.enter_context(version.running(module, log=log, settings=variables))
        processes["gateway"].wait_for_port(port)
        command = [sys.executable, "-m", "bench.load", str(port)]
        load = stack.enter_context(LineProcess(command, log=environment.folder / f"{database}-load.log"))
        load.send([environment.device_auth(number) for number in range(connections)])
        load.request({"connect": connections})
        yield VersionSystem(TIDEGATE, database, servers, processes, load, port)
