"""How readings are batched into messages, and which senders get which outcome."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from broker.interface import BrokerError, BrokerUnavailable, ConfirmLate, QueueFull
from broker.message import MAX_BYTES, MAX_READINGS
from gateway.metrics import GatewayMetrics
from gateway.to_broker import FLEET, FLEET_EVENTS, MANY_EVENTS, Busy, ToBroker
from readings.document import encode_document
from readings.reading import Reading
from tests.gateway.fakes import FakePublisher


def document(number: int, text: str = "") -> bytes:
    return encode_document("owner", "device", Reading("t", text or number, 946_684_800_000 + number, 0, 0))


def documents(count: int, *, start: int = 0) -> list[bytes]:
    return [document(start + number) for number in range(count)]


def heavy(count: int, size: int) -> list[bytes]:
    return [document(number, "x" * size) for number in range(count)]


@asynccontextmanager
async def running(
    publisher: FakePublisher,
    *,
    slots: int = 2,
    max_waiting_bytes: int = 64 * MAX_BYTES,
    linger_s: float = 0,
    fleet_linger_s: float = 0,
    sessions: int = 0,
) -> AsyncIterator[ToBroker]:
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.open_sessions = sessions
    to_broker = ToBroker(
        publisher,
        metrics,
        slots=slots,
        max_waiting_bytes=max_waiting_bytes,
        linger_s=linger_s,
        fleet_linger_s=fleet_linger_s,
    )
    async with to_broker.running():
        try:
            yield to_broker
        finally:
            publisher.confirm_all()


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def send(to_broker: ToBroker, batch: list[bytes]) -> None:
    """Return when every document is confirmed; Busy or BrokerError when nothing may be promised."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def resolve(failure: BrokerError | None) -> None:
        if outcome.done():  # the sender was cancelled
            return
        if failure is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(failure)

    to_broker.submit(batch, resolve)
    await outcome


def sending(to_broker: ToBroker, batch: list[bytes]) -> "asyncio.Task[None]":
    return asyncio.ensure_future(send(to_broker, batch))


async def test_what_is_sent_while_nothing_is_in_flight_is_published_at_once() -> None:
    publisher = FakePublisher()
    async with running(publisher) as to_broker:
        task = sending(to_broker, documents(1))
        await settle()
        assert publisher.sizes == [1]
        assert not task.done(), "nothing is promised before the confirm"
        publisher.confirm(0)
        await task
        # And so is the next one, once the first is confirmed.
        second = sending(to_broker, documents(1, start=5))
        await settle()
        assert publisher.sizes == [1, 1]
        publisher.confirm(1)
        await second


async def test_what_is_sent_within_one_turn_of_the_loop_travels_together() -> None:
    publisher = FakePublisher()
    async with running(publisher) as to_broker:
        tasks = [sending(to_broker, documents(2, start=10 * number)) for number in range(5)]
        await settle()
        assert publisher.sizes == [10]
        publisher.confirm(0)
        await asyncio.gather(*tasks)
    assert publisher.messages[0].documents() == [
        found for number in range(5) for found in documents(2, start=10 * number)
    ]


async def test_what_is_sent_while_a_message_is_in_flight_is_buffered_until_its_confirm() -> None:
    publisher = FakePublisher()
    async with running(publisher, slots=4) as to_broker:
        first = sending(to_broker, documents(1))
        await settle()
        later = []
        for number in range(50):
            later.append(sending(to_broker, documents(3, start=100 + number)))
            await settle()
        assert publisher.sizes == [1], "slots are free, but the message is not full"
        publisher.confirm(0)
        await first
        await settle()
        assert publisher.sizes == [1, 150]
        assert not any(task.done() for task in later)
        publisher.confirm(1)
        await asyncio.gather(*later)


async def after_many_events(publisher: FakePublisher, to_broker: ToBroker) -> None:
    """Have a message of many events confirmed: the gateway lingers."""
    many = [sending(to_broker, documents(1, start=number)) for number in range(MANY_EVENTS)]
    await settle()
    publisher.confirm(0)
    await asyncio.gather(*many)


async def test_after_a_confirm_of_many_events_what_they_bring_next_travels_together() -> None:
    publisher = FakePublisher()
    async with running(publisher, linger_s=0.3) as to_broker:
        await after_many_events(publisher, to_broker)
        first = sending(to_broker, documents(1, start=100))
        await settle()
        second = sending(to_broker, documents(1, start=101))
        await settle()
        assert publisher.sizes == [MANY_EVENTS], "nothing is in flight, but more is on its way"
        await publisher.wait_published(2)
        assert publisher.sizes == [MANY_EVENTS, 2]
        publisher.confirm(1)
        await asyncio.gather(first, second)


async def test_with_many_sessions_what_follows_a_small_message_travels_together() -> None:
    publisher = FakePublisher()
    async with running(publisher, linger_s=0.001, fleet_linger_s=0.3, sessions=FLEET) as to_broker:
        alone = sending(to_broker, documents(1))
        await settle()
        assert publisher.sizes == [1], "the first of a quiet gateway does not wait"
        publisher.confirm(0)
        await alone
        several = []
        for number in range(5):
            several.append(sending(to_broker, documents(1, start=100 + number)))
            await settle()
        assert publisher.sizes == [1]
        await publisher.wait_published(2)
        assert publisher.sizes == [1, 5]
        publisher.confirm(1)
        await asyncio.gather(*several)


async def test_with_many_sessions_a_large_message_is_followed_by_the_short_linger() -> None:
    publisher = FakePublisher()
    async with running(publisher, linger_s=0.001, fleet_linger_s=60, sessions=FLEET) as to_broker:
        many = [sending(to_broker, documents(1, start=number)) for number in range(FLEET_EVENTS)]
        await settle()
        publisher.confirm(0)
        await asyncio.gather(*many)
        last = sending(to_broker, documents(1, start=100))
        await publisher.wait_published(2)
        publisher.confirm(1)
        await last


async def test_with_few_sessions_nothing_waits_behind_a_small_message() -> None:
    publisher = FakePublisher()
    async with running(publisher, linger_s=60, fleet_linger_s=60, sessions=FLEET - 1) as to_broker:
        for number in range(3):
            alone = sending(to_broker, documents(1, start=number))
            await settle()
            assert len(publisher.sizes) == number + 1
            publisher.confirm(number)
            await alone


async def test_a_full_message_does_not_linger() -> None:
    publisher = FakePublisher()
    async with running(publisher, linger_s=60) as to_broker:
        await after_many_events(publisher, to_broker)
        full = sending(to_broker, documents(MAX_READINGS, start=100))
        await settle()
        assert publisher.sizes == [MANY_EVENTS, MAX_READINGS]
        publisher.confirm(1)
        await full


async def test_at_the_end_what_lingers_is_published() -> None:
    publisher = FakePublisher()
    async with running(publisher, linger_s=60) as to_broker:
        await after_many_events(publisher, to_broker)
        last = sending(to_broker, documents(1, start=100))
        await settle()
    assert publisher.sizes == [MANY_EVENTS, 1]
    await last


async def test_a_full_message_takes_a_free_slot_while_others_are_in_flight() -> None:
    publisher = FakePublisher()
    async with running(publisher, slots=3) as to_broker:
        tasks = [sending(to_broker, documents(1))]
        await settle()
        tasks.append(sending(to_broker, documents(MAX_READINGS - 1)))
        await settle()
        assert publisher.sizes == [1]
        tasks.append(sending(to_broker, documents(1)))
        await settle()
        assert publisher.sizes == [1, MAX_READINGS]
        tasks.append(sending(to_broker, heavy(1, MAX_BYTES - 500)))
        await settle()
        assert publisher.sizes == [1, MAX_READINGS]
        tasks.append(sending(to_broker, heavy(1, 1000)))
        await settle()
        # Full by its bytes: what was buffered first goes, what would make it too large stays.
        assert publisher.sizes == [1, MAX_READINGS, 1]
        publisher.confirm_all()
        await asyncio.gather(*tasks)
    assert publisher.sizes == [1, MAX_READINGS, 1, 1]


async def test_no_more_messages_than_slots_are_in_flight() -> None:
    publisher = FakePublisher()
    async with running(publisher, slots=2) as to_broker:
        tasks = [sending(to_broker, documents(MAX_READINGS)) for _ in range(6)]
        await settle()
        for number in range(4):
            assert len(publisher.messages) == number + 2
            publisher.confirm(number)
            await settle()
        assert len(publisher.messages) == 6
        publisher.confirm_all()
        await asyncio.gather(*tasks)


async def test_no_message_is_larger_than_its_bounds() -> None:
    publisher = FakePublisher()
    publisher.auto_confirm = True
    async with running(publisher) as to_broker:
        batches = [heavy(7, 90_000), documents(999), heavy(3, 400_000), documents(2), heavy(1000, 2_000), documents(1)]
        await asyncio.gather(*(send(to_broker, batch) for batch in batches))
    assert all(len(message.body) <= MAX_BYTES for message in publisher.messages)
    assert all(size <= MAX_READINGS for size in publisher.sizes)
    sent = sorted(found for batch in batches for found in batch)
    assert sorted(found for message in publisher.messages for found in message.documents()) == sent


async def test_an_event_larger_than_a_message_is_acknowledged_after_all_its_confirms() -> None:
    publisher = FakePublisher()
    batch = heavy(30, 100_000)
    async with running(publisher, slots=4) as to_broker:
        task = sending(to_broker, batch)
        await settle()
        assert publisher.sizes == [10, 10], "the third is not full: it waits for the first confirm"
        for number in (1, 0, 2):
            assert not task.done()
            publisher.confirm(number)
            await settle()
        await task
    assert [found for message in publisher.messages for found in message.documents()] == batch


async def test_an_event_of_which_one_message_fails_fails() -> None:
    publisher = FakePublisher()
    async with running(publisher, slots=4) as to_broker:
        task = sending(to_broker, heavy(30, 100_000))
        await settle()
        publisher.confirm(0)
        await settle()
        publisher.fail(1, ConfirmLate("late"))
        publisher.confirm(2)
        with pytest.raises(ConfirmLate):
            await task


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), ConfirmLate("late"), QueueFull("full")])
async def test_a_failure_reaches_exactly_those_whose_readings_were_in_the_message(error: BrokerError) -> None:
    publisher = FakePublisher()
    async with running(publisher) as to_broker:
        alone = sending(to_broker, documents(1))
        await settle()
        together = [sending(to_broker, documents(1, start=number)) for number in range(5)]
        await settle()
        publisher.confirm(0)
        await settle()
        after = sending(to_broker, documents(1, start=9))
        await settle()
        publisher.fail(1, error)
        await settle()
        publisher.confirm(2)
        await asyncio.gather(alone, after)
        outcomes = await asyncio.gather(*together, return_exceptions=True)
    assert outcomes == [error] * 5


async def test_beyond_the_bound_of_waiting_bytes_the_gateway_is_busy_until_a_confirm_makes_room() -> None:
    publisher = FakePublisher()
    batch = documents(2)
    size = sum(map(len, batch))
    async with running(publisher, max_waiting_bytes=2 * size) as to_broker:
        tasks = [sending(to_broker, batch), sending(to_broker, batch)]
        await settle()
        with pytest.raises(Busy):
            await send(to_broker, documents(1))
        publisher.confirm(0)
        await asyncio.gather(*tasks)
        again = sending(to_broker, batch)
        await settle()
        publisher.confirm(1)
        await again


async def test_a_failure_makes_room_too() -> None:
    publisher = FakePublisher()
    batch = documents(2)
    async with running(publisher, max_waiting_bytes=sum(map(len, batch))) as to_broker:
        task = sending(to_broker, batch)
        await settle()
        publisher.fail(0, BrokerUnavailable("away"))
        with pytest.raises(BrokerUnavailable):
            await task
        again = sending(to_broker, batch)
        await settle()
        publisher.confirm(1)
        await again


async def test_a_sender_that_is_cancelled_does_not_disturb_the_others_of_its_message() -> None:
    publisher = FakePublisher()
    async with running(publisher) as to_broker:
        tasks = [sending(to_broker, documents(1, start=number)) for number in range(3)]
        await settle()
        tasks[1].cancel()
        await settle()
        assert [task.done() for task in tasks] == [False, True, False]
        publisher.confirm(0)
        await asyncio.gather(tasks[0], tasks[2])
        assert tasks[1].cancelled()
        # Nor what comes after it: the room that it took is free again.
        after = sending(to_broker, documents(1))
        await settle()
        publisher.confirm(1)
        await after


async def test_a_sender_cancelled_while_it_is_buffered_does_not_disturb_the_others() -> None:
    publisher = FakePublisher()
    async with running(publisher) as to_broker:
        first = sending(to_broker, documents(1))
        await settle()
        buffered = [sending(to_broker, documents(1, start=number)) for number in range(1, 4)]
        await settle()
        buffered[0].cancel()
        await settle()
        publisher.confirm(0)
        await settle()
        publisher.confirm(1)
        await asyncio.gather(first, *buffered[1:])


async def test_leaving_waits_until_everything_buffered_is_confirmed() -> None:
    publisher = FakePublisher()
    to_broker = ToBroker(publisher, GatewayMetrics(CollectorRegistry()), slots=1, max_waiting_bytes=MAX_BYTES)
    left = asyncio.Event()

    async def run() -> None:
        async with to_broker.running():
            tasks.append(sending(to_broker, documents(1)))
            await settle()
            tasks.extend(sending(to_broker, documents(1, start=number)) for number in (1, 2))
            await settle()
        left.set()

    tasks: list[asyncio.Task[None]] = []
    running_task = asyncio.ensure_future(run())
    await publisher.wait_published(1)
    await settle()
    assert not left.is_set()
    publisher.confirm(0)
    await publisher.wait_published(2)
    assert not left.is_set(), "what was buffered is not dropped"
    publisher.confirm(1)
    await running_task
    await asyncio.gather(*tasks)
    assert publisher.sizes == [1, 2]


async def test_what_is_sent_in_the_last_turn_is_published_before_leaving() -> None:
    publisher = FakePublisher()
    publisher.auto_confirm = True
    async with running(publisher) as to_broker:
        task = sending(to_broker, documents(1))
        await asyncio.sleep(0)
    await task
    assert publisher.sizes == [1]
