"""The SQLite file behind the buffer: its tables, how it is opened, and its transactions."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from device.errors import BufferFailed, BufferInUse
from device.reading import LARGEST_SEQ

# Version 2: `stored` is when a reading became known to be stored (s since 1970), NULL before; `missed` counts how often
# it had to be sent again because it was not.
SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    id INTEGER PRIMARY KEY, series TEXT, ts INTEGER, seq INTEGER, body TEXT NOT NULL,
    stored INTEGER, missed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS series (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
TABLES = {"readings", "series", "notes"}
FROM_VERSION_1 = """
ALTER TABLE readings ADD COLUMN stored INTEGER;
ALTER TABLE readings ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
"""
KEPT = "CREATE INDEX IF NOT EXISTS kept ON readings (stored, id) WHERE stored IS NOT NULL;"
# After a checkpoint the log is cut back to that size: one that is larger at the start was left by runs without any.
LOG_LIMIT = 8 << 20
SQLITE_FILE = b"SQLite format 3\0"
# Before anything is read: SQLite then needs no shared memory, which is a file, and keeps the lock until the end.
EXCLUSIVE = "PRAGMA locking_mode=EXCLUSIVE"
PRAGMAS = f"""
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
PRAGMA wal_autocheckpoint=0;
PRAGMA journal_size_limit={LOG_LIMIT};
PRAGMA cache_size=-256;
"""


def opened(path: Path | None) -> sqlite3.Connection:
    """Open or create it, in memory if there is no path, and lock it; raises BufferInUse or BufferFailed."""
    try:
        return _opened(path)
    except BufferFailed:
        raise
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise BufferInUse(f"another device has {path} open") from error
        raise BufferFailed(f"{path}: {error}") from error


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        _finish_emptying(path)
        with suppress(FileExistsError):  # it may hold a token
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    is_long = path is not None and _log_of(path).exists() and _log_of(path).stat().st_size > LOG_LIMIT
    name = ":memory:" if path is None else str(path)
    database = sqlite3.connect(name, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        database.execute(EXCLUSIVE)
        version = _version(database, path)
        database.executescript(PRAGMAS)
        upgrade = "" if version == SCHEMA_VERSION else f"PRAGMA user_version={SCHEMA_VERSION};"
        if version == 1:
            upgrade = f"{FROM_VERSION_1} {upgrade}"
        database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {upgrade} {KEPT} COMMIT;")
    except BaseException:
        database.close()
        raise
    if is_long:  # a device that never runs for long would never come to it
        with suppress(sqlite3.Error):
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return database


def counters_in(database: sqlite3.Connection) -> dict[str, int]:
    """Return the next `seq` of each series."""
    # Earlier versions counted on beyond the largest one.
    counters = dict(database.execute("SELECT name, next FROM series WHERE next <= ?", (LARGEST_SEQ,)))
    largest = "SELECT series, max(seq) FROM readings WHERE seq < ? GROUP BY series"
    for name, seq in database.execute(largest, (LARGEST_SEQ,)):
        counters[name] = max(counters.get(name, 0), seq + 1)
    return counters


def emptied(database: sqlite3.Connection, path: Path, counters: Mapping[str, int]) -> sqlite3.Connection:
    """Return the file without readings, opened again; raises OSError or sqlite3.Error.

    For a disk that the file has filled: nothing can be removed, as that adds to the log, which can be moved into the
    file only if that may grow. So a new file is written over the log, and takes the place of the old one.
    """
    log = _log_of(path)
    image = _without_readings(counters, database.execute("SELECT name, value FROM notes").fetchall())
    if log.stat().st_size < len(image):
        raise BufferFailed(f"{path}: the log is too small to be written over")
    database.close()
    with suppress(FileNotFoundError):  # if it was closed without one, the disk is not full any more
        with log.open("r+b") as file:
            file.write(image)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        log.replace(path)
    return opened(path)


def _without_readings(counters: Mapping[str, int], notes: Iterable[tuple[str, str]]) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(f"{SCHEMA} {KEPT} PRAGMA user_version={SCHEMA_VERSION};")
        with database:
            database.executemany("INSERT INTO series VALUES (?, ?)", counters.items())
            database.executemany("INSERT INTO notes VALUES (?, ?)", notes)
        return database.serialize()


def _finish_emptying(path: Path) -> None:
    """Do what is left of `emptied`, if the program was killed in it."""
    with suppress(FileNotFoundError):
        with _log_of(path).open("rb") as log:
            is_file = log.read(len(SQLITE_FILE)) == SQLITE_FILE
        if is_file:
            _log_of(path).replace(path)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _version(database: sqlite3.Connection, path: Path | None) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise BufferFailed(f"{path} was written by a newer version of this library")
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not tables >= TABLES:
        raise BufferFailed(f"{path} is another program's database")
    return int(version)


class Transaction:
    """One transaction; it is rolled back if anything fails."""

    def __init__(self, database: sqlite3.Connection, lock: threading.Lock) -> None:
        self._database = database
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            self._lock.release()
