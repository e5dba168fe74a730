"""A gap is found wherever it stands: behind clocks that were ahead, among what was received late, in every series."""

import pytest

from reader.live.backfill import FIRST_LOOK, OVERLAP_MS
from runtime.times import now_ms
from tests.reader.following import Persister, following
from tests.reader.resuming import ONE, Gap, at, last_event_id
from tests.reader.running import TS, Running, Store, sent

HOUR_MS = 3_600_000


@pytest.mark.parametrize("known", [1, FIRST_LOOK + 100], ids=["one", "more than one look"])
@pytest.mark.parametrize("chosen", [{}, ONE], ids=["all series", "one series"])
async def test_what_is_known_and_lies_an_hour_ahead_hides_nothing(
    running: Running, store: Store, persister: Persister, gap: Gap, chosen: dict[str, str], known: int
) -> None:
    began = now_ms() - 60_000
    ahead = [sent("ahead", began + HOUR_MS + n, received_ms=began + n) for n in range(known)]
    await store.holds(*ahead)
    await store.holds(*(sent(n, began + 10_000 + n * 1000) for n in range(20)))

    async def meanwhile() -> None:
        await persister.tells_documents(await store.holds(sent("meanwhile", began + 50_000)))

    gap.after = meanwhile
    last = ahead[-1]
    async with following(running, chosen, after=f"{last.received_ms + OVERLAP_MS}-{last.ts_ms}-0") as follows:
        await follows.until(lambda self: "meanwhile" in self.values, "what is told meanwhile is heard")
        await persister.tells_documents(await store.holds(sent("live", began + 51_000)))
        await follows.until(lambda self: "live" in self.values, "live goes on")
    assert follows.values == [*range(20), "meanwhile", "live"]


async def test_of_one_series_what_was_received_late_comes_too(
    running: Running, store: Store, persister: Persister
) -> None:
    await store.holds(*(at(number) for number in range(10)))
    late = TS + 10_000
    await store.holds(*(sent(f"late {n}", TS + n * 100 + 50, received_ms=late + n) for n in range(3)))
    async with following(running, ONE, after=last_event_id(7)) as follows:
        await follows.hears("late 0", "late 1", "late 2", 8, 9)


async def test_every_series_is_looked_at(running: Running, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reader.live.backfill.MAX_LIMIT", 2)
    began = now_ms() - 60_000
    devices = [f"d-{number}" for number in range(7)]
    for device in devices:
        await store.holds(sent(device, began), device=device)
    async with following(running, after=f"{began}-1-0") as follows:
        await follows.hears(*devices)


async def test_a_feed_of_several_series_that_was_cut_in_its_gap_begins_again_from_its_last_event(
    running: Running, store: Store, persister: Persister
) -> None:
    began = now_ms() - 60_000
    for number, device in enumerate(("d-1", "d-2", "d-3")):
        await store.holds(sent(device, began + 30_000 - number * 10_000), device=device)
    async with following(running, after=f"{began}-1-0") as follows:
        await follows.hears("d-1", "d-2", "d-3")
        await follows.until(lambda self: self.last_id != f"{began}-1-0", "the whole gap has come")
        assert [event.id for event in follows.events] == [""] * 3
        after = follows.last_id
    async with following(running, after=after) as again:
        await persister.tells(sent("live", now_ms()), device="d-2")
        await again.hears("d-1", "live")  # the newest, for the overlap
