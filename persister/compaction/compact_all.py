"""`python -m persister compact --all`: seals what there is, compacts until nothing waits, and ends."""

import asyncio
import time

import msgspec

from persister.compaction.compactor import CompactionError, Compactor
from persister.compaction.lease import LeaseLostError
from persister.compaction.service import Report, SealNow, record_failure, release
from persister.mongodb_errors import translating_errors
from persister.sealing.state_document import MAX_WAITING
from runtime.background import background

REPORT_EVERY_S = 2.0
RETRY_AFTER_S = 1.0


class Compacted(msgspec.Struct, frozen=True, rename="camel"):
    """What was done. `repeats` were sent again after their first copy was sealed; `left` are the numbers given up."""

    collections: int
    readings: int
    repeats: int
    blocks: int
    pieces: int
    bytes_written: int
    seconds: float
    left: tuple[int, ...]


async def compact_all(compactor: Compactor, seal_now: SealNow, report: Report) -> Compacted:
    """Compact until nothing waits; WriteFailed if MongoDB is away or refuses. `report` gets lines on progress."""
    started = time.monotonic()
    with translating_errors():
        try:
            async with background(_report(compactor, report), name="progress"):
                collections = await _seal_and_compact(compactor, seal_now, report)
        finally:
            await release(compactor)
        left = tuple(one.number for one in await compactor.lease.read() if one.is_given_up)
    totals = compactor.totals
    return Compacted(
        collections,
        totals.readings,
        totals.repeats,
        totals.blocks,
        totals.pieces,
        totals.bytes,
        round(time.monotonic() - started, 3),
        left,
    )


async def _seal_and_compact(compactor: Compactor, seal_now: SealNow, report: Report) -> int:
    """Return how many sealed collections this process has compacted."""
    report("sealing …")
    collections, said = 0, False
    while True:
        is_sealed = await seal_now()
        collections += await _compact_waiting(compactor, report)
        if is_sealed or await _is_full_of_given_up(compactor):
            return collections
        # Too many waited, and are compacted now, whoever did it; or another process seals, or was killed in a seal.
        if not said:
            report("`readings` could not be sealed yet; trying again …")
            said = True
        await asyncio.sleep(RETRY_AFTER_S)


async def _is_full_of_given_up(compactor: Compactor) -> bool:
    """Return whether nothing can be sealed any more."""
    return sum(one.is_given_up for one in await compactor.lease.read()) >= MAX_WAITING


async def _compact_waiting(compactor: Compactor, report: Report) -> int:
    collections = 0
    while await _compact_one(compactor, report):
        collections += 1
    return collections


async def _compact_one(compactor: Compactor, report: Report) -> bool:
    """Compact the next sealed collection; False if nothing waits."""
    said = False
    while True:
        try:
            waiting = await compactor.compact_next(asyncio.Event())
        except LeaseLostError as error:
            if not said:
                report(f"{error}; waiting …")
                said = True
        except CompactionError as failed:
            await record_failure(compactor, failed)
        else:
            if waiting is not None:
                report(f"{waiting.number} is compacted")
            return waiting is not None
        await asyncio.sleep(RETRY_AFTER_S)


async def _report(compactor: Compactor, report: Report) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        report(f"{compactor.totals.readings:,} readings compacted …")
