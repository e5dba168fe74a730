"""Stored readings that the Python library keeps for a while: in the file, and what it asks before it frees them."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from device import BufferFailed, Device, recheck
from device.buffer import Buffer
from tests.device.fake_server import ISSUING, FakeServer, fake_server


def opened(server: FakeServer, buffer: Path | None = None, **options: Any) -> Device:
    return Device(server.url, token=ISSUING.device(), buffer=buffer, receipts=True, **options)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "FIRST_AFTER_S", 0.1)
    monkeypatch.setattr(recheck, "NO_ANSWER_S", 0.5)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def listed(*readings: dict[str, Any]) -> dict[str, Any]:
    named = [{"sensorType": "temperature", "readings": [[one["ts"], one["seq"]]]} for one in readings]
    return {"items": named}


class History:
    """What the server has stored, as its answers to questions say."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.identities: set[tuple[int, int]] = set()
        server.stored_answer = self.answer

    def answer(self, question: Any) -> tuple[int, Any]:
        items = [
            item | {"readings": [one for one in item["readings"] if tuple(one) in self.identities]}
            for item in question["items"]
        ]
        return 200, {"items": items}

    async def store(self, device: Device) -> list[dict[str, Any]]:
        """Store what was received, and send the receipts; return it once the device has them."""
        received = [one for event in self._server.events for one in event]
        await asyncio.sleep(0.1)  # the acknowledgement comes first
        self.identities |= {(one["ts"], one["seq"]) for one in received}
        await self._server.emit("stored", listed(*received))
        await device.flush(5)
        return received


async def stored(server: FakeServer, device: Device, *values: int) -> tuple[History, list[dict[str, Any]]]:
    """Send these, and have them stored."""
    history = History(server)
    for value in values:
        await device.send({"value": value})
    await until(lambda: len(server.values) == len(values))
    return history, await history.store(device)


def asked(server: FakeServer) -> list[int]:
    """The `seq` of each reading asked about, in order."""
    items = [item for question in server.questions for item in question["items"]]
    return [seq for item in items for _, seq in item["readings"]]


def kept_in(path: Path) -> tuple[int, int]:
    buffer = Buffer(path)
    try:
        return buffer.pending, buffer.kept.count
    finally:
        buffer.close()


async def test_a_stored_reading_is_asked_about_once_more_and_then_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path, keep_stored=600) as device:
            await stored(server, device, 1, 2, 3)
            assert device.pending == 0
        assert kept_in(path) == (0, 3)
        async with opened(server, path, keep_stored=1) as device:
            await until(lambda: len(asked(server)) == 3)
            await asyncio.sleep(0.1)
            assert device.pending == 0
        assert kept_in(path) == (0, 0)
        assert server.values == [1, 2, 3], "nothing was sent again"


async def test_a_404_frees_nothing_that_is_kept_at_a_server_that_has_sent_receipts() -> None:
    async with fake_server() as server, opened(server, keep_stored=1) as device:
        history, _ = await stored(server, device, 1)
        history.identities.clear()
        server.stored_answer = lambda _: (404, None)  # as of a proxy whose reader is away
        await until(lambda: server.questions)
        server.stored_answer = history.answer
        await until(lambda: len(server.values) == 2)
        await history.store(device)


async def test_what_a_restored_server_has_lost_is_sent_again_at_once_and_once(tmp_path: Path) -> None:
    async with fake_server() as server, opened(server, tmp_path / "b.db", keep_stored=3) as device:
        history, first = await stored(server, device, 1, 2)
        await asyncio.sleep(2)
        await device.send({"value": 3})
        await until(lambda: len(server.values) == 3)
        later = (await history.store(device))[2:]
        # All but the first are gone. Its turn comes, and with it the news of the second; the third is not due yet.
        history.identities = {(first[0]["ts"], first[0]["seq"])}
        begun = time.monotonic()
        await until(lambda: len(server.values) == 5)
        assert time.monotonic() - begun < 4
        assert sorted(server.values[3:]) == [2, 3]
        assert later[0] in [one for event in server.events[-2:] for one in event], "the same ts and seq"
        assert device.pending == 2
        await history.store(device)
        assert device.pending == 0


async def test_what_is_lost_is_sent_once_although_it_was_asked_about_before_anything_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path) as device:
            history, _ = await stored(server, device, 1, 2)
        async with Device("http://127.0.0.1:9", token=ISSUING.device(), buffer=path, receipts=True) as device:
            await device.send({"value": 3})
        history.identities.clear()
        server.refuses = lambda _: "unavailable"
        async with opened(server, path, keep_stored=1) as device:
            await until(lambda: device.pending == 3)
            server.refuses = lambda _: None
            await until(lambda: len(server.values) >= 5)
            await history.store(device)
            assert device.pending == 0
    assert sorted(server.values[2:]) == [1, 2, 3]


async def test_without_an_answer_they_stay(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path, keep_stored=1) as device:
            await stored(server, device, 1, 2)
            server.stored_answer = lambda _: (503, None)
            await until(lambda: len(server.questions) == 2)
        assert kept_in(path) == (0, 2)


async def test_what_is_missing_again_and_again_is_somebody_s_wish(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path, keep_stored=0.5) as device:
            history, _ = await stored(server, device, 1)
            for times in (2, 3, 4):
                history.identities.clear()
                await until(lambda times=times: len(server.values) == times)  # type: ignore[misc]
                await history.store(device)
        assert kept_in(path) == (0, 0)


@pytest.mark.parametrize("options", [{"receipts": False}, {"keep_stored": 0}])
async def test_a_device_that_keeps_nothing_frees_what_was_kept_before(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path) as device:
            await stored(server, device, 1, 2)
        async with Device(
            server.url, **{"token": ISSUING.device(), "buffer": path, "receipts": True, **options}
        ) as device:
            assert device.pending == 0
        assert kept_in(path) == (0, 0)
        assert server.questions == []


async def test_a_server_without_the_call_frees_them(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path) as device:
            await stored(server, device, 1)
        async with opened(server, path, keep_stored=0.5):
            server.stored_answer = lambda _: (404, None)
            await until(lambda: server.questions)
            await asyncio.sleep(0.1)
        assert kept_in(path) == (0, 0)


async def test_they_make_room_for_new_ones_and_nobody_is_told(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with fake_server() as server:
        async with opened(server, path, max_pending=3) as device:
            device.on_dropped(lambda reading: pytest.fail(f"{reading} was dropped"))
            await stored(server, device, 1, 2, 3)
            for value in (4, 5):
                await device.send({"value": value})
            assert device.pending == 2
            assert device.dropped == 0
        assert kept_in(path) == (2, 1)


def test_a_full_disk_takes_new_ones_in_their_place(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    buffer._database.execute("PRAGMA max_page_count = 100")
    rows = []
    with suppress(BufferFailed):
        while True:
            rows.append(buffer.append({"value": "x" * 1000}))
    buffer.keep([row.id for row in rows[:50]])
    for _ in range(20):
        buffer.append({"value": "y" * 1000})
    assert buffer.pending == len(rows) - 50 + 20
    assert buffer.kept.count < 50
    buffer.close()


def test_the_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE readings (id INTEGER PRIMARY KEY, series TEXT, ts INTEGER, seq INTEGER, body TEXT NOT NULL);"
            "CREATE TABLE series (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
            """INSERT INTO readings VALUES (7, 't', 5, 6, '{"value": 1}');"""
            "PRAGMA user_version = 1;"
        )
    buffer = Buffer(path)
    assert buffer.after(0, 10) == [(7, "t", 5, 6, '{"value": 1}')]
    assert buffer.append({"sensorType": "t", "value": 2}).seq == 7
    buffer.keep([7])
    buffer.close()
    assert kept_in(path) == (1, 1)


def test_a_clock_that_was_set_back_does_not_keep_them_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    buffer = Buffer(path)
    buffer.keep([buffer.append({"value": 1}).id])
    buffer.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE readings SET stored = stored + 100000000")
        database.commit()
    buffer = Buffer(path)
    assert len(buffer.kept.oldest((0, 0), int(time.time()) + 1, 10)) == 1
    buffer.close()
