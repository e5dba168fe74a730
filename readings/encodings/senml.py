"""SenML (RFC 8428) in JSON and in CBOR: packs of records to readings.

A pack is an array of records. Base fields (bn, bt, bu, bv) apply to their record and to all after it, until another
record replaces them: so a base field that is wrong refuses the whole pack, while a wrong field of one record rejects
that record alone. Numbers are read and added as decimals: a time keeps its nanoseconds, and 20.1 + 0.2 is 20.3.

Times below 2^28 are relative to the arrival of the pack. `vd` is stored as its text in base64url; `ut` is not stored.
Sums (s, bs) are refused: a reading has a value.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal, DecimalException
from math import isfinite
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from readings.encodings.cbor import OTHER, CborError, NotAnArrayError, Record, Scalar, decode_maps
from readings.encodings.sent import BodyRefused, SentReading
from readings.reading import QUOTE, UNDECODABLE, Code, ReadingError, Value
from runtime.http.json_text import repeated_name

Fields = Mapping[str, Scalar]
Number = int | Decimal

VERSION = 10
# Times below are relative to now, in seconds (RFC 8428, 4.5.3).
RELATIVE_BELOW: Final = 2**28
# A number with more characters is in no measurement; one with a larger exponent is no 64-bit float.
MAX_NUMBER_CHARS = 400
MAX_EXPONENT = 400

# The integer labels of CBOR (RFC 8428, table 4).
_CBOR_LABELS: dict[int | str, str] = {
    -6: "bs", -5: "bv", -4: "bu", -3: "bt", -2: "bn", -1: "bver",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_LABELS = frozenset(_CBOR_LABELS.values())
_VALUES = ("v", "vs", "vb", "vd")
_MEASURING = frozenset(("n", "u", "t", "ut"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_BASE64URL = re.compile(r"(?:[A-Za-z0-9_-]{4})*+(?:[A-Za-z0-9_-]{2,3})?")
# Enough digits for every sum of two numbers that can be a time or a value.
_EXACT = Context(prec=2 * MAX_EXPONENT)

_raw = msgspec.json.Decoder(Raw)
_raw_records = msgspec.json.Decoder(list[Raw])
_raw_fields = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)


def decode_json(raw: bytes) -> Iterator[SentReading | ReadingError]:
    """Yield the reading of each record of a pack in JSON, or what is wrong with the record; or raise BodyRefused."""
    try:
        raw.decode()  # `Raw` is valid JSON, but not necessarily UTF-8
        records = _raw_records.decode(raw) if raw.lstrip().startswith(b"[") else _raw.decode(raw)
    except UNDECODABLE as error:
        raise BodyRefused("malformed", f"The body is not JSON: {error}") from error
    if isinstance(records, Raw):
        raise BodyRefused("invalid_reading", "a SenML pack must be an array of records")
    return _Pack().readings(map(_fields_of_json, records))


def decode_cbor(raw: bytes) -> Iterator[SentReading | ReadingError]:
    """Yield the reading of each record of a pack in CBOR, or what is wrong with the record; or raise BodyRefused."""
    try:
        yield from _Pack().readings(map(_fields_of_cbor, decode_maps(raw)))
    except NotAnArrayError as error:
        raise BodyRefused("invalid_reading", "a SenML pack must be an array of records") from error
    except CborError as error:
        raise BodyRefused("malformed", f"The body is not CBOR: {error}") from error


def _fields_of_json(raw: Raw) -> Fields | ReadingError:
    try:
        fields = _raw_fields.decode(raw)
    except UNDECODABLE:
        return ReadingError("invalid_reading", "a record must be a JSON object")
    text = bytes(raw)
    quotes = 2 * len(fields) + sum(bytes(value).count(QUOTE) for value in fields.values())
    if text.count(QUOTE) != quotes and (name := repeated_name(text)) is not None:
        raise BodyRefused("invalid_reading", f"the label {name[:64]!r} occurs twice in one record")
    return {label: _scalar_of_json(bytes(value)) if label in _LABELS else OTHER for label, value in fields.items()}


def _scalar_of_json(raw: bytes) -> Scalar:
    """Return a value of JSON, numbers exactly; `OTHER` for arrays, objects, null and numbers that are too long."""
    first = raw[:1]
    if first == QUOTE:
        return _text.decode(raw)
    if first in (b"t", b"f"):
        return first == b"t"
    if first in (b"n", b"[", b"{") or len(raw) > MAX_NUMBER_CHARS:
        return OTHER
    number = raw.decode()
    try:
        return Decimal(number) if any(sign in number for sign in ".eE") else int(number)
    except DecimalException:
        return OTHER


def _fields_of_cbor(record: Record | Scalar) -> Fields | ReadingError:
    if not isinstance(record, dict):
        return ReadingError("invalid_reading", "a record must be a map")
    fields: dict[str, Scalar] = {}
    for key, value in record.items():
        # Labels that RFC 8428 knows are integers, and it promises that there will be no further ones.
        label = _CBOR_LABELS.get(key, "" if isinstance(key, int) else key)
        if label in fields and label:
            raise BodyRefused("invalid_reading", f"the label {label[:64]!r} occurs twice in one record")
        fields[label] = OTHER if label == "vd" and isinstance(value, str) else value
    return fields


class _Pack:
    """The base fields that apply to the next record."""

    def __init__(self) -> None:
        self._name = ""
        self._time: Number = 0
        self._unit: str | UnsetType = UNSET
        self._value: Number | None = None
        self._has_sum = False
        self._version: int | None = None

    def readings(self, records: Iterable[Fields | ReadingError]) -> Iterator[SentReading | ReadingError]:
        """Yield the reading of each record, or what is wrong with it; BodyRefused if that spoils the pack."""
        for index, record in enumerate(records):
            if isinstance(record, ReadingError):
                yield record
                continue
            try:
                self._apply_base(record)
            except ReadingError as error:
                raise BodyRefused("invalid_reading", f"record {index}: {error.detail}") from error
            try:
                yield self._reading(record)
            except ReadingError as error:
                yield error

    def _apply_base(self, record: Fields) -> None:
        for label in record:
            if label.endswith("_"):
                detail = f"the label {label[:64]!r} must be understood by whoever reads the pack, and is not"
                raise ReadingError("invalid_field", detail)
        self._check_version(record)
        if "bn" in record:
            self._name = _text_of(record, "bn")
        if "bt" in record:
            self._time = _number_of(record, "bt")
        if "bu" in record:
            self._unit = _text_of(record, "bu")
        if "bv" in record:
            self._value = _number_of(record, "bv")
        self._has_sum = self._has_sum or "bs" in record

    def _check_version(self, record: Fields) -> None:
        version = record.get("bver", VERSION if self._version is None else self._version)
        if type(version) is not int or version < 1:
            raise ReadingError("invalid_field", "bver must be a positive integer")
        if version > VERSION:
            raise ReadingError("invalid_field", f"bver is {version}; versions up to {VERSION} are understood")
        if self._version not in (None, version):
            raise ReadingError("invalid_field", "bver must be the same in all records")
        self._version = version

    def _reading(self, record: Fields) -> SentReading:
        name = self._name + (_text_of(record, "n") if "n" in record else "")
        if not _NAME.fullmatch(name):
            detail = "bn and n together must be letters, digits and - : . / _, and begin with a letter or a digit"
            raise ReadingError("invalid_field", detail)
        if self._has_sum or "s" in record:
            raise ReadingError("invalid_value", "a sum (s, bs) is not stored; send the value")
        value = self._value_of(record)
        unit = _text_of(record, "u") if "u" in record else self._unit
        if "ut" in record:
            _number_of(record, "ut")
        ts_ns, offset_ms = _time(_sum(self._time, _number_of(record, "t", "invalid_ts") if "t" in record else 0))
        return SentReading(name, (name,), value, ts_ns, offset_ms, unit)

    def _value_of(self, record: Fields) -> Value:
        given = [label for label in _VALUES if label in record]
        if len(given) > 1:
            raise ReadingError("invalid_value", f"a record has one value, this one has {' and '.join(given)}")
        label = given[0] if given else ""
        # A base value without a value is the value: the missing one counts as 0 (RFC 8428, 4.5.4). But a
        # record of base fields alone measures nothing.
        if label == "v" or (not label and self._value is not None and not _MEASURING.isdisjoint(record)):
            return self._numeric_value(record)
        if label == "vs":
            return _text_of(record, "vs", "invalid_value")
        if label == "vb":
            if isinstance(boolean := record["vb"], bool):
                return boolean
            raise ReadingError("invalid_value", "vb must be a boolean")
        if label == "vd":
            return _data_text(record["vd"])
        raise ReadingError("invalid_value", "a record must have a value: v, vs, vb or vd")

    def _numeric_value(self, record: Fields) -> int | float:
        value = record.get("v", 0)
        if self._value is None and isinstance(value, float):
            return value
        number = _number_of(record, "v", "invalid_value") if "v" in record else 0
        total = number if self._value is None else _sum(self._value, number)
        return total if isinstance(total, int) else float(total)


def _time(seconds: Number) -> tuple[int | None, int]:
    """Return a time as nanoseconds since 1970, or None and the milliseconds from now if it is relative."""
    if seconds < RELATIVE_BELOW:
        return None, int(_EXACT.multiply(Decimal(seconds), Decimal(1000)).to_integral_value())
    if isinstance(seconds, int):
        return seconds * 10**9, 0
    return int(_EXACT.multiply(seconds, Decimal(10**9)).to_integral_value()), 0


def _sum(base: Number, number: Number) -> Number:
    if isinstance(base, int) and isinstance(number, int):
        return base + number
    return _EXACT.add(Decimal(base), Decimal(number))


def _text_of(record: Fields, label: str, code: Code = "invalid_field") -> str:
    if isinstance(text := record[label], str):
        return text
    raise ReadingError(code, f"{label} must be a text")


def _number_of(record: Fields, label: str, code: Code = "invalid_field") -> Number:
    """Return a number exactly. A float of CBOR counts as the shortest decimal that is this float."""
    value = record[label]
    if isinstance(value, float) and isfinite(value):
        value = Decimal(repr(value))
    if isinstance(value, Decimal) and abs(value.adjusted()) <= MAX_EXPONENT:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ReadingError(code, f"{label} must be a number, and one that a 64-bit float can hold")


def _data_text(data: Scalar) -> str:
    if isinstance(data, bytes):
        return urlsafe_b64encode(data).rstrip(b"=").decode()
    if isinstance(data, str) and _BASE64URL.fullmatch(data):
        return data
    raise ReadingError("invalid_value", "vd must be data: base64url without padding in JSON, bytes in CBOR")
