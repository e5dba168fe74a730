"""The Python library's sender, without a network."""

import asyncio
from typing import Any

import pytest

from device.buffer import Buffer
from device.outbox import Outbox
from device.reading import Row
from device.sender import Sender


class Connection:
    """Keeps what is emitted."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.emitted: asyncio.Queue[int] = asyncio.Queue()
        self._numbers = 0

    async def open(self, url: str, auth: dict[str, Any]) -> None:
        raise NotImplementedError

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def emit(self, number: int, event: str, payload: str) -> None:
        self.emitted.put_nowait(number)

    async def request(self, event: str, payload: dict[str, Any], timeout_s: float) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


async def test_a_pause_ends_although_its_timer_is_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop runs a timer up to one tick of its clock early: 16 ms where the clock has such ticks."""
    accepted: list[Row] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "_clock_resolution", 0.016)
    buffer = Buffer(None)
    buffer.append({"value": 1, "ts": 1_790_000_000_000})
    sender = Sender(buffer, Outbox(buffer), accepted.extend, lambda row, code, detail: None)
    connection = Connection()
    async with asyncio.timeout(5):
        sending = asyncio.create_task(sender.run(connection))
        number = await connection.emitted.get()
        sender.on_ack(number, {"status": "retry", "code": "busy", "retryAfterMs": 50})
        while connection.emitted.empty():  # only a busy loop is early
            await asyncio.sleep(0)
        sender.on_ack(connection.emitted.get_nowait(), {"status": "accepted", "accepted": 1})
        sending.cancel()
        await asyncio.wait((sending,))
    assert [row.seq for row in accepted] == [0]
    buffer.close()
