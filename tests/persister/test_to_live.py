"""What is broadcast of what was stored."""

import asyncio

import pytest

from broker.message import Message
from persister.to_live import ToLive
from readings.document import document_ts_ms, series_bytes
from testing.waiting import eventually
from tests.gateway.fakes import RecordingBroadcaster
from tests.persister.harness import Harness, document


async def test_the_live_copy_is_the_newest_of_each_series() -> None:
    broadcaster = RecordingBroadcaster()
    async with ToLive(broadcaster).broadcasting() as live:
        for batch in ([document(2), document(1, "humidity")], [document(1)]):
            live.add({series_bytes(one): (document_ts_ms(one), one) for one in batch})

        async def broadcast() -> bool:
            return bool(broadcaster.payloads)

        await eventually(broadcast, "it is broadcast")
        await asyncio.sleep(0.25)
    assert broadcaster.payloads == [document(2) + document(1, "humidity")]


@pytest.mark.parametrize("messages", [[[3, 9, 5]], [[9, 3], [5]], [[3], [9], [5]]])
async def test_the_live_copy_is_the_newest_by_time_whatever_the_order_of_arrival(messages: list[list[int]]) -> None:
    harness = Harness([Message.of([document(number) for number in numbers]) for numbers in messages])
    async with harness.persister._live.broadcasting():
        await harness.run()
        await asyncio.sleep(0.25)
    assert harness.live.payloads == [document(9)]


async def test_only_what_was_stored_is_in_the_live_copy() -> None:
    harness = Harness([Message.of([document(1), document(2), document(3)])])
    harness.store.refuse = {document(3)}
    async with harness.persister._live.broadcasting():
        await harness.run()
        await asyncio.sleep(0.25)
    assert harness.live.payloads == [document(2)]
