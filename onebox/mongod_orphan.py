"""An orphaned mongod: found by the note next to its data, and killed before a new one uses the folder.

The note holds pids together with the start times of their processes, because a pid may have been reused. Without /proc
there are no start times, and nothing is killed.
"""

import asyncio
import json
import os
import signal
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from onebox.mongod_errors import MongodError

SOCKET_FOLDER_PREFIX = "tidegate-mongod-"
END_TIMEOUT_S = 10
POLL_INTERVAL_S = 0.02


def write_note(folder: Path, pid: int, socket: Path) -> None:
    """Write the note that `end_orphan` needs: the mongod, this process as its owner, the socket.

    Raises MongodError if it cannot be written.
    """
    note = {"pid": pid, "started": _started(pid), "owner": os.getpid(), "ownerStarted": _started(os.getpid())}
    try:
        _note(folder).write_text(json.dumps(note | {"socket": str(socket)}))
    except OSError as error:
        raise MongodError(f"mongod cannot start: writing in {folder} failed: {error.strerror}") from error


def remove_note(folder: Path) -> None:
    """Remove the note, once the mongod has ended."""
    _note(folder).unlink(missing_ok=True)


def remove_socket(path: Path) -> None:
    """Remove a socket, and its folder if it was created for the socket."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        if path.parent.name.startswith(SOCKET_FOLDER_PREFIX):
            path.parent.rmdir()


async def end_orphan(folder: Path) -> None:
    """Kill the mongod that an earlier owner left on this folder; raise MongodError if that owner is alive."""
    try:
        note = json.loads(_note(folder).read_bytes())
        pid, started = int(note["pid"]), int(note["started"])
        owner, owner_started = int(note["owner"]), int(note["ownerStarted"])
        socket = Path(note["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # no orphan, or none that can be identified with certainty
    if not _ended(pid, started) and _is_mongod_of(folder, pid):
        if _started(owner) == owner_started:
            raise MongodError(f"process {owner} runs a mongod on {folder}: stop that process, or choose another folder")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for _ in range(int(END_TIMEOUT_S / POLL_INTERVAL_S)):
            if _ended(pid, started):
                break
            await asyncio.sleep(POLL_INTERVAL_S)
    remove_socket(socket)
    remove_note(folder)


def _note(folder: Path) -> Path:
    return folder / "mongod.owner"


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Return a process's state, number of threads, and start time in ticks since boot (proc(5))."""
    try:
        # The name before these, in parentheses, may contain any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[17]), int(fields[19])


def _started(pid: int) -> int | None:
    stat = _stat(pid)
    return stat[2] if stat and stat[0] not in "ZX" else None


def _ended(pid: int, started: int) -> bool:
    """Return whether it has closed its files: the first thread may be a zombie while others still have them open."""
    stat = _stat(pid)
    return stat is None or stat[2] != started or (stat[0] in "ZX" and stat[1] <= 1)


def _is_mongod_of(folder: Path, pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if arguments == [b""]:
        return True  # it is exiting: its memory is freed before its files are closed
    on_folder = (b"--dbpath", os.fsencode(folder)) in pairwise(arguments)
    return on_folder and any(argument.endswith(b"/mongod") for argument in arguments)
