"""The SQLite file behind the buffer: its tables, how it is opened, and its transactions."""

import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from device.errors import BufferFailed

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
FROM_VERSION_1 = """
ALTER TABLE readings ADD COLUMN stored INTEGER;
ALTER TABLE readings ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
"""
KEPT = "CREATE INDEX IF NOT EXISTS kept ON readings (stored, id) WHERE stored IS NOT NULL;"
# After a checkpoint the log is cut back to that size: one that is larger at the start was left by runs without any.
LOG_LIMIT = 8 << 20
# `locking_mode` before `journal_mode`: SQLite then needs no shared memory, and keeps the lock until the end.
PRAGMAS = f"""
PRAGMA locking_mode=EXCLUSIVE;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
PRAGMA wal_autocheckpoint=0;
PRAGMA journal_size_limit={LOG_LIMIT};
PRAGMA cache_size=-256;
"""


def opened(path: Path | None) -> sqlite3.Connection:
    """Open or create it, in memory if there is no path, and lock it; raises OSError or sqlite3.Error."""
    if path is not None:
        with suppress(FileExistsError):  # it may hold a token
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    name = ":memory:" if path is None else str(path)
    database = sqlite3.connect(name, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        version = _version(database, path)
        database.executescript(PRAGMAS)
        upgrade = FROM_VERSION_1 if version == 1 else ""
        database.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} {upgrade} {KEPT} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )
    except BaseException:
        database.close()
        raise
    return database


def has_long_log(path: Path | None) -> bool:
    """Return whether earlier runs have left a log that none of them came to move into the file."""
    log = None if path is None else path.with_name(f"{path.name}-wal")
    return log is not None and log.exists() and log.stat().st_size > LOG_LIMIT


def _version(database: sqlite3.Connection, path: Path | None) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise BufferFailed(f"{path} was written by a newer version of this library")
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
