"""`python -m persister erase` as an operator runs it, and while workers run."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from broker.message import Message
from broker.topology import READINGS_EXCHANGE
from persister.app import persister_service
from persister.command import main
from persister.maintenance import erasure
from persister.maintenance.erase import erase
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document
from readings.reading import Reading
from testing.waiting import eventually

TS = 1_700_000_000_000
Mongo = tuple[str, str]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


async def persister(*arguments: str, **variables: str) -> Ran:
    it = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "persister", *arguments),
        env={"PATH": os.environ["PATH"], **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await it.communicate()
    return Ran(it.returncode or 0, out.decode(), err.decode())


def document(owner: str, device: str, number: int) -> bytes:
    return encode_document(owner, device, Reading("temperature", number, TS + number, 0, TS))


def fill(mongo: Mongo, owner: str, devices: str, readings: int) -> None:
    with MongoClient[dict[str, Any]](mongo[0]) as client:
        database = client[mongo[1]]
        for device in devices:
            documents = [bson.decode(document(owner, device, number)) for number in range(readings)]
            database["readings"].insert_many(documents)
            names = {"owner": owner, "device": device, "sensorType": "temperature"}
            database["series"].insert_one({"_id": names})


def counts(mongo: Mongo) -> dict[str, tuple[int, int]]:
    """How many readings and series each owner has."""
    counted: dict[str, tuple[int, int]] = {}
    with MongoClient[dict[str, Any]](mongo[0]) as client:
        for place, name in enumerate(("readings", "series")):
            for one in client[mongo[1]][name].find({}, {"_id.owner": 1}):
                pair = list(counted.get(one["_id"]["owner"], (0, 0)))
                pair[place] += 1
                counted[one["_id"]["owner"]] = (pair[0], pair[1])
    return counted


async def test_an_owner_is_erased_and_nobody_else(mongodb_database: Mongo) -> None:
    for owner in ("owne", "owner", "owner2"):
        fill(mongodb_database, owner, "az", 1500)
    url, name = mongodb_database
    ran = await persister(
        "erase", "owner", "--yes", READINGS_URL=url, READINGS_DATABASE=name, LOG_FORMAT="json", USER="olga"
    )
    assert ran.code == 0, ran.err
    assert [line.split() for line in ran.out.splitlines()[:3]] == [
        ["before", "after"],
        ["readings", "3,000", "0"],
        ["series", "2", "0"],
    ]
    assert "new readings are kept" in ran.out
    assert counts(mongodb_database) == {"owne": (3000, 2), "owner2": (3000, 2)}
    (audit,) = [json.loads(line) for line in ran.err.splitlines() if line.startswith("{")]
    assert (audit["logger"], audit["owner"], audit["readings"], audit["by"]) == (
        "persister.audit",
        "owner",
        3000,
        "operator",
    )
    again = await persister("erase", "owner", "--yes", "--json", READINGS_URL=url, READINGS_DATABASE=name)
    assert again.code == 0
    assert json.loads(again.out) == {
        "owner": "owner",
        "readingsBefore": 0,
        "seriesBefore": 0,
        "readingsDeleted": 0,
        "readingsAfter": 0,
        "seriesAfter": 0,
    }


async def test_without_yes_nothing_is_erased(mongodb_database: Mongo) -> None:
    fill(mongodb_database, "owner", "a", 3)
    url, name = mongodb_database
    ran = await persister("erase", "owner", READINGS_URL=url, READINGS_DATABASE=name)
    assert ran.code == 2
    assert "--yes" in ran.err
    assert counts(mongodb_database) == {"owner": (3, 1)}


async def test_a_mongodb_that_is_away_is_exit_code_1_and_no_traceback() -> None:
    ran = await persister("erase", "owner", "--yes", READINGS_URL="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300")
    assert ran.code == 1
    assert "MongoDB is away or refused" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase",),
        ("erase", "", "--yes"),
        ("erase", "a", "b", "--yes"),
        ("remove",),
        ("erase", "a", "--y"),
        ("compact", "--json"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("READINGS_URL", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=1")
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_a_missing_setting_is_exit_code_2_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("READINGS_URL", raising=False)
    assert main(["erase", "owner", "--yes"]) == 2
    assert "READINGS_URL" in capsys.readouterr().err


async def test_the_series_of_a_living_owner_are_seen_again_with_their_new_readings(
    mongodb_database: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers know the series, whose documents are erased beneath them while readings come in."""
    monkeypatch.setattr(erasure, "POLL_EVERY_S", 0.2)
    url, name = mongodb_database
    settings = PersisterSettings(broker_url="embedded://unused", readings_url=url, readings_database=name)
    async with EmbeddedBroker.open_at(tmp_path / "queue.sqlite3") as broker, broker.publisher() as publisher:

        async def publish(numbers: range, devices: str) -> None:
            for number in numbers:
                documents = [document("owner", device, number) for device in devices]
                await publisher.publish(Message.of(documents), READINGS_EXCHANGE)

        async with (
            persister_service(settings, broker=broker, registry=CollectorRegistry()),
            persister_service(settings, broker=broker, registry=CollectorRegistry()),
            ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as store,
        ):
            await publish(range(50), "abc")

            async def all_stored() -> bool:
                return counts(mongodb_database).get("owner") == (150, 3)

            await eventually(all_stored, "everything is stored")
            erasing = asyncio.ensure_future(erase(store.database, "owner", lambda _: None, workers_notice_s=1))
            await publish(range(100, 400), "ab")
            erased = await erasing
            assert (erased.readings_before >= 150, erased.series_before) == (True, 3)
            await publish(range(500, 510), "ab")

            async def seen() -> bool:
                readings, series = counts(mongodb_database).get("owner", (0, 0))
                return readings >= 20 and series >= 2

            await eventually(seen, "what was sent since is there, and its series are")
