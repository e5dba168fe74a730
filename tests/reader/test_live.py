"""`GET /live`: what is stored right now, to those who want it, thinned."""

import asyncio
import time

import pytest

from broker.embedded.broker import EmbeddedBroker
from readings.place import Place
from runtime.times import now_ms
from tests.reader.following import Persister, following
from tests.reader.running import OWNER, TS, Mongo, Running, Store, reader, sent, series, token_of


@pytest.fixture
def persister(broker: EmbeddedBroker) -> Persister:
    return Persister(broker)


async def test_an_event_has_the_reading_as_history_has_it_and_its_place_as_id(
    running: Running, store: Store, persister: Persister
) -> None:
    place = Place(48.1, 11.5)
    full = sent('line\nof "text" \u00e4', TS, 7, unit="u", location=place, tags={"a": "b\r\nevent: x"})
    bare = sent(2**63 - 1, TS + 500, received_ms=TS + 9)
    documents = await store.holds(full, bare)
    async with following(running) as follows:
        await persister.tells_documents(documents[:1])
        await follows.hears(full.value)
        await persister.tells_documents(documents[1:])
        await follows.hears(full.value, bare.value)
    assert [event.data for event in follows.events] == (await running.readings()).items
    assert [event.name for event in follows.events] == ["reading", "reading"]
    assert [event.id for event in follows.events] == [f"{TS + 250}-{TS}-7", f"{TS + 9}-{TS + 500}-0"]


async def test_the_answer_is_one_that_browsers_and_proxies_hand_on_as_it_comes(running: Running) -> None:
    async with following(running) as follows:
        headers = follows.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in headers
        assert int(follows.retry) > 0
    head = await running.ask("/live", method="HEAD")
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
    running: Running, persister: Persister
) -> None:
    for owner in (OWNER, "other"):
        token = token_of(owner)
        async with (
            following(running, FILTERS["all"], token=token) as everything,
            following(running, FILTERS["all"], token=token) as again,
            following(running, FILTERS["a device"], token=token) as one_device,
            following(running, FILTERS["a sensor type"], token=token) as one_sensor,
            following(running, FILTERS["both"], token=token) as one_series,
            following(running, FILTERS["nothing"], token=token) as nothing,
        ):
            for told in ("other", OWNER):
                for device, sensor in SERIES:
                    await persister.tells(sent(f"{told}/{device}/{sensor}", sensor=sensor), device=device, owner=told)
            values = {series: f"{owner}/{series[0]}/{series[1]}" for series in SERIES}
            await everything.until(lambda self: len(self.values) == len(SERIES), "all are heard")
            await one_series.hears(values["d-2", "b"])
            assert sorted(everything.values) == sorted(again.values) == sorted(values.values())
            assert sorted(one_device.values) == sorted([values["d-1", "a"], values["d-1", "b"]])
            assert sorted(one_sensor.values) == sorted([values["d-1", "a"], values["d-2", "a"], values["d-1:", "a"]])
            assert nothing.values == []


async def test_several_persisters_that_tell_without_pause_come_to_ten_a_second_of_each_series(
    running: Running, broker: EmbeddedBroker
) -> None:
    persisters = [Persister(broker) for _ in range(3)]
    async with following(running) as follows:
        started, number = time.monotonic(), 0
        while time.monotonic() < started + 1.2:
            for persister in persisters:
                number += 1
                for device in ("d-1", "d-2"):
                    await persister.tells(sent(number, TS + number), device=device)
            await asyncio.sleep(0.005)
        await follows.until(lambda self: self.values[-2:] == [number, number], "the last one is heard")
        for device in ("d-1", "d-2"):
            found = [event for event in follows.events if event.data["device"] == device]
            elapsed = found[-1].at - started
            assert 3 < len(found) <= elapsed / 0.1 + 1
            values = [event.data["value"] for event in found]
            assert values == sorted(set(values))
        assert number > 100


async def test_of_what_comes_together_the_newest_of_each_series_is_told(running: Running, persister: Persister) -> None:
    async with following(running) as follows:
        await persister.tells(sent("older", TS), sent("newest", TS + 5), sent("late", TS + 1))
        await persister.tells(sent("other", TS - 99, sensor="other"))
        await follows.until(lambda self: len(self.values) == 2, "both series are heard")
        assert set(follows.values) == {"newest", "other"}


async def test_what_was_told_before_is_not_told_to_one_who_comes_later(running: Running, persister: Persister) -> None:
    async with following(running, {"device": "d-1"}) as first:
        await persister.tells(sent(1), device="d-1")
        await first.hears(1)
        async with following(running, {"device": "d-1"}) as second:
            await persister.tells(sent(2, TS + 1), device="d-1")
            await first.hears(1, 2)
            await second.hears(2)


async def test_what_is_no_payload_is_left_aside(running: Running, persister: Persister) -> None:
    async with following(running) as follows:
        for payload in (b"", b"\x05\x00\x00\x00\x00", b"no BSON", bytes(100)):
            await persister.tells_documents([payload])
        await persister.tells(sent(1))
        await follows.hears(1)


async def test_a_feed_shows_that_it_lives(broker: EmbeddedBroker, mongodb_database: Mongo) -> None:
    async with reader(broker, mongodb_database, heartbeat_seconds=0.1) as running, following(running) as follows:
        await follows.until(lambda self: self.comments.count("heartbeat") >= 3, "it beats")
        assert follows.events == []


async def test_the_lag_is_counted_where_somebody_follows(running: Running, persister: Persister) -> None:
    async with following(running) as follows:
        await persister.tells(sent(1, received_ms=now_ms() - 100))
        await follows.hears(1)
    assert running.count("live_lag_seconds_count") == 1
    assert 0.1 <= running.count("live_lag_seconds_sum") < 5


async def test_a_filter_in_another_form_is_named(running: Running) -> None:
    for query in ({"device": ""}, {"sensorType": ""}, {"device": "x" * 257}):
        assert (await running.ask("/live", query)).wrong == list(query)


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


async def test_a_last_event_id_that_is_none_of_ours_is_named(running: Running) -> None:
    for last in BAD_IDS:
        for query in ({}, series()):
            answer = await running.ask("/live", query, headers={"Last-Event-ID": last})
            assert (last, answer.wrong) == (last, ["Last-Event-ID"])
