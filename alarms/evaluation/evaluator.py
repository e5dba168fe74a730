"""From readings in their order to changes of alarms, in memory. What it returns is to be stored before it goes on.

Each reading is evaluated once, by its position: one that is not behind the newest of its series is a repeat, or late.
A late one, at which a condition holds that needs no other reading, is an alarm of its own, which fires and ends at that
time; unless an alarm was firing then anyway. Everything else that is late changes nothing, but that it ends a silence:
silences go by when a gateway received something, not by what the device's clock said.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from alarms.evaluation.reorder import Ordered, point_of
from alarms.rules.book import RuleBook
from alarms.rules.conditions import Above, Below, Equals, Outside
from alarms.rules.point import Point
from alarms.rules.rule import Rule, Series
from alarms.rules.state import OK, Phase, State, Trigger, advance
from broker.alarms import Cause, WatchedReading
from readings.keys import Position

NOWHERE: Position = (-1, -1)
_WITHOUT_OTHERS = (Above, Below, Outside, Equals)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one alarm: its new state, and why. `point` is None where no reading is the cause.

    `position`: of its reading, up to which readings are evaluated; `newest`: the same for a late one, which is in front
    of it. `ts_ms`: as of when it has changed, in ms since 1970.
    """

    rule: Rule
    device: str
    sensor_type: str
    state: State
    cause: Cause
    position: Position
    ts_ms: int
    point: Point | None = None
    unit: str | None = None
    newest: Position = NOWHERE


@dataclass(slots=True)
class Alarm:
    """What is known of one alarm: its state, and the position of the reading that made its newest transition.

    Of a silence, the position is the time at which a gateway received the last reading that counts.
    """

    state: State = OK
    position: Position = NOWHERE


@dataclass(slots=True)
class Newest:
    """The newest evaluated reading of a series, and when a gateway received the last one, in ms since 1970."""

    point: Point
    received_ms: int


AlarmKey = tuple[str, str, str]
"""Rule, device, sensorType."""


class Evaluator:
    """The alarms of all owners, as of the readings evaluated so far."""

    def __init__(self, book: RuleBook) -> None:
        self._book = book
        self.alarms: dict[AlarmKey, Alarm] = {}
        self.newest: dict[Series, Newest] = {}
        # Series whose newest reading has to be stored: after a restart rules compare with it, and know by it which
        # readings are late and end no alarm.
        self.unsaved: set[Series] = set()
        # Those whose newest reading is stored as soon as there is time.
        self.moved: set[Series] = set()
        self.evaluated = self.late = 0

    def evaluate(self, ordered: Iterable[Ordered]) -> Iterator[Change]:
        """Evaluate readings; yield the changes in their order."""
        for group in ordered:
            rules = self._book.of_series(group.series)
            if rules:
                yield from self._end_silences(group, rules)
                yield from self._evaluate(group, rules)
                (self.unsaved if self._is_needed(group.series, rules) else self.moved).add(group.series)
            else:
                self.newest.pop(group.series, None)

    def _evaluate(self, group: Ordered, rules: Sequence[Rule]) -> Iterator[Change]:
        newest = self.newest.get(group.series)
        before = NOWHERE
        for reading in group.readings:
            position = reading.ts_ms, reading.seq
            if position == before:
                continue
            before = position
            if newest is not None and position <= newest.point.position:
                newest.received_ms = max(newest.received_ms, reading.received_ms)
                if position != newest.point.position:
                    self.late += 1
                    for rule in rules:
                        yield from self._late(group, rule, point_of(reading), newest.point.position)
                continue
            self.evaluated += 1
            point = point_of(reading)
            previous = None if newest is None else newest.point
            for rule in rules:
                if rule.trigger is not None:
                    yield from self._next(group, rule, rule.trigger, point, previous)
            newest = self._remember(group.series, newest, point, reading)

    def _is_needed(self, series: Series, rules: Sequence[Rule]) -> bool:
        """Return whether a rule compares with the newest reading of a series, or has an alarm there that is not ok."""
        _, device, sensor_type = series
        for rule in rules:
            alarm = self.alarms.get((rule.id, device, sensor_type))
            if rule.needs_previous or (alarm is not None and alarm.state.phase is not Phase.OK):
                return True
        return False

    def _remember(self, series: Series, newest: Newest | None, point: Point, reading: WatchedReading) -> Newest:
        if newest is None:
            newest = self.newest[series] = Newest(point, reading.received_ms)
        newest.point, newest.received_ms = point, max(newest.received_ms, reading.received_ms)
        return newest

    def _end_silences(self, group: Ordered, rules: Sequence[Rule]) -> Iterator[Change]:
        _, device, sensor_type = group.series
        for rule in rules:
            alarm = self.alarms.get((rule.id, device, sensor_type)) if rule.is_silence else None
            if alarm is None or alarm.state.phase is Phase.OK:
                continue
            after = [one for one in group.readings if one.received_ms > alarm.position[0]]
            if after:
                first = min(after, key=lambda one: one.received_ms)
                alarm.state, alarm.position = OK, (first.received_ms, 0)
                position, ts_ms = alarm.position, first.received_ms
                yield Change(rule, device, sensor_type, OK, "reading", position, ts_ms, point_of(first), group.unit)

    def _next(
        self, group: Ordered, rule: Rule, trigger: Trigger, point: Point, previous: Point | None
    ) -> Iterable[Change]:
        """Return the change that a reading makes: mostly none, so this is no generator."""
        _, device, sensor_type = group.series
        alarm = self.alarms.get((rule.id, device, sensor_type))
        position = point.position
        if alarm is not None and position <= alarm.position:
            # Evaluated before this process began, or late: what is stored tells.
            return self._late(group, rule, point, alarm.position)
        before = OK if alarm is None else alarm.state
        state, transition = advance(trigger, before, point, previous)
        if transition is None:
            return ()
        if alarm is None:
            alarm = self.alarms[rule.id, device, sensor_type] = Alarm()
        alarm.state, alarm.position = state, position
        return (Change(rule, device, sensor_type, state, "reading", position, point.ts_ms, point, group.unit),)

    def _late(self, group: Ordered, rule: Rule, point: Point, newest: Position) -> Iterator[Change]:
        _, device, sensor_type = group.series
        trigger = rule.trigger
        if trigger is None or trigger.for_ms or not isinstance(trigger.condition, _WITHOUT_OTHERS):
            return
        alarm = self.alarms.get((rule.id, device, sensor_type))
        since_ms = None if alarm is None else alarm.state.since_ms
        if since_ms is not None and since_ms <= point.ts_ms:
            return  # it has been firing since before
        if trigger.holds(point, None, held=False):
            state = State(Phase.FIRING, point.ts_ms)
            position, ts_ms = point.position, point.ts_ms
            yield Change(rule, device, sensor_type, state, "late", position, ts_ms, point, group.unit, newest)

    def watches(self, rule: Rule, device: str) -> bool:
        """Return whether a rule watches a device, which may be deleted, or have another name, by now."""
        series = (rule.owner, device, rule.definition.sensor_type)
        return any(one.id == rule.id for one in self._book.of_series(series))

    def silent(self, rule: Rule, device: str, last_ms: int, since_ms: int) -> Change | None:
        """Return the change that a silence makes; None if it is known.

        `last_ms`: when the last reading was received, `since_ms`: when the silence began to count.
        """
        sensor_type = rule.definition.sensor_type
        alarm = self.alarms.setdefault((rule.id, device, sensor_type), Alarm())
        if alarm.state.phase is not Phase.OK:
            return None
        alarm.state, alarm.position = State(Phase.FIRING, since_ms), (last_ms, 0)
        return Change(rule, device, sensor_type, alarm.state, "silence", alarm.position, since_ms)

    def end_of(self, rules: Iterable[Rule], now_ms: int) -> list[Change]:
        """Return the ends of the alarms of rules that are removed, or watch something else."""
        by_id = {rule.id: rule for rule in rules}
        ended = []
        for key in [key for key in self.alarms if key[0] in by_id] if by_id else ():
            rule_id = key[0]
            alarm = self.alarms.pop(key)
            if alarm.state.phase is not Phase.OK:
                ended.append(_end(by_id[rule_id], key, alarm, now_ms))
        return ended

    def end_of_unwatched(self, rules: Iterable[Rule], now_ms: int) -> list[Change]:
        """Return the ends of alarms of devices that these rules do not watch any more: renamed, or deleted."""
        by_id = {rule.id: rule for rule in rules}
        over = [
            key
            for key, alarm in self.alarms.items()
            if alarm.state.phase is not Phase.OK and key[0] in by_id and not self.watches(by_id[key[0]], key[1])
        ]
        return [_end(by_id[key[0]], key, self.alarms.pop(key), now_ms) for key in over]

    def forget_unwatched(self) -> None:
        """Forget the newest readings of series that no rule watches any more."""
        for series in [one for one in self.newest if not self._book.of_series(one)]:
            del self.newest[series]


def _end(rule: Rule, key: AlarmKey, alarm: Alarm, now_ms: int) -> Change:
    return Change(rule, key[1], key[2], OK, "rule", alarm.position, now_ms)
