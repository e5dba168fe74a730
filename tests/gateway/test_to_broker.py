"""How readings are gathered into messages, and who learns of what became of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from broker.interface import BrokerError, BrokerUnavailable, ConfirmLate, QueueFull
from broker.message import MAX_BYTES, MAX_READINGS
from gateway.metrics import GatewayMetrics
from gateway.to_broker import MANY_EVENTS, Busy, ToBroker
from readings.document import encode_document
from readings.reading import Reading
from tests.gateway.held import HeldPublisher


def document(number: int, text: str = "") -> bytes:
    return encode_document("owner", "device", Reading("t", text or number, 946_684_800_000 + number, 0, 0))


def documents(count: int, *, start: int = 0) -> list[bytes]:
    return [document(start + number) for number in range(count)]


def heavy(count: int, size: int) -> list[bytes]:
    return [document(number, "x" * size) for number in range(count)]


@asynccontextmanager
async def running(
    held: HeldPublisher, *, slots: int = 2, max_waiting_bytes: int = 64 * MAX_BYTES, moment_s: float = 0
) -> AsyncIterator[ToBroker]:
    metrics = GatewayMetrics(CollectorRegistry())
    to_broker = ToBroker(held, metrics, slots=slots, max_waiting_bytes=max_waiting_bytes, moment_s=moment_s)
    async with to_broker.running():
        try:
            yield to_broker
        finally:
            held.release()


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(10):
        await asyncio.sleep(0)


def sending(to_broker: ToBroker, batch: list[bytes]) -> "asyncio.Task[None]":
    return asyncio.ensure_future(to_broker.send(batch))


async def test_what_is_sent_while_nothing_is_in_flight_is_published_at_once() -> None:
    held = HeldPublisher()
    async with running(held) as to_broker:
        task = sending(to_broker, documents(1))
        await settle()
        assert held.sizes == [1]
        assert not task.done(), "nothing is promised before the confirm"
        held.confirm(0)
        await task
        # And so is the next one, once the first has landed.
        second = sending(to_broker, documents(1, start=5))
        await settle()
        assert held.sizes == [1, 1]
        held.confirm(1)
        await second


async def test_what_is_sent_within_one_turn_of_the_loop_travels_together() -> None:
    held = HeldPublisher()
    async with running(held) as to_broker:
        tasks = [sending(to_broker, documents(2, start=10 * number)) for number in range(5)]
        await settle()
        assert held.sizes == [10]
        held.confirm(0)
        await asyncio.gather(*tasks)
    assert held.messages[0].documents() == [found for number in range(5) for found in documents(2, start=10 * number)]


async def test_what_is_sent_while_a_message_is_in_flight_is_gathered_until_its_confirm() -> None:
    held = HeldPublisher()
    async with running(held, slots=4) as to_broker:
        first = sending(to_broker, documents(1))
        await settle()
        later = []
        for number in range(50):
            later.append(sending(to_broker, documents(3, start=100 + number)))
            await settle()
        assert held.sizes == [1], "slots are free, but the message is not full"
        held.confirm(0)
        await first
        await settle()
        assert held.sizes == [1, 150]
        assert not any(task.done() for task in later)
        held.confirm(1)
        await asyncio.gather(*later)


async def after_many_events(held: HeldPublisher, to_broker: ToBroker) -> None:
    """Have a message of many events confirmed: the moment begins in which devices send the next."""
    many = [sending(to_broker, documents(1, start=number)) for number in range(MANY_EVENTS)]
    await settle()
    held.confirm(0)
    await asyncio.gather(*many)


async def test_after_a_confirm_of_many_events_what_they_bring_next_travels_together() -> None:
    held = HeldPublisher()
    async with running(held, moment_s=0.3) as to_broker:
        await after_many_events(held, to_broker)
        first = sending(to_broker, documents(1, start=100))
        await settle()
        second = sending(to_broker, documents(1, start=101))
        await settle()
        assert held.sizes == [MANY_EVENTS], "nothing is in flight, but more is on its way"
        await held.published(2)
        assert held.sizes == [MANY_EVENTS, 2]
        held.confirm(1)
        await asyncio.gather(first, second)


async def test_a_full_message_waits_for_no_moment() -> None:
    held = HeldPublisher()
    async with running(held, moment_s=60) as to_broker:
        await after_many_events(held, to_broker)
        full = sending(to_broker, documents(MAX_READINGS, start=100))
        await settle()
        assert held.sizes == [MANY_EVENTS, MAX_READINGS]
        held.confirm(1)
        await full


async def test_at_the_end_what_waits_for_its_moment_is_published() -> None:
    held = HeldPublisher()
    async with running(held, moment_s=60) as to_broker:
        await after_many_events(held, to_broker)
        last = sending(to_broker, documents(1, start=100))
        await settle()
    assert held.sizes == [MANY_EVENTS, 1]
    await last


async def test_a_full_message_takes_a_free_slot_while_others_are_in_flight() -> None:
    held = HeldPublisher()
    async with running(held, slots=3) as to_broker:
        tasks = [sending(to_broker, documents(1))]
        await settle()
        tasks.append(sending(to_broker, documents(MAX_READINGS - 1)))
        await settle()
        assert held.sizes == [1]
        tasks.append(sending(to_broker, documents(1)))
        await settle()
        assert held.sizes == [1, MAX_READINGS]
        tasks.append(sending(to_broker, heavy(1, MAX_BYTES - 500)))
        await settle()
        assert held.sizes == [1, MAX_READINGS]
        tasks.append(sending(to_broker, heavy(1, 1000)))
        await settle()
        # Full by its bytes: what was gathered first goes, what would make it too large stays.
        assert held.sizes == [1, MAX_READINGS, 1]
        held.release()
        await asyncio.gather(*tasks)
    assert held.sizes == [1, MAX_READINGS, 1, 1]


async def test_no_more_messages_than_slots_are_in_flight() -> None:
    held = HeldPublisher()
    async with running(held, slots=2) as to_broker:
        tasks = [sending(to_broker, documents(MAX_READINGS)) for _ in range(6)]
        await settle()
        for landed in range(4):
            assert len(held.messages) == landed + 2
            held.confirm(landed)
            await settle()
        assert len(held.messages) == 6
        held.release()
        await asyncio.gather(*tasks)


async def test_no_message_is_larger_than_its_bounds() -> None:
    held = HeldPublisher()
    held.free = True
    async with running(held) as to_broker:
        batches = [heavy(7, 90_000), documents(999), heavy(3, 400_000), documents(2), heavy(1000, 2_000), documents(1)]
        await asyncio.gather(*(to_broker.send(batch) for batch in batches))
    assert all(len(message.body) <= MAX_BYTES for message in held.messages)
    assert all(size <= MAX_READINGS for size in held.sizes)
    sent = sorted(found for batch in batches for found in batch)
    assert sorted(found for message in held.messages for found in message.documents()) == sent


async def test_an_event_larger_than_a_message_is_acknowledged_after_all_its_confirms() -> None:
    held = HeldPublisher()
    batch = heavy(30, 100_000)
    async with running(held, slots=4) as to_broker:
        task = sending(to_broker, batch)
        await settle()
        assert held.sizes == [10, 10], "the third is not full: it waits for the first confirm"
        for number in (1, 0, 2):
            assert not task.done()
            held.confirm(number)
            await settle()
        await task
    assert [found for message in held.messages for found in message.documents()] == batch


async def test_an_event_of_which_one_message_fails_fails() -> None:
    held = HeldPublisher()
    async with running(held, slots=4) as to_broker:
        task = sending(to_broker, heavy(30, 100_000))
        await settle()
        held.confirm(0)
        await settle()
        held.fail(1, ConfirmLate("late"))
        held.confirm(2)
        with pytest.raises(ConfirmLate):
            await task


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), ConfirmLate("late"), QueueFull("full")])
async def test_a_failure_reaches_exactly_those_whose_readings_were_in_the_message(error: BrokerError) -> None:
    held = HeldPublisher()
    async with running(held) as to_broker:
        alone = sending(to_broker, documents(1))
        await settle()
        together = [sending(to_broker, documents(1, start=number)) for number in range(5)]
        await settle()
        held.confirm(0)
        await settle()
        after = sending(to_broker, documents(1, start=9))
        await settle()
        held.fail(1, error)
        await settle()
        held.confirm(2)
        await asyncio.gather(alone, after)
        outcomes = await asyncio.gather(*together, return_exceptions=True)
    assert outcomes == [error] * 5


async def test_beyond_the_bound_of_waiting_bytes_senders_are_told_busy_until_a_confirm_makes_room() -> None:
    held = HeldPublisher()
    batch = documents(2)
    size = sum(map(len, batch))
    async with running(held, max_waiting_bytes=2 * size) as to_broker:
        tasks = [sending(to_broker, batch), sending(to_broker, batch)]
        await settle()
        with pytest.raises(Busy):
            await to_broker.send(documents(1))
        held.confirm(0)
        await asyncio.gather(*tasks)
        again = sending(to_broker, batch)
        await settle()
        held.confirm(1)
        await again


async def test_a_failure_makes_room_too() -> None:
    held = HeldPublisher()
    batch = documents(2)
    async with running(held, max_waiting_bytes=sum(map(len, batch))) as to_broker:
        task = sending(to_broker, batch)
        await settle()
        held.fail(0, BrokerUnavailable("away"))
        with pytest.raises(BrokerUnavailable):
            await task
        again = sending(to_broker, batch)
        await settle()
        held.confirm(1)
        await again


async def test_a_sender_that_is_cancelled_does_not_disturb_the_others_of_its_message() -> None:
    held = HeldPublisher()
    async with running(held) as to_broker:
        tasks = [sending(to_broker, documents(1, start=number)) for number in range(3)]
        await settle()
        tasks[1].cancel()
        await settle()
        assert [task.done() for task in tasks] == [False, True, False]
        held.confirm(0)
        await asyncio.gather(tasks[0], tasks[2])
        assert tasks[1].cancelled()
        # Nor what comes after it: the room that it took is free again.
        after = sending(to_broker, documents(1))
        await settle()
        held.confirm(1)
        await after


async def test_a_sender_cancelled_while_it_is_gathered_does_not_disturb_the_others() -> None:
    held = HeldPublisher()
    async with running(held) as to_broker:
        first = sending(to_broker, documents(1))
        await settle()
        gathered = [sending(to_broker, documents(1, start=number)) for number in range(1, 4)]
        await settle()
        gathered[0].cancel()
        await settle()
        held.confirm(0)
        await settle()
        held.confirm(1)
        await asyncio.gather(first, *gathered[1:])


async def test_leaving_waits_until_everything_gathered_is_confirmed() -> None:
    held = HeldPublisher()
    to_broker = ToBroker(held, GatewayMetrics(CollectorRegistry()), slots=1, max_waiting_bytes=MAX_BYTES)
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
    await held.published(1)
    await settle()
    assert not left.is_set()
    held.confirm(0)
    await held.published(2)
    assert not left.is_set(), "what was gathered is not dropped"
    held.confirm(1)
    await running_task
    await asyncio.gather(*tasks)
    assert held.sizes == [1, 2]


async def test_what_is_sent_in_the_last_turn_is_published_before_leaving() -> None:
    held = HeldPublisher()
    held.free = True
    async with running(held) as to_broker:
        task = sending(to_broker, documents(1))
        await asyncio.sleep(0)
    await task
    assert held.sizes == [1]
