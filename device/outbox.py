"""The order of sending: what came back first, then the oldest that was not sent yet, a bounded part of it in memory."""

from collections import deque

from device.buffer import Buffer
from device.reading import Row

# Rows read from the file at once, and kept in memory after they were appended.
LOADED = 500
FRESH = 2000


class Outbox:
    """What may be sent now; a reading is here, in flight, or waits for its receipt."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._again: list[list[Row]] = []
        # The rows after `_last`, the last one taken; all of them if `_complete`.
        self._fresh: deque[Row] = deque()
        self._last = 0
        self._complete = not buffer.pending
        # Put back although they come after `_last`: kept readings that are pending again.
        self._ahead: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._again or self._fresh or not self._complete)

    @property
    def has_returned(self) -> bool:
        """Whether some that were put back are still here."""
        return bool(self._again)

    def add(self, row: Row) -> None:
        """Add one that was just appended to the buffer."""
        if self._complete:
            self._fresh.append(row)
            if len(self._fresh) > FRESH:
                self._fresh.clear()
                self._complete = False

    def put_back(self, rows: list[Row]) -> None:
        """Add some that were taken and were not settled, or that were kept and are pending again."""
        if rows:
            self._ahead.update(row.id for row in rows if row.id > self._last)
            self._again.append(rows)
            self._again.sort(key=lambda some: some[0].id)

    def take(self, most: int, most_bytes: int) -> list[Row]:
        """Take the oldest, at least one if there is any; their JSON and commas have fewer than `most_bytes`."""
        if self._again:
            rows = self._again.pop(0)
            fitting = _fitting(rows, most, most_bytes)
            self.put_back(rows[fitting:])
            return rows[:fitting]
        self._load()
        fitting = _fitting(self._fresh, most, most_bytes)
        rows = [self._fresh.popleft() for _ in range(fitting)]
        if rows:
            self._last = rows[-1].id
        return rows

    @property
    def oldest_id(self) -> int | None:
        """The id of the oldest, or one below it where that is not in memory."""
        if self._again:
            return self._again[0][0].id
        if self._fresh:
            return self._fresh[0].id
        return None if self._complete else self._last

    def oldest(self) -> Row | None:
        """Return the oldest without taking it."""
        if self._again:
            return self._again[0][0]
        self._load()
        return self._fresh[0] if self._fresh else None

    def discard_oldest(self, row: Row) -> None:
        """Leave out what `oldest` returned."""
        if not self._again:
            self._last = row.id
            self._fresh.popleft()
            return
        del self._again[0][0]
        if not self._again[0]:
            del self._again[0]

    def _load(self) -> None:
        if self._complete or len(self._fresh) >= LOADED:
            return
        self._ahead = {number for number in self._ahead if number > self._last}
        last = self._fresh[-1].id if self._fresh else self._last
        while not self._complete and len(self._fresh) < LOADED:
            rows = self._buffer.after(last, 2 * LOADED)
            self._fresh.extend(row for row in rows if row.id not in self._ahead)
            self._complete = len(rows) < 2 * LOADED
            last = rows[-1].id if rows else last


def _fitting(rows: "deque[Row] | list[Row]", most: int, most_bytes: int) -> int:
    """Return how many of the first rows fit, at least one of any."""
    size = count = 0
    for row in rows:
        size += len(row.body) + 1
        if count and (count >= most or size > most_bytes):
            break
        count += 1
    return count
