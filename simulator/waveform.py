"""Plausible values of a sensor: a daily course, a slow drift and noise, the same for the same seed."""

import math
import random
from dataclasses import dataclass

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Course:
    """How a kind of sensor behaves: its unit and middle, how far a day takes it, its drift, its noise, its bounds."""

    unit: str
    middle: float
    daily: float
    drift: float
    noise: float
    least: float = -math.inf
    most: float = math.inf


COURSES = {
    "temperature": Course("°C", 21.0, 4.0, 2.0, 0.05, -40.0, 85.0),
    "humidity": Course("%", 50.0, 10.0, 8.0, 0.3, 0.0, 100.0),
    "pressure": Course("hPa", 1013.0, 1.5, 10.0, 0.08, 870.0, 1085.0),
    "vibration": Course("mm/s", 2.0, 0.6, 0.8, 0.4, 0.0),
    "co2": Course("ppm", 600.0, 200.0, 100.0, 6.0, 350.0),
    "power": Course("W", 900.0, 450.0, 200.0, 15.0, 0.0),
}
SENSOR_TYPES = tuple(COURSES)
_OTHER = Course("", 50.0, 20.0, 10.0, 0.5)


class Waveform:
    """The values of one sensor; a sensor type that is not known here gets a course between 0 and 100."""

    def __init__(self, sensor_type: str, seed: str) -> None:
        self._course = COURSES.get(sensor_type, _OTHER)
        self.unit = self._course.unit
        self._random = random.Random(f"{sensor_type} {seed}")
        self._phase = self._random.uniform(-0.3, 0.3)
        self._drift = self._random.uniform(-0.5, 0.5)

    def value(self, ts_ms: int) -> float:
        """Return the next value, measured at `ts_ms`; times only go forward."""
        course, noise = self._course, self._random
        # A walk that is drawn back to the middle stays within some ±1.
        self._drift += noise.gauss(0.0, 0.01) - self._drift * 0.0001
        day = math.sin(2 * math.pi * (ts_ms % _DAY_MS / _DAY_MS - 0.375) + self._phase)
        value = course.middle + course.daily * day + course.drift * self._drift + noise.gauss(0.0, course.noise)
        return round(min(max(value, course.least), course.most), 2)
