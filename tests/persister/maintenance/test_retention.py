"""Old readings are removed by series and time, and no others."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from persister.collections import JOBS
from persister.maintenance import retention
from persister.maintenance.retention import JOB, Retention, enforce, remove_old
from persister.maintenance.store import MaintenanceStore
from persister.metrics import PersisterMetrics
from persister.sealing.state_document import StateDocument
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document
from readings.reading import Reading
from runtime.settings import SettingsError, from_env
from simulator.replay.file import Replay
from simulator.replay.readings import replay_readings
from storage.places.state import DAY_MS
from testing.waiting import eventually

Mongo = tuple[str, str]
NOW = 1_700_000_000_000
HOUR_MS = 3_600_000
URLS = {"BROKER_URL": "amqp://localhost", "READINGS_URL": "mongodb://localhost"}


@pytest.fixture(params=[False, True], ids=["ordinary", "clustered"])
async def store(request: pytest.FixtureRequest, mongodb_database: Mongo) -> AsyncIterator[ToMongoDB]:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=request.param, timeout_s=10) as connected:
        await connected.prepare()
        yield connected


async def fill(store: ToMongoDB, device: str, sensor_type: str, times: list[int]) -> None:
    documents = [encode_document("owner", device, Reading(sensor_type, 1.5, ts, 0, ts)) for ts in times]
    for start in range(0, len(documents), 4000):
        await store.write(documents[start : start + 4000])
    await store.write_series([{"owner": "owner", "device": device, "sensorType": sensor_type}])


def kept(mongo: Mongo) -> dict[tuple[str, str], list[int]]:
    times: dict[tuple[str, str], list[int]] = {}
    with MongoClient[dict[str, Any]](mongo[0], tz_aware=True) as client:
        for item in client[mongo[1]]["readings"].find().sort("_id", 1):
            key = item["_id"]
            series = times.setdefault((key["device"], key["sensorType"]), [])
            series.append(round(key["ts"].timestamp() * 1000))
    return times


async def test_each_sensor_type_keeps_its_days_to_the_millisecond(store: ToMongoDB, mongodb_database: Mongo) -> None:
    hours = [NOW - hour * HOUR_MS for hour in reversed(range(24 * 100))]
    edge = [NOW - 30 * DAY_MS - 1, NOW - 30 * DAY_MS]
    for device in ("a", "b"):
        await fill(store, device, "temperature", hours)
    await fill(store, "a", "door", hours)
    await fill(store, "a", "vibration", hours)
    await fill(store, "c", "temperature", edge)
    rules = Retention.of(30, ("vibration=7", "door=0"))
    removed = await remove_old(rules, MaintenanceStore(store.database), now_ms=NOW)
    found = kept(mongodb_database)
    last_30 = [ts for ts in hours if ts >= NOW - 30 * DAY_MS]
    assert found["a", "temperature"] == found["b", "temperature"] == last_30
    assert found["a", "vibration"] == [ts for ts in hours if ts >= NOW - 7 * DAY_MS]
    assert found["a", "door"] == hours
    assert found["c", "temperature"] == edge[1:]
    assert removed == 4 * len(hours) + 2 - sum(map(len, found.values()))
    assert await remove_old(rules, MaintenanceStore(store.database), now_ms=NOW) == 0


def recorded(path: Path, rows: int) -> Path:
    """Write a file as a machine records it: every five minutes, with gaps, and an hour repeated by a clock set back."""
    first = datetime(2023, 3, 1, tzinfo=UTC)
    minutes = [5 * row for row in range(rows) if row % 1000 < 980]
    minutes[500:500] = minutes[488:500]
    lines = [f"{first + timedelta(minutes=minute):%Y-%m-%d %H:%M:%S},{minute / 7:.9f}" for minute in minutes]
    path.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    return path


async def test_of_a_replayed_recording_the_last_days_stay(
    store: ToMongoDB, mongodb_database: Mongo, tmp_path: Path
) -> None:
    file = Replay(recorded(tmp_path / "recorded.csv", 20_000))
    points = list(replay_readings(file, "temperature"))
    documents = [
        encode_document("owner", "a", Reading(reading.sensor_type, reading.value, reading.ts, reading.seq, NOW))
        for reading in points
    ]
    for start in range(0, len(documents), 4000):
        await store.write(documents[start : start + 4000])
    await store.write_series([{"owner": "owner", "device": "a", "sensorType": "temperature"}])
    end = max(reading.ts for reading in points)
    removed = await remove_old(Retention(30), MaintenanceStore(store.database), now_ms=end)
    last_30 = sorted(reading.ts for reading in points if reading.ts >= end - 30 * DAY_MS)
    assert kept(mongodb_database)["a", "temperature"] == last_30
    assert removed == len(points) - len(last_30)
    assert 0 < len(last_30) < len(set(points)) == len(points)


async def test_writes_go_on_meanwhile_and_nothing_new_is_removed(store: ToMongoDB, mongodb_database: Mongo) -> None:
    old = [NOW - 400 * DAY_MS + number for number in range(30_000)]
    await fill(store, "a", "temperature", old)
    removing = asyncio.ensure_future(remove_old(Retention(30), MaintenanceStore(store.database), now_ms=NOW))
    slowest, number = 0.0, 0
    while not removing.done():
        started = time.monotonic()
        await fill(store, "a", "temperature", [NOW + number])
        slowest = max(slowest, time.monotonic() - started)
        number += 1
    assert await removing == 30_000
    print(f"{number} writes while 30,000 readings were removed, the slowest took {slowest * 1000:.0f} ms")
    assert kept(mongodb_database)["a", "temperature"] == list(range(NOW, NOW + number))
    assert number > 10


async def test_one_worker_does_it_and_the_next_round_waits(
    mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHECK_EVERY_S", 0.1)
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as store:
        await store.prepare()
        await fill(store, "a", "temperature", [1_000_000_000_000 + number for number in range(100)])
        registries = [CollectorRegistry(), CollectorRegistry()]
        workers = [
            asyncio.ensure_future(
                enforce(
                    Retention(1),
                    MaintenanceStore(store.database),
                    StateDocument(store.database),
                    PersisterMetrics(registry),
                )
            )
            for registry in registries
        ]

        async def gone() -> bool:
            return not kept(mongodb_database)

        await eventually(gone, "the old readings are removed")
        await asyncio.sleep(0.3)
        assert not await MaintenanceStore(store.database).claim_job(JOB)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
    labels = {"why": "retention"}
    assert sum(one.get_sample_value("tidegate_persister_removed_total", labels) or 0 for one in registries) == 100


async def test_where_everything_is_kept_nothing_is_removed(store: ToMongoDB) -> None:
    metrics = PersisterMetrics(CollectorRegistry())
    for rules in (Retention(), Retention.of(0, ("door=0",))):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                enforce(rules, MaintenanceStore(store.database), StateDocument(store.database), metrics), 0.5
            )
    assert await store.database[JOBS].count_documents({}) == 0


def test_the_settings_of_retention() -> None:
    settings = from_env(
        PersisterSettings, {**URLS, "RETENTION_DAYS": "30", "RETENTION_DAYS_BY_SENSOR_TYPE": "a:b=7, door=0"}
    )
    rules = settings.retention()
    assert [rules.days_of(name) for name in ("a:b", "door", "other")] == [7, 0, 30]


@pytest.mark.parametrize("text", ["door", "door=", "=3", "door=-1", "door=1.5", "door=1,door=2"])
def test_a_wrong_override_stops_the_start_and_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="RETENTION_DAYS_BY_SENSOR_TYPE"):
        from_env(PersisterSettings, {**URLS, "RETENTION_DAYS_BY_SENSOR_TYPE": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("RETENTION_DAYS", "100000001"), ("RETENTION_DAYS", "200000000000")),
        ("RETENTION_DAYS_BY_SENSOR_TYPE", "door=99999999999999999999"),
    ],
)
def test_more_days_than_mongodbs_calendar_has_stop_the_start_and_are_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: at most 100,000,000 days"):
        from_env(PersisterSettings, {**URLS, name: text})
    assert from_env(PersisterSettings, {**URLS, "RETENTION_DAYS": "100000000"}).retention_days == retention.MAX_DAYS
