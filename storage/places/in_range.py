"""Which of many series have readings in a range of time, over all places: only these are worth a question each."""

from collections.abc import Sequence
from typing import Any

from readings.collections import READINGS
from readings.document import date_ms
from readings.filters import in_time_range
from readings.keys import Position, series_key
from storage.codec.packed import BlockError
from storage.places.each import Names, Pipeline, find_each, names
from storage.places.names import BLOCKS, PIECES, sealed_name
from storage.places.pieces import pieces_filter
from storage.places.reading import Places
from storage.places.window import Window


async def series_in_range(
    places: Places, owner: str, series: Sequence[Names], start: Position, end: Position
) -> set[Names]:
    """Return the series of an owner that have readings between two positions, `end` excluded.

    Also some that have earlier and later ones in one block or piece, but none between. Raises the driver's errors and
    BlockError.
    """
    found: set[Names] = set()

    def missing() -> list[Window]:
        return [Window(series_key(owner, *one), start, end) for one in series if one not in found]

    async with places.session() as session:

        async def find(name: str, parts: list[Pipeline]) -> list[dict[str, Any]]:
            return await find_each(places.collection(name), parts, session)

        found.update(names(one["_id"]) for one in await find(READINGS, [_of_documents(one) for one in missing()]))
        state = await places.state(session)
        for number in state.waiting:
            parts = [_of_documents(one) for one in missing()]
            found.update(names(one["_id"]) for one in await find(sealed_name(number), parts))
        if state.has_blocks:
            found.update(names(one["_id"]) for one in await find(PIECES, [_of_pieces(one) for one in missing()]))
            heads = await find(BLOCKS, [_last_head(one) for one in missing()])
            found.update(names(one["_id"]) for one in heads if _may_reach(one, start))
    return found


def _of_documents(window: Window) -> Pipeline:
    return [{"$match": window.filter()}, {"$limit": 1}, {"$project": {"_id": 1}}]


def _of_pieces(window: Window) -> Pipeline:
    return [{"$match": pieces_filter(window)}, {"$limit": 1}, {"$project": {"_id": 1}}]


def _last_head(window: Window) -> Pipeline:
    """Return what finds the last head that begins before the end of a window, maybe a pending one."""
    begins = {"$gte": in_time_range(window.series)["_id"]["$gte"], "$lt": window.key(window.end)}
    return [
        {"$match": {"_id": begins}},
        {"$sort": {"_id": -1}},
        {"$limit": 1},
        {"$project": {"last.ts": 1, "pending": 1}},
    ]


def _may_reach(head: dict[str, Any], start: Position) -> bool:
    try:
        return bool(head.get("pending")) or date_ms(head["last"]["ts"]) >= start[0]
    except (LookupError, TypeError, ValueError) as error:
        raise BlockError(f"not the head of a block: {error!r}") from error
