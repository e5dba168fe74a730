"""Backfills find all missed readings: behind clocks that were ahead, among late ones, in every series."""

import pytest

from reader.live.backfill import FIRST_PAGE, OVERLAP_MS
from runtime.times import now_ms
from tests.reader.backfill_hooks import ONE, QueryHooks, at, last_event_id
from tests.reader.harness import TS, ReaderClient, Store, make_reading
from tests.reader.live_client import Persister, live_client

HOUR_MS = 3_600_000


@pytest.mark.parametrize("known", [1, FIRST_PAGE + 100], ids=["one", "more than one look"])
@pytest.mark.parametrize("chosen", [{}, ONE], ids=["all series", "one series"])
async def test_what_is_known_and_lies_an_hour_ahead_hides_nothing(
    reader_client: ReaderClient,
    store: Store,
    persister: Persister,
    query_hooks: QueryHooks,
    chosen: dict[str, str],
    known: int,
) -> None:
    began = now_ms() - 60_000
    ahead = [make_reading("ahead", began + HOUR_MS + n, received_ms=began + n) for n in range(known)]
    await store.insert(*ahead)
    await store.insert(*(make_reading(n, began + 10_000 + n * 1000) for n in range(20)))

    async def meanwhile() -> None:
        await persister.broadcast_documents(await store.insert(make_reading("meanwhile", began + 50_000)))

    query_hooks.after = meanwhile
    last = ahead[-1]
    async with live_client(reader_client, chosen, after=f"{last.received_ms + OVERLAP_MS}-{last.ts_ms}-0") as feed:
        await feed.until(lambda self: "meanwhile" in self.values, "what is broadcast meanwhile is received")
        await persister.broadcast_documents(await store.insert(make_reading("live", began + 51_000)))
        await feed.until(lambda self: "live" in self.values, "live goes on")
    assert feed.values == [*range(20), "meanwhile", "live"]


async def test_of_one_series_what_was_received_late_comes_too(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    await store.insert(*(at(number) for number in range(10)))
    late = TS + 10_000
    await store.insert(*(make_reading(f"late {n}", TS + n * 100 + 50, received_ms=late + n) for n in range(3)))
    async with live_client(reader_client, ONE, after=last_event_id(7)) as feed:
        await feed.receives("late 0", "late 1", "late 2", 8, 9)


async def test_every_series_is_looked_at(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reader.live.backfill.MAX_LIMIT", 2)
    began = now_ms() - 60_000
    devices = [f"d-{number}" for number in range(7)]
    for device in devices:
        await store.insert(make_reading(device, began), device=device)
    async with live_client(reader_client, after=f"{began}-1-0") as feed:
        await feed.receives(*devices)


async def test_a_feed_of_several_series_that_was_cut_in_its_gap_begins_again_from_its_last_event(
    reader_client: ReaderClient, store: Store, persister: Persister
) -> None:
    began = now_ms() - 60_000
    for number, device in enumerate(("d-1", "d-2", "d-3")):
        await store.insert(make_reading(device, began + 30_000 - number * 10_000), device=device)
    async with live_client(reader_client, after=f"{began}-1-0") as feed:
        await feed.receives("d-1", "d-2", "d-3")
        await feed.until(lambda self: self.last_id != f"{began}-1-0", "the whole gap has come")
        assert [event.id for event in feed.events] == [""] * 3
        after = feed.last_id
    async with live_client(reader_client, after=after) as again:
        await persister.broadcast(make_reading("live", now_ms()), device="d-2")
        await again.receives("d-1", "live")  # the newest, for the overlap
