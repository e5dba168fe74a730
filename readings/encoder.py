"""From what a device sends to the documents that are stored: decode, check and encode in one go, for one session.

The same as `check_one` or `check_many` followed by `encode_document`, codes, details and bytes included: those say what
is right, this is quick. A reading in its usual form takes a few comparisons and one `struct.pack`; every other one goes
through the plain checks, which also name what is wrong.
"""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from readings.document import encode_document
from readings.place import Place
from readings.reading import (
    EARLIEST_MS,
    GENERATED_SEQ_START,
    MAX_AHEAD_MS,
    QUOTE,
    Defaults,
    Reading,
    ReadingError,
    ReadingPayload,
    Rejection,
    check_sent,
    check_time,
    check_value,
    decode_many,
    decode_one,
    quotes_of,
    require_names_once,
    split_array,
)
from readings.template import RECEIVED, SEQ, Template

# A session keeps this many templates, 1 kB each; what it sends beyond them is encoded plainly. Those of readings that
# say a location or tags of their own are larger, and those of a device on the move never come twice.
MAX_TEMPLATES = 256
MAX_PLACED = 64

# How many quotation marks a reading has less that says no `seq`.
SEQ_QUOTES = 2
# What a reading says of itself; UNSET where it does not.
Declared = str | UnsetType
Key = tuple[object, ...]


class EncodedEvent(msgspec.Struct, gc=False):
    """The outcome of one event: the documents of what may be stored, in the order sent, and what was refused."""

    documents: list[bytes]
    rejected: list[Rejection]


class ReadingEncoder:
    """Takes the readings of one session: of one owner and device, with what the token says for them."""

    __slots__ = ("_defaults", "_device", "_may_name", "_owner", "_placed", "_templates")

    def __init__(
        self, owner: str, device: str, defaults: Defaults, may_name: Callable[[str], bool] | None = None
    ) -> None:
        """Take readings of this origin. `may_name` says whether one of a sensorType without a template is taken."""
        self._owner = owner
        self._device = device
        self._defaults = defaults
        self._may_name = may_name
        # By all that a reading says beside its value and times. Only what has passed the checks is in it.
        self._templates: dict[Key, Template] = {}
        self._placed = 0

    def encode_one(self, raw: bytes, now_ms: int) -> bytes:
        """Return the document of one reading received at `now_ms`; ReadingError says what is wrong with it."""
        sent = decode_one(raw)
        value, ts, seq = sent.value, sent.ts, sent.seq
        if sent.location is UNSET and sent.tags is UNSET:
            template = self._templates.get((sent.sensor_type, sent.unit))
        else:
            template = self._templates.get(_key(sent))
        unsaid = 0
        if seq is UNSET:
            seq, unsaid = 0, SEQ_QUOTES
        # What `_take` compares, once more: one reading alone should not pay for what a loop needs.
        if (
            template is not None
            and (type(value) is float or (type(value) is int and -0x8000_0000 <= value <= 0x7FFF_FFFF))
            and type(ts) is int
            and EARLIEST_MS <= ts <= now_ms + MAX_AHEAD_MS
            and 0 <= seq < GENERATED_SEQ_START
            and raw.count(QUOTE) + unsaid == template.quotes
        ):
            fill, head, value_head = template.of_float if type(value) is float else template.of_int32
            return fill(head, ts, SEQ, seq, value_head, value, RECEIVED, now_ms, template.tail)
        if raw.count(QUOTE) != quotes_of(sent):
            require_names_once(raw)
        return self._document(sent, template, now_ms)

    def encode_many(self, raw: bytes, now_ms: int) -> EncodedEvent:
        """Take an array of readings, each on its own; ReadingError when it is not an array at all."""
        taken = EncodedEvent([], [])
        try:
            sent = decode_many(raw)
        except ReadingError:  # one of them does not decode, and then none does
            return self._take_each(raw, now_ms)
        # One look at all of them: where a name stands twice there are more quotation marks than were decoded.
        if self._take(sent, now_ms, taken) != raw.count(QUOTE):
            return self._take_each(raw, now_ms)
        return taken

    def _take(self, items: list[ReadingPayload], now_ms: int, taken: EncodedEvent) -> int:
        """Sort decoded readings into `taken`; return the sum of their `quotes_of`.

        A busy gateway's time goes here: comparisons in place, few calls.
        """
        templates, append = self._templates, taken.documents.append
        unset, seq_head, received_head = UNSET, SEQ, RECEIVED
        earliest_ms, latest_ms, end_of_seq = EARLIEST_MS, now_ms + MAX_AHEAD_MS, GENERATED_SEQ_START
        # Only what differs from the first one's is added up: mostly nothing does.
        first = templates.get(_key(items[0])) if items else None
        usual = 0 if first is None else first.quotes
        quotes, unusual = usual * len(items), 0
        # Neighbours are mostly of one series: what it is filled with stays at hand.
        template: Template | None = None
        sensor_type: Declared | None = None
        unit: Declared = unset
        for sent in items:
            value, ts, seq = sent.value, sent.ts, sent.seq
            if sent.location is not unset or sent.tags is not unset:
                # As `_key`, without its call.
                tags = unset if sent.tags is unset else tuple(sent.tags.items())
                template = templates.get((sent.sensor_type, sent.unit, sent.location, tags))
                sensor_type = None
                unusual = 0 if template is None else template.quotes - usual
            elif sent.sensor_type != sensor_type or sent.unit != unit or template is None:
                sensor_type, unit = sent.sensor_type, sent.unit
                template = templates.get((sensor_type, unit))
                unusual = 0 if template is None else template.quotes - usual
            if seq is unset:
                seq = 0
                quotes -= SEQ_QUOTES
            if (
                template is None
                or type(ts) is not int
                or not earliest_ms <= ts <= latest_ms
                or not 0 <= seq < end_of_seq
            ):
                quotes += self._take_plainly(sent, template, now_ms, taken) - usual
                continue
            # JSON knows neither NaN nor infinity, and what is too large for a float does not decode.
            if type(value) is float:
                fill, head, value_head = template.of_float
            elif type(value) is int and -0x8000_0000 <= value <= 0x7FFF_FFFF:
                fill, head, value_head = template.of_int32
            else:
                quotes += self._take_plainly(sent, template, now_ms, taken) - usual
                continue
            if unusual:
                quotes += unusual
            append(fill(head, ts, seq_head, seq, value_head, value, received_head, now_ms, template.tail))
        return quotes

    def _take_each(self, raw: bytes, now_ms: int) -> EncodedEvent:
        """Take an array whose readings have to be looked at one by one."""
        taken = EncodedEvent([], [])
        for item in split_array(raw):
            try:
                taken.documents.append(self.encode_one(item, now_ms))
            except ReadingError as error:
                reject(taken, error)
        return taken

    def _take_plainly(self, sent: ReadingPayload, template: Template | None, now_ms: int, taken: EncodedEvent) -> int:
        """Take a reading in another form; return its `quotes_of`, as if it said a `seq`."""
        try:
            taken.documents.append(self._document(sent, template, now_ms))
        except ReadingError as error:
            reject(taken, error)
        return quotes_of(sent) + (SEQ_QUOTES if sent.seq is UNSET else 0)

    def _document(self, sent: ReadingPayload, template: Template | None, now_ms: int) -> bytes:
        if template is not None:
            # All but its value and times has passed before.
            check_value(sent.value)
            ts_ms, seq = check_time(sent, now_ms)
            return template.document(sent.value, ts_ms, seq, now_ms)
        reading = check_sent(sent, self._defaults, now_ms)
        self._require_name(reading.sensor_type)
        self._keep_template(sent, reading)
        return encode_document(self._owner, self._device, reading)

    def _require_name(self, sensor_type: str) -> None:
        if self._may_name is not None and not self._may_name(sensor_type):
            raise ReadingError("forbidden", "the owner names more sensorTypes than may be")

    def _keep_template(self, sent: ReadingPayload, reading: Reading) -> None:
        if len(self._templates) >= MAX_TEMPLATES:
            return
        if sent.location is not UNSET or sent.tags is not UNSET:
            place = sent.location
            # 0.0 and -0.0 are the same key and other bytes.
            if self._placed >= MAX_PLACED or (isinstance(place, Place) and 0 in (place.lat, place.lon, place.alt)):
                return
            self._placed += 1
        quotes = quotes_of(msgspec.structs.replace(sent, value=0, ts=0, seq=0))
        self._templates[_key(sent)] = Template(self._owner, self._device, reading, quotes)


def _key(sent: ReadingPayload) -> Key:
    location, tags = sent.location, sent.tags
    if location is UNSET and tags is UNSET:
        return sent.sensor_type, sent.unit
    # In their order, which is that of the stored bytes.
    return sent.sensor_type, sent.unit, location, UNSET if tags is UNSET else tuple(tags.items())


def reject(taken: EncodedEvent, error: ReadingError) -> None:
    """Add the next reading of an event, which is not taken."""
    # Each reading sent is in one of the two lists, so this one's index is how many are in them.
    index = len(taken.documents) + len(taken.rejected)
    taken.rejected.append(Rejection(index, error.code, error.detail))
