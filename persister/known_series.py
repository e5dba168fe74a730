"""The series that this worker has met: a bounded memory of bytes, so that known ones need no decoding."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import bson

from readings.document import DocumentError, decode_document, series_bytes
from readings.keys import series_key


def series_key_of(document: bytes) -> dict[str, Any]:
    """Return the key of the series that a document belongs to; DocumentError when it is no reading."""
    name = series_bytes(document)  # which refuses what has the right key in the wrong place
    decoded = decode_document(document)["_id"]
    key = series_key(decoded["owner"], decoded["device"], decoded["sensorType"])
    if bson.encode(key)[4:-1] != name:  # a field that stands there twice, or is a text of another kind
        raise DocumentError("the _id has not the bytes of its owner, device and sensorType")
    return key


def key_of_name(name: bytes) -> dict[str, Any]:
    """Return the key of a series from the bytes that name it."""
    decoded: dict[str, Any] = bson.decode((len(name) + 5).to_bytes(4, "little") + name + b"\0")
    return series_key(decoded["owner"], decoded["device"], decoded["sensorType"])


class KnownSeries:
    """Tells known series from new ones, by the bytes that name them; the least recently met is forgotten first.

    What is known holds of one database. `epoch` counts how often all was forgotten: what was found known before is
    not any more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[bytes, None] = OrderedDict()
        # Those in which something was stored since it was last seen that the database is the one that it was.
        self._stored: set[bytes] = set()
        self.epoch = 0

    def meet(self, name: bytes) -> bool:
        """Return whether the series is known; from now on it is the one that was met last."""
        if name not in self._known:
            return False
        self._known.move_to_end(name)
        return True

    def forget(self, owner: str) -> int:
        """Forget the series of an owner; return how many there were."""
        start = bson.encode({"owner": owner})[4:-1]
        names = [name for name in self._known if name.startswith(start)]
        for name in names:
            del self._known[name]
        return len(names)

    def add(self, name: bytes) -> None:
        """Remember a series, once its document in `series` is written."""
        self._known[name] = None
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def stored(self, names: Iterable[bytes]) -> None:
        """Note that readings of these series were written."""
        self._stored.update(names)
        while len(self._stored) > self._most:  # only where nobody could look for long
            self._stored.pop()

    def take_stored(self) -> set[bytes]:
        """Return what was noted as stored, and begin anew."""
        taken, self._stored = self._stored, set()
        return taken

    def forget_all(self, stored: set[bytes]) -> list[bytes]:
        """Forget every series; of those that were noted as stored, meanwhile too, return which were known."""
        self.epoch += 1
        stored = stored | self.take_stored()
        known, self._known = self._known, OrderedDict()
        return [name for name in stored if name in known]
