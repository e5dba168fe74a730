"""Records changes of alarms in the transaction that makes them: a row of the history each, and the notifications."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.deliveries.ledger import enter
from alarms.deliveries.notification import Recorded
from database.alarm_tables import alarm_history


async def record(connection: AsyncConnection, recorded: Sequence[Recorded], now_ms: int) -> None:
    """Record changes, of which there is at least one."""
    await connection.execute(insert(alarm_history), [_history_row(one) for one in recorded])
    await enter(connection, recorded, now_ms)


def _history_row(one: Recorded) -> dict[str, Any]:
    return {
        "owner_id": one.rule.owner,
        "alarm_id": one.alarm_id,
        "number": one.number,
        "state": one.state,
        "cause": one.cause,
        "ts_ms": one.ts_ms,
        "seq": one.seq,
        "value": None if one.value is None else msgspec.json.encode(one.value).decode(),
        "unit": one.unit,
        "recorded_at_ms": one.recorded_at_ms,
    }
