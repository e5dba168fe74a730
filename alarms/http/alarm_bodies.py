"""The bodies of the calls about alarms and deliveries."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from alarms.deliveries.store import Delivery
from alarms.http.rule_bodies import MAX_PAGE, Cursor
from alarms.listing import AlarmRow, HistoryRow
from alarms.rules.definition import DeviceId
from broker.alarms import AlarmState, Cause
from database.ids import ID
from runtime.http.wording import rule as in_words
from runtime.times import TimeText, rfc3339

# Of an integer in the database.
MAX_NUMBER = 2**31 - 1
DeliveryState = Literal["pending", "delivered", "dead"]


class AlarmsQuery(msgspec.Struct, rename="camel"):
    """Query of `GET /alarms`; the cursor is the last id of the previous page."""

    state: AlarmState | UnsetType = UNSET
    rule: Annotated[str, Meta(pattern=ID, extra=in_words("the id of a rule"))] | UnsetType = UNSET
    device: DeviceId | UnsetType = UNSET
    cursor: Cursor | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class AlarmItem(msgspec.Struct, rename="camel"):
    """An alarm, which a rule has for each series. `since`: of the reading with which its condition began to hold."""

    id: str
    rule: str
    name: str
    severity: str
    device: str
    sensor_type: str
    state: AlarmState
    changed_at: TimeText
    since: TimeText | UnsetType = UNSET

    @classmethod
    def of(cls, row: AlarmRow) -> "AlarmItem":
        """Return the item of an alarm."""
        since = UNSET if row.since_ms is None else rfc3339(row.since_ms)
        return cls(
            row.id,
            row.rule_id,
            row.name,
            row.severity,
            row.device,
            row.sensor_type,
            row.state,
            rfc3339(row.changed_at_ms),
            since,
        )


class AlarmsAnswer(msgspec.Struct, rename="camel"):
    """A page of alarms; without `nextCursor`, it is the last."""

    items: list[AlarmItem]
    next_cursor: str | UnsetType = UNSET


class HistoryQuery(msgspec.Struct):
    """Query of `GET /alarms/{id}/history`; the cursor is the last number of the previous page."""

    cursor: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class HistoryItem(msgspec.Struct, rename="camel"):
    """A change of an alarm. `ts`: of the reading that is its cause, or when its absence began to count."""

    number: int
    state: AlarmState
    cause: Cause
    ts: TimeText
    recorded_at: TimeText
    seq: int | UnsetType = UNSET
    value: Any | UnsetType = UNSET
    unit: str | UnsetType = UNSET

    @classmethod
    def of(cls, row: HistoryRow) -> "HistoryItem":
        """Return the item of a row."""
        item = cls(row.number, row.state, row.cause, rfc3339(row.ts_ms), rfc3339(row.recorded_at_ms))
        if row.value is not None:
            item.seq, item.value, item.unit = row.seq, msgspec.Raw(row.value.encode()), row.unit or UNSET
        return item


class HistoryAnswer(msgspec.Struct, rename="camel"):
    """A page of a history, the oldest first; without `nextCursor`, it is the last."""

    items: list[HistoryItem]
    next_cursor: str | UnsetType = UNSET


class DeliveriesQuery(msgspec.Struct):
    """Query of `GET /alarms/deliveries`; the cursor is the last id of the previous page."""

    state: DeliveryState | UnsetType = UNSET
    cursor: Cursor | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class DeliveryItem(msgspec.Struct, rename="camel"):
    """A notification and what became of it. `lastStatus`: an HTTP status, an SMTP reply, or why there was none."""

    id: str
    rule: str
    kind: str
    target: str
    state: DeliveryState
    attempts: int
    created_at: TimeText
    alarm: str | UnsetType = UNSET
    last_status: str | UnsetType = UNSET
    due_at: TimeText | UnsetType = UNSET
    finished_at: TimeText | UnsetType = UNSET

    @classmethod
    def of(cls, one: Delivery) -> "DeliveryItem":
        """Return the item of a delivery."""
        return cls(
            one.id,
            one.rule_id,
            one.kind,
            one.target,
            one.state,
            one.attempts,
            rfc3339(one.created_at_ms),
            one.alarm_id or UNSET,
            one.last_status or UNSET,
            rfc3339(one.due_at_ms) if one.state == "pending" else UNSET,
            UNSET if one.finished_at_ms is None else rfc3339(one.finished_at_ms),
        )


class DeliveriesAnswer(msgspec.Struct, rename="camel"):
    """A page of deliveries, the newest first; without `nextCursor`, it is the last."""

    items: list[DeliveryItem]
    next_cursor: str | UnsetType = UNSET
