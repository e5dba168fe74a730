"""Commands that somebody waits for, against real gateways and plain clients."""

import asyncio
import time
from typing import Any

import pytest

from auth.commands.store import MAX_PENDING
from broker.interface import Broker
from tests.auth.commands.system import Device, done, gateway
from tests.auth.service import Client, make_settings, running


async def test_a_command_reaches_the_device_and_its_result_comes_back(
    broker: Broker, auth: Client, device: Device
) -> None:
    async with gateway(broker, auth) as url, device.connected(url, done({"rate": 2})):
        answer = await device.command(payload={"rate": 2})
    assert answer.status == 200, answer.raw
    assert answer.json == {"id": answer.json["id"], "status": "done", "result": {"rate": 2}}
    assert device.received == [{"id": answer.json["id"], "name": "set_rate", "payload": {"rate": 2}}]
    (item,) = await device.listed()
    assert (item["id"], item["status"], item["result"]) == (answer.json["id"], "done", {"rate": 2})
    assert item["createdAt"] <= item["deliveredAt"] <= item["finishedAt"]
    assert auth.metric("tidegate_auth_commands_total", outcome="done") == 1


async def test_a_device_that_is_not_connected_is_offline(broker: Broker, auth: Client, device: Device) -> None:
    async with gateway(broker, auth):
        answer = await device.command()
    assert (answer.status, answer.json["code"]) == (409, "offline")
    assert await device.listed() == []


async def test_nobody_commands_what_is_not_theirs(broker: Broker, auth: Client, device: Device) -> None:
    other = await auth.new_user("eve@example.org")
    path = f"/devices/{device.id}/commands"
    assert (await auth.post(path, {"name": "x"}, token=other)).status == 404
    assert (await auth.get(path, token=other)).status == 404
    assert (await auth.post(path, {"name": "x"}, token=device.token)).status == 403
    assert (await auth.post("/devices/unknown/commands", {"name": "x"}, token=device.user_token)).status == 404


@pytest.mark.parametrize(
    ("acknowledgement", "status"),
    [
        ({"status": "failed", "detail": "no such rate"}, "failed"),
        ("ok", "failed"),
        (True, "failed"),
        ({"status": "Done"}, "failed"),
        ({"error": "unknown command"}, "failed"),
        ({"status": "done", "result": "x" * 17_000}, "failed"),
        ({"status": "done", "result": "x" * 16_000}, "done"),
    ],
)
async def test_only_an_explicit_done_is_done(
    broker: Broker, auth: Client, device: Device, acknowledgement: Any, status: str
) -> None:
    async with gateway(broker, auth) as url, device.connected(url, lambda _: acknowledgement):
        answer = await device.command(timeoutMs=5000)
    assert (answer.status, answer.json["status"]) == (200, status)
    assert await device.listed_as(status)
    if acknowledgement == {"status": "failed", "detail": "no such rate"}:
        assert answer.json["detail"] == "no such rate"


@pytest.mark.parametrize("handled", [True, False])
async def test_a_client_that_answers_nothing_is_a_timeout(
    broker: Broker, auth: Client, device: Device, handled: bool
) -> None:
    async with gateway(broker, auth) as url, device.connected(url, (lambda _: None) if handled else None):
        answer = await device.command(timeoutMs=500)
    assert (answer.status, answer.json["code"]) == (504, "timeout")
    await device.listed_as("expired")


async def test_an_acknowledgement_is_not_awaited_beyond_its_time(broker: Broker, auth: Client, device: Device) -> None:
    may_answer, has_answered = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> object:
        await may_answer.wait()
        has_answered.set()
        return {"status": "done"}

    async with gateway(broker, auth) as url, device.connected(url, slow):
        started = time.monotonic()
        answer = await device.command(timeoutMs=300)
        assert time.monotonic() - started < 10, "far from the longest time that a command may have"
        assert (answer.status, answer.json["code"]) == (504, "timeout")
        may_answer.set()
        await has_answered.wait()
        # The late acknowledgement harms neither the session nor the next command.
        await device.listed_as("expired")
        assert (await device.command(timeoutMs=5000)).json["status"] == "done"


async def test_a_command_is_listed_as_delivered_since_it_was_sent(broker: Broker, auth: Client, device: Device) -> None:
    may_answer = asyncio.Event()

    async def slow(_: object) -> object:
        await may_answer.wait()
        return {"status": "done"}

    async with gateway(broker, auth) as url, device.connected(url, slow):
        for status in ("done", "expired"):
            sending = asyncio.ensure_future(device.command(timeoutMs=30_000 if status == "done" else 3000))
            (sent, *_) = await device.listed_as("delivered", *["done"] * (status == "expired"))
            if status == "done":
                may_answer.set()
            await sending
            may_answer.clear()
            (ended, *_) = await device.listed()
            assert (ended["status"], ended["deliveredAt"]) == (status, sent["deliveredAt"])
            assert ended["deliveredAt"] < ended["expiresAt"]


async def test_a_connection_lost_before_the_acknowledgement_is_a_timeout(
    broker: Broker, auth: Client, device: Device
) -> None:
    async def never(_: object) -> object:
        await asyncio.sleep(30)
        return {"status": "done"}

    async with gateway(broker, auth) as url, device.connected(url, never) as client:
        sending = asyncio.ensure_future(device.command(timeoutMs=30_000))
        while not device.received:
            await asyncio.sleep(0.01)
        await client.disconnect()
        answer = await asyncio.wait_for(sending, 10)
    assert (answer.status, answer.json["code"]) == (504, "timeout")


async def test_the_newest_session_of_two_gateways_gets_the_command(
    broker: Broker, auth: Client, device: Device
) -> None:
    async with gateway(broker, auth) as first, gateway(broker, auth) as second:
        async with device.connected(first, done("first")), device.connected(second, done("second")):
            assert (await device.command()).json["result"] == "second"
        async with device.connected(second, done("second")), device.connected(first, done("first")):
            assert (await device.command()).json["result"] == "first"


async def test_a_replica_that_starts_later_finds_the_session(
    broker: Broker, users_url: str, auth: Client, device: Device
) -> None:
    async with (
        gateway(broker, auth) as url,
        device.connected(url, done("here")),
        running(make_settings(users_url), broker=broker) as later,
    ):
        answer = await device.command(auth=later)
        assert (answer.status, answer.json.get("result")) == (200, "here"), answer.raw


async def test_pending_commands_are_bounded(broker: Broker, auth: Client, device: Device) -> None:
    for _ in range(MAX_PENDING):
        assert (await device.command(keepSeconds=60)).status == 202
    answer = await device.command(keepSeconds=60)
    assert (answer.status, answer.json["code"]) == (429, "too_many_commands")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"payload": "x" * 16_384}, "payload"),
        ({"timeoutMs": 99}, "timeoutMs"),
        ({"timeoutMs": 30_001}, "timeoutMs"),
        ({"keepSeconds": 0}, "keepSeconds"),
        ({"more": 1}, "more"),
    ],
)
async def test_bad_input_is_refused_by_field(
    broker: Broker, auth: Client, device: Device, body: dict[str, Any], field: str
) -> None:
    answer = await device.command(**body)
    assert answer.status == 422, answer.raw
    assert field in answer.fields
