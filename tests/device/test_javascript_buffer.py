"""The JavaScript library's buffer: one process at a time, bounded, whole after a crash, in batches that grow."""

import asyncio
from asyncio import to_thread
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.device.javascript_edge import published
from tests.device.javascript_process import DeviceError, javascript_device
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    return tmp_path / "readings.log"


def numbers(fake_broker: FakeBroker) -> list[int]:
    """Return seq by value."""
    found = published(fake_broker)
    return [int(found[value]["_id"]["seq"]) for value in sorted(found)]


async def test_a_second_process_on_a_buffer_is_an_error_until_the_first_is_killed(buffer: Path) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as first:
        await first.call("send", count=3)
        async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as second:
            assert await second.exit_code() == 4
            assert second.all_of("refused")[0]["name"] == "BufferInUse"
        with pytest.raises(DeviceError, match="BufferInUse"):
            await first.call("again")
        await first.call("send", count=2)
        await first.kill()
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as third:
        assert (await third.call("state"))["pending"] == 5
        await third.call("close")
    assert [one.name for one in buffer.parent.iterdir()] == [buffer.name], "a closed buffer has no lock"


async def test_of_many_processes_that_start_at_once_at_most_one_gets_the_buffer(buffer: Path) -> None:
    decided = asyncio.Barrier(5)

    async def one() -> bool:
        async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
            while not (device.all_of("ready") or device.all_of("refused")):
                await asyncio.sleep(0.02)
            await decided.wait()  # until then nobody ends, and so nobody's buffer becomes free
            return bool(device.all_of("ready"))

    assert sum(await asyncio.gather(*(one() for _ in range(5)))) <= 1


def inode(file: Path) -> int:
    return file.stat().st_ino


async def test_after_a_failed_sync_the_file_is_written_anew(buffer: Path) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
        await device.call("send", count=3)
        before = inode(buffer)
        await device.call("failSync")
        await device.call("send", count=1)

        async def is_another_file() -> bool:
            return inode(buffer) != before

        await eventually(is_another_file, "the records are in a new file")
        await device.kill()
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
        assert (await device.call("state"))["pending"] == 4


def rewrite(file: Path, damage: Callable[[bytes], bytes]) -> None:
    before = file.read_bytes()
    assert damage(before) != before, "this test proves nothing"
    file.write_bytes(damage(before))


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda data: data[:-5], {9}),
        (lambda data: data + b"deadbeef r11 {", set()),
        (lambda data: data[:-1], {9}),
        (lambda data: data.replace(b'"value":4', b'"value":7'), {4}),
        (lambda data: data + bytes(5000), set()),
    ],
    ids=["torn", "begun", "no end", "flipped", "zeros"],
)
async def test_what_a_crash_damages_is_lost_and_nothing_else(
    buffer: Path, fake_broker: FakeBroker, damage: Any, lost: set[int]
) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
        await device.call("send", count=10)
    await to_thread(rewrite, buffer, damage)
    async with (
        gateway(fake_broker) as running,
        javascript_device(running.url, ISSUING.device(), buffer=buffer, first=10) as device,
    ):
        await device.call("send", count=2)
        await device.call("flush", ms=10_000)
    assert published(fake_broker).keys() == set(range(12)) - lost


async def test_another_file_is_not_touched(buffer: Path) -> None:
    await to_thread(buffer.write_text, "my only copy\n")
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
        assert await device.exit_code() == 4
        assert "is not a device's buffer" in device.all_of("refused")[0]["message"]
    assert await to_thread(buffer.read_text) == "my only copy\n"


@pytest.mark.parametrize("drop", ["oldest", "newest"])
async def test_a_full_buffer_drops_and_says_so(buffer: Path, fake_broker: FakeBroker, drop: str) -> None:
    port = free_port()
    options: dict[str, Any] = {"maxPending": 20, "drop": drop}
    async with javascript_device(f"http://127.0.0.1:{port}", ISSUING.device(), buffer=buffer, **options) as device:
        await device.call("send", count=50)
        assert await device.call("state") == {"pending": 20, "dropped": 30}
        remaining = set(range(30, 50)) if drop == "oldest" else set(range(20))
        assert device.told == set(range(50)) - remaining
        # Dropped readings are numbered, too: the server can tell that they are missing.
        assert [one["reading"]["seq"] for one in device.all_of("dropped")] == sorted(device.told)
        await device.call("close")
    again = javascript_device(f"http://127.0.0.1:{port}", ISSUING.device(), buffer=buffer, first=50)
    async with again as device, gateway(fake_broker, at_port=port):
        await device.call("send")
        await device.call("flush", ms=10_000)
    stored = published(fake_broker)
    assert stored.keys() == remaining | {50}
    assert [one["_id"]["seq"] for one in stored.values()] == list(stored)


async def test_what_is_dropped_as_the_newest_is_counted_by_a_process_that_is_killed_too(buffer: Path) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer, maxPending=3, drop="newest") as device:
        await device.call("send", count=4)
        await device.call("wait", ms=10_000)
        await device.call("send", count=2)
        await device.kill()
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer, maxPending=3, drop="newest") as device:
        await device.call("send")
        assert [one["reading"]["seq"] for one in device.all_of("dropped")] == [5]


async def test_a_dropped_reading_is_told_before_it_leaves_the_file(buffer: Path) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer, maxPending=2) as device:
        await device.call("tellAfter", ms=60_000)
        await device.call("send", count=3)
        assert await device.call("state") == {"pending": 2, "dropped": 1}
        await device.kill()
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer, first=3, maxPending=2) as device:
        await device.call("tellAfter", ms=50)
        await device.call("send")
        assert await device.call("state") == {"pending": 2, "dropped": 2}
        await device.until("dropped", 2)
        assert (await device.call("state"))["pending"] == 2
        await device.kill()
    assert device.told == {0, 1}
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
        assert (await device.call("state"))["pending"] == 2


async def test_a_function_that_sends_when_a_reading_is_dropped_is_told_of_each_once(buffer: Path) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer, maxPending=3) as device:
        await device.call("sendWhenTold")
        await device.call("send", count=4)
        assert await device.call("state") == {"pending": 3, "dropped": 2}
        assert [one["reading"]["value"] for one in device.all_of("dropped")] == [0, 1]


async def test_the_file_stays_small_and_the_count_goes_on(buffer: Path, fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running:
        for first in (0, 20_000):
            async with javascript_device(running.url, ISSUING.device(), buffer=buffer, first=first) as device:
                await device.call("send", count=20_000)
                await device.call("flush", ms=30_000)
            assert (await to_thread(buffer.stat)).st_size < 2_500_000, "20,000 readings take 2 MB"
        async with javascript_device(running.url, ISSUING.device(), buffer=buffer, first=40_000) as device:
            await device.call("send")
            await device.call("flush", ms=10_000)
    assert numbers(fake_broker) == list(range(40_001))


async def test_batches_grow_with_what_waits(buffer: Path, fake_broker: FakeBroker) -> None:
    port = free_port()
    async with javascript_device(f"http://127.0.0.1:{port}", ISSUING.device(), buffer=buffer) as device:
        await device.call("send", count=2500)
        async with gateway(fake_broker, at_port=port):
            await device.call("flush", ms=10_000)
            assert fake_broker.outgoing.sizes == [1000, 1000, 500]
            for _ in range(3):
                await device.call("send")
                await device.call("flush", ms=10_000)
            assert fake_broker.outgoing.sizes[3:] == [1, 1, 1]
        # 1,500 readings of 4 kB: events stay below 1 MiB.
        await device.call("send", count=1500, fields={"tags": {f"t{n}": "x" * 256 for n in range(16)}})
        async with gateway(fake_broker, at_port=port):
            await device.call("flush", ms=20_000)
    assert len(published(fake_broker)) == 4003
    assert 6 <= len(fake_broker.outgoing.sizes[6:]) <= 10


async def test_a_bad_reading_is_told_and_the_others_are_sent(fake_broker: FakeBroker) -> None:
    """In memory: there is no file."""
    async with gateway(fake_broker) as running, javascript_device(running.url, ISSUING.device()) as device:
        for number in range(100):
            await device.call("send", fields={"unit": "x" * 33} if number % 10 == 3 else {})
        await device.call("flush", ms=10_000)
        assert device.told == set(range(3, 100, 10))
        assert {data["code"] for data in device.all_of("rejected")} == {"invalid_field"}
        assert "unit" in device.all_of("rejected")[0]["detail"]
    assert published(fake_broker).keys() == set(range(100)) - device.told


async def test_an_event_that_is_refused_as_a_whole_is_split(fake_broker: FakeBroker) -> None:
    port = free_port()
    async with javascript_device(f"http://127.0.0.1:{port}", ISSUING.device()) as device:
        await device.call("send", count=200)
        await device.call("send", fields={"tags": {f"t{n}": "x" * 256 for n in range(10)}})
        await device.call("send", count=200)
        async with gateway(fake_broker, at_port=port, max_event_bytes=2000):
            await device.call("flush", ms=20_000)
        assert device.told == {200}
        assert device.all_of("rejected")[0]["code"] == "too_large"
    assert published(fake_broker).keys() == set(range(401)) - {200}


async def test_a_rate_limit_is_kept_to_without_many_refusals(fake_broker: FakeBroker) -> None:
    port = free_port()
    async with javascript_device(f"http://127.0.0.1:{port}", ISSUING.device()) as device:
        # Before there is a gateway: one event has them all, and the limit is spent for five seconds.
        await device.call("send", count=1000)
        async with gateway(fake_broker, at_port=port, device_readings_per_second=200) as running:
            await device.call("flush", ms=50_000)
            await device.call("send", count=1000)
            await device.call("flush", ms=50_000)
            retries = running.registry.get_sample_value("tidegate_gateway_limited_total", {"scope": "device"})
    assert 0 < (retries or 0) < 15
    assert len(published(fake_broker)) == 2000


async def test_a_flush_that_takes_too_long(buffer: Path) -> None:
    async with javascript_device(NOWHERE, ISSUING.device(), buffer=buffer) as device:
        assert await device.call("flush", ms=100) is None
        await device.call("send")
        with pytest.raises(DeviceError) as error:
            await device.call("flush", ms=300)
        assert error.value.name == "TimeoutError"
        assert await device.call("state") == {"pending": 1, "dropped": 0}


@pytest.mark.parametrize(
    "options", [{"max_pending": 5}, {"drop": "all"}, {"maxPending": 0}, {"receipts": 1}, {"url": "x"}]
)
async def test_a_bad_option_is_an_error(options: dict[str, Any]) -> None:
    async with javascript_device(**({"url": NOWHERE, "token": "t"} | options)) as device:
        assert await device.exit_code() == 4
        assert device.all_of("refused")[0]["name"] == "TypeError"


async def test_flush_may_wait_for_longer_than_a_timer() -> None:
    """A timer of more than 24.8 days is over at once."""
    async with javascript_device(NOWHERE, ISSUING.device()) as device:
        await device.call("send")
        waiting = asyncio.ensure_future(device.call("flush", ms=10**12))
        assert not (await asyncio.wait((waiting,), timeout=1))[0]
        waiting.cancel()
