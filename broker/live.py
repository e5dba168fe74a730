"""What persisters announce on `tidegate.live`: documents as they were stored, back to back, in the readings' own form.

The persister hands on the bytes that it has written, unopened; a listener learns the series from the bytes in front of
`ts` (remembered by them) and decodes only what somebody asks for.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import bson

from broker.message import MAX_BYTES
from readings.document import DocumentError, decode_document, series_bytes, split_documents

# Series remembered by their bytes; some 300 bytes each.
KNOWN_SERIES = 65_536


@dataclass(frozen=True, slots=True)
class LiveReading:
    """One stored reading and the series that it belongs to."""

    owner: str
    device: str
    sensor_type: str
    document: bytes = field(repr=False)

    def decoded(self) -> dict[str, Any]:
        """Return the document's fields, times as `DatetimeMS`; DocumentError when it is not a reading's."""
        return decode_document(self.document)


def live_payloads(documents: Sequence[bytes]) -> Iterator[bytes]:
    """Join documents into payloads of at most `MAX_BYTES` each (one document may have more)."""
    gathered: list[bytes] = []
    size = 0
    for document in documents:
        if gathered and size + len(document) > MAX_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
        gathered.append(document)
        size += len(document)
    if gathered:
        yield b"".join(gathered)


def live_readings(payload: bytes) -> list[LiveReading]:
    """Cut a payload into its readings; DocumentError when it is not one."""
    return [LiveReading(*_series(series_bytes(document)), document) for document in split_documents(payload)]


@lru_cache(maxsize=KNOWN_SERIES)
def _series(elements: bytes) -> tuple[str, str, str]:
    """Read owner, device and sensorType from the elements of `_id` in front of `ts`."""
    try:
        key = bson.decode(struct.pack("<i", len(elements) + 5) + elements + b"\x00")
    except (bson.InvalidBSON, UnicodeDecodeError) as error:
        raise DocumentError(f"the series cannot be read: {error}") from error
    if list(key) != ["owner", "device", "sensorType"] or not all(isinstance(name, str) for name in key.values()):
        raise DocumentError("the series is not {owner, device, sensorType}")
    return key["owner"], key["device"], key["sensorType"]
