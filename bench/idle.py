"""The cost of an idle connection: memory, from the slope between two numbers of connections, and CPU to connect."""

import time
from pathlib import Path
from statistics import median

from bench.environment import NAMES, Environment
from bench.processes import ROOT
from bench.report import Figure, progress

SETTLE_S = 1.5
MAX_MEMORY_RATIO, MAX_CONNECT_RATIO = 0.8, 1.0


def idle(environment: Environment, rounds: int, fewer: int, more: int) -> list[Figure]:
    """Measure each peer with fresh processes, alternating."""
    progress(f"idle connections, from {fewer:,} to {more:,}")
    memory: dict[str, list[float]] = {name: [] for name in NAMES}
    cpu: dict[str, list[float]] = {name: [] for name in NAMES}
    for round_number in range(rounds):
        for name in NAMES:
            kilobytes, cpu_us = slope(environment, name, fewer, more)
            memory[name].append(kilobytes)
            cpu[name].append(cpu_us)
            progress(f"  {round_number + 1}/{rounds} {name:8} {kilobytes:6.1f} kB, {cpu_us:6.0f} µs to connect")
    kilobytes_of = {name: median(values) for name, values in memory.items()}
    cpu_of = {name: median(values) for name, values in cpu.items()}
    return [
        *(Figure(f"memory of an idle connection: {name}", value, "kB") for name, value in kilobytes_of.items()),
        Figure("  of the Node.js server's", kilobytes_of["gateway"] / kilobytes_of["node"], "x", MAX_MEMORY_RATIO),
        *(Figure(f"CPU to connect: {name}", value, "µs") for name, value in cpu_of.items()),
        Figure("  of the Node.js server's", cpu_of["gateway"] / cpu_of["node"], "x", MAX_CONNECT_RATIO),
    ]


def slope(environment: Environment, name: str, fewer: int, more: int, folder: Path = ROOT) -> tuple[float, float]:
    """Return the resident kilobytes and the µs of CPU of one additional connection to that peer.

    `folder`: a checkout of the gateway.
    """
    with environment.peer(name, more, folder) as peer:
        found = []
        for number in (fewer, more):
            peer.load.request({"connect": number})
            time.sleep(SETTLE_S)
            found.append((peer.server.memory_bytes(), peer.server.cpu_s()))
    (memory, cpu), (more_memory, more_cpu) = found
    return (more_memory - memory) / (more - fewer) / 1000, (more_cpu - cpu) / (more - fewer) * 1e6
