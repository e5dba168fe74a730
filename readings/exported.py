"""Encodes readings as the reader exports them: with the same identity, so that an existing one is not stored twice.

Only `POST /readings` accepts them: a socket's encoder does not pay for fields that devices never send.
"""

import msgspec
from msgspec import UNSET, UnsetType

from readings.document import encode_document
from readings.encoder import EncodedEvent, ReadingEncoder, has_late, reject
from readings.reading import (
    EARLIEST_MS,
    GENERATED_SEQ_START,
    INT64,
    QUOTE,
    UNDECODABLE,
    Defaults,
    ReadingError,
    ReadingPayload,
    check_payload,
    expected_quotes,
    explain,
    field_types,
    parse_time,
    require_unique_names,
)

_GENERATED = range(GENERATED_SEQ_START, 2 * GENERATED_SEQ_START)


class ExportedReading(ReadingPayload, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A reading with the fields that the reader adds: its device, and when a gateway received it."""

    device: str | UnsetType = UNSET
    received_at: int | str | UnsetType = UNSET


_one = msgspec.json.Decoder(ExportedReading)
_many = msgspec.json.Decoder(list[ExportedReading])
_field_types = field_types(ExportedReading)


class ExportedReadingEncoder(ReadingEncoder):
    """An encoder that also accepts exported readings of its own device.

    `receivedAt` marks a reading that was accepted before: it keeps a `seq` that a gateway generated, and gets no
    location that it did not have. Its time is ignored: the reading is received now.
    """

    __slots__ = ()

    def encode_single(self, raw: bytes, now_ms: int, late_before_ms: int = EARLIEST_MS) -> EncodedEvent:
        """Encode one reading that is an event of its own, exported or not; ReadingError names what is wrong."""
        if not _maybe_exported(raw):
            return super().encode_single(raw, now_ms, late_before_ms)
        try:
            payload = _one.decode(raw)
        except UNDECODABLE as error:
            raise explain(raw, _field_types) from error
        if raw.count(QUOTE) != _expected_quotes(payload):
            require_unique_names(raw)
        document = self._encode_exported(payload, now_ms)
        return EncodedEvent([document], [], has_late([document], late_before_ms))

    def encode_many(self, raw: bytes, now_ms: int, late_before_ms: int = EARLIEST_MS) -> EncodedEvent:
        """Encode an array of readings, exported or not, each on its own; ReadingError when it is not an array."""
        if not _maybe_exported(raw):
            return super().encode_many(raw, now_ms, late_before_ms)
        try:
            items = _many.decode(raw)
        except UNDECODABLE:  # one reading that does not decode fails the whole array
            return self._encode_each(raw, now_ms, late_before_ms)
        if sum(map(_expected_quotes, items)) != raw.count(QUOTE):
            return self._encode_each(raw, now_ms, late_before_ms)
        event = EncodedEvent([], [])
        for payload in items:
            try:
                event.documents.append(self._encode_exported(payload, now_ms))
            except ReadingError as error:
                reject(event, error)
        event.late = has_late(event.documents, late_before_ms)
        return event

    def _encode_exported(self, payload: ExportedReading, now_ms: int) -> bytes:
        if payload.device is not UNSET and payload.device != self._device:
            detail = f"the reading is of device {payload.device[:64]!r}, the sender is {self._device!r}"
            raise ReadingError("forbidden", detail)
        if payload.received_at is UNSET:
            return self._document(payload, None, now_ms)
        _check_received_at(payload.received_at)
        if payload.ts is UNSET:
            raise ReadingError("invalid_ts", "ts is required with receivedAt")
        generated_seq = 0
        if payload.seq is not UNSET and payload.seq in _GENERATED:
            generated_seq, payload = payload.seq, msgspec.structs.replace(payload, seq=0)
        reading = check_payload(payload, Defaults(self._defaults.sensor_type), now_ms)
        self._require_sensor_type(reading.sensor_type)
        if generated_seq:
            reading = msgspec.structs.replace(reading, seq=generated_seq)
        return encode_document(self._owner, self._device, reading)


def _maybe_exported(raw: bytes) -> bool:
    return b'"receivedAt"' in raw or b'"device"' in raw


def _expected_quotes(payload: ExportedReading) -> int:
    """As `expected_quotes`, with the added fields."""
    added = 0 if payload.device is UNSET else 4
    if payload.received_at is not UNSET:
        added += 2 + 2 * isinstance(payload.received_at, str)
    return expected_quotes(payload) + added


def _check_received_at(received_at: int | str) -> None:
    if isinstance(received_at, int):
        if received_at not in INT64:
            raise ReadingError("invalid_field", "receivedAt must fit 64 bits")
        return
    try:
        parse_time(received_at)
    except ReadingError as error:
        raise ReadingError("invalid_field", f"receivedAt{error.detail.removeprefix('ts')}") from error
