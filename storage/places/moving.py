"""What readers do when readings move to the next place while they read."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import OperationFailure

Found = TypeVar("Found")

# QueryPlanKilled: the collection was renamed or dropped during a query. NamespaceNotFound: it was dropped while an
# aggregation that unites it with others began. SnapshotUnavailable: it was moved, and the majority of a replica set
# does not have that yet.
MOVED = frozenset({26, 175, 246})
MAX_TRIES = 20
# A change of a block takes a few writes.
PAUSE_S = 0.02


class PlacesChanged(Exception):
    """A part was changed while it was read, and has to be read again."""


def unless_moved(read: Callable[[], Found]) -> Found:
    """Return what a part of a question finds in one of the driver's threads, as `until_unmoved`."""
    for number in range(MAX_TRIES):
        try:
            return read()
        except OperationFailure as error:
            if error.code not in MOVED:
                raise
        except PlacesChanged:
            time.sleep(number * PAUSE_S)
    return read()


async def until_unmoved(read: Callable[[], Awaitable[Found]]) -> Found:
    """Return what a part of a question finds, asked again from its start while readings leave their place."""
    for number in range(MAX_TRIES):
        try:
            return await read()
        except OperationFailure as error:
            if error.code not in MOVED:
                raise
        except PlacesChanged:
            await asyncio.sleep(number * PAUSE_S)
    return await read()
