"""Every reading that is rejected or dropped is told, also by a program that is killed at that moment."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from device import Device, handlers
from device.buffer import Buffer
from tests.device.fake_server import ISSUING, fake_server

NOWHERE = "http://127.0.0.1:9"


def left_by_a_kill(buffer: Path) -> list[Any]:
    """Return the values that a program finds in the file if this one is killed now."""
    copy = buffer.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{buffer}{suffix}", f"{copy}{suffix}")
    found = Buffer(copy)
    try:
        return [json.loads(row.body)["value"] for row in found.after(0, 100)]
    finally:
        found.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_dropped_reading_is_told_before_it_leaves_the_file(tmp_path: Path, is_async: bool) -> None:
    path = tmp_path / "b.db"
    told: list[tuple[Any, list[Any]]] = []
    device = Device(NOWHERE, token="a.b.c", buffer=path, max_pending=2)

    def tell(reading: Any) -> None:
        told.append((reading["value"], left_by_a_kill(path)))

    async def tell_later(reading: Any) -> None:
        await asyncio.sleep(0.05)
        tell(reading)

    device.on_dropped(tell_later if is_async else tell)
    async with device:
        for value in range(3):
            await device.send({"sensorType": "t", "value": value})
        assert (device.pending, device.dropped) == (2, 1)
        await asyncio.sleep(0.2)
        assert left_by_a_kill(path) == [1, 2]
    assert told == [(0, [0, 1, 2])]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_rejected_reading_is_told_before_it_leaves_the_file(tmp_path: Path, is_async: bool) -> None:
    path = tmp_path / "b.db"
    told: list[tuple[Any, list[Any]]] = []

    def tell(reading: Any, code: str, detail: str) -> None:
        told.append((reading["value"], left_by_a_kill(path)))

    async def tell_later(reading: Any, code: str, detail: str) -> None:
        await asyncio.sleep(0.05)
        tell(reading, code, detail)

    async with fake_server() as server:
        server.answer = lambda _: {"status": "rejected", "code": "invalid_value", "detail": ""}
        async with Device(server.url, token=ISSUING.device(), buffer=path) as device:
            device.on_rejected(tell_later if is_async else tell)
            await device.send({"sensorType": "t", "value": 1})
            await device.flush(10)
            assert device.pending == 0
            await asyncio.sleep(0.2)
            assert left_by_a_kill(path) == []
    assert told == [(1, [1])]


async def test_what_a_program_has_no_time_to_be_told_is_told_by_the_next_one(tmp_path: Path) -> None:
    told: list[Any] = []
    device = Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db", max_pending=1)

    @device.on_dropped
    async def never_done(_: Any) -> None:
        await asyncio.sleep(60)

    async with device:
        for value in range(2):
            await device.send({"sensorType": "t", "value": value})
    async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db", max_pending=1) as device:
        device.on_dropped(lambda reading: told.append(reading["value"]))
        await device.send({"sensorType": "t", "value": 2})
        assert device.pending == 1
    assert told == [0, 1]


async def test_a_function_that_never_ends_does_not_let_the_file_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_AWAITED", 3)
    told: list[Any] = []
    device = Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db", max_pending=2)

    @device.on_dropped
    async def never_done(reading: Any) -> None:
        told.append(reading["value"])
        await asyncio.sleep(60)

    async with device:
        for value in range(20):
            await device.send({"sensorType": "t", "value": value})
        await asyncio.sleep(0)
        assert left_by_a_kill(tmp_path / "b.db") == [0, 1, 2, 18, 19]
    assert told == list(range(18))


async def test_a_function_that_sends_at_once_does_not_change_the_order(tmp_path: Path) -> None:
    told: list[Any] = []

    def eager(loop: Any, coroutine: Any, **_: Any) -> Any:
        """Run it up to its end at once, as Python 3.12's `asyncio.eager_task_factory` does."""
        done = loop.create_future()
        with pytest.raises(StopIteration):
            coroutine.send(None)
        done.set_result(None)
        return done

    async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db", max_pending=2) as device:

        @device.on_dropped
        async def send_another(reading: Any) -> None:
            told.append(reading["value"])
            if told == [0]:
                await device.send({"sensorType": "t", "value": 3})

        for value in range(2):
            await device.send({"sensorType": "t", "value": value})
        asyncio.get_running_loop().set_task_factory(eager)
        await device.send({"sensorType": "t", "value": 2})
        asyncio.get_running_loop().set_task_factory(None)
        assert [device._outbox.take(1, 1000)[0].id for _ in range(2)] == [3, 4]
    assert told == [0, 1]


async def test_a_smaller_bound_than_before_does_not_hold_the_program_up(tmp_path: Path) -> None:
    async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db") as device:
        for value in range(1000):
            await device.send({"sensorType": "t", "value": value})
    told: list[Any] = []
    turns = 0
    async with Device(NOWHERE, token="a.b.c", buffer=tmp_path / "b.db", max_pending=10) as device:
        device.on_dropped(lambda reading: told.append(reading["value"]))
        sending = asyncio.create_task(device.send({"sensorType": "t", "value": 1000}))
        while not sending.done():
            turns += 1
            await asyncio.sleep(0)
        assert device.pending == 10
    assert told == list(range(991))
    assert turns >= 30
