"""Child processes of a benchmark: started, measured through /proc (Linux only), and ended with it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
# From util-linux: the kernel kills the process when its parent ends for any reason. It execs the command.
ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """A benchmark cannot run; the message says why."""


def cpu_of(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes, all threads, user and system; ended processes count 0."""
    found = 0.0
    for pid in pids:
        with suppress(OSError):
            found += time.clock_gettime(_cpu_clock_of(pid))
    return found


def _cpu_clock_of(pid: int) -> int:
    """Return the id of a process' CPU clock, in nanoseconds where /proc/PID/stat has ticks of 10 ms.

    As clock_getcpuclockid(3) makes it on Linux: the complement of the pid, shifted by three bits, and CPUCLOCK_SCHED.
    """
    return ~pid << 3 | 2


def memory_of(pids: Iterable[int]) -> int:
    """Return the resident memory of processes in bytes; ended processes count 0."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            found += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return found * PAGE_BYTES


class BenchProcess:
    """One process that runs while the context is active."""

    def __init__(
        self, command: list[str], *, log: Path, environment: dict[str, str] | None = None, folder: Path = ROOT
    ) -> None:
        """`folder`: where the command runs, and so whose modules it finds."""
        self._command = command
        self._log = log
        self._folder = folder
        self._environment = os.environ | (environment or {})
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*ENDS_WITH_PARENT, *self._command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.line_protocol else log,
                stderr=log,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    line_protocol = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for_port(self, port: int) -> None:
        """Return when something listens on `port` of 127.0.0.1; BenchError if the process ends first."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self.require_running()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise BenchError(f"{self._command}: nothing listens on port {port}\n{self.log_tail()}")

    def require_running(self) -> None:
        """Raise BenchError if the process has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self._command} has ended with {self._process.returncode}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def cpu_s(self) -> float:
        """Return its CPU seconds, all threads, user and system."""
        return cpu_of([self.pid])

    def memory_bytes(self) -> int:
        """Return its resident memory."""
        return self._status("VmRSS:")

    def peak_memory_bytes(self) -> int:
        """Return its peak resident memory."""
        return self._status("VmHWM:")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self._command} has ended")


class LineProcess(BenchProcess):
    """A process that reads JSON lines and responds to each with one."""

    line_protocol = True

    def send(self, line: Any) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.require_running()
            raise

    def receive(self) -> dict[str, Any]:
        """Return its next line; BenchError if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(STOP_TIMEOUT_S)
            self.require_running()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def request(self, line: Any) -> dict[str, Any]:
        """Send one line and return the response."""
        self.send(line)
        return self.receive()
