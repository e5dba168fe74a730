"""A network of hosts on one machine, each in a network namespace, that can be partitioned.

Everything is inside a network and a mount namespace of this process: other programs of the machine see none of it, and
it is gone with the last process in it. Hosts are attached to a bridge, as to a switch. A partition attaches some of
them to another bridge, so that frames between the two sides are lost, in both directions and without an error. This
process, which is no member of any cluster, reaches both sides.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path

from testing.servers.host import Host
from testing.servers.namespaces import mount_memory, private_mounts, private_network

PREFIX = "10.77.0."
OWN_ADDRESS = f"{PREFIX}1"
FIRST_HOST = 11
MAIN, CUT_OFF = "main", "cut-off"
# One for both bridges, so that hosts that are moved need not resolve this process's address again.
BRIDGE_MAC = "02:00:0a:4d:00:01"
NAMESPACES = Path("/run/netns")  # where ip-netns(8) keeps them
NAMESPACES_BYTES = 1 << 20


class NetworkError(Exception):
    """A network cannot be made here; the message says why."""


class Network:
    """The network; made by the main thread, before any other is started."""

    def __init__(self) -> None:
        """Enter the namespaces; NetworkError where that is not permitted."""
        if threading.active_count() > 1:
            raise NetworkError("threads are running, which would stay in the old network")
        for program in ("ip", "nsenter"):
            if shutil.which(program) is None:
                raise NetworkError(f"the program {program} is not installed")
        if os.geteuid() != 0 or not private_mounts() or not private_network():
            raise NetworkError("network namespaces are not permitted: root (CAP_SYS_ADMIN) is needed")
        NAMESPACES.mkdir(parents=True, exist_ok=True)
        if not mount_memory(NAMESPACES, NAMESPACES_BYTES):
            raise NetworkError("mounting is not permitted")
        self._hosts: list[Host] = []
        self._away: set[Host] = set()
        _ip("link", "set", "lo", "up")
        for bridge, size in ((MAIN, 24), (CUT_OFF, 32)):
            _ip("link", "add", bridge, "address", BRIDGE_MAC, "type", "bridge")
            _ip("address", "add", f"{OWN_ADDRESS}/{size}", "dev", bridge)
            _ip("link", "set", bridge, "up")

    def host(self, name: str) -> Host:
        """Add a host; `name` has at most 13 characters."""
        address = f"{PREFIX}{FIRST_HOST + len(self._hosts)}"
        _ip("netns", "add", name)
        _ip("link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"v-{name}", "master", MAIN, "up")
        for words in (
            ("address", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-netns", name, *words)
        host = Host(name, address, ("nsenter", f"--net={NAMESPACES / name}", "--"))
        self._hosts.append(host)
        return host

    def cut_off(self, hosts: Iterable[Host]) -> None:
        """Part these hosts from all others; among each other they stay connected."""
        for host in hosts:
            _ip("link", "set", f"v-{host.name}", "master", CUT_OFF)
            _ip("route", "replace", f"{host.address}/32", "dev", CUT_OFF, "src", OWN_ADDRESS)
            self._away.add(host)

    def heal(self) -> None:
        """End the partition."""
        for host in self._away:
            _ip("link", "set", f"v-{host.name}", "master", MAIN)
            _ip("route", "del", f"{host.address}/32", "dev", CUT_OFF)
        self._away.clear()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")
