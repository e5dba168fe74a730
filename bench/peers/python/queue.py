"""The RabbitMQ connection, shared by the server and the consumer."""

import os

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue

QUEUE = os.environ.get("QUEUE", "readings")


async def connect() -> AbstractConnection:
    """Connect; not `connect_robust`, whose bookkeeping for reconnects adds overhead without a benefit here."""
    return await aio_pika.connect(os.environ["AMQP_URL"])


async def declare_queue(channel: AbstractChannel) -> AbstractQueue:
    """Declare and return the queue of readings, identically in both processes."""
    return await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
