"""The Python library's way to the disk: a thread that synchronises the file."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from device.buffer import Buffer
from device.disk import ToDisk


class SlowDisk:
    """A disk that takes as long as the test wants."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def sync(self, file: int) -> None:
        self.is_asked.set()
        assert self.may_answer.wait(10)
        os.fsync(file)


async def test_the_file_is_closed_only_after_a_sync_whose_caller_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowDisk()
    monkeypatch.setattr("device.buffer._to_disk", slow.sync)
    buffer = Buffer(tmp_path / "b.db")
    disk = ToDisk(buffer)
    buffer.append({"value": 1})
    syncing = asyncio.create_task(disk.sync())
    assert await asyncio.to_thread(slow.is_asked.wait, 10)
    syncing.cancel()
    closing = asyncio.create_task(disk.close())
    done, _ = await asyncio.wait((syncing, closing), timeout=0.1)
    assert not done
    slow.may_answer.set()
    await closing
    assert syncing.cancelled()
    Buffer(tmp_path / "b.db").close()
