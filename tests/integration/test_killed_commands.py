"""Gateway and auth are killed while a device executes a command: no false `done`, and a kept one comes again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from device import Command, Device
from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import logged_in
from tests.integration.services import Running, started

EMAIL = "ada@example.com"


class Worker:
    """A library device at the first gateway; it executes a command until it may finish."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_finish = asyncio.Event()

    async def execute(self, command: Command) -> str:
        self.begun.append(command.id)
        await self.may_finish.wait()
        return "executed"

    async def has_begun(self) -> None:
        async def begun() -> bool:
            return bool(self.begun)

        await eventually(begun, "the device has the command")


def again(killed: Running) -> Any:
    """Start a service again at its port."""
    return started(killed.name, **{**killed.settings, "PORT": str(killed.port)})


@pytest.fixture
async def worker(pipeline: Pipeline, rabbitmq_url: str) -> AsyncIterator[Worker]:
    worker = Worker()
    await pipeline.auth.stop()
    pipeline.auth.settings["BROKER_URL"] = rabbitmq_url  # it serves commands
    async with (
        again(pipeline.auth) as pipeline.auth,
        Device(pipeline.gateways[0].url, token=pipeline.token, buffer=None) as device,
    ):
        device.on_command(worker.execute)
        await device.send({"value": 1})
        await device.flush(30)  # connected
        yield worker


async def posted(pipeline: Pipeline, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Send a command as the owner; return the response's status and body."""
    async with aiohttp.ClientSession(pipeline.auth.url) as session:
        bearer = {"Authorization": f"Bearer {await logged_in(session, EMAIL)}"}
        path = f"/devices/{pipeline.device}/commands"
        async with session.post(path, json={"name": "work", **fields}, headers=bearer) as response:
            return response.status, await response.json(content_type=None)


async def only_status(pipeline: Pipeline) -> str:
    """Return the status of the only command that there is."""
    async with aiohttp.ClientSession(pipeline.auth.url) as session:
        bearer = {"Authorization": f"Bearer {await logged_in(session, EMAIL)}"}
        async with session.get(f"/devices/{pipeline.device}/commands", headers=bearer) as response:
            (item,) = (await response.json())["items"]
            return str(item["status"])


async def test_a_gateway_killed_in_the_middle_of_a_command_is_a_timeout_for_who_waits(
    pipeline: Pipeline, worker: Worker
) -> None:
    waiting = asyncio.create_task(posted(pipeline, timeoutMs=5000))
    await worker.has_begun()
    await pipeline.gateways[0].kill()
    worker.may_finish.set()  # its acknowledgement reaches nobody
    async with again(pipeline.gateways[0]):
        status, body = await waiting
        assert (status, body["code"]) == (504, "timeout")
        assert await only_status(pipeline) != "done"
    assert worker.begun == [body["id"]], "what is waited for is never sent twice"


async def test_auth_killed_in_the_middle_of_a_command_has_not_seen_it_done(pipeline: Pipeline, worker: Worker) -> None:
    waiting = asyncio.create_task(posted(pipeline, timeoutMs=5000))
    await worker.has_begun()
    await pipeline.auth.kill()
    worker.may_finish.set()
    with pytest.raises(aiohttp.ClientError):
        await waiting
    async with again(pipeline.auth):
        assert await only_status(pipeline) != "done"


@pytest.mark.parametrize("victim", ["gateway", "auth"])
async def test_a_kept_command_comes_again_under_its_id_and_is_executed_once(
    pipeline: Pipeline, worker: Worker, victim: str
) -> None:
    status, body = await posted(pipeline, timeoutMs=2000, keepSeconds=600)
    assert status == 202
    await worker.has_begun()
    killed = pipeline.gateways[0] if victim == "gateway" else pipeline.auth
    await killed.kill()
    worker.may_finish.set()
    async with again(killed):

        async def done() -> bool:
            return await only_status(pipeline) == "done"

        await eventually(done, "the kept command is done")
    assert worker.begun == [body["id"]]
