"""Where a process runs: this machine, or a network namespace with an address of its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """An address, and the command that runs another one where this is its own address."""

    name: str
    address: str
    enter: tuple[str, ...] = ()


LOOPBACK = Host("localhost", "127.0.0.1")
