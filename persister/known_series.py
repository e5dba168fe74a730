"""The series that this worker has seen, by the bytes that name them: a known series needs no decoding."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import bson

from readings.document import DocumentError, decode_document, series_bytes
from readings.keys import series_key


def series_key_of(document: bytes) -> dict[str, Any]:
    """Return the key of the series that a document belongs to; DocumentError if it is not a reading."""
    name = series_bytes(document)  # raises if the right key is in the wrong place
    decoded = decode_document(document)["_id"]
    key = series_key(decoded["owner"], decoded["device"], decoded["sensorType"])
    if bson.encode(key)[4:-1] != name:  # a field occurs twice, or is not a plain string
        raise DocumentError("the _id has not the bytes of its owner, device and sensorType")
    return key


def key_of_name(name: bytes) -> dict[str, Any]:
    """Return the key of a series from the bytes that name it."""
    decoded: dict[str, Any] = bson.decode((len(name) + 5).to_bytes(4, "little") + name + b"\0")
    return series_key(decoded["owner"], decoded["device"], decoded["sensorType"])


class KnownSeries:
    """A bounded LRU set of series names, as bytes.

    It is true of one database. `epoch` counts how often everything was forgotten: a series that was known in an earlier
    epoch may not be known now.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._known: OrderedDict[bytes, None] = OrderedDict()
        # Series stored into since the database was last found unchanged.
        self._stored: set[bytes] = set()
        self.epoch = 0

    def touch(self, name: bytes) -> bool:
        """Return whether a series is known, and make it the most recently used one."""
        if name not in self._known:
            return False
        self._known.move_to_end(name)
        return True

    def add(self, name: bytes) -> None:
        """Remember a series, once its document in `series` is written."""
        self._known[name] = None
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def forget(self, owner: str) -> int:
        """Forget the series of an owner; return how many there were."""
        start = bson.encode({"owner": owner})[4:-1]
        names = [name for name in self._known if name.startswith(start)]
        for name in names:
            del self._known[name]
        return len(names)

    def record_stored(self, names: Iterable[bytes]) -> None:
        """Record that readings of these series were written."""
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
        known, self._known = self._known, OrderedDict()
        return [name for name in stored if name in known]
