"""What the decoders of other encodings yield: readings under the names of their sender, and what is wrong with others.

The alphabet of sensorType is smaller than those of such names: each other character becomes `_`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from readings.reading import Code, ReadingError, Value

NS_PER_MS = 1_000_000
_NOT_OF_SENSOR_TYPE = re.compile(r"[^A-Za-z0-9_.:-]")


class SentReading(NamedTuple):
    """A decoded reading, unchecked.

    `name` is the sender's; `series` tells names apart that are spelled alike, as measurement and field of a line.
    `ts_ns` is nanoseconds since 1970; without it the reading is of `offset_ms` from now. `place` says where in the body
    it is, for people, where its index alone does not.
    """

    name: str
    series: tuple[str, ...]
    value: Value
    ts_ns: int | None = None
    offset_ms: int = 0
    unit: str | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    place: str = ""


Decode = Callable[[bytes], Iterator[SentReading | ReadingError]]
"""Yields the readings of a body in the order sent, an error in place of each that is not one; raises BodyRefused."""


class BodyRefused(ReadingError):
    """Nothing of a body is taken.

    `reason`: `malformed` (not the syntax of its encoding), `invalid_reading` (that syntax, but not what the encoding
    asks for), or `batch_size`.
    """

    def __init__(self, reason: Literal["malformed", "invalid_reading", "batch_size"], detail: str) -> None:
        super().__init__("invalid_reading", detail)
        self.reason = reason


def rejected_at(place: str, code: Code, detail: str) -> ReadingError:
    """Return the error of a reading, with its place in the body."""
    return ReadingError(code, f"{place}: {detail}" if place else detail)


def sensor_type_of(name: str) -> str:
    """Return the sensorType under which a name is stored: each character that it may not have becomes `_`."""
    return _NOT_OF_SENSOR_TYPE.sub("_", name)
