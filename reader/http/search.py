"""READER → PEOPLE: `GET /series/search`, what there is as a page shows it: by name, searched, with newest values."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from access.bearer import required_token
from reader.from_presence import FromPresence
from reader.history.catalogue import Entry
from reader.history.catalogues import Catalogues
from reader.history.from_mongodb import FromMongoDB
from reader.http.queries import AHEAD_MS, Id
from reader.http.request_guard import Asking
from reader.metrics import ReaderMetrics
from reader.responses import Document, ReadingAnswer, json_answer, last_seen, reading_answer, time_text
from readings.place import Place
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.times import TimeText, now_ms, rfc3339

LIST_DEVICES = "devices:manage"
MAX_FOUND = 200


class SearchQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /series/search`."""

    text: Annotated[str, Meta(max_length=256, examples=["press offline"])] = ""
    device: Id | UnsetType = UNSET
    offset: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_FOUND)] = 50


class FoundSeries(msgspec.Struct, rename="camel"):
    """A series, or a registered device that has sent nothing yet, for people; times are null while none is known.

    `name` is null where the device is not registered, or its name cannot be told now. `latest`: the newest reading that
    is at most a minute ahead of the server's clock. `ahead`: the newest one beyond that, of a clock that is wrong.
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
    """A part of what matches. `total` counts what does; `devices` and `online` the owner's, whatever was searched.

    `truncated` is true, and else left out, where there are more series than can be searched.
    """

    total: int
    devices: int
    online: int
    items: list[FoundSeries]
    truncated: bool | UnsetType = UNSET


class SearchRoutes:
    """What an owner has, for pages that show it."""

    def __init__(
        self,
        asking: Asking,
        history: FromMongoDB,
        presence: FromPresence,
        catalogues: Catalogues,
        metrics: ReaderMetrics,
    ) -> None:
        self._asking = asking
        self._history = history
        self._presence = presence
        self._catalogues = catalogues
        self._metrics = metrics

    def calls(self) -> list[Operation]:
        """Return what is served."""
        return [
            Operation(
                method="GET",
                path="/series/search",
                handler=self._search,
                tag="readings",
                summary="Search your series and devices by name, place or state",
                description="For pages: by the devices' names (or ids) as people sort them, then by sensorType; "
                "registered devices that have sent nothing yet are there, too. Every word of `text` occurs in the "
                "device's name or id, in the sensorType or the registered location, or is `online` or `offline`. "
                "Names need a token that may list devices. What is new is there within seconds, within a minute in "
                "long lists.",
                query=SearchQuery,
                responses={200: FoundAnswer},
                problems=(403, 429),
                secured=True,
            )
        ]

    async def _search(self, request: web.Request) -> web.Response:
        claims = await self._asking.claims(request)
        query = read_query(request, SearchQuery)
        owner, device = claims.owner, None if query.device is UNSET else query.device
        async with self._asking.asked(owner, "search"):
            may_list = claims.allows(LIST_DEVICES)
            catalogue = await self._catalogues.of(owner, required_token(request), may_list=may_list)
            online = catalogue.online(lambda: self._presence.devices_of(owner))
            found = await catalogue.matching(query.text, device, online)
            shown = found[query.offset : query.offset + query.limit]
            stored = [entry.series for entry in shown if entry.stored]
            found_newest = await self._history.newest_until(owner, stored, now_ms() + AHEAD_MS)
        newest = dict(zip(stored, found_newest, strict=True))
        items = [self._item(owner, entry, *newest.get(entry.series, (None, None))) for entry in shown]
        self._metrics.readings.labels("search").inc(sum(len(pair) - pair.count(None) for pair in found_newest))
        answer = {"total": len(found), "devices": len(catalogue.devices), "online": len(online), "items": items}
        return json_answer(answer | ({"truncated": True} if catalogue.truncated else {}))

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
            "latest": None if latest is None else reading_answer(latest),
        }
        if entry.location is not None:
            item["location"] = entry.location
        if ahead is not None:
            item["ahead"] = reading_answer(ahead)
        return item
