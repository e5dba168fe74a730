"""What a program does wrong: functions that are cancelled, readings that no server takes. The device goes on."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from device import Device
from device.buffer import Buffer
from device.commands import Commands
from tests.device.fake_server import ISSUING, FakeServer, accepted, fake_server


async def cancelled(*_: Any) -> Any:
    """Await a task of the program's own that was cancelled."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


def reject(readings: list[Any]) -> Any:
    why = {"code": "invalid_value", "detail": "no"}
    at_fault = [{"index": at, **why} for at, one in enumerate(readings) if one["value"] != 1]
    if not at_fault:
        return accepted(readings)
    return {"status": "partial", "accepted": len(readings) - len(at_fault), "rejected": at_fault}


def opened(server: FakeServer, **options: Any) -> Device:
    return Device(server.url, **({"token": ISSUING.device(), "buffer": None} | options))


async def test_a_token_function_that_was_cancelled_is_asked_again() -> None:
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        return await cancelled() if calls == 1 else ISSUING.device()

    async with fake_server() as server, opened(server, token=token) as device:
        await device.send({"value": 1})
        await device.flush(10)
    assert calls == 2


async def test_a_command_whose_function_was_cancelled_has_failed_and_is_run_once() -> None:
    commands, runs = Commands(), 0

    async def run(_: Any) -> Any:
        nonlocal runs
        runs += 1
        await cancelled()

    commands.handler = run
    answers = [await commands.answer({"id": "c1", "name": "stop"}) for _ in range(2)]
    assert answers == [{"status": "failed", "detail": "RuntimeError: it was cancelled"}] * 2
    assert runs == 1

    def run_at_once(_: Any) -> Any:
        raise asyncio.CancelledError

    commands.handler = run_at_once
    assert (await commands.answer({"id": "c2", "name": "stop"}))["status"] == "failed"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_reading_whose_function_was_cancelled_was_told_and_leaves_the_file(
    tmp_path: Path, is_async: bool
) -> None:
    told = []

    def on_rejected(reading: Any, *_: Any) -> Any:
        told.append(reading["value"])
        if not is_async:
            raise asyncio.CancelledError
        return cancelled()

    async with fake_server() as server, opened(server, buffer=tmp_path / "b.db") as device:
        server.answer = reject
        device.on_rejected(on_rejected)
        await device.send({"value": 0})
        await device.send({"value": 1})
        await device.flush(10)
        await asyncio.sleep(0.1)
    buffer = Buffer(tmp_path / "b.db")
    assert (told, buffer.pending) == ([0], 0)
    buffer.close()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


async def test_a_reading_that_is_nested_too_deeply_is_not_taken_and_holds_nothing_up() -> None:
    limit = sys.getrecursionlimit()
    depths = [99, 100, 200, *range(limit - 60, limit + 10, 2), 20_000]
    taken, told = [], []
    async with fake_server() as server, opened(server) as device:
        server.answer = reject
        device.on_rejected(lambda reading, *_: told.append(reading))
        for depth in depths:
            try:
                await device.send({"value": nested(depth)})
            except ValueError:
                continue
            taken.append(depth)
        await device.send({"value": "[{" * 100 + '"\\'})
        await device.send({"value": 1})
        await device.flush(10)
    assert taken == [99]
    assert len(told) == 2
