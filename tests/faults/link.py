"""A TCP link between two processes that can be slowed down, silenced or cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress


class Link:
    """Forwards bytes; `delay_s` and the two gates may change at any time."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._open: set[asyncio.StreamWriter] = set()
        self._forth, self._back = asyncio.Event(), asyncio.Event()
        self.delay_s = 0.0
        self.port = 0
        self.release()

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator["Link"]:
        link = cls(port)
        server = await asyncio.start_server(link._connected, "127.0.0.1", 0)
        link.port = server.sockets[0].getsockname()[1]
        try:
            yield link
        finally:
            server.close()
            link.cut()

    def hold(self, *, answers_only: bool = False) -> None:
        """Stop all traffic, or only the answers; the connections stay open."""
        self._back.clear()
        if not answers_only:
            self._forth.clear()

    def release(self) -> None:
        self._forth.set()
        self._back.set()

    def cut(self) -> None:
        """Close every connection, and lose what was held back."""
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError):
            back, forth = await asyncio.open_connection("127.0.0.1", self._to_port)
            with closing(forth):
                self._open |= {writer, forth}
                try:
                    await asyncio.gather(self._carry(reader, forth, self._forth), self._carry(back, writer, self._back))
                finally:
                    self._open -= {writer, forth}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await reader.read(1 << 18):
                await gate.wait()
                if self.delay_s and gate is self._forth:
                    loop.call_later(self.delay_s, writer.write, data)
                else:
                    writer.write(data)
                    await writer.drain()
        writer.close()
