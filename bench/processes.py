"""Processes of a bench: started with their own port, measured through /proc, ended by their id, gone when it is gone.

Linux only, as /proc is read.
"""

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
# Of util-linux: the kernel ends the process when its parent ends, however that ends. It becomes the command itself.
ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A bench cannot be run; the message says what is missing or what went wrong."""


def cpu_of(pids: Iterable[int]) -> float:
    """Return the seconds of processor time of processes, all threads, user and system; those that have ended are 0."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += int(fields[11]) + int(fields[12])
    return found / TICKS


def memory_of(pids: Iterable[int]) -> int:
    """Return the resident memory of processes, in bytes; those that have ended are 0."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            found += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return found * PAGE_BYTES


class Started:
    """One process, as long as the context lasts."""

    def __init__(self, command: list[str], *, log: Path, environment: dict[str, str] | None = None) -> None:
        self._command = command
        self._log = log
        self._environment = os.environ | (environment or {})
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*ENDS_WITH_PARENT, *self._command],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.speaks else log,
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

    speaks = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for_port(self, port: int) -> None:
        """Return when something listens on `port` of 127.0.0.1; BenchError when the process ends before."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self.must_run()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise BenchError(f"{self._command}: nothing listens on port {port}\n{self.log_end()}")

    def must_run(self) -> None:
        """Raise BenchError when the process has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self._command} has ended with {self._process.returncode}\n{self.log_end()}")

    def log_end(self) -> str:
        """Return the last lines of what it wrote."""
        return self._log.read_text(errors="replace")[-2000:]

    def cpu_s(self) -> float:
        """Return the seconds of processor time that it has used, all threads, user and system."""
        return cpu_of([self.pid])

    def memory_bytes(self) -> int:
        """Return its resident memory."""
        return self._status("VmRSS:")

    def peak_memory_bytes(self) -> int:
        """Return the most that its resident memory has ever been."""
        return self._status("VmHWM:")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self._command} has ended")


class Speaking(Started):
    """A process that takes JSON lines and answers each with one."""

    speaks = True

    def say(self, line: Any) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.must_run()
            raise

    def hear(self) -> dict[str, Any]:
        """Return its next line; BenchError when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(STOP_TIMEOUT_S)
            self.must_run()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, line: Any) -> dict[str, Any]:
        """Send one line and return the answer."""
        self.say(line)
        return self.hear()
