"""A deleted account takes with it what alarms have left of its owner, however much that is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import Accounts
from auth.metrics import AuthMetrics
from auth.passwords import password_hasher
from auth.tokens.revocations import RevocationLog
from database import erasure
from database.alarm_tables import alarm_deliveries, alarm_history, alarm_series, alarms
from database.connection import Database
from database.tables import users
from tests.alarms.evaluation.leading import fires, leading, stored_rule
from tests.alarms.rows import rows

DEVICES = ("a", "b", "c", "d", "e")


async def test_it_is_removed_in_portions_and_only_of_this_owner(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_owners = [await stored_rule(database, owner) for owner in ("ada", "bob")]
    async with leading(database) as store:
        await store.commit([fires(rule, 1, device) for rule in of_owners for device in DEVICES])
    for owner in ("ada", "bob"):
        row: dict[str, Any] = {"sensor_type": "t", "ts_ms": 1, "seq": 1, "value": "1", "received_at_ms": 1}
        async with database.begin() as connection:
            series = [row | {"owner_id": owner, "device": device} for device in DEVICES]
            await connection.execute(insert(alarm_series), series)
    monkeypatch.setattr(erasure, "ERASE_ROWS", 2)
    begun = 0
    begin = Database.begin

    @asynccontextmanager
    async def counted(self: Database) -> AsyncIterator[AsyncConnection]:
        nonlocal begun
        begun += 1
        async with begin(self) as connection:
            yield connection

    monkeypatch.setattr(Database, "begin", counted)
    with password_hasher(cost=4, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())) as passwords:
        revocations = RevocationLog(database, access_s=60, device_s=60)
        await Accounts(database, passwords, revocations).delete("ada")
    assert begun == 4 * 3 + 1
    for table in (alarm_deliveries, alarm_history, alarms, alarm_series):
        assert [one["owner_id"] for one in await rows(database_url, select(table))] == ["bob"] * len(DEVICES)
    assert {one["id"] for one in await rows(database_url, select(users))} == {"bob"}
