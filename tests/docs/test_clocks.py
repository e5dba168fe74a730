"""docs/operations.md on device clocks and retention, verified from a device's event to the stored reading."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from persister.app import persister_service
from persister.maintenance.retention import Retention, remove_old
from persister.maintenance.store import MaintenanceStore
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from testing.waiting import eventually
from tests.gateway.harness import ISSUING, RunningGateway, gateway
from tests.reader.harness import Mongo

DAY_MS = 86_400_000
FIRST_OF_2000_MS = 946_684_800_000
SEQ_BITS, MOST_SEQ = 32, 2**52 - 1


class Way:
    """A device's path into MongoDB."""

    def __init__(self, running: RunningGateway, mongo: Mongo, registry: CollectorRegistry) -> None:
        self._running = running
        self._mongo = mongo
        self._registry = registry

    async def answered(self, *readings: dict[str, Any]) -> dict[str, Any]:
        async with self._running.connected({"token": ISSUING.device()}) as client:
            answer: dict[str, Any] = await client.call("readings", list(readings))
            return answer

    async def stored(self, settled: int) -> list[Any]:
        """Return the stored values in key order, once `settled` readings are stored or duplicates."""

        def count(outcome: str) -> float:
            return self._registry.get_sample_value("tidegate_persister_readings_total", {"outcome": outcome}) or 0

        async def are_settled() -> bool:
            return count("stored") + count("duplicate") >= settled

        await eventually(are_settled, f"{settled} readings are settled")
        client: MongoClient[dict[str, Any]]
        with MongoClient(self._mongo[0]) as client:
            found: list[dict[str, Any]] = list(client[self._mongo[1]]["readings"].find().sort("_id", 1))
            return [one["value"] for one in found]


@pytest.fixture
async def way(tmp_path: Path, mongodb_database: Mongo) -> AsyncIterator[Way]:
    url, name = mongodb_database
    settings = PersisterSettings(broker_url="embedded://unused", readings_url=url, readings_database=name)
    registry = CollectorRegistry()
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        gateway(broker) as running,
        persister_service(settings, broker=broker, registry=registry),
    ):
        yield Way(running, mongodb_database, registry)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_time_before_2000_or_beyond_tomorrow_is_rejected_and_the_others_of_its_event_are_taken(
    way: Way,
) -> None:
    readings = [
        {"value": 1, "ts": 12_345},
        {"value": 2, "ts": FIRST_OF_2000_MS - 1},
        {"value": 3, "ts": FIRST_OF_2000_MS},
        {"value": 4, "ts": now_ms() + DAY_MS - 60_000},
        {"value": 5, "ts": now_ms() + DAY_MS + 60_000},
    ]
    answer = await way.answered(*readings)
    assert (answer["status"], answer["accepted"]) == ("partial", 2)
    assert [(one["index"], one["code"]) for one in answer["rejected"]] == [(n, "invalid_ts") for n in (0, 1, 4)]
    assert await way.stored(2) == [3, 4]


async def test_a_clock_that_jumps_back_loses_readings_unless_seq_counts_on_or_ts_is_left_out(way: Way) -> None:
    ts = now_ms()
    for value in (1, 2):
        assert (await way.answered({"value": value, "ts": ts}))["status"] == "accepted"
    assert await way.stored(2) == [1], "the second was accepted, but the first stayed stored"
    for start in (1, 2):
        seq = (start << SEQ_BITS) + 7
        for _ in range(2):  # resent: unchanged
            assert (await way.answered({"value": 10 + start, "ts": ts, "seq": seq}))["status"] == "accepted"
    assert await way.stored(6) == [1, 11, 12]
    for _ in range(2):
        assert (await way.answered({"value": 20}))["status"] == "accepted"
    assert await way.stored(8) == [1, 11, 12, 20, 20]


def test_a_million_starts_of_four_billion_readings_fit_into_seq() -> None:
    assert ((1_000_000 << SEQ_BITS) + 4_000_000_000) <= MOST_SEQ


async def test_what_is_older_than_its_retention_is_taken_and_then_removed_and_another_sensor_type_is_kept(
    way: Way, mongodb_database: Mongo
) -> None:
    now = now_ms()
    old, ahead = now - 40 * DAY_MS, now + DAY_MS // 2
    readings: list[dict[str, Any]] = [
        {"value": 1, "ts": old},
        {"value": 2, "ts": old, "sensorType": "recorded"},
        {"value": 3, "ts": now},
        {"value": 4, "ts": ahead},
    ]
    assert await way.answered(*readings) == {"status": "accepted", "accepted": 4}
    assert sorted(await way.stored(4)) == [1, 2, 3, 4]
    rules = Retention.of(30, ("recorded=0",))
    async with ToMongoDB.connected(*mongodb_database, clustered=False, timeout_s=10) as store:
        assert await remove_old(rules, MaintenanceStore(store.database), now_ms=now) == 1
    assert sorted(await way.stored(4)) == [2, 3, 4]
