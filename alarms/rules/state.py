"""The state of one alarm, which a rule has for each series: ok → pending → firing → ok, one reading after the other.

Readings are taken in the order of (ts, seq), each once (alarms/rules/order.py). All times are the readings' own, so the
same readings make the same transitions whenever they arrive: an hour that comes late raises and ends its alarms as of
that hour.
"""

from dataclasses import dataclass
from enum import StrEnum

from alarms.rules.conditions import Condition
from alarms.rules.point import Point
from alarms.rules.schedule import Schedule


class Phase(StrEnum):
    """Where an alarm stands. An acknowledged one is still firing: its owner has seen it."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a rule's alarm fires: a condition that has held for a time, within a schedule.

    A reading outside the schedule counts as one at which the condition does not hold.
    """

    condition: Condition
    for_ms: int = 0
    schedule: Schedule | None = None

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether the condition holds at a reading."""
        if self.schedule is not None and not self.schedule.covers(point.ts_ms):
            return False
        return self.condition.holds(point, previous, held=held)


@dataclass(frozen=True, slots=True)
class State:
    """An alarm's phase, and the time of the reading with which its condition began to hold; None while it is ok."""

    phase: Phase = Phase.OK
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the phase, by a reading."""

    phase: Phase
    point: Point


OK = State()


def advance(trigger: Trigger, state: State, point: Point, previous: Point | None) -> tuple[State, Transition | None]:
    """Return the state after the next reading of the series, and the transition if the phase has changed."""
    held = state.phase is not Phase.OK
    if not trigger.holds(point, previous, held=held):
        return OK, Transition(Phase.OK, point) if held else None
    since_ms = point.ts_ms if state.since_ms is None else state.since_ms
    phase = state.phase
    if phase in (Phase.OK, Phase.PENDING):
        phase = Phase.FIRING if point.ts_ms - since_ms >= trigger.for_ms else Phase.PENDING
    return State(phase, since_ms), None if phase is state.phase else Transition(phase, point)
