"""Old and new versions side by side, even in the wrong order: what an old worker cannot read waits for a new one."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from broker.connect import open_broker
from broker.topology import DEAD_LETTERS, READINGS
from readings.reading import ATTRIBUTES
from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import Device, connected, readings
from tests.integration.services import ROOT, started

NEXT_VERSION = "tests.integration.next_version"


async def replayed(rabbitmq_url: str, module: str) -> str:
    """Replay what was too new with the tool of one version; return its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *module.split(), "dead-letters", "replay", "--reason", "newer_schema"),
        cwd=ROOT,
        env=os.environ | {"BROKER_URL": rabbitmq_url},
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@asynccontextmanager
async def streaming(device: Device, start: int) -> AsyncIterator[None]:
    """Send without a pause while the context lasts; the batch in progress is finished."""
    ending = asyncio.Event()

    async def send() -> None:
        number = start
        while not ending.is_set():
            await device.send_until_accepted(readings(number, 20))
            number += 20

    task = asyncio.ensure_future(send())
    try:
        yield
    finally:
        ending.set()
        await task


async def test_old_and_new_messages_and_workers_side_by_side_lose_nothing_and_store_nothing_twice(
    pipeline: Pipeline, rabbitmq_url: str
) -> None:
    url, database = pipeline.mongodb
    worker = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": database}
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(open_broker(rabbitmq_url))
        new_gateway = await stack.enter_async_context(
            started(f"{NEXT_VERSION} gateway", BROKER_URL=rabbitmq_url, AUTH_URL=pipeline.auth.url)
        )
        devices = [
            await stack.enter_async_context(connected(gateway.url, pipeline.token, pipeline.device))
            for gateway in (pipeline.gateways[0], new_gateway)
        ]

        async def some_are_dead() -> bool:
            return await broker.depth(DEAD_LETTERS) > 5

        async def all_is_settled() -> bool:
            return await broker.depth(READINGS) == 0

        async with streaming(devices[0], 0), streaming(devices[1], 1_000_000):
            await eventually(some_are_dead, "old workers dead-letter what is too new for them")
            new = [
                await stack.enter_async_context(started(f"{NEXT_VERSION} persister", **worker))
                for _ in pipeline.persisters
            ]
            await asyncio.sleep(0.5)  # all four at work
            assert [await old.stop() for old in pipeline.persisters] == [0, 0]
        await eventually(all_is_settled, "the queue is empty")
        acknowledged = devices[0].acknowledged | devices[1].acknowledged

        async def the_old_gateways_are_stored() -> bool:
            return devices[0].acknowledged <= await asyncio.to_thread(pipeline.identities)

        # The queue is empty as soon as a worker holds the last messages.
        await eventually(the_old_gateways_are_stored, "what the old gateway sent was stored all along")
        assert acknowledged - pipeline.identities()

        assert "0 dead letters replayed" in await replayed(rabbitmq_url, "broker"), "the old tool leaves them"
        await replayed(rabbitmq_url, f"{NEXT_VERSION} broker")

        async def all_is_stored() -> bool:
            return await asyncio.to_thread(pipeline.identities) == acknowledged

        await eventually(all_is_stored, "what was dead-lettered is stored")
        assert len(pipeline.stored()) == len(acknowledged)
        assert await broker.depth(DEAD_LETTERS) == 0
        assert [await worker.stop() for worker in new] == [0, 0]


async def test_old_workers_store_an_attribute_that_they_do_not_know(pipeline: Pipeline, rabbitmq_url: str) -> None:
    assert ATTRIBUTES[-1] == "quality"
    url, database = pipeline.mongodb
    worker = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": database}
    async with started("tests.integration.previous_version persister", **worker) as old:
        assert [await new.stop() for new in pipeline.persisters] == [0, 0]
        async with connected(pipeline.gateways[0].url, pipeline.token, pipeline.device) as device:
            sent = [reading | {"quality": "bad"} for reading in readings(0, 20)]
            await device.send_until_accepted(sent)

            async def all_is_stored() -> bool:
                return await asyncio.to_thread(pipeline.identities) == device.acknowledged

            await eventually(all_is_stored, "the old worker stores them")
        assert [document["quality"] for document in pipeline.stored()] == ["bad"] * len(sent)
        assert await old.stop() == 0
