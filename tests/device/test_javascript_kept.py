"""Stored readings that the JavaScript library keeps for a while: in the file, and what it asks before it frees them."""

import asyncio
import zlib
from pathlib import Path
from typing import Any

from aiohttp import web

from runtime.http.listen import listen
from testing.waiting import eventually
from tests.device.javascript_process import JavaScriptDevice, javascript_device
from tests.device.javascript_server import FakeServer, fake_server

TOKEN = "a-token"
LONG_MS = 600_000


async def store(server: FakeServer, device: JavaScriptDevice) -> None:
    """Store what was received, and send the receipts; return once the device has them."""
    server.stored = {"temperature": [[one["ts"], one["seq"]] for one in server.readings]}
    await server.receipts(*server.readings)
    await device.call("flush", ms=10_000)


def asked(server: FakeServer) -> list[int]:
    """Return the `seq` of each reading asked about."""
    return [seq for question in server.asked for item in question["items"] for _, seq in item["readings"]]


async def has_asked(server: FakeServer, count: int) -> None:
    async def reached() -> bool:
        return len(asked(server)) >= count

    await eventually(reached, f"{count} readings are asked about")


async def test_stored_readings_are_asked_about_once_more_and_then_leave_the_file(tmp_path: Path) -> None:
    buffer = tmp_path / "readings.log"
    async with fake_server() as server:
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            await device.call("send", count=5)
            await server.received(5)
            await store(server, device)
            await device.kill()
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            assert (await device.call("state"))["pending"] == 0
            await device.call("wait", ms=LONG_MS)
            await has_asked(server, 5)
            await device.call("wait", ms=LONG_MS)
            await device.call("close")
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            await device.call("wait", ms=2 * LONG_MS)
            await asyncio.sleep(6)  # longer than from one look to the next
        assert sorted(asked(server)) == [0, 1, 2, 3, 4]
        assert len(server.readings) == 5, "nothing was sent again"


async def test_what_a_restored_server_has_lost_is_sent_again(tmp_path: Path) -> None:
    buffer = tmp_path / "readings.log"
    async with fake_server() as server:
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            await device.call("send", count=3)
            await server.received(3)
            await store(server, device)
            await device.call("wait", ms=LONG_MS)
            await device.call("send", count=2)
            await server.received(5)
            await store(server, device)
            # All but the first are gone: the last two, whose turn has not come, are missed at once as well.
            del server.stored["temperature"][1:]
            await server.received(9)
            again = server.readings[5:]
            assert sorted(one["seq"] for one in again) == [1, 2, 3, 4]
            assert all(one in server.readings[:5] for one in again), "the same ts and seq"
            assert (await device.call("state"))["pending"] == 4
            await device.kill()
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            await server.received(13)
            await store(server, device)
            assert (await device.call("state")) == {"pending": 0, "dropped": 0}


async def test_they_make_room_for_new_ones_and_nobody_is_told(tmp_path: Path) -> None:
    buffer = tmp_path / "readings.log"
    async with fake_server() as server:
        options: dict[str, Any] = {"buffer": buffer, "receipts": True, "maxPending": 5}
        async with javascript_device(server.url, TOKEN, **options) as device:
            await device.call("send", count=5)
            await server.received(5)
            await store(server, device)
            await device.call("send", count=4)
            assert (await device.call("state"))["dropped"] == 0
            await device.call("wait", ms=LONG_MS)

            async def the_last_kept_one_is_asked_about() -> bool:
                return 4 in asked(server)

            # Those that were just sent, whose receipts are late by now, may be asked about before.
            await eventually(the_last_kept_one_is_asked_about, "the one that is still kept is asked about")
        assert min(asked(server)) == 4, "the oldest ones were dropped"
        assert not device.told


async def test_a_reading_that_is_never_stored_is_told_in_the_end(tmp_path: Path) -> None:
    buffer = tmp_path / "readings.log"
    records = [f'r{at} {{"sensorType":"temperature","value":{at},"ts":5,"seq":{at}}}' for at in (1, 2)]
    lines = [f"{zlib.crc32(one.encode()):08x} {one}\n" for one in (*records, "m24 1-2")]
    buffer.write_text("".join(["tidegate device buffer 1\n", *lines]))
    async with fake_server() as server:
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True) as device:
            await server.received(2)
            server.stored = {"temperature": [[5, 2]]}
            async with asyncio.timeout(20):
                while not device.told:
                    await device.call("wait", ms=LONG_MS)
                    await asyncio.sleep(0.5)
            assert device.all_of("rejected")[0]["code"] == "not_stored"
            await device.call("flush", ms=5000)
        async with javascript_device(server.url, TOKEN, buffer=buffer, receipts=True):
            await asyncio.sleep(1)
    assert device.told == {1}
    assert len(server.readings) == 2


async def test_with_a_server_that_has_no_receipts_readings_are_freed_when_they_are_accepted() -> None:
    async with fake_server() as server, javascript_device(server.url, TOKEN, receipts=True) as device:
        server.status = 404
        await device.call("send", count=2)
        await server.received(2)
        await device.call("wait", ms=30_000)
        await device.call("flush", ms=10_000)
        await device.call("send")
        await device.call("flush", ms=3000)


async def test_a_server_that_has_sent_receipts_has_them_whatever_a_single_answer_says() -> None:
    async with fake_server() as server, javascript_device(server.url, TOKEN, receipts=True) as device:
        server.status = 404  # as of a proxy whose reader is away
        await device.call("send")
        await server.received(1)
        await server.receipts(*server.readings)
        await device.call("flush", ms=10_000)
        await device.call("send")
        await server.received(2)
        await asyncio.sleep(0.5)
        await device.call("wait", ms=30_000)
        async with asyncio.timeout(20):
            while len(server.asked) < 2:
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        assert (await device.call("state"))["pending"] == 1
        await server.receipts(server.readings[-1])
        await device.call("flush", ms=10_000)


async def test_a_404_frees_nothing_that_is_kept_at_a_server_that_has_sent_receipts() -> None:
    async with (
        fake_server() as server,
        javascript_device(server.url, TOKEN, receipts=True, keepStoredMs=1000) as device,
    ):
        server.status = 404  # as of a proxy whose reader is away
        await device.call("send")
        await server.received(1)
        await server.receipts(*server.readings)
        await device.call("flush", ms=10_000)
        await device.call("wait", ms=2000)
        async with asyncio.timeout(20):
            while not server.asked:
                await asyncio.sleep(0.1)
        server.status = 200
        await asyncio.sleep(0.5)
        await device.call("wait", ms=11_000)
        await server.received(2)
    assert server.readings[0] == server.readings[1]


async def test_a_refusal_of_the_upgrade_is_obeyed() -> None:
    times: list[float] = []

    async def refuse(_: web.Request) -> web.Response:
        times.append(asyncio.get_running_loop().time())
        return web.Response(status=503, headers={"Retry-After": "2"})

    app = web.Application()
    app.router.add_get("/socket.io/", refuse)
    async with listen(app, "127.0.0.1", 0) as port, javascript_device(f"http://127.0.0.1:{port}", TOKEN):
        async with asyncio.timeout(20):
            while len(times) < 3:
                await asyncio.sleep(0.05)
    assert times[1] - times[0] >= 2
    assert times[2] - times[1] >= 2
