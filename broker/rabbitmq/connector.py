"""Opens a connection to one of a cluster's nodes, however many names and addresses they have.

Each connection starts with a random node, so that clients spread over the nodes; after a loss with another one than
before. A node that is silent for 2 s, because it drops packets or accepts and sends nothing, is skipped for the next
one, if there is one. A name counts as many nodes as it has addresses, and TLS checks the certificate against the name.
"""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, SupportsIndex

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.connection import TransportFactory
from yarl import URL

from broker.interface import BrokerRefused, BrokerUnavailable
from broker.rabbitmq.address import Host
from broker.rabbitmq.errors import translating_errors
from broker.rabbitmq.incoming import HEARTBEAT_FRAME, FrameSplitter, Receiver

# The longest silence of a node while connecting: where there is another node, and where there is none.
SILENCE_TIMEOUT_S = 2.0
SINGLE_NODE_SILENCE_TIMEOUT_S = 5.0
# The longest handshake, however much the node sends.
HANDSHAKE_TIMEOUT_S = 10.0
# A node whose frames do not reach the driver sends no heartbeats beside them: the driver gets one this often.
# But only behind a whole frame that it does not see: in a handshake it would take a heartbeat for a wrong answer, and a
# node whose frame never ends would live for ever.
HEARTBEAT_TO_DRIVER_S = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one host."""

    host: Host
    address: str

    def __str__(self) -> str:
        address = "" if self.address == self.host.name else f" ({self.address})"
        return f"{self.host.name}:{self.host.port}{address}"


class Connector:
    """Connects to one of some hosts and remembers which, so that the next connection starts with another."""

    def __init__(self, hosts: tuple[Host, ...]) -> None:
        self._hosts = hosts
        self._last: Candidate | None = None
        self._transport: _Transport | None = None
        # Whether the last `connect` could have chosen another address.
        self.has_another = False

    def silent_s(self) -> float:
        """Return for how many seconds nothing was received over the last connection."""
        return 0.0 if self._transport is None else asyncio.get_running_loop().time() - self._transport.received_at

    async def connect(self, name: str) -> AbstractConnection:
        """Return a connection to the first node that answers; BrokerUnavailable, with each node's error, if none does.

        A refusal ends it with BrokerRefused: a wrong password is wrong at every node.
        """
        reasons: list[str] = []
        async with aclosing(self._candidates(reasons)) as candidates:
            async for candidate, silence_s in candidates:
                try:
                    transport = _Transport(candidate)
                    with translating_errors():
                        connection = await _connect(candidate, name, silence_s, transport)
                except BrokerRefused:
                    self._last = candidate
                    raise
                except BrokerUnavailable as error:
                    reasons.append(f"{candidate}: {error}")
                else:
                    self._last, self._transport = candidate, transport
                    return connection
        raise BrokerUnavailable("; ".join(sorted(reasons)))  # the same text each time: an outage is logged once

    async def _candidates(self, reasons: list[str]) -> AsyncGenerator[tuple[Candidate, float], None]:
        """Yield every address of every host in random order, that of the last connection at the end."""
        last = None
        hosts = random.sample(self._hosts, len(self._hosts))
        for host in hosts:
            try:
                addresses = await _addresses(host)
            except (OSError, TimeoutError) as error:
                reasons.append(f"{host.name}:{host.port}: no address ({str(error) or 'no answer'})")
                continue
            single = len(hosts) == 1 and len(addresses) == 1
            self.has_another = not single
            for address in random.sample(addresses, len(addresses)):
                candidate = Candidate(host, address)
                if candidate == self._last and not single:
                    last = candidate
                else:
                    yield candidate, SINGLE_NODE_SILENCE_TIMEOUT_S if single else SILENCE_TIMEOUT_S
        if last is not None:
            yield last, SILENCE_TIMEOUT_S


async def _addresses(host: Host) -> list[str]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(SILENCE_TIMEOUT_S):
        found = await loop.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _connect(candidate: Candidate, name: str, silence_s: float, transport: "_Transport") -> AbstractConnection:
    """Open one connection; BrokerUnavailable when nothing is received for `silence_s`."""
    connection = aio_pika.Connection(candidate.host.url, client_properties={"connection_name": name})
    connection.kwargs["transport_factory"] = transport
    connecting = asyncio.ensure_future(connection.connect())
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            while not connecting.done():
                remaining_s = transport.received_at + silence_s - asyncio.get_running_loop().time()
                if remaining_s <= 0:
                    raise BrokerUnavailable(f"silent for {silence_s:g} s")
                await asyncio.wait((connecting,), timeout=remaining_s)
        await connecting
    except TimeoutError as error:
        raise BrokerUnavailable(f"no connection within {HANDSHAKE_TIMEOUT_S:g} s") from error
    finally:
        if not connecting.done():
            connecting.cancel()
            connecting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return connection


def take_over(connection: AbstractConnection, channel: int, receiver: Receiver) -> None:
    """Pass the deliveries and confirms of a channel of this connection to `receiver`, and not to the driver.

    TypeError for a connection that no `Connector` has opened.
    """
    transport = connection.kwargs["transport_factory"] if isinstance(connection, aio_pika.Connection) else None
    if not isinstance(transport, _Transport):
        raise TypeError(f"{connection!r} was not opened here")
    transport.splitter.take_over(channel, receiver)


class _Transport(TransportFactory):
    """Opens the socket to one address, splits what it receives, and records when bytes were last received over it."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._loop = asyncio.get_running_loop()
        self.received_at = self._loop.time()
        self._driver_received_at = self.received_at
        self.splitter = FrameSplitter()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = await kwargs["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        reader = _Reader(self)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.create_connection(
            lambda: protocol,
            self._candidate.address,
            self._candidate.host.port,
            ssl=context,
            server_hostname=url.host if context else None,
        )
        self.received_at = self._loop.time()
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    def received(self, data: bytes) -> bytes:
        """Return what the driver is to receive of it."""
        now = self.received_at = self._loop.time()
        taken = self.splitter.taken
        others = self.splitter.feed(data)
        silent_s = now - self._driver_received_at
        if not others and self.splitter.taken != taken and silent_s > HEARTBEAT_TO_DRIVER_S:
            others = HEARTBEAT_FRAME
        if others:
            self._driver_received_at = now
        return others


class _Reader(asyncio.StreamReader):
    def __init__(self, transport: _Transport) -> None:
        super().__init__()
        self._received = transport.received

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if others := self._received(bytes(data)):
            super().feed_data(others)
