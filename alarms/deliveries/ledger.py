"""Puts notifications into the ledger, in the transaction of what they tell; beyond a bound, into one digest an hour."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.deliveries.notification import Recorded, body_of, changes_of_digest, digest_of
from alarms.deliveries.store import Kind
from database.alarm_tables import alarm_deliveries
from database.ids import new_id
from database.tables import users
from database.upsert import upsert

# Notifications of one rule to one address within an hour of the clock.
MAX_AN_HOUR = 60
HOUR_MS = 3_600_000
# A digest is sent so long behind its hour: no transaction that adds to it goes on until then.
SETTLED_AFTER_MS = 10_000
GIVE_UP_AFTER_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class _Target:
    kind: Kind
    address: str


_DigestKey = tuple[str, str, _Target]
"""Owner, rule, to whom."""


async def enter(connection: AsyncConnection, recorded: Sequence[Recorded], now_ms: int) -> None:
    """Enter the notifications of changes."""
    notifying = [one for one in recorded if one.is_notified]
    emails = await _addresses(connection, {one.rule.owner for one in notifying if one.rule.definition.has_email})
    notified = [(one, target) for one in notifying for target in _targets(one, emails)]
    if not notified:
        return
    counts = await _counts(connection, [one for one, _ in notified], now_ms)
    rows: list[dict[str, Any]] = []
    beyond = defaultdict[_DigestKey, list[Recorded]](list)
    for one, target in notified:
        sent = counts.get((one.rule.id, target.address), 0)
        if sent < MAX_AN_HOUR:
            counts[one.rule.id, target.address] = sent + 1
            rows.append(_row(one, target, body_of(one), one.alarm_id, now_ms, due_at_ms=now_ms))
        else:
            beyond[one.rule.owner, one.rule.id, target].append(one)
    if rows:
        await connection.execute(insert(alarm_deliveries), rows)
    if beyond:
        await _add_to_digests(connection, beyond, now_ms)


def _targets(one: Recorded, emails: Mapping[str, str]) -> list[_Target]:
    definition = one.rule.definition
    found = [_Target("webhook", url) for url in definition.webhooks]
    if definition.has_email:
        found.append(_Target("email", emails.get(one.rule.owner, "")))
    return found


async def _addresses(connection: AsyncConnection, owners: set[str]) -> dict[str, str]:
    """Return the e-mail addresses of accounts. Whether they are confirmed counts when they are mailed to."""
    if not owners:
        return {}
    query = select(users.c.id, users.c.email).where(users.c.id.in_(owners))
    return {row.id: row.email for row in await connection.execute(query)}


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


async def _add_to_digests(
    connection: AsyncConnection, beyond: Mapping[_DigestKey, Sequence[Recorded]], now_ms: int
) -> None:
    """Count changes in the digests of this hour, all of them in one query each way."""
    until_ms = now_ms - now_ms % HOUR_MS + HOUR_MS
    due_at_ms = until_ms + SETTLED_AFTER_MS
    table = alarm_deliveries.c
    query = (
        select(alarm_deliveries)
        .where(table.owner_id.in_({key[0] for key in beyond}), table.rule_id.in_({key[1] for key in beyond}))
        .where(table.created_at_ms >= until_ms - HOUR_MS, table.alarm_id.is_(None))
        .where(table.due_at_ms == due_at_ms, table.state == "pending")
        .with_for_update()
    )
    found = {
        (row.owner_id, row.rule_id, _Target(row.kind, row.target)): row._asdict()
        for row in await connection.execute(query)
    }
    rows: list[dict[str, Any]] = []
    for key, changes in beyond.items():
        last, target, row = changes[-1], key[2], found.get(key)
        states = Counter({} if row is None else changes_of_digest(row["body"]))
        states.update(one.state for one in changes)
        body = digest_of(last, until_ms, states)
        if row is None:
            row = {"last_status": None, "finished_at_ms": None} | _row(
                last, target, body, None, now_ms, due_at_ms=due_at_ms
            )
        rows.append(row | {"body": body})
    await upsert(connection, alarm_deliveries, rows)


def _row(
    one: Recorded, target: _Target, body: str, alarm_id: str | None, now_ms: int, *, due_at_ms: int
) -> dict[str, Any]:
    return {
        "owner_id": one.rule.owner,
        "id": new_id(),
        "rule_id": one.rule.id,
        "alarm_id": alarm_id,
        "kind": target.kind,
        "target": target.address,
        "body": body,
        "state": "pending",
        "attempts": 0,
        "created_at_ms": now_ms,
        "give_up_at_ms": due_at_ms + GIVE_UP_AFTER_MS,
        "due_at_ms": due_at_ms,
        "leased_until_ms": 0,
    }
