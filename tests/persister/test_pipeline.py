"""What several batches at once, poison and long outages do to the order of acknowledgements."""

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.interface import Broker, BrokerUnavailable, Delivery
from broker.message import Message
from persister import retry as holding
from persister.acks import Ledger
from persister.batch import TOO_OFTEN, Outcome
from persister.metrics import PersisterMetrics
from persister.to_live import ToLive
from persister.to_mongodb import WriteFailed, Written
from persister.watchdog import StuckError, watch_deliveries
from readings.document import document_ts_ms, series_bytes
from testing.waiting import eventually
from tests.gateway.fakes import RecordingBroadcaster
from tests.persister.test_persister import Bench, Queue, document


def delivery(tag: int, generation: int = 0) -> Delivery:
    return Delivery(Message.of([document(tag)]), tag, 0, generation)


async def test_what_ends_out_of_order_is_acknowledged_in_order_and_at_once() -> None:
    queue = Queue([])
    ledger = Ledger(queue)
    found = [delivery(tag) for tag in range(1, 6)]
    for one in found:
        ledger.add(one)
    await ledger.settle(found[2:4])
    assert queue.acknowledged == []
    await ledger.settle(found[:2])
    assert queue.acknowledged == [(4, True)]
    await ledger.settle(found[4:])
    assert queue.acknowledged == [(4, True), (5, True)]
    assert len(ledger) == 0


async def test_behind_a_parked_message_the_others_are_acknowledged_one_by_one() -> None:
    queue = Queue([])
    ledger = Ledger(queue)
    found = [delivery(tag) for tag in range(1, 6)]
    for one in found:
        ledger.add(one)
    ledger.park(found[1])
    await ledger.settle([found[0], found[2]])
    assert queue.acknowledged == [(1, False), (3, False)]
    assert (ledger.parked, ledger.oldest) == (1, found[3])
    await ledger.settle_parked(found[1])
    await ledger.settle(found[3:])
    assert queue.acknowledged == [(1, False), (3, False), (2, False), (5, True)]
    assert (ledger.parked, len(ledger), ledger.oldest) == (0, 0, None)


async def test_a_new_connection_ends_what_was_open_on_the_old_one() -> None:
    queue = Queue([])
    ledger = Ledger(queue)
    old, new = delivery(7), delivery(1, generation=1)
    ledger.add(old)
    ledger.add(new)
    await ledger.settle([old])
    assert queue.acknowledged == []
    await ledger.settle([new])
    assert queue.acknowledged == [(1, True)]


async def test_the_next_batch_is_written_while_one_is_and_no_third() -> None:
    bench = Bench([])
    going: list[list[bytes]] = []
    may_end = asyncio.Event()

    async def write(documents: list[bytes]) -> Written:
        going.append(documents)
        await may_end.wait()
        return Written([Outcome.STORED] * len(documents), {})

    bench.store.write = write  # type: ignore[method-assign,assignment]
    task = asyncio.ensure_future(bench.persister.run(bench.stop))
    for tag in range(1, 6):
        bench.queue.deliver(Message.of([document(tag)]), tag)
        for _ in range(20):
            await asyncio.sleep(0)
    assert going == [[document(1)], [document(2)]], "two are written, the others gather"
    may_end.set()
    async with asyncio.timeout(5):
        await bench.queue.settled.wait()
    assert [one for written in going for one in written] == [document(tag) for tag in range(1, 6)]
    assert len(going) < 5, "what gathered was written together"
    bench.stop.set()
    await task


async def test_while_dead_letters_are_refused_the_others_go_on_and_nothing_is_lost() -> None:
    bench = Bench([Message(b"bad"), Message.of([document(1)])], dead_failures=10**9)
    task = asyncio.ensure_future(bench.persister.run(bench.stop))

    async def only_the_bad_one_is_left() -> bool:
        return list(bench.queue.open) == [1]

    await eventually(only_the_bad_one_is_left, "the good one is settled")
    for tag in range(3, 40):
        bench.queue.deliver(Message.of([document(tag)]), tag)
    await eventually(only_the_bad_one_is_left, "those that come later are settled, too")
    assert bench.persister.ledger.parked == 1
    bench.dead.failures = 0
    async with asyncio.timeout(10):
        await bench.queue.settled.wait()
    assert [letter.body for letter in bench.dead.letters] == [b"bad"]
    bench.stop.set()
    await task


async def test_a_message_that_came_often_is_written_alone_and_one_that_came_too_often_is_dead() -> None:
    bench = Bench([])
    written: list[list[bytes]] = []
    write = bench.store.write

    async def noting(documents: list[bytes]) -> Written:
        written.append(documents)
        return await write(documents)

    bench.store.write = noting  # type: ignore[method-assign,assignment]
    for tag, count in ((1, 0), (2, 2), (3, 3), (4, 0), (5, 100), (6, 0)):
        bench.queue.deliver(Message.of([document(tag)]), tag, count)
    await bench.run()
    assert written == [[document(1), document(2)], [document(3)], [document(4)], [document(6)]]
    (letter,) = bench.dead.letters
    assert (letter.headers["x-reason"], letter.documents()) == ("too_often", [document(5)])


@pytest.mark.parametrize(("returns", "letters"), [(0, 1), (20, 1), (21, 0), (500, 0)])
async def test_what_workers_returned_of_their_own_will_does_not_count_against_a_message(
    returns: int, letters: int
) -> None:
    bench = Bench([])
    bench.requeues.times = {document(1): returns}
    bench.queue.deliver(Message.of([document(1)]), 1, TOO_OFTEN + 20)
    await bench.run()
    assert len(bench.dead.letters) == letters
    assert len(bench.store.written) == 1 - letters


async def test_how_often_a_message_was_returned_is_asked_until_mongodb_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    bench = Bench([], hold_s=0.1)
    bench.queue.deliver(Message.of([document(1)]), 1, TOO_OFTEN)

    async def away(_: Message) -> int:
        raise WriteFailed("away")

    monkeypatch.setattr(bench.requeues, "returns", away)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(bench.persister.run(bench.stop), 5)
    assert raised.group_contains(holding.LetGoError)
    assert not bench.dead.letters


async def test_what_goes_back_with_its_consumer_is_noted_and_what_is_done_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    bench = Bench([Message(b"bad"), Message.of([document(2)])], dead_failures=10**9, hold_s=0.4, writes_in_flight=1)
    task = asyncio.ensure_future(bench.persister.run(bench.stop))

    async def one_is_done() -> bool:
        return list(bench.queue.open) == [1]

    await eventually(one_is_done, "the good one is stored")
    bench.store.failures = 10**9
    tries = len(bench.store.acknowledged_at_write)
    bench.queue.deliver(Message.of([document(3)]), 3)

    async def held() -> bool:
        return len(bench.store.acknowledged_at_write) > tries

    await eventually(held, "the third is held")
    for tag in (4, 5):  # one of which waits for the write to end, and one in the window
        bench.queue.deliver(Message.of([document(tag)]), tag)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(task, 5)
    assert {delivery.tag for delivery in bench.requeues.noted} == {1, 3, 4, 5}


async def test_the_time_that_a_message_has_waited_before_its_write_counts_as_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    bench = Bench([], failures=10**9, hold_s=60)
    message = Message.of([document(1)])
    bench.queue.open[1] = message
    bench.queue.arrived.put_nowait(Delivery(message, 1, 0, arrived_at=time.monotonic() - 59.8))
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(bench.persister.run(bench.stop), 5)
    assert raised.group_contains(holding.LetGoError)
    assert len(bench.store.acknowledged_at_write) > 1


async def test_a_message_that_is_late_already_is_tried_all_the_same() -> None:
    bench = Bench([], hold_s=1)
    message = Message.of([document(1)])
    bench.queue.open[1] = message
    bench.queue.arrived.put_nowait(Delivery(message, 1, 0, arrived_at=time.monotonic() - 100))
    await bench.run()
    assert bench.store.written == [document(1)]


async def test_what_is_held_when_its_connection_is_lost_is_let_go_so_that_losses_do_not_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    bench = Bench([Message.of([document(1)])], failures=10**9, hold_s=60)
    task = asyncio.ensure_future(bench.persister.run(bench.stop))

    async def held() -> bool:
        return len(bench.store.acknowledged_at_write) > 2

    await eventually(held, "it is held")
    assert not task.done()
    bench.queue.generation += 1
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(task, 5)
    assert raised.group_contains(holding.LetGoError)
    assert not bench.requeues.noted, "the broker has it again, but by no will of ours"


async def test_what_is_redelivered_is_asked_for_first_and_not_written_again() -> None:
    bench = Bench([])
    bench.store.written = [document(1)]
    bench.queue.deliver(Message.of([document(1), document(2)]), 1, 1)
    await bench.run()
    assert bench.store.written == [document(1), document(2)]
    assert bench.watched == [Outcome.DUPLICATE, Outcome.STORED]


async def test_a_letter_keeps_what_its_message_said_of_itself() -> None:
    headers: dict[str, str | int] = {"x-schema": 7, "x-replays": 2, "x-first-seen": "2026-01-01T00:00:00.000Z"}
    bench = Bench([Message(document(1), headers)])
    await bench.run()
    (letter,) = bench.dead.letters
    assert {name: letter.headers[name] for name in headers} == headers
    assert letter.headers["x-reason"] == "newer_schema"


async def test_what_is_held_for_too_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    bench = Bench([Message.of([document(1)])], failures=10**9, hold_s=0.1)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(bench.persister.run(bench.stop), 5)
    assert raised.group_contains(holding.LetGoError)
    assert list(bench.queue.open) == [1]


class Depth:
    """A broker that only tells a depth."""

    def __init__(self, depth: int | None) -> None:
        self.found = depth

    async def depth(self, _: Any) -> int:
        if self.found is None:
            raise BrokerUnavailable("away")
        return self.found


@pytest.mark.parametrize(("depth", "open_ones", "ends"), [(5, 0, True), (0, 0, False), (5, 1, False), (None, 0, False)])
async def test_a_worker_that_is_delivered_nothing_although_messages_wait_is_ended(
    depth: int | None, open_ones: int, ends: bool
) -> None:
    ledger = Ledger(Queue([]))
    for tag in range(1, open_ones + 1):
        ledger.add(delivery(tag))
    broker: Broker = Depth(depth)  # type: ignore[assignment]
    watching = watch_deliveries(broker, ledger, PersisterMetrics(CollectorRegistry()), stuck_after_s=0.2)
    with pytest.raises(StuckError if ends else TimeoutError):
        await asyncio.wait_for(watching, 1)


async def test_the_live_copy_is_the_newest_of_each_series() -> None:
    heard = RecordingBroadcaster()
    async with ToLive(heard).announced() as live:
        for batch in ([document(2), document(1, "humidity")], [document(1)]):
            live.stored({series_bytes(one): (document_ts_ms(one), one) for one in batch})

        async def told() -> bool:
            return bool(heard.payloads)

        await eventually(told, "it is announced")
        await asyncio.sleep(0.25)
    assert heard.payloads == [document(2) + document(1, "humidity")]


@pytest.mark.parametrize("messages", [[[3, 9, 5]], [[9, 3], [5]], [[3], [9], [5]]])
async def test_the_live_copy_is_the_newest_by_time_whatever_the_order_of_arrival(messages: list[list[int]]) -> None:
    bench = Bench([Message.of([document(number) for number in numbers]) for numbers in messages])
    async with bench.persister._live.announced():
        await bench.run()
        await asyncio.sleep(0.25)
    assert bench.live.payloads == [document(9)]


async def test_only_what_was_stored_is_in_the_live_copy() -> None:
    bench = Bench([Message.of([document(1), document(2), document(3)])])
    bench.store.refuse = {document(3)}
    async with bench.persister._live.announced():
        await bench.run()
        await asyncio.sleep(0.25)
    assert bench.live.payloads == [document(2)]


async def test_an_acknowledgement_that_fails_is_told_again_and_none_twice_at_once() -> None:
    queue = Queue([])
    ledger = Ledger(queue)
    found = [delivery(tag) for tag in range(1, 4)]
    for one in found:
        ledger.add(one)
    acknowledge, may_go, tries = queue.acknowledge, asyncio.Event(), 0

    async def failing_first(one: Delivery, *, multiple: bool = False) -> bool:
        nonlocal tries
        tries += 1
        await may_go.wait()
        if tries == 1:
            raise BrokerUnavailable("away")
        return await acknowledge(one, multiple=multiple)

    queue.acknowledge = failing_first  # type: ignore[method-assign,assignment]
    first, second = (asyncio.ensure_future(ledger.settle(some)) for some in (found[:2], found[2:]))
    await asyncio.sleep(0)
    may_go.set()
    with pytest.raises(BrokerUnavailable):
        await first
    await second
    await ledger.settle(found[:2])
    assert queue.acknowledged == [(3, True)]
    assert len(ledger) == 0


async def test_what_is_let_go_leaves_no_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    before = asyncio.all_tasks()
    bench = Bench([Message.of([document(1)])], failures=10**9, hold_s=0.05)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(bench.persister.run(bench.stop), 5)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_dead_letter_whose_message_was_not_settled_any_more_is_not_counted_as_settled() -> None:
    """Its consumer was cancelled meanwhile: the message comes again, and counts then."""
    bench = Bench([Message.of([document(1)])])
    bench.store.refuse.add(document(1))
    bench.queue.stale = True
    task = asyncio.ensure_future(bench.persister.run(bench.stop))
    async with asyncio.timeout(10):
        while not bench.dead.letters or bench.persister.ledger.parked:
            await asyncio.sleep(0)
    assert bench.watched == []
    bench.queue.stale = False
    bench.queue.deliver(bench.queue.open[1], 2)
    del bench.queue.open[1]
    async with asyncio.timeout(10):
        await bench.queue.settled.wait()
        while not bench.watched:
            await asyncio.sleep(0)
        bench.stop.set()
        await task
    assert bench.watched == [Outcome.DEAD]
