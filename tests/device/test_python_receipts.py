"""`receipts=True` of the Python library: a reading is kept until the server says that it is stored."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from device import BufferFailed, Device, receipts
from device.buffer import Buffer
from device.reading import Row
from tests.device.fake_server import ISSUING, FakeServer, accepted, fake_server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 0.5)
    monkeypatch.setattr(receipts, "NO_ANSWER_S", 0.5)


def opened(server: FakeServer, **options: Any) -> Device:
    return Device(server.url, token=ISSUING.device(), buffer=None, receipts=True, **options)


def listed(*readings: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"sensorType": "temperature", "readings": [[one["ts"], one["seq"]] for one in readings]}]}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def sent(server: FakeServer, device: Device, *values: int) -> list[dict[str, Any]]:
    """Send them, and return them as the server received them."""
    for value in values:
        await device.send({"value": value} if value % 2 else {"value": value, "sensorType": "temperature"})
    await until(lambda: len(server.values) >= len(values))
    await asyncio.sleep(0.1)
    return [one for event in server.events for one in event]


async def test_the_buffer_is_freed_by_stored_events_and_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 30.0)
    async with fake_server() as server, opened(server) as device:
        readings = await sent(server, device, 1, 2, 3)
        assert server.auths[0]["receipts"] is True
        assert device.pending == 3
        # Another ts, another series, and what is in no form that is known.
        await server.emit("stored", listed({"ts": 1, "seq": 0}))
        await server.emit("stored", {"items": [{"sensorType": "x", "readings": [[readings[0]["ts"], 0]]}]})
        odd: list[Any] = [None, [], {"items": 1}, {"items": [{"readings": [[1], [[], 2]]}]}]
        for payload in odd:
            await server.emit("stored", payload)
        await server.emit("stored", listed(*readings[:2]))
        await until(lambda: device.pending == 1)
        await server.emit("stored", listed(readings[2]))
        await device.flush(5)
    assert server.questions == []


async def test_a_receipt_may_come_before_the_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 30.0)
    async with fake_server() as server, opened(server) as device:

        async def stored_first(readings: list[Any]) -> Any:
            await server.emit("stored", listed({"ts": 1, "seq": 0}, *readings))
            await asyncio.sleep(0.2)
            assert device.pending == 2
            return accepted(readings)

        server.answer = stored_first
        await device.send({"value": 1})
        await device.send({"value": 2, "sensorType": "temperature"})
        await device.flush(5)
        # What was not on its way is none: that of a later reading is waited for.
        server.answer = accepted
        await device.send({"value": 3, "ts": 1, "seq": 0})
        await until(lambda: len(server.values) == 3)
        await asyncio.sleep(0.1)
        assert device.pending == 1
        await server.emit("stored", listed({"ts": 1, "seq": 0}))
        await device.flush(5)
    assert server.questions == []


async def test_a_lost_receipt_is_asked_for_and_what_is_missing_is_sent_again() -> None:
    async with fake_server() as server, opened(server) as device:
        first: list[dict[str, Any]] = []
        server.stored_answer = lambda _: (200, listed(*first[:1])) if server.questions[1:] else (503, None)
        first += await sent(server, device, 1, 2)
        await until(lambda: device.pending == 1)
        assert server.questions[0] == listed(*first)
        await until(lambda: len(server.values) == 3)
        assert server.events[-1] == [first[1]]
        await server.emit("stored", listed(first[1]))
        await device.flush(5)
    assert server.questions[-1] == listed(first[1])


async def test_what_is_missing_is_sent_again_although_the_file_could_not_be_read_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, failures = Buffer.with_ids, [BufferFailed("disk I/O error")]

    def with_ids(buffer: Buffer, ids: Iterable[int]) -> list[Row]:
        if failures:
            raise failures.pop()
        return read(buffer, ids)

    monkeypatch.setattr(Buffer, "with_ids", with_ids)
    async with fake_server() as server, opened(server) as device:
        server.stored_answer = lambda _: (200, listed(*[one for event in server.events[1:] for one in event]))
        await sent(server, device, 1)
        await device.flush(30)
    assert not failures
    assert server.values == [1, 1]


async def test_a_server_that_has_sent_receipts_has_them_whatever_a_single_answer_says() -> None:
    async with fake_server() as server, opened(server) as device:
        (first,) = await sent(server, device, 1)
        await server.emit("stored", listed(first))
        await device.flush(5)
        await device.send({"value": 2})
        await until(lambda: len(server.questions) >= 2)  # answered with 404, as by a proxy whose reader is away
        assert device.pending == 1
        await server.emit("stored", listed(server.events[-1][0]))
        await device.flush(5)


@pytest.mark.parametrize("status", [404, 405])
async def test_with_a_server_that_has_no_receipts_readings_are_freed_when_they_are_accepted(status: int) -> None:
    def ask(_: Any) -> tuple[int, Any]:
        return status, None

    async with fake_server() as server, opened(server) as device:
        server.stored_answer = ask
        await sent(server, device, 1, 2)
        await device.flush(5)
        await device.send({"value": 3})
        await device.flush(0.3)
    assert len(server.questions) == 1


async def test_what_waits_for_its_receipt_is_the_oldest_that_is_dropped() -> None:
    told: list[int] = []
    async with fake_server() as server, opened(server, max_pending=2) as device:
        device.on_dropped(lambda reading: told.append(reading["value"]))
        await sent(server, device, 1, 2)
        await device.send({"value": 3})
        assert told == [1]
        assert device.pending == 2


async def test_a_token_that_is_renewed_with_another_sensor_type_gives_readings_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 30.0)
    tokens = [ISSUING.device(), ISSUING.device(sensorType="humidity")]

    async def token() -> str:
        return tokens.pop(0)

    async with fake_server() as server, Device(server.url, token=token, buffer=None, receipts=True) as device:
        await server.connected()
        await server.emit("auth_expiring", {"expiresAt": "2026-01-01T00:00:00.000Z"})
        await until(lambda: server.authenticated)
        await asyncio.sleep(0.1)
        await device.send({"value": 1})
        await until(lambda: server.values == [1])
        ((reading,),) = server.events
        await server.emit(
            "stored", {"items": [{"sensorType": "humidity", "readings": [[reading["ts"], reading["seq"]]]}]}
        )
        await device.flush(5)


async def test_the_same_identity_twice_is_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 30.0)
    async with fake_server() as server, opened(server) as device:
        for _ in range(2):
            await device.send({"value": 1, "ts": 5, "seq": 7})
        await until(lambda: device.pending == 1 and len(server.values) == 2)
        await server.emit("stored", listed({"ts": 5, "seq": 7}))
        await device.flush(5)


async def test_a_reading_that_is_never_stored_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "ASK_AFTER_S", 0.1)
    monkeypatch.setattr(receipts, "ASK_AT_MOST_AFTER_S", 0.1)
    monkeypatch.setattr(receipts, "MAX_MISSED", 2)
    told: list[tuple[int, str]] = []
    async with fake_server() as server, opened(server) as device:
        device.on_rejected(lambda reading, code, _: told.append((reading["value"], code)))
        good: list[dict[str, Any]] = []
        server.stored_answer = lambda _: (200, listed(*good))
        good += (await sent(server, device, 1, 2))[1:]
        await until(lambda: told)
        assert told == [(1, "not_stored")]
        assert device.pending == 0
        assert server.values == [1, 2, 1, 1]
