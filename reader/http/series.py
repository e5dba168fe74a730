"""READER → CLIENTS: `GET /series`, `GET /readings/latest` and `GET /pipeline`: an owner's series and their state."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from msgspec import UNSET

from access.claims import Claims
from reader.from_presence import FromPresence
from reader.history.from_mongodb import FromMongoDB, Range
from reader.history.together import together
from reader.http.gaps import completeness_object
from reader.http.queries import AHEAD_MS, SeriesListQuery, SeriesQuery, parse_series, series_cursor
from reader.http.request_guard import RequestGuard
from reader.live.from_live import FromLive
from reader.metrics import ReaderMetrics
from reader.responses import (
    Document,
    PipelineAnswer,
    ReadingsAnswer,
    SeriesAnswer,
    json_response,
    last_seen,
    reading_object,
    time_text,
)
from readings.document import position_of
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.http.problems import Problem
from runtime.times import now_ms, rfc3339

Series = tuple[str, str]
DAY_MS = 86_400_000
# Half of the queries that an owner may run at once: others get an answer meanwhile.
COUNTED_AT_ONCE = 2


class SeriesRoutes:
    """The series of an owner."""

    def __init__(
        self, guard: RequestGuard, history: FromMongoDB, presence: FromPresence, live: FromLive, metrics: ReaderMetrics
    ) -> None:
        self._guard = guard
        self._history = history
        self._presence = presence
        self._live = live
        self._metrics = metrics

    def calls(self) -> list[Operation]:
        """Return the operations served."""
        return [
            Operation(
                method="GET",
                path="/readings/latest",
                handler=self._latest,
                tag="readings",
                summary="Read the newest reading of each series",
                query=SeriesQuery,
                responses={200: ReadingsAnswer},
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
                "or when its last reading was received. `lastReadingAt`: the time of its newest reading.",
                query=SeriesListQuery,
                responses={200: SeriesAnswer},
                problems=(403, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/pipeline",
                handler=self._pipeline,
                tag="readings",
                summary="Get the throughput and lag of your readings",
                description="`readingsPerSecond`: how many of your readings gateways accepted, over their last 5 s. "
                "`lagSeconds`: from receipt of the newest reading to the live feed; null while nothing is received. "
                "Not for an API key that is limited to devices.",
                responses={200: PipelineAnswer},
                problems=(403,),
                secured=True,
            ),
        ]

    async def _latest(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims(request)
        query = read_query(request, SeriesQuery)
        async with self._guard.admitted(claims.owner, "latest"):
            found, cursor = await self._page(claims, query)
        items = [reading_object(newest) for _, newest in found if newest is not None]
        self._metrics.readings.labels("latest").inc(len(items))
        return json_response({"items": items} | cursor)

    async def _series(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims(request)
        owner, query = claims.owner, read_query(request, SeriesListQuery)
        page = query.series_query()
        async with self._guard.admitted(owner, "series"):
            found, cursor = await self._page(claims, page)
            current = await self._newest_current(owner, found)
            complete = await self._completeness(owner, found) if query.completeness else [{}] * len(found)
        items = [
            self._item(owner, series, newest, current.get(series)) | one
            for (series, newest), one in zip(found, complete, strict=True)
        ]
        return json_response({"items": items} | cursor)

    async def _completeness(
        self, owner: str, found: Sequence[tuple[Series, Document | None]]
    ) -> Sequence[dict[str, Any]]:
        """Return how complete each series is over the last 24 hours."""
        to_ms = now_ms() + AHEAD_MS
        counted: dict[Series, dict[str, Any]] = {}
        following = iter([series for series, _ in found])

        async def count() -> None:
            for series in following:
                one, _ = await self._history.gaps(owner, Range(*series, to_ms - AHEAD_MS - DAY_MS, to_ms))
                counted[series] = {"completeness": completeness_object(one)}

        await together(count, COUNTED_AT_ONCE)
        return [counted[series] for series, _ in found]

    async def _newest_current(
        self, owner: str, found: Sequence[tuple[Series, Document | None]]
    ) -> dict[Series, Document | None]:
        """Return the newest current reading of each series whose newest one lies ahead, and may be old."""
        until_ms = now_ms() + AHEAD_MS
        ahead = [series for series, newest in found if newest is not None and position_of(newest)[0] > until_ms]
        if not ahead:
            return {}
        return dict(zip(ahead, await self._history.newest_before(owner, ahead, until_ms + 1), strict=True))

    async def _page(
        self, claims: Claims, query: SeriesQuery
    ) -> tuple[Sequence[tuple[Series, Document | None]], dict[str, str]]:
        """Return a page of series with the newest reading of each, and the cursor of the next page, if any."""
        device = None if query.device is UNSET else query.device
        sensor_type = None if query.sensor_type is UNSET else query.sensor_type
        past = parse_series(query.cursor)
        found = await self._history.series_with_newest(
            claims.owner, device, sensor_type, past, query.limit + 1, claims.devices
        )
        shown = found[: query.limit]
        cursor = {"nextCursor": series_cursor(*shown[-1][0])} if len(found) > query.limit else {}
        return shown, cursor

    def _item(self, owner: str, series: Series, newest: Document | None, current: Document | None) -> dict[str, Any]:
        device, sensor_type = series
        last_seen_ms = last_seen(self._presence.last_seen_ms(owner, device), newest, current)
        return {
            "device": device,
            "sensorType": sensor_type,
            "connected": self._presence.connected(owner, device),
            "lastSeenAt": None if last_seen_ms is None else rfc3339(last_seen_ms),
            "lastReadingAt": None if newest is None else time_text(newest["_id"]["ts"]),
        }

    async def _pipeline(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims(request)
        if claims.devices is not None:
            raise Problem(403, "These figures are of all devices, and this API key is for some.", code="forbidden")
        rate, lag_s = self._presence.readings_per_second(claims.owner), self._live.lag_s(claims.owner)
        return json_response({"readingsPerSecond": round(rate, 1), "lagSeconds": lag_s})
