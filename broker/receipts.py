"""Receipts: what persisters broadcast on `tidegate.stored` of readings whose devices asked to be told.

A gateway marks such readings in their message's header (`RECEIPTS_HEADER`), as ranges of document numbers. A persister
broadcasts their identities once they are stored, and every gateway passes them on to the sessions that it has of the
device. Nothing of it is stored or confirmed: a lost receipt is asked for with `POST /readings/stored`.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

# Identities in one payload, some 25 bytes each.
MAX_IDENTITIES = 5000

Ranges = list[tuple[int, int]]
"""Numbers of documents in a message: from, included, and until, excluded."""


class StoredSeries(msgspec.Struct, frozen=True, array_like=True):
    """Stored readings of one series: `[owner, device, sensorType, [[tsMs, seq], …]]`."""

    owner: str
    device: str
    sensor_type: str
    readings: list[tuple[int, int]]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[StoredSeries]).decode


def header_of(ranges: Iterable[tuple[int, int]]) -> str:
    """Return ranges of documents as a header: `0-10 25-26`, neighbours joined."""
    joined: list[list[int]] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return " ".join(f"{start}-{end}" for start, end in joined)


def ranges_of(header: object, count: int) -> Ranges:
    """Return the ranges of a header in a message of `count` documents; none if it is not such a header."""
    found: Ranges = []
    try:
        for part in str(header).split():
            start, end = map(int, part.split("-"))
            if not 0 <= start < end <= count:
                return []
            found.append((start, end))
    except ValueError:
        return []
    return found


def stored_payloads(stored: Iterable[tuple[tuple[str, str, str], Sequence[tuple[int, int]]]]) -> Iterator[bytes]:
    """Yield payloads of at most `MAX_IDENTITIES` identities each."""
    part: list[StoredSeries] = []
    count = 0
    for series, positions in stored:
        start = 0
        while start < len(positions):
            some = list(positions[start : start + MAX_IDENTITIES - count])
            part.append(StoredSeries(*series, some))
            start += len(some)
            count += len(some)
            if count == MAX_IDENTITIES:
                yield _encode(part)
                part, count = [], 0
    if part:
        yield _encode(part)


def decode_stored(payload: bytes) -> list[StoredSeries]:
    """Decode a payload; msgspec.DecodeError when it is malformed."""
    return _decode(payload)
