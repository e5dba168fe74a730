"""A reading as a simulated device sends it, with its identity, and what became of it."""

from collections.abc import Callable
from enum import Enum

from msgspec import UNSET, UnsetType

from readings.reading import Attributes, Value

Identity = tuple[int, int]
"""(ts, seq) within a series; ts in milliseconds since 1970."""


class Outcome(Enum):
    """What became of a reading."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class SentPoint(Attributes, frozen=True, omit_defaults=True, rename="camel"):
    """A reading with its identity. `ts` is in milliseconds since 1970.

    `received_at` is what an export says of it, as it stands there; only HTTP takes it.
    """

    sensor_type: str
    value: Value
    ts: int
    seq: int = 0
    received_at: str | UnsetType = UNSET


OnSettled = Callable[[str, str, list[Identity], Outcome, float], None]
"""Called with device, sensor type, identities, their outcome, and the seconds since their event was first sent."""
