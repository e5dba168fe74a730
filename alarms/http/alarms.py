"""`/alarms`: owners see and acknowledge their alarms, and see the ledger of notifications."""

from collections.abc import Callable

from aiohttp import web
from msgspec import UNSET

from access.bearer import require_covered
from access.claims import Verified
from alarms.deliveries.ledger import GIVE_UP_AFTER_MS
from alarms.deliveries.notification import Recorded
from alarms.deliveries.store import DeliveryStore, NoSuchDeliveryError, NotDeadError
from alarms.http.alarm_bodies import (
    AlarmItem,
    AlarmsAnswer,
    AlarmsQuery,
    DeliveriesAnswer,
    DeliveriesQuery,
    DeliveryItem,
    HistoryAnswer,
    HistoryItem,
    HistoryQuery,
)
from alarms.http.guard import AlarmsGuard
from alarms.listing import AlarmListing, AlarmRow, NoSuchAlarmError, NotFiringError
from database.ids import is_id
from runtime.http.bodies import json_response
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.http.problems import Problem

OnRecorded = Callable[[list[Recorded]], None]


class AlarmRoutes:
    """The calls about alarms and deliveries. `on_recorded` is called with every acknowledgement, `on_due` to send."""

    def __init__(
        self,
        listing: AlarmListing,
        deliveries: DeliveryStore,
        guard: AlarmsGuard,
        on_recorded: OnRecorded,
        on_due: Callable[[], None],
    ) -> None:
        self._listing = listing
        self._deliveries = deliveries
        self._guard = guard
        self._on_recorded = on_recorded
        self._on_due = on_due

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="GET",
                path="/alarms",
                handler=self._list,
                tag="alarms",
                summary="List your alarms, the oldest first",
                description="A rule has an alarm for each series, from its first change on.",
                query=AlarmsQuery,
                responses={200: AlarmsAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/alarms/deliveries",
                handler=self._list_deliveries,
                tag="alarms",
                summary="List notifications and what became of them, the newest first",
                description="`pending`: it is being delivered, again and again for 24 hours; then it is `dead`.",
                query=DeliveriesQuery,
                responses={200: DeliveriesAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/alarms/deliveries/{id}/replay",
                handler=self._replay,
                tag="alarms",
                summary="Deliver a dead notification again, under the same id",
                responses={200: DeliveryItem},
                problems=(403, 404, 409),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/alarms/{id}/history",
                handler=self._history,
                tag="alarms",
                summary="List the changes of an alarm, the oldest first",
                query=HistoryQuery,
                responses={200: HistoryAnswer},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/alarms/{id}/acknowledge",
                handler=self._acknowledge,
                tag="alarms",
                summary="Acknowledge a firing alarm",
                description="Others see that somebody knows. It ends by itself, as any other. 409 with the code "
                "`not_firing` if it is not firing.",
                responses={200: AlarmItem},
                problems=(403, 404, 409),
                secured=True,
            ),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        claims = await self._guard.viewer(request)
        query = read_query(request, AlarmsQuery)
        devices = claims.devices
        if query.device is not UNSET:
            require_covered(claims, query.device)
            devices = (query.device,)
        found, cursor = await self._listing.page(
            claims.owner,
            devices=devices,
            state=query.state or None,
            rule=query.rule or None,
            after=query.cursor or None,
            limit=query.limit,
        )
        return json_response(AlarmsAnswer([AlarmItem.of(one) for one in found], cursor or UNSET))

    async def _history(self, request: web.Request) -> web.Response:
        claims = await self._guard.viewer(request)
        query = read_query(request, HistoryQuery)
        alarm = await self._alarm(request, claims)
        after = 0 if query.cursor is UNSET else query.cursor
        found, cursor = await self._listing.history(claims.owner, alarm.id, after=after, limit=query.limit)
        next_cursor = UNSET if cursor is None else str(cursor)
        return json_response(HistoryAnswer([HistoryItem.of(one) for one in found], next_cursor))

    async def _acknowledge(self, request: web.Request) -> web.Response:
        claims = await self._guard.viewer(request)
        alarm = await self._alarm(request, claims)
        try:
            row, recorded = await self._listing.acknowledge(claims.owner, alarm.id)
        except NoSuchAlarmError as error:
            raise _no_such_alarm() from error
        except NotFiringError as error:
            raise Problem(409, f"The alarm is {error.state}.", code="not_firing") from error
        self._guard.audit(request, claims, "An alarm was acknowledged.", alarm=alarm.id)
        self._on_recorded([recorded])
        return json_response(AlarmItem.of(row))

    async def _alarm(self, request: web.Request, claims: Verified) -> AlarmRow:
        alarm_id = request.match_info["id"]
        if not is_id(alarm_id):
            raise _no_such_alarm()
        try:
            alarm = await self._listing.find(claims.owner, alarm_id)
        except NoSuchAlarmError as error:
            raise _no_such_alarm() from error
        require_covered(claims, alarm.device)
        return alarm

    async def _list_deliveries(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        query = read_query(request, DeliveriesQuery)
        found, cursor = await self._deliveries.page(
            claims.owner, state=query.state or None, before=query.cursor or None, limit=query.limit
        )
        return json_response(DeliveriesAnswer([DeliveryItem.of(one) for one in found], cursor or UNSET))

    async def _replay(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        delivery_id = request.match_info["id"]
        if not is_id(delivery_id):
            raise _no_such_delivery()
        try:
            delivery = await self._deliveries.replay(claims.owner, delivery_id, GIVE_UP_AFTER_MS)
        except NoSuchDeliveryError as error:
            raise _no_such_delivery() from error
        except NotDeadError as error:
            raise Problem(409, "Only a dead notification is replayed.", code="not_dead") from error
        self._guard.audit(request, claims, "A notification is delivered again.", delivery=delivery_id)
        self._on_due()
        return json_response(DeliveryItem.of(delivery))


def _no_such_alarm() -> Problem:
    return Problem(404, "There is no such alarm.", code="not_found")


def _no_such_delivery() -> Problem:
    return Problem(404, "There is no such notification.", code="not_found")
