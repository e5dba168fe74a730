"""A disk that the buffer has filled: what the server has makes room for what is measured, after a restart too."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from device import BufferFailed
from device.buffer import Buffer
from device.reading import Row
from testing.servers.ports import free_port
from tests.device.javascript_edge import published
from tests.device.javascript_process import javascript_device
from tests.faults.disk import Disk
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway

DISK_BYTES = 512 << 10
NOTE = "x" * 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with Disk(tmp_path / "disk", DISK_BYTES) as disk:
        assert disk.small, "a disk can be mounted by root only"
        yield disk.folder


def filled(buffer: Buffer) -> list[Row]:
    rows: list[Row] = []
    with suppress(BufferFailed):
        while True:
            rows.append(buffer.append({"sensorType": "t", "value": len(rows), "location": NOTE}))
    return rows


def filled_and_opened_again(path: Path) -> tuple[Buffer, list[Row]]:
    first = Buffer(path)
    first.note("token", "renewed")
    rows = filled(first)
    first.close()
    buffer = Buffer(path)
    assert buffer.after(0, 10_000) == rows
    with pytest.raises(BufferFailed, match="full"):
        buffer.append({"value": 1})
    return buffer, rows


@pytest.mark.parametrize("keeps", [False, True])
def test_the_python_library_goes_on(disk: Path, keeps: bool) -> None:
    buffer, rows = filled_and_opened_again(disk / "b.db")
    (buffer.keep if keeps else buffer.remove)([row.id for row in rows])
    seqs = [buffer.append({"sensorType": "t", "value": value}).seq for value in range(20)]
    assert seqs == list(range(len(rows), len(rows) + 20))
    assert (buffer.pending, buffer.noted("token")) == (20, "renewed")
    buffer.sync()
    buffer.remove([row.id for row in buffer.after(0, 10)])
    assert buffer.write_removals()
    buffer.close()
    assert (disk / "b.db").stat().st_mode & 0o077 == 0
    again = Buffer(disk / "b.db")
    assert [row.seq for row in again.after(0, 100)] == seqs[10:]
    assert len(filled(again)) > 50
    again.close()


def test_a_reading_whose_function_has_not_ended_stays(disk: Path) -> None:
    buffer, rows = filled_and_opened_again(disk / "b.db")
    buffer.settle()
    buffer.remove([row.id for row in rows[1:]])
    with pytest.raises(BufferFailed, match="full"):
        buffer.append({"value": 1})
    buffer.remove_settled(rows[0].id)
    buffer.append({"value": 1})
    buffer.close()


def test_a_kill_in_the_middle_is_made_good_at_the_next_start(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, rows = filled_and_opened_again(disk / "b.db")
    buffer.remove([row.id for row in rows])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            buffer.append({"value": 1})
    again = Buffer(disk / "b.db")
    assert (again.pending, again.noted("token")) == (0, "renewed")
    assert again.append({"sensorType": "t", "value": 1}).seq == len(rows)
    again.close()


async def test_the_javascript_library_goes_on(disk: Path, fake_broker: FakeBroker) -> None:
    buffer, token = disk / "readings.log", ISSUING.device()
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with javascript_device(nowhere, token, buffer=buffer) as killed:
        await killed.call("send", count=3000, fields={"location": NOTE})
        assert {error["code"] for error in killed.all_of("failed")} == {"ENOSPC"}
    async with (
        gateway(fake_broker) as running,
        javascript_device(running.url, token, buffer=buffer, first=3000) as device,
    ):
        await device.call("flush", ms=20_000)
        for _ in range(3):
            await device.call("send", count=500, fields={"location": NOTE})
            await device.call("flush", ms=20_000)
        assert not device.all_of("failed")
    assert published(fake_broker).keys() == killed.kept | device.kept


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    for version in (0, 2):
        with closing(sqlite3.connect(path)) as database:
            database.executescript(f"CREATE TABLE IF NOT EXISTS mine (a); PRAGMA user_version = {version};")
        before = path.read_bytes()
        with pytest.raises(BufferFailed, match="another program's"):
            Buffer(path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_a_program_may_change_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = Buffer("b.db")
    buffer.append({"value": 1})
    monkeypatch.chdir("/")
    buffer.sync()
    buffer.close()
    assert (tmp_path / "b.db").exists()
