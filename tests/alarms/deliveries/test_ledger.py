"""What one transaction enters into the ledger."""

from typing import Any

from sqlalchemy import event, select

from alarms.deliveries.ledger import MAX_AN_HOUR
from alarms.deliveries.notification import changes_of_digest
from database.alarm_tables import alarm_deliveries
from database.connection import Database
from tests.alarms.evaluation.leading import ends, fires, leading, stored_rule
from tests.alarms.rows import rows

HOOKS = [{"kind": "webhook", "url": f"https://example.org/{number}"} for number in range(10)]
# Of one transaction.
CHANGES = 200


async def test_changes_beyond_the_bound_cost_no_query_each(database: Database, database_url: str) -> None:
    rule = await stored_rule(database, notify=HOOKS)
    made = [one for at in range(0, CHANGES, 2) for one in (fires(rule, at), ends(rule, at + 1))]
    queries: list[str] = []

    def count(*arguments: Any) -> None:
        queries.append(arguments[2])

    async with leading(database) as store:
        await store.commit(made)
        more = [one for at in range(CHANGES, 2 * CHANGES, 2) for one in (fires(rule, at), ends(rule, at + 1))]
        engine = database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", count)
        await store.commit(more)
        event.remove(engine, "before_cursor_execute", count)
    assert len(queries) < 50
    found = await rows(database_url, select(alarm_deliveries).where(alarm_deliveries.c.alarm_id.is_(None)))
    beyond = CHANGES + CHANGES - MAX_AN_HOUR
    assert [sum(changes_of_digest(one["body"]).values()) for one in found] == [beyond] * len(HOOKS)
    assert {one["target"] for one in found} == {one["url"] for one in HOOKS}
