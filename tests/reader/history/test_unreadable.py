"""Stored values that Python does not decode by default: invalid UTF-8, times beyond the year 9999."""

import asyncio
import struct
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from readings.document import encode_document
from tests.reader.harness import DEVICE, OWNER, SENSOR, TS, ReaderClient, Store, make_reading, series
from tests.reader.live_client import Persister, live_client

ONE = {"device": DEVICE, "sensorType": SENSOR}
YEAR_12000 = 316_516_204_800_000
LAST = 2**63 - 1


def spoilt(ts: int, **more: Any) -> bytes:
    """A document whose value is invalid UTF-8: mongod accepts it."""
    document = encode_document(OWNER, DEVICE, make_reading("spoilt", ts, **more))
    return document.replace(b"spoilt", b"sp\xffilt")


@pytest.fixture
def persister(broker: EmbeddedBroker) -> Persister:
    return Persister(broker)


@pytest.mark.parametrize("format_", ["json", "csv", "ndjson"])
async def test_text_that_is_no_utf_8_is_shown_among_its_neighbours(
    reader_client: ReaderClient, store: Store, format_: str
) -> None:
    await store.insert(make_reading("before", TS), make_reading("behind", TS + 2))
    await store.write([spoilt(TS + 1)])
    answer = await reader_client.readings(format=format_)
    assert answer.status == 200
    places = [answer.body.decode().find(value) for value in ("before", "sp\ufffdilt", "behind")]
    assert -1 not in places
    assert places == sorted(places)


async def test_the_newest_reading_may_be_no_utf_8(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading("before", TS))
    await store.write([spoilt(TS + 1)])
    assert [item["value"] for item in (await reader_client.fetch("/readings/latest")).items] == ["sp\ufffdilt"]
    assert [item["lastReadingAt"] for item in (await reader_client.fetch("/series")).items] == [
        "2025-06-15T15:06:40.001Z"
    ]


def no_bson(ts: int) -> bytes:
    """A document whose value has a type that BSON does not know."""
    document = encode_document(OWNER, DEVICE, make_reading("spoilt", ts))
    return document.replace(b"\x02value\0", b"\x55value\0")


def no_series(ts: int) -> bytes:
    """A document whose owner is invalid UTF-8."""
    document = encode_document("spoilt", DEVICE, make_reading(1, ts))
    return document.replace(b"spoilt", b"sp\xffilt")


def cut_in_ts(_: int) -> bytes:
    """A document whose key claims to be longer than the document."""
    names = encode_document(OWNER, DEVICE, make_reading(1))
    names = names[9 + 4 : names.index(b"\x09ts\0")]
    key = struct.pack("<i", 4 + len(names) + 26) + names + b"\x09ts\0\0"
    return struct.pack("<i", 9 + len(key)) + b"\x03_id\0" + key


@pytest.mark.parametrize("bad", [no_bson, no_series, cut_in_ts])
@pytest.mark.parametrize("together", [True, False], ids=["in one payload", "alone"])
async def test_what_cannot_be_read_is_left_out_of_live_feeds_and_counted(
    reader_client: ReaderClient, persister: Persister, together: bool, bad: Any
) -> None:
    good = encode_document(OWNER, "d-2", make_reading("good", TS))
    async with live_client(reader_client) as feed, live_client(reader_client, ONE):
        documents = [good, bad(TS)]
        for payload in [documents] if together else [[document] for document in documents]:
            await persister.broadcast_documents(payload)
            await asyncio.sleep(0.15)  # each is served by itself
        await persister.broadcast(make_reading("later", TS + 1))
        await feed.receives("good", "later")
        assert reader_client.count("live_unreadable_total") == 1
        assert (await reader_client.fetch("/pipeline")).status == 200


async def test_a_live_reading_that_is_no_utf_8_is_shown(reader_client: ReaderClient, persister: Persister) -> None:
    async with live_client(reader_client, ONE) as feed:
        await persister.broadcast_documents([spoilt(TS)])
        await feed.receives("sp\ufffdilt")
    assert (await reader_client.fetch("/pipeline")).status == 200


async def test_times_beyond_the_calendar_are_answered_everywhere(reader_client: ReaderClient, store: Store) -> None:
    times = (TS, YEAR_12000, YEAR_12000 + 1, LAST)
    await store.insert(*(make_reading(number, ts, received_ms=ts) for number, ts in enumerate(times)))
    pages = await reader_client.all_pages("/readings", series(limit=1))
    assert [item["value"] for page in pages for item in page] == [0, 1, 2, 3]
    assert [item["connected"] for item in (await reader_client.fetch("/series")).items] == [False]
    assert [item["value"] for item in (await reader_client.fetch("/readings/latest")).items] == [3]
    assert (await reader_client.fetch("/readings/buckets", series(every="1m"))).invalid_fields == ["every"]
    buckets = (await reader_client.fetch("/readings/buckets", series(every="36500d", to=YEAR_12000 + 1))).items
    assert [bucket["count"] for bucket in buckets] == [1, 1]
    for format_, rows in (("csv", 5), ("ndjson", 4)):
        body = (await reader_client.readings(format=format_)).body
        assert len(body.splitlines()) == rows


async def test_the_last_bucket_of_time_is_answered(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, LAST - 2 + number, received_ms=TS) for number in range(3)))
    assert [item["count"] for item in (await reader_client.fetch("/readings/buckets", series(every="1d"))).items] == [2]


@pytest.mark.parametrize("chosen", [{}, ONE])
async def test_a_feed_goes_on_from_beyond_the_calendar(
    reader_client: ReaderClient, store: Store, persister: Persister, chosen: dict[str, str]
) -> None:
    await store.insert(
        *(make_reading(number, YEAR_12000 + number * 100, received_ms=YEAR_12000) for number in range(3))
    )
    async with live_client(reader_client, chosen) as feed:
        await persister.broadcast(make_reading(0, YEAR_12000, received_ms=YEAR_12000))
        await feed.receives(0)
    after = feed.events[-1].id
    assert after == f"{YEAR_12000}-{YEAR_12000}-0"
    async with live_client(reader_client, chosen, after=after) as again:
        await persister.broadcast(make_reading("live", YEAR_12000 + 1000, received_ms=YEAR_12000))
        await again.until(lambda self: "live" in self.values, "live goes on")


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**19])
@pytest.mark.parametrize("place", range(3))
async def test_an_event_id_that_no_reading_can_have_is_refused(
    reader_client: ReaderClient, number: int, place: int
) -> None:
    numbers = [1, 1, 1]
    numbers[place] = number
    after = "-".join(map(str, numbers))
    assert (await reader_client.fetch("/live", ONE, headers={"Last-Event-ID": after})).invalid_fields == [
        "Last-Event-ID"
    ]
