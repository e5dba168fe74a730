"""A persister that is killed between write and acknowledgement: what rules watch of it is announced all the same."""

import asyncio

import pytest

from broker.alarms import decode_announcement
from broker.connect import open_broker
from broker.message import Message
from broker.topology import ALARMS, READINGS_EXCHANGE
from tests.integration.services import started
from tests.persister.harness import document, stored

START_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("point", "times"), [("persister.before_announce", 1), ("persister.announced", 2)], ids=["before", "behind"]
)
async def test_every_stored_reading_is_announced_at_least_once(
    rabbitmq_url: str, mongodb_database: tuple[str, str], point: str, times: int
) -> None:
    url, name = mongodb_database
    # Nobody has a list of rules there: until it is known, everything is announced.
    settings = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": name}
    settings |= {"ALARMS_URL": "http://127.0.0.1:1"}
    announced: list[int] = []
    async with open_broker(rabbitmq_url) as broker, broker.publisher() as publisher:
        async with started("persister", **settings, TIDEGATE_FAILPOINT=f"{point}:1") as killed:
            await publisher.publish(Message.of([document(number) for number in range(50)]), READINGS_EXCHANGE)
            await asyncio.wait_for(killed.process.wait(), 60)
        assert len(stored(mongodb_database)) == 50
        async with started("persister", **settings), broker.consumer(ALARMS, prefetch=10) as consumer:
            async with asyncio.timeout(60):
                while len(announced) < 50 * times:
                    delivery = await consumer.get()
                    for series in decode_announcement(delivery.message.body):
                        announced += [one.ts_ms - START_MS for one in series.readings]
                    await consumer.acknowledge(delivery)
    assert sorted(announced) == sorted([*range(50)] * times)
    assert len(stored(mongodb_database)) == 50
