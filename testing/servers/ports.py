"""Ports of 127.0.0.1: free ones, and those that a process listens on."""

import os
import random
import socket
from collections import deque
from contextlib import suppress
from pathlib import Path

LISTEN = "0A"  # proc(5), /proc/net/tcp
# Below Linux's ephemeral range (from 32768), so that no client's local port blocks a server that restarts on its port,
# and no client that keeps trying a closed port connects to itself.
CANDIDATES = range(15_000, 32_000)


# Given by this process and perhaps not listened on yet.
_given: deque[int] = deque(maxlen=100)


def _own_candidates() -> range:
    """Return the ports of this test process: those that run at the same time have ranges of their own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return CANDIDATES[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def free_port() -> int:
    """Return a port that is free now; another process may take it first, so callers must be ready to retry."""
    while True:
        port = random.SystemRandom().choice(_own_candidates())
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports that a process listens on, on any address."""
    inodes = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    ports = set()
    for table in (f"/proc/{pid}/net/tcp", f"/proc/{pid}/net/tcp6"):  # of the network that it is in
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTEN and inode in inodes:
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports
