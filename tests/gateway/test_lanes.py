"""Which lane a reading takes, what an event with both kinds is promised, and what happens where a lane is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable, QueueFull
from broker.topology import BACKFILL, BACKFILL_EXCHANGE, READINGS, READINGS_EXCHANGE, Exchange, Queue
from gateway import lanes as gateway_lanes
from gateway.lanes import Lanes
from gateway.metrics import GatewayMetrics
from gateway.to_broker import Busy, ToBroker
from readings.document import document_ts_ms, encode_document
from readings.reading import EARLIEST_MS, Reading
from runtime.times import now_ms
from tests.gateway.fakes import FakePublisher
from tests.gateway.harness import ACCEPTED, ISSUING, gateway

LATE_BEFORE = EARLIEST_MS + 1000
LATE, LIVE = EARLIEST_MS + 999, LATE_BEFORE


class LanePublisher(FakePublisher):
    """Confirms when told to, and expects one exchange."""

    def __init__(self, expected: Exchange) -> None:
        super().__init__()
        self.expected = expected

    async def publish(self, message: object, exchange: Exchange) -> None:
        assert exchange == self.expected
        await super().publish(message, READINGS_EXCHANGE)  # type: ignore[arg-type]

    @property
    def times(self) -> list[int]:
        return [document_ts_ms(document) for message in self.messages for document in message.documents()]


class Published:
    """Both lanes over fake publishers."""

    def __init__(self, lanes: Lanes, live: LanePublisher, backfill: LanePublisher, registry: CollectorRegistry) -> None:
        self._lanes = lanes
        self.live = live
        self.backfill = backfill
        self._registry = registry
        self.outcomes: list[BrokerError | None] = []

    def submit(self, *times: int, late_before_ms: int | None = LATE_BEFORE) -> None:
        documents = [encode_document("o", "d", Reading("t", 1, ts, seq, 0)) for seq, ts in enumerate(times)]
        self._lanes.submit(documents, self.outcomes.append, late_before_ms=late_before_ms)

    def count(self, name: str) -> float:
        return self._registry.get_sample_value(f"tidegate_gateway_{name}") or 0.0


@asynccontextmanager
async def published(*, max_waiting_bytes: int = 1_000_000) -> AsyncIterator[Published]:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    live, backfill = LanePublisher(READINGS_EXCHANGE), LanePublisher(BACKFILL_EXCHANGE)
    async with (
        ToBroker(live, metrics, slots=2, max_waiting_bytes=max_waiting_bytes).running() as to_live,
        ToBroker(
            backfill, metrics, slots=2, max_waiting_bytes=max_waiting_bytes, exchange=BACKFILL_EXCHANGE
        ).running() as to_backfill,
    ):
        try:
            yield Published(Lanes(to_live, to_backfill, metrics), live, backfill, registry)
        finally:
            live.confirm_all()
            backfill.confirm_all()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_event_with_both_kinds_is_answered_once_after_both_confirms() -> None:
    async with published() as both:
        both.submit(LATE, LIVE, LATE)
        await settle()
        assert (both.live.times, both.backfill.times) == ([LIVE], [LATE, LATE])
        assert both.count("waiting_bytes") == sum(
            len(message.body) for one in (both.live, both.backfill) for message in one.messages
        )
        both.live.confirm(0)
        await settle()
        assert both.outcomes == []
        both.backfill.confirm(0)
        await settle()
        assert both.outcomes == [None]
        assert both.count("backfilled_total") == 2
        assert both.count("waiting_bytes") == 0


@pytest.mark.parametrize("full", ["live", "backfill"])
async def test_where_one_lane_is_full_nothing_of_a_mixed_event_is_promised(full: str) -> None:
    async with published() as both:
        both.submit(LATE, LIVE)
        await settle()
        refusing, other = (both.live, both.backfill) if full == "live" else (both.backfill, both.live)
        other.confirm(0)
        refusing.fail(0, QueueFull("full"))
        await settle()
        (outcome,) = both.outcomes
        assert isinstance(outcome, QueueFull)


async def test_late_readings_that_are_unconfirmed_leave_live_ones_their_room() -> None:
    async with published(max_waiting_bytes=250) as both:
        both.submit(LATE, LATE)
        with pytest.raises(Busy):
            both.submit(LATE)
        with pytest.raises(Busy):
            both.submit(LATE, LIVE)
        await settle()
        assert both.live.messages == [], "of an event that is refused nothing is sent"
        both.submit(LIVE)
        await settle()
        assert both.live.times == [LIVE]


async def test_live_readings_alone_and_late_ones_alone_take_one_lane() -> None:
    async with published() as both:
        both.submit(LIVE, LIVE)
        both.submit(LATE)
        both.submit(LIVE, LATE, late_before_ms=None)
        await settle()
        assert (both.live.times, both.backfill.times) == ([LIVE, LIVE, LIVE, LATE], [LATE])


async def test_a_refused_lane_is_left_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_lanes, "REFUSED_FOR_S", 0.2)
    async with published() as both:
        both.submit(LATE)
        await settle()
        both.backfill.fail(0, BrokerUnavailable("away"))
        await settle()
        both.submit(LATE)
        await settle()
        assert len(both.backfill.messages) == 2, "an outage is not a refusal"
        both.backfill.fail(1, BrokerRefused("no right"))
        await settle()
        assert [type(outcome) for outcome in both.outcomes] == [BrokerUnavailable, BrokerRefused]
        both.submit(LATE)
        await settle()
        assert (len(both.backfill.messages), both.live.times) == (2, [LATE])
        await asyncio.sleep(0.25)
        both.submit(LATE)
        await settle()
        assert len(both.backfill.messages) == 3


async def times_in(broker: EmbeddedBroker, queue: Queue) -> list[int]:
    found = []
    async with broker.browser(queue) as browser:
        async for delivery in browser:
            found += [document_ts_ms(document) for document in delivery.message.documents()]
    return found


@pytest.mark.parametrize("over", ["reading", "readings", "http"])
async def test_readings_older_than_the_setting_by_their_own_clock_take_the_backfill_lane(
    tmp_path: Path, over: str
) -> None:
    now = now_ms()
    late, live = now - 700_000, now - 500_000
    sent = [{"value": 1, "ts": late}, {"value": 2, "ts": live}, {"value": 3}]
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        gateway(broker, backfill_after_seconds=600) as running,
    ):
        if over == "http":
            headers = {"Authorization": f"Bearer {ISSUING.device()}"}
            async with running.http.post(f"{running.url}/readings", json=sent, headers=headers) as answer:
                assert (answer.status, await answer.json()) == (202, {"accepted": 3, "rejected": []})
        else:
            async with running.connected({"token": ISSUING.device()}) as device:
                if over == "readings":
                    assert await device.call("readings", sent, timeout=5) == {"status": "accepted", "accepted": 3}
                else:
                    assert [await device.call("reading", one, timeout=5) for one in sent] == [ACCEPTED] * 3
        assert await times_in(broker, BACKFILL) == [late]
        assert sorted(await times_in(broker, READINGS))[0] == live
        assert len(await times_in(broker, READINGS)) == 2


@pytest.mark.parametrize(
    "late",
    [
        {"value": True},
        {"value": "text"},
        {"value": 2**40},
        {"value": 1.5, "tags": {"a": "b"}},
        {"value": 1, "ts": "2024-01-01T00:00:00Z"},
        {"value": 1, "seq": 7},
    ],
)
async def test_late_readings_of_every_form_take_it_among_others(tmp_path: Path, late: dict[str, object]) -> None:
    live: dict[str, object] = {"value": 1, "ts": now_ms()}
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        gateway(broker, backfill_after_seconds=600) as running,
        running.connected({"token": ISSUING.device()}) as device,
    ):
        old = {"ts": 1_700_000_000_000} | late
        event = [live | {"seq": 0}, old, live | {"seq": 2}]
        for _ in range(2):  # without a template, and with one
            assert (await device.call("readings", event, timeout=5))["status"] == "accepted"
        assert len(await times_in(broker, BACKFILL)) == 2
        assert len(await times_in(broker, READINGS)) == 4


async def test_without_the_lane_everything_is_live(tmp_path: Path) -> None:
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        gateway(broker, backfill_after_seconds=0) as running,
        running.connected({"token": ISSUING.device()}) as device,
    ):
        assert await device.call("reading", {"value": 1, "ts": EARLIEST_MS}, timeout=5) == ACCEPTED
        assert await times_in(broker, BACKFILL) == []
        assert await times_in(broker, READINGS) == [EARLIEST_MS]
