"""The documents of pieces and blocks: which fields hold what, and in which order a change becomes visible.

**A block** is a head in `readings.blocks` and its columns in `readings.columns`. Beside what `storage.codec.head` says,
a head has `columns` (the `_id.id` of its columns), `edit` (replaced at each change of the head, which names the one
that it saw) and, until the block before it ends where it begins, `pending: true`. So:

- The columns of a block are never changed. Others are inserted, the head is replaced by one that names them if its
  `edit` is still the same, and only then the old ones are deleted.
- A block is split by inserting its right part, pending, then replacing the head of the left one, and then taking
  `pending` away. Before the left head ends where it begins, a pending block is nothing: its readings are still in the
  left one. A pending block is live if, and only if, a block that is live ends where it begins.
- Live blocks follow each other without a gap from the first one on. Retention deletes the first ones.

**A piece** is one document with columns, never changed, but for its oldest readings that are taken away when they are
past their retention. Of several pieces that are merged the new one, whose `level` is higher than theirs, is inserted
before they are deleted: reading them by ascending `_id` misses nothing.
"""

from dataclasses import dataclass
from typing import Any

import bson
from bson import Binary, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from readings.document import AS_MILLISECONDS, position_in, series_bytes
from readings.keys import Key, Position, reading_key, series_key
from storage.codec.columns import Columns
from storage.codec.decode import decode
from storage.codec.encode import encode
from storage.codec.head import Head
from storage.codec.packed import BlockError
from storage.codec.sections import VERSION as CODEC_VERSION
from storage.places.window import Window

VERSION = 1
# Fields of a head that no question but buckets needs: some hundred bytes for each hour.
SUMS = ("numbers", "booleans", "texts", "hours")
# MongoDB also stores text that is not UTF-8: it must not hide its neighbours.
READABLE = AS_MILLISECONDS.with_options(unicode_decode_error_handler="replace")


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A head as it is stored. `last_seal`: the seal number by which its newest reading came."""

    head: Head
    columns: ObjectId
    edit: ObjectId
    last_seal: int
    pending: bool = False

    def document(self) -> dict[str, Any]:
        """Return the head's document."""
        document = self.head.document()
        document |= {"columns": self.columns, "edit": self.edit, "lastSeal": Int64(self.last_seal)}
        return document | {"pending": True} if self.pending else document


def head_end(document: dict[str, Any]) -> Position:
    """Return the upper bound in a head decoded with AS_MILLISECONDS; BlockError if it has none."""
    try:
        return position_in(document["until"])
    except (LookupError, TypeError, ValueError) as error:
        raise BlockError(f"not the head of a block: {error!r}") from error


@dataclass(frozen=True, slots=True)
class LiveBlock:
    """A block as it is found and opened: all of its head but the sums.

    `start` is included and `until` is not; `first` and `last` are the positions of its readings, `newest` is the last
    one of them, as in the head, and `count` how many there are.
    """

    key: Key
    start: Position
    until: Position
    first: Position
    last: Position
    newest: dict[str, Any]
    count: int
    columns: ObjectId
    last_seal: int

    def lies_in(self, window: Window) -> bool:
        """Return whether any of its readings may lie in a window."""
        return self.first < window.end and self.last >= window.start


def live_block(document: dict[str, Any]) -> LiveBlock:
    """Return the block of a head decoded with AS_MILLISECONDS, maybe without its SUMS; BlockError for another one."""
    if (version := document.get("version")) != CODEC_VERSION:
        raise BlockError(f"the head has version {version!r}, and {CODEC_VERSION} is the highest that is known")
    try:
        key, newest, count, columns = (document[name] for name in ("_id", "last", "count", "columns"))
        start, until, first, last = map(position_in, (key, document["until"], document["first"], newest))
        last_seal = int(document["lastSeal"])
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BlockError(f"not the head of a block: {error!r}") from error
    if not start <= first <= last < until:
        raise BlockError("the bounds, the first and the last reading are not in order")
    return LiveBlock(key, start, until, first, last, newest, count, columns, last_seal)


def columns_key(series: Key, start: Position, number: ObjectId) -> Key:
    """Return the `_id` of columns of the block that begins at `start`; `series` is any key that begins with one."""
    return {**series_of(series), "ts": DatetimeMS(start[0]), "seq": Int64(start[1]), "id": number}


def columns_document(series: Key, start: Position, number: ObjectId, data: bytes) -> dict[str, Any]:
    """Return the document of a block's columns, as `encode` returns them."""
    return {"_id": columns_key(series, start, number), "data": Binary(data)}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece without its columns. Pieces that were written by one merge have the same `run`."""

    key: Key
    run: ObjectId
    count: int
    first: Position
    last: Position
    newest: dict[str, Any]
    last_seal: int

    @property
    def level(self) -> int:
        """0 for what comes from a sealed collection, and one more than the highest of those that were merged."""
        return int(self.key["level"])


def piece_document(series: Key, level: int, run: ObjectId, columns: Columns, newest: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a piece; the columns are ordered and not empty.

    `newest` has the fields of the last reading but its series, as in a head.
    """
    return {
        "_id": {**series_of(series), "level": level, "id": ObjectId()},
        "version": VERSION,
        "run": run,
        "count": len(columns),
        "first": {"ts": DatetimeMS(int(columns.ts[0])), "seq": Int64(int(columns.seq[0]))},
        "last": {"ts": DatetimeMS(int(columns.ts[-1])), "seq": Int64(int(columns.seq[-1]))},
        "lastSeal": Int64(int(columns.seals[-1])),
        "newest": newest,
        "columns": Binary(encode(columns)),
    }


def piece_of(document: dict[str, Any]) -> Piece:
    """Return the piece of a document decoded with AS_MILLISECONDS; BlockError for another document."""
    try:
        return Piece(
            document["_id"],
            document["run"],
            int(document["count"]),
            position_in(document["first"]),
            position_in(document["last"]),
            document["newest"],
            int(document["lastSeal"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise BlockError(f"not a piece: {error!r}") from error


def piece_columns(document: dict[str, Any], series: bytes) -> Columns:
    """Return the readings of a piece; `series` are the bytes of `series_bytes`. BlockError when they are damaged."""
    if not isinstance(columns := document.get("columns"), bytes):
        raise BlockError("the piece has no columns")
    return decode(columns, series)


def series_name(series: Key) -> bytes:
    """Return the bytes that identify a series, as `series_bytes` returns them."""
    return series_bytes(
        bson.encode({"_id": reading_key(series["owner"], series["device"], series["sensorType"], 0, 0), "value": None})
    )


def series_of(key: Key) -> Key:
    """Return the key of the series that any key begins with."""
    return series_key(key["owner"], key["device"], key["sensorType"])
