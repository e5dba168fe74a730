"""Clients that read slowly or not at all: their buffers are bounded, and finally they are dropped."""

import asyncio
import socket
import tracemalloc
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from access.revocations import RevocationKeys
from broker.embedded.broker import EmbeddedBroker
from broker.embedded.fanout import EmbeddedSubscriber
from broker.live import live_readings
from reader.live.feed import HEARTBEAT, MAX_BUFFERED_BYTES, Feed
from reader.live.from_live import MAX_HELD, FromLive
from reader.live.owner_feeds import LiveEvent
from reader.metrics import ReaderMetrics
from readings.document import encode_document
from testing.waiting import eventually
from tests.reader.harness import TS, Mongo, make_reading, open_reader
from tests.reader.live_client import Persister, client_that_never_reads, endless_broadcast, live_client

MIB = 1024 * 1024
LAST_CHUNK = b"0\r\n\r\n"
# Besides the feed's buffer there are the kernel's socket buffers, the flush's own events and aiohttp's buffer.
MOST_HELD_BYTES = 4 * MIB


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush feeds more often, so that sockets fill sooner."""
    monkeypatch.setattr("reader.live.from_live.FLUSH_EVERY_S", 0.02)


@pytest.mark.usefixtures("fast")
async def test_a_browser_that_never_reads_is_dropped_and_nothing_piles_up_for_it(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    async with (
        open_reader(broker, mongodb_database, unread_timeout_seconds=1.0) as reader_client,
        live_client(reader_client, {"device": "calm"}) as feed,
    ):
        tracemalloc.start()
        async with client_that_never_reads(reader_client) as client, endless_broadcast(broker):

            async def dropped() -> bool:
                return reader_client.count("live_ended_total", why="slow") == 1

            await eventually(dropped, "the browser is dropped")
            assert reader_client.count("live_skipped_total") > 0
            assert not (await rest(client)).endswith(LAST_CHUNK)  # cut, and not ended in order
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"at most {peak / MIB:.1f} MiB held")
        assert peak < MOST_HELD_BYTES
        # A client that does not read does not delay others.
        await Persister(broker).broadcast(make_reading(1), device="calm")
        await feed.receives(1)
        assert reader_client.count("live_feeds") == 1


async def rest(client: socket.socket) -> bytes:
    """Read what the kernel has buffered, and return its end."""
    end = b""
    with suppress(ConnectionResetError):
        while got := await asyncio.get_running_loop().sock_recv(client, 65536):
            end = got
    return end


def feed() -> tuple[Feed, CollectorRegistry]:
    registry = CollectorRegistry()
    marks = RevocationKeys("jti", "owner", 0, "sid", None, "key-1")
    return Feed((None, None), None, marks, 2**33, ReaderMetrics(registry), unread_timeout_s=1), registry


async def test_what_waits_for_one_browser_is_bounded_and_it_is_the_newest() -> None:
    offered, registry = feed()
    for number in range(1000):
        offered.offer(b"%09d" % number + bytes(9991))
        assert sum(map(len, offered._buffer)) == offered._buffered_bytes <= MAX_BUFFERED_BYTES
        assert offered._buffer[-1].startswith(b"%09d" % number)
    skipped = registry.get_sample_value("tidegate_reader_live_skipped_total")
    assert skipped == 1000 - len(offered._buffer)
    offered.offer(bytes(MAX_BUFFERED_BYTES * 2))  # one serving that is larger by itself
    assert len(offered._buffer) == 1
    offered.offer(HEARTBEAT)
    assert offered._buffer == [HEARTBEAT]


async def test_what_is_held_for_one_who_reads_its_gap_is_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reader.live.owner_feeds.live_event", lambda _: LiveEvent(("d", "s"), (TS, 0), TS, b"x"))
    live = FromLive(EmbeddedSubscriber(1), ReaderMetrics(CollectorRegistry()), heartbeat_s=1)
    resuming, _ = feed()
    payload = encode_document("o", "d", make_reading(1))
    with live.joined("o", resuming):
        owner_feeds = live._owner_feeds["o"]
        for _ in range(MAX_HELD + 10):
            live._add(live_readings(payload))
            owner_feeds.flush()
        assert len(owner_feeds.resuming[resuming]) == MAX_HELD
    assert live._owner_feeds == {}
