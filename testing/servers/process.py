"""A server as a process: start, stop, kill, restart on the same data and ports, pause."""

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from testing.servers import keeper
from testing.servers.host import LOOPBACK, Host
from testing.servers.ports import listening_ports

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 20
PORT_ATTEMPTS = 5
BIND_FAILED = ("address already in use", "eaddrinuse", "address in use")


class ServerError(Exception):
    """A server could not be started or used; the message includes the end of its log."""


class PortTakenError(ServerError):
    """Another process has taken one of the ports."""


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Check the condition until it holds, first every 20 ms, later less often; raise ServerError after the timeout.

    A check may cost as much as what is waited for: it reads every process in /proc.
    """
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            raise ServerError(f"not within {timeout_s} s: {what}")
        time.sleep(min(max(0.02, 0.05 * waited_s), 0.5))


def exists(pid: int) -> bool:
    """Return whether a process runs or is stopped; zombies do not count."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def stopped(pid: int) -> bool:
    """Return whether SIGSTOP has reached every thread of a process."""
    with suppress(OSError):  # a thread has ended meanwhile: the caller tries again
        threads = Path(f"/proc/{pid}/task").glob("*/stat")
        return all(thread.read_text().rpartition(")")[2].split()[0] in "Tt" for thread in threads)
    return False


def descendants(pid: int) -> dict[int, str]:
    """Return pid and name of all processes that a process has started, directly or indirectly."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            number = int(stat.parent.name)
            names[number], parents[number] = name, int(rest.split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {number: names[number] for number in found - {pid}}


class Server(ABC):
    """A server with its own folder; as a context manager it runs while the context lasts.

    The end of the context kills it: the data is no longer needed, and RabbitMQ takes 6 s for an orderly stop.
    """

    name: str
    program: str  # the name of the serving process, which a script may have started
    port: int
    start_timeout_s: float = START_TIMEOUT_S
    # What a later process needs to start it on the same data: the names of attributes.
    identity: tuple[str, ...] = ("port",)

    def __init__(self, folder: Path, *, host: Host = LOOPBACK) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.host = host
        self.log = self.folder / f"{self.name}.log"
        self._keeper: subprocess.Popen[bytes] | None = None
        self._server_pid = 0

    @abstractmethod
    def _choose_ports(self) -> None: ...

    @abstractmethod
    def _prepare(self) -> None:
        """Create the files that the first start needs."""

    @abstractmethod
    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        """Return the command line and additional environment variables."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the server responds in its own protocol."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients; it stays the same over restarts."""

    @property
    def pid(self) -> int:
        """The server's process; raises ServerError while it does not run."""
        if not self.running:
            raise ServerError(f"{self.name} does not run")
        return self._server_pid

    @property
    def running(self) -> bool:
        """Whether it runs; a paused server does."""
        return self._keeper is not None and self._keeper.poll() is None

    def processes(self) -> set[int]:
        """Return all processes of the server, including its keeper."""
        return {self._keeper.pid, *self._family()} if self._keeper else set()

    def _family(self) -> dict[int, str]:
        return descendants(self._keeper.pid) if self._keeper else {}

    def start(self) -> None:
        """Start on free ports and return once the server responds."""
        self._prepare()
        for attempt in range(PORT_ATTEMPTS):
            self._choose_ports()
            try:
                self._launch()
            except PortTakenError:
                if attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                return

    def leave_identity(self) -> None:
        """Write ports, names and passwords into the folder, for `start_again` in a later process."""
        self._identity_file.write_text(json.dumps({name: getattr(self, name) for name in self.identity}))

    def start_again(self) -> None:
        """Start on the data and the ports of an earlier process that has called `leave_identity`."""
        for name, value in json.loads(self._identity_file.read_text()).items():
            setattr(self, name, value)
        self._prepare()
        self._launch()

    @property
    def _identity_file(self) -> Path:
        return self.folder / "identity.json"

    def stop(self) -> None:
        """Stop it in an orderly way, by force after 20 s; do nothing if it does not run."""
        if self.running:
            self.resume()
            self._signal(signal.SIGTERM)
        self._wait_for_end()

    def kill(self) -> None:
        """Kill it by SIGKILL, like a crash; its helper processes end as well."""
        self._signal(signal.SIGKILL)
        self._wait_for_end()

    def restart(self) -> None:
        """Restart it on the same data and ports."""
        self.stop()
        self._launch()

    def check_alive(self) -> None:
        """Raise ServerError with the end of its log if it has ended by itself, after starting it again for others."""
        if self._keeper is None or self.running:
            return
        status, log = self._keeper.returncode, self.log.read_text(errors="replace")
        self._launch()
        raise ServerError(f"{self.name} had ended with status {status} and was started again; its log: {log[-4000:]}")

    def pause(self) -> None:
        """Pause it (SIGSTOP): connections stay open, but it does not respond."""
        self._signal(signal.SIGSTOP)
        # A busy machine stops a process's threads one by one, and one of them may still respond meanwhile.
        wait_until(lambda: stopped(self.pid), f"{self.name} is paused")

    def resume(self) -> None:
        """Resume it after a pause."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.running:
            self.kill()
        self._wait_for_end()

    def _launch(self) -> None:
        command, environment = self._command()
        with self.log.open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, *self.host.enter, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self.folder,
                env=os.environ | dict(environment),
                start_new_session=True,  # Ctrl-C is for pytest, which stops its servers in order
            )
        try:
            wait_until(self._ready, f"{self.name} answers ({self.log})", self.start_timeout_s)
        except BaseException:
            self._end_by_force()
            raise

    def _ready(self) -> bool:
        if not self.running:
            log = self.log.read_text(errors="replace")
            taken = any(words in log.lower() for words in BIND_FAILED)
            raise (PortTakenError if taken else ServerError)(f"{self.name} has ended: {log[-2000:]}")
        # Check that it listens itself: another run's server on the same port would respond as well.
        for pid, name in self._family().items():
            if name == self.program and self.port in listening_ports(pid) and self._answers():
                self._server_pid = pid
                return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _wait_for_end(self) -> None:
        if self._keeper is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(STOP_TIMEOUT_S)
        self._end_by_force()

    def _end_by_force(self) -> None:
        assert self._keeper
        assert self._keeper.stdin
        self._keeper.stdin.close()  # the keeper kills all that is left and exits
        self._keeper.wait()
