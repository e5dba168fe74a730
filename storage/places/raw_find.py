"""Finds documents as bytes, back to back, at a fraction of what the driver takes.

The driver's raw batches make an object of each document: 1.2 µs, as much as MongoDB takes to find it. Here the reply
of one `find` command is taken as one object, and the documents are cut out of it together where they have the same
length, as neighbours mostly do.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from storage.places.commands import ask, find_command, with_read_concern

_AS_BYTES = CodecOptions(document_class=RawBSONDocument)
_LENGTH = struct.Struct("<i")
_BATCH = b"\x04firstBatch\x00"
# The id of the reply's cursor, after the batch; before it where the collection does not exist.
_CURSOR = struct.Struct("<4xq")
_CURSOR_HEAD = b"\x12id\x00"
# Fewer documents of one length in a row are faster one by one.
_FEW = 16
_EMBEDDED = 3
# CollectionUUIDMismatch, and what a server may say that knows no `collectionUUID` in a `find`, or does not allow it.
_NOT_THIS_ONE = frozenset({361, 9, 13, 40415})


class OtherCollection(Exception):
    """A collection of this name is not the one that was meant, or does not exist."""


async def find_raw(collection: Any, query: dict[str, Any], *, limit: int, session: Any = None) -> bytes:
    """Return documents in the order of `_id`, back to back: at most `limit`, or as many as fit the 16 MiB of a reply.

    There may be more, unless it returns none. The driver's errors.
    """
    command = with_read_concern(find_command(collection, query, limit) | {"singleBatch": True}, collection, session)
    reply = await collection.database.command(command, codec_options=_AS_BYTES, session=session)
    return documents_of_reply(reply.raw)


class RawDocuments(NamedTuple):
    """Documents, back to back, how many they are, and whether MongoDB has more of those that it was asked for."""

    documents: bytes
    total: int
    is_cut: bool


def find_first(
    collection: Any,
    query: dict[str, Any],
    *,
    limit: int,
    descending: bool = False,
    session: Any = None,
    uuid: Any = None,
) -> RawDocuments:
    """Return the first documents of a collection of the synchronous driver in the order of `_id`; its errors.

    `limit` or fewer, if they would be more than the 16 MiB of a reply. With a UUID, OtherCollection unless the
    collection has it.
    """
    command = find_command(collection, query, limit, descending=descending)
    if uuid is not None:
        command["collectionUUID"] = uuid
    try:
        reply = ask(collection, command, session, _AS_BYTES).raw
    except OperationFailure as error:
        if error.code in _NOT_THIS_ONE and uuid is not None:
            raise OtherCollection from error
        raise
    start, end = _batch_of(reply)
    parts = list(_documents(reply, start, end))
    cursor = _cursor_of(reply, start, end)
    if cursor:  # the reply was full
        # Not in the session: its reply is of the newest write, for whose majority the next read would wait.
        collection.database.command({"killCursors": collection.name, "cursors": [cursor]})
    return RawDocuments(b"".join(part for part, _ in parts), sum(count for _, count in parts), cursor != 0)


def documents_of_reply(reply: bytes) -> bytes:
    """Return the documents of a reply to `find`; ValueError when it has none of its form."""
    start, end = _batch_of(reply)
    return b"".join(part for part, _ in _documents(reply, start, end))


def _batch_of(reply: bytes) -> tuple[int, int]:
    """Return where the elements of a reply's batch begin and end; ValueError when it has none."""
    # Nothing that a user has written is before it.
    at = reply.find(_BATCH)
    if at < 0:
        raise ValueError("the reply has no batch")
    at += len(_BATCH)
    (size,) = _LENGTH.unpack_from(reply, at)
    return at + 4, at + size - 1


def _cursor_of(reply: bytes, start: int, end: int) -> int:
    """Return the id of the cursor, 0 when there is nothing more to read; ValueError when there is none."""
    at = end + 1 if reply.startswith(_CURSOR_HEAD, end + 1) else reply.find(_CURSOR_HEAD, 0, start)
    if at < 0:
        raise ValueError("the reply has no cursor")
    return int(_CURSOR.unpack_from(reply, at)[0])


def _documents(array: bytes, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Yield the documents of the elements of an array, several at once, and their number; keys count from 0."""
    number, unpack, digits = 0, _LENGTH.unpack_from, 1
    while at < end:
        if number == 10**digits:
            digits += 1
        head = digits + 2
        (length,) = unpack(array, at + head)
        if length < 5 or at + head + length > end or array[at] != _EMBEDDED:
            raise ValueError(f"element {number} of the batch is no document")
        same = _same_length(array, at, end, head, length, 10**digits - number)
        if same < _FEW:
            yield array[at + head : at + head + length], 1
            at, number = at + head + length, number + 1
            continue
        rows = np.frombuffer(array, np.uint8, same * (head + length), at).reshape(same, -1)
        yield rows[:, head:].tobytes(), same
        at, number = at + rows.size, number + same


def _same_length(array: bytes, at: int, end: int, head: int, length: int, most: int) -> int:
    """Return how many elements from here on have this length, of at most `most` with a key of this size."""
    stride = head + length
    most = min(most, (end - at) // stride)
    if most < _FEW or _LENGTH.unpack_from(array, at + (_FEW - 1) * stride + head)[0] != length:
        return 1
    lengths = np.ndarray((most,), "<i4", array, at + head, (stride,))
    kinds = np.ndarray((most,), np.uint8, array, at, (stride,))
    differing = np.flatnonzero((lengths != length) | (kinds != _EMBEDDED))
    return int(differing[0]) if len(differing) else most
