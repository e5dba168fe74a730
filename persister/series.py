"""The series that this worker has met: a bounded memory of bytes, so that known ones need no decoding."""

from collections import OrderedDict
from typing import Any

import bson

from broker.document import DocumentError, decode_document, series_bytes
from broker.keys import series_key


def key_of_series(document: bytes) -> dict[str, Any]:
    """Return the key of the series that a document belongs to; DocumentError when it is no reading."""
    name = series_bytes(document)  # which refuses what has the right key in the wrong place
    decoded = decode_document(document)["_id"]
    key = series_key(decoded["owner"], decoded["device"], decoded["sensorType"])
    if bson.encode(key)[4:-1] != name:  # a field that stands there twice, or is a text of another kind
        raise DocumentError("the _id has not the bytes of its owner, device and sensorType")
    return key


class KnownSeries:
    """Tells known series from new ones, by the bytes that name them; the least recently met is forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[bytes, None] = OrderedDict()

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
