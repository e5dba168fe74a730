"""READINGS → FILE: readings that the server does not have yet, in one SQLite file, and the next `seq` of each series.

Those that are known to be stored may be kept for a while, in case the server's database is restored from a backup.

A reading is in the operating system's cache when `append` returns, so that a killed process loses nothing; `sync`,
which the device calls while one waits, makes it outlive a power cut. The file is locked as long as it is open.

The next `seq` of a series is the largest in the file and one, or what `series` says: it is written in the transaction
that removes readings, so that an insert touches one page only.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from device.errors import BufferFailed
from device.file import Transaction, counters_in, emptied, opened
from device.kept import Kept
from device.reading import LARGEST_SEQ, Row, numbered

# Transactions between two checkpoints: each adds about two pages of 4 KiB to the log.
CHECKPOINT_AFTER = 1000
# Removals that wait for one transaction, at most until the next `sync`.
REMOVE_AT_ONCE = 1000
# Kept readings that are removed at a time when the disk is full.
MAKE_ROOM = 1000

# `fdatasync` does not write the file's times, which SQLite does not need either.
_to_disk = getattr(os, "fdatasync", os.fsync)

_INSERT = "INSERT INTO readings (id, series, ts, seq, body) VALUES (?, ?, ?, ?, ?)"
_SELECT = "SELECT id, series, ts, seq, body FROM readings WHERE "
_DELETE = "DELETE FROM readings WHERE id = ?"


class Buffer:
    """The file, or memory if there is no path. For one thread; only `sync` may run in another one at the same time."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Open or create it; raises BufferInUse or BufferFailed."""
        self._path = None if path is None else Path(path).absolute()
        self._log_file = -1
        self._removed: list[int] = []
        self._has_skipped = self._dirty = self._log_in_doubt = False
        self._lock = threading.Lock()
        self._default_series: str | None = None
        self.transactions = 0
        self._database = opened(self._path)
        try:
            with self._translating_errors():
                self.kept = Kept(self._database, self._changing)
                rows = self._database.execute("SELECT count(*), coalesce(max(id), 0) FROM readings").fetchone()
                self.pending: int = rows[0] - self.kept.count
                self.last_id: int = rows[1]  # of the last reading that was added
                self._next = counters_in(self._database)
            if known := self.noted("sensorType"):
                self._count_default_as(known[1:])
        except BufferFailed:
            self._database.close()
            raise

    def default_series(self, name: str) -> None:
        """Count readings without a sensorType as this series, also after a restart; raises BufferFailed.

        Until it is known, all series count on together: one of them is the one without a name.
        """
        if name != self._default_series:
            self.note("sensorType", f"={name}")
            self._count_default_as(name)

    def _count_default_as(self, name: str) -> None:
        self._next[name] = max(self._next.pop("", 0), self._next.get(name, 0))
        self._default_series = name

    def series_of(self, row: Row) -> str:
        """Return the sensorType under which this reading is stored."""
        return self.series_named(row.series)

    def series_named(self, name: str) -> str:
        """Return that name, or the sensorType of readings without one."""
        return name or self._default_series or ""

    def append(self, reading: Mapping[str, Any]) -> Row:
        """Add a reading, with `ts` and `seq` where it has none.

        Raises ValueError or TypeError if it is not JSON or too large, BufferFailed if it could not be written.
        """
        row = numbered(reading, self.last_id + 1, self._next_of)
        self._insert(row)
        self.last_id = row.id
        self._count(row)
        return row

    def skip(self, reading: Mapping[str, Any]) -> dict[str, Any]:
        """Return a reading as `append` would add it: its `seq` is used up, so that the server knows of a gap."""
        row = numbered(reading, self.last_id + 1, self._next_of)
        self._count(row)
        self._has_skipped = True
        return dict(json.loads(row.body))

    def _count(self, row: Row) -> None:
        if row.seq is not None and row.seq < LARGEST_SEQ:  # nothing follows the largest one
            series = self.series_of(row)
            self._next[series] = max(self._next.get(series, 0), row.seq + 1)

    def _next_of(self, name: str) -> int:
        if self._default_series is None:
            return max(self._next.values(), default=0)
        return self._next.get(self.series_named(name), 0)

    def _insert(self, row: Row) -> None:
        try:
            try:
                self._database.execute(_INSERT, row)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_FULL":
                    raise
                self._make_room()
                self._database.execute(_INSERT, row)
        except sqlite3.Error as error:
            raise BufferFailed(f"{self._path}: {error}") from error
        self.pending += 1
        self._written()

    def _make_room(self) -> None:
        """Remove from a full disk what the server has, if that is possible."""
        if self.kept.count:
            with suppress(sqlite3.Error):
                self._checkpoint()
                self.drop_kept(MAKE_ROOM)
                return
        (rows,) = self._database.execute("SELECT count(*) FROM readings").fetchone()
        if self._path is None or rows > len(self._removed) + self.kept.count:
            return
        with self._lock, suppress(OSError):
            self._close_log()
            self._database = emptied(self._database, self._path, self._next)
            self.kept.forget_marks()
            self.kept.use(self._database)
        self.write_removals()

    def after(self, last: int, limit: int) -> list[Row]:
        """Return up to `limit` readings that came after the one with this id, oldest first; raises BufferFailed."""
        with self._translating_errors():
            rows = self._database.execute(_SELECT + "id > ? AND stored IS NULL ORDER BY id LIMIT ?", (last, limit))
            return [Row(*row) for row in rows]

    def with_ids(self, ids: Iterable[int]) -> list[Row]:
        """Return these readings, in the order of their ids; raises BufferFailed."""
        with self._translating_errors():
            found = (self._database.execute(_SELECT + "id = ?", (number,)) for number in sorted(ids))
            return [Row(*row) for rows in found for row in rows]

    def remove(self, ids: Iterable[int]) -> None:
        """Remove readings, in the file with the next `sync` at the latest: until then a restart finds them again."""
        before = len(self._removed)
        self._removed += ids
        self.pending -= len(self._removed) - before
        if len(self._removed) >= REMOVE_AT_ONCE:
            self.write_removals()

    def settle(self) -> None:
        """Count one reading less as pending; `remove_settled` follows when its handler has ended."""
        self.pending -= 1

    def remove_settled(self, number: int) -> None:
        """Remove a reading whose handler has ended; if the program is killed before, its handler is called again."""
        self._removed.append(number)
        self.write_removals()

    def keep(self, ids: Iterable[int]) -> None:
        """Keep readings that are stored, in the file with the next `sync`: until then a restart sends them again."""
        self.pending -= self.kept.add(ids)
        if self.kept.marks >= REMOVE_AT_ONCE:
            self.write_removals()

    def write_removals(self) -> bool:
        """Remove and keep them in the file; returns False if that fails: the next call tries again."""
        if not self._removed and not self.kept.marks and not self._has_skipped:
            return True
        try:
            with self._changing():
                self._database.executemany(_DELETE, ((number,) for number in self._removed))
                self.kept.write_marks()
        except sqlite3.Error:
            return False
        self._removed.clear()
        self._has_skipped = False
        self.kept.forget_marks()
        return True

    def drop_kept(self, limit: int) -> None:
        """Remove the oldest of those that are kept, if the file can be written."""
        if self.write_removals():
            with suppress(sqlite3.Error):
                self.kept.remove_oldest(limit)

    def return_kept(self, ids: list[int]) -> list[Row]:
        """Make kept readings pending again, and return them: they are not stored any more."""
        made = self.kept.make_pending(ids)
        self.pending += made
        return self.with_ids(ids) if made else []

    def count_missed(self, ids: Iterable[int]) -> None:
        """Count in the file that these have to be sent again, if it can be written."""
        with suppress(sqlite3.Error), self._changing():
            self._database.executemany("UPDATE readings SET missed = missed + 1 WHERE id = ?", ((n,) for n in ids))

    def missed(self) -> dict[int, int]:
        """Return how often each pending reading had to be sent again, of those that had to; raises BufferFailed."""
        with self._translating_errors():
            return dict(self._database.execute("SELECT id, missed FROM readings WHERE missed AND stored IS NULL"))

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BufferFailed(f"{self._path}: {error}") from error

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Begin and end a transaction that may remove readings: what was counted in them is kept."""
        with Transaction(self._database, self._lock):
            self._write_counters()
            yield
        self._written()

    def _written(self) -> None:
        self.transactions += 1
        self._dirty = True

    def _write_counters(self) -> None:
        self._database.executemany(
            "INSERT INTO series VALUES (?, ?) ON CONFLICT DO UPDATE SET next = excluded.next", self._next.items()
        )

    def note(self, name: str, value: str) -> None:
        """Keep a text beside the readings; raises BufferFailed."""
        with self._translating_errors():
            self._database.execute(
                "INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
            )
        self._dirty = True

    def noted(self, name: str) -> str:
        """Return that text, or an empty one; raises BufferFailed."""
        with self._translating_errors():
            found = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return "" if found is None else str(found[0])

    @property
    def needs_sync(self) -> bool:
        """Whether something was written since the last `sync`."""
        return self._dirty and self._path is not None

    def sync(self) -> None:
        """Wait until all is on the disk, and now and then move it from the log into the file; raises BufferFailed.

        For a thread of its own, and only if `needs_sync`.

        Linux reports a failed write once and forgets it: the next fsync succeeds, and the log has a hole. So after a
        failure everything is moved into the file, before anything more counts as written.
        """
        self._dirty = False
        try:
            if self._log_file < 0:
                self._log_file = os.open(f"{self._path}-wal", os.O_RDWR)
            _to_disk(self._log_file)
            if self.transactions >= CHECKPOINT_AFTER or self._log_in_doubt:
                self._checkpoint()
        except (OSError, sqlite3.Error) as error:
            self._dirty = self._log_in_doubt = True
            raise BufferFailed(f"{self._path}: {error}") from error

    def _checkpoint(self) -> None:
        with self._lock:  # inside a transaction it would fail
            ((_, pages, moved),) = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if self._log_in_doubt and moved < pages:
            raise sqlite3.OperationalError(f"only {moved} of {pages} pages of the log were moved into the file")
        self.transactions, self._log_in_doubt = 0, False

    def close(self) -> None:
        """Write what is left, and free the file."""
        self.write_removals()
        self._close_log()
        with suppress(sqlite3.Error):
            self._database.close()

    def _close_log(self) -> None:
        if self._log_file >= 0:
            with suppress(OSError):
                _to_disk(self._log_file)
            os.close(self._log_file)
            self._log_file = -1
