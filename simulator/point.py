"""A reading as a simulated device sends it, with its identity, and what became of it."""

from collections.abc import Callable
from enum import Enum

import msgspec

from broker.reading import Value

Identity = tuple[int, int]
"""(ts, seq) within a series; ts in milliseconds since 1970."""


class Outcome(Enum):
    """What became of a reading."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class SentPoint(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A reading with its identity. `ts` is in milliseconds since 1970."""

    sensor_type: str
    value: Value
    ts: int
    seq: int = 0
    unit: str = ""


OnSettled = Callable[[str, str, list[Identity], Outcome, float], None]
"""Called with device, sensor type, identities, their outcome, and the seconds since their event was first sent."""
