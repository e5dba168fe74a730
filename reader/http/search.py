"""READER → CLIENTS: `GET /series/search`, an owner's series for web pages: by name, searchable, with newest values."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from access.bearer import required_token
from reader.from_presence import FromPresence
from reader.history.catalogue import Entry
from reader.history.catalogue_cache import CatalogueCache
from reader.history.from_mongodb import FromMongoDB
from reader.http.queries import AHEAD_MS, Id
from reader.http.request_guard import RequestGuard
from reader.metrics import ReaderMetrics
from reader.responses import Document, ReadingAnswer, json_response, last_seen, reading_object, time_text
from readings.place import Place
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.times import TimeText, now_ms, rfc3339

MAX_FOUND = 200


class SearchQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /series/search`."""

    text: Annotated[str, Meta(max_length=256, examples=["press offline"])] = ""
    device: Id | UnsetType = UNSET
    offset: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_FOUND)] = 50


class FoundSeries(msgspec.Struct, rename="camel"):
    """A series, or a registered device that has sent nothing yet; unknown times are null.

    `name` is null if the device is not registered or its name is currently unavailable. `latest`: the newest reading at
    most a minute ahead of the server's clock. `ahead`: the newest one beyond that, from a wrong clock.
    """

    device: str
    name: str | None
    registered: bool
    sensor_type: str
    connected: bool
    last_seen_at: TimeText | None
    last_reading_at: TimeText | None
    latest: ReadingAnswer | None
    location: str | Place | UnsetType = UNSET
    ahead: ReadingAnswer | UnsetType = UNSET


class FoundAnswer(msgspec.Struct):
    """A page of matches. `total` counts all matches; `devices` and `online` all that the token covers, matching or not.

    `truncated` is true if there are more series than can be searched, and omitted otherwise.
    """

    total: int
    devices: int
    online: int
    items: list[FoundSeries]
    truncated: bool | UnsetType = UNSET


class SearchRoutes:
    """The series and devices of an owner, for web pages."""

    def __init__(
        self,
        guard: RequestGuard,
        history: FromMongoDB,
        presence: FromPresence,
        catalogues: CatalogueCache,
        metrics: ReaderMetrics,
    ) -> None:
        self._guard = guard
        self._history = history
        self._presence = presence
        self._catalogues = catalogues
        self._metrics = metrics

    def calls(self) -> list[Operation]:
        """Return the operations served."""
        return [
            Operation(
                method="GET",
                path="/series/search",
                handler=self._search,
                tag="readings",
                summary="Search your series and devices by name, place or state",
                description="For web pages: in natural order of the devices' names (or ids), then by sensorType; "
                "registered devices that have sent nothing yet are included. Every word of `text` must occur in the "
                "device's name or id, in the sensorType or the registered location, or be `online` or `offline`. New "
                "series appear within seconds, in long lists within a minute.",
                query=SearchQuery,
                responses={200: FoundAnswer},
                problems=(403, 429),
                secured=True,
            )
        ]

    async def _search(self, request: web.Request) -> web.Response:
        claims = await self._guard.claims(request)
        query = read_query(request, SearchQuery)
        owner, device = claims.owner, None if query.device is UNSET else query.device
        async with self._guard.admitted(owner, "search"):
            catalogue = await self._catalogues.get(owner, claims.devices, required_token(request))
            online = catalogue.online(lambda: self._presence.devices_of(owner))
            found = await catalogue.matching(query.text, device, online)
            shown = found[query.offset : query.offset + query.limit]
            stored = [entry.series for entry in shown if entry.stored]
            found_newest = await self._history.newest_until(owner, stored, now_ms() + AHEAD_MS)
        newest = dict(zip(stored, found_newest, strict=True))
        items = [self._item(owner, entry, *newest.get(entry.series, (None, None))) for entry in shown]
        self._metrics.readings.labels("search").inc(sum(len(pair) - pair.count(None) for pair in found_newest))
        body = {"total": len(found), "devices": len(catalogue.devices), "online": len(online), "items": items}
        return json_response(body | ({"truncated": True} if catalogue.truncated else {}))

    def _item(self, owner: str, entry: Entry, latest: Document | None, ahead: Document | None) -> dict[str, Any]:
        last_seen_ms = last_seen(self._presence.last_seen_ms(owner, entry.device), latest, ahead)
        item = {
            "device": entry.device,
            "name": entry.name,
            "registered": entry.registered,
            "sensorType": entry.sensor_type,
            "connected": self._presence.connected(owner, entry.device),
            "lastSeenAt": None if last_seen_ms is None else rfc3339(last_seen_ms),
            "lastReadingAt": None if latest is None else time_text(latest["_id"]["ts"]),
            "latest": None if latest is None else reading_object(latest),
        }
        if entry.location is not None:
            item["location"] = entry.location
        if ahead is not None:
            item["ahead"] = reading_object(ahead)
        return item
