"""Plausible sensor values: a daily cycle, a slow drift and noise, reproducible from a seed."""

import math
import random
from dataclasses import dataclass

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class SignalProfile:
    """The signal of a sensor type: unit, mean, amplitudes of the daily cycle and the drift, noise (sigma), bounds."""

    unit: str
    mean: float
    daily_amplitude: float
    drift: float
    noise: float
    minimum: float = -math.inf
    maximum: float = math.inf


PROFILES = {
    "temperature": SignalProfile("°C", 21.0, 4.0, 2.0, 0.05, -40.0, 85.0),
    "humidity": SignalProfile("%", 50.0, 10.0, 8.0, 0.3, 0.0, 100.0),
    "pressure": SignalProfile("hPa", 1013.0, 1.5, 10.0, 0.08, 870.0, 1085.0),
    "vibration": SignalProfile("mm/s", 2.0, 0.6, 0.8, 0.4, 0.0),
    "co2": SignalProfile("ppm", 600.0, 200.0, 100.0, 6.0, 350.0),
    "power": SignalProfile("W", 900.0, 450.0, 200.0, 15.0, 0.0),
}
SENSOR_TYPES = tuple(PROFILES)
_DEFAULT_PROFILE = SignalProfile("", 50.0, 20.0, 10.0, 0.5)


class Waveform:
    """The values of one sensor; an unknown sensor type gets a profile between 0 and 100."""

    def __init__(self, sensor_type: str, seed: str) -> None:
        self._profile = PROFILES.get(sensor_type, _DEFAULT_PROFILE)
        self.unit = self._profile.unit
        self._random = random.Random(f"{sensor_type} {seed}")
        self._phase = self._random.uniform(-0.3, 0.3)
        self._drift = self._random.uniform(-0.5, 0.5)

    def value(self, ts_ms: int) -> float:
        """Return the next value, measured at `ts_ms`; times must not decrease."""
        profile, noise = self._profile, self._random
        # A mean-reverting random walk stays within about ±1.
        self._drift += noise.gauss(0.0, 0.01) - self._drift * 0.0001
        day = math.sin(2 * math.pi * (ts_ms % _DAY_MS / _DAY_MS - 0.375) + self._phase)
        value = (
            profile.mean + profile.daily_amplitude * day + profile.drift * self._drift + noise.gauss(0.0, profile.noise)
        )
        return round(min(max(value, profile.minimum), profile.maximum), 2)
