"""Readers that page and export while a sealer and a compactor run every 100 ms miss nothing and repeat nothing."""

import asyncio
import random
from collections import Counter
from contextlib import aclosing

from persister.compaction.compactor import CompactionError
from readings.document import id_bytes
from readings.keys import series_key
from runtime.background import background
from storage.codec.to_documents import documents_of
from storage.places.window import Window
from tests.persister.compaction.answers import SENSOR_TYPE, Name, Sensors, position
from tests.persister.compaction.stage import Stage

SECONDS = 8
EVERY_S = 0.1
WALKS_AT_LEAST = 20


async def keep_storing(stage: Stage, sensors: Sensors) -> None:
    while True:
        await stage.write(sensors.batch(40))
        await asyncio.sleep(0.05)


async def keep_sealing(stage: Stage, seals: Counter[str]) -> None:
    while True:
        seals["sealed"] += await stage.sealer.seal(force=True) is not None
        await asyncio.sleep(EVERY_S)


async def keep_compacting(stage: Stage, seals: Counter[str]) -> None:
    compactor = stage.compactor()
    while True:
        try:
            seals["compacted"] += await compactor.compact_next(asyncio.Event()) is not None
        except CompactionError:
            seals["failed"] += 1
        await asyncio.sleep(EVERY_S)


async def walk(stage: Stage, name: Name, dice: random.Random) -> list[bytes]:
    """Read a whole series once, as pages in either direction or as an export."""
    window = Window(series_key(*name, SENSOR_TYPE), descending=dice.random() < 0.5)
    found: list[bytes] = []
    if dice.random() < 0.4:
        async with aclosing(stage.places.stream(window)) as batches:
            async for batch in batches:
                found += documents_of(batch)
        return found
    while page := await stage.places.documents(window, 100):
        found += page
        window = window.behind(position(page[-1]))
        await asyncio.sleep(0.01)
    return found


def min_of(seals: Counter[str]) -> int:
    """Return how many were sealed and compacted, at least."""
    return min(seals["sealed"], seals["compacted"])


async def test_nothing_is_missed_and_nothing_comes_twice(stage: Stage, rng: random.Random) -> None:
    sensors, seals = Sensors(rng), Counter[str]()
    walks, until = 0, asyncio.get_running_loop().time() + SECONDS
    async with (
        background(keep_storing(stage, sensors), name="store"),
        background(keep_sealing(stage, seals), name="seal"),
        background(keep_compacting(stage, seals), name="compact"),
    ):
        while asyncio.get_running_loop().time() < until or walks < WALKS_AT_LEAST or min_of(seals) <= 10:
            name = rng.choice(sensors.names)
            expected = stage.expected(name)
            found = await walk(stage, name, rng)
            by_key = {id_bytes(one): one for one in found}
            assert len(by_key) == len(found), "some came twice"
            missed = [one for one in expected if by_key.get(id_bytes(one)) != one]
            assert not missed, "some were missed, or have another value"
            assert by_key.keys() <= stage.begun
            walks += 1
            assert seals["failed"] == 0
