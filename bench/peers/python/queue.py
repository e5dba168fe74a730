"""The way to RabbitMQ, the same for the server and the consumer."""

import os

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue

QUEUE = os.environ.get("QUEUE", "readings")


async def connect() -> AbstractConnection:
    """Connect; not `connect_robust`, whose bookkeeping for reconnects costs a little and stores nothing."""
    return await aio_pika.connect(os.environ["AMQP_URL"])


async def declare_queue(channel: AbstractChannel) -> AbstractQueue:
    """Return the queue of readings, which both processes declare alike."""
    return await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
