"""READER → PEOPLE: `GET /series` and `GET /readings/latest`, what there is and how fresh it is, and `GET /pipeline`."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from msgspec import UNSET

from reader.from_presence import FromPresence
from reader.history.from_mongodb import FromMongoDB
from reader.http.queries import AHEAD_MS, SeriesQuery, parse_series, series_cursor
from reader.http.request_guard import Asking
from reader.live.from_live import FromLive
from reader.metrics import ReaderMetrics
from reader.responses import (
    Document,
    PipelineAnswer,
    ReadingsAnswer,
    SeriesAnswer,
    json_answer,
    last_seen,
    reading_answer,
    time_text,
)
from readings.document import position_of
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.times import now_ms, rfc3339

Series = tuple[str, str]


class SeriesRoutes:
    """What an owner has, series by series."""

    def __init__(
        self, asking: Asking, history: FromMongoDB, presence: FromPresence, live: FromLive, metrics: ReaderMetrics
    ) -> None:
        self._asking = asking
        self._history = history
        self._presence = presence
        self._live = live
        self._metrics = metrics

    def calls(self) -> list[Operation]:
        """Return what is served."""
        return [
            Operation(
                method="GET",
                path="/readings/latest",
                handler=self._latest,
                tag="readings",
                summary="Read the newest reading of each series",
                query=SeriesQuery,
                answers={200: ReadingsAnswer},
                problems=(403, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/series",
                handler=self._series,
                tag="readings",
                summary="List your series, and how fresh they are",
                description="`connected`: the device has a session at a gateway. `lastSeenAt`: when it last had one, "
                "or when its last reading came in. `lastReadingAt`: the time of its newest reading.",
                query=SeriesQuery,
                answers={200: SeriesAnswer},
                problems=(403, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/pipeline",
                handler=self._pipeline,
                tag="readings",
                summary="Tell how fast your readings flow",
                description="`readingsPerSecond`: what gateways accepted of yours, over their last 5 s. `lagSeconds`: "
                "from the receipt of the newest reading to its place in the live feed; null while nothing flows.",
                answers={200: PipelineAnswer},
                problems=(403,),
                secured=True,
            ),
        ]

    async def _latest(self, request: web.Request) -> web.Response:
        owner = (await self._asking.claims(request)).owner
        query = read_query(request, SeriesQuery)
        async with self._asking.asked(owner, "latest"):
            found, cursor = await self._found(owner, query)
        items = [reading_answer(newest) for _, newest in found if newest is not None]
        self._metrics.readings.labels("latest").inc(len(items))
        return json_answer({"items": items} | cursor)

    async def _series(self, request: web.Request) -> web.Response:
        owner = (await self._asking.claims(request)).owner
        query = read_query(request, SeriesQuery)
        async with self._asking.asked(owner, "series"):
            found, cursor = await self._found(owner, query)
            behind = await self._behind(owner, found)
        items = [self._item(owner, series, newest, behind.get(series)) for series, newest in found]
        return json_answer({"items": items} | cursor)

    async def _behind(
        self, owner: str, found: Sequence[tuple[Series, Document | None]]
    ) -> dict[Series, Document | None]:
        """Return the newest readings of now of the series whose newest one lies ahead: it came in long ago, maybe."""
        until_ms = now_ms() + AHEAD_MS
        ahead = [series for series, newest in found if newest is not None and position_of(newest)[0] > until_ms]
        if not ahead:
            return {}
        return dict(zip(ahead, await self._history.newest(owner, ahead, before_ms=until_ms + 1), strict=True))

    async def _found(
        self, owner: str, query: SeriesQuery
    ) -> tuple[Sequence[tuple[Series, Document | None]], dict[str, str]]:
        """Return a page of series with the newest reading of each, and where the next page begins, if there is one."""
        device = None if query.device is UNSET else query.device
        sensor_type = None if query.sensor_type is UNSET else query.sensor_type
        past = parse_series(query.cursor)
        found = await self._history.series_with_newest(owner, device, sensor_type, past, query.limit + 1)
        shown = found[: query.limit]
        cursor = {"nextCursor": series_cursor(*shown[-1][0])} if len(found) > query.limit else {}
        return shown, cursor

    def _item(self, owner: str, series: Series, newest: Document | None, behind: Document | None) -> dict[str, Any]:
        device, sensor_type = series
        last_seen_ms = last_seen(self._presence.last_seen_ms(owner, device), newest, behind)
        return {
            "device": device,
            "sensorType": sensor_type,
            "connected": self._presence.connected(owner, device),
            "lastSeenAt": None if last_seen_ms is None else rfc3339(last_seen_ms),
            "lastReadingAt": None if newest is None else time_text(newest["_id"]["ts"]),
        }

    async def _pipeline(self, request: web.Request) -> web.Response:
        owner = (await self._asking.claims(request)).owner
        rate, lag_s = self._presence.readings_per_second(owner), self._live.lag_s(owner)
        return json_answer({"readingsPerSecond": round(rate, 1), "lagSeconds": lag_s})
