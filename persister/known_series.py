"""The series that this worker has seen, by the bytes that name them: a known series needs no decoding."""

import time
from collections.abc import Iterable
from typing import Any

import bson

from readings.document import DocumentError, decode_document, series_bytes
from readings.keys import series_key

# A series unused for this time is forgotten within the same time again: devices come and go. Each reading of a series
# that sends less often is decoded, which takes some 100 us.
TURN_EVERY_S = 1800.0


def series_key_of(document: bytes) -> dict[str, Any]:
    """Return the key of the series that a document belongs to; DocumentError if it is not a reading."""
    name = series_bytes(document)  # raises if the right key is in the wrong place
    decoded = decode_document(document)["_id"]
    key = series_key(decoded["owner"], decoded["device"], decoded["sensorType"])
    if bson.encode(key)[4:-1] != name:  # a field occurs twice, or is not a plain string
        raise DocumentError("the _id has not the bytes of its owner, device and sensorType")
    return key


def key_of_name(name: bytes) -> dict[str, Any]:
    """Return the key of a series from the bytes that name it, as `series_bytes` returned them of a reading."""
    decoded: dict[str, Any] = bson.decode((len(name) + 5).to_bytes(4, "little") + name + b"\0")
    return series_key(decoded["owner"], decoded["device"], decoded["sensorType"])


class KnownSeries:
    """A bounded set of series names, as bytes, without those to which nothing came for half an hour to an hour.

    It is true of one database. `epoch` counts how often everything was forgotten: a series that was known in an earlier
    epoch may not be known now.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # Used since the last turn, and only before it: these are forgotten at the next. So what is used all the time
        # takes one look into a set.
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()
        self._turned_at = time.monotonic()
        # Series stored into since the database was last found unchanged.
        self._stored: set[bytes] = set()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def touch(self, name: bytes) -> bool:
        """Return whether a series is known, and record that it is used."""
        if name in self._recent:
            return True
        if name not in self._older:
            return False
        self.add(name)
        return True

    def add(self, name: bytes) -> None:
        """Remember a series, once its document in `series` is written; if there is no room, for an older one."""
        self._turn_if_due()
        for known in (self._older, self._recent):
            known.discard(name)
        if len(self) >= self._capacity:
            if not self._older:
                self._turn()
            self._older.pop()
        self._recent.add(name)

    def _turn_if_due(self) -> None:
        if time.monotonic() - self._turned_at >= TURN_EVERY_S:
            self._turn()

    def _turn(self) -> None:
        self._older, self._recent = self._recent, set()
        self._turned_at = time.monotonic()

    def forget(self, owner: str) -> int:
        """Forget the series of an owner; return how many there were."""
        start = bson.encode({"owner": owner})[4:-1]
        count = 0
        for known in (self._recent, self._older):
            names = [name for name in known if name.startswith(start)]
            known.difference_update(names)
            count += len(names)
        return count

    def record_stored(self, names: Iterable[bytes]) -> None:
        """Record that readings of these series were written; called often, so that what is unused is forgotten."""
        self._turn_if_due()
        self._stored.update(names)
        while len(self._stored) > self._capacity:  # only if the database could not be checked for long
            self._stored.pop()

    def take_stored(self) -> set[bytes]:
        """Return the series recorded as stored, and clear the record."""
        taken, self._stored = self._stored, set()
        return taken

    def forget_all(self, stored: set[bytes]) -> list[bytes]:
        """Forget every series; return those that were known and are in `stored` or were recorded as stored since."""
        self.epoch += 1
        stored = stored | self.take_stored()
        known = self._recent | self._older
        self._recent, self._older = set(), set()
        return [name for name in stored if name in known]
