"""The readings of one, several or all series of an owner, as one stream in the order device, sensorType, ts, seq.

Everything an export needs from storage comes through `stream_selection`.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from reader.history.from_mongodb import FromMongoDB, Range
from readings.keys import Position
from storage.codec.columns import Columns

# Series listed at a time. With a time range, those without a reading in it are found together, in some 0.1 ms each; a
# query for each of them would take ten times as long, and nothing is sent meanwhile.
SERIES_PER_PAGE = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """Series of an owner by their names, and a time range. Empty `devices` or `sensor_types` select all.

    `descending` and `past` as in `Range`; both only with one series.
    """

    devices: Sequence[str] = ()
    sensor_types: Sequence[str] = ()
    from_ms: int | None = None
    to_ms: int | None = None
    descending: bool = False
    past: Position | None = None

    @property
    def one_series(self) -> tuple[str, str] | None:
        """The device and sensorType, if exactly one of each is named."""
        if len(self.devices) == len(self.sensor_types) == 1:
            return self.devices[0], self.sensor_types[0]
        return None

    def range_of(self, device: str, sensor_type: str) -> Range:
        """Return the range of one of the series."""
        return Range(device, sensor_type, self.from_ms, self.to_ms, self.descending, self.past)


class SeriesRows(NamedTuple):
    """Readings of one series, in the order requested."""

    device: str
    sensor_type: str
    columns: Columns


Rows = AsyncGenerator[SeriesRows]


async def stream_selection(history: FromMongoDB, owner: str, selection: Selection, limit: int | None = None) -> Rows:
    """Yield the readings of a selection, at most `limit`, in batches of one series each; HistoryUnavailable.

    Only a batch is in memory, and nothing is read ahead of the consumer. A series that appears meanwhile is included if
    its place in the order has not been passed.
    """
    left = limit
    async with aclosing(_series(history, owner, selection)) as found:
        async for device, sensor_type in found:
            range_ = selection.range_of(device, sensor_type)
            async with aclosing(history.stream_columns(owner, range_, left)) as batches:
                async for columns in batches:
                    if left is not None:
                        left -= len(columns)
                    yield SeriesRows(device, sensor_type, columns)
            if left == 0:
                return


async def _series(history: FromMongoDB, owner: str, selection: Selection) -> AsyncGenerator[tuple[str, str]]:
    """Yield the series of a selection that may have readings in its time range, in order."""
    if selection.one_series is not None:
        yield selection.one_series
        return
    wanted = set(selection.sensor_types)
    only_type = next(iter(wanted)) if len(wanted) == 1 else None
    for device in sorted(set(selection.devices)) or (None,):
        past, more = None, True
        while more:
            page = await history.series(owner, device, only_type, past, SERIES_PER_PAGE)
            past, more = (page[-1] if page else None), len(page) == SERIES_PER_PAGE
            named = [one for one in page if not wanted or one[1] in wanted]
            if selection.from_ms is not None or selection.to_ms is not None:
                named = await history.in_range(owner, named, selection.from_ms, selection.to_ms)
            for one in named:
                yield one
