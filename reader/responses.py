"""What clients get: readings as JSON and NDJSON, made from the documents as MongoDB has them."""

from collections.abc import Iterable
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
# Naive datetimes, which are quick to write, and DatetimeMS for what lies beyond the calendar. MongoDB also stores text
# that is no UTF-8: it is shown with U+FFFD in it, so that one such document does not hide its neighbours.
AS_STORED: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: an int64 of MongoDB's is an integer.

    Types that JSON does not know, which only somebody's own hand can have put there, are shown as text.
    """
    if type(value) in (float, int, bool, str) or value is None:
        return value
    return int(value) if isinstance(value, int) else str(value)


_encoder = msgspec.json.Encoder(enc_hook=plain)


class ReadingAnswer(Attributes, rename="camel", frozen=True):
    """A reading as it was stored. Only described: answers are made from documents, without this in between."""

    device: str
    sensor_type: str
    ts: TimeText
    seq: int
    value: bool | int | float | str | None
    received_at: TimeText | None


class ReadingsAnswer(msgspec.Struct, rename="camel"):
    """A page of readings; without `next_cursor` it is the last."""

    items: list[ReadingAnswer]
    next_cursor: str | msgspec.UnsetType = msgspec.UNSET


class SeriesItem(msgspec.Struct, rename="camel"):
    """A series, and how fresh it is; times are null while nothing is known of them."""

    device: str
    sensor_type: str
    connected: bool
    last_seen_at: TimeText | None
    last_reading_at: TimeText | None


class SeriesAnswer(msgspec.Struct, rename="camel"):
    """A page of series; without `next_cursor` it is the last."""

    items: list[SeriesItem]
    next_cursor: str | msgspec.UnsetType = msgspec.UNSET


class Numbers(msgspec.Struct):
    """What the numeric readings of a bucket come to; `avg` is null where their sum is more than a float can hold."""

    min: float
    max: float
    avg: float | None
    first: float
    last: float
    count: int


class Booleans(msgspec.Struct):
    """What the boolean readings of a bucket come to: `on` of `count` were true."""

    on: int
    count: int
    first: bool
    last: bool


class Texts(msgspec.Struct):
    """What the texts of a bucket come to. `top`: at most five, `[text, n]` each, the most frequent first.

    Of those that were there as often, the one that sorts first.
    """

    count: int
    first: str
    last: str
    top: list[list[str | int]]


class Bucket(msgspec.Struct):
    """What the readings of a stretch of time come to; `ts` is its beginning.

    Of numbers alone: min, max, avg, first, last and count. With `values=all`: `count`, and of each kind that was there
    `numbers`, `booleans` and `texts`. `avg` is null where the sum of what was measured is more than a float can hold.
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
    """The buckets that hold readings, in the order of time."""

    items: list[Bucket]


class PipelineAnswer(msgspec.Struct, rename="camel"):
    """How an owner's readings flow."""

    readings_per_second: float
    lag_seconds: float | None


def last_seen(connected_ms: int | None, *readings: Document | None) -> int | None:
    """Return when a device was last seen, in milliseconds since 1970: connected, or by what came in of these readings.

    A device that posts over HTTP is never connected.
    """
    seen = [connected_ms, *(received_at_ms(reading) for reading in readings if reading is not None)]
    return max((ms for ms in seen if ms is not None), default=None)


def time_text(moment: Any) -> str | None:
    """Return RFC 3339 of what MongoDB has as a date; None where it has something else."""
    if isinstance(moment, datetime):
        return moment.isoformat(timespec="milliseconds") + "Z"
    try:
        return rfc3339(int(moment))
    except (TypeError, ValueError):
        return None


def reading_answer(document: Document) -> dict[str, Any]:
    """Return a document as an answer's reading."""
    key = document["_id"]
    answer = {
        "device": key["device"],
        "sensorType": key["sensorType"],
        "ts": time_text(key["ts"]),
        "seq": int(key["seq"]),
        "value": plain(document.get("value")),
        "receivedAt": time_text(document.get("receivedAt")),
    }
    for name in ATTRIBUTES:
        if name in document:
            answer[name] = document[name]
    return answer


def as_json(answer: Any) -> bytes:
    """Encode an answer."""
    return _encoder.encode(answer)


def json_answer(answer: Any) -> web.Response:
    """Return an answer that no cache keeps: it is of one owner, and of one moment."""
    return web.Response(body=as_json(answer), content_type=JSON, headers={"Cache-Control": "no-store"})


def as_ndjson(documents: Iterable[Document]) -> bytes:
    """Return a line of JSON for each reading."""
    return _encoder.encode_lines([reading_answer(document) for document in documents])
