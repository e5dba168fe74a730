"""Documents of `readings` and sealed collections as columns, also those that only a manual write can have stored."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import bson
import numpy as np

from readings.document import DocumentError, position_of, split_documents
from readings.keys import Position
from runtime.logs import logger
from storage.codec.columns import Columns, Kind, concatenate
from storage.codec.from_documents import columns_of
from storage.places.documents import READABLE, series_name
from storage.places.raw_find import find_first
from storage.places.window import Window

log = logger("storage.places")

_LENGTH = struct.Struct("<i")


class Raw(NamedTuple):
    """The first documents of a window, back to back. `is_cut`: there may be more."""

    documents: bytes
    total: int = 0
    is_cut: bool = False

    def first_position(self) -> Position | None:
        """Return the position of the first document, None if there is none; DocumentError if it is no reading."""
        if not self.documents:
            return None
        (length,) = _LENGTH.unpack_from(self.documents)
        try:
            return position_of(bson.decode(self.documents[:length], READABLE))
        except (LookupError, TypeError, ValueError) as error:
            raise DocumentError(f"no time or no seq: {error!r}") from error

    def columns(self, number: int, window: Window) -> Columns | None:
        """Return the documents, which are in the direction of the window, as columns in order; None without any.

        A document of any form that has a time and a `seq` is kept whole. One without is not a reading: it is left out.
        DocumentError if there may be more documents after it, and none of these is a reading.
        """
        if not self.documents:
            return None
        try:
            columns = columns_of(self.documents, number)
        except DocumentError:
            columns = concatenate([*_parts(split_documents(self.documents), number, window)])
        if self.is_cut and not len(columns):
            raise DocumentError("no document has a time and a seq")
        return columns.take(slice(None, None, -1)) if window.descending else columns


def columns_together(found: list[tuple[Raw, int]], window: Window) -> list[Columns]:
    """Return all documents of several places, which have these seal numbers, as columns in no order.

    Together they take less time than one by one, where they are few.
    """
    if len(found) > 1:
        try:
            columns = columns_of(b"".join(raw.documents for raw, _ in found), 0)
        except DocumentError:
            pass
        else:
            numbers = [number for _, number in found]
            return [replace(columns, seals=np.repeat(np.array(numbers), [raw.total for raw, _ in found]))]
    return [one for raw, number in found if (one := raw.columns(number, window)) is not None]


def read_raw(collection: Any, window: Window, limit: int, session: Any, uuid: Any = None) -> Raw:
    """Return the first documents of a window of a collection of the synchronous driver; its errors.

    At most `limit`, and at most 16 MiB. With a UUID, OtherCollection unless the collection has it.
    """
    if window.is_empty:
        return Raw(b"")
    query, descending = window.filter(), window.descending
    found = find_first(collection, query, limit=limit, descending=descending, session=session, uuid=uuid)
    return Raw(found.documents, found.total, found.is_cut or found.total >= limit)


def _parts(documents: list[bytes], number: int, window: Window) -> Iterator[Columns]:
    """Yield columns of documents that are not all readings; those that are stay together."""
    if len(documents) == 1:
        yield _whole(documents[0], number, window)
        return
    half = len(documents) // 2
    for some in (documents[:half], documents[half:]):
        try:
            yield columns_of(b"".join(some), number)
        except DocumentError:
            yield from _parts(some, number, window)


def _whole(document: bytes, number: int, window: Window) -> Columns:
    """Return a document that is kept whole; no reading, if it has no time."""
    ts_ms, seq, count = 0, 0, 1
    try:
        ts_ms, seq = position_of(bson.decode(document, READABLE))
    except (KeyError, TypeError, ValueError) as error:
        log.warning("A document without a time or a seq was left out.", error=repr(error))
        count = 0
    zeros = np.zeros(count, np.int64)
    return Columns(
        series_name(window.series),
        ts=np.full(count, ts_ms),
        seq=np.full(count, seq),
        received=zeros,
        seals=np.full(count, number),
        kinds=np.full(count, Kind.OTHER, np.uint8),
        values=zeros,
        tails=zeros,
        places=None,
        tail_list=[],
        texts=[],
        others=[document][:count],
    )
