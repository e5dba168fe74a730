"""Responses: readings as JSON and NDJSON, converted from MongoDB documents."""

from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web
from bson.codec_options import CodecOptions, DatetimeConversion

from readings.document import received_at_ms
from readings.reading import ATTRIBUTES, Attributes
from runtime.http.operation import JSON
from runtime.times import TimeText, rfc3339

Document = dict[str, Any]
# Naive datetimes, which are quick to format, and DatetimeMS beyond Python's calendar. MongoDB also stores text that is
# not valid UTF-8: it is returned with U+FFFD, so that one such document does not hide its neighbours.
AS_STORED: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)


def json_value(value: Any) -> Any:
    """Return a value as JSON: MongoDB's int64 becomes an integer.

    Types unknown to JSON, which only a manual write can have stored, become text.
    """
    if type(value) in (float, int, bool, str) or value is None:
        return value
    return int(value) if isinstance(value, int) else str(value)


_encoder = msgspec.json.Encoder(enc_hook=json_value)


# Describes the schema only: responses are built from documents directly.
class ReadingAnswer(Attributes, rename="camel", frozen=True):
    """A reading as it was stored."""

    device: str
    sensor_type: str
    ts: TimeText
    seq: int
    value: bool | int | float | str | None
    received_at: TimeText | None


class ReadingsAnswer(msgspec.Struct, rename="camel"):
    """A page of readings; the last one has no `nextCursor`."""

    items: list[ReadingAnswer]
    next_cursor: str | msgspec.UnsetType = msgspec.UNSET


class SeriesCompleteness(msgspec.Struct):
    """How complete the last 24 hours are: readings received, of how many expected; null if that cannot be known."""

    received: int
    expected: int | None
    share: float | None


class SeriesItem(msgspec.Struct, rename="camel"):
    """A series, and how fresh it is; unknown times are null. `completeness` only where it was asked for."""

    device: str
    sensor_type: str
    connected: bool
    last_seen_at: TimeText | None
    last_reading_at: TimeText | None
    completeness: SeriesCompleteness | msgspec.UnsetType = msgspec.UNSET


class SeriesAnswer(msgspec.Struct, rename="camel"):
    """A page of series; the last one has no `nextCursor`."""

    items: list[SeriesItem]
    next_cursor: str | msgspec.UnsetType = msgspec.UNSET


class Numbers(msgspec.Struct):
    """Statistics of the numbers of a bucket; `avg` is null when the sum, or that of a part, overflows a float."""

    min: float
    max: float
    avg: float | None
    first: float
    last: float
    count: int


class Booleans(msgspec.Struct):
    """Statistics of the boolean readings of a bucket: `on` of `count` were true."""

    on: int
    count: int
    first: bool
    last: bool


class Texts(msgspec.Struct):
    """Statistics of the text readings of a bucket. `top`: the five most frequent texts as `[text, n]`.

    The most frequent comes first; equally frequent texts are sorted. Only with `values=all`.
    """

    count: int
    first: str
    last: str
    top: list[list[str | int]] | msgspec.UnsetType = msgspec.UNSET


class Bucket(msgspec.Struct):
    """Statistics of the readings in a time interval that begins at `ts`.

    min, max, avg, first, last and count are those of the numbers, or, where there are none, of the booleans as 0 and 1;
    `booleans` and `texts` are present where there are such readings. A bucket of texts alone has a count of 0. With
    `values=number`: numbers alone. With `values=all`: the `count` of all, and `numbers`, `booleans` and `texts` for
    each kind present. `avg` is null when the sum of the values, or of a part of them, overflows a float.
    """

    ts: TimeText
    count: int
    min: float | msgspec.UnsetType = msgspec.UNSET
    max: float | msgspec.UnsetType = msgspec.UNSET
    avg: float | msgspec.UnsetType | None = msgspec.UNSET
    first: float | msgspec.UnsetType = msgspec.UNSET
    last: float | msgspec.UnsetType = msgspec.UNSET
    numbers: Numbers | msgspec.UnsetType = msgspec.UNSET
    booleans: Booleans | msgspec.UnsetType = msgspec.UNSET
    texts: Texts | msgspec.UnsetType = msgspec.UNSET


class BucketsAnswer(msgspec.Struct):
    """The buckets that contain readings, in chronological order."""

    items: list[Bucket]


class PipelineAnswer(msgspec.Struct, rename="camel"):
    """The throughput and lag of an owner's readings."""

    readings_per_second: float
    lag_seconds: float | None


def last_seen(connected_ms: int | None, *readings: Document | None) -> int | None:
    """Return when a device was last seen, in milliseconds since 1970: when connected, or when a reading was received.

    A device that posts over HTTP is never connected.
    """
    seen = [connected_ms, *(received_at_ms(reading) for reading in readings if reading is not None)]
    return max((ms for ms in seen if ms is not None), default=None)


def time_text(time: Any) -> str | None:
    """Return a date of MongoDB as RFC 3339; None if it is not a date."""
    if isinstance(time, datetime):
        return time.isoformat(timespec="milliseconds") + "Z"
    try:
        return rfc3339(int(time))
    except (TypeError, ValueError):
        return None


def reading_object(document: Document) -> dict[str, Any]:
    """Return a document as a reading's JSON object."""
    key = document["_id"]
    answer = {
        "device": key["device"],
        "sensorType": key["sensorType"],
        "ts": time_text(key["ts"]),
        "seq": int(key["seq"]),
        "value": json_value(document.get("value")),
        "receivedAt": time_text(document.get("receivedAt")),
    }
    for name in ATTRIBUTES:
        if name in document:
            answer[name] = document[name]
    return answer


def encode_json(body: Any) -> bytes:
    """Encode a JSON body."""
    return _encoder.encode(body)


def json_response(body: Any) -> web.Response:
    """Return a JSON response that caches must not store: it belongs to one owner and one moment."""
    return encoded_response(encode_json(body))


def encoded_response(body: bytes) -> web.Response:
    """Return the response of `json_response` for a body that is JSON already."""
    return web.Response(body=body, content_type=JSON, headers={"Cache-Control": "no-store"})


def abort(request: web.Request) -> None:
    """Close the connection without ending the response, so that the client sees it is incomplete."""
    if request.transport is not None:
        request.transport.abort()
