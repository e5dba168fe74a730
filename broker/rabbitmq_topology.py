"""Declares exchanges, queues and bindings on RabbitMQ, and waits until fresh queues would survive a crash.

RabbitMQ 3.10.8 registers a quorum queue on disk within a second of its declaration; a node killed before that comes
back without the queue and what was confirmed in it (docs/decisions/0001). So whoever declares a fresh queue waits, and
only then declares a marker, `tidegate.declared`; whoever finds no marker waits too, even if the queues are there.
"""

import asyncio

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused

from broker.topology import FANOUTS, SETTLED_EXCHANGE, Exchange, Queue

# The register is written once a second; lost at 0.6 s, never at 1 s and later.
SETTLE_S = 1.5


async def ensure_topology(connection: AbstractConnection, queues: tuple[Queue, ...], *, settle_s: float | None) -> None:
    """Declare everything, and return when a publish into it may be confirmed.

    `settle_s` is how long fresh queues are waited for; None: not at all, by those who publish nothing.
    A user without the right to declare is content with what another one has declared.
    """
    settled = await _exists(connection, queues)
    channel = await connection.channel()
    try:
        await _declare(channel, queues)
        if not settled and settle_s is not None:
            await asyncio.sleep(settle_s)
            await channel.declare_exchange(SETTLED_EXCHANGE.name, SETTLED_EXCHANGE.kind, durable=True)
    except ChannelAccessRefused:
        if not settled:
            raise
    else:
        await channel.close()


async def ensure_exchange(connection: AbstractConnection, exchange: Exchange) -> None:
    """Declare an exchange where it is missing; where it is there, no right to declare is needed."""
    channel = await connection.channel()
    try:
        await channel.get_exchange(exchange.name, ensure=True)
    except ChannelNotFoundEntity:
        channel = await connection.channel()  # the question cost the other one
        await channel.declare_exchange(exchange.name, exchange.kind, durable=True)
    await channel.close()


async def _exists(connection: AbstractConnection, queues: tuple[Queue, ...]) -> bool:
    """Ask for every queue and the marker. A question that is denied costs its channel."""
    channel = await connection.channel()
    try:
        await channel.get_exchange(SETTLED_EXCHANGE.name, ensure=True)
        for queue in queues:
            await channel.get_queue(queue.name, ensure=True)
    except ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


async def _declare(channel: AbstractChannel, queues: tuple[Queue, ...]) -> None:
    for fanout in FANOUTS:
        await channel.declare_exchange(fanout.name, fanout.kind, durable=True)
    for queue in queues:
        exchange = await channel.declare_exchange(queue.exchange.name, queue.exchange.kind, durable=True)
        declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        await declared.bind(exchange, queue.binding)
