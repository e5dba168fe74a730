"""READER → CLIENTS: `GET /readings`, a page of one series or an export of several, and `GET /readings/buckets`."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from zoneinfo import ZoneInfo

from aiohttp import web
from msgspec import UNSET, UnsetType

from reader.history.bucket_boundaries import BucketWidth, TooManyBuckets, boundaries
from reader.history.bucket_statistics import KINDS, NUMBERS_ALONE, SUMMARY
from reader.history.bucket_sums import TooManyTexts
from reader.history.from_mongodb import FromMongoDB, Range
from reader.history.ndjson_lines import json_items
from reader.history.selection import Rows, Selection, stream_selection
from reader.http.export import Export
from reader.http.export_format import CSV, NDJSON, PARQUET, ExportFormat, negotiate_media_type
from reader.http.queries import (
    LAST_MS,
    BucketsQuery,
    HistoryQuery,
    invalid_parameter,
    parse_every,
    parse_position,
    parse_range,
    parse_zone,
    position_cursor,
)
from reader.http.request_guard import RequestGuard
from reader.metrics import ReaderMetrics
from reader.responses import BucketsAnswer, ReadingsAnswer, encode_json, encoded_response, json_response
from runtime.http.fields import read_query
from runtime.http.operation import JSON, Operation
from runtime.http.problems import Problem
from storage.places.threads import in_thread_if_large
from storage.places.window import position_at

DEFAULT_LIMIT = 100
_SHOWN_CHARS = 64
BUCKETS = (
    f"Aggregates the readings into at most {SUMMARY.max_buckets:,} buckets; those without readings are left out. "
    "`min`, `max`, `avg`, `first`, `last` and `count` are those of the numbers. In a bucket without numbers they are "
    "those of the booleans, true as 1 and false as 0: `avg` is the share that was true. `booleans` and `texts` are "
    "present where there are such readings; a bucket of texts alone has a `count` of 0. `every` is a number of ms, "
    "s, m, h, d, w (weeks begin on Monday) or M (months), counted from 1970. With `zone`, days, weeks and months are "
    "those of the zone's calendar, so that a day may have 23 or 25 hours; hours and less must divide a day, and are "
    "counted from midnight by the zone's clocks. `ts` is in UTC, whatever the zone. Without `from` or `to`: from the "
    "first reading, to the last. With `values=number`: numbers alone. With `values=all`, in at most "
    f"{KINDS.max_buckets:,} buckets: `count` of all readings, and `numbers`, `booleans`, `texts` for the kinds "
    "present."
)
AGGREGATIONS = {"number": NUMBERS_ALONE, "all": KINDS}


class ReadingsRoutes:
    """The history of one series at a time, and exports."""

    def __init__(self, guard: RequestGuard, history: FromMongoDB, metrics: ReaderMetrics) -> None:
        self._guard = guard
        self._history = history
        self._metrics = metrics
        self._export = Export(metrics)

    def calls(self) -> list[Operation]:
        """Return the operations served."""
        return [
            Operation(
                method="GET",
                path="/readings",
                handler=self._readings,
                tag="readings",
                summary="Read one series, the oldest first, or export any number",
                description="A page of JSON, whose `nextCursor` leads to the next one. Or an export: the whole range, "
                "streamed as CSV, NDJSON or Parquet, selected by `format` or by `Accept: text/csv`, "
                "`application/x-ndjson` or `application/vnd.apache.parquet`. An export has one series, or those of "
                "several devices and sensorTypes, or all of yours, in the order device, sensorType, ts, seq. `from` is "
                "inclusive, `to` exclusive; both are milliseconds since 1970 or RFC 3339 with a zone. Pages stay "
                "stable while readings come in. An export can be sent again: its NDJSON lines to `POST /readings`, its "
                "CSV to `python -m simulator --replay`; identical readings are stored once. For CSV that people open "
                "in a spreadsheet, use `for=spreadsheet`.",
                query=HistoryQuery,
                responses={200: ReadingsAnswer},
                response_types=(JSON, CSV, NDJSON, PARQUET),
                problems=(403, 404, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/readings/buckets",
                handler=self._buckets,
                tag="readings",
                summary="Aggregate one series into time buckets",
                description=BUCKETS,
                query=BucketsQuery,
                responses={200: BucketsAnswer},
                problems=(403, 404, 429),
                secured=True,
            ),
        ]

    async def _readings(self, request: web.Request) -> web.StreamResponse:
        claims = await self._guard.claims(request)
        media_type = negotiate_media_type(request, request.query.get("format"))
        query = read_query(request, HistoryQuery, once=("device", "sensorType") if media_type == JSON else ())
        named = _selection(query)
        export_format = _export_format(media_type, query)
        limit = None if query.limit is UNSET else query.limit
        if export_format.media_type == JSON:
            async with self._guard.admitted(claims.owner, "readings"):
                range_ = named.range_of(named.devices[0], named.sensor_types[0])
                return await self._page(claims.owner, range_, limit or DEFAULT_LIMIT)
        async with (
            self._guard.admitted(claims.owner, "export"),
            aclosing(self._rows(claims.owner, named, claims.devices, limit)) as rows,
        ):
            if request.method == "HEAD":
                await self._require_devices(claims.owner, named)
            token_active = partial(self._guard.token_active, claims)
            return await self._export.answer(request, export_format, named, rows, token_active)

    async def _rows(self, owner: str, named: Selection, within: tuple[str, ...] | None, limit: int | None) -> Rows:
        """Yield a selection in batches; Problem 404 if nothing of a device that it names was ever stored.

        One that names no device is limited to those `within`.
        """
        # One series that has readings needs no other query; of several, one may be unknown.
        one_series, empty = named.one_series is not None, True
        if not one_series:
            await self._require_devices(owner, named)
        selection = named if named.devices or within is None else replace(named, devices=within)
        async with aclosing(stream_selection(self._history, owner, selection, limit)) as rows:
            async for batch in rows:
                empty = False
                yield batch
        if one_series and empty:
            await self._require_devices(owner, named)

    async def _require_devices(self, owner: str, selection: Selection) -> None:
        for device in selection.devices:
            name = "this id" if len(selection.devices) == 1 else f"the id {device[:_SHOWN_CHARS]!r}"
            await self._require_device(owner, device, name)

    async def _page(self, owner: str, range_: Range, limit: int) -> web.Response:
        found = await self._history.page_columns(owner, range_, limit + 1)
        if found is None:
            await self._require_device(owner, range_.device)
            return json_response({"items": []})
        shown = found.take(slice(0, limit))
        self._metrics.readings.labels("page").inc(len(shown))
        body = b'{"items":' + json_items(range_.device, range_.sensor_type, shown)
        if len(found) > limit:
            body += b',"nextCursor":' + encode_json(position_cursor(position_at(shown, -1)))
        return encoded_response(body + b"}")

    async def _buckets(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims(request)
        query = read_query(request, BucketsQuery)
        from_ms, to_ms = parse_range(query.from_, query.to)
        zone = parse_zone(query.zone)
        width = parse_every(query.every, zone)
        aggregation = SUMMARY if query.values is UNSET else AGGREGATIONS[query.values]
        async with self._guard.admitted(claims.owner, "buckets"):
            if from_ms is None or to_ms is None:
                ends = await self._history.ends(claims.owner, query.device, query.sensor_type)
                if ends is None:
                    await self._require_device(claims.owner, query.device)
                    return json_response({"items": []})
                from_ms = ends[0] if from_ms is None else from_ms
                to_ms = min(ends[1] + 1, LAST_MS) if to_ms is None else to_ms
            bounds = await _boundaries(width, zone, from_ms, to_ms, aggregation.max_buckets)
            range_ = Range(query.device, query.sensor_type, from_ms, to_ms)
            try:
                found = await self._history.buckets(claims.owner, range_, bounds, aggregation)
            except TooManyTexts as error:
                raise invalid_parameter("every", str(error)) from error
            if not found:
                await self._require_device(claims.owner, query.device)
        return json_response({"items": await in_thread_if_large(len(found), partial(aggregation.buckets, found))})

    async def _require_device(self, owner: str, device: str, name: str = "this id") -> None:
        """Raise Problem 404 if nothing of a device was ever stored."""
        if not await self._history.has_device(owner, device):
            raise Problem(
                404,
                f"No reading of a device with {name} was ever stored. GET /devices?name= finds the id of a name.",
                code="no_such_device",
            )


def _export_format(media_type: str, query: HistoryQuery) -> ExportFormat:
    """Return the format of the response; Problem 422 if a parameter does not apply to it."""
    export_format = ExportFormat(media_type, query.for_ is not UNSET, query.end)
    if export_format.for_spreadsheet and export_format.media_type != CSV:
        raise invalid_parameter("for", "for=spreadsheet requires format=csv")
    if export_format.end and export_format.media_type not in (CSV, NDJSON):
        raise invalid_parameter(
            "end",
            "end=true requires format=csv or format=ndjson; the last page of JSON has no nextCursor, and a Parquet "
            "file that was cut off cannot be opened",
        )
    return export_format


async def _boundaries(width: BucketWidth, zone: ZoneInfo | None, from_ms: int, to_ms: int, limit: int) -> Sequence[int]:
    """Return the boundaries of the buckets; Problem 422 if there are more than `limit`."""
    try:
        # In a thread: in a zone 10,000 take some 30 to 70 ms.
        return await asyncio.to_thread(boundaries, width, zone, from_ms, to_ms, limit)
    except TooManyBuckets as error:
        message = f"that would be {error.number} buckets; at most {limit} are allowed"
        raise invalid_parameter("every", message) from error


def _selection(query: HistoryQuery) -> Selection:
    """Return the selected readings; Problem 422 if a parameter is invalid, or requires a single series."""
    from_ms, to_ms = parse_range(query.from_, query.to)
    past = None if query.cursor is UNSET else parse_position(query.cursor)
    descending = query.order == "desc"
    selection = Selection(_names(query.device), _names(query.sensor_type), from_ms, to_ms, descending, past)
    if selection.one_series is None:
        if descending:
            raise invalid_parameter("order", "order=desc requires exactly one device and one sensorType")
        if past is not None:
            raise invalid_parameter("cursor", "a cursor requires exactly one device and one sensorType")
    return selection


def _names(given: str | list[str] | UnsetType) -> list[str]:
    """Return the distinct names given for a parameter."""
    if given is UNSET:
        return []
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))
