"""Evaluation and reordering, against a model that sees all readings at once."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alarms.evaluation.evaluator import Alarm
from alarms.rules.rule import Rule
from alarms.rules.state import OK
from broker.alarms import WatchedReading
from tests.alarms.evaluation.model import World, modelled
from tests.alarms.making import START_MS, announced, make_rule, reading

RULES: list[dict[str, Any]] = [
    {"when": {"op": "above", "value": 5}},
    {"when": {"op": "above", "value": 5}, "hysteresis": 2},
    {"when": {"op": "above", "value": 5}, "forSeconds": 0.004},
    {"when": {"op": "below", "value": 5}, "hysteresis": 1, "forSeconds": 0.002},
    {"when": {"op": "outside", "low": 3, "high": 6}},
    {"when": {"op": "equals", "value": 7}},
    {"when": {"op": "changed"}},
    {"when": {"op": "rate", "value": 500, "perSeconds": 1}},
    {"when": {"op": "gap"}},
]
STATELESS = [one for one in RULES if one["when"]["op"] in ("above", "outside", "equals") and "forSeconds" not in one]
DEVICES = ("a", "b", "c")


def readings_of(rng: random.Random) -> list[WatchedReading]:
    """Draw a series: its readings in their order, some at the same time."""
    ts_ms, found = 0, []
    for seq in range(rng.randint(1, 20)):
        ts_ms += rng.randint(0, 3)
        found.append(reading(ts_ms, rng.randint(0, 9), seq + rng.choice([0, 0, 0, 100])))
    return sorted(found, key=lambda one: (one.ts_ms, one.seq))


def arrivals(seed: int, *, late: bool) -> list[list[tuple[str, WatchedReading]]]:
    """Draw the rounds in which readings of several series are announced.

    Within a round they come in any order, and a reading may come a round after ones behind it; some come again, at any
    time. With `late`, some of them come for the first time long after those behind them.
    """
    rng = random.Random(seed)
    rounds: list[list[tuple[str, WatchedReading]]] = []
    for device in DEVICES:
        number = 0
        for one in readings_of(rng):
            number += rng.choice([0, 0, 0, 1, 2])
            arrives = number + (rng.choice([0, 0, 0, 3, 6]) if late else 0)
            for at in (arrives, *(rng.randint(arrives, arrives + 4) for _ in range(rng.choice([0, 0, 1, 2])))):
                rounds += [[] for _ in range(at + 1 - len(rounds))]
                rounds[at].append((device, one))
    for found in rounds:
        rng.shuffle(found)
    return rounds


def evaluated(rule: Rule, rounds: list[list[tuple[str, WatchedReading]]]) -> World:
    world = World(rule)
    for one in [*rounds, [], []]:
        world.round(*(announced(found, device=device) for device, found in one))
    return world


@pytest.mark.parametrize("given_rule", RULES, ids=str)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_readings_in_any_order_within_a_round_make_the_transitions_of_their_order(
    given_rule: dict[str, Any], seed: int
) -> None:
    rule, rounds = make_rule(**given_rule), arrivals(seed, late=False)
    world = evaluated(rule, rounds)
    for device in DEVICES:
        mine = [found for one in rounds for name, found in one if name == device]
        assert world.transitions(device) == modelled(rule, mine)


@pytest.mark.parametrize("given_rule", STATELESS, ids=str)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_reading_at_which_it_holds_is_within_an_alarm_however_late_it_came(
    given_rule: dict[str, Any], seed: int
) -> None:
    rule, rounds = make_rule(**given_rule), arrivals(seed, late=True)
    assert rule.trigger is not None
    world = evaluated(rule, rounds)
    for device in DEVICES:
        mine = [found for one in rounds for name, found in one if name == device]
        for phases in zip(world.transitions(device), world.transitions(device)[1:], strict=False):
            assert phases[0][2] != phases[1][2], "each transition once"
        for one in mine:
            if modelled(rule, [one]):
                assert world.is_firing_at(device, (one.ts_ms, one.seq)), one


def test_a_late_reading_is_an_alarm_of_its_own_unless_one_was_firing_then() -> None:
    world = World(make_rule())
    world.round(announced(reading(1000, 70), reading(3000, 90), reading(5000, 70)))
    world.round()
    world.round(announced(reading(2000, 99), reading(4000, 99), reading(4500, 10)))
    world.round()
    assert world.transitions("press", "late")[0] == (START_MS + 2000, 0, "firing")
    assert world.transitions("press") == [(START_MS + 3000, 0, "firing"), (START_MS + 5000, 0, "ok")]


def test_a_late_reading_that_is_repeated_in_its_round_is_one_alarm() -> None:
    world = World(make_rule())
    world.round(announced(reading(5000, 70)))
    world.round()
    world.round(announced(reading(2000, 99)), announced(reading(2000, 99)))
    world.round()
    assert world.transitions("press", "late") == [(START_MS + 2000, 0, "firing")]


def test_a_reading_that_is_late_for_a_process_that_has_just_begun_is_an_alarm_of_its_own() -> None:
    world = World(make_rule())
    position = (START_MS + 5000, 0)
    world.evaluator.alarms["rule-1", "press", "temperature"] = Alarm(OK, position)
    world.round(announced(reading(2000, 99), reading(2500, 10), reading(5000, 70), reading(6000, 81)))
    world.round()
    assert world.transitions("press", "late") == [(START_MS + 2000, 0, "firing")]
    assert world.transitions("press") == [(START_MS + 6000, 0, "firing")]


@pytest.mark.parametrize("changes", [{"when": {"op": "changed"}}, {"forSeconds": 1}, {"when": {"op": "gap"}}], ids=str)
def test_what_needs_other_readings_is_not_decided_late(changes: dict[str, Any]) -> None:
    world = World(make_rule(**changes))
    world.round(announced(reading(5000, 70, 1)))
    world.round()
    world.round(announced(reading(2000, 99, 9)))
    world.round()
    assert world.changes == []


def test_a_reading_at_the_time_of_another_is_not_late_by_its_number() -> None:
    world = World(make_rule())
    world.round(announced(reading(1000, 70, 1)))
    world.round()
    world.round(announced(reading(1000, 99, 2)))
    world.round()
    assert world.transitions("press") == [(START_MS + 1000, 2, "firing")]


def test_the_end_of_a_rule_ends_its_alarms_once() -> None:
    rule = make_rule()
    world = World(rule)
    world.round(announced(reading(1000, 99)), announced(reading(1000, 10), device="other"))
    world.round()
    ended = world.evaluator.end_of([rule], START_MS + 9000)
    assert [(one.device, one.state.phase, one.cause, one.ts_ms) for one in ended] == [
        ("press", "ok", "rule", START_MS + 9000)
    ]
    assert world.evaluator.end_of([rule], START_MS + 9000) == []


def test_a_late_reading_that_comes_first_after_a_restart_is_late_all_the_same() -> None:
    world = World(make_rule())
    world.round(announced(reading(1000, 70), reading(3000, 90), reading(5000, 70)))
    world.round()
    after = World(world.rule)
    after.evaluator.alarms = world.evaluator.alarms
    after.round(announced(reading(2000, 99), reading(4000, 99)))
    after.round()
    assert after.transitions("press") == []
    assert (START_MS + 2000, 0, "firing") in after.transitions("press", "late")
