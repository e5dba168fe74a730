"""READER → PEOPLE: `GET /readings`, a page of one series or all of it, and `GET /readings/buckets`."""

from contextlib import aclosing
from functools import partial

from aiohttp import web
from msgspec import UNSET

from reader.history.export import CSV, NDJSON, Batches, Export, Form, wanted_format
from reader.history.from_mongodb import FromMongoDB, Range
from reader.history.pipelines import buckets_of_kinds
from reader.http.queries import (
    LAST_MS,
    MAX_BUCKETS,
    MAX_BUCKETS_OF_ALL,
    BucketsQuery,
    HistoryQuery,
    parse_every,
    parse_position,
    parse_range,
    position_cursor,
    wrong,
)
from reader.http.request_guard import Asking
from reader.metrics import ReaderMetrics
from reader.responses import BucketsAnswer, ReadingsAnswer, json_answer, reading_answer
from readings.document import position_of
from runtime.http.fields import read_query
from runtime.http.operation import JSON, Operation
from runtime.http.problems import Problem
from runtime.times import rfc3339

DEFAULT_LIMIT = 100


class ReadingsRoutes:
    """History, of one series at a time."""

    def __init__(self, asking: Asking, history: FromMongoDB, metrics: ReaderMetrics) -> None:
        self._asking = asking
        self._history = history
        self._metrics = metrics
        self._export = Export(metrics)

    def calls(self) -> list[Operation]:
        """Return what is served."""
        return [
            Operation(
                method="GET",
                path="/readings",
                handler=self._readings,
                tag="readings",
                summary="Read one series back in time",
                description="A page of JSON, whose `nextCursor` gives the next one. Or all of it, streamed, as CSV or "
                "NDJSON, by `format` or by `Accept: text/csv` or `application/x-ndjson`. `from` is included, `to` is "
                "not; both are milliseconds since 1970 or RFC 3339 with a zone. A page stays where it is while "
                "readings come in. What an export holds can be given back: its lines of NDJSON to `POST /readings`, "
                "its CSV to `python -m simulator --replay`; the same readings are stored once. CSV that people open "
                "in a spreadsheet is asked for with `for=spreadsheet`.",
                query=HistoryQuery,
                answers={200: ReadingsAnswer},
                answer_types=(JSON, CSV, NDJSON),
                problems=(403, 404, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/readings/buckets",
                handler=self._buckets,
                tag="readings",
                summary="Sum one series up in buckets of time",
                description=f"Of the numeric readings, at most {MAX_BUCKETS:,} buckets. `every` is a number of ms, s, "
                "m, h or d, and begins at multiples of itself since 1970. Without `from` or `to`: from the first "
                f"reading, to the last. With `values=all` of booleans and texts, too, at most {MAX_BUCKETS_OF_ALL:,} "
                "buckets: each has `count`, and `numbers`, `booleans`, `texts` for the kinds that it holds.",
                query=BucketsQuery,
                answers={200: BucketsAnswer},
                problems=(403, 404, 429),
                secured=True,
            ),
        ]

    async def _readings(self, request: web.Request) -> web.StreamResponse:
        claims = await self._asking.claims(request)
        query = read_query(request, HistoryQuery)
        from_ms, to_ms = parse_range(query.from_, query.to)
        past = None if query.cursor is UNSET else parse_position(query.cursor)
        stretch = Range(query.device, query.sensor_type, from_ms, to_ms, query.order == "desc", past)
        form = _form(request, query)
        limit = None if query.limit is UNSET else query.limit
        if form.kind == JSON:
            async with self._asking.asked(claims.owner, "readings"):
                return await self._page(claims.owner, stretch, limit or DEFAULT_LIMIT)
        async with (
            self._asking.asked(claims.owner, "export"),
            aclosing(self._everything(claims.owner, stretch, limit)) as batches,
        ):
            if request.method == "HEAD":
                await self._require_device(claims.owner, stretch.device)
            is_active = partial(self._asking.is_active, claims)
            return await self._export.answer(request, form, stretch, batches, is_active)

    async def _everything(self, owner: str, stretch: Range, limit: int | None) -> Batches:
        """Give a stretch part by part; Problem 404 where nothing of the device was ever stored."""
        empty = True
        async with aclosing(self._history.stream(owner, stretch, limit)) as batches:
            async for batch in batches:
                empty = False
                yield batch
        if empty:
            await self._require_device(owner, stretch.device)

    async def _page(self, owner: str, stretch: Range, limit: int) -> web.Response:
        found = await self._history.page(owner, stretch, limit + 1)
        if not found:
            await self._require_device(owner, stretch.device)
        shown = found[:limit]
        self._metrics.readings.labels("page").inc(len(shown))
        answer = {"items": [reading_answer(document) for document in shown]}
        if len(found) > limit:
            answer["nextCursor"] = position_cursor(position_of(shown[-1]))  # type: ignore[assignment]
        return json_answer(answer)

    async def _buckets(self, request: web.Request) -> web.Response:
        claims = await self._asking.claims(request)
        query = read_query(request, BucketsQuery)
        from_ms, to_ms = parse_range(query.from_, query.to)
        every_ms = parse_every(query.every)
        async with self._asking.asked(claims.owner, "buckets"):
            if from_ms is None or to_ms is None:
                ends = await self._history.ends(claims.owner, query.device, query.sensor_type)
                if ends is None:
                    await self._require_device(claims.owner, query.device)
                    return json_answer({"items": []})
                from_ms = ends[0] if from_ms is None else from_ms
                to_ms = min(ends[1] + 1, LAST_MS) if to_ms is None else to_ms
            everything = query.values == "all"
            _require_few_buckets(from_ms, to_ms, every_ms, MAX_BUCKETS_OF_ALL if everything else MAX_BUCKETS)
            ask = self._history.buckets_of_all if everything else self._history.buckets
            found = await ask(claims.owner, query.device, query.sensor_type, from_ms, to_ms, every_ms)
            if not found:
                await self._require_device(claims.owner, query.device)
        if everything:
            return json_answer({"items": buckets_of_kinds(found)})
        items = [{"ts": rfc3339(bucket.pop("_id")), **bucket} for bucket in found]
        return json_answer({"items": items})

    async def _require_device(self, owner: str, device: str) -> None:
        """Raise Problem 404 where nothing of a device was ever stored; only asked where nothing was found."""
        if not await self._history.knows(owner, device):
            raise Problem(
                404,
                "Nothing was ever stored of a device of this id. Of a device's name, GET /devices?name= gives the id.",
                code="no_such_device",
            )


def _form(request: web.Request, query: HistoryQuery) -> Form:
    """Return the form of the answer; Problem 422 where a parameter says something of another form."""
    form = Form(
        wanted_format(request, "" if query.format is UNSET else query.format), query.for_ is not UNSET, query.end
    )
    if form.for_spreadsheet and form.kind != CSV:
        raise wrong("for", "for=spreadsheet goes with format=csv")
    if form.end and form.kind == JSON:
        raise wrong("end", "end=true goes with format=csv or format=ndjson; the last page has no nextCursor")
    return form


def _require_few_buckets(from_ms: int, to_ms: int, every_ms: int, most: int) -> None:
    """Raise Problem 422 when a range would come to more buckets than are given at once."""
    buckets = (to_ms - 1) // every_ms - from_ms // every_ms + 1
    if buckets > most:
        raise wrong("every", f"that would be {buckets} buckets; at most {most} are given at once")
