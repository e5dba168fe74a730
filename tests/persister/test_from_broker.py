"""What goes into one batch: what has arrived and, if that is little, what arrives shortly after."""

import asyncio
import time

from broker.interface import Delivery
from broker.message import Message
from persister.acks import AckTracker
from persister.from_broker import TYPICAL_DOCUMENT_BYTES, FromBroker

LONG_MS = 30_000


class Arriving:
    """A consumer whose messages arrive when a test says so."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._tag = 0

    def arrive(self, readings: int, *, delivery_count: int = 0) -> None:
        """Let a message of this many typical readings arrive."""
        self._tag += 1
        message = Message(bytes(readings * TYPICAL_DOCUMENT_BYTES), {}, str(self._tag))
        self._arrived.put_nowait(Delivery(message, self._tag, delivery_count, 1))

    async def get(self) -> Delivery:
        return await self._arrived.get()

    def get_nowait(self) -> Delivery | None:
        return None if self._arrived.empty() else self._arrived.get_nowait()


def source(consumer: Arriving, *, linger_ms: int, unsettled: int = 0) -> FromBroker:
    """A source for batches of 100 readings from a window of 8 messages, of which some are taken and not settled."""
    acks = AckTracker(consumer)  # type: ignore[arg-type]  # as much of one as is needed
    for tag in range(1000, 1000 + unsettled):
        acks.add(Delivery(Message(b""), tag, 0, 1))
    return FromBroker(
        consumer,  # type: ignore[arg-type]  # as much of one as is needed
        acks,
        batch_readings=100,
        linger_ms=linger_ms,
        prefetch=8,
    )


def tags(found: list[Delivery]) -> list[int]:
    return [delivery.tag for delivery in found]


async def test_of_little_a_batch_waits_for_what_comes_a_moment_later() -> None:
    consumer = Arriving()
    taking = source(consumer, linger_ms=100)
    consumer.arrive(1)
    await taking.wait()
    batch = asyncio.ensure_future(taking.next_batch())
    await asyncio.sleep(0)
    consumer.arrive(1)
    assert tags(await batch) == [1, 2]


async def test_a_full_batch_waits_for_nothing() -> None:
    consumer = Arriving()
    taking = source(consumer, linger_ms=LONG_MS)
    for _ in range(3):
        consumer.arrive(50)
    await taking.wait()
    started = time.monotonic()
    assert tags(await taking.next_batch()) == [1, 2]
    assert time.monotonic() - started < 5
    await taking.wait()
    consumer.arrive(50)
    assert tags(await taking.next_batch()) == [3, 4]


async def test_a_batch_may_be_asked_to_be_smaller_but_has_one_message() -> None:
    consumer = Arriving()
    taking = source(consumer, linger_ms=LONG_MS)
    for _ in range(3):
        consumer.arrive(50)
    await taking.wait()
    assert tags(await taking.next_batch(20)) == [1]
    await taking.wait()
    assert tags(await taking.next_batch(1000)) == [2, 3]


async def test_what_must_be_written_alone_ends_the_wait() -> None:
    consumer = Arriving()
    taking = source(consumer, linger_ms=LONG_MS)
    consumer.arrive(1)
    consumer.arrive(1, delivery_count=3)
    await taking.wait()
    assert tags(await taking.next_batch()) == [1]


async def test_without_a_linger_what_has_arrived_is_taken_at_once() -> None:
    consumer = Arriving()
    taking = source(consumer, linger_ms=0)
    consumer.arrive(1)
    await taking.wait()
    assert tags(await taking.next_batch()) == [1]


async def test_where_the_window_is_used_up_nothing_is_waited_for() -> None:
    consumer = Arriving()
    taking = source(consumer, linger_ms=LONG_MS, unsettled=6)
    consumer.arrive(1)
    await taking.wait()
    batch = asyncio.ensure_future(taking.next_batch())
    await asyncio.sleep(0.05)
    assert not batch.done(), "there is room for one"
    consumer.arrive(1)
    assert tags(await asyncio.wait_for(batch, 5)) == [1, 2]
