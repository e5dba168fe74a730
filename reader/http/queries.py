"""Query parameters as types: times, cursors, widths of buckets. A cursor encodes a position and nothing else."""

import base64
import binascii
import re
import struct
from typing import Annotated, Literal, cast
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, Meta, UnsetType

from reader.history.bucket_boundaries import BucketWidth, Unit
from readings.keys import Position
from readings.reading import ReadingError, parse_time
from runtime.http.problems import FieldError, Problem
from runtime.time_zones import UnknownZone, time_zone

MAX_LIMIT = 1000
# Series on a page with their completeness: each is counted, reading by reading.
MAX_COMPLETENESS = 100
# Devices, or sensorTypes, that one export names; an address of 8 KiB has room for some 180 ids.
MAX_NAMES = 100
# A reading up to this far ahead of the server's clock counts as current.
AHEAD_MS = 60_000
# The latest date MongoDB can store.
LAST_MS = 2**63 - 1

_EXAMPLE_ID = "0199d3c4-7a20-7c1e-9f4b-5d2a8e6b1c37"
_EXAMPLE_SENSOR_TYPE = "temperature"
# Wider than what a gateway accepts: everything stored in MongoDB can be queried.
Id = Annotated[str, Meta(min_length=1, max_length=256, examples=[_EXAMPLE_ID])]
SensorType = Annotated[str, Meta(min_length=1, max_length=256, examples=[_EXAMPLE_SENSOR_TYPE])]
# Validated by `parse_bound`, whose errors say more than a pattern's.
Time = Annotated[str, Meta(max_length=64, examples=["2026-01-31T12:00:00Z"])]
Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str, Meta(max_length=512)]
Format = Literal["json", "ndjson", "csv", "parquet"]
Devices = Annotated[
    Id | Annotated[list[Id], Meta(max_length=MAX_NAMES)],
    Meta(
        description="One, and required, for JSON. With CSV, NDJSON and Parquet it may be given several times, or left "
        "out for all of your devices.",
        examples=[_EXAMPLE_ID],
    ),
]
SensorTypes = Annotated[
    SensorType | Annotated[list[SensorType], Meta(max_length=MAX_NAMES)],
    Meta(
        description="One, and required, for JSON. With CSV, NDJSON and Parquet it may be given several times, or left "
        "out for all sensorTypes.",
        examples=[_EXAMPLE_SENSOR_TYPE],
    ),
]
For = Annotated[
    Literal["spreadsheet"],
    Meta(
        description="Only with CSV: cells that a spreadsheet would take for a formula start with an apostrophe, so "
        "that opening the file runs nothing. For people; programs should omit it."
    ),
]
End = Annotated[
    bool,
    Meta(
        description='Only with CSV or NDJSON: a last line, `# end n` or `{"end":true,"count":n}`, confirms that all n '
        "readings were sent. An export that was cut off lacks it. A Parquet file that was cut off cannot be opened."
    ),
]

Completeness = Annotated[
    bool,
    Meta(
        description="Also return how complete each series is over the last 24 hours, as `GET /devices/{id}/gaps` "
        f"counts it; then at most {MAX_COMPLETENESS} series a page."
    ),
]
Zone = Annotated[
    str,
    Meta(
        max_length=64,
        examples=["Europe/Berlin"],
        description="By whose clocks days, weeks, months and hours begin: a name of the IANA time zone database.",
    ),
]
Values = Annotated[
    Literal["number", "all"],
    Meta(description="`number`: numbers alone. `all`: each kind of value apart, with the most frequent texts."),
]

_MILLISECONDS = re.compile(r"-?[0-9]{1,18}")
# Ten digits of days, and nine of weeks or months, still fit a 64-bit number of milliseconds.
_EVERY = re.compile(r"([1-9][0-9]{0,9})(ms|s|m|h|d)|([1-9][0-9]{0,8})(w|M)")
_UTC = "UTC"
_POSITION = struct.Struct(">qq")


class HistoryQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /readings`."""

    device: Devices | UnsetType = UNSET
    sensor_type: SensorTypes | UnsetType = UNSET
    # Inclusive; `to` is exclusive.
    from_: Time | UnsetType = msgspec.field(default=UNSET, name="from")
    to: Time | UnsetType = UNSET
    order: Literal["asc", "desc"] = "asc"
    limit: Limit | UnsetType = UNSET
    cursor: Cursor | UnsetType = UNSET
    format: Format | UnsetType = UNSET
    for_: For | UnsetType = msgspec.field(default=UNSET, name="for")
    end: End = False


class SeriesQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /readings/latest`, and a page of `GET /series`; an omitted filter matches all."""

    device: Id | UnsetType = UNSET
    sensor_type: SensorType | UnsetType = UNSET
    limit: Limit = MAX_LIMIT
    cursor: Cursor | UnsetType = UNSET


class SeriesListQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /series`; an omitted filter matches all."""

    device: Id | UnsetType = UNSET
    sensor_type: SensorType | UnsetType = UNSET
    # By default as many as there may be.
    limit: Limit | UnsetType = UNSET
    cursor: Cursor | UnsetType = UNSET
    completeness: Completeness = False

    def series_query(self) -> SeriesQuery:
        """Return the query of a page; Problem 422 if a page with completeness is too long."""
        most = MAX_COMPLETENESS if self.completeness else MAX_LIMIT
        limit = most if self.limit is UNSET else self.limit
        if limit > most:
            raise invalid_parameter("limit", f"with completeness=true, limit must be at most {MAX_COMPLETENESS}")
        return SeriesQuery(self.device, self.sensor_type, limit, self.cursor)


class BucketsQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /readings/buckets`."""

    device: Id
    sensor_type: SensorType
    from_: Time | UnsetType = msgspec.field(default=UNSET, name="from")
    to: Time | UnsetType = UNSET
    every: Annotated[str, Meta(max_length=16, examples=["1m"])] = "1m"
    zone: Zone = _UTC
    values: Values | UnsetType = UNSET


class LiveQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /live`; an omitted filter matches all."""

    device: Id | UnsetType = UNSET
    sensor_type: SensorType | UnsetType = UNSET


def parse_bound(field: str, text: str | UnsetType) -> int | None:
    """Return a time in milliseconds since 1970, None if omitted; Problem 422 if invalid."""
    if text is UNSET:
        return None
    if _MILLISECONDS.fullmatch(text):
        return int(text)
    try:
        return parse_time(text)
    except ReadingError as error:
        hint = " (in a URL, + must be encoded as %2B)" if " " in text else ""
        message = f"{field} must be milliseconds since 1970, or RFC 3339 with a zone and at most three decimals{hint}"
        raise invalid_parameter(field, message) from error


def parse_range(from_: str | UnsetType, to: str | UnsetType) -> tuple[int | None, int | None]:
    """Return both ends in milliseconds since 1970; Problem 422 if one is invalid or `to` lies before `from`."""
    start, end = parse_bound("from", from_), parse_bound("to", to)
    if start is not None and end is not None and end < start:
        raise invalid_parameter("to", "to must not lie before from")
    return start, end


def parse_zone(name: str) -> ZoneInfo | None:
    """Return a time zone, None for UTC; Problem 422 if there is none of this name."""
    try:
        return None if name == _UTC else time_zone(name)
    except UnknownZone as error:
        message = "zone must be a name of the IANA time zone database: Europe/Berlin, Asia/Kolkata, UTC"
        raise invalid_parameter("zone", message) from error


def parse_every(text: str, zone: ZoneInfo | None) -> BucketWidth:
    """Return the width of a bucket; Problem 422 if invalid, or if hours and less do not divide a day of a zone."""
    found = _EVERY.fullmatch(text)
    if found is None:
        message = "every must be a whole number of ms, s, m, h, d, w or M: 250ms, 1s, 15m, 1h, 7d, 1w, 1M"
        raise invalid_parameter("every", message)
    width = BucketWidth(int(found[1] or found[3]), cast("Unit", found[2] or found[4]))
    if zone is not None and width.unit not in {"d", "w", "M"} and not width.divides_a_day:
        raise invalid_parameter("every", "with a zone, ms, s, m and h must divide a day: 250ms, 15m, 1h, 6h")
    return width


def position_cursor(position: Position) -> str:
    """Return the cursor of a reading's position."""
    return base64.urlsafe_b64encode(_POSITION.pack(*position)).rstrip(b"=").decode()


def parse_position(text: str) -> Position:
    """Return the position encoded in a cursor; Problem 422 if invalid."""
    try:
        ts_ms, seq = _POSITION.unpack(_unpadded(text))
    except (struct.error, binascii.Error, ValueError) as error:
        raise invalid_parameter("cursor", "this is not a cursor from an earlier response") from error
    return ts_ms, seq


def series_cursor(device: str, sensor_type: str) -> str:
    """Return the cursor of a series."""
    return base64.urlsafe_b64encode(f"{device}\0{sensor_type}".encode()).rstrip(b"=").decode()


def parse_series(text: str | UnsetType) -> tuple[str, str] | None:
    """Return the series encoded in a cursor, None if omitted; Problem 422 if invalid."""
    if text is UNSET:
        return None
    try:
        device, _, sensor_type = _unpadded(text).decode().partition("\0")
    except (binascii.Error, ValueError) as error:
        raise invalid_parameter("cursor", "this is not a cursor from an earlier response") from error
    if not device or not sensor_type:  # every series has both names
        raise invalid_parameter("cursor", "this is not a cursor from an earlier response")
    return device, sensor_type


def invalid_parameter(field: str, message: str) -> Problem:
    """Return the Problem 422 for one parameter."""
    return Problem(422, "The request has the wrong form.", errors=(FieldError(field, "invalid", message),))


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
