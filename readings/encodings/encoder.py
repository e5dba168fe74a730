"""Encodes a body in another encoding to the documents that are stored: the checks of a reading sent as JSON.

An encoder is for one body. It notes which names are stored under another sensorType, so that the sender can be told,
and rejects what would otherwise be merged without a word: readings of the same identity that the sender tells apart.
"""

import random
from collections.abc import Callable
from itertools import islice

import msgspec

from readings.document import encode_document
from readings.encoder import EncodedEvent, ReadingEncoder, has_late, template_key
from readings.encodings.sent import (
    NS_PER_MS,
    BodyRefused,
    Decode,
    SentReading,
    rejected_at,
    sensor_type_of,
)
from readings.reading import (
    EARLIEST_MS,
    GENERATED_SEQ_START,
    MAX_READINGS,
    Defaults,
    ReadingError,
    ReadingPayload,
    Rejection,
    check_payload,
)

MAX_SENSOR_TYPE = 64
Identity = tuple[str, int, int]


class Renamed(msgspec.Struct, rename="camel", frozen=True):
    """The accepted reading at `index` was sent as `name`, which a sensorType cannot be, and is stored as another."""

    index: int
    name: str
    sensor_type: str


class DecodingEncoder(ReadingEncoder):
    """An encoder of one body in another encoding, by its decoder."""

    __slots__ = ("_decode", "_identities", "_series", "refused", "renamed")

    def __init__(
        self,
        owner: str,
        device: str,
        defaults: Defaults,
        may_use_sensor_type: Callable[[str], bool] | None,
        decode: Decode,
    ) -> None:
        super().__init__(owner, device, defaults, may_use_sensor_type)
        self._decode = decode
        # The series of each sensorType, and the tags of each identity with a time, of what was accepted so far.
        self._series: dict[str, SentReading] = {}
        self._identities: dict[Identity, SentReading] = {}
        self.renamed: list[Renamed] = []
        self.refused: BodyRefused | None = None

    def encode_many(self, raw: bytes, now_ms: int, late_before_ms: int = EARLIEST_MS) -> EncodedEvent:
        """Encode the readings of a body, each on its own; BodyRefused, also kept in `refused`, if none is taken."""
        try:
            items = self._items(raw)
        except BodyRefused as refused:
            self.refused = refused
            raise
        event = EncodedEvent([], [])
        for index, sent in enumerate(items):
            try:
                if isinstance(sent, ReadingError):
                    raise sent
                event.documents.append(self._encode(index, sent, now_ms))
            except ReadingError as error:
                event.rejected.append(Rejection(index, error.code, error.detail))
        event.late = has_late(event.documents, late_before_ms)
        return event

    def _items(self, raw: bytes) -> list[SentReading | ReadingError]:
        """Decode the whole body before any of it is encoded: of one that is refused no sensorType counts as used."""
        items = list(islice(self._decode(raw), MAX_READINGS + 1))
        if len(items) > MAX_READINGS:
            raise BodyRefused("batch_size", f"1 to {MAX_READINGS} readings are accepted, more were sent")
        return items

    def _encode(self, index: int, sent: SentReading, now_ms: int) -> bytes:
        sensor_type = sensor_type_of(sent.name)
        try:
            document, identity = self._checked(sensor_type, sent, now_ms)
        except ReadingError as error:
            raise rejected_at(sent.place, error.code, error.detail) from error
        self._series.setdefault(sensor_type, sent)
        if identity is not None:
            self._identities[identity] = sent
        if sensor_type != sent.name:
            self.renamed.append(Renamed(index, sent.name, sensor_type))
        return document

    def _checked(self, sensor_type: str, sent: SentReading, now_ms: int) -> tuple[bytes, Identity | None]:
        """Return a reading's document, and its identity if the sender has given its time; ReadingError if wrong."""
        if len(sensor_type) > MAX_SENSOR_TYPE:
            detail = f"the name {sent.name[:MAX_SENSOR_TYPE]!r}… has more than {MAX_SENSOR_TYPE} characters"
            raise ReadingError("invalid_field", detail)
        known = self._series.get(sensor_type)
        if known is not None and known.series != sent.series:
            detail = f"{_spelled(sent)} would be stored as {sensor_type!r}, as {_spelled(known)} of the same body is"
            raise ReadingError("invalid_field", detail)
        payload = ReadingPayload(sensor_type=sensor_type, value=sent.value, unit=sent.unit, tags=sent.tags)
        if sent.ts_ns is None:
            return self._document_of_now(payload, sent.offset_ms, now_ms), None
        ts_ms, seq = divmod(sent.ts_ns, NS_PER_MS)
        identity = sensor_type, ts_ms, seq
        same = self._identities.get(identity)
        if same is not None and same.tags != sent.tags:
            detail = f"{sensor_type!r} was sent with other tags for the same time; seriesTags names tags that differ"
            raise ReadingError("invalid_field", detail)
        payload = msgspec.structs.replace(payload, ts=ts_ms, seq=seq)
        return self._document(payload, self._templates.get(template_key(payload)), now_ms), identity

    def _document_of_now(self, payload: ReadingPayload, offset_ms: int, now_ms: int) -> bytes:
        """Encode a reading whose time is by the gateway's clock: as without `ts`, its `seq` is generated."""
        if not offset_ms:
            return self._document(payload, self._templates.get(template_key(payload)), now_ms)
        payload = msgspec.structs.replace(payload, ts=now_ms + offset_ms)
        reading = check_payload(payload, self._defaults, now_ms)
        self._require_sensor_type(reading.sensor_type)
        generated = msgspec.structs.replace(reading, seq=GENERATED_SEQ_START | random.getrandbits(52))
        return encode_document(self._owner, self._device, generated)


def _spelled(sent: SentReading) -> str:
    """Return the name of a series, in its parts where there are several."""
    return " · ".join(map(repr, sent.series))
