"""The JavaScript library under faults of the server and its own: nothing acknowledged is lost, nothing stored twice."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from testing.servers.ports import free_port
from tests.device.javascript_edge import Edge, Stored, edge, published
from tests.device.javascript_process import JavaScriptDevice, javascript_device
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway
from tests.integration.services import Running

EVERY_MS = 10


def complete(stored: Stored, *devices: JavaScriptDevice) -> None:
    """Check that each reading that was kept is stored, or was rejected or dropped, and nothing else is stored."""
    for device in devices:
        assert device.kept, "nothing was sent: this test proves nothing"
        assert device.kept - device.told <= stored.keys(), device
        assert not device.told & stored.keys(), device
    assert stored.keys() <= set().union(*(device.offered for device in devices))


async def settled(device: JavaScriptDevice) -> None:
    """End the stream, and wait until the server has everything."""
    await device.call("stream", everyMs=0)
    await device.call("flush", ms=30_000)
    assert await device.call("state") == {"pending": 0, "dropped": 0}


async def test_a_gateway_that_stops_or_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with edge(tmp_path) as at, javascript_device(at.url, at.token, buffer=tmp_path / "readings.log") as device:
        await device.call("stream", everyMs=EVERY_MS)
        for end in (Running.stop, Running.kill):
            async with at.gateway() as running:
                await device.until_pending(10)
                await end(running)
            await device.until("kept", len(device.kept) + 100)
            assert (await device.call("state"))["pending"] > 50, "nothing waited: this test proves nothing"
        async with at.gateway() as running:
            await settled(device)
            await running.stop()
        complete(await at.stored(), device)


async def test_a_gateway_that_refuses_for_now_before_and_after_the_upgrade(
    tmp_path: Path, fake_broker: FakeBroker
) -> None:
    async with AsyncExitStack() as stack:
        async with gateway(fake_broker, max_connections=0) as running:
            port = int(running.url.rpartition(":")[2])
            device = await stack.enter_async_context(
                javascript_device(running.url, ISSUING.device(), buffer=tmp_path / "readings.log")
            )
            await device.call("send", count=10)
            await refused(running.registry, "busy", 2)
        async with gateway(fake_broker, at_port=port, max_connections_per_device=1) as running:
            async with running.raw() as socket:
                assert (await socket.receive_str(timeout=5)).startswith("40{")
                await refused(running.registry, "rate_limited", 2)
                assert (await device.call("state"))["pending"] == 10
            await device.call("flush", ms=10_000)
        assert sum(fake_broker.outgoing.sizes) == 10


async def refused(registry: object, code: str, times: int) -> None:
    async with asyncio.timeout(20):
        while (registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": code}) or 0) < times:  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
async def test_a_broker_that_is_away_for_30_s(tmp_path: Path) -> None:
    async with (
        edge(tmp_path) as at,
        at.gateway() as running,
        javascript_device(at.url, at.token, buffer=tmp_path / "readings.log") as device,
    ):
        await device.call("stream", everyMs=EVERY_MS)
        await device.until("kept", 50)
        with at.broker_away():
            await asyncio.sleep(30)
            assert (await device.call("state"))["pending"] > 300, "the broker was there: this test proves nothing"
        await device.until_pending(20, within_s=10)
        await settled(device)
        await running.stop()
        complete(await at.stored(), device)


async def test_a_device_that_is_killed_sends_the_rest_and_counts_on(tmp_path: Path) -> None:
    """Five times while it streams, and the gateway is away half of the time."""
    devices: list[JavaScriptDevice] = []
    buffer = tmp_path / "readings.log"

    async def life(at: Edge, seconds: float) -> None:
        first = 1 + max((value for device in devices for value in device.offered), default=-1)
        async with javascript_device(at.url, at.token, buffer=buffer, first=first) as device:
            devices.append(device)
            await device.call("stream", everyMs=1)
            await device.until("kept", 20)
            await asyncio.sleep(seconds)

    async with edge(tmp_path) as at:
        await life(at, 0.3)
        async with at.gateway() as running:
            await life(at, 0.5)
            await life(at, 0.2)
            await running.stop()
        await life(at, 0.2)
        async with at.gateway() as running:
            await life(at, 0.3)
            first = 1 + max(devices[-1].offered)
            async with javascript_device(at.url, at.token, buffer=buffer, first=first) as last:
                devices.append(last)
                await last.call("send")
                await last.call("flush", ms=20_000)
            await running.stop()
        complete(stored := await at.stored(), *devices)
    numbers = [int(stored[value]["_id"]["seq"]) for value in sorted(stored)]
    assert numbers == list(range(len(numbers))), "seq goes on across restarts, without gaps"


async def test_a_clock_that_leaps(tmp_path: Path, fake_broker: FakeBroker) -> None:
    """Back by an hour and by what was just sent; and days ahead, which the gateway rejects."""
    async with (
        gateway(fake_broker) as running,
        javascript_device(running.url, ISSUING.device(), buffer=tmp_path / "readings.log") as device,
    ):
        for ahead_ms in (0, 3_600_000, -3_600_000, -5, 0, -10, 5 * 86_400_000, 0):
            await device.call("clock", aheadMs=ahead_ms)
            await device.call("send", count=40)
        await settled(device)
        assert len(device.told) == 40
        assert {data["code"] for data in device.all_of("rejected")} == {"invalid_ts"}
        complete(found := published(fake_broker), device)
        assert len(found) == 7 * 40


async def test_a_disk_that_is_full(tmp_path: Path, fake_broker: FakeBroker) -> None:
    """`send` throws and keeps nothing; what was kept is sent, also after a kill, and that makes room."""
    buffer = tmp_path / "readings.log"
    async with gateway(fake_broker) as running:
        nowhere = f"http://127.0.0.1:{free_port()}"
        token = ISSUING.device()
        async with javascript_device(nowhere, token, buffer=buffer, max_file_bytes=40_000) as killed:
            await killed.call("send", count=600)
            failed = killed.all_of("failed")
            assert 50 < len(failed) < 550
            assert {error["code"] for error in failed} == {"EFBIG"}
            assert (await killed.call("state"))["pending"] == len(killed.kept)
        assert buffer.stat().st_size <= 40_000
        async with javascript_device(running.url, token, buffer=buffer, first=600, max_file_bytes=40_000) as device:
            await device.call("flush", ms=20_000)
            for _ in range(4):  # four times as much as fits
                await device.call("send", count=300)
                await device.call("flush", ms=20_000)
            assert not device.all_of("failed")
        complete(found := published(fake_broker), killed, device)
        assert not {error["value"] for error in failed} & found.keys()
