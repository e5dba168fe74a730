"""What a reader does not show: readings past their retention in any place, and what is damaged, alone."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId
from motor.motor_asyncio import AsyncIOMotorClient

from broker.embedded.broker import EmbeddedBroker
from readings.collections import READINGS, SERIES
from readings.document import AS_MILLISECONDS
from readings.keys import Position, series_key
from runtime.times import now_ms
from storage.places.documents import piece_document
from storage.places.names import BEGINNING, BLOCKS, COLUMNS, END, PIECES, sealed_name
from storage.places.state import DAY_MS, STATE
from testing.waiting import eventually
from tests.reader.harness import Mongo, ReaderClient, Response, open_reader, user_token
from tests.reader.parquet_tables import table_of
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, START_MS, columns, document
from tests.storage.places.layout import SERIES as ONE_SERIES
from tests.storage.places.layout import Layout, add_block, newest_of

ONE = {"device": DEVICE, "sensorType": SENSOR_TYPE}
HOUR_MS = 3_600_000


class World:
    """A reader, and its database, in which a test lays out the readings of one series."""

    def __init__(self, reader_client: ReaderClient, database: Any) -> None:
        self._reader = reader_client
        self.database = database
        self.layout = Layout()

    async def fetch(self, path: str, **query: Any) -> Response:
        return await self._reader.fetch(path, ONE | query, token=user_token(OWNER))

    async def store(self, **state: Any) -> None:
        named = {"_id": STATE, "highest": Int64(9), "waiting": [{"number": Int64(9)}], "blocks": True}
        self.layout.collections.setdefault(BLOCKS, []).append(named | state)
        await self.layout.store(self.database)
        await self.database[SERIES].insert_one({"_id": series_key(OWNER, DEVICE, SENSOR_TYPE)})

    def documents(self, place: str, made: list[bytes]) -> None:
        self.layout.collections[place] = [bson.decode(one, AS_MILLISECONDS) for one in made]

    def piece(self, made: list[bytes]) -> None:
        part = columns(made, 2)
        piece = piece_document(ONE_SERIES, 0, ObjectId(), part, newest_of(part))
        self.layout.collections.setdefault(PIECES, []).append(piece)

    def block(self, made: list[bytes], start: Position = BEGINNING, until: Position = END) -> None:
        add_block(self.layout, columns(made, 1), start, until, pending=False)


@pytest.fixture
async def world(broker: EmbeddedBroker, mongodb_database: Mongo) -> AsyncIterator[World]:
    client: Any = AsyncIOMotorClient(mongodb_database[0])
    async with open_reader(broker, mongodb_database) as reader_client:
        yield World(reader_client, client[mongodb_database[1]])
    client.close()


async def test_nothing_past_its_retention_is_shown_from_any_place(world: World) -> None:
    limit_ms = now_ms() - 2 * DAY_MS
    # By each place some hours before and behind the limit.
    old = {place: limit_ms - number * HOUR_MS for number, place in enumerate(("block", "piece", "sealed", "hot"), 1)}
    kept = {place: limit_ms + number * HOUR_MS for number, place in enumerate(("block", "piece", "sealed", "hot"), 1)}
    both = {place: [document(f"old {place}", old[place]), document(place, kept[place])] for place in kept}
    world.block(both["block"])
    world.piece(both["piece"])
    world.documents(sealed_name(9), both["sealed"])
    world.documents(READINGS, both["hot"])
    await world.store(retention={"days": 30, "bySensorType": {SENSOR_TYPE: 2}})
    for order in (1, -1):
        shown = (await world.fetch("/readings", order="asc" if order > 0 else "desc")).items
        assert [item["value"] for item in shown] == ["block", "piece", "sealed", "hot"][::order]
    assert len((await world.fetch("/readings", format="csv")).body.splitlines()) == 5
    assert len((await world.fetch("/readings", format="ndjson", to=limit_ms)).body.splitlines()) == 0
    assert table_of((await world.fetch("/readings", format="parquet")).body).num_rows == 4
    for bounds in ({}, {"from": limit_ms - DAY_MS, "to": limit_ms + DAY_MS}):
        buckets = (await world.fetch("/readings/buckets", every="36500d", values="all", **bounds)).items
        assert [(item["count"], item["texts"]["first"]) for item in buckets] == [(4, "block")]
    await world.database[READINGS].delete_many({})
    assert [item["value"] for item in (await world.fetch("/readings/latest")).items] == ["sealed"]
    state = {"$set": {"retention": {"days": 1, "bySensorType": {}}}}
    await world.database[BLOCKS].update_one({"_id": STATE}, state)
    assert (await world.fetch("/readings/latest")).items == []

    # A page may take the state of a second ago.
    async def are_shown(number: int) -> bool:
        return len((await world.fetch("/readings")).items) == number

    await eventually(partial(are_shown, 0), "a page knows of the shorter retention")
    await world.database[BLOCKS].update_one({"_id": STATE}, {"$unset": {"retention": 1}})
    await eventually(partial(are_shown, 6), "a page knows that there is no retention")
    assert [item["value"] for item in (await world.fetch("/readings/latest")).items] == ["sealed"]


EACH = 200
MIDDLE = START_MS + EACH * 1000


def spoil_columns(documents: dict[str, list[dict[str, Any]]]) -> None:
    documents[COLUMNS][0]["data"] = documents[COLUMNS][0]["data"][:-40] + b"x" * 40


def remove_columns(documents: dict[str, list[dict[str, Any]]]) -> None:
    del documents[COLUMNS][0]


def remove_data(documents: dict[str, list[dict[str, Any]]]) -> None:
    documents[COLUMNS][0]["data"] = "text"


def spoil_head(documents: dict[str, list[dict[str, Any]]]) -> None:
    documents[BLOCKS][0] |= {"version": 77, "columns": None}


def spoil_sums(documents: dict[str, list[dict[str, Any]]]) -> None:
    documents[BLOCKS][0] |= {"numbers": "text", "lastSeal": None}


def spoil_piece(documents: dict[str, list[dict[str, Any]]]) -> None:
    documents[PIECES][0]["columns"] = b"\1\2\3"


def shorten_piece(documents: dict[str, list[dict[str, Any]]]) -> None:
    documents[PIECES][0] |= {"run": None, "columns": 5}


DAMAGES = [spoil_columns, remove_columns, remove_data, spoil_head, spoil_sums, spoil_piece, shorten_piece]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_damaged_hides_only_itself(
    world: World, damage: Callable[[dict[str, list[dict[str, Any]]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("moving", "stretches"):
        monkeypatch.setattr(f"storage.places.{module}.PAUSE_S", 0.001)
    made = [document(float(number), START_MS + number * 1000) for number in range(2 * EACH)]
    world.block(made[:EACH], until=(MIDDLE, 0))
    world.block(made[EACH:], start=(MIDDLE, 0))
    world.piece([document("late", START_MS + 500)])
    world.piece([document("late", MIDDLE + 500)])
    damage(world.layout.collections)
    await world.store(waiting=[])
    page = (await world.fetch("/readings", order="desc", limit=150)).items
    assert [page[0]["value"], page[-1]["value"]] == [2.0 * EACH - 1, 2.0 * EACH - 150]
    rows = (await world.fetch("/readings", format="csv", **{"from": MIDDLE + 1})).body.splitlines()
    assert len(rows) == 1 + EACH
    buckets = (await world.fetch("/readings/buckets", every="1h", **{"from": MIDDLE + 1, "to": MIDDLE + 10**8})).items
    assert sum(item["count"] for item in buckets) == EACH - 1
    assert [item["value"] for item in (await world.fetch("/readings/latest")).items] == [2.0 * EACH - 1]
    for path, query in (("/readings", {}), ("/readings", {"format": "csv"}), ("/readings/buckets", {"every": "1m"})):
        answer = await world.fetch(path, **query)
        assert (answer.status, answer.json["code"]) == (503, "unavailable"), (path, query, answer.body[:300])
