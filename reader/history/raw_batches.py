"""Batches of MongoDB as columns, also with documents that only a manual write can have stored."""

import asyncio
from typing import NamedTuple

import bson
import numpy as np

from reader.responses import AS_STORED
from readings.document import DocumentError, position_of, split_documents
from readings.keys import Key
from runtime.logs import logger
from storage.codec.columns import Columns, Kind, concatenate
from storage.codec.from_documents import columns_of, split

log = logger("reader.history")

# The seal number of readings that no seal has yet: of two copies one with a lower number is the first.
NOT_SEALED = 2**63 - 1
# Readings asked for at once: the first time, and then so many that they have some BYTES in MongoDB. 4,096 usual ones
# have 0.7 MB, and 0.5 MB as CSV; in the driver they are several times in memory.
MIN_READINGS, MAX_READINGS, BYTES = 1000, 4096, 1024 * 1024
# Larger batches become columns in a thread: 0.1 us a reading, but 50 where many have attributes of their own.
_THREAD_BYTES = 64 * 1024


class Batch(NamedTuple):
    """Readings of one series, whether there may be more of them behind, and how many to ask for next."""

    columns: Columns
    has_more: bool
    next_limit: int


async def batch_from(body: bytes, series: Key, limit: int, *, is_cut: bool) -> Batch | None:
    """Return a batch of raw documents of a series; None if it is empty. `is_cut`: it ended before `limit`.

    DocumentError if it has documents and none of them is a reading.
    """
    if not body:
        return None
    count = len(split(body)) - 1
    if len(body) < _THREAD_BYTES:
        columns = columns_from(body, series)
    else:
        columns = await asyncio.to_thread(columns_from, body, series)
    if not len(columns):
        raise DocumentError("no document has a time and a seq")
    next_limit = min(max(BYTES * count // len(body), MIN_READINGS), MAX_READINGS)
    return Batch(columns, is_cut or count >= limit, next_limit)


def columns_from(batch: bytes, series: Key) -> Columns:
    """Return the documents of a series, back to back, as columns in their order.

    A document of any form that has a time and a `seq` is kept whole. One without is not a reading: it is left out.
    """
    try:
        return columns_of(batch, NOT_SEALED)
    except DocumentError:
        return concatenate(_parts(split_documents(batch), bson.encode(series)[4:-1]))


def _parts(documents: list[bytes], series: bytes) -> list[Columns]:
    """Return columns of documents that are not all readings; those that are stay together."""
    if len(documents) == 1:
        return [_whole(documents[0], series)]
    half = len(documents) // 2
    parts = []
    for some in (documents[:half], documents[half:]):
        try:
            parts.append(columns_of(b"".join(some), NOT_SEALED))
        except DocumentError:
            parts += _parts(some, series)
    return parts


def _whole(document: bytes, series: bytes) -> Columns:
    """Return a document that is kept whole; no reading, if it has no time."""
    ts_ms, seq, count = 0, 0, 1
    try:
        ts_ms, seq = position_of(bson.decode(document, AS_STORED))
    except (KeyError, TypeError, ValueError) as error:
        log.warning("A document without a time or a seq was left out of an export.", error=repr(error))
        count = 0
    zeros = np.zeros(count, np.int64)
    return Columns(
        series,
        ts=np.full(count, ts_ms),
        seq=np.full(count, seq),
        received=zeros,
        seals=np.full(count, NOT_SEALED),
        kinds=np.full(count, Kind.OTHER, np.uint8),
        values=zeros,
        tails=zeros,
        places=None,
        tail_list=[],
        texts=[],
        others=[document][:count],
    )
