"""Puts notifications into the ledger, in the transaction of what they tell; beyond a bound, into one digest an hour."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.deliveries.notification import Recorded, body_of, changes_of_digest, digest_of
from database.alarm_tables import alarm_deliveries
from database.ids import new_id

# Notifications of one rule to one address within an hour of the clock.
MAX_AN_HOUR = 60
HOUR_MS = 3_600_000
# A digest is sent so long behind its hour: no transaction that adds to it goes on until then.
SETTLED_AFTER_MS = 10_000
GIVE_UP_AFTER_MS = 24 * HOUR_MS


async def enter(connection: AsyncConnection, recorded: Sequence[Recorded], now_ms: int) -> None:
    """Enter the notifications of changes."""
    notified = [(one, url) for one in recorded if one.is_notified for url in one.rule.definition.webhooks]
    if not notified:
        return
    counts = await _counts(connection, [one for one, _ in notified], now_ms)
    rows: list[dict[str, Any]] = []
    for one, url in notified:
        sent = counts.get((one.rule.id, url), 0)
        if sent < MAX_AN_HOUR:
            counts[one.rule.id, url] = sent + 1
            rows.append(_row(one, url, body_of(one), one.alarm_id, now_ms, due_at_ms=now_ms))
        else:
            await _add_to_digest(connection, one, url, now_ms)
    if rows:
        await connection.execute(insert(alarm_deliveries), rows)


async def _counts(connection: AsyncConnection, notified: Sequence[Recorded], now_ms: int) -> dict[tuple[str, str], int]:
    hour = now_ms - now_ms % HOUR_MS
    owners, rules = {one.rule.owner for one in notified}, {one.rule.id for one in notified}
    table = alarm_deliveries.c
    query = (
        select(table.rule_id, table.target, func.count())
        .where(table.owner_id.in_(owners), table.rule_id.in_(rules))
        .where(table.created_at_ms >= hour, table.alarm_id.is_not(None))
        .group_by(table.rule_id, table.target)
    )
    return {(rule, target): count for rule, target, count in await connection.execute(query)}


async def _add_to_digest(connection: AsyncConnection, one: Recorded, url: str, now_ms: int) -> None:
    until_ms = now_ms - now_ms % HOUR_MS + HOUR_MS
    due_at_ms = until_ms + SETTLED_AFTER_MS
    table = alarm_deliveries.c
    is_it = (
        table.owner_id == one.rule.owner,
        table.rule_id == one.rule.id,
        table.target == url,
        table.alarm_id.is_(None),
        table.due_at_ms == due_at_ms,
        table.state == "pending",
    )
    found = (await connection.execute(select(table.id, table.body).where(*is_it).with_for_update())).first()
    states = {} if found is None else changes_of_digest(found.body)
    states[one.state] = states.get(one.state, 0) + 1
    body = digest_of(one, until_ms, states)
    if found is None:
        row = _row(one, url, body, None, now_ms, due_at_ms=due_at_ms)
        await connection.execute(insert(alarm_deliveries).values(row))
    else:
        of_owner = table.owner_id == one.rule.owner
        await connection.execute(update(alarm_deliveries).where(of_owner, table.id == found.id).values(body=body))


def _row(one: Recorded, url: str, body: str, alarm_id: str | None, now_ms: int, *, due_at_ms: int) -> dict[str, Any]:
    return {
        "owner_id": one.rule.owner,
        "id": new_id(),
        "rule_id": one.rule.id,
        "alarm_id": alarm_id,
        "kind": "webhook",
        "target": url,
        "body": body,
        "state": "pending",
        "attempts": 0,
        "created_at_ms": now_ms,
        "give_up_at_ms": due_at_ms + GIVE_UP_AFTER_MS,
        "due_at_ms": due_at_ms,
        "leased_until_ms": 0,
    }
