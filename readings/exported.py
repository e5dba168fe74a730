"""Readings that come back as the reader gives them out: of the same identity, so that what is there already stays once.

Only `POST /readings` takes them: a socket's intake does not pay for what devices never send.
"""

import msgspec
from msgspec import UNSET, UnsetType

from readings.document import encode_document
from readings.encoder import EncodedEvent, ReadingEncoder, reject
from readings.reading import (
    GENERATED_SEQ_START,
    INT64,
    QUOTE,
    UNDECODABLE,
    Defaults,
    ReadingError,
    ReadingPayload,
    check_sent,
    explain,
    field_types,
    parse_time,
    quotes_of,
    require_names_once,
)

_DRAWN = range(GENERATED_SEQ_START, 2 * GENERATED_SEQ_START)


class ExportedReading(ReadingPayload, rename="camel", forbid_unknown_fields=True, kw_only=True, gc=False):
    """A reading with what the reader adds: whose it is, and when a gateway received it."""

    device: str | UnsetType = UNSET
    received_at: int | str | UnsetType = UNSET


_one = msgspec.json.Decoder(ExportedReading)
_many = msgspec.json.Decoder(list[ExportedReading])
_field_types = field_types(ExportedReading)


class ExportedReadingEncoder(ReadingEncoder):
    """An intake that also takes exported readings, of its own device.

    `receivedAt` says that the reading was taken before: it keeps a `seq` that a gateway has drawn, and is given no
    location that it did not have. When it was received is not believed: that is now.
    """

    __slots__ = ()

    def encode_one(self, raw: bytes, now_ms: int) -> bytes:
        """Return the document of one reading, exported or not; ReadingError says what is wrong with it."""
        if not _may_be_exported(raw):
            return super().encode_one(raw, now_ms)
        try:
            sent = _one.decode(raw)
        except UNDECODABLE as error:
            raise explain(raw, _field_types) from error
        if raw.count(QUOTE) != _quotes_of(sent):
            require_names_once(raw)
        return self._exported(sent, now_ms)

    def encode_many(self, raw: bytes, now_ms: int) -> EncodedEvent:
        """Take an array of readings, exported or not, each on its own; ReadingError when it is no array at all."""
        if not _may_be_exported(raw):
            return super().encode_many(raw, now_ms)
        try:
            items = _many.decode(raw)
        except UNDECODABLE:  # one of them does not decode, and then none does
            return self._take_each(raw, now_ms)
        if sum(map(_quotes_of, items)) != raw.count(QUOTE):
            return self._take_each(raw, now_ms)
        taken = EncodedEvent([], [])
        for sent in items:
            try:
                taken.documents.append(self._exported(sent, now_ms))
            except ReadingError as error:
                reject(taken, error)
        return taken

    def _exported(self, sent: ExportedReading, now_ms: int) -> bytes:
        if sent.device is not UNSET and sent.device != self._device:
            detail = f"the reading is of device {sent.device[:64]!r}, the sender is {self._device!r}"
            raise ReadingError("forbidden", detail)
        if sent.received_at is UNSET:
            return self._document(sent, None, now_ms)
        _check_received(sent.received_at)
        if sent.ts is UNSET:
            raise ReadingError("invalid_ts", "ts is required with receivedAt")
        drawn = 0
        if sent.seq is not UNSET and sent.seq in _DRAWN:
            drawn, sent.seq = sent.seq, 0
        reading = check_sent(sent, Defaults(self._defaults.sensor_type), now_ms)
        self._require_name(reading.sensor_type)
        if drawn:
            reading = msgspec.structs.replace(reading, seq=drawn)
        return encode_document(self._owner, self._device, reading)


def _may_be_exported(raw: bytes) -> bool:
    return b'"receivedAt"' in raw or b'"device"' in raw


def _quotes_of(sent: ExportedReading) -> int:
    """As `quotes_of`, with the names that are added."""
    added = 0 if sent.device is UNSET else 4
    if sent.received_at is not UNSET:
        added += 2 + 2 * isinstance(sent.received_at, str)
    return quotes_of(sent) + added


def _check_received(received_at: int | str) -> None:
    if isinstance(received_at, int):
        if received_at not in INT64:
            raise ReadingError("invalid_field", "receivedAt must fit 64 bits")
        return
    try:
        parse_time(received_at)
    except ReadingError as error:
        raise ReadingError("invalid_field", f"receivedAt{error.detail.removeprefix('ts')}") from error
