"""What a reader finds over all places, in the middle of merges, is what a model in memory says."""

import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import bson
import numpy as np
import pytest

from readings.document import AS_MILLISECONDS, date_ms, position_of
from readings.keys import Position
from runtime.mongodb import mongodb_client
from storage.codec.columns import Columns
from storage.codec.head import HOUR_MS
from storage.codec.packed import Integers
from storage.codec.sums import Sums, merge, sums_of
from storage.codec.to_documents import documents_of
from storage.places.names import BEGINNING, END
from storage.places.newest import Newest
from storage.places.reading import Places
from storage.places.stored import stored_positions
from storage.places.stretches import Stretch, stretches
from storage.places.window import Window
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, columns
from tests.storage.places.layout import SERIES, Layout, random_layout

SEEDS = range(12)


@pytest.fixture
async def database(mongodb_database: tuple[str, str]) -> AsyncIterator[tuple[Any, str]]:
    url, name = mongodb_database
    async with mongodb_client(url, name="test", timeout_s=10) as client:
        yield client, name


async def laid_out(database: tuple[Any, str], seed: int) -> tuple[Places, Layout, random.Random]:
    client, name = database
    dice = random.Random(seed)
    layout = random_layout(dice)
    await layout.store(client[name])
    return Places(client, name), layout, dice


def position(raw: bytes) -> Position:
    return position_of(bson.decode(raw, AS_MILLISECONDS))


def random_window(readings: list[bytes], dice: random.Random) -> Window:
    ends = sorted(position(dice.choice(readings)) for _ in range(2))
    start, end = dice.choice([ends[0], BEGINNING]), dice.choice([ends[1], END])
    return Window(SERIES, start, end, descending=dice.random() < 0.5)


def within(readings: list[bytes], window: Window) -> list[bytes]:
    found = [each for each in readings if window.start <= position(each) < window.end]
    return found[::-1] if window.descending else found


@pytest.mark.parametrize("seed", SEEDS)
async def test_pages_are_what_the_model_says(
    database: tuple[Any, str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, layout, dice = await laid_out(database, seed)
    monkeypatch.setattr("storage.places.loose.FEW_SEALED", dice.choice([0, 2]))
    readings = layout.readings()
    for _ in range(4):
        window, limit = random_window(readings, dice), dice.choice([7, 30, 100, 1000])
        expected = within(readings, window)
        found: list[bytes] = []
        rest = window
        while page := await places.documents(rest, limit):
            assert len(page) == limit or len(found) + len(page) == len(expected)
            found += page
            rest = rest.behind(position(page[-1]))
        assert found == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_streams_are_what_the_model_says(
    database: tuple[Any, str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, layout, dice = await laid_out(database, seed)
    monkeypatch.setattr("storage.places.reading.STREAM_READINGS", dice.choice([3, 50, 16_384]))
    monkeypatch.setattr("storage.places.loose.FEW_SEALED", dice.choice([0, 2]))
    readings = layout.readings()
    for _ in range(4):
        window, limit = random_window(readings, dice), dice.choice([None, None, 5, 200])
        found: list[bytes] = []
        async with aclosing(places.stream(window, limit)) as batches:
            async for batch in batches:
                found += documents_of(batch)
        assert found == within(readings, window)[:limit]


def hourly(readings: list[bytes]) -> dict[int, Sums]:
    made = columns(readings)
    hours = made.ts // HOUR_MS
    starts = np.flatnonzero(np.diff(hours, prepend=-1))
    return dict(zip((hours[starts] * HOUR_MS).tolist(), sums_of(made, starts), strict=True))


@dataclass
class Buckets:
    """Buckets of one width, counted from 1970."""

    width_ms: int

    def will_do(self, one: Stretch) -> bool:
        return one.first_ms // self.width_ms == one.last_ms // self.width_ms

    def buckets_of(self, first_ms: Integers, last_ms: Integers) -> Integers:
        buckets = first_ms // self.width_ms
        return np.where(buckets == last_ms // self.width_ms, buckets, -1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("width_ms", [HOUR_MS, 24 * HOUR_MS])
async def test_sums_are_what_the_model_says(
    database: tuple[Any, str], seed: int, width_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, layout, dice = await laid_out(database, seed)
    monkeypatch.setattr("storage.places.stretches.LOOSE_READINGS", dice.choice([10, 65_536]))
    monkeypatch.setattr("storage.places.blocks.HEADS_PER_QUERY", dice.choice([1, 2, 3, 500]))
    readings = layout.readings()
    for _ in range(4):
        window = replace(random_window(readings, dice), descending=False)
        expected = within(readings, window)
        found: dict[int, list[Sums]] = {}
        last = BEGINNING[0]
        async for one in stretches(places, window, Buckets(width_ms)):
            first_ms, last_ms = _times(one)
            assert last <= first_ms, "not in order"
            last = last_ms
            for start, sums in _by_bucket(one, width_ms):
                found.setdefault(start, []).append(sums)
        merged = {start: merge(parts) for start, parts in found.items()}
        model = _model(expected, width_ms)
        assert merged.keys() == model.keys()
        for start, sums in merged.items():
            _assert_same(sums, model[start])


def _times(one: Columns | Stretch) -> tuple[int, int]:
    if isinstance(one, Stretch):
        return one.first_ms, one.last_ms
    return int(one.ts[0]), int(one.ts[-1])


def _by_bucket(one: Columns | Stretch, width_ms: int) -> list[tuple[int, Sums]]:
    if isinstance(one, Stretch):
        return [(one.first_ms // width_ms, one.sums)]
    buckets = one.ts // width_ms
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    return list(zip(buckets[starts].tolist(), sums_of(one, starts), strict=True))


def _model(readings: list[bytes], width_ms: int) -> dict[int, Sums]:
    return dict(_by_bucket(columns(readings), width_ms)) if readings else {}


def _assert_same(found: Sums, expected: Sums) -> None:
    assert (found.count, found.booleans, found.texts) == (expected.count, expected.booleans, expected.texts)
    if expected.numbers is None or found.numbers is None:
        assert found.numbers == expected.numbers
        return
    assert found.numbers.sum == pytest.approx(expected.numbers.sum, rel=1e-12, abs=1e-12)
    for name in ("count", "min", "max", "first", "last"):
        assert getattr(found.numbers, name) == getattr(expected.numbers, name)


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_newest_reading_is_what_the_model_says(database: tuple[Any, str], seed: int) -> None:
    places, layout, _ = await laid_out(database, seed)
    newest = Newest(places)
    for _ in range(2):  # the second time from memory
        found = await newest.of(OWNER, [(DEVICE, SENSOR_TYPE), (DEVICE, "another")])
        assert found.keys() == {(DEVICE, SENSOR_TYPE)}
        document = found[DEVICE, SENSOR_TYPE]
        expected = bson.decode(layout.readings()[-1], AS_MILLISECONDS)
        assert document == expected
        assert date_ms(document["receivedAt"]) == date_ms(expected["receivedAt"])


@pytest.mark.parametrize("seed", SEEDS)
async def test_which_of_some_readings_are_stored(database: tuple[Any, str], seed: int) -> None:
    places, layout, dice = await laid_out(database, seed)
    there = [position(each) for each in layout.readings()]
    beside = [(ts + dice.choice([-1, 0, 1]), dice.choice([seq, seq + 1, 2**53 - 1])) for ts, seq in there]
    beside += [(0, 0), (2**53 - 1, 2**53 - 1)]

    @asynccontextmanager
    async def query() -> AsyncIterator[None]:
        yield

    for count in (1, 20, len(there)):
        wanted = sorted({*dice.sample(there, min(count, len(there))), *dice.sample(beside, min(count, len(beside)))})
        parts = stored_positions(places, SERIES, wanted, query)
        found = [one for part in [each async for each in parts] for one in part]
        assert found == [one for one in wanted if one in set(there)]
