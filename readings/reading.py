"""The schema of a reading: from a device's JSON to a checked value, or to the code of what is wrong with it.

A valid reading takes one typed decode and a few comparisons; only one that fails is decoded field by field, to name the
field that is wrong.
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

# `forbidden`: the reading is valid, but its owner has too many sensorTypes, or (where a reading may name its device)
# its device is not the sender.
Code = Literal["invalid_reading", "invalid_field", "invalid_value", "invalid_ts", "forbidden"]
Value = bool | int | float | str
Quality = Literal["good", "uncertain", "bad"]

ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MAX_READINGS = 1000
MAX_TEXT = 256
MAX_UNIT = 32
MAX_TAGS = 16
EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00:00Z
MAX_AHEAD_MS = 24 * 3600 * 1000
INT64 = range(-(2**63), 2**63)
QUOTE = b'"'
# Lower sequence numbers are the devices'; those from here to 2**53 - 1 are generated, for readings without a time.
GENERATED_SEQ_START = 2**52

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Raised by msgspec for bytes that are not JSON, not UTF-8, or nested too deeply.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Attributes(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    """The optional fields of a reading, in the order in which they are stored, returned and exported.

    To add one: declare it here and in `Reading`, check it in `check_payload`, count its quotation marks in
    `expected_quotes`; describe it in `readings/http_schema.py`; compare it in `readings/encoder.py`. Documents,
    answers, CSV and replay take their fields from `ATTRIBUTES`. tests/readings/test_attributes.py names missing places.
    """

    unit: str | UnsetType = UNSET
    location: str | Place | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    quality: Quality | UnsetType = UNSET


ATTRIBUTES = Attributes.__struct_encode_fields__


class ReadingPayload(Attributes, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A reading as a device sends it, before the checks that types cannot express.

    Devices mostly send these fields first and the attributes last. msgspec looks for the next name in a circle, so that
    decodes fastest. JSON has no cycles: no gc.
    """

    sensor_type: str | UnsetType = UNSET
    value: Value
    ts: int | str | UnsetType = UNSET
    seq: int | UnsetType = UNSET


class Reading(msgspec.Struct, frozen=True):
    """A checked reading. Times are milliseconds since 1970; the attributes have the names of `ATTRIBUTES`."""

    sensor_type: str
    value: Value
    ts_ms: int
    seq: int
    received_ms: int
    location: str | Place | None = None
    unit: str | None = None
    tags: dict[str, str] | None = None
    quality: Quality | None = None


class Defaults(msgspec.Struct, frozen=True):
    """The values of a device's token for fields that a reading leaves out."""

    sensor_type: str | None = None
    location: str | Place | None = None


class Rejection(msgspec.Struct, frozen=True):
    """Why the reading at `index` of its event was not taken."""

    index: int
    code: Code
    detail: str


class ReadingError(Exception):
    """A reading, or a whole event, is rejected: `code` for programs, `detail` for people."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code: Code = code
        self.detail = detail


def field_types(struct: type[ReadingPayload]) -> dict[str, Any]:
    """Return the type of each field by its JSON name."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


_one = msgspec.json.Decoder(ReadingPayload)
_many = msgspec.json.Decoder(list[ReadingPayload])
_raw_items = msgspec.json.Decoder(list[Raw])
_raw_fields = msgspec.json.Decoder(dict[str, Raw])
_field_types = field_types(ReadingPayload)
_field_codes: dict[str, Code] = {"value": "invalid_value", "ts": "invalid_ts"}


def decode_one(raw: bytes) -> ReadingPayload:
    """Decode one reading, unchecked; ReadingError names the field that does not decode.

    A name that occurs twice is not noticed, the last one wins: compare `expected_quotes` before using the result.
    """
    try:
        return _one.decode(raw)
    except UNDECODABLE as error:
        raise explain(raw, _field_types) from error


def decode_many(raw: bytes) -> list[ReadingPayload]:
    """Decode an array, unchecked, as `decode_one`; ReadingError when it is not one, or one reading does not decode."""
    try:
        return _many.decode(raw)
    except UNDECODABLE as error:
        raise ReadingError("invalid_reading", "the payload must be a JSON array of readings") from error


def expected_quotes(payload: ReadingPayload) -> int:
    """Return how many quotation marks the JSON of this reading has if no name occurs twice and no text contains one.

    JSON with more has a name twice, or a text with a quotation mark (or `alt: null`): only then it must be examined.
    It never has fewer: each decoded name and text is between two.
    """
    pairs = 1 + isinstance(payload.value, str)
    if payload.sensor_type is not UNSET:
        pairs += 2
    if payload.ts is not UNSET:
        pairs += 1 + isinstance(payload.ts, str)
    if payload.seq is not UNSET:
        pairs += 1
    if payload.unit is not UNSET:
        pairs += 2
    if isinstance(payload.location, Place):
        pairs += 3 + (payload.location.alt is not None)
    elif payload.location is not UNSET:
        pairs += 2
    if payload.tags is not UNSET:
        pairs += 1 + 2 * len(payload.tags)
    if payload.quality is not UNSET:
        pairs += 2
    return 2 * pairs


def require_unique_names(raw: bytes) -> None:
    """Raise ReadingError when a name occurs twice in an object, nested ones included. About 3 us per usual reading."""
    if (name := repeated_name(raw)) is not None:
        raise ReadingError("invalid_reading", f"the name {name[:64]!r} occurs twice in one object")


def split_array(raw: bytes) -> list[bytes]:
    """Return the items of an array, undecoded; ReadingError when it is not an array."""
    try:
        return list(map(bytes, _raw_items.decode(raw)))
    except UNDECODABLE as error:
        raise ReadingError("invalid_reading", "the payload must be a JSON array of readings") from error


def check_one(raw: bytes, defaults: Defaults, now_ms: int) -> Reading:
    """Decode and check one reading received at `now_ms`; ReadingError names what is wrong."""
    payload = decode_one(raw)
    if raw.count(QUOTE) != expected_quotes(payload):
        require_unique_names(raw)
    return check_payload(payload, defaults, now_ms)


def parse_time(text: str) -> int:
    """Return RFC 3339 text as milliseconds since 1970, see `parse_rfc3339`; ReadingError for any other text."""
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise ReadingError("invalid_ts", f"ts {error}") from error


def check_payload(payload: ReadingPayload, defaults: Defaults, now_ms: int) -> Reading:
    """Check a decoded reading field by field; ReadingError names the first field that is wrong."""
    sensor_type = defaults.sensor_type if payload.sensor_type is UNSET else payload.sensor_type
    if sensor_type is None:
        raise ReadingError("invalid_field", "sensorType is required, as the token has none")
    if not ID_PATTERN.fullmatch(sensor_type):
        raise ReadingError("invalid_field", "sensorType must be 1 to 64 of A-Z a-z 0-9 _ . : -")
    check_value(payload.value)
    ts_ms, seq = check_time(payload, now_ms)
    location = defaults.location if payload.location is UNSET else payload.location
    if payload.location is not UNSET:
        _check_location(payload.location)
    if payload.unit is not UNSET:
        _check_text("unit", payload.unit, MAX_UNIT)
    if payload.tags is not UNSET:
        _check_tags(payload.tags)
    return Reading(
        sensor_type,
        payload.value,
        ts_ms,
        seq,
        now_ms,
        location,
        None if payload.unit is UNSET else payload.unit,
        None if payload.tags is UNSET else payload.tags,
        None if payload.quality is UNSET else payload.quality,
    )


def check_value(value: Value) -> None:
    """Raise ReadingError for a value that may not be stored."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT or _CONTROL.search(value):
            raise ReadingError(
                "invalid_value", f"a text value may have at most {MAX_TEXT} characters and no control characters"
            )
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ReadingError("invalid_value", "value must be finite")
    elif value not in INT64:
        raise ReadingError("invalid_value", "an integer value must fit 64 bits")


def check_time(payload: ReadingPayload, now_ms: int) -> tuple[int, int]:
    """Return `ts` in milliseconds and `seq`; ReadingError for times that may not be stored."""
    if payload.ts is UNSET:
        if payload.seq is not UNSET:
            raise ReadingError("invalid_ts", "seq is only allowed with ts")
        return now_ms, GENERATED_SEQ_START | random.getrandbits(52)
    ts_ms = payload.ts if isinstance(payload.ts, int) else parse_time(payload.ts)
    if not EARLIEST_MS <= ts_ms <= now_ms + MAX_AHEAD_MS:
        raise ReadingError("invalid_ts", "ts must lie between 2000-01-01 and 24 h from now")
    seq = 0 if payload.seq is UNSET else payload.seq
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


def _check_text(field: str, text: str, limit: int) -> None:
    if len(text) > limit or _CONTROL.search(text):
        raise ReadingError("invalid_field", f"{field} may have at most {limit} characters and no control characters")


def explain(raw: bytes, types: dict[str, Any]) -> ReadingError:
    """Return why a reading did not decode; `types` are its fields, checked in the documented order."""
    try:
        fields = _raw_fields.decode(raw)
    except UNDECODABLE:
        return ReadingError("invalid_reading", "a reading must be a JSON object")
    if unknown := [name for name in fields if name not in types]:
        return ReadingError("invalid_field", f"unknown field {unknown[0][:64]!r}")
    try:
        require_unique_names(raw)
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
