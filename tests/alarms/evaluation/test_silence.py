"""Silences, by the time that has passed since a gateway received the last reading."""

from typing import Any

from alarms.evaluation.evaluator import Change, Evaluator, Newest
from alarms.evaluation.silence import Silences
from alarms.rules.point import Point
from alarms.rules.rule import Rule
from tests.alarms.evaluation.model import Book
from tests.alarms.making import START_MS, make_rule

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
