"""A simple model of what alarms there must be: all stored readings at once, in their order."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from alarms.evaluation.evaluator import Change, Evaluator
from alarms.evaluation.reorder import Reorder
from alarms.rules.point import Point
from alarms.rules.rule import Rule, Series
from alarms.rules.state import OK, Phase, advance
from broker.alarms import WatchedReading, WatchedReadings


class Book:
    """The same rules for every series."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules

    def of_series(self, series: Series) -> tuple[Rule, ...]:
        return self.rules


def modelled(rule: Rule, readings: Iterable[WatchedReading]) -> list[tuple[int, int, str]]:
    """Return the transitions (time, number, phase) that a series makes, each of its readings once and in order."""
    assert rule.trigger is not None
    points = sorted({(one.ts_ms, one.seq): Point(one.ts_ms, one.seq, one.value) for one in readings}.values())
    state, previous, found = OK, None, []
    for point in points:
        state, transition = advance(rule.trigger, state, point, previous)
        previous = point
        if transition is not None:
            found.append((*point.position, transition.phase.value))
    return found


@dataclass
class World:
    """What is evaluated, in rounds, and the changes so far."""

    rule: Rule
    evaluator: Evaluator = field(init=False)
    reorder: Reorder = field(default_factory=Reorder)
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(Book(self.rule))  # type: ignore[arg-type]  # stands in for the database's rules

    def round(self, *announced: WatchedReadings) -> None:
        """Take announcements, and end the round."""
        for one in announced:
            self.reorder.add(one)
        self.changes += self.evaluator.evaluate(self.reorder.next_round())

    def transitions(self, device: str, cause: str = "reading") -> list[tuple[int, int, str]]:
        """Return the changes of a series' alarm by a cause."""
        mine = [one for one in self.changes if one.device == device and one.cause == cause]
        return [(*one.position, one.state.phase.value) for one in mine]

    def is_firing_at(self, device: str, position: tuple[int, int]) -> bool:
        """Return whether the alarm of a series was firing at a reading, by its changes or by one that came late."""
        phase = Phase.OK.value
        for ts_ms, seq, changed in sorted(self.transitions(device)):
            if (ts_ms, seq) <= position:
                phase = changed
        late = {(ts_ms, seq) for ts_ms, seq, _ in self.transitions(device, "late")}
        since = {ts_ms for ts_ms, _, changed in self.transitions(device) if changed == Phase.FIRING.value}
        return phase == Phase.FIRING.value or position in late or position[0] in since
