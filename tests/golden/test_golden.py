"""What processes of an earlier version wrote is read by this one: messages of every kind, and stored documents."""

import asyncio
import json
import os
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import bson
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from broker.connect import open_broker
from broker.live import live_readings
from broker.presence import Alive, Connected, Disconnected, decode_event
from broker.rabbitmq.broker import RabbitMQBroker
from testing.waiting import eventually
from tests.integration.services import ROOT, started
from tests.reader.harness import Mongo, ReaderClient, open_reader, user_token

FOLDERS = sorted(file.parent for file in Path(__file__).parent.glob("*/messages.json"))
PLACES = ("readings", "readings.pieces", "readings.columns")


@dataclass
class Golden:
    """The files of one version."""

    messages: dict[str, list[dict[str, Any]]]
    stored: dict[str, list[str]]
    answers: dict[str, Any]

    @property
    def owner(self) -> str:
        return str(self.answers["owner"])

    @property
    def documents(self) -> list[bytes]:
        return [b64decode(one) for one in self.stored["readings"]]

    @property
    def series(self) -> list[bytes]:
        return [b64decode(one) for one in self.stored["series"]]

    def insert(self, mongo: Mongo) -> None:
        """Store its documents, byte for byte."""
        with MongoClient[RawBSONDocument](mongo[0]) as client:
            client[mongo[1]]["readings"].insert_many([RawBSONDocument(one) for one in self.documents])
            client[mongo[1]]["series"].insert_many([RawBSONDocument(one) for one in self.series])


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    names = ("messages", "stored", "answers")
    return Golden(*(json.loads((request.param / f"{name}.json").read_text()) for name in names))


@pytest.fixture
def settings(mongodb_database: Mongo) -> dict[str, str]:
    return {"READINGS_URL": mongodb_database[0], "READINGS_DATABASE": mongodb_database[1]}


@pytest.fixture
def stored(mongodb_database: Mongo) -> Iterator["Stored"]:
    with MongoClient[RawBSONDocument](mongodb_database[0], document_class=RawBSONDocument) as client:
        yield Stored(client[mongodb_database[1]])


class Stored:
    """What is in the database."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def raw(self, name: str) -> list[bytes]:
        return [one.raw for one in self._database[name].find().sort("_id", 1)]

    def count(self) -> int:
        return sum(self._database[name].count_documents({}) for name in PLACES)


async def published(url: str, messages: Sequence[dict[str, Any]]) -> None:
    """Publish messages as they were, and wait until they are confirmed."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for one in messages:
            exchange = await channel.get_exchange(one["exchange"], ensure=False)
            message = aio_pika.Message(
                b64decode(one["body"]),
                headers=one["headers"],
                content_type=one["contentType"],
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, one["routingKey"], mandatory=True)


async def run(*arguments: str, **settings: str) -> str:
    """Run `python -m …` and return its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments), cwd=ROOT, env=os.environ | settings, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def test_a_folder_has_been_recorded() -> None:
    assert [folder.name for folder in FOLDERS][:1] == ["91c8e3c"]


async def test_its_messages_are_stored_as_it_stored_them_and_once_when_they_come_again(
    golden: Golden, rabbitmq_url: str, settings: dict[str, str], stored: Stored
) -> None:
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    async with started("persister", BROKER_URL=rabbitmq_url, **settings) as persister:

        async def same() -> bool:
            return await asyncio.to_thread(stored.raw, "readings") == golden.documents

        await published(rabbitmq_url, golden.messages["readings"])
        await eventually(same, "the same documents are stored, byte for byte")
        await published(rabbitmq_url, golden.messages["readings"])
        assert await persister.stop() == 0
    assert stored.raw("readings") == golden.documents
    keys = [[bson.decode(one)["_id"] for one in series] for series in (stored.raw("series"), golden.series)]
    assert keys[0] == keys[1]


async def answers(reader: ReaderClient, golden: Golden) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for sensor_type in golden.answers["series"]:
        query = {"device": golden.answers["device"], "sensorType": sensor_type, "format": "ndjson", "from": 0}
        response = await reader.fetch("/readings", query, token=user_token(golden.owner))
        assert response.status == 200, response.body
        found[sensor_type] = [json.loads(line) for line in response.body.decode().split("\n") if line]
    return found


async def test_its_documents_are_answered_as_its_reader_answered_them_also_from_blocks(
    golden: Golden, tmp_path: Path, mongodb_database: Mongo, settings: dict[str, str], stored: Stored
) -> None:
    golden.insert(mongodb_database)
    async with (
        open_broker(f"embedded://{tmp_path / 'queue.db'}") as broker,
        open_reader(broker, mongodb_database) as reader,
    ):
        assert repr(await answers(reader, golden)) == repr(golden.answers["series"])
        await run("persister", "compact", "--all", **settings)
        assert not stored.raw("readings")
        assert stored.count() > 0
        assert repr(await answers(reader, golden)) == repr(golden.answers["series"])


async def test_its_dead_letters_are_listed_with_their_reason_and_their_bytes(golden: Golden, rabbitmq_url: str) -> None:
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    await published(rabbitmq_url, golden.messages["dead"])
    shown = await run("broker", "dead-letters", "show", "--json", BROKER_URL=rabbitmq_url)
    (letter,) = [json.loads(line) for line in shown.splitlines()]
    (recorded,) = golden.messages["dead"]
    assert letter["reason"] == recorded["headers"]["x-reason"]
    assert recorded["body"] in letter.values() or b64decode(recorded["body"]).hex() in letter.values(), letter


@pytest.mark.parametrize("compacted", [False, True], ids=["documents", "blocks"])
async def test_its_deleted_owners_are_erased(
    golden: Golden,
    compacted: bool,
    rabbitmq_url: str,
    mongodb_database: Mongo,
    settings: dict[str, str],
    stored: Stored,
) -> None:
    golden.insert(mongodb_database)
    if compacted:
        await run("persister", "compact", "--all", **settings)
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    await published(rabbitmq_url, golden.messages["ownersDeleted"])
    assert stored.count() > 0
    async with started("persister", BROKER_URL=rabbitmq_url, **settings):

        async def erased() -> bool:
            return not await asyncio.to_thread(stored.count) and not stored.raw("series")

        await eventually(erased, "nothing of the owner is left")


def test_its_live_readings_are_understood(golden: Golden) -> None:
    found = [one for message in golden.messages["live"] for one in live_readings(b64decode(message["body"]))]
    assert found
    for one in found:
        assert (one.owner, one.device) == (golden.owner, golden.answers["device"])
        assert one.document in golden.documents
        assert one.decoded()["value"] == bson.decode(one.document)["value"]


def test_its_presence_is_understood(golden: Golden) -> None:
    events = [decode_event(b64decode(one["body"])) for one in golden.messages["presence"]]
    assert {type(event) for event in events} == {Connected, Disconnected, Alive}
