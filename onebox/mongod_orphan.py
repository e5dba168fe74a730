"""The mongod that an owner has left behind: found by the note beside its data, ended before another takes the folder.

The note holds pids with the times at which their processes started, as a pid alone may be a stranger's by now.
Without /proc there are no such times, and nothing is ended.
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
    """Leave in the folder what end_orphan needs to know: its mongod, this process as its owner, its socket.

    Raises MongodError where that cannot be written.
    """
    note = {"pid": pid, "started": _started(pid), "owner": os.getpid(), "ownerStarted": _started(os.getpid())}
    try:
        _note(folder).write_text(json.dumps(note | {"socket": str(socket)}))
    except OSError as error:
        raise MongodError(f"mongod cannot start: writing in {folder} failed: {error.strerror}") from error


def remove_note(folder: Path) -> None:
    """Remove it when the mongod has ended."""
    _note(folder).unlink(missing_ok=True)


def remove_socket(path: Path) -> None:
    """Remove a socket, and its folder if that is its own."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        if path.parent.name.startswith(SOCKET_FOLDER_PREFIX):
            path.parent.rmdir()


async def end_orphan(folder: Path) -> None:
    """End the mongod that an earlier owner has left on this folder; raise MongodError where that owner is alive."""
    try:
        note = json.loads(_note(folder).read_bytes())
        pid, started = int(note["pid"]), int(note["started"])
        owner, owner_started = int(note["owner"]), int(note["ownerStarted"])
        socket = Path(note["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing left behind, or nothing that can be told from a stranger
    if not _ended(pid, started) and _is_mongod_of(folder, pid):
        if _started(owner) == owner_started:
            raise MongodError(f"process {owner} runs a mongod on {folder}: end that process, or take another folder")
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
    """Return a process's state, threads, and start in ticks since boot (proc(5))."""
    try:
        # The name before these, in parentheses, may itself hold any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[17]), int(fields[19])


def _started(pid: int) -> int | None:
    stat = _stat(pid)
    return stat[2] if stat and stat[0] not in "ZX" else None


def _ended(pid: int, started: int) -> bool:
    """Return whether it has let go of its files: its first thread may be a zombie while the others still hold them."""
    stat = _stat(pid)
    return stat is None or stat[2] != started or (stat[0] in "ZX" and stat[1] <= 1)


def _is_mongod_of(folder: Path, pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if arguments == [b""]:
        return True  # it is ending already, and its memory has gone before its files
    on_folder = (b"--dbpath", os.fsencode(folder)) in pairwise(arguments)
    return on_folder and any(argument.endswith(b"/mongod") for argument in arguments)
