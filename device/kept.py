"""Readings of the buffer that are stored, and are kept for a while all the same: the server may lose them again.

A column of the file says since when. They are no longer pending, and the first to go when the buffer or the disk is
full.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple


class KeptRow(NamedTuple):
    """A reading that is kept, without its JSON; `stored` is since when (s since 1970), by the clock of Kept."""

    id: int
    series: str
    ts: int
    seq: int
    stored: int


class Kept:
    """The kept readings of one file. `changing` opens a transaction on it."""

    def __init__(self, database: sqlite3.Connection, changing: Callable[[], AbstractContextManager[None]]) -> None:
        self._changing = changing
        self._marks: list[tuple[int, int]] = []
        # The clock of the start: one that is set later makes nothing older or younger.
        self._clock_off_s = time.time() - time.monotonic()
        self.use(database)
        if self.count:
            database.execute("UPDATE readings SET stored = ? WHERE stored > ?", (self.clock_s, self.clock_s))

    def use(self, database: sqlite3.Connection) -> None:
        """Take the file as it is opened now."""
        self._database = database
        (self.count,) = database.execute("SELECT count(*) FROM readings WHERE stored IS NOT NULL").fetchone()

    @property
    def clock_s(self) -> int:
        """The present time, in seconds since 1970."""
        return int(time.monotonic() + self._clock_off_s)

    @property
    def marks(self) -> int:
        """How many are not marked in the file yet."""
        return len(self._marks)

    def add(self, ids: Iterable[int]) -> int:
        """Keep these from now on, and return how many they are."""
        now, before = self.clock_s, len(self._marks)
        self._marks += [(now, number) for number in ids]
        added = len(self._marks) - before
        self.count += added
        return added

    def write_marks(self) -> None:
        """Mark them in the file; within a transaction of the caller, who calls `forget_marks` after it."""
        self._database.executemany("UPDATE readings SET stored = ? WHERE id = ?", self._marks)

    def forget_marks(self) -> None:
        """Note that they are marked."""
        self._marks.clear()

    def oldest(self, after: tuple[int, int], until_s: int, limit: int) -> list[KeptRow]:
        """Return the oldest that are marked, kept since `until_s` or before, and beyond `after`, a (stored, id)."""
        rows = self._database.execute(
            "SELECT id, series, ts, seq, stored FROM readings INDEXED BY kept"
            " WHERE stored IS NOT NULL AND (stored, id) > (?, ?) AND stored <= ? ORDER BY stored, id LIMIT ?",
            (*after, until_s, limit),
        )
        return [KeptRow(*row) for row in rows]

    def remove(self, ids: Iterable[int]) -> None:
        """Remove these, if the file can be written."""
        self._change("DELETE FROM readings WHERE id = ? AND stored IS NOT NULL", ids)

    def remove_oldest(self, limit: int) -> None:
        """Remove the `limit` oldest, if the file can be written."""
        self.remove([row.id for row in self.oldest((0, 0), self.clock_s, limit)])

    def make_pending(self, ids: list[int]) -> int:
        """Make these pending again, and return how many they are; 0 if the file cannot be written."""
        return self._change(
            "UPDATE readings SET stored = NULL, missed = missed + 1 WHERE id = ? AND stored IS NOT NULL", ids
        )

    def _change(self, statement: str, ids: Iterable[int]) -> int:
        changed = 0
        with suppress(sqlite3.Error):
            with self._changing():
                found = self._database.executemany(statement, ((number,) for number in ids)).rowcount
            changed = max(found, 0)
        self.count -= changed
        return changed
