"""A connection that is lost, at any point, is opened again."""

import asyncio
from contextlib import closing, suppress

import pytest
from yarl import URL

from broker.message import Message
from broker.rabbitmq import connection as rabbitmq_connection
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import (
    READINGS_EXCHANGE,
)


async def test_a_connection_that_dies_at_any_point_of_its_handshake_is_opened_again(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "RECONNECT_S", (0.001, 0.001))
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 20)
    url = URL(rabbitmq_url)
    # How many bytes of answers pass before a connection is cut: all of the handshake's, and some of what follows it.
    cuts = [*range(0, 40, 5), *range(40, 1000, 40), *range(500, 660, 2)]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = cuts.pop(0) if cuts else 10**9
        back, forth = await asyncio.open_connection("127.0.0.1", url.port)
        with closing(writer), closing(forth):
            asking = asyncio.ensure_future(carry(reader, forth))
            while left > 0 and (data := await back.read(min(left, 65536))):
                writer.write(data)
                left -= len(data)
            asking.cancel()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        broker = RabbitMQBroker(str(url.with_port(server.sockets[0].getsockname()[1])), durable_after_s=0)
        async with broker.publisher() as publisher:
            assert not cuts
            await publisher.publish(Message(b"through"), READINGS_EXCHANGE)
