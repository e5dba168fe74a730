"""Which notifications are taken to be sent: of every owner some, however much another one has waiting."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from alarms.deliveries import store
from alarms.deliveries.store import DeliveryStore
from database.alarm_tables import alarm_deliveries
from database.connection import Database
from tests.alarms.rows import add_user
from tests.auth.rows import cached_statements, change

ROW: dict[str, Any] = {
    "rule_id": "rule-1", "alarm_id": "alarm-1", "kind": "webhook", "target": "https://example.org/", "body": "{}",
    "state": "pending", "attempts": 0, "created_at_ms": 1, "give_up_at_ms": 2**50, "leased_until_ms": 0,
}  # fmt: skip


async def add(url: str, owner: str, *due_at_ms: int, **changes: Any) -> None:
    made = [ROW | {"owner_id": owner, "id": f"{owner}-{at}", "due_at_ms": at} | changes for at in due_at_ms]
    await change(url, insert(alarm_deliveries).values(made))


async def leased(database: Database, limit: int = 100, **room: int) -> list[str]:
    """Return the ids of what is taken, of owners without a room of their own three at most."""
    return [one.id for one, _ in await DeliveryStore(database).lease("webhook", limit, room, 3)]


async def test_a_backlog_of_one_owner_keeps_no_other_waiting(database: Database, database_url: str) -> None:
    await add(database_url, "ada", *range(1, 200))
    await add(database_url, "bob", 1000, 1001)
    assert sorted(await leased(database)) == ["ada-1", "ada-2", "ada-3", "bob-1000", "bob-1001"]
    assert sorted(await leased(database)) == ["ada-4", "ada-5", "ada-6"], "what is leased is not taken twice"
    assert await leased(database, ada=0) == []
    assert sorted(await leased(database, ada=2)) == ["ada-7", "ada-8"]


async def test_what_waits_the_longest_is_taken_first_and_nothing_that_is_not_due(
    database: Database, database_url: str
) -> None:
    await add(database_url, "ada", 5, 2**52)
    await add(database_url, "bob", 3, 4)
    await add(database_url, "bob", 1, kind="email")
    await add(database_url, "bob", 2, state="dead")
    assert sorted(await leased(database, limit=2)) == ["bob-3", "bob-4"]
    assert await leased(database) == ["ada-5"]
    await change(database_url, update(alarm_deliveries).values(leased_until_ms=0))
    assert sorted(await leased(database)) == ["ada-5", "bob-3", "bob-4"], "a lease has ended"


async def test_owners_behind_those_of_whom_all_is_leased_are_found(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "OWNERS_AT_ONCE", 2)
    for number in range(5):
        await add_user(database_url, f"owner{number}")
        await add(database_url, f"owner{number}", number, leased_until_ms=0 if number == 4 else 2**52)
    assert await leased(database) == ["owner4-4"]


async def test_what_is_due_of_any_number_of_owners_is_found_with_few_statements(
    database: Database, database_url: str
) -> None:
    for number in range(20):
        await add_user(database_url, f"owner{number}")
        await add(database_url, f"owner{number}", 1)
        assert len(await leased(database, limit=1)) == 1
        await change(database_url, update(alarm_deliveries).values(leased_until_ms=0))
    assert len(await leased(database)) == 20
    assert cached_statements(database, "LIMIT") == 6
