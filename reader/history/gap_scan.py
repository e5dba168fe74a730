"""Reads the numbers of a range for its gaps: for a second at a time, so that other queries get a turn in between."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from functools import partial

from reader.history.sequence import Completeness, Gap, SequenceGaps
from storage.places.reading import Places
from storage.places.stretches import positions
from storage.places.threads import in_thread_if_large
from storage.places.window import Window, position_at

# A year of one reading a second takes longer than one query may. In 1 s some 300,000 documents are read, or a million
# readings of blocks.
SCAN_S = 1.0
# Proxies wait 60 s for an answer (`proxy_read_timeout` of proxy/nginx.conf): beyond it nobody would get it.
MAX_SCAN_S = 55.0

Query = Callable[[], AbstractAsyncContextManager[None]]
"""Surrounds each part: it holds a slot, limits the time and translates errors, TimeoutError included."""


async def scan_gaps(places: Places, window: Window, into: SequenceGaps, query: Query) -> tuple[Completeness, list[Gap]]:
    """Return how complete a window is, and its gaps; the errors of `query`."""
    started = time.monotonic()
    while not window.is_empty:
        async with query():
            if time.monotonic() - started > MAX_SCAN_S:
                raise TimeoutError(f"the numbers of a range took longer than {MAX_SCAN_S:.0f} s")
            window = await _scan(places, window, into)
    return into.finish(), into.gaps()


async def _scan(places: Places, window: Window, into: SequenceGaps) -> Window:
    """Add the first readings of a window; return what is left of it."""
    until = time.monotonic() + SCAN_S
    async with aclosing(positions(places, window)) as parts:
        async for columns in parts:
            if not len(columns):
                continue
            await in_thread_if_large(len(columns), partial(into.add, columns.ts, columns.seq))
            if time.monotonic() >= until:
                return window.behind(position_at(columns, -1))
    return replace(window, start=window.end)
