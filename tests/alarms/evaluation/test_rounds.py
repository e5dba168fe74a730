"""Rounds of one time of leading: what is evaluated, stored and acknowledged, and when silences count."""

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from alarms.deliveries.notification import Recorded
from alarms.evaluation import evaluation
from alarms.evaluation.evaluation import _Run
from alarms.evaluation.evaluator import Alarm, AlarmKey, Change, Newest
from alarms.evaluation.leader import NotLeaderError
from alarms.evaluation.reorder import point_of
from alarms.metrics import AlarmsMetrics
from alarms.rules.rule import Rule, Series
from alarms.rules.state import Phase, State
from broker.alarms import WatchedReadings
from broker.interface import Delivery
from broker.message import Message
from runtime.times import now_ms
from tests.alarms.evaluation.model import Book
from tests.alarms.making import START_MS, announced, make_rule, reading

SERIES = ("ada", "press", "temperature")


class Rules(Book):
    """Rules that do not change."""

    revision = devices_revision = 0
    knows_deleted = True

    def __init__(self, *rules: Rule) -> None:
        super().__init__(*rules)
        self.unwatched: set[str] = set()

    def __len__(self) -> int:
        return len(self.rules)

    def of_series(self, series: Series) -> tuple[Rule, ...]:
        return () if series[1] in self.unwatched else self.rules

    async def refresh(self) -> list[tuple[Rule, Rule | None]]:
        return []

    def all(self) -> tuple[Rule, ...]:
        return self.rules

    def silences(self) -> dict[tuple[str, str], Rule]:
        return {(one.owner, one.id): one for one in self.rules if one.is_silence}


class Store:
    """A stand-in for the database."""

    def __init__(self) -> None:
        self.newest: dict[Series, Newest] = {}
        self.alarms: dict[AlarmKey, Alarm] = {}
        self.committed: list[Change] = []
        self.saves = 0
        self.leads = True

    async def load(self) -> tuple[dict[AlarmKey, Alarm], dict[Series, Newest]]:
        return deepcopy(self.alarms), deepcopy(self.newest)

    async def outdated(self) -> list[Change]:
        return []

    async def commit(self, changes: Sequence[Change]) -> list[Recorded]:
        self.committed += changes
        return []

    async def save(self, newest: Sequence[tuple[Series, Newest]]) -> None:
        self.saves += 1
        self.newest |= deepcopy(dict(newest))

    def require_leading(self) -> None:
        if not self.leads:
            raise NotLeaderError


class Queue:
    """A stand-in for a consumer."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self.acknowledged: list[int] = []
        self.tag = 0

    def announce(self, *series: WatchedReadings) -> None:
        self.tag += 1
        self.waiting.put_nowait(Delivery(Message(msgspec.json.encode(series), {}), self.tag, 0))

    async def get(self) -> Delivery:
        return await self.waiting.get()

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        assert multiple
        self.acknowledged.append(delivery.tag)
        return True


class World:
    def __init__(self, *rules: Rule, store: Store | None = None) -> None:
        self.store, self.queue = store or Store(), Queue()
        metrics = AlarmsMetrics(CollectorRegistry())
        parts: tuple[Any, ...] = (Rules(*rules), self.store, metrics, lambda _: None)
        self.run = _Run(*parts)

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            await self.run.round(self.queue)  # type: ignore[arg-type]  # stands in for a broker


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ROUND_S", 0.01)


async def test_a_message_is_acknowledged_once_its_readings_are_evaluated_and_stored() -> None:
    world = World(make_rule())
    await world.run.load()
    world.queue.announce(announced(reading(0, 99)))
    await world.rounds(1)
    assert (world.store.committed, world.queue.acknowledged) == ([], [])
    await world.rounds(1)
    assert [one.state.phase for one in world.store.committed] == ["firing"]
    assert world.queue.acknowledged == [1]


async def test_what_rules_compare_with_is_stored_before_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(make_rule(when={"op": "changed"}))
    await world.run.load()
    for tag in range(3):
        world.queue.announce(announced(reading(tag, tag)))
        await world.rounds(2)
    assert world.store.saves == 1
    assert world.queue.acknowledged == [1], "the others wait for the next time"
    world.run._save_at = 0.0
    await world.rounds(1)
    assert (world.store.saves, world.queue.acknowledged) == (2, [1, 3])


async def test_a_process_that_takes_over_knows_which_readings_are_late_and_end_no_alarm() -> None:
    world = World(make_rule())
    await world.run.load()
    world.queue.announce(announced(*(reading(at * 1000, 90) for at in range(1, 6))))
    await world.rounds(2)
    assert world.queue.acknowledged == [1], "so they are not delivered again"
    world.store.alarms = world.run._evaluator.alarms
    another = World(make_rule(), store=world.store)
    await another.run.load()
    another.queue.announce(announced(reading(2500, 70)))
    await another.rounds(2)
    another.queue.announce(announced(reading(6000, 70)))
    await another.rounds(2)
    changes = [(one.state.phase, one.ts_ms - START_MS) for one in world.store.committed]
    assert changes == [("firing", 1000), ("ok", 6000)]


async def test_the_newest_reading_of_a_quiet_series_is_stored_and_nothing_waits_for_it() -> None:
    world = World(make_rule())
    await world.run.load()
    for number in range(120):
        world.queue.announce(announced(reading(1000, 70), device=f"press-{number}"))
    await world.rounds(2)
    assert world.queue.acknowledged == [120]
    await world.rounds(1)
    assert len(world.store.newest) == evaluation.MOVED_AT_ONCE, "more in a second"
    world.run._save_some_at = 0.0
    await world.rounds(1)
    assert len(world.store.newest) == 120


async def test_a_process_past_its_lease_acknowledges_nothing() -> None:
    world = World(make_rule())
    await world.run.load()
    world.queue.announce(announced(reading(0, 1)))
    await world.rounds(1)
    world.store.leads = False
    with pytest.raises(NotLeaderError):
        await world.rounds(1)
    assert world.queue.acknowledged == []


async def test_a_message_that_cannot_be_decoded_is_dropped() -> None:
    world = World(make_rule())
    await world.run.load()
    world.queue.waiting.put_nowait(Delivery(Message(b"[[1]]", {}), 1, 0))
    world.queue.announce(announced(reading(0, 99)))
    world.queue.tag = 2
    await world.rounds(3)
    assert len(world.store.committed) == 1
    assert world.queue.acknowledged


async def test_a_silence_that_began_before_the_process_counts() -> None:
    world = World(make_rule(when={"op": "silent"}, forSeconds=60))
    world.store.newest[SERIES] = Newest(point_of(reading(0, 1)), START_MS)
    await world.run.load()
    await world.rounds(1)
    assert [(one.device, one.cause) for one in world.store.committed] == [("press", "silence")]


async def test_a_silence_counts_while_others_send_without_a_pause() -> None:
    world = World(make_rule(when={"op": "silent"}, forSeconds=60))
    world.store.newest[SERIES] = Newest(point_of(reading(0, 1)), START_MS)
    await world.run.load()
    for number in range(4):
        now = now_ms() - START_MS
        world.queue.announce(announced(reading(now + number, 1), device="other"))
        await world.rounds(1)
    assert [(one.device, one.cause) for one in world.store.committed] == [("press", "silence")]


async def test_a_silence_does_not_count_while_the_queue_may_hold_its_end() -> None:
    world = World(make_rule(when={"op": "silent"}, forSeconds=60))
    world.store.newest[SERIES] = Newest(point_of(reading(0, 1)), START_MS)
    await world.run.load()
    for number in range(4):
        world.queue.announce(announced(reading(5000 + number, 1), device="other"))
        await world.rounds(1)
    assert world.store.committed == []
    now = now_ms() - START_MS
    world.queue.announce(announced(reading(now, 1)))
    await world.rounds(3)
    assert [one.device for one in world.store.committed] == ["other"]


async def test_many_series_are_saved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SAVE_ROWS", 2)
    world = World(make_rule(when={"op": "changed"}))
    await world.run.load()
    world.queue.announce(*(announced(reading(0, 1), device=f"press-{number}") for number in range(5)))
    await world.rounds(2)
    assert world.store.saves == 3
    assert world.queue.acknowledged == [1]


async def test_an_alarm_of_a_device_that_its_rule_does_not_watch_any_more_ends() -> None:
    store = Store()
    rule = make_rule()
    store.alarms = {(rule.id, device, "temperature"): Alarm(State(Phase.FIRING, 1), (1, 0)) for device in "ab"}
    world = World(rule, store=store)
    await world.run.load()
    book = cast("Rules", world.run._book)
    await world.rounds(1)
    assert store.committed == []
    book.unwatched.add("b")
    book.devices_revision += 1
    world.run._rules_at = 0
    await world.rounds(1)
    assert [(one.device, one.state.phase, one.cause) for one in store.committed] == [("b", "ok", "rule")]
    assert [key[1] for key in world.run._evaluator.alarms] == ["a"]


async def test_a_device_that_is_deleted_is_not_silent_and_nothing_of_it_stays_in_memory() -> None:
    world = World(make_rule(when={"op": "silent"}, forSeconds=1))
    store = world.store
    await world.run.load()
    for device in ("a", "b"):
        world.queue.announce(announced(reading(0, 1, received_ms=now_ms() - START_MS), device=device))
    await world.rounds(3)
    cast("Rules", world.run._book).unwatched.add("b")
    await until_committed(world, 1)
    assert [(one.device, one.cause) for one in store.committed] == [("a", "silence")]
    world.run.forget_unwatched()
    assert [series[1] for series in world.run._evaluator.newest] == ["a"]


async def test_a_silence_does_not_count_before_it_is_known_which_devices_are_deleted() -> None:
    world = World(make_rule(when={"op": "silent"}, forSeconds=1, devices={"ids": ["press"]}))
    book = cast("Rules", world.run._book)
    book.knows_deleted = False
    await world.run.load()
    await world.rounds(5)
    assert world.store.committed == []
    book.knows_deleted = True
    await until_committed(world, 1)
    assert [one.cause for one in world.store.committed] == ["silence"]


async def until_committed(world: World, count: int) -> None:
    async with asyncio.timeout(10):
        while len(world.store.committed) < count:
            await world.rounds(1)
    await world.rounds(3)
