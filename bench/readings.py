"""The readings of all benchmarks: an ordinary sensor, 85 bytes of JSON, or one with a location."""

import json
import random
import time
from typing import Any

HIGH_LAPS = 5


def reading(number: int, now_ms: int, *, placed: bool = False, sensors: int = 1) -> dict[str, Any]:
    """Return reading `number`, of one of `sensors` sensors. With `placed`, location and tags: about 135 bytes."""
    value = round(21.5 + random.gauss(0, 3), 6)
    sensor = "temperature" if sensors == 1 else f"temperature-{number % sensors}"
    sent: dict[str, Any] = {"sensorType": sensor, "value": value, "ts": now_ms, "seq": number}
    if placed:
        return sent | {"location": {"lat": 52.52, "lon": 13.405}, "tags": {"room": "a12"}}
    return sent | {"unit": "celsius"}


def crossing(sensors: int, laps: int, share: float, ts_ms: int) -> list[bytes]:
    """Return events of one reading for `laps` laps of all sensors: 20, and now and then 90 for some laps.

    `share` of the readings are the first of either kind.
    """
    rng, high_until, events = random.Random(1), [0] * sensors, []
    for number in range(sensors * laps):
        lap, sensor = divmod(number, sensors)
        if lap >= high_until[sensor] and rng.random() < share / 2:
            high_until[sensor] = lap + HIGH_LAPS
        sent = reading(number, ts_ms, sensors=sensors) | {"value": 90.0 if lap < high_until[sensor] else 20.0}
        events.append(compact(["reading", sent]))
    return events


def event(size: int, number: int, ts_ms: int | None = None, *, placed: bool = False, sensors: int = 1) -> bytes:
    """Return the JSON array of an event of `size` readings: `reading` for one, `readings` for more."""
    ts_ms = time.time_ns() // 1_000_000 if ts_ms is None else ts_ms
    if size == 1:
        return compact(["reading", reading(number, ts_ms, placed=placed, sensors=sensors)])
    readings = [reading(number * size + offset, ts_ms, placed=placed, sensors=sensors) for offset in range(size)]
    return compact(["readings", readings])


def compact(value: Any) -> bytes:
    """Return JSON without spaces, as devices send it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
