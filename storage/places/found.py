"""What is found of the first readings of a window, one place after the other."""

from typing import NamedTuple

from storage.codec.columns import Columns, concatenate, first_wins
from storage.places.raw import Raw
from storage.places.window import Window, position_at


class Batch(NamedTuple):
    """The first readings of a window in its direction, None if it has none, and whether there may be more.

    `next_size`: how many to ask for next.
    """

    columns: Columns | None
    has_more: bool
    next_size: int = 0


class Found:
    """What was found of the first `limit` readings of a window.

    `rest`: where the places that follow may have more. `documents` and `bytes` count what came as documents.
    """

    def __init__(self, window: Window, limit: int) -> None:
        self.rest = window
        self.documents, self.bytes = 0, 0
        self._limit = limit
        self._is_cut = False
        self._parts: list[Columns] = []

    async def add_documents(self, raw: Raw, number: int) -> None:
        """Add the first documents of one place, in the direction of the window, with this seal number."""
        self.documents, self.bytes = self.documents + raw.total, self.bytes + len(raw.documents)
        self.add(await raw.read(number, self.rest), is_cut=raw.is_cut)

    def add(self, columns: Columns | None, *, whole: bool = False, is_cut: bool = False) -> None:
        """Add the first readings of one place, in order: all that it has if they are fewer than the limit, or not cut.

        What lies behind as many as the limit is left out, or if they are to be kept `whole`, what lies behind them all.
        """
        columns = None if columns is None else self.rest.cut(columns)
        if columns is None or not len(columns):
            return
        self._parts.append(columns)
        if (count := len(columns)) >= self._limit or is_cut:
            self._is_cut = True
            last = count if whole else min(count, self._limit)
            self.rest = self.rest.until(position_at(columns, count - last if self.rest.descending else last - 1))

    def columns(self) -> Columns | None:
        """Return what was found, in order; None if that is nothing."""
        return self.rest.cut(first_wins(concatenate(self._parts)).columns) if self._parts else None

    def batch(self, *, exact: bool) -> Batch:
        """Return what was found, in the direction of the window, and no more than the limit if it is to be `exact`."""
        columns = self.columns()
        if columns is None:
            return Batch(None, has_more=False)
        is_long = exact and len(columns) > self._limit
        if is_long:
            columns = columns.take(slice(-self._limit, None) if self.rest.descending else slice(0, self._limit))
        if self.rest.descending:
            columns = columns.take(slice(None, None, -1))
        return Batch(columns, self._is_cut or is_long)
