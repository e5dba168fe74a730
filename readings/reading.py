"""A reading: from a device's JSON to a checked value, or to the code of what is wrong with it.

The schema of DESIGN's section "A reading", in one place. Good readings take one typed decode and a few comparisons;
only what fails is looked at field by field, to name the field that is wrong.
"""

import math
import random
import re
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from readings.place import Place
from runtime.http.json_text import repeated_name
from runtime.times import parse_rfc3339

# `forbidden`: nothing is wrong with the reading, but its owner may not name one more sensorType, or (where a reading
# may name its device at all) the device is another than the sender.
Code = Literal["invalid_reading", "invalid_field", "invalid_value", "invalid_ts", "forbidden"]
Value = bool | int | float | str

ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MAX_READINGS = 1000
MAX_TEXT = 256
MAX_UNIT = 32
MAX_TAGS = 16
EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00:00Z
MAX_AHEAD_MS = 24 * 3600 * 1000
INT64 = range(-(2**63), 2**63)
QUOTE = b'"'
# Sequence numbers below are the devices'; those from here to 2**53 - 1 are drawn for readings without a time.
GENERATED_SEQ_START = 2**52

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What msgspec raises for bytes that are not JSON, not UTF-8, or nested too deeply.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ReadingPayload(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, gc=False):
    """A reading as a device sends it, before the checks that types cannot express.

    In the order in which devices mostly send the fields: it is found quickest. JSON has no cycles: nothing to collect.
    """

    sensor_type: str | UnsetType = UNSET
    value: Value
    ts: int | str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    location: str | Place | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET


class Reading(msgspec.Struct, frozen=True):
    """A reading that may be stored. Times are milliseconds since 1970."""

    sensor_type: str
    value: Value
    ts_ms: int
    seq: int
    received_ms: int
    location: str | Place | None = None
    unit: str | None = None
    tags: dict[str, str] | None = None


class Defaults(msgspec.Struct, frozen=True):
    """What a device's token says for readings that do not say it themselves."""

    sensor_type: str | None = None
    location: str | Place | None = None


class Rejection(msgspec.Struct, frozen=True):
    """Why the reading at `index` of its event was not taken."""

    index: int
    code: Code
    detail: str


class Checked(msgspec.Struct):
    """The outcome of one event: what may be stored, and what was refused."""

    readings: list[Reading]
    rejected: list[Rejection]


class ReadingError(Exception):
    """A reading, or a whole event, that is not taken."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code: Code = code
        self.detail = detail


def field_types(struct: type[ReadingPayload]) -> dict[str, Any]:
    """Return the type of each field, by its name in JSON."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


_one = msgspec.json.Decoder(ReadingPayload)
_many = msgspec.json.Decoder(list[ReadingPayload])
_raw_items = msgspec.json.Decoder(list[Raw])
_raw_fields = msgspec.json.Decoder(dict[str, Raw])
_field_types = field_types(ReadingPayload)
_field_codes: dict[str, Code] = {"value": "invalid_value", "ts": "invalid_ts"}


def decode_one(raw: bytes) -> ReadingPayload:
    """Decode one reading, unchecked; ReadingError names the field that does not decode.

    A name that stands twice is not seen, the last one wins: compare `quotes_of` before you take what was decoded.
    """
    try:
        return _one.decode(raw)
    except UNDECODABLE as error:
        raise explain(raw, _field_types) from error


def decode_many(raw: bytes) -> list[ReadingPayload]:
    """Decode an array, unchecked, as `decode_one`; ReadingError when it is none, or one of them does not decode."""
    try:
        return _many.decode(raw)
    except UNDECODABLE as error:
        raise ReadingError("invalid_reading", "the payload must be a JSON array of readings") from error


def quotes_of(sent: ReadingPayload) -> int:
    """Return how many quotation marks the JSON of this reading has, if no name stands twice and no text holds one.

    JSON with more has a name twice, or a text with a quotation mark (or `alt: null`): only then is it worth a look.
    It never has fewer: each name and each text that was decoded stands between two.
    """
    around = 1 + isinstance(sent.value, str)
    if sent.sensor_type is not UNSET:
        around += 2
    if sent.ts is not UNSET:
        around += 1 + isinstance(sent.ts, str)
    if sent.seq is not UNSET:
        around += 1
    if sent.unit is not UNSET:
        around += 2
    if isinstance(sent.location, Place):
        around += 3 + (sent.location.alt is not None)
    elif sent.location is not UNSET:
        around += 2
    if sent.tags is not UNSET:
        around += 1 + 2 * len(sent.tags)
    return 2 * around


def require_names_once(raw: bytes) -> None:
    """Raise ReadingError when a name stands twice in the object, or in one within it. Some 3 us for a usual reading."""
    if (name := repeated_name(raw)) is not None:
        raise ReadingError("invalid_reading", f"the name {name[:64]!r} stands twice in one object")


def split_array(raw: bytes) -> list[bytes]:
    """Cut an array into its undecoded items; ReadingError when it is no array."""
    try:
        return list(map(bytes, _raw_items.decode(raw)))
    except UNDECODABLE as error:
        raise ReadingError("invalid_reading", "the payload must be a JSON array of readings") from error


def check_one(raw: bytes, defaults: Defaults, now_ms: int) -> Reading:
    """Decode and check one reading; ReadingError says what is wrong. `now_ms` is when it was received."""
    sent = decode_one(raw)
    if raw.count(QUOTE) != quotes_of(sent):
        require_names_once(raw)
    return check_sent(sent, defaults, now_ms)


def count(raw: bytes) -> int:
    """Return how many readings an event's array holds; ReadingError when it is not an array."""
    return len(split_array(raw))


def check_many(raw: bytes, defaults: Defaults, now_ms: int) -> Checked:
    """Decode and check an array of readings, each on its own; ReadingError when it is not an array at all."""
    checked = Checked([], [])
    for index, item in enumerate(split_array(raw)):
        try:
            checked.readings.append(check_one(item, defaults, now_ms))
        except ReadingError as error:
            checked.rejected.append(Rejection(index, error.code, error.detail))
    return checked


def parse_time(text: str) -> int:
    """Return RFC 3339 text as milliseconds since 1970, as `runtime/times.py` reads it; ReadingError when it is none."""
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise ReadingError("invalid_ts", f"ts {error}") from error


def check_sent(sent: ReadingPayload, defaults: Defaults, now_ms: int) -> Reading:
    """Check a decoded reading, field by field; ReadingError names the first that is wrong."""
    sensor_type = defaults.sensor_type if sent.sensor_type is UNSET else sent.sensor_type
    if sensor_type is None:
        raise ReadingError("invalid_field", "sensorType is required: the token names none")
    if not ID_PATTERN.fullmatch(sensor_type):
        raise ReadingError("invalid_field", "sensorType must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    check_value(sent.value)
    ts_ms, seq = check_time(sent, now_ms)
    location = defaults.location if sent.location is UNSET else sent.location
    if sent.location is not UNSET:
        _check_location(sent.location)
    if sent.unit is not UNSET:
        _check_text("unit", sent.unit, MAX_UNIT)
    if sent.tags is not UNSET:
        _check_tags(sent.tags)
    return Reading(
        sensor_type,
        sent.value,
        ts_ms,
        seq,
        now_ms,
        location,
        None if sent.unit is UNSET else sent.unit,
        None if sent.tags is UNSET else sent.tags,
    )


def check_value(value: Value) -> None:
    """Raise ReadingError for a value that may not be stored."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT or _CONTROL.search(value):
            raise ReadingError("invalid_value", f"a text value has at most {MAX_TEXT} characters, none of control")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ReadingError("invalid_value", "value must be finite")
    elif value not in INT64:
        raise ReadingError("invalid_value", "an integer value must fit 64 bits")


def check_time(sent: ReadingPayload, now_ms: int) -> tuple[int, int]:
    """Return `ts` in milliseconds and `seq`; ReadingError for times that may not be stored."""
    if sent.ts is UNSET:
        if sent.seq is not UNSET:
            raise ReadingError("invalid_ts", "seq is only allowed with ts")
        return now_ms, GENERATED_SEQ_START | random.getrandbits(52)
    ts_ms = sent.ts if isinstance(sent.ts, int) else parse_time(sent.ts)
    if not EARLIEST_MS <= ts_ms <= now_ms + MAX_AHEAD_MS:
        raise ReadingError("invalid_ts", "ts must lie between 2000-01-01 and 24 h from now")
    seq = 0 if sent.seq is UNSET else sent.seq
    if not 0 <= seq < GENERATED_SEQ_START:
        raise ReadingError("invalid_field", "seq must be between 0 and 2^52 - 1")
    return ts_ms, seq


def _check_location(location: str | Place) -> None:
    if isinstance(location, str):
        _check_text("location", location, MAX_TEXT)
    elif not (abs(location.lat) <= 90 and abs(location.lon) <= 180):
        raise ReadingError("invalid_field", "lat must be within 90 degrees and lon within 180")


def _check_tags(tags: dict[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise ReadingError("invalid_field", f"at most {MAX_TAGS} tags")
    for key, text in tags.items():
        if not ID_PATTERN.fullmatch(key):
            raise ReadingError("invalid_field", "a tag's key must be 1 to 64 of A-Z a-z 0-9 _ . : -")
        _check_text("a tag's value", text, MAX_TEXT)


def _check_text(what: str, text: str, most: int) -> None:
    if len(text) > most or _CONTROL.search(text):
        raise ReadingError("invalid_field", f"{what} may have at most {most} characters, none of control")


def explain(raw: bytes, types: dict[str, Any]) -> ReadingError:
    """Name what is wrong with a reading of fields of these `types` that did not decode, in the documented order."""
    try:
        fields = _raw_fields.decode(raw)
    except UNDECODABLE:
        return ReadingError("invalid_reading", "a reading must be a JSON object")
    if unknown := [name for name in fields if name not in types]:
        return ReadingError("invalid_field", f"unknown field {unknown[0][:64]!r}")
    try:
        require_names_once(raw)
    except ReadingError as error:
        return error
    for name in ("sensorType", "value", "ts", "seq", "location", "unit", "tags", *types):
        if name not in fields:
            if name == "value":
                return ReadingError("invalid_value", "value is required")
            continue
        try:
            msgspec.json.decode(fields[name], type=types[name])
        except UNDECODABLE as error:
            return ReadingError(_field_codes.get(name, "invalid_field"), f"{name}: {error}")
    return ReadingError("invalid_reading", "the reading cannot be decoded")
