"""The Python library as a process, against real services, under faults: nothing is lost, nothing is stored twice."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer
from tests.device.python_process import System, sensor, system
from tests.faults.clock import Clock, library
from tests.integration.device import logged_in, new_token
from tests.integration.services import Running, started
from tests.proxy.name_server import NameServer
from tests.proxy.nginx import running_nginx

EMAIL = "ada@example.com"


async def test_gateways_and_the_device_itself_are_stopped_killed_and_refuse_for_now(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    port = str(free_port())
    buffer = tmp_path / "readings.db"
    url = f"http://127.0.0.1:{port}"
    async with system(tmp_path, mongodb_database) as here, aiohttp.ClientSession() as http:
        settings = here.settings | {"PORT": port}
        device, token = await here.device()
        async with sensor(url, buffer, TOKEN=token) as first:
            await first.until("sent", 20)
            async with started("gateway", **settings) as gateway:
                await first.until("rejected", 3)
                assert await gateway.stop() == 0
            await first.until("sent", 20)
            async with started("gateway", **settings) as gateway:
                await first.until("rejected", 3)
                await gateway.kill()
            await first.until("sent", 20)
            await first.kill()
        async with sensor(url, buffer, TOKEN=token, START="10001") as second:
            await second.until("sent", 20)
            await second.kill()
        assert second.facts[1]["open"] >= 20
        async with sensor(url, buffer, TOKEN=token, START="20001") as third:
            await _refuse_for_now(f"{url}/socket.io/?EIO=4&transport=websocket", http, settings, token)
            async with started("gateway", **settings):
                await third.until("rejected", 5)
                await third.finish()
        assert third.numbers("flushed") == [0]
        await here.accounts_for(device, first, second, third)


async def _refuse_for_now(socket: str, http: aiohttp.ClientSession, settings: dict[str, str], token: str) -> None:
    """Refuse the device before the upgrade with 503, and after it with 1013: another socket has its place."""
    async with started("gateway", **settings, MAX_CONNECTIONS="1") as gateway, http.ws_connect(socket):
        await _refused(http, gateway, "busy")
        await gateway.stop()
    async with (
        started("gateway", **settings, MAX_CONNECTIONS_PER_DEVICE="1") as gateway,
        http.ws_connect(socket) as taken,
    ):
        await taken.send_str(f'40{{"token":"{token}"}}')
        await _refused(http, gateway, "rate_limited")
        await gateway.stop()


async def _refused(http: aiohttp.ClientSession, gateway: Running, code: str) -> None:
    async with asyncio.timeout(30):
        while True:
            async with http.get(f"http://127.0.0.1:{gateway.ops_port}/metrics") as answer:
                if f'connects_total{{outcome="{code}"}}' in await answer.text():
                    return
            await asyncio.sleep(0.1)


async def test_it_outlives_its_tokens_and_stops_when_the_last_one_is_revoked(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    buffer, file = tmp_path / "readings.db", tmp_path / "token"
    async with (
        system(tmp_path, mongodb_database, DEVICE_TOKEN_SECONDS="10") as here,
        started("gateway", **here.settings, EXPIRING_SECONDS="6") as gateway,
        NameServer.serving() as names,
        running_nginx(tmp_path, names, auth=here.auth.port, gateway=gateway.port) as proxy,
    ):
        names.addresses |= {"auth.test": ["127.0.0.1"], "gateway.test": ["127.0.0.1"]}
        device, token = await here.device()
        async with sensor(proxy.url, buffer, TOKEN=token) as first:
            await asyncio.sleep(14)
            await first.until("rejected", 3)
            await first.finish()
        # This text has expired; the renewed one is in the buffer.
        async with sensor(proxy.url, buffer, TOKEN=token, START="10001") as second:
            await second.until("rejected", 2)
            async with aiohttp.ClientSession(here.auth.url) as http:
                bearer = {"Authorization": f"Bearer {await logged_in(http, EMAIL)}"}
                async with http.delete(f"/devices/{device}/tokens", headers=bearer) as answer:
                    assert answer.status == 204
            await asyncio.sleep(6)
            await second.finish()
            assert second.facts[-1]["refused"] in ("revoked", "expired")
        file.write_text("no token at all")
        async with sensor(proxy.url, buffer, TOKEN_FILE=str(file), START="20001") as third:
            file.write_text(await new_token(here.auth.url, EMAIL, device))
            await third.until("rejected", 3)
            await third.finish()
        await here.accounts_for(device, first, second, third)


@pytest.mark.timeout(200)
async def test_it_waits_for_a_broker_that_is_away_for_30_seconds_and_for_receipts(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    with RabbitMQServer(tmp_path / "rabbitmq") as rabbitmq:
        async with (
            system(tmp_path, mongodb_database, rabbitmq.url) as here,
            started("gateway", **here.settings) as gateway,
        ):
            device, token = await here.device()
            async with sensor(gateway.url, tmp_path / "readings.db", TOKEN=token, MAX_PENDING="1000") as one:
                await one.until("rejected", 2)
                rabbitmq.kill()
                await asyncio.sleep(30)
                assert one.numbers("dropped")
                rabbitmq.restart()
                await one.until("rejected", 20, within_s=30)
                await one.finish()
            await here.accounts_for(device, one)
            await _waits_for_receipts(here, gateway.url, tmp_path)


@pytest.mark.skipif(library() is None, reason="libfaketime is not installed")
async def test_its_own_faults_a_clock_that_leaps_a_full_disk_and_a_second_process(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    async with system(tmp_path, mongodb_database) as here, started("gateway", **here.settings) as gateway:
        await asyncio.gather(
            _clock_leaps(here, gateway.url, tmp_path),
            _disk_is_full(here, gateway.url, tmp_path),
            _two_processes(here, gateway.url, tmp_path),
        )


async def _clock_leaps(here: System, url: str, folder: Path) -> None:
    clock = Clock(folder / "clock")
    buffer = folder / "leaps.db"
    device, token = await here.device("clock@example.com")
    settings = {"TOKEN": token, "RATE": "200", **clock.settings}
    async with sensor(url, buffer, **settings) as first:
        await first.until("rejected", 10)
        for seconds in (3600, -3600, 0, -100_000_000):
            clock.leap(seconds)
            await first.until("rejected", 25)
        await first.kill()
    clock.leap(-100_000_005)
    async with sensor(url, buffer, START="100001", **settings) as second:
        await second.until("rejected", 20)
        await second.finish()
    await here.accounts_for(device, first, second)


async def _disk_is_full(here: System, url: str, folder: Path) -> None:
    device, token = await here.device("disk@example.com")
    async with sensor(url, folder / "disk", TOKEN=token, DISK_BYTES=str(2 << 20), RATE="200") as one:
        await one.until("sent", 100)
        assert one.facts[0]["small"], "a disk can be mounted by root only"
        await one.ask("fill")
        # Whenever the server has everything, its own log is room enough.
        await one.until("sent", 200)
        await one.ask("empty")
        await one.until("sent", 100)
        await one.finish()
    await here.accounts_for(device, one)


async def _two_processes(here: System, url: str, folder: Path) -> None:
    buffer = folder / "shared.db"
    device, token = await here.device("two@example.com")
    async with sensor(url, buffer, TOKEN=token) as first:
        await first.until("rejected")
        async with sensor(url, buffer, TOKEN=token, START="1001") as second:
            assert await asyncio.wait_for(second.process.wait(), 20) == 0
        assert "another device has" in second.facts[-1]["in_use"]
        await first.until("rejected", 2)
        await first.kill()
    async with sensor(url, buffer, TOKEN=token, START="2001") as third:
        await third.until("rejected")
        await third.finish()
    await here.accounts_for(device, first, third)


async def _waits_for_receipts(here: System, url: str, folder: Path) -> None:
    """Before it would ask for them: only `stored` events empty its buffer."""
    device, token = await here.device("receipts@example.com")
    async with sensor(url, folder / "receipts.db", TOKEN=token, RECEIPTS="1") as one:
        await one.until("rejected", 10)
        await one.finish(within_s=25)
    assert one.numbers("flushed") == [0]
    await here.accounts_for(device, one)
