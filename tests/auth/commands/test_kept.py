"""Kept commands: delivered at the next connect, at least once, until they are acknowledged or expire."""

import asyncio
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import create_async_engine

from broker.interface import Broker
from database.connection import server_time_ms
from database.tables import commands
from tests.auth.commands.system import Device, done, gateway
from tests.auth.rows import change
from tests.auth.service import Client, make_settings, running


async def test_a_kept_command_is_delivered_at_the_next_connect(broker: Broker, auth: Client, device: Device) -> None:
    async with gateway(broker, auth) as url:
        kept = await device.command(payload=1, keepSeconds=600)
        assert (kept.status, kept.json["status"]) == (202, "pending")
        assert (await device.listed_as("pending"))[0]["expiresAt"] == kept.json["expiresAt"]
        async with device.connected(url, done("late")):
            (item,) = await device.listed_as("done")
    assert [one["id"] for one in device.received] == [kept.json["id"]] == [item["id"]]
    assert item["result"] == "late"


async def test_a_kept_command_is_delivered_at_once_to_a_connected_device(
    broker: Broker, auth: Client, device: Device
) -> None:
    async with gateway(broker, auth) as url, device.connected(url, done()):
        assert (await device.command(keepSeconds=600)).status == 202
        await device.listed_as("done")


async def test_kept_commands_come_in_their_order(broker: Broker, auth: Client, device: Device) -> None:
    sent = [(await device.command(payload=number, keepSeconds=600)).json["id"] for number in range(20)]
    async with gateway(broker, auth) as url, device.connected(url, done()):
        await device.listed_as(*["done"] * 20)
    assert [one["id"] for one in device.received] == sent


async def test_an_unacknowledged_command_comes_again_under_the_same_id(
    broker: Broker, auth: Client, device: Device
) -> None:
    async def never(_: object) -> Any:
        await asyncio.sleep(30)

    async with gateway(broker, auth) as url:
        kept = await device.command(keepSeconds=600, timeoutMs=2000)
        async with device.connected(url, never):
            await device.listed_as("delivered")
        async with device.connected(url, done()):
            await device.listed_as("done")
    assert [one["id"] for one in device.received] == [kept.json["id"]] * 2


async def test_a_connected_device_has_10_s_20_s_and_so_on_for_an_answer(
    broker: Broker, users_url: str, auth: Client, device: Device
) -> None:
    deliveries = 0
    async with gateway(broker, auth) as url, device.connected(url, lambda _: None):
        await device.command(keepSeconds=600)
        for _ in range(3):
            deliveries, away_ms = await _delivered(users_url, deliveries)
            pause_ms = 10_000 << deliveries - 1
            assert pause_ms / 2 < away_ms <= pause_ms
            await change(users_url, update(commands).values(retry_at_ms=0))


async def _delivered(url: str, before: int) -> tuple[int, int]:
    """Return how often the only command was delivered, once it is more often, and when it will be again, in ms."""
    query = select(commands.c.deliveries, commands.c.leased_until_ms, commands.c.retry_at_ms)
    engine = create_async_engine(url)
    async with asyncio.timeout(60), engine.connect() as connection:
        while True:
            now = await server_time_ms(connection)
            row = (await connection.execute(query)).one()
            # A device that is not known to be connected yet is looked for in an hour.
            if row.deliveries > before and not row.leased_until_ms and row.retry_at_ms < now + 3_000_000:
                break
            await connection.rollback()
            await asyncio.sleep(0.05)
    await engine.dispose()
    return row.deliveries, row.retry_at_ms - now


async def test_an_expired_command_is_not_delivered(broker: Broker, auth: Client, device: Device) -> None:
    assert (await device.command(keepSeconds=1)).status == 202
    await device.listed_as("expired")
    async with gateway(broker, auth) as url, device.connected(url, done()):
        assert (await device.command("identify")).status == 200
    assert [one["name"] for one in device.received] == ["identify"]


async def test_several_replicas_deliver_each_command_once(
    broker: Broker, users_url: str, auth: Client, device: Device
) -> None:
    async with (
        gateway(broker, auth) as url,
        running(make_settings(users_url), broker=broker) as second,
        running(make_settings(users_url), broker=broker),
    ):
        for number in range(20):
            await device.command(payload=number, keepSeconds=600, auth=second if number % 2 else None)
        async with device.connected(url, done()):
            await device.listed_as(*["done"] * 20)
            await asyncio.sleep(0.5)
    assert sorted(one["payload"] for one in device.received) == list(range(20))


async def test_a_lease_of_a_replica_that_died_ends(
    broker: Broker, users_url: str, auth: Client, device: Device
) -> None:
    kept = await device.command(keepSeconds=600)
    await asyncio.sleep(0.3)
    soon = {"leased_until_ms": commands.c.created_at_ms + 3000, "retry_at_ms": commands.c.created_at_ms + 3000}
    await change(users_url, update(commands).values(soon))
    async with gateway(broker, auth) as url, device.connected(url, done()):
        await device.listed_as("done")
    assert [one["id"] for one in device.received] == [kept.json["id"]]


async def test_commands_go_with_their_device(broker: Broker, auth: Client, users_url: str, device: Device) -> None:
    assert (await device.command(keepSeconds=600)).status == 202
    assert (await auth.call("DELETE", f"/devices/{device.id}", token=device.user_token)).status == 204
    assert await _count(users_url) == 0


async def test_old_commands_are_removed(broker: Broker, auth: Client, users_url: str, device: Device) -> None:
    assert (await device.command(keepSeconds=600)).status == 202
    await change(users_url, update(commands).values(remove_at_ms=0))
    async with running(make_settings(users_url), broker=broker), asyncio.timeout(10):
        while await _count(users_url):
            await asyncio.sleep(0.05)


async def _count(url: str) -> int:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.scalar(select(func.count()).select_from(commands))
    await engine.dispose()
    return int(found or 0)
