"""What a reader answers of readings in all places, in the middle of merges, is what it answers if all are in one."""

import itertools
import json
import math
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import bson
import pytest
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from readings.collections import READINGS, SERIES
from readings.document import AS_MILLISECONDS, position_of, received_at_ms
from readings.keys import series_key
from readings.reading import Reading
from storage.places.names import BLOCKS, COLUMNS, PIECES, sealed_name
from storage.places.state import STATE
from testing.servers.mongodb import MongoDBServer
from tests.reader.harness import Mongo, ReaderClient, Response, open_reader, series, user_token
from tests.reader.live_client import Persister, live_client
from tests.reader.parquet_tables import table_of
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, START_MS
from tests.storage.places.layout import Layout, random_layout

SEEDS = range(6)
DEVICES = (DEVICE, "press-2", "press-3")

ONE = {"device": DEVICE, "sensorType": SENSOR_TYPE}
FORMATS = ("csv", "ndjson", "parquet")


@dataclass
class Both:
    """A reader of the layout, and one of the same readings in `readings` alone."""

    places: ReaderClient
    plain: ReaderClient
    layout: Layout
    dice: random.Random

    async def require_same(self, path: str, query: dict[str, Any], *, exactly: bool = True) -> Response:
        found, expected = [
            await one.fetch(path, query, token=user_token(OWNER), headers={"Accept-Encoding": "identity"})
            for one in (self.places, self.plain)
        ]
        assert found.status == expected.status == 200, (found.body, expected.body)
        if query.get("format") == "parquet":  # the order of a dictionary is not part of the table
            assert table_of(found.body).equals(table_of(expected.body))
        elif exactly:
            assert found.body == expected.body, (path, query)
        else:
            require_close(json.loads(found.body), json.loads(expected.body))
        return found

    def time(self) -> int:
        """Return a time among the readings, or close to one."""
        reading = bson.decode(self.dice.choice(self.layout.readings()), AS_MILLISECONDS)
        return position_of(reading)[0] + self.dice.choice([-1, 0, 0, 1])

    def bounds(self) -> dict[str, Any]:
        start, end = sorted((self.time(), self.time()))
        return self.dice.choice([{}, {"from": start}, {"to": end + 1}, {"from": start, "to": end + 1}])


def require_close(found: Any, expected: Any) -> None:
    """Assert that two responses are equal, but for the last digits of averages."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name == "avg" and value is not None:
                assert math.isclose(found[name], value, rel_tol=1e-12, abs_tol=0), (found, expected)
            else:
                require_close(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            require_close(one, other)
    else:
        assert (type(found), repr(found)) == (type(expected), repr(expected))


@pytest.fixture
def databases(mongodb_server: MongoDBServer) -> Iterator[tuple[str, str]]:
    names = mongodb_server.create_database(), mongodb_server.create_database()
    yield names
    for name in names:
        mongodb_server.drop_database(name)


@pytest.fixture(params=SEEDS)
async def both(
    request: pytest.FixtureRequest, broker: EmbeddedBroker, mongodb_server: MongoDBServer, databases: tuple[str, str]
) -> AsyncIterator[Both]:
    dice = random.Random(request.param)
    layout = random_layout(dice, DEVICES)
    mongos: list[Mongo] = [(mongodb_server.url, name) for name in databases]
    with MongoClient[dict[str, Any]](mongodb_server.url) as client:
        places, plain = (client[name] for name in databases)
        for name, documents in layout.collections.items():
            if documents:
                places[name].insert_many(documents)
        plain[READINGS].insert_many(
            [bson.decode(raw, AS_MILLISECONDS) for device in DEVICES for raw in layout.readings(device)]
        )
        for database in (places, plain):
            database[SERIES].insert_many([{"_id": series_key(OWNER, one, SENSOR_TYPE)} for one in DEVICES])
    async with open_reader(broker, mongos[0]) as first, open_reader(broker, mongos[1]) as second:
        yield Both(first, second, layout, dice)


async def test_pages_both_ways(both: Both) -> None:
    for order in ("asc", "desc"):
        for limit in (1000, both.dice.choice([7, 30]), 100):
            query = series(DEVICE, SENSOR_TYPE, order=order, limit=limit) | both.bounds()
            cursor: dict[str, str] = {}
            count = 0
            while True:
                page = await both.require_same("/readings", query | cursor)
                count += len(page.items)
                if "nextCursor" not in page.json:
                    break
                cursor = {"cursor": page.json["nextCursor"]}
            assert count > 0


async def test_exports_of_one_series_and_of_all(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (both.dice.choice([3, 50]), 8192):
        monkeypatch.setattr("storage.places.reading.STREAM_READINGS", size)
        for format_ in FORMATS:
            for chosen in ({}, ONE, ONE | {"order": "desc"}, {"device": list(DEVICES[1:])}):
                limit = both.dice.choice([{}, {}, {"limit": 20}])
                await both.require_same("/readings", {"format": format_} | chosen | limit | both.bounds())
    everything = await both.require_same("/readings", {"format": "csv"})
    assert len(everything.body.splitlines()) == 1 + sum(len(both.layout.readings(device)) for device in DEVICES)


async def test_buckets_of_all_kinds(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    for loose in (both.dice.choice([10, 100]), 65_536):
        monkeypatch.setattr("storage.places.stretches.LOOSE_READINGS", loose)
        for values in ({}, {"values": "number"}, {"values": "all"}):
            for every, zone in (
                *(("1h", None), ("1d", "Europe/Berlin"), ("6h", "Asia/Kolkata"), ("1w", None), ("1M", "Europe/Berlin")),
                *(("36500d", None), ("97m", None)),
            ):
                named = {} if zone is None else {"zone": zone}
                query = ONE | {"every": every} | named | values | both.bounds()
                await both.require_same("/readings/buckets", query, exactly=False)


async def test_gaps(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    for loose, seconds in ((both.dice.choice([10, 100]), 0.0), (65_536, 1.0)):
        monkeypatch.setattr("storage.places.stretches.LOOSE_READINGS", loose)
        monkeypatch.setattr("reader.history.gap_scan.SCAN_S", seconds)
        for device in DEVICES:
            query = {"sensorType": SENSOR_TYPE} | both.bounds()
            answer = await both.require_same(f"/devices/{device}/gaps", query)
            assert "from" in query or "to" in query or answer.json["received"] == len(both.layout.readings(device))


async def test_the_latest_readings_and_the_lists_of_series(both: Both) -> None:
    for _ in range(2):  # the second time from memory
        for path in ("/readings/latest", "/series", "/series/search"):
            answer = await both.require_same(path, {})
            assert len(answer.items) == len(DEVICES)
        await both.require_same("/readings/latest", {"limit": 1})
        await both.require_same("/readings/latest", {"device": DEVICES[1]})


@pytest.mark.parametrize("chosen", [ONE, {}], ids=["one series", "all series"])
async def test_what_a_live_feed_has_missed(
    both: Both, persister: Persister, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]
) -> None:
    monkeypatch.setattr("reader.live.backfill.MAX_AGE_MS", 2**45)
    for first_page in (both.dice.choice([3, 40]), 200):
        monkeypatch.setattr("reader.live.backfill.FIRST_PAGE", first_page)
        seen = bson.decode(both.dice.choice(both.layout.readings()), AS_MILLISECONDS)
        (ts_ms, seq), received_ms = position_of(seen), received_at_ms(seen)
        feeds = []
        for one in (both.places, both.plain):
            after = f"{received_ms}-{ts_ms}-{seq}"
            async with live_client(one, chosen, token=user_token(OWNER), after=after) as feed:
                last = Reading(SENSOR_TYPE, "live", START_MS + 10**10, 0, START_MS + 10**10)
                await persister.broadcast(last, device=DEVICE, owner=OWNER)
                await feed.until(lambda self: "live" in self.values, "live goes on")
                # Without the live reading: the second reader may get that of the first one's turn, too.
                missed = [event for event in feed.events if event.data["value"] != "live"]
                feeds.append([(event.name, event.id, event.data) for event in missed])
        assert feeds[0] == feeds[1]


async def test_a_device_is_known_and_another_is_not(both: Both) -> None:
    far = {"from": START_MS + 10**11}
    assert (await both.require_same("/readings", ONE | far)).items == []
    for one in (both.places, both.plain):
        assert (await one.fetch("/readings", ONE | {"device": "press-4"}, token=user_token(OWNER))).status == 404


async def test_what_is_in_no_list_of_series_yet_is_known_wherever_it_is(
    broker: EmbeddedBroker, mongodb_server: MongoDBServer, databases: tuple[str, str]
) -> None:
    name = databases[0]
    layouts = (random_layout(random.Random(seed)) for seed in itertools.count())
    layout = next(one for one in layouts if len(one.collections) == 6)
    (state,) = [one for one in layout.collections[BLOCKS] if one["_id"] == STATE]
    for place, documents in layout.collections.items():
        with MongoClient[dict[str, Any]](mongodb_server.url) as client:
            client[name][place].insert_many(documents)
            client[name][BLOCKS].replace_one({"_id": STATE}, state, upsert=True)
        async with open_reader(broker, (mongodb_server.url, name)) as reader_client:
            answer = await reader_client.fetch("/readings", ONE | {"from": START_MS + 10**11}, token=user_token(OWNER))
            # Columns are nothing without their head.
            assert answer.status == (404 if place == COLUMNS else 200), place
        mongodb_server.drop_database(name)


def test_the_layouts_have_readings_in_every_place() -> None:
    layouts = [random_layout(random.Random(seed), DEVICES) for seed in SEEDS]
    names = {name for layout in layouts for name, documents in layout.collections.items() if documents}
    assert {READINGS, sealed_name(1), PIECES, BLOCKS, COLUMNS} <= names
