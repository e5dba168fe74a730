"""Runs one server so that no process of it outlives its owner: `python -I -S keeper.py COMMAND…`; needs only Python.

Standard input is a pipe whose other end only the owner has, so end-of-file means that the owner has ended, even by
SIGKILL. The keeper is the subreaper of all processes that the server starts, including daemons with sessions of their
own (Erlang's epmd). When the server or the owner ends, the keeper kills what is left and exits with the server's
status.
"""

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


def keep(command: list[str]) -> int:
    """Run the command until it or the owner ends, and return its exit status, 128 + n for signal n."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    server = os.fork()
    if server == 0:
        _become(command, libc)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    status = _wait(server)
    if status is None:
        os.kill(server, signal.SIGKILL)
    return _end_all(server, status)


def _become(command: list[str], libc: ctypes.CDLL) -> None:
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # in case the keeper itself is killed
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot execute {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _wait(server: int) -> int | None:
    """Return the server's wait status, or None if the owner ended first."""
    read_end, write_end = os.pipe()
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # set_wakeup_fd needs a handler
    signal.set_wakeup_fd(write_end)
    while True:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == server:
                    return ended[1]
        readable, _, _ = select.select([0, read_end], [], [])
        if 0 in readable and not os.read(0, 1024):
            return None
        with suppress(BlockingIOError):
            os.read(read_end, 1024)


def _end_all(server: int, status: int | None) -> int:
    """Kill until no child is left; children of a killed process become the keeper's."""
    with suppress(ChildProcessError):
        while True:
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pid, ended = os.waitpid(-1, 0)
            if pid == server:
                status = ended
    code = os.waitstatus_to_exitcode(status or 0)
    return 128 - code if code < 0 else code


def _children() -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                children.append(int(stat.parent.name))
    return children


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
