"""Decodes, checks and encodes the readings of one session, from a device's JSON to the documents that are stored.

The result is that of `check_one` followed by `encode_document`, with the same codes, details and bytes: those define
what is correct, this is fast. A reading in its usual form takes a few comparisons and one `struct.pack`; any other one
goes through the plain checks, which also name what is wrong.
"""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from readings.document import document_ts_ms, encode_document
from readings.place import Place
from readings.reading import (
    EARLIEST_MS,
    GENERATED_SEQ_START,
    MAX_AHEAD_MS,
    QUOTE,
    UNDECODABLE,
    Defaults,
    Reading,
    ReadingError,
    ReadingPayload,
    Rejection,
    check_payload,
    check_time,
    check_value,
    decode_many,
    decode_one,
    expected_quotes,
    require_unique_names,
    split_array,
)
from readings.template import RECEIVED, SEQ, Template

# Templates of a session, 1 kB each; readings of further series are encoded without one. Templates with a location or
# tags of the reading's own have a lower bound: they are larger, and those of a moving device are never used twice.
MAX_TEMPLATES = 256
MAX_LOCATION_TEMPLATES = 64

# The quotation marks of the name `seq`, which a reading may leave out.
SEQ_QUOTES = 2
# A field that a reading declares, or UNSET.
Declared = str | UnsetType
_decode_one = msgspec.json.Decoder(ReadingPayload).decode
Key = tuple[object, ...]


class EncodedEvent(msgspec.Struct, gc=False):
    """The outcome of one event: the documents of the accepted readings, in the order sent, and the rejections.

    `late`: whether there may be a reading among them that is earlier than `encode_many` was asked about.
    """

    documents: list[bytes]
    rejected: list[Rejection]
    late: bool = False


class ReadingEncoder:
    """Encodes the readings of one session: of one owner and device, with the defaults of its token."""

    __slots__ = ("_defaults", "_device", "_location_templates", "_may_use_sensor_type", "_owner", "_templates")

    def __init__(
        self, owner: str, device: str, defaults: Defaults, may_use_sensor_type: Callable[[str], bool] | None = None
    ) -> None:
        """Encode readings of this origin. `may_use_sensor_type` is called for sensorTypes that have no template yet."""
        self._owner = owner
        self._device = device
        self._defaults = defaults
        self._may_use_sensor_type = may_use_sensor_type
        # By all fields of a reading but its value and times. Only fields that passed the checks are in it.
        self._templates: dict[Key, Template] = {}
        self._location_templates = 0

    def encode_one(self, raw: bytes, now_ms: int) -> bytes:
        """Return the document of one reading received at `now_ms`; ReadingError names what is wrong with it."""
        return self.encode_single(raw, now_ms).documents[0]

    def encode_single(self, raw: bytes, now_ms: int, late_before_ms: int = EARLIEST_MS) -> EncodedEvent:
        """Encode one reading that is an event of its own; ReadingError names what is wrong with it."""
        try:
            payload = _decode_one(raw)
        except UNDECODABLE:
            payload = decode_one(raw)  # again, for what is wrong
        value, ts, seq = payload.value, payload.ts, payload.seq
        if payload.location is UNSET and payload.tags is UNSET:
            template = self._templates.get((payload.sensor_type, payload.unit, payload.quality))
        else:
            template = self._templates.get(template_key(payload))
        missing_quotes = 0
        if seq is UNSET:
            seq, missing_quotes = 0, SEQ_QUOTES
        # The comparisons of `_encode_batch` again: a single reading should not pay for what a loop needs.
        if (
            template is not None
            and (type(value) is float or (type(value) is int and -0x8000_0000 <= value <= 0x7FFF_FFFF))
            and type(ts) is int
            and EARLIEST_MS <= ts <= now_ms + MAX_AHEAD_MS
            and 0 <= seq < GENERATED_SEQ_START
            and raw.count(QUOTE) + missing_quotes == template.quotes
        ):
            pack, head, value_head = template.of_float if type(value) is float else template.of_int32
            document = pack(head, ts, SEQ, seq, value_head, value, RECEIVED, now_ms, template.tail)
            return EncodedEvent([document], [], ts < late_before_ms)
        if raw.count(QUOTE) != expected_quotes(payload):
            require_unique_names(raw)
        document = self._document(payload, template, now_ms)
        return EncodedEvent([document], [], has_late([document], late_before_ms))

    def encode_many(self, raw: bytes, now_ms: int, late_before_ms: int = EARLIEST_MS) -> EncodedEvent:
        """Encode an array of readings, each on its own; ReadingError when it is not an array at all.

        The result says whether one of them may be earlier than `late_before_ms`, which is at least EARLIEST_MS.
        """
        event = EncodedEvent([], [])
        try:
            payloads = decode_many(raw)
        except ReadingError:  # one reading that does not decode fails the whole array
            return self._encode_each(raw, now_ms, late_before_ms)
        # One check for all: if a name occurs twice, there are more quotation marks than were decoded.
        if self._encode_batch(payloads, now_ms, late_before_ms, event) != raw.count(QUOTE):
            return self._encode_each(raw, now_ms, late_before_ms)
        return event

    def _encode_batch(
        self, payloads: list[ReadingPayload], now_ms: int, late_before_ms: int, event: EncodedEvent
    ) -> int:
        """Encode decoded readings into `event`; return the sum of their `expected_quotes`.

        A busy gateway spends its time here: comparisons in place, few calls.
        """
        templates, append = self._templates, event.documents.append
        unset, seq_head, received_head = UNSET, SEQ, RECEIVED
        earliest_ms, latest_ms, seq_end = EARLIEST_MS, now_ms + MAX_AHEAD_MS, GENERATED_SEQ_START
        # Only differences from the first one are added up: mostly there are none.
        first = templates.get(template_key(payloads[0])) if payloads else None
        usual = 0 if first is None else first.quotes
        quotes, unusual = usual * len(payloads), 0
        # Neighbours are mostly of one series: its template is kept at hand.
        template: Template | None = None
        sensor_type: Declared | None = None
        unit: Declared = unset
        quality: Declared = unset  # one object for each word: compared by identity
        for payload in payloads:
            value, ts, seq = payload.value, payload.ts, payload.seq
            if payload.location is not unset or payload.tags is not unset:
                # As `template_key`, without the call.
                tags = unset if payload.tags is unset else tuple(payload.tags.items())
                template = templates.get((payload.sensor_type, payload.unit, payload.quality, payload.location, tags))
                sensor_type = None
                unusual = 0 if template is None else template.quotes - usual
            elif payload.sensor_type != sensor_type or payload.unit != unit or payload.quality is not quality:
                sensor_type, unit, quality = payload.sensor_type, payload.unit, payload.quality
                template = templates.get((sensor_type, unit, quality))
                unusual = 0 if template is None else template.quotes - usual
            if seq is unset:
                seq = 0
                quotes -= SEQ_QUOTES
            if (
                template is None
                or type(ts) is not int
                or not late_before_ms <= ts <= latest_ms
                or not 0 <= seq < seq_end
            ):
                if (
                    template is None
                    or type(ts) is not int
                    or not earliest_ms <= ts <= latest_ms
                    or not 0 <= seq < seq_end
                ):
                    quotes += self._encode_slow(payload, template, now_ms, late_before_ms, event) - usual
                    sensor_type = None if template is None else sensor_type  # it may have one now
                    continue
                event.late = True
            # JSON has neither NaN nor infinity, and a number too large for a float does not decode.
            if type(value) is float:
                pack, head, value_head = template.of_float
            elif type(value) is int and -0x8000_0000 <= value <= 0x7FFF_FFFF:
                pack, head, value_head = template.of_int32
            else:
                quotes += self._encode_slow(payload, template, now_ms, late_before_ms, event) - usual
                continue
            if unusual:
                quotes += unusual
            append(pack(head, ts, seq_head, seq, value_head, value, received_head, now_ms, template.tail))
        return quotes

    def _encode_each(self, raw: bytes, now_ms: int, late_before_ms: int) -> EncodedEvent:
        """Encode an array whose readings must be decoded one by one."""
        event = EncodedEvent([], [])
        for item in split_array(raw):
            try:
                event.documents.append(self.encode_one(item, now_ms))
            except ReadingError as error:
                reject(event, error)
        event.late = has_late(event.documents, late_before_ms)
        return event

    def _encode_slow(
        self, payload: ReadingPayload, template: Template | None, now_ms: int, late_before_ms: int, event: EncodedEvent
    ) -> int:
        """Encode a reading in any other form; return its `expected_quotes`, as if it had a `seq`."""
        try:
            document = self._document(payload, template, now_ms)
            event.documents.append(document)
            event.late = event.late or document_ts_ms(document) < late_before_ms
        except ReadingError as error:
            reject(event, error)
        return expected_quotes(payload) + (SEQ_QUOTES if payload.seq is UNSET else 0)

    def _document(self, payload: ReadingPayload, template: Template | None, now_ms: int) -> bytes:
        if template is not None:
            # All fields but its value and times have passed the checks before.
            check_value(payload.value)
            ts_ms, seq = check_time(payload, now_ms)
            return template.document(payload.value, ts_ms, seq, now_ms)
        reading = check_payload(payload, self._defaults, now_ms)
        self._require_sensor_type(reading.sensor_type)
        self._add_template(payload, reading)
        return encode_document(self._owner, self._device, reading)

    def _require_sensor_type(self, sensor_type: str) -> None:
        if self._may_use_sensor_type is not None and not self._may_use_sensor_type(sensor_type):
            raise ReadingError("forbidden", "the owner has too many sensorTypes")

    def _add_template(self, payload: ReadingPayload, reading: Reading) -> None:
        if len(self._templates) >= MAX_TEMPLATES:
            return
        if payload.location is not UNSET or payload.tags is not UNSET:
            place = payload.location
            # 0.0 and -0.0 are the same key, but different bytes.
            if self._location_templates >= MAX_LOCATION_TEMPLATES or (
                isinstance(place, Place) and 0 in (place.lat, place.lon, place.alt)
            ):
                return
            self._location_templates += 1
        quotes = expected_quotes(msgspec.structs.replace(payload, value=0, ts=0, seq=0))
        self._templates[template_key(payload)] = Template(self._owner, self._device, reading, quotes)


def template_key(payload: ReadingPayload) -> Key:
    """Return what the readings of one template have in common."""
    location, tags = payload.location, payload.tags
    if location is UNSET and tags is UNSET:
        return payload.sensor_type, payload.unit, payload.quality
    # Tags in their order, which is that of the stored bytes.
    tag_items = UNSET if tags is UNSET else tuple(tags.items())
    return payload.sensor_type, payload.unit, payload.quality, location, tag_items


def has_late(documents: list[bytes], late_before_ms: int) -> bool:
    """Return whether a document is earlier than `late_before_ms`, which nothing is at EARLIEST_MS."""
    return late_before_ms > EARLIEST_MS and any(document_ts_ms(document) < late_before_ms for document in documents)


def reject(event: EncodedEvent, error: ReadingError) -> None:
    """Add the rejection of the event's next reading."""
    # Each reading is in one of the two lists, so this one's index is their total length.
    index = len(event.documents) + len(event.rejected)
    event.rejected.append(Rejection(index, error.code, error.detail))
