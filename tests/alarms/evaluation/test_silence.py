"""Silences, by the time that has passed since a gateway received the last reading."""

from typing import Any

from alarms.evaluation.evaluator import Change, Evaluator, Newest
from alarms.evaluation.reorder import Ordered
from alarms.evaluation.silence import Silences
from alarms.rules.point import Point
from alarms.rules.rule import Rule
from broker.alarms import WatchedReading
from tests.alarms.evaluation.model import Book
from tests.alarms.making import START_MS, make_rule, reading

SERIES = ("ada", "press", "temperature")


def silent(seconds: float, version: int = 1, **changes: Any) -> Rule:
    return make_rule(when={"op": "silent"}, forSeconds=seconds, version=version, **changes)


def by_key(*rules: Rule) -> dict[tuple[str, str], Rule]:
    return {(one.owner, one.id): one for one in rules}


class World:
    """Silences of one rule, and what is known of one series."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.evaluator = Evaluator(Book(rule))  # type: ignore[arg-type]  # stands in for the database's rules
        self.silences = Silences(self.evaluator)
        self.silences.watch_rules(by_key(rule))

    def came(self, at_s: float) -> None:
        """Note a reading that was received then; its device's clock is wrong."""
        received_ms = START_MS + round(at_s * 1000)
        self.evaluator.newest[SERIES] = Newest(Point(START_MS - 3_600_000, 0, 1), received_ms)
        self.silences.seen(SERIES, [self.rule])

    def evaluated(self, *readings: WatchedReading) -> list[Change]:
        changes = list(self.evaluator.evaluate([Ordered(SERIES, None, list(readings))]))
        self.silences.seen(SERIES, [self.rule])
        return changes

    def due(self, at_s: float) -> list[Change]:
        return list(self.silences.due(START_MS + round(at_s * 1000)))


def test_it_counts_from_the_last_reading_and_once() -> None:
    world = World(silent(10))
    world.came(0)
    world.came(5)
    assert world.due(14.999) == []
    (change,) = world.due(15)
    assert (change.cause, change.state.phase, change.ts_ms) == ("silence", "firing", START_MS + 15_000)
    assert world.due(1000) == []


def test_a_device_that_is_named_is_watched_before_its_first_reading() -> None:
    world = World(silent(10, devices={"ids": ["press"]}))
    assert [one.device for one in world.due(10)] == ["press"]


def test_of_all_devices_those_are_watched_of_which_something_has_come() -> None:
    world = World(silent(10))
    assert world.due(1000) == []
    world.came(1000)
    assert [one.device for one in world.due(1010)] == ["press"]


def test_a_shorter_time_counts_at_once_and_a_removed_rule_never() -> None:
    world = World(silent(3600))
    world.came(0)
    world.rule = silent(10, version=2)
    assert world.silences.watch_rules(by_key(world.rule)), "what is known is to be seen again"
    world.silences.seen(SERIES, [world.rule])
    assert [one.ts_ms for one in world.due(10)] == [START_MS + 10_000]
    world.came(20)
    assert not world.silences.watch_rules(by_key())
    assert world.due(10_000) == []
    assert len(world.silences) == 0


def test_a_rule_that_stays_keeps_what_it_watches() -> None:
    world = World(silent(10))
    world.came(0)
    assert not world.silences.watch_rules(by_key(world.rule))
    assert len(world.due(10)) == 1


def test_a_reading_ends_it_when_a_gateway_has_received_it_whatever_its_time_is() -> None:
    world = World(silent(10))
    assert world.evaluated(reading(0, 1)) == []
    assert len(world.due(10)) == 1
    assert world.evaluated(reading(0, 1, received_ms=0)) == [], "it is the one behind which the silence counts"
    late = reading(-86_400_000, 1, received_ms=12_000)
    (end,) = world.evaluated(late, reading(-86_399_000, 1, received_ms=13_000))
    assert (end.cause, end.state.phase, end.ts_ms) == ("reading", "ok", START_MS + 12_000)
    assert end.point is not None
    assert end.point.ts_ms == late.ts_ms
    assert world.due(22.9) == []
    assert [one.ts_ms for one in world.due(23)] == [START_MS + 23_000]


def test_what_is_delivered_again_after_a_restart_ends_no_silence_that_came_behind_it() -> None:
    world = World(silent(10))
    world.evaluated(reading(0, 1))
    world.due(10)
    (alarm,) = world.evaluator.alarms.values()
    again = World(world.rule)
    again.evaluator.alarms[world.rule.id, "press", "temperature"] = alarm
    assert again.evaluated(reading(0, 1)) == []
    assert again.due(100) == [], "it is known to be silent"
    assert len(again.evaluated(reading(1, 1, received_ms=50_000))) == 1
