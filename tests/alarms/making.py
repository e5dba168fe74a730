"""Rules, readings and announcements as tests need them."""

from typing import Any

from alarms.rules.definition import RuleDefinition, checked_definition
from alarms.rules.rule import Rule, rule_of
from broker.alarms import WatchedReading, WatchedReadings
from readings.reading import Value

START_MS = 1_700_000_000_000
GIVEN = {"name": "hot", "devices": "all", "sensorType": "temperature", "when": {"op": "above", "value": 80}}


def definition(**changes: Any) -> RuleDefinition:
    """Return a checked definition; fields as JSON has them."""
    return checked_definition(GIVEN | changes)


def make_rule(*, owner: str = "ada", rule_id: str = "rule-1", version: int = 1, **changes: Any) -> Rule:
    return rule_of(owner, rule_id, version, START_MS, definition(**changes))


def reading(ts_ms: int, value: Value, seq: int = 0, received_ms: int | None = None) -> WatchedReading:
    """Return an announced reading; `ts_ms` counts from the start of the tests' time."""
    return WatchedReading(START_MS + ts_ms, seq, value, START_MS + (ts_ms if received_ms is None else received_ms))


def announced(
    *readings: WatchedReading, owner: str = "ada", device: str = "press", sensor_type: str = "temperature"
) -> WatchedReadings:
    return WatchedReadings(owner, device, sensor_type, "Cel", list(readings))
