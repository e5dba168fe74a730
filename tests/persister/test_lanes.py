"""Two lanes of one worker: live readings first, late ones in between, neither starved, both dead-lettered alike."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from broker.message import Message
from broker.operator.dead_letters import DeadLetter
from broker.topology import BACKFILL, BACKFILL_EXCHANGE, DEAD_LETTERS, READINGS, READINGS_EXCHANGE, Exchange
from persister import lanes
from persister.app import persister_service
from persister.lanes import MAX_WHILE_LIVE, UNBOUNDED, lanes_of
from persister.metrics import PersisterMetrics
from persister.settings import PersisterSettings
from testing.waiting import eventually
from tests.persister.harness import document


async def test_the_backfill_waits_for_live_writes_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    live, backfill = lanes_of(PersisterMetrics(CollectorRegistry()))
    await asyncio.wait_for(backfill.turn(), 0.1)
    with live.writing():
        turn = asyncio.ensure_future(backfill.turn())
        await asyncio.sleep(0.02)
        assert not turn.done()
        with backfill.writing():
            await asyncio.wait_for(live.turn(), 0.1)  # live readings wait for nothing
    await asyncio.wait_for(turn, 0.1)
    monkeypatch.setattr(lanes, "WAIT_S", 0.05)
    with live.writing(), live.writing():
        started = time.monotonic()
        await asyncio.wait_for(backfill.turn(), 5)
        assert time.monotonic() - started >= 0.04


async def test_while_live_readings_come_the_backfill_is_written_in_small_batches_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "LIVE_FOR_S", 0.2)
    live, backfill = lanes_of(PersisterMetrics(CollectorRegistry()))
    with backfill.writing():
        assert await asyncio.wait_for(backfill.turn(), 5) == UNBOUNDED
        with live.writing():
            pass
        turn = asyncio.ensure_future(backfill.turn())
        await asyncio.sleep(0.02)
        assert not turn.done()
    assert await asyncio.wait_for(turn, 5) == MAX_WHILE_LIVE
    await asyncio.sleep(0.25)
    assert await asyncio.wait_for(backfill.turn(), 5) == UNBOUNDED
    assert await live.turn() == UNBOUNDED


async def test_a_write_of_the_backfill_that_does_not_end_is_not_waited_for_for_ever_and_live_ones_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "WAIT_S", 0.3)
    live, backfill = lanes_of(PersisterMetrics(CollectorRegistry()))
    with live.writing():
        pass
    with backfill.writing():
        assert await asyncio.wait_for(backfill.turn(), 5) == MAX_WHILE_LIVE
        turn = asyncio.ensure_future(backfill.turn())
        await asyncio.sleep(0.02)
    with live.writing():
        await asyncio.sleep(0.05)
        assert not turn.done(), "live readings are being written since"
    assert await asyncio.wait_for(turn, 5) == MAX_WHILE_LIVE


async def test_two_live_writes_at_once_are_both_waited_for() -> None:
    live, backfill = lanes_of(PersisterMetrics(CollectorRegistry()))
    with live.writing():
        with live.writing():
            pass
        turn = asyncio.ensure_future(backfill.turn())
        await asyncio.sleep(0.02)
        assert not turn.done()
    await asyncio.wait_for(turn, 0.1)


@asynccontextmanager
async def storing(broker: EmbeddedBroker, mongodb_database: tuple[str, str]) -> AsyncIterator[CollectorRegistry]:
    url, name = mongodb_database
    settings = PersisterSettings(broker_url="embedded://unused", readings_url=url, readings_database=name)
    registry = CollectorRegistry()
    async with persister_service(settings, broker=broker, registry=registry):
        yield registry


async def filled(broker: EmbeddedBroker, exchange: Exchange, start: int, messages: int, each: int) -> None:
    async with broker.publisher(exchange) as publisher:
        for number in range(messages):
            first = start + number * each
            await publisher.publish(Message.of([document(first + one) for one in range(each)]), exchange)


async def test_both_lanes_are_stored_and_a_live_reading_overtakes_a_backlog(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    url, name = mongodb_database
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:
        await filled(broker, BACKFILL_EXCHANGE, 1_000_000, 200, 1000)
        async with storing(broker, mongodb_database) as registry:

            async def draining() -> bool:
                return (registry.get_sample_value("tidegate_persister_readings_total", {"outcome": "stored"}) or 0) > 0

            await eventually(draining, "the backlog is being stored")
            await filled(broker, READINGS_EXCHANGE, 0, 1, 1)
            with MongoClient[dict[str, object]](url) as client:
                collection = client[name]["readings"]

                async def live_is_stored() -> bool:
                    return collection.count_documents({"value": 0}) == 1

                await eventually(live_is_stored, "the live reading is stored")
                assert await broker.depth(BACKFILL) > 0, "and the backlog is not"

                async def all_is_stored() -> bool:
                    return collection.estimated_document_count() == 200_001

                await eventually(all_is_stored, "the backlog is stored too", 60)


async def test_a_late_reading_that_is_no_reading_becomes_a_dead_letter_that_is_replayed_into_its_lane(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:
        async with broker.publisher(BACKFILL_EXCHANGE) as publisher:
            await publisher.publish(Message(b"no document"), BACKFILL_EXCHANGE)
        async with storing(broker, mongodb_database):

            async def is_dead() -> bool:
                return await broker.depth(DEAD_LETTERS) == 1

            await eventually(is_dead, "it is a dead letter")
        async with broker.browser(DEAD_LETTERS) as browser:
            found = [DeadLetter(delivery) async for delivery in browser]
    assert [(one.reason, one.source) for one in found] == [("undecodable", BACKFILL_EXCHANGE)]


async def test_what_the_broker_itself_dead_letters_is_replayed_into_its_lane_too(tmp_path: Path) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:
        await filled(broker, BACKFILL_EXCHANGE, 0, 1, 1)
        await filled(broker, READINGS_EXCHANGE, 0, 1, 1)
        for queue in (BACKFILL, READINGS):
            async with broker.consumer(queue, prefetch=1) as consumer:
                await consumer.reject(await consumer.get())
        async with broker.browser(DEAD_LETTERS) as browser:
            found = [DeadLetter(delivery).source async for delivery in browser]
    assert found == [BACKFILL_EXCHANGE, READINGS_EXCHANGE]
