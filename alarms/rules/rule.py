"""A rule, ready to be evaluated."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from msgspec import UNSET

from alarms.rules.conditions import Above, Below, Changed, Condition, Equals, Gap, Outside, Rate
from alarms.rules.definition import Op, RuleDefinition, When
from alarms.rules.schedule import Schedule, minute_of
from alarms.rules.state import Trigger
from readings.reading import Value

Series = tuple[str, str, str]
"""Owner, device, sensorType."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of one owner. `trigger` is None for silence, which no reading brings about."""

    owner: str
    id: str
    version: int
    created_at_ms: int
    definition: RuleDefinition
    trigger: Trigger | None
    # The devices by id; None: all whose name `named` accepts.
    ids: frozenset[str] | None
    named: re.Pattern[str] | None
    # Whether its condition compares a reading with the one before, or with none at all.
    needs_previous: bool

    @property
    def is_silence(self) -> bool:
        """Whether it watches for readings that do not come."""
        return self.trigger is None

    @property
    def for_ms(self) -> int:
        """How long its condition has to hold, or a silence to last, in milliseconds."""
        return round(self.definition.for_seconds * 1000)

    def watches(self, device: str, device_name: str) -> bool:
        """Return whether it watches a device of its owner, by id and by name."""
        if self.ids is not None:
            return device in self.ids
        return self.named is None or self.named.fullmatch(device_name) is not None


def rule_of(owner: str, rule_id: str, version: int, created_at_ms: int, definition: RuleDefinition) -> Rule:
    """Return the rule of a checked definition."""
    ids, named = None, None
    if not isinstance(definition.devices, str):
        if definition.devices.ids is not UNSET:
            ids = frozenset(definition.devices.ids)
        elif definition.devices.name is not UNSET:
            named = pattern_of(definition.devices.name)
    needs_previous = definition.when.op in ("changed", "rate", "gap", "silent")
    trigger = trigger_of(definition)
    return Rule(owner, rule_id, version, created_at_ms, definition, trigger, ids, named, needs_previous)


def trigger_of(definition: RuleDefinition) -> Trigger | None:
    """Return when the alarms of a definition fire; None for silence."""
    hours, schedule = definition.schedule, None
    if hours is not None:
        schedule = Schedule.of(hours.zone, hours.days, minute_of(hours.from_), minute_of(hours.to))
    condition = _condition(definition.when, definition.hysteresis)
    return None if condition is None else Trigger(condition, round(definition.for_seconds * 1000), schedule)


def pattern_of(name: str) -> re.Pattern[str]:
    """Return what a name with `*` for any characters matches."""
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", name))))


def _condition(when: When, hysteresis: float) -> Condition | None:
    """Return the condition of a checked definition; None for silence."""
    number, low, high = cast("float", when.value), cast("float", when.low), cast("float", when.high)
    conditions: dict[Op, Callable[[], Condition]] = {
        "above": lambda: Above(number, hysteresis),
        "below": lambda: Below(number, hysteresis),
        "outside": lambda: Outside(low, high, hysteresis),
        "equals": lambda: Equals(cast("Value", when.value)),
        "changed": Changed,
        "rate": lambda: Rate(number, cast("float", when.per_seconds)),
        "gap": Gap,
    }
    return None if when.op == "silent" else conditions[when.op]()
