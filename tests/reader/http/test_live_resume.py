"""A feed that was cut resumes where it was: nothing is missed, and for one series nothing comes twice."""

import asyncio
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from reader.live.backfill import MAX_READINGS, OVERLAP_MS
from runtime.times import now_ms
from tests.reader.backfill_hooks import ONE, QueryHooks, at, last_event_id
from tests.reader.harness import DEVICE, SENSOR, TS, Mongo, ReaderClient, Store, make_reading, open_reader
from tests.reader.live_client import Persister, live_client


async def test_of_one_series_exactly_what_was_missed_comes_and_then_what_is_live(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    await store.insert(*(at(number) for number in range(10)))
    await store.insert(*(at(number, sensor="other") for number in range(10)))
    await store.insert(make_reading("a moment later", TS + 400, 1))
    async with live_client(reader_client, ONE, after=last_event_id(4)) as feed:
        await feed.receives("a moment later", 5, 6, 7, 8, 9)
        await persister.broadcast_documents(await store.insert(at(10)))
        await feed.receives("a moment later", 5, 6, 7, 8, 9, 10)
        missed = (await reader_client.readings(from_=TS + 400)).items[1:]
        assert [event.data for event in feed.events] == missed
        # Each event's id can be resumed from.
        for number, event in enumerate(feed.events):
            async with live_client(reader_client, ONE, after=event.id) as again:
                await again.receives(*feed.values[number + 1 :])


@pytest.mark.parametrize("served", [False, True], ids=["at once", "after a serving"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_is_broadcast_during_the_backfill_comes_once(
    reader_client: ReaderClient, store: Store, persister: Persister, query_hooks: QueryHooks, when: str, served: bool
) -> None:
    await store.insert(*(at(number) for number in range(5)))

    async def meanwhile() -> None:
        # The last one seen, through another reader; one of the gap; and a new one.
        for reading in (at(2), at(4)):
            await persister.broadcast(reading)
            await asyncio.sleep(0.15 if served else 0)
        await persister.broadcast_documents(await store.insert(at(5)))
        await asyncio.sleep(0.15 if served else 0)

    async with live_client(reader_client) as witness:
        setattr(query_hooks, when, meanwhile)
        async with live_client(reader_client, ONE, after=last_event_id(2)) as feed:
            await feed.until(lambda self: 5 in self.values, "what was broadcast meanwhile is received")
            await witness.until(lambda self: 5 in self.values, "it has been served")
            await persister.broadcast_documents(await store.insert(at(6)))
            await feed.until(lambda self: 6 in self.values, "what is broadcast later is received")
            assert feed.values == [3, 4, 5, 6]


async def test_the_last_one_that_was_seen_does_not_come_again_where_nothing_was_missed(
    reader_client: ReaderClient, store: Store, persister: Persister, query_hooks: QueryHooks
) -> None:
    (last,) = await store.insert(at(2))
    served = asyncio.Event()
    async with live_client(reader_client) as witness:

        async def meanwhile() -> None:  # seen by way of another reader, which was faster
            await persister.broadcast_documents([last])
            await witness.until(lambda self: self.values == [2], "it has been served")
            served.set()

        query_hooks.after = meanwhile
        async with live_client(reader_client, ONE, after=last_event_id(2)) as feed:
            await served.wait()
            await persister.broadcast(at(3))
            await feed.receives(3)


async def test_a_gap_is_thinned_as_the_feed_would_have_been(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    await store.insert(*(make_reading(number, TS + number * 10, number % 2) for number in range(100)))
    async with live_client(reader_client, ONE, after=last_event_id(3)) as feed:
        await feed.until(lambda self: 99 in self.values, "the last one is received")
        assert feed.values == [39, 49, 59, 69, 79, 89, 99]
        await persister.broadcast_documents(await store.insert(make_reading(100, TS + 1000)))
        await feed.until(lambda self: 100 in self.values, "what is broadcast later is received")
        assert len(feed.values) == 8


async def test_of_a_gap_that_is_too_long_the_newest_part_comes(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_READINGS >= 1000
    monkeypatch.setattr("reader.live.backfill.MAX_READINGS", 20)
    await store.insert(*(at(number) for number in range(100)))
    async with live_client(reader_client, ONE, after=last_event_id(3)) as feed:
        await feed.receives(*range(80, 100))


@pytest.mark.parametrize("chosen", [{}, {"device": DEVICE}, {"sensorType": SENSOR}])
async def test_of_several_series_nothing_is_missed(
    reader_client: ReaderClient, store: Store, persister: Persister, query_hooks: QueryHooks, chosen: dict[str, str]
) -> None:
    series = [(device, sensor) for device in (DEVICE, "d-2") for sensor in (SENSOR, "s-2")]
    wanted = [
        (device, sensor)
        for device, sensor in series
        if device == chosen.get("device", device) and sensor == chosen.get("sensorType", sensor)
    ]
    began = now_ms() - 60_000

    def reading(number: int, sensor: str) -> Any:
        # Devices' clocks are wrong, each differently: the time of receipt counts.
        off = 86_400_000 if sensor == SENSOR else -86_400_000
        return make_reading(number, began + number * 1000 + off, sensor=sensor, received_ms=began + number * 1000)

    for device, sensor in series:
        await store.insert(*(reading(number, sensor) for number in range(20)), device=device)
    await store.insert(reading(7, SENSOR), owner="other")

    async def meanwhile() -> None:
        for device, sensor in series:
            await persister.broadcast_documents(await store.insert(reading(20, sensor), device=device))

    query_hooks.before = meanwhile
    seen = began + 9000
    async with live_client(reader_client, chosen, after=f"{seen}-1-0") as feed:
        await feed.until(lambda self: self.values.count(20) >= len(wanted), "all are received")
        for device, sensor in series:
            await persister.broadcast_documents(await store.insert(reading(21, sensor), device=device))
        await feed.until(lambda self: self.values.count(21) == len(wanted), "what is broadcast later is received")
    for device, sensor in series:
        found = [
            event.data["value"]
            for event in feed.events
            if (event.data["device"], event.data["sensorType"]) == (device, sensor)
        ]
        assert OVERLAP_MS >= 0
        overlap = OVERLAP_MS // 1000
        assert found == (list(range(10 - overlap, 22)) if (device, sensor) in wanted else [])


async def test_what_was_received_long_ago_is_no_part_of_a_gap_over_several_series(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    await store.insert(
        make_reading("old", received_ms=now_ms() - 11 * 60_000), make_reading("new", TS + 100, received_ms=now_ms())
    )
    async with live_client(reader_client, after="1-1-0") as feed:
        await persister.broadcast(make_reading("live", TS + 200, received_ms=now_ms()))
        await feed.receives("new", "live")


@pytest.mark.parametrize("chosen", [{}, ONE])
async def test_without_mongodb_a_feed_goes_on_with_what_is_live(
    broker: EmbeddedBroker, persister: Persister, chosen: dict[str, str]
) -> None:
    nowhere: Mongo = ("mongodb://127.0.0.1:9", "nowhere")
    async with (
        open_reader(broker, nowhere, query_timeout_seconds=0.2) as reader_client,
        live_client(reader_client, chosen, after=last_event_id(1)) as feed,
    ):
        await persister.broadcast(at(5))
        await feed.receives(5)


async def test_one_who_was_never_here_before_gets_nothing_of_the_past(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    await store.insert(*(at(number) for number in range(10)))
    async with live_client(reader_client, ONE, after="") as feed:
        await persister.broadcast(at(10))
        await feed.receives(10)
