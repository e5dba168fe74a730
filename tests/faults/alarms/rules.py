"""The rules of a run, and the transitions that a rule has by all stored readings of a series at once.

Written from docs/alarms.md, and not from the code that it judges.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LEVEL, MODE, PULSE = "watched-level", "watched-mode", "watched-pulse"
BOUND, HYSTERESIS, FAULT = 80, 10, "fault"
SILENT_S = 5


@dataclass(frozen=True)
class Stored:
    """A stored reading; times in ms since 1970."""

    ts_ms: int
    seq: int
    value: Any
    received_ms: int = 0

    @property
    def position(self) -> tuple[int, int]:
        """Its place in the series."""
        return self.ts_ms, self.seq


@dataclass(frozen=True)
class RuleOf:
    """A rule for the series of one device: `steady` has its readings announced in order, `loose` and `pulsing` not."""

    device: str
    name: str
    sensor_type: str
    when: dict[str, Any]
    for_s: float = 0
    hysteresis: float = 0
    # Receivers of each change.
    hooks: int = 1

    @property
    def label(self) -> str:
        """Its name within a run."""
        return f"{self.device}-{self.name}"

    @property
    def op(self) -> str:
        """What it compares."""
        return str(self.when["op"])

    @property
    def is_exact(self) -> bool:
        """Whether its transitions are known exactly: no reading of its series comes late."""
        return self.device == "steady"

    @property
    def is_by_itself(self) -> bool:
        """Whether a reading is judged without any other: then it must be within a firing however late it comes."""
        return self.op in ("above", "equals") and not self.for_s

    def holds(self, reading: Stored, previous: Stored | None, *, held: bool) -> bool:
        """Return whether the condition holds at a reading."""
        match self.op:
            case "above":
                return bool(reading.value > self.when["value"] - (self.hysteresis if held else 0))
            case "equals":
                return bool(reading.value == self.when["value"])
            case "changed":
                return previous is not None and reading.value != previous.value
            case "gap":
                return previous is not None and reading.seq > previous.seq + 1
        raise AssertionError(f"no reading brings about {self.op}")

    def transitions(self, readings: Iterable[Stored]) -> list[tuple[int, int, str]]:
        """Return the transitions (time, number, state) that the readings make, one after the other in their order."""
        state, since_ms, previous = "ok", 0, None
        made: list[tuple[int, int, str]] = []
        for reading in sorted(readings, key=lambda one: one.position):
            if self.holds(reading, previous, held=state != "ok"):
                if state == "ok":
                    since_ms = reading.ts_ms
                lasted = reading.ts_ms - since_ms >= self.for_s * 1000
                after = "firing" if state == "firing" or lasted else "pending"
            else:
                after = "ok"
            if after != state:
                state = after
                made.append((*reading.position, state))
            previous = reading
        return made

    def body(self, device: str, urls: list[str]) -> dict[str, Any]:
        """Return the body of `POST /alarms/rules`."""
        return {
            "name": self.label,
            "severity": "critical",
            "devices": {"ids": [device]},
            "sensorType": self.sensor_type,
            "when": self.when,
            "forSeconds": self.for_s,
            "hysteresis": self.hysteresis,
            "notify": [{"kind": "webhook", "url": url} for url in urls] + [{"kind": "feed"}],
            "message": "{device} has {value} at {ts}",
        }


_ABOVE, _EQUALS = {"op": "above", "value": BOUND}, {"op": "equals", "value": FAULT}
RULES = [
    RuleOf("steady", "above", LEVEL, _ABOVE, hooks=2),
    RuleOf("steady", "hysteresis", LEVEL, _ABOVE, hysteresis=HYSTERESIS),
    RuleOf("steady", "for", LEVEL, _ABOVE, for_s=1.5),
    RuleOf("steady", "gap", LEVEL, {"op": "gap"}),
    RuleOf("steady", "equals", MODE, _EQUALS),
    RuleOf("steady", "changed", MODE, {"op": "changed"}),
    RuleOf("loose", "above", LEVEL, _ABOVE),
    RuleOf("loose", "hysteresis", LEVEL, _ABOVE, hysteresis=HYSTERESIS),
    RuleOf("loose", "for", LEVEL, _ABOVE, for_s=1.5),
    RuleOf("loose", "equals", MODE, _EQUALS),
    RuleOf("pulsing", "silent", PULSE, {"op": "silent"}, for_s=SILENT_S),
]
