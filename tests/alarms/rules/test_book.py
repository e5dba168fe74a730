"""The rules in memory, and the list that persisters follow: in parts, and by the series that they watch."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, update

from access.revocations import RevocationList
from alarms.rules import book as book_module
from alarms.rules import store as store_module
from alarms.rules.book import RuleBook
from alarms.rules.devices import DeviceNames
from alarms.rules.rule import Rule
from alarms.rules.store import RuleStore
from broker.alarms import Watch
from database.alarm_tables import alarm_rules
from database.connection import Database
from database.tables import devices
from tests.alarms.making import definition
from tests.auth.rows import change

AT_ONCE = 3


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RULES_AT_ONCE", AT_ONCE)


@pytest.fixture
def rules(database: Database) -> RuleStore:
    return RuleStore(database)


class Revocations:
    """What `auth` lists: devices that were deleted, and one whose tokens alone were revoked."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = [{"kind": "device", "id": "press", "gen": 3, "until": 2**53}]
        self.list = RevocationList(self._fetch)

    async def _fetch(self, since: str | None) -> bytes:
        return msgspec.json.encode({"items": self.entries, "cursor": "1"})

    async def delete(self, device: str) -> None:
        self.entries.append({"kind": "device", "id": device, "until": 2**53})
        assert await self.list.refresh()


@pytest.fixture
def revocations() -> Revocations:
    return Revocations()


@pytest.fixture
def book(database: Database, rules: RuleStore, revocations: Revocations) -> RuleBook:
    return RuleBook(rules, DeviceNames(database), revocations.list)


async def add(rules: RuleStore, *device_ids: str, owner: str = "ada", op: str = "above") -> Rule:
    when = {"op": op} | ({"value": 1} if op == "above" else {})
    watched = {"ids": list(device_ids)} if device_ids else "all"
    made = definition(devices=watched, when=when, forSeconds=0 if op == "above" else 60)
    return (await rules.create(owner, made, None)).rule


def ids(book: RuleBook, device: str, owner: str = "ada", sensor_type: str = "temperature") -> set[str]:
    return {one.id for one in book.of_series((owner, device, sensor_type))}


@pytest.mark.parametrize("count", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
async def test_rules_are_read_in_parts(rules: RuleStore, book: RuleBook, count: int) -> None:
    made = [await add(rules, f"press-{number}") for number in range(count)]
    assert await book.refresh() == []
    assert len(book) == count
    for number, rule in enumerate(made):
        assert ids(book, f"press-{number}") == {rule.id}
    assert ids(book, "saw") == set()


async def test_a_series_has_the_rules_of_its_device_and_of_all_devices(rules: RuleStore, book: RuleBook) -> None:
    both, one = await add(rules, "press", "saw"), await add(rules, "press")
    everywhere, another = await add(rules), await add(rules, "press", owner="bob")
    await book.refresh()
    assert ids(book, "press") == {both.id, one.id, everywhere.id}
    assert ids(book, "saw") == {both.id, everywhere.id}
    assert ids(book, "lathe") == {everywhere.id}
    assert ids(book, "press", "bob") == {another.id}
    assert ids(book, "press", sensor_type="humidity") == set()
    await rules.change(both, definition(devices={"ids": ["lathe"]}), None)
    await rules.remove("ada", one.id)
    before = book.revision
    changed = await book.refresh()
    assert {old.id for old, _ in changed} == {both.id, one.id}
    assert book.revision > before
    assert (ids(book, "press"), ids(book, "lathe")) == ({everywhere.id}, {both.id, everywhere.id})
    revision = book.revision
    assert await book.refresh() == []
    assert book.revision == revision, "nothing has changed, so nobody has to look"


async def test_many_changes_and_removals_come_in_parts_too(rules: RuleStore, book: RuleBook) -> None:
    made = [await add(rules, "press") for _ in range(2 * AT_ONCE)]
    await book.refresh()
    for one in made[1:]:
        await rules.remove("ada", one.id)
    new = [await add(rules, "press") for _ in range(2 * AT_ONCE)]
    assert len(await book.refresh()) == len(made) - 1
    assert ids(book, "press") == {made[0].id, *(one.id for one in new)}


async def test_rows_that_are_gone_without_a_change_are_missed_when_everything_is_read_again(
    rules: RuleStore, book: RuleBook, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await add(rules, "press") for _ in range(2 * AT_ONCE)]
    await book.refresh()
    gone = {one.id for one in made[::2]}
    await change(database_url, delete(alarm_rules).where(alarm_rules.c.id.in_(gone)))
    await book.refresh()
    assert len(ids(book, "press")) == len(made)
    monkeypatch.setattr(book, "_whole_at", 0.0)
    assert {before.id for before, after in await book.refresh() if after is None} == gone
    assert ids(book, "press") == {one.id for one in made} - gone


async def test_silences_are_known_apart(rules: RuleStore, book: RuleBook) -> None:
    await add(rules, "press")
    silence = await add(rules, "press", op="silent")
    await book.refresh()
    assert list(book.silences()) == [("ada", silence.id)]
    await rules.remove("ada", silence.id)
    await book.refresh()
    assert not book.silences()


async def test_a_device_that_gets_another_name_has_the_rules_of_that_name(
    rules: RuleStore, book: RuleBook, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "NAMES_FOR_S", 0.0)
    rule = (await rules.create("ada", definition(devices={"name": "press-*"}), None)).rule
    row = {"owner_id": "ada", "id": "d1", "name": "saw-1", "sensor_type": "t", "location": "{}", "gen": 0}
    await change(database_url, devices.insert().values(row | {"created_at_ms": 0}))
    await book.refresh()
    assert ids(book, "d1") == set()
    assert [one.id for one in book.all()] == [rule.id]
    revision = book.devices_revision
    await book.refresh()
    assert book.devices_revision == revision
    await change(database_url, update(devices).where(devices.c.id == "d1").values(name="press-1"))
    await book.refresh()
    assert ids(book, "d1") == {rule.id}
    assert book.devices_revision > revision


async def test_no_rule_watches_a_deleted_device(rules: RuleStore, book: RuleBook, revocations: Revocations) -> None:
    everywhere, named = await add(rules), await add(rules, "press", "saw")
    await revocations.delete("lathe")
    await book.refresh()
    assert ids(book, "press") == ids(book, "saw") == {everywhere.id, named.id}
    assert ids(book, "lathe") == set()
    revision = book.devices_revision
    await revocations.list.refresh()
    assert book.devices_revision == revision, "nothing has changed, so nobody has to look"
    await revocations.delete("press")
    assert book.devices_revision > revision
    assert (ids(book, "press"), ids(book, "saw")) == (set(), {everywhere.id, named.id})


async def test_persisters_get_the_list_in_parts(rules: RuleStore, book: RuleBook) -> None:
    made = [await add(rules, f"press-{number}") for number in range(2 * AT_ONCE)]
    got: list[Watch] = []
    cursor, parts = None, 0
    while True:
        part = await book.watches_after(cursor)
        assert part.whole is (cursor is None)
        got += part.items
        cursor, parts = part.cursor, parts + 1
        if not part.more:
            break
    assert [(one.rule, one.devices) for one in got] == [
        (one.id, [f"press-{number}"]) for number, one in enumerate(made)
    ]
    assert parts >= 2
    await rules.remove("ada", made[0].id)
    after = await book.watches_after(cursor)
    assert [(one.rule, one.removed) for one in after.items] == [(made[0].id, True)]
    assert (await book.watches_after(after.cursor)).items == []
    assert (await book.watches_after("999")).whole, "a number that this database never gave"
