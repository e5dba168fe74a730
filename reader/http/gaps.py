"""READER → CLIENTS: `GET /devices/{id}/gaps`: which readings of a series were measured and are not stored."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from reader.history.from_mongodb import FromMongoDB, Range
from reader.history.sequence import MISORDERED, Completeness, Gap
from reader.http.queries import (
    Cursor,
    SensorType,
    Time,
    parse_position,
    parse_range,
    position_cursor,
)
from reader.http.request_guard import RequestGuard
from reader.responses import json_response
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.http.problems import Problem
from runtime.times import TimeText, rfc3339

MAX_GAPS = 10_000
GAPS = (
    "Devices count `seq` up by one with each reading of a series: a number that is skipped was measured and is not "
    "stored. `after` and `before` are the times of the readings around a gap. A fall of `seq` starts a new count; a "
    f"number at most {MISORDERED} below the highest one, that was missing, is only late. `received`, `expected` and "
    "`share`, their quotient, are of the whole range, whatever the page. `expected` and `share` are null where they "
    "cannot be known: where fewer than 9 of 10 neighbours differ by one. Readings sent without `ts` are not counted."
)


class GapsQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /devices/{id}/gaps`."""

    sensor_type: SensorType
    # Inclusive; `to` is exclusive.
    from_: Time | UnsetType = msgspec.field(default=UNSET, name="from")
    to: Time | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_GAPS)] = MAX_GAPS
    cursor: Cursor | UnsetType = UNSET


class GapItem(msgspec.Struct, rename="camel"):
    """Missing numbers, both ends included, how many they are, and the times of the readings around them."""

    from_seq: int
    to_seq: int
    count: int
    after: TimeText
    before: TimeText


class GapsAnswer(msgspec.Struct, rename="camel"):
    """The gaps of a range, in the order of time, and its completeness; the last page has no `nextCursor`."""

    items: list[GapItem]
    received: int
    expected: int | None
    share: float | None
    next_cursor: str | UnsetType = UNSET


class GapsRoutes:
    """What is missing in a series."""

    def __init__(self, guard: RequestGuard, history: FromMongoDB) -> None:
        self._guard = guard
        self._history = history

    def calls(self) -> list[Operation]:
        """Return the operations served."""
        return [
            Operation(
                method="GET",
                path="/devices/{id}/gaps",
                handler=self._gaps,
                tag="readings",
                summary="Find the readings of a series that are missing",
                description=GAPS,
                query=GapsQuery,
                responses={200: GapsAnswer},
                problems=(403, 404, 429),
                secured=True,
            )
        ]

    async def _gaps(self, request: web.Request) -> web.Response:
        owner = (await self._guard.claims(request)).owner
        query = read_query(request, GapsQuery)
        from_ms, to_ms = parse_range(query.from_, query.to)
        past = None if query.cursor is UNSET else parse_position(query.cursor)
        device = request.match_info["id"]
        range_ = Range(device, query.sensor_type, from_ms, to_ms)
        async with self._guard.admitted(owner, "gaps"):
            found, gaps = await self._history.gaps(owner, range_, query.limit, past)
            if not found.received and not await self._history.has_device(owner, device):
                raise Problem(404, "No reading of a device with this id was ever stored.", code="no_such_device")
        shown = gaps[: query.limit]
        body: dict[str, Any] = {"items": [_item(gap) for gap in shown]} | completeness_object(found)
        if len(gaps) > query.limit:
            body["nextCursor"] = position_cursor(shown[-1].position)
        return json_response(body)


def completeness_object(found: Completeness) -> dict[str, Any]:
    """Return `expected`, `received` and `share`."""
    return {"expected": found.expected, "received": found.received, "share": found.share}


def _item(gap: Gap) -> dict[str, Any]:
    return {
        "fromSeq": gap.from_seq,
        "toSeq": gap.to_seq,
        "count": gap.to_seq - gap.from_seq + 1,
        "after": rfc3339(gap.after_ms),
        "before": rfc3339(gap.before_ms),
    }
