"""The payloads that persisters broadcast on `tidegate.live`: stored documents back to back, in their stored form.

The persister passes on the bytes it has written without decoding them. A subscriber finds the series in the bytes in
front of `ts` (cached by those bytes) and decodes only the readings that a client wants.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import bson

from broker.message import MAX_BYTES
from readings.document import DocumentError, decode_document, series_bytes, split_documents

# Cached series, about 400 bytes each where a device has several.
SERIES_CACHE_SIZE = 65_536
# Owners, devices and sensorTypes of them. Not interned: Python 3.12.1 keeps what is interned for ever.
_names: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class LiveReading:
    """One stored reading and its series."""

    owner: str
    device: str
    sensor_type: str
    document: bytes = field(repr=False)

    def decoded(self) -> dict[str, Any]:
        """Return the document's fields, times as `DatetimeMS`; DocumentError when it is not a reading."""
        return decode_document(self.document)


def live_payloads(documents: Sequence[bytes]) -> Iterator[bytes]:
    """Yield payloads of at most `MAX_BYTES` each; a larger document is a payload of its own."""
    parts: list[bytes] = []
    size = 0
    for document in documents:
        if parts and size + len(document) > MAX_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(document)
        size += len(document)
    if parts:
        yield b"".join(parts)


def live_readings(payload: bytes) -> list[LiveReading]:
    """Return the readings of a payload; DocumentError when it is malformed."""
    return [LiveReading(*_series(series_bytes(document)), document) for document in split_documents(payload)]


def forget_series() -> None:
    """Empty the cache of series: those that are still sent fill it again, at some 5 µs each."""
    _series.cache_clear()
    _names.clear()


@lru_cache(maxsize=SERIES_CACHE_SIZE)
def _series(elements: bytes) -> tuple[str, str, str]:
    """Decode owner, device and sensorType from the elements of `_id` in front of `ts`."""
    try:
        key = bson.decode(struct.pack("<i", len(elements) + 5) + elements + b"\x00")
    except (bson.InvalidBSON, UnicodeDecodeError) as error:
        raise DocumentError(f"the series cannot be read: {error}") from error
    if list(key) != ["owner", "device", "sensorType"] or not all(isinstance(name, str) for name in key.values()):
        raise DocumentError("the series is not {owner, device, sensorType}")
    # Many series have the same owner, device or sensorType: each is kept once.
    if len(_names) > 3 * SERIES_CACHE_SIZE:
        _names.clear()
    owner, device, sensor_type = (_names.setdefault(name, name) for name in key.values())
    return owner, device, sensor_type
