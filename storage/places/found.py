"""What is found of the first readings of a window, one place after the other."""

from typing import NamedTuple

from storage.codec.columns import Columns, concatenate, first_wins
from storage.places.raw import Raw, columns_together
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

    `rest`: where the places that follow may have more. `places` counts those that had any, `documents` and `bytes` what
    came as documents.
    """

    def __init__(self, window: Window, limit: int) -> None:
        self.rest = window
        self.places, self.documents, self.bytes = 0, 0, 0
        self._limit = limit
        self._is_cut = False
        self._parts: list[Columns] = []
        # All that their places have, by seal number.
        self._raw: list[tuple[Raw, int]] = []

    def add_documents(self, raw: Raw, number: int) -> None:
        """Add the first documents of one place, in the direction of the window, with this seal number."""
        self.documents, self.bytes = self.documents + raw.total, self.bytes + len(raw.documents)
        self.places += bool(raw.documents and not raw.is_cut)
        if raw.is_cut:
            self.add(raw.columns(number, self.rest), is_cut=True)
        elif raw.documents:
            self._raw.append((raw, number))
            self._narrow()

    def add(self, columns: Columns | None, *, whole: bool = False, is_cut: bool = False) -> None:
        """Add the first readings of one place, in order: all that it has, unless they reach the limit or are `is_cut`.

        If so, `rest` ends at the last one within the limit, or with `whole` at the last one of them.
        """
        columns = None if columns is None else self.rest.cut(columns)
        if columns is None or not len(columns):
            return
        self.places += 1
        self._parts.append(columns)
        if (count := len(columns)) >= self._limit or is_cut:
            self._is_cut = True
            last = count if whole else min(count, self._limit)
            self.rest = self.rest.until(position_at(columns, count - last if self.rest.descending else last - 1))

    def _narrow(self) -> None:
        """End `rest` at the last reading within the limit, once that many were found."""
        if len(self._raw) + len(self._parts) < 2 or self.count() < self._limit:
            return
        columns = self.columns()
        if columns is not None and (count := len(columns)) >= self._limit:
            self._is_cut = True
            self._raw, self._parts = [], [columns]
            last = count - self._limit if self.rest.descending else self._limit - 1
            self.rest = self.rest.until(position_at(columns, last))

    @property
    def is_full(self) -> bool:
        """Whether `rest` ends at a reading that was found: what other places have in it comes between these."""
        return self._is_cut

    def count(self) -> int:
        """Return how many readings were found, repeats included."""
        return sum(raw.total for raw, _ in self._raw) + sum(map(len, self._parts))

    def columns(self) -> Columns | None:
        """Return what was found, in order; None without any reading."""
        parts = [*self._parts, *columns_together(self._raw, self.rest)]
        columns = self.rest.cut(first_wins(concatenate(parts)).columns) if parts else None
        return columns if columns is not None and len(columns) else None

    def batch(self, *, exact: bool) -> Batch:
        """Return what was found, in the direction of the window; with `exact` no more than the limit."""
        columns = self.columns()
        if columns is None:
            return Batch(None, has_more=False)
        is_long = exact and len(columns) > self._limit
        if is_long:
            columns = columns.take(slice(-self._limit, None) if self.rest.descending else slice(0, self._limit))
        if self.rest.descending:
            columns = columns.take(slice(None, None, -1))
        return Batch(columns, self._is_cut or is_long)
