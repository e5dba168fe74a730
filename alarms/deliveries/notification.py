"""What is sent of a change of an alarm: JSON as Standard Webhooks proposes, with a type, a time and data."""

from dataclasses import dataclass
from typing import Any

import msgspec

from alarms.rules.message import filled_in
from alarms.rules.rule import Rule
from broker.alarms import AlarmState, Cause
from runtime.times import rfc3339


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change of an alarm as it is in the history: a row's number, times in ms since 1970, and what made it."""

    rule: Rule
    alarm_id: str
    number: int
    state: AlarmState
    cause: Cause
    device: str
    sensor_type: str
    ts_ms: int
    seq: int
    recorded_at_ms: int
    value: Any | None
    unit: str | None
    # Whether anyone is notified of it: pending alarms and those that were never more are not worth a message.
    is_notified: bool

    @property
    def message(self) -> str | None:
        """The owner's text, filled in; None if the rule has none."""
        text = self.rule.definition.message
        if text is None:
            return None
        value = self.value if isinstance(self.value, str) else msgspec.json.encode(self.value).decode()
        if self.value is None:
            value = ""
        values = {"device": self.device, "value": value, "unit": self.unit or "", "ts": rfc3339(self.ts_ms)}
        return filled_in(text, values)


def body_of(recorded: Recorded) -> str:
    """Return the body of a notification, the same at every attempt."""
    definition = recorded.rule.definition
    data = {
        "alarm": recorded.alarm_id,
        "number": recorded.number,
        "state": recorded.state,
        "cause": recorded.cause,
        "rule": {"id": recorded.rule.id, "name": definition.name, "severity": definition.severity},
        "device": recorded.device,
        "sensorType": recorded.sensor_type,
        "ts": rfc3339(recorded.ts_ms),
        "value": recorded.value,
        "unit": recorded.unit,
        "message": recorded.message,
    }
    return _encoded(f"alarm.{recorded.state}", recorded.recorded_at_ms, data)


def digest_of(recorded: Recorded, until_ms: int, states: dict[str, int]) -> str:
    """Return the body of a digest: how often a rule's alarms have changed beyond its bound, until an hour's end."""
    definition = recorded.rule.definition
    data = {
        "rule": {"id": recorded.rule.id, "name": definition.name, "severity": definition.severity},
        "until": rfc3339(until_ms),
        "changes": states,
    }
    return _encoded("alarm.digest", until_ms, data)


def changes_of_digest(body: str) -> dict[str, int]:
    """Return how many changes of each kind a digest counts so far."""
    return msgspec.convert(msgspec.json.decode(body)["data"]["changes"], dict[str, int])


def _encoded(kind: str, time_ms: int, data: dict[str, Any]) -> str:
    return msgspec.json.encode({"type": kind, "timestamp": rfc3339(time_ms), "data": data}).decode()
