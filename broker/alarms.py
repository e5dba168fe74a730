"""What persisters announce on `tidegate.alarms`: stored readings of series that rules watch.

Announced with a confirm before the messages of the readings are acknowledged: a persister that dies in
between gets them again and announces them again. Whoever evaluates knows repeats by their identity.

`tidegate.alarms.events` carries what became of alarms to readers, for live feeds; transient and unconfirmed.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

# Readings in one message, some 60 bytes each.
MAX_READINGS = 5000

Value = bool | int | float | str
Severity = Literal["info", "warning", "critical"]
AlarmState = Literal["ok", "pending", "firing", "acknowledged"]
Cause = Literal["reading", "late", "silence", "owner", "rule"]
"""Why an alarm has changed: `owner` acknowledged it; its `rule` was removed or changed."""


class WatchedReading(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored reading: `[tsMs, seq, value, receivedAtMs]`."""

    ts_ms: int
    seq: int
    value: Value
    received_ms: int


class WatchedReadings(msgspec.Struct, frozen=True, array_like=True):
    """Stored readings of a series: `[owner, device, sensorType, unit, [reading, …]]`, the unit of the last of them."""

    owner: str
    device: str
    sensor_type: str
    unit: str | None
    readings: list[WatchedReading]


class Watch(msgspec.Struct, rename="camel", omit_defaults=True):
    """What one rule watches: an owner's series of a sensorType, of some devices or (None) of all.

    `removed`: nothing any more.
    """

    rule: str
    owner: str
    sensor_type: str = ""
    devices: list[str] | None = None
    removed: bool = False


class Watches(msgspec.Struct):
    """What rules watch, or what has changed of that, complete up to a cursor.

    `whole`: it begins with everything there is. `more`: the rest follows behind the cursor, at once.
    """

    items: list[Watch]
    cursor: str
    whole: bool
    more: bool = False


class AlarmEvent(msgspec.Struct, rename="camel", frozen=True):
    """A change of an alarm, as live feeds of its owner get it."""

    id: str
    owner: str
    rule: str
    name: str
    severity: Severity
    device: str
    sensor_type: str
    state: AlarmState
    number: int
    ts: str
    value: Value | None
    unit: str | None
    message: str | None


_encode = msgspec.json.Encoder().encode
_decode_readings = msgspec.json.Decoder(list[WatchedReadings]).decode
_decode_watches = msgspec.json.Decoder(Watches).decode
_decode_event = msgspec.json.Decoder(AlarmEvent).decode


def announcements(watched: Iterable[WatchedReadings]) -> Iterator[bytes]:
    """Yield the bodies of messages with at most `MAX_READINGS` readings each."""
    part: list[WatchedReadings] = []
    count = 0
    for series in watched:
        start = 0
        while start < len(series.readings):
            some = series.readings[start : start + MAX_READINGS - count]
            part.append(WatchedReadings(series.owner, series.device, series.sensor_type, series.unit, some))
            start += len(some)
            count += len(some)
            if count == MAX_READINGS:
                yield _encode(part)
                part, count = [], 0
    if part:
        yield _encode(part)


def decode_announcement(body: bytes) -> list[WatchedReadings]:
    """Decode the body of a message; msgspec.DecodeError when it is malformed."""
    return _decode_readings(body)


def encode_watches(watches: Watches) -> bytes:
    """Encode what rules watch."""
    return _encode(watches)


def decode_watches(body: bytes) -> Watches:
    """Decode what rules watch; msgspec.DecodeError when it is malformed."""
    return _decode_watches(body)


def encode_event(event: AlarmEvent) -> bytes:
    """Encode a change of an alarm."""
    return _encode(event)


def decode_event(payload: bytes) -> AlarmEvent:
    """Decode a change of an alarm; msgspec.DecodeError when it is malformed."""
    return _decode_event(payload)
