"""Nodes of a cluster, each at an address of its own, all of one RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from yarl import URL

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class Node:
    """A node at an address of its own: what is said to it goes to the one RabbitMQ behind all of them."""

    def __init__(self, address: str, port: int, behind: int) -> None:
        self.address, self.port, self._behind = address, port, behind
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        # While clear, connections stay open, and nothing is carried.
        self.carries = asyncio.Event()
        self.carries.set()
        # It says nothing but heartbeats.
        self.only_beats = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Node"]:
        server = await asyncio.start_server(self._connected, self.address, self.port)
        async with server:
            yield self
            self.drop_all()

    def drop_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        back, forth = await asyncio.open_connection("127.0.0.1", self._behind)
        self._open |= {writer, forth}
        await asyncio.gather(self._carry(reader, forth), self._carry(back, writer, says=True), return_exceptions=True)
        self._open -= {writer, forth}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, says: bool = False) -> None:
        with closing(writer):
            while data := await reader.read(65536):
                await self.carries.wait()
                if not (says and self.only_beats and data != HEARTBEAT):
                    writer.write(data)


def url_of(nodes: list[Node], rabbitmq_url: str) -> str:
    """Return `BROKER_URL` with these nodes."""
    hosts = ",".join(f"{node.address}:{node.port}" for node in nodes)
    return rabbitmq_url.replace(URL(rabbitmq_url).authority.rpartition("@")[2], hosts)
