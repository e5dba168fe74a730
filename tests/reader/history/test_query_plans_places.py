"""The plans of a reader's commands over sealed collections, pieces and blocks: each scans a range of the one key."""

from collections.abc import AsyncIterator
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId
from motor.motor_asyncio import AsyncIOMotorClient

from reader.history.bucket_boundaries import BucketWidth, boundaries
from reader.history.bucket_statistics import SUMMARY
from reader.history.from_mongodb import Range
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS, position_of
from storage.places.documents import piece_document
from storage.places.names import BEGINNING, BLOCKS, COLUMNS, END, PIECES, sealed_name
from storage.places.state import STATE
from tests.reader.harness import Mongo
from tests.reader.query_plans import HARMLESS, RANGES, Explained, Plan, Recorder, cursors_of, stages
from tests.storage.codec.cases import SENSOR_TYPE, START_MS, columns, document
from tests.storage.places.layout import SERIES, Layout, add_block, newest_of

OWNERS, DEVICES = ("alice", "bob", "carol"), ("d-1", "d-2", "d-3")
BLOCKS_EACH, BLOCK_READINGS, PIECES_EACH, DOCUMENTS_EACH = 20, 10, 5, 30
SEALED = (sealed_name(7), sealed_name(8))
STEP_MS = 1000
# Behind all blocks.
LATE_MS = START_MS + BLOCKS_EACH * BLOCK_READINGS * STEP_MS
# Readings of one series that are in `readings` and sealed collections.
LOOSE = (len(SEALED) + 1) * DOCUMENTS_EACH


def laid_out() -> Layout:
    """Lay out one series: blocks, pieces over them all, and then documents in sealed collections and `readings`."""
    layout = Layout()
    starts = [(START_MS + number * BLOCK_READINGS * STEP_MS, 0) for number in range(BLOCKS_EACH)]
    for (start_ms, _), start, until in zip(starts, [BEGINNING, *starts[1:]], [*starts[1:], END], strict=True):
        made = [document(1.5, start_ms + n * STEP_MS) for n in range(BLOCK_READINGS)]
        add_block(layout, columns(made, 1), start, until, pending=False)
    layout.collections[PIECES] = []
    for number in range(PIECES_EACH):
        part = columns([document(2.5, START_MS + number + n * STEP_MS * 50 + 500) for n in range(4)], number + 2)
        layout.collections[PIECES].append(piece_document(SERIES, 0, ObjectId(), part, newest_of(part)))
    for number, name in enumerate((*SEALED, READINGS)):
        made = [document(3.5, LATE_MS + (number * DOCUMENTS_EACH + n) * STEP_MS) for n in range(DOCUMENTS_EACH)]
        layout.collections[name] = [bson.decode(one, AS_MILLISECONDS) for one in made]
    return layout


@pytest.fixture
async def explained(mongodb_database: Mongo) -> AsyncIterator[Explained]:
    recorder = Recorder()
    client: Any = AsyncIOMotorClient(mongodb_database[0], timeoutMS=10_000, event_listeners=[recorder])
    database = client[mongodb_database[1]]
    for name, documents in laid_out().collections.items():
        for owner in OWNERS:
            for device in DEVICES:
                mine = [one | {"_id": one["_id"] | {"owner": owner, "device": device}} for one in documents]
                if name == PIECES:
                    mine = [one | {"_id": one["_id"] | {"id": ObjectId()}} for one in mine]
                await database[name].insert_many(mine)
    listed = [{"number": Int64(number), "renamed": True} for number in (7, 8)]
    await database[BLOCKS].insert_one({"_id": STATE, "highest": Int64(8), "waiting": listed, "blocks": True})
    recorder.commands = []
    yield Explained(client, mongodb_database[1], recorder)
    client.close()


async def require_ranges(explained: Explained, most: dict[str, int], *, sorted_pieces: bool = False) -> list[str]:
    """Assert that each plan scans ranges of `_id` and examines at most as much as given; return their collections."""
    names = []
    for name, plan in await explained.named_plans():
        names.append(name)
        for cursor in cursors_of(plan):
            winning = {stage["stage"] for stage in stages(cursor["queryPlanner"]["winningPlan"])}
            if "IDHACK" in winning and winning <= {"IDHACK"} | HARMLESS:
                continue
            allowed = {"SORT"} if sorted_pieces and name == PIECES else set()
            assert winning & RANGES, (name, winning)
            assert winning <= RANGES | HARMLESS | allowed, (name, winning)
            require_few(name, cursor, most[name])
    return names


def require_few(name: str, cursor: Plan, most: int) -> None:
    stats = cursor["executionStats"]
    assert stats["totalDocsExamined"] <= most, (name, stats["totalDocsExamined"])
    assert stats["totalKeysExamined"] <= most + 3, (name, stats["totalKeysExamined"])


@pytest.mark.parametrize("descending", [False, True], ids=["asc", "desc"])
async def test_a_page_within_the_blocks(explained: Explained, descending: bool) -> None:
    middle = START_MS + 100 * STEP_MS
    from_ms, to_ms = (None, middle) if descending else (middle, None)
    found = await explained.history.page("bob", Range("d-2", SENSOR_TYPE, from_ms, to_ms, descending), 7)
    assert len(found) == 7
    most = {READINGS: 7, SEALED[0]: 7, SEALED[1]: 7, PIECES: PIECES_EACH, BLOCKS: 1, COLUMNS: 1}
    names = await require_ranges(explained, most)
    assert names[:4] == [READINGS, *(SEALED[::-1] if descending else SEALED), PIECES]
    # The head of the first block comes with the pieces.
    assert set(names[4:]) == ({COLUMNS} if descending else {BLOCKS, COLUMNS})


async def test_the_newest_page_needs_no_other_place(explained: Explained) -> None:
    found = await explained.history.page("bob", Range("d-2", SENSOR_TYPE, descending=True), 7)
    assert position_of(found[0])[0] == LATE_MS + (LOOSE - 1) * STEP_MS
    most = {READINGS: 7, SEALED[0]: 0, SEALED[1]: 0, PIECES: PIECES_EACH, BLOCKS: 1}
    # One question for both sealed collections.
    assert await require_ranges(explained, most) == [READINGS, SEALED[1], PIECES]


async def test_a_stream_opens_each_block_once(explained: Explained) -> None:
    parts = [part async for part in explained.history.stream_columns("bob", Range("d-2", SENSOR_TYPE))]
    count = BLOCKS_EACH * BLOCK_READINGS + PIECES_EACH * 4 + LOOSE
    assert sum(map(len, parts)) == count
    most = dict.fromkeys((READINGS, *SEALED), DOCUMENTS_EACH) | {PIECES: PIECES_EACH, BLOCKS: 1, COLUMNS: 1}
    names = await require_ranges(explained, most)
    assert names.count(COLUMNS) == BLOCKS_EACH
    assert len(names) == 3 + 2 * BLOCKS_EACH  # the head of the first block comes with the pieces


async def test_buckets_read_the_heads_of_their_range_together(explained: Explained) -> None:
    start, end = START_MS + 50 * STEP_MS, START_MS + 150 * STEP_MS
    bounds = boundaries(BucketWidth(1, "d"), None, start, end, 1000)
    buckets = await explained.history.buckets("bob", Range("d-2", SENSOR_TYPE, start, end), bounds, SUMMARY)
    assert sum(bucket["count"] for bucket in buckets) == 100 + PIECES_EACH * 2
    most = dict.fromkeys((READINGS, *SEALED), 0) | {PIECES: PIECES_EACH, BLOCKS: 11, COLUMNS: 1}
    names = await require_ranges(explained, most)
    assert names.count(BLOCKS) == 2


async def test_the_newest_readings(explained: Explained) -> None:
    series = [(device, SENSOR_TYPE) for device in DEVICES]
    found = await explained.history.newest("bob", series)
    assert {position_of(one)[0] for one in found if one} == {LATE_MS + (LOOSE - 1) * STEP_MS}
    most = dict.fromkeys((READINGS, *SEALED, BLOCKS), 1) | {PIECES: PIECES_EACH}
    names = await require_ranges(explained, most, sorted_pieces=True)
    assert names == [READINGS, *SEALED, PIECES, BLOCKS]
    await explained.history.newest("bob", series)
    assert await require_ranges(explained, most) == [READINGS]
    before = await explained.history.newest_before("bob", series, START_MS + 105 * STEP_MS)
    assert {position_of(one)[0] for one in before if one} == {START_MS + 104 * STEP_MS}


async def test_the_series_with_readings_in_a_range(explained: Explained) -> None:
    series = [(device, SENSOR_TYPE) for device in (*DEVICES, "d-4")]
    for start_ms, first in ((START_MS + 20 * STEP_MS, PIECES), (LATE_MS, sealed_name(7))):
        found = await explained.history.in_range("bob", series, start_ms, start_ms + 40 * STEP_MS)
        assert found == series[:3]
        most = dict.fromkeys((READINGS, *SEALED, BLOCKS), 1) | {PIECES: PIECES_EACH}
        assert first in await require_ranges(explained, most)


async def test_whether_a_device_is_known(explained: Explained) -> None:
    assert await explained.history.has_device("bob", "d-2")
    assert not await explained.history.has_device("bob", "d-22")
    for name, plan in await explained.named_plans():
        winning = {stage["stage"] for stage in stages(plan["queryPlanner"]["winningPlan"])}
        assert winning <= RANGES | HARMLESS | {"EOF"}, name
        require_few(name, plan, 1)
