"""How long messages are held, and what happens at their deadline."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from broker.interface import Delivery
from broker.message import Message
from persister import retry
from persister.batch import MAX_DELIVERIES
from persister.mongodb_errors import WriteFailed, WriteRefused
from testing.waiting import eventually
from tests.persister.harness import Harness, document


async def test_the_number_of_requeues_is_queried_until_mongodb_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
    harness = Harness([], hold_s=0.1)
    harness.queue.deliver(Message.of([document(1)]), 1, MAX_DELIVERIES)

    async def away(_: Message) -> int:
        raise WriteFailed("away")

    monkeypatch.setattr(harness.requeues, "count", away)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(harness.persister.run(harness.stop), 5)
    assert raised.group_contains(retry.HeldTooLongError)
    assert not harness.dead.messages


async def test_what_goes_back_with_its_consumer_is_recorded_and_what_is_done_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
    harness = Harness([Message(b"bad"), Message.of([document(2)])], dead_failures=10**9, hold_s=0.4, writes_in_flight=1)
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def one_is_done() -> bool:
        return list(harness.queue.open) == [1]

    await eventually(one_is_done, "the good one is stored")
    harness.store.failures = 10**9
    tries = len(harness.store.acknowledged_at_write)
    harness.queue.deliver(Message.of([document(3)]), 3)

    async def held() -> bool:
        return len(harness.store.acknowledged_at_write) > tries

    await eventually(held, "the third is held")
    for tag in (4, 5):  # one of which waits for the write to end, and one in the window
        harness.queue.deliver(Message.of([document(tag)]), tag)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(task, 5)
    assert {delivery.tag for delivery in harness.requeues.recorded} == {1, 3, 4, 5}


async def test_the_time_that_a_message_has_waited_before_its_write_counts_as_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
    harness = Harness([], failures=10**9, hold_s=60)
    message = Message.of([document(1)])
    harness.queue.open[1] = message
    harness.queue.arrived.put_nowait(Delivery(message, 1, 0, arrived_at=time.monotonic() - 59.8))
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(harness.persister.run(harness.stop), 5)
    assert raised.group_contains(retry.HeldTooLongError)
    assert len(harness.store.acknowledged_at_write) > 1


async def test_a_message_that_is_late_already_is_tried_all_the_same() -> None:
    harness = Harness([], hold_s=1)
    message = Message.of([document(1)])
    harness.queue.open[1] = message
    harness.queue.arrived.put_nowait(Delivery(message, 1, 0, arrived_at=time.monotonic() - 100))
    await harness.run()
    assert harness.store.written == [document(1)]


async def test_what_is_held_when_its_connection_is_lost_is_given_up_so_that_losses_do_not_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
    harness = Harness([Message.of([document(1)])], failures=10**9, hold_s=60)
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def held() -> bool:
        return len(harness.store.acknowledged_at_write) > 2

    await eventually(held, "it is held")
    assert not task.done()
    harness.queue.generation += 1
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(task, 5)
    assert raised.group_contains(retry.HeldTooLongError)
    assert not harness.requeues.recorded, "the broker has it again, but no worker has requeued it"


async def test_what_is_held_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
    harness = Harness([Message.of([document(1)])], failures=10**9, hold_s=0.1)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(harness.persister.run(harness.stop), 5)
    assert raised.group_contains(retry.HeldTooLongError)
    assert list(harness.queue.open) == [1]


async def test_what_is_given_up_leaves_no_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
    before = asyncio.all_tasks()
    harness = Harness([Message.of([document(1)])], failures=10**9, hold_s=0.05)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(harness.persister.run(harness.stop), 5)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_refusal_is_raised_at_once_and_ends_the_outage_before_it() -> None:
    harness = Harness([])
    results: list[Exception] = [WriteFailed("away"), WriteRefused("no", 1, certain=False)]

    async def attempt() -> None:
        raise results.pop(0)

    with capture_logs() as logs, pytest.raises(WriteRefused):
        await harness.retrier.run("readings", attempt)
    assert [one["event"] for one in logs] == ["A write failed; retrying.", "Writes succeed again."]
    assert not results
