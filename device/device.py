"""The device, as a program sees it: `send`, `flush`, and the handlers that it calls."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from device.buffer import Buffer
from device.commands import Command, Commands
from device.disk import LOOK_EVERY_S, ToDisk
from device.errors import DeviceRefused
from device.handlers import Handlers
from device.link import Link
from device.options import check_options
from device.outbox import Outbox
from device.reading import Row
from device.receipts import Receipts, Settle
from device.recheck import Recheck
from device.sender import Sender
from device.server import Server, origin_of
from device.tokens import Token, Tokens
from device.transport import Transport

# `send` lets other tasks run after this many readings.
YIELD_AFTER = 32
# Looks at the disk between two checks for answers that are late: about a second.
LOOKS = 2

_log = logging.getLogger("device")

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Device:
    """A device of `url`; enter it to open its buffer and to connect.

    `token` is a device's token, or an async function that returns one. `buffer` is the path of the file that keeps
    readings until they are acknowledged, None for memory. `receipts`: keep them until they are stored, not only
    accepted, and for `keep_stored` seconds more: then they are asked about again, and sent again if the server has lost
    them. Beyond `max_pending` readings the oldest ones are dropped, or with `drop="newest"` those just sent.
    `transport` makes the transport to the url, for simulations. Raises ValueError for an option that is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token,
        buffer: str | os.PathLike[str] | None = "readings.db",
        receipts: bool = False,
        keep_stored: float = 600.0,
        max_pending: int = 100_000,
        drop: Literal["oldest", "newest"] = "oldest",
        transport: Callable[[str], Transport] = Server,
    ) -> None:
        self._url = origin_of(url)
        check_options(token, buffer, receipts, keep_stored, max_pending, drop)
        self._token = token
        self._make_transport = transport
        self._path = buffer
        self._wants_receipts = receipts
        self._keep_stored_s = keep_stored if receipts else 0.0
        self._max_pending = max_pending
        self._drops_oldest = drop == "oldest"
        self._dropped = 0
        self._sends = 0
        self._refused: DeviceRefused | None = None
        self._changed = asyncio.Event()
        self._rejected_handler: Callable[..., Any] | None = None
        self._dropped_handler: Callable[..., Any] | None = None
        self._commands = Commands()
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers = Handlers()
        self._buffer: Buffer | None = None

    async def __aenter__(self) -> Self:
        """Open the buffer and begin to connect; raises BufferInUse or BufferFailed."""
        if self._buffer is not None:
            raise RuntimeError("a device is entered once at a time")
        self._buffer = buffer = Buffer(self._path)
        try:
            self._start(buffer)
        except BaseException:
            self._buffer = None
            buffer.close()
            raise
        return self

    def _start(self, buffer: Buffer) -> None:
        self._disk = ToDisk(buffer)
        self._refused = None
        self._transport = transport = self._make_transport(self._url)
        self._tokens = Tokens(self._token, transport.renewed, buffer)
        self._outbox = Outbox(buffer)
        if not self._keep_stored_s and buffer.kept.count:
            buffer.drop_kept(buffer.kept.count)

        async def ask(question: dict[str, Any]) -> Any:
            return await transport.stored(question, self._tokens.present)

        keep = self._keep if self._keep_stored_s else self._free
        self._sender = Sender(buffer, self._outbox, self._accepted, self._reject)
        settle = Settle(self._free, keep, self._send_again, self._reject)
        self._receipts = Receipts(buffer, ask, settle, self._sender.in_flight)
        self._recheck = Recheck(buffer, self._receipts.ask, self._keep_stored_s, self._lost)
        options = {"receipts": True} if self._wants_receipts else {}
        self._link = Link(self._url, transport, self._tokens, self._sender, options, self._take_event)
        self._tasks = [asyncio.create_task(self._keep_connected()), asyncio.create_task(self._keep_time())]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close connection and buffer: what is pending stays in the file, and what is only in memory is lost."""
        buffer, self._buffer = self._buffer, None
        self._changed.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._receipts.close()
        await self._recheck.close()
        await self._commands.close()
        await self._transport.close()
        await self._handlers.close()
        if buffer is not None:
            if buffer.pending and self._path is None:
                _log.warning("%d readings were not acknowledged and are lost with the memory", buffer.pending)
            await self._disk.close()

    @property
    def pending(self) -> int:
        """The number of readings that the server does not have yet: the buffer may keep others, which are stored."""
        return 0 if self._buffer is None else self._buffer.pending

    @property
    def dropped(self) -> int:
        """The number of readings that were dropped since the start."""
        return self._dropped

    def on_rejected(self, handler: Handler) -> Handler:
        """Call `handler(reading, code, detail)` with each reading that the server rejects."""
        self._rejected_handler = handler
        return handler

    def on_dropped(self, handler: Handler) -> Handler:
        """Call `handler(reading)` with each reading that is dropped because `max_pending` are waiting."""
        self._dropped_handler = handler
        return handler

    def on_command(self, handler: Callable[[Command], Any]) -> Callable[[Command], Any]:
        """Call `handler(command)` with each command; it returns the result, or a coroutine with it."""
        self._commands.handler = handler
        return handler

    async def send(self, reading: Mapping[str, Any]) -> None:
        """Put a reading into the buffer: it survives the end of this process when this returns.

        Its time is now and its `seq` the next one unless it has them. Raises TypeError or ValueError where it is not
        JSON, and BufferFailed where the buffer cannot be written: then it was not taken.
        """
        buffer = self._opened()
        self._sends += 1
        if self._sends % YIELD_AFTER == 0:
            await asyncio.sleep(0)
        await self._disk.make_room()
        if buffer.kept.count and buffer.pending + buffer.kept.count >= self._max_pending:
            buffer.drop_kept(max(1, self._max_pending // 100))
        buffer = await self._drop_excess() if self._drops_oldest else buffer
        is_full = buffer.pending >= self._max_pending
        if is_full and not self._drops_oldest:
            self._drop(buffer.skip(reading), lambda: None)
            return
        oldest = self._oldest() if is_full else None
        row = buffer.append(reading)
        if oldest is None:
            self._add(row)
        else:
            self._drop_row(buffer, *oldest, added=row)

    async def flush(self, timeout: float | None = 30) -> None:  # noqa: ASYNC109 - the documented name
        """Return when no reading is pending; raises TimeoutError, or DeviceRefused if the server refuses for good.

        RuntimeError: the device is not open, or was closed meanwhile.
        """
        async with asyncio.timeout(timeout):
            while self._opened().pending:
                if self._refused is not None:
                    raise DeviceRefused(self._refused.code, self._refused.message) from self._refused
                self._changed.clear()
                await self._changed.wait()

    def _opened(self) -> Buffer:
        if self._buffer is None:
            raise RuntimeError("the device is not open: use it within `async with Device(…) as device`")
        return self._buffer

    def _add(self, row: Row) -> None:
        self._outbox.add(row)
        self._sender.wake.set()

    async def _drop_excess(self) -> Buffer:
        """Drop what an earlier program with a larger bound has left, or had no time to report; return the buffer."""
        while (buffer := self._opened()).pending > self._max_pending and (oldest := self._oldest()) is not None:
            self._drop_row(buffer, *oldest)
            if self._dropped % YIELD_AFTER == 0:
                await asyncio.sleep(0)
        return buffer

    def _oldest(self) -> tuple[Row, Callable[[Row], None]] | None:
        """Return the oldest reading that is not in flight, else the oldest in flight; and what discards it."""
        if (row := self._receipts.oldest()) is not None:
            return row, self._receipts.discard
        if (row := self._outbox.oldest()) is not None:
            return row, self._outbox.discard_oldest
        row = self._sender.oldest_in_flight()
        return None if row is None else (row, self._sender.discard)

    def _drop_row(self, buffer: Buffer, row: Row, discard: Callable[[Row], None], added: Row | None = None) -> None:
        discard(row)
        buffer.settle()
        if added is not None:  # before the handler, which may send
            self._add(added)
        self._drop(json.loads(row.body), partial(buffer.remove_settled, row.id))

    def _drop(self, reading: dict[str, Any], then: Callable[[], None]) -> None:
        self._dropped += 1
        if self._dropped_handler is not None:
            self._handlers.call(self._dropped_handler, (reading,), then)
            return
        if self._dropped & (self._dropped - 1) == 0:  # the first, second, fourth, …
            _log.warning("%d readings were dropped: the buffer is full", self._dropped)
        then()

    def _accepted(self, rows: list[Row]) -> None:
        if self._wants_receipts:
            self._receipts.accepted(rows)
        else:
            self._free([row.id for row in rows])

    def _free(self, ids: list[int]) -> None:
        if self._buffer is not None:
            self._buffer.remove(ids)
            self._changed.set()

    def _keep(self, ids: list[int]) -> None:
        if self._buffer is not None:
            self._buffer.keep(ids)
            self._changed.set()

    def _lost(self, rows: list[Row]) -> None:
        self._receipts.returned()
        self._send_again(rows)

    def _reject(self, row: Row, code: str, detail: str) -> None:
        buffer = self._buffer
        if buffer is None:  # it is being closed: the reading stays in the file, and is sent again after the next start
            return
        buffer.settle()
        then = partial(buffer.remove_settled, row.id)
        if self._rejected_handler is None:
            _log.warning("A reading was rejected: %s, %s", code, detail)
            then()
        else:
            self._handlers.call(self._rejected_handler, (json.loads(row.body), code, detail), then)
        self._changed.set()

    def _send_again(self, rows: list[Row]) -> None:
        self._outbox.put_back(rows)
        self._sender.wake.set()

    async def _take_event(self, name: str, payload: Any) -> Any:
        if name == "command":
            return await self._commands.answer(payload)
        if name == "stored" and self._wants_receipts:
            self._receipts.stored(payload)
        return None

    async def _keep_connected(self) -> None:
        self._refused = await self._link.run()
        self._changed.set()

    async def _keep_time(self) -> None:
        """Synchronise what waits for an answer; once a second, look for answers that are late."""
        while (buffer := self._buffer) is not None:
            for _ in range(LOOKS):
                await asyncio.sleep(LOOK_EVERY_S)
                await self._disk.look(self._oldest_id())
            self._link.check()
            self._receipts.check()
            if self._keep_stored_s:
                self._recheck.check(busy=self._outbox.has_returned)
            if not buffer.write_removals():
                _log.warning("The buffer cannot be written: readings may be sent again after a restart")

    def _oldest_id(self) -> int | None:
        ids = (self._sender.oldest_id, self._receipts.oldest_id, self._outbox.oldest_id)
        return min((number for number in ids if number is not None), default=None)
