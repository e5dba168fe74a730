"""Each operation of `when`: at which readings it holds."""

from typing import Any

import pytest

from alarms.rules.conditions import Condition, Gap, Rate
from alarms.rules.point import Point
from readings.reading import GENERATED_SEQ_START, Value
from tests.alarms.making import make_rule


def condition(hysteresis: float = 0, **when: Any) -> Condition:
    rule = make_rule(when=when, hysteresis=hysteresis)
    assert rule.trigger is not None
    return rule.trigger.condition


def held_at(condition: Condition, *values: Value) -> list[bool]:
    """Return whether it holds at each of these values, a second apart."""
    held, previous, found = False, None, []
    for index, value in enumerate(values):
        point = Point(index * 1000, index, value)
        held = condition.holds(point, previous, held=held)
        found.append(held)
        previous = point
    return found


@pytest.mark.parametrize(
    ("when", "values", "held"),
    [
        ({"op": "above", "value": 80}, (80, 80.1, 81, 80), [False, True, True, False]),
        ({"op": "below", "value": -5}, (-5, -5.1, -6, -5), [False, True, True, False]),
        ({"op": "outside", "low": 1, "high": 3}, (1, 3, 0.9, 3.1, 2), [False, False, True, True, False]),
        ({"op": "equals", "value": "open"}, ("open", "Open", "open"), [True, False, True]),
        ({"op": "equals", "value": 1}, (1, 1.0, True, 2), [True, True, False, False]),
        ({"op": "equals", "value": True}, (True, 1, False), [True, False, False]),
        ({"op": "changed"}, (1, 1.0, True, True, "1", "1"), [False, False, True, False, True, False]),
        ({"op": "rate", "value": 2, "perSeconds": 1}, (0, 2, 4.5, 1, 1), [False, False, True, True, False]),
        ({"op": "rate", "value": 120, "perSeconds": 60}, (0, 2, 4.5), [False, False, True]),
    ],
    ids=str,
)
def test_an_operation_holds_at(when: dict[str, Any], values: tuple[Value, ...], held: list[bool]) -> None:
    assert held_at(condition(**when), *values) == held


@pytest.mark.parametrize(
    ("when", "values", "held"),
    [
        ({"op": "above", "value": 80}, (80, 81, 79, 78.1, 78, 79), [False, True, True, True, False, False]),
        ({"op": "below", "value": 10}, (10, 9, 11, 11.9, 12, 11), [False, True, True, True, False, False]),
        (
            {"op": "outside", "low": 0, "high": 9},
            (10, 8, 7, 8, -1, 1, 2),
            [True, True, False, False, True, True, False],
        ),
    ],
    ids=str,
)
def test_with_hysteresis_it_ends_later_than_it_begins(
    when: dict[str, Any], values: tuple[Value, ...], held: list[bool]
) -> None:
    assert held_at(condition(2, **when), *values) == held


@pytest.mark.parametrize(
    "when",
    [
        {"op": "above", "value": -1},
        {"op": "below", "value": 5},
        {"op": "outside", "low": 5, "high": 6},
        {"op": "rate", "value": 0, "perSeconds": 1},
    ],
    ids=str,
)
def test_booleans_and_texts_have_no_bounds(when: dict[str, Any]) -> None:
    assert held_at(condition(**when), True, False, "0", "999") == [False] * 4


def test_a_text_between_numbers_has_no_rate_and_neither_has_the_number_behind_it() -> None:
    assert held_at(Rate(1, 1), 0, 5, "off", 10, 20) == [False, True, False, False, True]


@pytest.mark.parametrize("held", [True, False])
def test_the_second_of_two_readings_at_one_time_changes_nothing_about_a_rate(held: bool) -> None:
    assert Rate(1, 1).holds(Point(1000, 2, 99), Point(1000, 1, 0), held=held) is held


def test_a_gap_is_a_missing_number_and_a_fall_of_numbers_is_a_new_count() -> None:
    seqs = [5, 6, 8, 9, 0, 1, 3, GENERATED_SEQ_START + 7, 9, 10]
    points = [Point(index, seq, 1) for index, seq in enumerate(seqs)]
    found = [Gap().holds(one, before, held=False) for before, one in zip([None, *points], points, strict=False)]
    assert found == [False, False, True, False, False, False, True, False, False, False]
