"""What is stored of changes: by the leader only, each once, numbered, with what is to be notified."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, event, select, update

from alarms.deliveries.ledger import MAX_AN_HOUR, SETTLED_AFTER_MS
from alarms.evaluation import store as store_module
from alarms.evaluation.evaluator import Newest
from alarms.evaluation.leader import NotLeaderError
from alarms.evaluation.store import AlarmStore
from alarms.listing import AlarmListing, NoSuchAlarmError, NotFiringError
from alarms.rules.point import Point
from alarms.rules.state import Phase
from alarms.rules.store import NoSuchOwnerError, RuleStore
from database import upsert as upsert_module
from database.alarm_tables import alarm_deliveries, alarm_history, alarm_leader, alarm_rules, alarm_series, alarms
from database.connection import Database
from database.tables import users
from tests.alarms.evaluation.leading import ends, fires, late, leading, states, stored_rule
from tests.alarms.making import START_MS, definition
from tests.alarms.rows import rows
from tests.auth.rows import change


async def lose(url: str) -> None:
    """End the lease of whoever has it, and give it to another process."""
    await change(url, alarm_leader.update().values(holder="another", until_ms=2**53))


async def history(url: str) -> list[tuple[int, str, str, int]]:
    found = await rows(url, select(alarm_history).order_by(alarm_history.c.alarm_id, alarm_history.c.number))
    return [(one["number"], one["state"], one["cause"], one["ts_ms"] - START_MS) for one in found]


async def deliveries(url: str) -> list[dict[str, Any]]:
    return await rows(url, select(alarm_deliveries).order_by(alarm_deliveries.c.id))


async def test_changes_are_recorded_in_their_order_and_numbered(database: Database, database_url: str) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        recorded = await store.commit([fires(rule, 1), ends(rule, 2), fires(rule, 3), fires(rule, 1, "other")])
        assert states(recorded) == [
            (1, "firing", "reading"), (2, "ok", "reading"), (3, "firing", "reading"), (1, "firing", "reading"),
        ]  # fmt: skip
        assert states(await store.commit([ends(rule, 4)])) == [(4, "ok", "reading")]
    numbers = sorted(number for number, *_ in await history(database_url))
    assert numbers == [1, 1, 2, 3, 4]
    assert len(await deliveries(database_url)) == 5


async def test_what_is_committed_again_changes_nothing(database: Database, database_url: str) -> None:
    rule = await stored_rule(database)
    changes = [fires(rule, 1), ends(rule, 2), fires(rule, 3)]
    async with leading(database) as store:
        await store.commit(changes)
        before = await history(database_url), await deliveries(database_url)
        assert await store.commit(changes) == []
        assert await store.commit([late(rule, 0)]) != []
        before = await history(database_url), await deliveries(database_url)
        assert await store.commit([late(rule, 0)]) == []
    assert (await history(database_url), await deliveries(database_url)) == before


async def test_the_end_of_a_changed_rules_alarm_that_is_committed_again_ends_no_alarm_of_its_new_version(
    database: Database, database_url: str
) -> None:
    rule = await stored_rule(database)
    end = replace(ends(rule, 1), cause="rule", ts_ms=START_MS + 2)
    changes = [end, fires(replace(rule, version=2), 3)]
    async with leading(database) as store:
        await store.commit([fires(rule, 1)])
        assert states(await store.commit(changes)) == [(2, "ok", "rule"), (3, "firing", "reading")]
        before = await history(database_url), await deliveries(database_url)
        assert await store.commit(changes) == []
    assert (await history(database_url), await deliveries(database_url)) == before


async def test_after_a_late_reading_what_was_evaluated_before_counts_as_evaluated_at_the_next_start(
    database: Database,
) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([replace(late(rule, 5), newest=(START_MS + 20, 3))])
        known, _ = await store.load()
        assert [one.position for one in known.values()] == [(START_MS + 20, 3)]
        assert await store.commit([fires(rule, 5)]) == []


async def test_a_process_past_its_lease_stores_nothing(database: Database, database_url: str) -> None:
    rule = await stored_rule(database)
    newest = Newest(Point(START_MS, 0, 1), START_MS)
    async with leading(database) as store:
        await lose(database_url)
        with pytest.raises(NotLeaderError):
            await store.commit([fires(rule, 1)])
        with pytest.raises(NotLeaderError):
            await store.save([(("ada", "press", "temperature"), newest)])
    assert await history(database_url) == []
    assert await deliveries(database_url) == []
    assert await rows(database_url, select(alarm_series)) == []


async def test_a_late_reading_fires_and_ends_at_its_time_unless_it_is_covered(
    database: Database, database_url: str
) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(rule, 10), ends(rule, 20)])
        assert states(await store.commit([late(rule, 15)])) == []
        assert states(await store.commit([late(rule, 10)])) == []
        assert states(await store.commit([late(rule, 5)])) == [(3, "firing", "late"), (4, "ok", "late")]
        assert states(await store.commit([late(rule, 25)])) == [(5, "firing", "late"), (6, "ok", "late")]
        known, _ = await store.load()
    (alarm,) = known.values()
    assert (alarm.state.phase, alarm.position) == (Phase.OK, (START_MS + 20, 0)), "it changes no state"
    assert len(await deliveries(database_url)) == 6


async def test_of_a_deleted_owner_nothing_is_stored_and_nothing_is_left(database: Database, database_url: str) -> None:
    mine, bobs = await stored_rule(database), await stored_rule(database, "bob")
    async with leading(database) as store:
        await store.commit([fires(mine, 1), fires(bobs, 1)])
        async with database.begin() as connection:
            await connection.execute(delete(users).where(users.c.id == "ada"))
        assert states(await store.commit([ends(mine, 2), ends(bobs, 2)])) == [(2, "ok", "reading")]
        newest = Newest(Point(START_MS, 0, 1), START_MS)
        await store.save([((owner, "press", "temperature"), newest) for owner in ("ada", "bob")])
    for table in (alarm_history, alarm_deliveries, alarm_series):
        assert {one["owner_id"] for one in await rows(database_url, select(table))} == {"bob"}
    with pytest.raises(NoSuchOwnerError):
        await RuleStore(database).create("ada", definition(), None)


async def test_what_a_process_leaves_the_next_one_loads(database: Database) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(rule, 1)])
        await store.save([(("ada", "press", "temperature"), Newest(Point(START_MS + 5, 2, 'a "text"'), START_MS + 9))])
        await store.save([(("ada", "press", "temperature"), Newest(Point(START_MS + 6, 2, True), START_MS + 9))])
        known, newest = await store.load()
    alarm = known[rule.id, "press", "temperature"]
    assert (alarm.state.phase, alarm.state.since_ms, alarm.position) == (
        Phase.FIRING, START_MS + 1, (START_MS + 1, 0),
    )  # fmt: skip
    assert newest == {("ada", "press", "temperature"): Newest(Point(START_MS + 6, 2, True), START_MS + 9)}


async def test_an_acknowledged_alarm_ends_like_any_other(database: Database, database_url: str) -> None:
    rule, listing = await stored_rule(database), AlarmListing(database)
    async with leading(database) as store:
        (recorded,) = await store.commit([fires(rule, 1)])
        with pytest.raises(NoSuchAlarmError):
            await listing.acknowledge("bob", recorded.alarm_id)
        row, acknowledged = await listing.acknowledge("ada", recorded.alarm_id)
        assert (row.state, acknowledged.number) == ("acknowledged", 2)
        with pytest.raises(NotFiringError) as again:
            await listing.acknowledge("ada", recorded.alarm_id)
        assert again.value.state == "acknowledged"
        assert states(await store.commit([ends(rule, 2)])) == [(3, "ok", "reading")]
        with pytest.raises(NotFiringError):
            await listing.acknowledge("ada", recorded.alarm_id)
    assert [(number, state, cause) for number, state, cause, _ in await history(database_url)] == [
        (1, "firing", "reading"), (2, "acknowledged", "owner"), (3, "ok", "reading"),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["removed", "changed"])
async def test_the_alarms_of_a_rule_that_was_changed_while_nobody_evaluated_end(database: Database, how: str) -> None:
    kept, rule = await stored_rule(database), await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(kept, 1), fires(rule, 1)])
        assert await store.outdated() == []
        if how == "removed":
            await RuleStore(database).remove("ada", rule.id)
        else:
            other = definition(when={"op": "above", "value": 100})
            await RuleStore(database).change(rule, other, None)
        assert states(await store.commit(await store.outdated())) == [(2, "ok", "rule")]
        assert await store.outdated() == []


async def test_beyond_a_bound_an_hour_notifications_are_one_digest(database: Database, database_url: str) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        for start in range(0, MAX_AN_HOUR, 10):
            changes = [one for at in range(start, start + 10, 2) for one in (fires(rule, at), ends(rule, at + 1))]
            await store.commit(changes)
        await more(store, rule)
        found = await deliveries(database_url)
    singles = [one for one in found if one["alarm_id"] is not None]
    digests = [one for one in found if one["alarm_id"] is None]
    hours = {one["created_at_ms"] // 3_600_000 for one in found}
    if len(hours) == 1:
        assert (len(singles), len(digests)) == (MAX_AN_HOUR, 1)
        assert '"changes":{"firing":2,"ok":1}' in digests[0]["body"]
        assert digests[0]["due_at_ms"] % 3_600_000 == SETTLED_AFTER_MS
    assert len(await history(database_url)) == MAX_AN_HOUR + 3, "and the history has everything"


async def more(store: AlarmStore, rule: Any) -> None:
    await store.commit([fires(rule, 100), ends(rule, 101)])
    await store.commit([fires(rule, 102)])


async def test_an_owner_who_is_deleted_while_others_are_stored_does_not_end_it(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await stored_rule(database), await stored_rule(database, "bob")
    async with leading(database) as store:
        existing = AlarmStore._existing
        deleted: list[str] = [first.owner, second.owner]

        async def deletes_one(self: AlarmStore, owners: set[str]) -> set[str]:
            found = await existing(self, owners)
            if deleted:
                await change(database_url, delete(users).where(users.c.id == deleted.pop()))
            return found

        monkeypatch.setattr(AlarmStore, "_existing", deletes_one)
        await change(database_url, delete(users).where(users.c.id == deleted.pop()))
        newest = Newest(Point(START_MS, 0, 1), START_MS)
        await store.save([((rule.owner, "press", "temperature"), newest) for rule in (first, second)])
        assert await store.commit([fires(first, 1), fires(second, 1)]) == []
    assert await rows(database_url, select(alarm_series)) == []


async def test_an_old_history_is_forgotten_in_portions(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FORGET_ROWS", 2)
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(rule, 1), ends(rule, 2), fires(rule, 3)])
        await store.forget(0)
        assert len(await history(database_url)) == 3
        await store.forget(2**53)
        assert [number for number, *_ in await history(database_url)] == [3]
        await store.forget(2**53)
        assert await history(database_url) == []


async def test_everything_is_loaded_in_parts(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOAD_ROWS", 3)
    rule = await stored_rule(database)
    names = [f"press-{number}" for number in range(7)]
    async with leading(database) as store:
        await store.commit([fires(rule, 1, name) for name in names])
        newest = {
            (owner, name, kind): Newest(Point(START_MS + number, 0, number), START_MS)
            for number, name in enumerate(names)
            for owner in ("ada", "bob")
            for kind in ("temperature", "humidity")
        }
        await store.save(newest.items())
        known, loaded = await store.load()
    assert {(device, sensor_type) for _, device, sensor_type in known} == {(name, "temperature") for name in names}
    assert loaded == newest


async def test_what_is_saved_again_replaces_what_was(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsert_module, "ROWS_AT_ONCE", 2)
    async with leading(database) as store:
        for value in (1, 2.5, "text", True):
            newest = {("ada", f"press-{at}", "t"): Newest(Point(START_MS, at, value), START_MS) for at in range(5)}
            await store.save(newest.items())
            assert (await store.load())[1] == newest
        await store.save([])


async def test_alarms_of_rules_that_are_gone_go_with_their_history(database: Database, database_url: str) -> None:
    kept, gone = await stored_rule(database), await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(kept, 1), fires(gone, 1), ends(gone, 2)])
        await change(database_url, delete(alarm_rules).where(alarm_rules.c.id == gone.id))
        await store.forget_alarms(0)
        assert len(await rows(database_url, select(alarms))) == 2
        await store.forget_alarms(2**53)
    assert [one["rule_id"] for one in await rows(database_url, select(alarms))] == [kept.id]


async def test_alarms_that_have_been_ok_for_longer_than_histories_are_kept_go(
    database: Database, database_url: str
) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(rule, 1, "press"), fires(rule, 1, "saw"), ends(rule, 2, "saw")])
        await store.forget_alarms(0)
        assert len(await rows(database_url, select(alarms))) == 2
        await store.forget_alarms(2**53)
        assert [one["device"] for one in await rows(database_url, select(alarms))] == ["press"]
        assert states(await store.commit([fires(rule, 3, "saw")])) == [(1, "firing", "reading")]


async def test_an_alarm_that_fired_late_is_kept_as_long_as_its_history(database: Database, database_url: str) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(rule, 1), ends(rule, 9)])
        await change(database_url, update(alarms).values(changed_at_ms=1))
        assert len(await store.commit([replace(late(rule, 10), newest=(START_MS + 20, 0))])) == 2
        assert await store.commit([replace(late(rule, 10), newest=(START_MS + 20, 0))]) == []
        await change(database_url, update(alarms).values(state="ok"))
        await store.forget_alarms(1000)
    assert len(await rows(database_url, select(alarms))) == 1


async def test_the_newest_readings_of_series_that_nobody_watches_go(database: Database) -> None:
    newest = Newest(Point(START_MS, 0, 1), START_MS)
    series = [(owner, "press", f"type{number}") for owner in ("ada", "bob") for number in range(3)]
    async with leading(database) as store:
        await store.save([(one, newest) for one in series])
        await store.forget_series(lambda one: one in series[:2])
        _, left = await store.load()
    assert sorted(left) == series[:2]


async def test_a_rule_that_watched_for_silence_before_is_told_of_readings_by_a_clock_that_is_behind(
    database: Database,
) -> None:
    rule = await stored_rule(database, when={"op": "silent"}, forSeconds=1)
    async with leading(database) as store:
        silence = replace(fires(rule, 3_600_000), cause="silence")
        await store.commit([silence])
        await RuleStore(database).change(rule, definition(), None)
        await store.commit(await store.outdated())
        other = (await RuleStore(database).find("ada", rule.id)).rule
        assert states(await store.commit([fires(other, 1)])) == [(3, "firing", "reading")]
        assert await store.commit([fires(other, 1), fires(rule, 2)]) == [], "again"


async def test_a_late_reading_is_looked_up_without_reading_the_whole_history(database: Database) -> None:
    rule = await stored_rule(database)
    async with leading(database) as store:
        await store.commit([fires(rule, 10)])
        queries: list[tuple[str, Any]] = []

        def note(*arguments: Any) -> None:
            if arguments[2].startswith("SELECT") and "alarm_history" in arguments[2]:
                queries.append((arguments[2], arguments[3]))

        engine = database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        await store.commit([replace(late(rule, 5), newest=(START_MS + 20, 3))])
        event.remove(engine, "before_cursor_execute", note)
    assert len(queries) == 2
    if engine.dialect.name == "sqlite":
        async with database.connect() as connection:
            for query, parameters in queries:
                plan = str(list(await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", parameters)))
                assert "alarm_history_ts" in plan
                assert "(owner_id=? AND alarm_id=? AND ts_ms" in plan
                assert "TEMP B-TREE" not in plan or "RIGHT PART" in plan or "LAST TERM" in plan, "no sort of it all"
