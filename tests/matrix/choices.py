"""Which versions are run, and where each of them comes from: this machine, or a suite of Debian unpacked beside it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from testing.servers.debian import NotAvailableError, unpacked, unpacked_version
from testing.servers.pythons import packages_for
from tests.integration.services import ROOT

REQUIREMENTS = ROOT / "requirements" / "services.txt"


@dataclass(frozen=True)
class Choice:
    """One version of a program, by the beginning of its number, and the packages of a suite that have it."""

    program: str
    version: str
    suite: str
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.program}-{self.version}"


@dataclass(frozen=True)
class Found:
    """A program that can be run, in another Debian's root folder or, without one, this machine's own."""

    program: str
    version: str
    root: Path | None = None
    # Where a Python finds the packages of the services, if not in this environment.
    packages: Path | None = None

    def __str__(self) -> str:
        return f"{LABELS[self.program]} {self.version}"


LABELS = {
    "rabbitmq": "RabbitMQ",
    "mariadb": "MariaDB",
    "mysql": "MySQL",
    "nginx": "nginx",
    "python": "Python",
    "node": "Node.js",
}
RABBITMQ, NGINX = ("rabbitmq-server",), ("nginx-light",)
MARIADB, MYSQL = ("mariadb-server-core", "mariadb-client-core"), ("mysql-server-core",)
PYTHON, NODE = ("python3", "libstdc++6", "tzdata"), ("nodejs",)
CHOICES = (
    Choice("rabbitmq", "3.10", "bookworm", RABBITMQ),
    Choice("rabbitmq", "4.0", "trixie", RABBITMQ),
    Choice("rabbitmq", "4.3", "sid", RABBITMQ),
    Choice("mariadb", "10.11", "bookworm", MARIADB),
    Choice("mariadb", "11.8", "trixie", MARIADB),
    Choice("mysql", "9.7", "sid", MYSQL),
    Choice("nginx", "1.22", "bookworm", NGINX),
    Choice("nginx", "1.26", "trixie", NGINX),
    Choice("nginx", "1.30", "sid", NGINX),
    Choice("python", "3.11", "bookworm", PYTHON),
    Choice("python", "3.13", "trixie", PYTHON),
    Choice("python", "3.14", "sid", PYTHON),
    Choice("node", "20", "trixie", NODE),
    Choice("node", "24", "sid", NODE),
)
SUITES = {"debian-13": "trixie", "debian-sid": "sid"}


@dataclass(frozen=True)
class Programs:
    """What one cell runs."""

    rabbitmq: Found
    database: Found
    nginx: Found
    python: Found
    node: Found

    def with_one(self, found: Found) -> "Programs":
        """Return the same with another version of one program; MySQL takes the place of MariaDB."""
        place = "database" if found.program in ("mariadb", "mysql") else found.program
        return replace(self, **{place: found})

    def __iter__(self) -> Iterator[Found]:
        return iter((self.rabbitmq, self.database, self.nginx, self.python, self.node))


@cache
def own(program: str) -> Found:
    """Return this machine's own version; NotAvailableError if it has none."""
    if program == "python":
        return Found(program, ".".join(map(str, sys.version_info[:3])))
    if program == "node":
        node = shutil.which("node")
        if node is None:
            raise NotAvailableError("this machine has no Node.js")
        output = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        return Found(program, output.strip().removeprefix("v"))
    if shutil.which("dpkg-query") is None:
        raise NotAvailableError("this is not a Debian system")
    package = next(choice.packages[0] for choice in CHOICES if choice.program == program)
    command = ["dpkg-query", "--showformat=${Version}", "--show", package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or not done.stdout:
        raise NotAvailableError(f"{package} is not installed on this machine")
    return Found(program, re.split(r"[-+~]", done.stdout.partition(":")[2] or done.stdout)[0])


@cache
def find(choice: Choice) -> Found:
    """Return the version that was chosen; NotAvailableError says why it cannot be had."""
    try:
        if _is(installed := own(choice.program), choice.version):
            return installed
    except NotAvailableError:
        pass
    root = unpacked(choice.suite, *choice.packages)
    found = Found(choice.program, unpacked_version(root), root)
    if not _is(found, choice.version):
        raise NotAvailableError(f"Debian {choice.suite} has {found}")
    if choice.program != "python":
        return found
    return replace(found, packages=packages_for(root, found.version, REQUIREMENTS))


def defaults() -> Programs:
    """Return this machine's own programs."""
    return Programs(*(own(program) for program in ("rabbitmq", "mariadb", "nginx", "python", "node")))


def _is(found: Found, version: str) -> bool:
    return f"{found.version}.".startswith(f"{version}.")
