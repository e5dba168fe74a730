"""Hosts in network namespaces: they reach each other, a partition parts them, and nothing is left on the machine."""

import os
import subprocess
import sys

import pytest

from tests.integration.services import ROOT

# In a process of its own, which keeps its new network to its end.
PROGRAM = """
import subprocess, sys, time
from testing.servers.network import Network, NetworkError

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 5000), timeout=1)"

def reaches(here, there):
    return subprocess.run([*here, sys.executable, "-c", CONNECT, there.address], capture_output=True).returncode == 0

try:
    network = Network()
except NetworkError as error:
    sys.exit(f"NOT RUN: {error}")
first, second, third = (network.host(f"host-{number}") for number in (1, 2, 3))
listening = [subprocess.Popen([*host.enter, sys.executable, "-m", "http.server", "5000", "--bind", host.address],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for host in (first, second, third)]
try:
    deadline = time.monotonic() + 60
    while not all(reaches((), host) for host in (first, second, third)):
        assert time.monotonic() < deadline
    print("whole", reaches(first.enter, second), reaches(second.enter, third), reaches(third.enter, first))
    network.cut_off([first, second])
    print("among themselves", reaches(first.enter, second), reaches(second.enter, first))
    print("to the others", reaches(first.enter, third), reaches(third.enter, second))
    print("from here", reaches((), first), reaches((), third))
    network.heal()
    print("healed", reaches(first.enter, third), reaches(third.enter, second), reaches((), first))
finally:
    for one in listening:
        one.kill()
        one.wait()
"""


def links() -> str:
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


def test_a_partition_parts_hosts_and_nothing_is_left() -> None:
    before = links()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    if done.stderr.startswith("NOT RUN") and not os.environ.get("CI"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "whole True True True",
        "among themselves True True",
        "to the others False False",
        "from here True True",
        "healed True True True",
    ]
    assert links() == before
