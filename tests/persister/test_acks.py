"""The order of acknowledgements, and with how few frames they are sent."""

import asyncio

import pytest

from broker.interface import BrokerUnavailable, Delivery
from persister.acks import AckTracker
from tests.persister.harness import Queue, delivery


async def test_what_ends_out_of_order_is_acknowledged_in_order_and_at_once() -> None:
    queue = Queue([])
    acks = AckTracker(queue)
    found = [delivery(tag) for tag in range(1, 6)]
    for one in found:
        acks.add(one)
    await acks.settle(found[2:4])
    assert queue.acknowledged == []
    await acks.settle(found[:2])
    assert queue.acknowledged == [(4, True)]
    await acks.settle(found[4:])
    assert queue.acknowledged == [(4, True), (5, True)]
    assert len(acks) == 0


async def test_behind_a_parked_message_the_others_are_acknowledged_one_by_one() -> None:
    queue = Queue([])
    acks = AckTracker(queue)
    found = [delivery(tag) for tag in range(1, 6)]
    for one in found:
        acks.add(one)
    acks.park(found[1])
    await acks.settle([found[0], found[2]])
    assert queue.acknowledged == [(1, False), (3, False)]
    assert (acks.parked, acks.oldest) == (1, found[3])
    await acks.settle_parked(found[1])
    await acks.settle(found[3:])
    assert queue.acknowledged == [(1, False), (3, False), (2, False), (5, True)]
    assert (acks.parked, len(acks), acks.oldest) == (0, 0, None)


async def test_a_new_connection_ends_what_was_open_on_the_old_one() -> None:
    queue = Queue([])
    acks = AckTracker(queue)
    old, new = delivery(7), delivery(1, generation=1)
    acks.add(old)
    acks.add(new)
    await acks.settle([old])
    assert queue.acknowledged == []
    await acks.settle([new])
    assert queue.acknowledged == [(1, True)]


async def test_what_ends_on_the_old_connection_does_not_end_what_has_its_tag_on_the_new_one() -> None:
    queue = Queue([])
    acks = AckTracker(queue)
    old, first, second = delivery(1), delivery(1, generation=1), delivery(2, generation=1)
    for one in (old, first, second):
        acks.add(one)
    await acks.settle([old])
    await acks.settle([second])
    assert queue.acknowledged == []
    assert acks.oldest == first


async def test_an_acknowledgement_that_fails_is_repeated_and_none_is_sent_twice_at_once() -> None:
    queue = Queue([])
    acks = AckTracker(queue)
    found = [delivery(tag) for tag in range(1, 4)]
    for one in found:
        acks.add(one)
    acknowledge, may_go, tries = queue.acknowledge, asyncio.Event(), 0

    async def failing_first(one: Delivery, *, multiple: bool = False) -> bool:
        nonlocal tries
        tries += 1
        await may_go.wait()
        if tries == 1:
            raise BrokerUnavailable("away")
        return await acknowledge(one, multiple=multiple)

    queue.acknowledge = failing_first  # type: ignore[method-assign,assignment]
    first, second = (asyncio.ensure_future(acks.settle(some)) for some in (found[:2], found[2:]))
    await asyncio.sleep(0)
    may_go.set()
    with pytest.raises(BrokerUnavailable):
        await first
    await second
    await acks.settle(found[:2])
    assert queue.acknowledged == [(3, True)]
    assert len(acks) == 0
