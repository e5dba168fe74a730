"""READER → CLIENTS: `GET /readings`, a page or an export of one series, and `GET /readings/buckets`."""

from contextlib import aclosing
from functools import partial

from aiohttp import web
from msgspec import UNSET

from reader.history.from_mongodb import FromMongoDB, Range
from reader.history.pipelines import buckets_of_kinds
from reader.http.export import CSV, NDJSON, Batches, Export, ExportFormat, negotiate_media_type
from reader.http.queries import (
    LAST_MS,
    MAX_BUCKETS,
    MAX_BUCKETS_OF_ALL,
    BucketsQuery,
    HistoryQuery,
    invalid_parameter,
    parse_every,
    parse_position,
    parse_range,
    position_cursor,
)
from reader.http.request_guard import RequestGuard
from reader.metrics import ReaderMetrics
from reader.responses import BucketsAnswer, ReadingsAnswer, json_response, reading_object
from readings.document import position_of
from runtime.http.fields import read_query
from runtime.http.operation import JSON, Operation
from runtime.http.problems import Problem
from runtime.times import rfc3339

DEFAULT_LIMIT = 100


class ReadingsRoutes:
    """The history of one series at a time."""

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
                summary="Read one series back in time",
                description="A page of JSON, whose `nextCursor` leads to the next one. Or the whole range, streamed as "
                "CSV or NDJSON, selected by `format` or by `Accept: text/csv` or `application/x-ndjson`. `from` is "
                "inclusive, `to` exclusive; both are milliseconds since 1970 or RFC 3339 with a zone. Pages stay "
                "stable while readings come in. An export can be sent again: its NDJSON lines to `POST /readings`, its "
                "CSV to `python -m simulator --replay`; identical readings are stored once. For CSV that people open "
                "in a spreadsheet, use `for=spreadsheet`.",
                query=HistoryQuery,
                responses={200: ReadingsAnswer},
                response_types=(JSON, CSV, NDJSON),
                problems=(403, 404, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/readings/buckets",
                handler=self._buckets,
                tag="readings",
                summary="Aggregate one series into time buckets",
                description=f"Aggregates the numeric readings into at most {MAX_BUCKETS:,} buckets. `every` is a "
                "number of ms, s, m, h or d; buckets start at its multiples since 1970. Without `from` or `to`: from "
                "the first reading, to the last. With `values=all` also booleans and texts, in at most "
                f"{MAX_BUCKETS_OF_ALL:,} buckets: each has `count`, and `numbers`, `booleans`, `texts` for the kinds "
                "present.",
                query=BucketsQuery,
                responses={200: BucketsAnswer},
                problems=(403, 404, 429),
                secured=True,
            ),
        ]

    async def _readings(self, request: web.Request) -> web.StreamResponse:
        claims = await self._guard.claims(request)
        query = read_query(request, HistoryQuery)
        from_ms, to_ms = parse_range(query.from_, query.to)
        past = None if query.cursor is UNSET else parse_position(query.cursor)
        range_ = Range(query.device, query.sensor_type, from_ms, to_ms, query.order == "desc", past)
        export_format = _export_format(request, query)
        limit = None if query.limit is UNSET else query.limit
        if export_format.media_type == JSON:
            async with self._guard.admitted(claims.owner, "readings"):
                return await self._page(claims.owner, range_, limit or DEFAULT_LIMIT)
        async with (
            self._guard.admitted(claims.owner, "export"),
            aclosing(self._batches(claims.owner, range_, limit)) as batches,
        ):
            if request.method == "HEAD":
                await self._require_device(claims.owner, range_.device)
            token_active = partial(self._guard.token_active, claims)
            return await self._export.answer(request, export_format, range_, batches, token_active)

    async def _batches(self, owner: str, range_: Range, limit: int | None) -> Batches:
        """Yield a range in batches; Problem 404 if nothing of the device was ever stored."""
        empty = True
        async with aclosing(self._history.stream(owner, range_, limit)) as batches:
            async for batch in batches:
                empty = False
                yield batch
        if empty:
            await self._require_device(owner, range_.device)

    async def _page(self, owner: str, range_: Range, limit: int) -> web.Response:
        found = await self._history.page(owner, range_, limit + 1)
        if not found:
            await self._require_device(owner, range_.device)
        shown = found[:limit]
        self._metrics.readings.labels("page").inc(len(shown))
        body = {"items": [reading_object(document) for document in shown]}
        if len(found) > limit:
            body["nextCursor"] = position_cursor(position_of(shown[-1]))  # type: ignore[assignment]
        return json_response(body)

    async def _buckets(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims(request)
        query = read_query(request, BucketsQuery)
        from_ms, to_ms = parse_range(query.from_, query.to)
        every_ms = parse_every(query.every)
        async with self._guard.admitted(claims.owner, "buckets"):
            if from_ms is None or to_ms is None:
                ends = await self._history.ends(claims.owner, query.device, query.sensor_type)
                if ends is None:
                    await self._require_device(claims.owner, query.device)
                    return json_response({"items": []})
                from_ms = ends[0] if from_ms is None else from_ms
                to_ms = min(ends[1] + 1, LAST_MS) if to_ms is None else to_ms
            all_kinds = query.values == "all"
            _require_bucket_count(from_ms, to_ms, every_ms, MAX_BUCKETS_OF_ALL if all_kinds else MAX_BUCKETS)
            query_buckets = self._history.buckets_of_all if all_kinds else self._history.buckets
            found = await query_buckets(claims.owner, query.device, query.sensor_type, from_ms, to_ms, every_ms)
            if not found:
                await self._require_device(claims.owner, query.device)
        if all_kinds:
            return json_response({"items": buckets_of_kinds(found)})
        items = [{"ts": rfc3339(bucket.pop("_id")), **bucket} for bucket in found]
        return json_response({"items": items})

    async def _require_device(self, owner: str, device: str) -> None:
        """Raise Problem 404 if nothing of a device was ever stored; called only when a query found nothing."""
        if not await self._history.has_device(owner, device):
            raise Problem(
                404,
                "No reading of a device with this id was ever stored. GET /devices?name= finds the id of a name.",
                code="no_such_device",
            )


def _export_format(request: web.Request, query: HistoryQuery) -> ExportFormat:
    """Return the format of the response; Problem 422 if a parameter does not apply to it."""
    export_format = ExportFormat(
        negotiate_media_type(request, "" if query.format is UNSET else query.format), query.for_ is not UNSET, query.end
    )
    if export_format.for_spreadsheet and export_format.media_type != CSV:
        raise invalid_parameter("for", "for=spreadsheet requires format=csv")
    if export_format.end and export_format.media_type == JSON:
        raise invalid_parameter(
            "end", "end=true requires format=csv or format=ndjson; the last page of JSON has no nextCursor"
        )
    return export_format


def _require_bucket_count(from_ms: int, to_ms: int, every_ms: int, limit: int) -> None:
    """Raise Problem 422 if a range has more than `limit` buckets."""
    buckets = (to_ms - 1) // every_ms - from_ms // every_ms + 1
    if buckets > limit:
        raise invalid_parameter("every", f"that would be {buckets} buckets; at most {limit} are allowed")
