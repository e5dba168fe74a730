"""`GET /live`: readings as they are stored, filtered and thinned."""

import asyncio
import time

import pytest

from broker.embedded.broker import EmbeddedBroker
from readings.place import Place
from runtime.times import now_ms
from tests.reader.harness import (
    OWNER,
    TS,
    Mongo,
    ReaderClient,
    Store,
    make_reading,
    open_reader,
    series,
    user_token,
)
from tests.reader.live_client import Persister, live_client


@pytest.fixture
def persister(broker: EmbeddedBroker) -> Persister:
    return Persister(broker)


async def test_an_event_has_the_reading_as_history_has_it_and_its_place_as_id(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    place = Place(48.1, 11.5)
    full = make_reading(
        'line\nof "text" \u00e4', TS, 7, unit="u", location=place, tags={"a": "b\r\nevent: x"}, quality="bad"
    )
    bare = make_reading(2**63 - 1, TS + 500, received_ms=TS + 9)
    documents = await store.insert(full, bare)
    async with live_client(reader_client) as feed:
        await persister.broadcast_documents(documents[:1])
        await feed.receives(full.value)
        await persister.broadcast_documents(documents[1:])
        await feed.receives(full.value, bare.value)
    assert [event.data for event in feed.events] == (await reader_client.readings()).items
    assert [event.name for event in feed.events] == ["reading", "reading"]
    assert [event.id for event in feed.events] == [f"{TS + 250}-{TS}-7", f"{TS + 9}-{TS + 500}-0"]


async def test_the_answer_is_one_that_browsers_and_proxies_hand_on_as_it_comes(reader_client: ReaderClient) -> None:
    async with live_client(reader_client) as feed:
        headers = feed.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in headers
        assert int(feed.retry) > 0
    head = await reader_client.fetch("/live", method="HEAD")
    assert (head.status, head.headers["Content-Type"], head.body) == (200, "text/event-stream", b"")


SERIES = [("d-1", "a"), ("d-1", "b"), ("d-2", "a"), ("d-2", "b"), ("d-1:", "a")]
FILTERS: dict[str, dict[str, str]] = {
    "all": {},
    "a device": {"device": "d-1"},
    "a sensor type": {"sensorType": "a"},
    "both": {"device": "d-2", "sensorType": "b"},
    "nothing": {"device": "nobody"},
}


async def test_each_follower_has_what_matches_its_filter_and_of_its_owner_only(
    reader_client: ReaderClient, persister: Persister
) -> None:
    for owner in (OWNER, "other"):
        token = user_token(owner)
        async with (
            live_client(reader_client, FILTERS["all"], token=token) as all_pages,
            live_client(reader_client, FILTERS["all"], token=token) as again,
            live_client(reader_client, FILTERS["a device"], token=token) as one_device,
            live_client(reader_client, FILTERS["a sensor type"], token=token) as one_sensor,
            live_client(reader_client, FILTERS["both"], token=token) as one_series,
            live_client(reader_client, FILTERS["nothing"], token=token) as nothing,
        ):
            for sender in ("other", OWNER):
                for device, sensor in SERIES:
                    await persister.broadcast(
                        make_reading(f"{sender}/{device}/{sensor}", sensor=sensor), device=device, owner=sender
                    )
            values = {series: f"{owner}/{series[0]}/{series[1]}" for series in SERIES}
            await all_pages.until(lambda self: len(self.values) == len(SERIES), "all are received")
            await one_series.receives(values["d-2", "b"])
            assert sorted(all_pages.values) == sorted(again.values) == sorted(values.values())
            assert sorted(one_device.values) == sorted([values["d-1", "a"], values["d-1", "b"]])
            assert sorted(one_sensor.values) == sorted([values["d-1", "a"], values["d-2", "a"], values["d-1:", "a"]])
            assert nothing.values == []


async def test_several_persisters_that_broadcast_without_pause_come_to_ten_a_second_of_each_series(
    reader_client: ReaderClient, broker: EmbeddedBroker
) -> None:
    persisters = [Persister(broker) for _ in range(3)]
    async with live_client(reader_client) as feed:
        started, number = time.monotonic(), 0
        while time.monotonic() < started + 1.2:
            for persister in persisters:
                number += 1
                for device in ("d-1", "d-2"):
                    await persister.broadcast(make_reading(number, TS + number), device=device)
            await asyncio.sleep(0.005)
        await feed.until(lambda self: self.values[-2:] == [number, number], "the last one is received")
        for device in ("d-1", "d-2"):
            found = [event for event in feed.events if event.data["device"] == device]
            elapsed = found[-1].at - started
            assert 3 < len(found) <= elapsed / 0.1 + 1
            values = [event.data["value"] for event in found]
            assert values == sorted(set(values))
        assert number > 100


async def test_of_what_comes_together_the_newest_of_each_series_is_sent(
    reader_client: ReaderClient, persister: Persister
) -> None:
    async with live_client(reader_client) as feed:
        await persister.broadcast(
            make_reading("older", TS), make_reading("newest", TS + 5), make_reading("late", TS + 1)
        )
        await persister.broadcast(make_reading("other", TS - 99, sensor="other"))
        await feed.until(lambda self: len(self.values) == 2, "both series are received")
        assert set(feed.values) == {"newest", "other"}


async def test_what_was_broadcast_before_is_not_sent_to_a_later_client(
    reader_client: ReaderClient, persister: Persister
) -> None:
    async with live_client(reader_client, {"device": "d-1"}) as first:
        await persister.broadcast(make_reading(1), device="d-1")
        await first.receives(1)
        async with live_client(reader_client, {"device": "d-1"}) as second:
            await persister.broadcast(make_reading(2, TS + 1), device="d-1")
            await first.receives(1, 2)
            await second.receives(2)


async def test_an_invalid_payload_is_ignored(reader_client: ReaderClient, persister: Persister) -> None:
    async with live_client(reader_client) as feed:
        for payload in (b"", b"\x05\x00\x00\x00\x00", b"no BSON", bytes(100)):
            await persister.broadcast_documents([payload])
        await persister.broadcast(make_reading(1))
        await feed.receives(1)


async def test_a_feed_shows_that_it_lives(broker: EmbeddedBroker, mongodb_database: Mongo) -> None:
    async with (
        open_reader(broker, mongodb_database, heartbeat_seconds=0.1) as reader_client,
        live_client(reader_client) as feed,
    ):
        await feed.until(lambda self: self.comments.count("heartbeat") >= 3, "it beats")
        assert feed.events == []


async def test_the_lag_is_counted_where_somebody_follows(reader_client: ReaderClient, persister: Persister) -> None:
    async with live_client(reader_client) as feed:
        await persister.broadcast(make_reading(1, received_ms=now_ms() - 100))
        await feed.receives(1)
    assert reader_client.count("live_lag_seconds_count") == 1
    assert 0.1 <= reader_client.count("live_lag_seconds_sum") < 5


async def test_a_filter_in_another_form_is_named(reader_client: ReaderClient) -> None:
    for query in ({"device": ""}, {"sensorType": ""}, {"device": "x" * 257}):
        assert (await reader_client.fetch("/live", query)).invalid_fields == list(query)


BAD_IDS = [
    "x",
    "1",
    "1-2",
    "1-2-3-4",
    "1-2-x",
    "a-b-c",
    "-1-2-3",
    "1--2--3",
    "9" * 19 + "-1-1",
    "1-2-3;",
    "null",
    "1_1-2-3",
]


async def test_a_last_event_id_that_is_none_of_ours_is_named(reader_client: ReaderClient) -> None:
    for last in BAD_IDS:
        for query in ({}, series()):
            answer = await reader_client.fetch("/live", query, headers={"Last-Event-ID": last})
            assert (last, answer.invalid_fields) == (last, ["Last-Event-ID"])
