"""A DNS server like Docker's for its containers: each name resolves to the addresses of its running replicas."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

_HEAD = struct.Struct(">6H")
ANSWER, NO_SUCH_NAME = 0x8180, 0x8183
A_RECORD, INTERNET = 1, 1
TTL_S = 1


class NameServer(asyncio.DatagramProtocol):
    """Resolves `addresses`, which may change at any time (RFC 1035, as far as nginx needs it)."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.port = 0
        self._transport: asyncio.DatagramTransport

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator["NameServer"]:
        loop = asyncio.get_running_loop()
        transport, names = await loop.create_datagram_endpoint(cls, local_addr=("127.0.0.1", 0))
        names.port = transport.get_extra_info("sockname")[1]
        try:
            yield names
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        identity = _HEAD.unpack_from(data)[0]
        labels, at = [], _HEAD.size
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = data[_HEAD.size : at + 5]
        found = self.addresses.get(".".join(labels), [])
        head = _HEAD.pack(identity, ANSWER if found else NO_SUCH_NAME, 1, len(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", A_RECORD, INTERNET, TTL_S, 4)
        self._transport.sendto(
            head + question + b"".join(record + ipaddress.ip_address(address).packed for address in found), addr
        )
