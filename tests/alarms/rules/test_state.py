"""An alarm's phases: ok, pending, firing, and ok again."""

from typing import Any

from alarms.rules.point import Point
from alarms.rules.state import OK, Phase, advance
from readings.reading import Value
from tests.alarms.making import make_rule


def transitions(*readings: tuple[float, Value], **changes: Any) -> list[tuple[float, str]]:
    """Return the time and phase of each transition that readings make, their times in seconds."""
    trigger = make_rule(**changes).trigger
    assert trigger is not None
    state, previous, found = OK, None, []
    for seconds, value in readings:
        point = Point(round(seconds * 1000), 0, value)
        state, transition = advance(trigger, state, point, previous)
        previous = point
        if transition is not None:
            assert transition.phase is state.phase
            found.append((transition.point.ts_ms / 1000, transition.phase.value))
    return found


def test_it_fires_with_the_reading_and_ends_with_one() -> None:
    assert transitions((1, 70), (2, 81), (3, 99), (4, 80), (5, 70)) == [(2, "firing"), (4, "ok")]


def test_for_seconds_it_is_pending_and_fires_with_the_first_reading_behind_them() -> None:
    readings = ((0, 81), (9.999, 81), (10, 81), (11, 81), (12, 1))
    assert transitions(*readings, forSeconds=10) == [(0, "pending"), (10, "firing"), (12, "ok")]


def test_a_condition_that_ends_too_early_was_only_pending() -> None:
    readings = ((0, 81), (9, 1), (10, 81), (19, 81), (20, 81))
    assert transitions(*readings, forSeconds=10) == [(0, "pending"), (9, "ok"), (10, "pending"), (20, "firing")]


def test_hysteresis_holds_while_pending_as_well() -> None:
    readings = ((0, 81), (5, 79), (10, 79), (11, 78))
    assert transitions(*readings, forSeconds=10, hysteresis=2) == [(0, "pending"), (10, "firing"), (11, "ok")]


def test_a_reading_outside_the_schedule_ends_it() -> None:
    hours = {"zone": "Etc/UTC", "days": ["thu"], "from": "00:10", "to": "00:20"}  # 1970-01-01 was a Thursday
    readings = ((500, 99), (600, 99), (1199, 99), (1200, 99), (1300, 99))
    assert transitions(*readings, schedule=hours) == [(600, "firing"), (1200, "ok")]
    assert transitions(*readings, schedule=hours, forSeconds=600) == [(600, "pending"), (1200, "ok")]


def test_since_when_it_holds_is_kept_until_it_ends() -> None:
    trigger = make_rule(forSeconds=1).trigger
    assert trigger is not None
    state, _ = advance(trigger, OK, Point(5, 0, 81), None)
    state, _ = advance(trigger, state, Point(2000, 0, 81), None)
    assert (state.phase, state.since_ms) == (Phase.FIRING, 5)
    assert advance(trigger, state, Point(3000, 0, 1), None)[0] == OK
